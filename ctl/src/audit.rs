//! What policies in audit would have denied, and the rules that would admit it.

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use vswitch_api::v1::{AuditEnd, AuditEntry, AuditPods};

use crate::output::{Format, columns, print, write_out, yaml};
use crate::server::Server;

/// Arguments of `vsctl audit`.
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// Only what this policy would have denied: as `vsctl get policies` names it.
    policy: Option<String>,

    /// Write the rules that would admit it, as YAML, for each policy.
    #[arg(long)]
    suggest: bool,
}

/// Shows the entries, or rules that would admit them.
pub(crate) fn audit(server: &Server, args: &AuditArgs, format: Format) -> Result<()> {
    let path = match &args.policy {
        Some(policy) => format!("/v1/audit?policy={}", query_value(policy)),
        None => "/v1/audit".to_owned(),
    };
    let entries: Vec<AuditEntry> = server.get(&path)?;
    if !args.suggest {
        return print(format, &entries, || table(&entries));
    }
    let rules = suggestions(&entries, args.policy.as_deref());
    match format {
        Format::Json | Format::Jsonl => {
            let rules: Vec<Value> = rules.iter().map(Suggestion::as_json).collect();
            print(format, &rules, String::new)
        }
        Format::Table | Format::Wide | Format::Yaml => {
            for suggestion in &rules {
                write_out(&suggestion.as_text()?)?;
            }
            Ok(())
        }
    }
}

/// Percent-encodes what may not stand in a query (RFC 3986 section 3.4).
fn query_value(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte);
    let encoded = text.bytes().map(|byte| {
        if plain(byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    });
    encoded.collect()
}

fn table(entries: &[AuditEntry]) -> String {
    let rows = entries.iter().map(|of| {
        [
            of.policies.join(", "),
            of.direction.clone(),
            of.subject
                .as_ref()
                .map_or_else(|| "-".to_owned(), pods_text),
            peer_text(&of.peer),
            port_text(of),
            of.connections.to_string(),
            of.first.clone(),
            of.last.clone(),
        ]
    });
    let header = [
        "POLICY",
        "DIRECTION",
        "PODS",
        "PEER",
        "PORT",
        "CONNECTIONS",
        "FIRST",
        "LAST",
    ];
    columns(&header, rows)
}

fn pods_text(pods: &AuditPods) -> String {
    let labels: Vec<String> = pods
        .labels
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    format!("{}[{}]", pods.namespace, labels.join(","))
}

fn peer_text(peer: &AuditEnd) -> String {
    match peer {
        AuditEnd::Pods(pods) => pods_text(pods),
        AuditEnd::Address(address) => address.to_string(),
        AuditEnd::Various => "various".to_owned(),
    }
}

fn port_text(of: &AuditEntry) -> String {
    let protocol = of.protocol.clone().unwrap_or_else(|| "-".to_owned());
    match of.port {
        Some(number) if protocol.starts_with("ICMP") => format!("{protocol} type {number}"),
        Some(port) => format!("{protocol} {port}"),
        None => protocol,
    }
}

/// The rules that one policy lacks.
#[derive(Debug, PartialEq)]
struct Suggestion {
    policy: String,
    ingress: Vec<Value>,
    egress: Vec<Value>,
    /// What no rule can say.
    unsaid: Vec<String>,
}

/// Returns for each policy what it lacks. Of policies that isolate together each would be enough:
/// the first is shown, unless one is asked for.
fn suggestions(entries: &[AuditEntry], wanted: Option<&str>) -> Vec<Suggestion> {
    let mut all: Vec<Suggestion> = Vec::new();
    for entry in entries {
        let Some(policy) = wanted.or(entry.policies.first().map(String::as_str)) else {
            continue;
        };
        let at = all.iter().position(|of| of.policy == policy);
        let at = at.unwrap_or_else(|| {
            all.push(Suggestion {
                policy: policy.to_owned(),
                ingress: Vec::new(),
                egress: Vec::new(),
                unsaid: Vec::new(),
            });
            all.len() - 1
        });
        let Some(suggestion) = all.get_mut(at) else {
            continue;
        };
        match rule(policy, entry) {
            Some(rule) => {
                let rules = if entry.direction == "ingress" {
                    &mut suggestion.ingress
                } else {
                    &mut suggestion.egress
                };
                if !rules.contains(&rule) {
                    rules.push(rule);
                }
            }
            None => suggestion.unsaid.push(format!(
                "{} {} {}",
                entry.direction,
                peer_text(&entry.peer),
                port_text(entry)
            )),
        }
    }
    all
}

