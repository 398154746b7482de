//! What is said of a captured packet: the verdict, who decided, by which rules.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use vswitch_api::PortNo;
use vswitch_datapath::capture::{CapturedPacket, Outcome, Way};
use vswitch_datapath::pipeline::Rule;
use vswitch_datapath::{DropReason, Verdict};

use crate::policy::{deciding_policies, denial};

/// Names of ports, for people.
pub(super) type PortNames = BTreeMap<PortNo, String>;

/// Returns the comment on a packet, one line; `rules` are those that led to its verdict.
pub(super) fn comment(packet: &CapturedPacket, rules: &[Arc<Rule>], names: &PortNames) -> String {
    let (in_port, verdict) = match packet.outcome {
        Outcome::Made => return "made by the switch".to_owned(),
        Outcome::Fragment => return "fragment of a forwarded packet".to_owned(),
        Outcome::Decided { in_port, verdict } => (in_port, verdict),
    };
    let mut text = match (verdict, packet.way) {
        (Verdict::Forward(to), Way::Outbound) => {
            format!(
                "forwarded to {}: {}",
                name(to, names),
                allowed(packet, rules)
            )
        }
        (Verdict::Forward(_), Way::Inbound) => {
            format!(
                "forwarded from {}: {}",
                name(in_port, names),
                allowed(packet, rules)
            )
        }
        (Verdict::InFragments, _) => format!("forwarded in fragments: {}", allowed(packet, rules)),
        (Verdict::Answered, _) => "answered by the switch".to_owned(),
        (Verdict::Held, _) => "held until the first fragment of its datagram comes".to_owned(),
        (Verdict::Taken, _) => "answers a probe of the switch, and goes no further".to_owned(),
        (Verdict::Drop(reason), _) => dropped(reason, rules),
    };
    for rule in rules {
        let origin = &rule.origin;
        let _ = write!(text, "; rule {}: {}", rule.table, origin.kind);
        for part in [&origin.name, &origin.part] {
            if !part.is_empty() {
                let _ = write!(text, " {part}");
            }
        }
    }
    text
}

fn name(port: PortNo, names: &PortNames) -> String {
    let known = names.get(&port).filter(|name| !name.is_empty());
    known.map_or_else(|| format!("port {port}"), String::clone)
}

fn allowed(packet: &CapturedPacket, rules: &[Arc<Rule>]) -> String {
    let policies = deciding_policies(rules);
    let by = if policies.is_empty() {
        "no policy isolates the pods".to_owned()
    } else {
        format!("allowed by {}", policies.join(", "))
    };
    if packet.decision.is_reply {
        format!("answers a connection, {by}")
    } else {
        by
    }
}

fn dropped(reason: DropReason, rules: &[Arc<Rule>]) -> String {
    let policies = deciding_policies(rules);
    let name = reason.name();
    match reason {
        DropReason::PolicyIngress if !policies.is_empty() => {
            format!("dropped ({name}): {}", denial("receiver", &policies))
        }
        DropReason::PolicyEgress if !policies.is_empty() => {
            format!("dropped ({name}): {}", denial("sender", &policies))
        }
        reason => format!("dropped ({name}): {}", reason.help().trim()),
    }
}

#[cfg(test)]
mod tests {
    use vswitch_api::{Cookie, Priority};
    use vswitch_datapath::Timestamp;
    use vswitch_datapath::capture::Decision;
    use vswitch_datapath::pipeline::{Origin, RuleId, TableId};

    use super::*;

    fn packet(verdict: Verdict, way: Way) -> CapturedPacket {
        let in_port = PortNo(1);
        CapturedPacket {
            time: Timestamp::default(),
            way,
            len: 0,
            bytes: Vec::new(),
            outcome: Outcome::Decided { in_port, verdict },
            decision: Decision::default(),
        }
    }

    fn rule(table: TableId, part: &str) -> Arc<Rule> {
        Arc::new(Rule {
            id: RuleId(1),
            table,
            priority: Priority(1),
            matches: "".parse().unwrap(),
            actions: Vec::new(),
            cookie: Cookie(0),
            origin: Arc::new(Origin {
                kind: "NetworkPolicy",
                name: "default/web".to_owned(),
                part: part.to_owned(),
            }),
        })
    }

    fn names() -> PortNames {
        let named = [(1, "default/client"), (2, "default/server")];
        named.map(|(no, name)| (PortNo(no), name.to_owned())).into()
    }

    #[test]
    fn what_is_forwarded_names_the_other_end_and_who_allows_it() {
        let to_server = Verdict::Forward(PortNo(2));
        let rules = [rule(TableId::IngressRule, "ingress[0]")];
        assert_eq!(
            comment(&packet(to_server, Way::Outbound), &rules, &names()),
            "forwarded to default/server: allowed by default/web; \
             rule IngressRule: NetworkPolicy default/web ingress[0]"
        );
        let mut answer = packet(to_server, Way::Inbound);
        answer.decision.is_reply = true;
        assert_eq!(
            comment(&answer, &[], &names()),
            "forwarded from default/client: answers a connection, no policy isolates the pods"
        );
    }

    #[test]
    fn what_is_dropped_says_why_and_by_whom() {
        let denied = packet(Verdict::Drop(DropReason::PolicyIngress), Way::Inbound);
        let rules = [rule(TableId::IngressDefault, "isolation")];
        assert_eq!(
            comment(&denied, &rules, &names()),
            "dropped (policy_ingress): the receiver is isolated by default/web, and no rule allows it; \
             rule IngressDefault: NetworkPolicy default/web isolation"
        );
        let spoofed = packet(Verdict::Drop(DropReason::Spoofed), Way::Outbound);
        let said = comment(&spoofed, &[], &names());
        assert!(said.starts_with("dropped (spoofed): A pod used"), "{said}");
    }
}
