//! Allowed connections that have begun or ended, counted together where they are alike.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use vswitch_api::PortNo;
use vswitch_api::v1::{FlowCount, FlowOf, FlowTraffic};
use vswitch_datapath::flow::ip_proto;
use vswitch_datapath::pipeline::{Rule, RuleId, TableId};
use vswitch_datapath::{ConnectionEnd, NotedConnection, Timestamp};

use super::minute::Counted;
use super::record::{Names, has_number, rule_of};
use crate::policy::deciding_policies;
use crate::policy::explain::protocol_name;

/// How records of allowed connections are told from others.
pub(super) const ALLOWED: &str = "allowed";

/// What connections that are alike have in common.
#[derive(Debug, Clone)]
pub(super) struct Kind {
    alike: Alike,
    rules: Option<Vec<Arc<Rule>>>,
    /// They are kept, not only told to followers.
    pub(super) is_sample: bool,
}

/// The same without the rules themselves, which are long.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Alike {
    ports: (PortNo, PortNo),
    /// Who began, and with whom, behind Services.
    ends: (IpAddr, IpAddr),
    proto: u8,
    /// Destination port or ICMP type.
    number: u16,
    service: Option<(IpAddr, u16)>,
    /// `None`: they have begun.
    end: Option<ConnectionEnd>,
    rules: Option<Vec<RuleId>>,
}

impl Alike {
    fn of(connection: &NotedConnection) -> Self {
        let (original, forwarded) = (&connection.original, &connection.forwarded);
        let proto = original.proto;
        let is_icmp = ip_proto::is_icmp(proto);
        let is_to_service = original.dst != forwarded.dst && !is_icmp;
        let rules = connection.rules.as_ref();
        Self {
            ports: connection.ports,
            ends: (original.src, forwarded.dst),
            proto,
            number: if is_icmp {
                original.icmp_type.into()
            } else {
                forwarded.tp_dst
            },
            service: is_to_service.then_some((original.dst, original.tp_dst)),
            end: connection.end,
            rules: rules.map(|rules| rules.iter().map(|rule| rule.id).collect()),
        }
    }
}

/// Counts connections that are alike together.
pub(super) fn alike(
    connections: Vec<NotedConnection>,
    at: impl Fn(Timestamp) -> u64,
) -> Vec<(Kind, Counted)> {
    let mut places = HashMap::<(Alike, bool), usize>::new();
    let mut kinds: Vec<(Kind, Counted)> = Vec::new();
    for connection in connections {
        let counted = counted(&connection, &at);
        let (alike, is_sample) = (Alike::of(&connection), connection.is_sample);
        let place = *places
            .entry((alike.clone(), is_sample))
            .or_insert(kinds.len());
        if let Some((_, sum)) = kinds.get_mut(place) {
            sum.add(&counted);
            continue;
        }
        let rules = connection.rules;
        let kind = Kind {
            alike,
            rules,
            is_sample,
        };
        kinds.push((kind, counted));
    }
    kinds
}

fn counted(connection: &NotedConnection, at: impl Fn(Timestamp) -> u64) -> Counted {
    let count = |(packets, bytes)| FlowCount { packets, bytes };
    let duration = connection.last.since(connection.started);
    let traffic = FlowTraffic {
        sent: count(connection.sent),
        received: count(connection.received),
        duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
    };
    Counted {
        packets: 0,
        connections: 1,
        first: at(connection.started),
        last: at(connection.at),
        explanation: None,
        // What one carried that has just begun, the record of its end tells.
        traffic: connection.end.map(|_| traffic),
    }
}

impl Kind {
    /// Returns what they have in common, by the names of today.
    pub(super) fn flow(&self, names: &Names<'_>) -> FlowOf {
        let alike = &self.alike;
        let rules = self.rules.as_deref().unwrap_or_default();
        let reason = match &self.rules {
            None => "unknown",
            Some(rules) if rules.is_empty() => "not_isolated",
            Some(_) => "policy",
        };
        let direction = match rules {
            [only] if only.table < TableId::Forward => Some("egress"),
            [_] => Some("ingress"),
            _ => None,
        };
        let service = alike.service.map(|(ip, port)| match ip {
            IpAddr::V4(ip) => format!("{ip}:{port}"),
            IpAddr::V6(ip) => format!("[{ip}]:{port}"),
        });
        let event = alike.end.map_or("begin", |_| "end");
        FlowOf {
            verdict: ALLOWED.to_owned(),
            reason: reason.to_owned(),
            direction: direction.map(str::to_owned),
            source: Some(names.end(alike.ports.0, alike.ends.0)),
            destination: Some(names.end(alike.ports.1, alike.ends.1)),
            service,
            protocol: Some(protocol_name(alike.proto)),
            port: has_number(alike.proto).then_some(alike.number),
            policies: deciding_policies(rules),
            rule: None,
            allowed_by: rules.iter().map(rule_of).collect(),
            end: alike.end.map(|end| end_name(end).to_owned()),
            event: Some(event.to_owned()),
        }
    }
}

/// Returns the record of beginnings and ends that there was no room to note.
pub(super) fn lost(connections: u64, now: u64) -> (FlowOf, Counted) {
    let of = FlowOf {
        verdict: ALLOWED.to_owned(),
        reason: "lost".to_owned(),
        direction: None,
        source: None,
        destination: None,
        service: None,
        protocol: None,
        port: None,
        policies: Vec::new(),
        rule: None,
        allowed_by: Vec::new(),
        end: None,
        event: None,
    };
    let counted = Counted {
        packets: 0,
        connections,
        first: now,
        last: now,
        explanation: None,
        traffic: None,
    };
    (of, counted)
}

const fn end_name(end: ConnectionEnd) -> &'static str {
    match end {
        ConnectionEnd::Fin => "fin",
        ConnectionEnd::Reset => "rst",
        ConnectionEnd::Timeout => "timeout",
        ConnectionEnd::Evicted => "evicted",
        ConnectionEnd::Cut => "cut",
        ConnectionEnd::Replaced => "replaced",
        ConnectionEnd::Detached => "detached",
    }
}