/// Kinds of which the texts of policies begin with the kind.
const OLDER: [&str; 2] = ["AdminNetworkPolicy ", "BaselineAdminNetworkPolicy "];

/// Returns the rule that admits what an entry is about, in the words of the policy's kind.
fn rule(policy: &str, entry: &AuditEntry) -> Option<Value> {
    if policy.starts_with("calico:") {
        calico_rule(entry)
    } else if OLDER.iter().any(|kind| policy.starts_with(kind)) {
        admin_policy_rule(entry)
    } else if policy.contains('/') {
        network_policy_rule(entry)
    } else {
        cluster_policy_rule(entry)
    }
}

fn has_ports(protocol: &str) -> bool {
    ["TCP", "UDP", "SCTP"].contains(&protocol)
}

fn single(address: std::net::IpAddr) -> String {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    format!("{address}/{bits}")
}

fn of_namespace(pods: &AuditPods) -> Value {
    json!({ "matchLabels": { "kubernetes.io/metadata.name": pods.namespace } })
}

fn network_policy_rule(entry: &AuditEntry) -> Option<Value> {
    let protocol = entry.protocol.as_deref().filter(|name| has_ports(name))?;
    let peer = match &entry.peer {
        AuditEnd::Pods(pods) => json!({
            "namespaceSelector": of_namespace(pods),
            "podSelector": { "matchLabels": pods.labels },
        }),
        AuditEnd::Address(address) => json!({ "ipBlock": { "cidr": single(*address) } }),
        AuditEnd::Various => return None,
    };
    let peers = peers_field(entry);
    Some(json!({ peers: [peer], "ports": [{ "protocol": protocol, "port": entry.port? }] }))
}

fn admin_policy_rule(entry: &AuditEntry) -> Option<Value> {
    let protocol = entry.protocol.as_deref().filter(|name| has_ports(name))?;
    let port = json!({ "portNumber": { "protocol": protocol, "port": entry.port? } });
    let peer = cluster_peer(entry)?;
    Some(json!({ "action": "Allow", peers_field(entry): [peer], "ports": [port] }))
}

fn cluster_policy_rule(entry: &AuditEntry) -> Option<Value> {
    let protocol = entry.protocol.as_deref().filter(|name| has_ports(name))?;
    let port = json!({ "destinationPort": { "number": entry.port? } });
    let peer = cluster_peer(entry)?;
    Some(json!({
        "action": "Accept",
        peers_field(entry): [peer],
        "protocols": [{ protocol.to_lowercase(): port }],
    }))
}

/// A peer as all kinds of policies of the cluster write it.
fn cluster_peer(entry: &AuditEntry) -> Option<Value> {
    Some(match &entry.peer {
        AuditEnd::Pods(pods) => json!({ "pods": {
            "namespaceSelector": of_namespace(pods),
            "podSelector": { "matchLabels": pods.labels },
        } }),
        // Ingress knows pods only.
        AuditEnd::Address(address) if entry.direction == "egress" => {
            json!({ "networks": [single(*address)] })
        }
        AuditEnd::Address(_) | AuditEnd::Various => return None,
    })
}

