//! Calico's tiers and policies as its documentation words them, read from the JSON, one packet at a
//! time. Shares nothing with the compiler.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;
use vswitch_datapath::flow::ip_proto;

use super::naive::{items, pod_at};
use super::walker::Flow;
use super::world::{Labels, Pod, Policy, World};
use crate::state::ServiceAccountRecord;

/// One end of a flow, at the pod whose policies judge.
pub(super) struct End<'a> {
    pub(super) world: &'a World,
    pub(super) pod: &'a Pod,
    pub(super) flow: &'a Flow,
    /// `ingress` or `egress`.
    pub(super) direction: &'static str,
}

/// A tier: not there, order, name, whether its end passes on.
type Tier = (bool, f64, String, bool);

impl End<'_> {
    /// Tier after tier. `cluster` says what ClusterNetworkPolicies of a tier decide; NetworkPolicies
    /// isolate or not, and allow or not.
    pub(super) fn passes(
        &self,
        cluster: impl Fn(&'static str) -> Option<bool>,
        is_isolated: bool,
        is_allowed: impl Fn() -> bool,
    ) -> bool {
        for (_, _, name, passes) in self.tiers() {
            let decided = match name.as_str() {
                "kube-admin" => cluster("Admin"),
                "kube-baseline" => cluster("Baseline"),
                "default" => self.default_tier(is_isolated, &is_allowed),
                name => self.tier(name, passes),
            };
            if let Some(is_allowed) = decided {
                return is_allowed;
            }
        }
        true
    }

    fn tiers(&self) -> Vec<Tier> {
        let built_in = [
            ("kube-admin", 1_000.0, true),
            ("default", 1_000_000.0, false),
            ("kube-baseline", 10_000_000.0, true),
        ];
        let mut tiers: Vec<Tier> = built_in
            .iter()
            .map(|(name, order, passes)| (false, *order, (*name).to_owned(), *passes))
            .collect();
        for tier in &self.world.tiers {
            let order = tier.order.unwrap_or(f64::INFINITY);
            tiers.push((false, order, tier.name.clone(), tier.passes));
        }
        for policy in &self.world.calico {
            let name = tier_of(policy);
            if tiers.iter().all(|(_, _, known, _)| known != name) {
                tiers.push((true, f64::INFINITY, name.to_owned(), false));
            }
        }
        tiers.sort_by(|a, b| a.partial_cmp(b).unwrap());
        tiers
    }

    fn tier(&self, name: &str, passes: bool) -> Option<bool> {
        let policies = self.policies(name);
        match self.first_action(&policies) {
            Some("Allow") => Some(true),
            Some("Deny") => Some(false),
            Some(_) => None,
            None if policies.is_empty() || passes => None,
            None => Some(false),
        }
    }

    /// NetworkPolicies are at order 1000, and only allow.
    fn default_tier(&self, is_isolated: bool, is_allowed: impl Fn() -> bool) -> Option<bool> {
        let policies = self.policies("default");
        let is_any = is_isolated || !policies.is_empty();
        let (early, late): (Vec<&Policy>, Vec<&Policy>) = policies
            .into_iter()
            .partition(|policy| order(policy) <= 1_000.0);
        let action = self
            .first_action(&early)
            .or_else(|| is_allowed().then_some("Allow"))
            .or_else(|| self.first_action(&late));
        match action {
            Some("Allow") => Some(true),
            Some("Deny") => Some(false),
            Some(_) => None,
            None => is_any.then_some(false),
        }
    }

    /// The policies of a tier that select the pod and have the type, in order.
    fn policies(&self, tier: &str) -> Vec<&Policy> {
        let policies = self.world.calico.iter();
        let mut policies: Vec<&Policy> = policies
            .filter(|policy| tier_of(policy) == tier && self.has_type(policy))
            .filter(|policy| self.selects(policy))
            .collect();
        let text = |policy: &Policy| {
            let kind = if policy.key.namespace.is_empty() {
                "GlobalNetworkPolicy"
            } else {
                "CalicoNetworkPolicy"
            };
            format!("{}/{}/{kind}", policy.key.name, policy.key.namespace)
        };
        policies.sort_by(|a, b| {
            let orders = order(a).partial_cmp(&order(b)).unwrap();
            orders.then_with(|| text(a).cmp(&text(b)))
        });
        policies
    }

    fn has_type(&self, policy: &Policy) -> bool {
        let (ingress, egress) = (
            items(&policy.spec, "ingress"),
            items(&policy.spec, "egress"),
        );
        let types = items(&policy.spec, "types");
        let is_ingress = self.direction == "ingress";
        if types.is_empty() {
            return if is_ingress {
                egress.is_empty() || !ingress.is_empty()
            } else {
                !egress.is_empty()
            };
        }
        types.contains(&Value::from(if is_ingress { "Ingress" } else { "Egress" }))
    }

    fn selects(&self, policy: &Policy) -> bool {
        let labels = pod_labels(self.world, self.pod);
        let own = &policy.key.namespace;
        let is_in = own.is_empty() || *own == self.pod.key.namespace;
        let of_namespaces = prefixed(&policy.spec["namespaceSelector"]);
        let of_accounts = of_accounts(&policy.spec["serviceAccountSelector"]);
        is_in
            && selects(text(&policy.spec["selector"]), &labels)
            && of_accounts.is_none_or(|selector| selects(&selector, &labels))
            && (own.is_empty().then_some(of_namespaces).flatten())
                .is_none_or(|selector| selects(&selector, &labels))
    }

    /// The action of the first rule that matches; Log goes on.
    fn first_action(&self, policies: &[&Policy]) -> Option<&'static str> {
        let mut rules = policies.iter().flat_map(|policy| {
            let rules = items(&policy.spec, self.direction);
            rules.iter().map(|rule| (*policy, rule))
        });
        rules.find_map(|(policy, rule)| {
            let action = match rule["action"].as_str() {
                Some("Allow") => "Allow",
                Some("Deny") => "Deny",
                Some("Pass") => "Pass",
                _ => return None,
            };
            let is_unserved = !rule["http"].is_null() || !rule["source"]["services"].is_null();
            if is_unserved {
                return (action != "Allow").then_some("Deny");
            }
            self.matches(policy, rule).then_some(action)
        })
    }

    fn matches(&self, policy: &Policy, rule: &Value) -> bool {
        let flow = self.flow;
        let version = if flow.src.is_ipv4() { 4 } else { 6 };
        let (source_port, port) = flow.transport();
        (rule["ipVersion"].is_null() || rule["ipVersion"] == version)
            && (rule["protocol"].is_null() || protocol(&rule["protocol"]) == flow.proto)
            && (rule["notProtocol"].is_null() || protocol(&rule["notProtocol"]) != flow.proto)
            && (rule["icmp"].is_null() || self.is_icmp(&rule["icmp"]))
            && (rule["notICMP"].is_null() || !self.is_icmp(&rule["notICMP"]))
            && self.end_matches(policy, &rule["source"], flow.src, (source_port, false))
            && self.end_matches(policy, &rule["destination"], flow.dst, (port, true))
    }

    fn is_icmp(&self, icmp: &Value) -> bool {
        let (kind, code) = self.flow.transport();
        icmp["type"] == kind && (icmp["code"].is_null() || icmp["code"] == code)
    }

    fn end_matches(
        &self,
        policy: &Policy,
        end: &Value,
        ip: IpAddr,
        (port, is_destination): (u16, bool),
    ) -> bool {
        let is_subject = (self.direction == "ingress") == is_destination;
        let here = self.at(ip, is_subject);
        let own = Some(&policy.key.namespace).filter(|own| !own.is_empty());
        let has = |field: &str| !end[field].is_null();
        let mut positive: Vec<String> = Vec::new();
        if has("selector") {
            positive.push(text(&end["selector"]).to_owned());
        }
        if has("serviceAccounts") {
            let names: Vec<String> = items(&end["serviceAccounts"], "names")
                .iter()
                .map(|name| format!("'{}'", text(name)))
                .collect();
            let by_name = format!(
                "projectcalico.org/serviceaccount in {{{}}}",
                names.join(",")
            );
            positive.extend((!names.is_empty()).then_some(by_name));
            positive.extend(of_accounts(&end["serviceAccounts"]["selector"]));
        }
        if let Some(selector) = prefixed(&end["namespaceSelector"]) {
            positive.push(selector);
        } else if let Some(own) = own
            && (!positive.is_empty() || has("notSelector"))
        {
            positive.push(format!("projectcalico.org/namespace == '{own}'"));
        }
        let not = has("notSelector").then(|| text(&end["notSelector"]));
        let is_not = |labels: &Labels| not.is_some_and(|not| selects(not, labels));
        let is_positive = |labels: &Labels| positive.iter().all(|one| selects(one, labels));
        let is_member = if positive.is_empty() {
            !here.iter().any(is_not)
        } else {
            here.iter()
                .any(|labels| is_positive(labels) && !is_not(labels))
        };
        let contains = |net: &Value| {
            let net = text(net);
            let whole = if net.contains('/') {
                net.to_owned()
            } else {
                IpNet::from(net.parse::<IpAddr>().unwrap()).to_string()
            };
            whole.parse::<IpNet>().unwrap().trunc().contains(&ip)
        };
        let is_family = |field: &str| {
            let nets = items(end, field);
            let mut families = nets.iter().map(|net| text(net).contains(':'));
            nets.is_empty() || families.any(|is_ipv6| is_ipv6 == ip.is_ipv6())
        };
        let nets = items(end, "nets");
        is_member
            && (nets.is_empty() || nets.iter().any(contains))
            && is_family("notNets")
            && !items(end, "notNets").iter().any(contains)
            && self.port_matches(end, port, || {
                // A name is one of the ports of a pod that the selectors mean, not of one beside
                // which a network set has its address.
                let pod = if is_subject {
                    Some(self.pod)
                } else {
                    pod_at(self.world, ip)
                };
                pod.filter(|pod| {
                    let labels = pod_labels(self.world, pod);
                    is_positive(&labels) && !is_not(&labels)
                })
            })
    }

    /// The labels of whoever has an address; of the subject only its own count.
    fn at(&self, ip: IpAddr, is_subject: bool) -> Vec<Labels> {
        if is_subject {
            return vec![pod_labels(self.world, self.pod)];
        }
        let pod = pod_at(self.world, ip).map(|pod| pod_labels(self.world, pod));
        let sets = self.world.network_sets.iter();
        let sets = sets.filter(|set| set.nets.iter().any(|net| net.contains(&ip)));
        let sets = sets.map(|set| with_namespace(self.world, &set.labels, &set.key.namespace));
        pod.into_iter().chain(sets).collect()
    }

    fn port_matches<'p>(
        &self,
        end: &Value,
        port: u16,
        named_by: impl Fn() -> Option<&'p Pod>,
    ) -> bool {
        let proto = self.flow.proto;
        let has_ports = [ip_proto::TCP, ip_proto::UDP, ip_proto::SCTP].contains(&proto);
        let is_number = |value: &Value| {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            let (first, last) = text.split_once(':').unwrap_or((&text, &text));
            let range = first.parse::<u16>().ok().zip(last.parse::<u16>().ok());
            range.map(|(first, last)| (first..=last).contains(&port))
        };
        let is_named = |name: &str| {
            named_by().is_some_and(|pod| {
                let mut ports = pod.ports.iter();
                ports.any(|p| p.0 == name && (p.1, p.2) == (port, proto))
            })
        };
        let is_meant = |value: &Value| is_number(value).unwrap_or_else(|| is_named(text(value)));
        let (ports, not) = (items(end, "ports"), items(end, "notPorts"));
        (ports.is_empty() || (has_ports && ports.iter().any(is_meant)))
            && (not.is_empty() || (has_ports && !not.iter().any(is_meant)))
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn order(policy: &Policy) -> f64 {
    policy.spec["order"].as_f64().unwrap_or(f64::INFINITY)
}

fn tier_of(policy: &Policy) -> &str {
    policy.spec["tier"].as_str().unwrap_or("default")
}

fn protocol(value: &Value) -> u8 {
    match value.as_str() {
        Some("TCP") => ip_proto::TCP,
        Some("UDP") => ip_proto::UDP,
        Some("ICMP") => ip_proto::ICMP,
        Some(_) => ip_proto::SCTP,
        None => u8::try_from(value.as_u64().unwrap()).unwrap(),
    }
}

fn pod_labels(world: &World, pod: &Pod) -> Labels {
    let mut labels = with_namespace(world, &pod.labels, &pod.key.namespace);
    labels.insert("projectcalico.org/orchestrator".into(), "k8s".into());
    labels.insert(
        "projectcalico.org/serviceaccount".into(),
        pod.service_account.clone(),
    );
    let is_its = |account: &&ServiceAccountRecord| {
        account.key.namespace == pod.key.namespace && account.key.name == pod.service_account
    };
    let account = world.accounts.iter().find(is_its);
    for (key, value) in account.iter().flat_map(|account| &account.labels) {
        labels.insert(format!("pcsa.{key}"), value.clone());
    }
    labels
}

fn with_namespace(world: &World, own: &Labels, namespace: &str) -> Labels {
    let mut labels = own.clone();
    if namespace.is_empty() {
        return labels;
    }
    for (key, value) in world.namespaces.get(namespace).into_iter().flatten() {
        labels.insert(format!("pcns.{key}"), value.clone());
    }
    labels.insert("pcns.projectcalico.org/name".into(), namespace.into());
    labels.insert("projectcalico.org/namespace".into(), namespace.into());
    labels
}

/// A namespaceSelector as one on the labels that it gives what is in it.
fn prefixed(selector: &Value) -> Option<String> {
    let text = selector.as_str()?;
    Some(match text {
        "all()" => "has(projectcalico.org/namespace)".to_owned(),
        "global()" => "!has(projectcalico.org/namespace)".to_owned(),
        text => text.replace("a ", "pcns.a ").replace("(b)", "(pcns.b)"),
    })
}

/// A selector of service accounts as one on the labels that they give their pods.
fn of_accounts(selector: &Value) -> Option<String> {
    let text = selector.as_str()?;
    Some(match text {
        "all()" => "has(projectcalico.org/serviceaccount)".to_owned(),
        text => text.replace("a ", "pcsa.a ").replace("(b)", "(pcsa.b)"),
    })
}

/// `||` of `&&` of plain comparisons, without parentheses around them.
fn selects(selector: &str, labels: &Labels) -> bool {
    selector
        .split(" || ")
        .any(|all| all.split(" && ").all(|one| plain(one, labels)))
}

fn plain(comparison: &str, labels: &Labels) -> bool {
    if let Some(rest) = comparison.strip_prefix('!') {
        return !plain(rest, labels);
    }
    if comparison.is_empty() || comparison == "all()" {
        return true;
    }
    if let Some(label) = comparison.strip_prefix("has(") {
        return labels.contains_key(label.trim_end_matches(')'));
    }
    let (label, rest) = comparison.split_once(' ').unwrap();
    let value = labels.get(label);
    let quoted: Vec<&str> = rest.split('\'').skip(1).step_by(2).collect();
    let is_listed = value.is_some_and(|value| quoted.contains(&value.as_str()));
    let (operator, _) = rest.split_once(['\'', '{']).unwrap();
    match operator.trim() {
        "==" | "in" => is_listed,
        "!=" | "not in" => !is_listed,
        "contains" => value.is_some_and(|value| value.contains(quoted[0])),
        "starts with" => value.is_some_and(|value| value.starts_with(quoted[0])),
        "ends with" => value.is_some_and(|value| value.ends_with(quoted[0])),
        other => panic!("{other}"),
    }
}