fn calico_rule(entry: &AuditEntry) -> Option<Value> {
    let protocol = entry.protocol.as_deref()?;
    let peer = match &entry.peer {
        AuditEnd::Pods(pods) => {
            let labels = pods.labels.iter();
            let labels: Vec<String> = labels.map(|(k, v)| format!("{k} == '{v}'")).collect();
            let selector = if labels.is_empty() {
                "all()".to_owned()
            } else {
                labels.join(" && ")
            };
            json!({
                "namespaceSelector": format!("projectcalico.org/name == '{}'", pods.namespace),
                "selector": selector,
            })
        }
        AuditEnd::Address(address) => json!({ "nets": [single(*address)] }),
        AuditEnd::Various => return None,
    };
    let number = protocol.parse::<u8>();
    let mut rule = json!({ "action": "Allow", "protocol": protocol });
    if let Ok(number) = number {
        rule["protocol"] = json!(number);
    }
    let (peer_at, subject_at) = if entry.direction == "ingress" {
        ("source", "destination")
    } else {
        ("destination", "source")
    };
    rule[peer_at] = peer;
    if has_ports(protocol) {
        let destination = if entry.direction == "ingress" {
            subject_at
        } else {
            peer_at
        };
        rule[destination]["ports"] = json!([entry.port?]);
    } else if let Some(kind) = entry.port {
        rule["icmp"] = json!({ "type": kind });
    }
    Some(rule)
}

fn peers_field(entry: &AuditEntry) -> &'static str {
    if entry.direction == "ingress" {
        "from"
    } else {
        "to"
    }
}

impl Suggestion {
    fn as_json(&self) -> Value {
        let mut rules = json!({ "policy": self.policy });
        for (field, list) in [("ingress", &self.ingress), ("egress", &self.egress)] {
            if !list.is_empty() {
                rules[field] = json!(list);
            }
        }
        if !self.unsaid.is_empty() {
            rules["unsaid"] = json!(self.unsaid);
        }
        rules
    }

    /// Rules as they stand in `spec`, below comments.
    fn as_text(&self) -> Result<String> {
        let is_tiered = self.policy.starts_with("calico:") || !self.policy.contains('/');
        let place = if is_tiered {
            "before the rules there"
        } else {
            "beside the rules there"
        };
        let mut text = format!("# spec of {}, {place}\n", self.policy);
        for unsaid in &self.unsaid {
            text.push_str(&format!("# no rule of this kind admits: {unsaid}\n"));
        }
        let mut rules = self.as_json();
        if let Some(rules) = rules.as_object_mut() {
            rules.remove("policy");
            rules.remove("unsaid");
        }
        if rules.as_object().is_some_and(|rules| !rules.is_empty()) {
            text.push_str(&yaml(&rules)?);
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn entry(policy: &str, direction: &str, peer: AuditEnd) -> AuditEntry {
        AuditEntry {
            verdict: "would_deny".to_owned(),
            policies: vec![policy.to_owned(), "default/other".to_owned()],
            direction: direction.to_owned(),
            subject: Some(client()),
            peer,
            protocol: Some("TCP".to_owned()),
            port: Some(80),
            connections: 3,
            first: "2026-01-01T00:00:00Z".to_owned(),
            last: "2026-01-01T00:00:09Z".to_owned(),
        }
    }

    fn client() -> AuditPods {
        AuditPods {
            namespace: "shop".to_owned(),
            labels: BTreeMap::from([("app".to_owned(), "client".to_owned())]),
        }
    }

    fn only(entry: AuditEntry) -> Value {
        let suggestions = suggestions(&[entry.clone(), entry], None);
        assert_eq!(suggestions.len(), 1);
        suggestions[0].as_json()
    }

    #[test]
    fn rules_are_in_the_words_of_the_policy_s_kind() {
        let pods = || AuditEnd::Pods(client());
        let of_shop = json!({ "matchLabels": { "kubernetes.io/metadata.name": "shop" } });
        let clients = json!({ "matchLabels": { "app": "client" } });
        assert_eq!(
            only(entry("default/web", "ingress", pods())),
            json!({ "policy": "default/web", "ingress": [{
                "from": [{ "namespaceSelector": of_shop, "podSelector": clients }],
                "ports": [{ "protocol": "TCP", "port": 80 }],
            }] })
        );
        assert_eq!(
            only(entry("guard", "egress", pods())),
            json!({ "policy": "guard", "egress": [{
                "action": "Accept",
                "to": [{ "pods": { "namespaceSelector": of_shop, "podSelector": clients } }],
                "protocols": [{ "tcp": { "destinationPort": { "number": 80 } } }],
            }] })
        );
        assert_eq!(
            only(entry("AdminNetworkPolicy guard", "ingress", pods()))["ingress"],
            json!([{
                "action": "Allow",
                "from": [{ "pods": { "namespaceSelector": of_shop, "podSelector": clients } }],
                "ports": [{ "portNumber": { "protocol": "TCP", "port": 80 } }],
            }])
        );
        assert_eq!(
            only(entry("calico:guard", "ingress", pods())),
            json!({ "policy": "calico:guard", "ingress": [{
                "action": "Allow",
                "protocol": "TCP",
                "source": {
                    "namespaceSelector": "projectcalico.org/name == 'shop'",
                    "selector": "app == 'client'",
                },
                "destination": { "ports": [80] },
            }] })
        );
        let address = AuditEnd::Address("192.0.2.1".parse().unwrap());
        assert_eq!(
            only(entry("calico:a/b", "egress", address.clone()))["egress"][0]["destination"],
            json!({ "nets": ["192.0.2.1/32"], "ports": [80] })
        );
        assert_eq!(
            only(entry("default/web", "egress", address.clone()))["egress"][0]["to"],
            json!([{ "ipBlock": { "cidr": "192.0.2.1/32" } }])
        );
        assert_eq!(
            only(entry("guard", "ingress", address))["unsaid"],
            json!(["ingress 192.0.2.1 TCP 80", "ingress 192.0.2.1 TCP 80"])
        );
    }

    #[test]
    fn of_policies_that_isolate_together_the_wanted_one_gets_the_rule() {
        let entries = [entry("default/web", "ingress", AuditEnd::Pods(client()))];
        let for_other = suggestions(&entries, Some("default/other"));
        assert_eq!(for_other.len(), 1);
        assert_eq!(for_other[0].policy, "default/other");
        assert_eq!(for_other[0].ingress.len(), 1);
    }

    #[test]
    fn what_no_rule_can_say_is_a_comment() {
        let ping = AuditEntry {
            protocol: Some("ICMP".to_owned()),
            port: Some(8),
            ..entry("default/web", "ingress", AuditEnd::Pods(client()))
        };
        let text = suggestions(std::slice::from_ref(&ping), None)[0]
            .as_text()
            .unwrap();
        assert_eq!(
            text,
            "# spec of default/web, beside the rules there\n\
             # no rule of this kind admits: ingress shop[app=client] ICMP type 8\n"
        );
        let calico = AuditEntry {
            policies: vec!["calico:web".to_owned()],
            ..ping
        };
        let rule = only(calico)["ingress"][0].clone();
        assert_eq!(
            (&rule["protocol"], &rule["icmp"]),
            (&json!("ICMP"), &json!({ "type": 8 }))
        );
    }

    #[test]
    fn a_line_says_who_where_and_how_often() {
        let table = table(&[entry("default/web", "ingress", AuditEnd::Various)]);
        let line: Vec<&str> = table.lines().last().unwrap().split_whitespace().collect();
        let expected = [
            "default/web,",
            "default/other",
            "ingress",
            "shop[app=client]",
            "various",
            "TCP",
            "80",
            "3",
            "2026-01-01T00:00:00Z",
            "2026-01-01T00:00:09Z",
        ];
        assert_eq!(line, expected, "{table}");
    }

    #[test]
    fn what_may_not_stand_in_a_query_is_encoded() {
        assert_eq!(query_value("calico:a/b"), "calico:a/b");
        assert_eq!(
            query_value("AdminNetworkPolicy x"),
            "AdminNetworkPolicy%20x"
        );
        assert_eq!(query_value("a b&c=ä"), "a%20b%26c%3D%C3%A4");
    }
}
