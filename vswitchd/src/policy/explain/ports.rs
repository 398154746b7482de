//! Whether a rule's ports match, and what they want if they do not.

use std::collections::BTreeSet;
use std::fmt;

use k8s_openapi::api::networking::v1::NetworkPolicyPort;
use vswitch_datapath::flow::{PortRange, ip_proto};

use super::super::ports::PortDemand;
use super::{PortAdvice, PortMismatch, protocol_name};
use crate::state::PodRecord;

/// What of the packet ports are held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    /// IP protocol number.
    pub(super) protocol: u8,
    /// Destination port.
    pub(super) port: u16,
}

/// Where named ports of a rule resolve.
#[derive(Debug, Clone, Copy)]
pub(super) enum NamesAt<'a> {
    /// At this pod.
    Pod(&'a PodRecord),
    /// At no pod.
    Nowhere,
}

/// Ports that do not match.
#[derive(Debug)]
pub(super) struct PortMiss {
    /// In words.
    pub(super) mismatch: PortMismatch,
    /// Everything that would match.
    pub(super) wanted: Vec<PortAdvice>,
}

/// Returns the part of the rule that matches (`.ports[0]`; nothing if it names no port).
pub(super) fn fit(
    ports: &[NetworkPolicyPort],
    asked: Asked,
    names: NamesAt<'_>,
) -> Result<String, PortMiss> {
    if ports.is_empty() {
        return Ok(String::new());
    }
    let mut wanted = Vec::new();
    let mut texts: Vec<String> = Vec::new();
    for (index, written) in ports.iter().enumerate() {
        let (choices, text) = match PortDemand::parse(written) {
            Ok(demand) => understood(&demand, names),
            Err(error) => (
                Vec::new(),
                format!("ports[{index}] (not understood: {error})"),
            ),
        };
        if choices.iter().any(|choice| choice.covers(asked)) {
            return Ok(format!(".ports[{index}]"));
        }
        wanted.extend(choices);
        texts.push(text);
    }
    Err(PortMiss {
        mismatch: PortMismatch {
            asked: asked.to_string(),
            wanted: texts.join(" or "),
        },
        wanted,
    })
}

/// Returns what a demand comes down to, and its words.
fn understood(demand: &PortDemand, names: NamesAt<'_>) -> (Vec<PortAdvice>, String) {
    let (protocol, ports) = match demand {
        PortDemand::Protocol(protocol) => (*protocol, None),
        PortDemand::Range(protocol, range) => (*protocol, Some(*range)),
        PortDemand::Named(protocol, name) => return named(*protocol, name, names),
    };
    let choice = PortAdvice { protocol, ports };
    (vec![choice], choice.to_string())
}

fn named(protocol: u8, name: &str, names: NamesAt<'_>) -> (Vec<PortAdvice>, String) {
    let protocol_text = protocol_name(protocol);
    let NamesAt::Pod(pod) = names else {
        let text = format!("{name} ({protocol_text}, a name that only a pod can resolve)");
        return (Vec::new(), text);
    };
    let these = pod.named_ports.iter();
    let numbers: BTreeSet<u16> = these
        .filter(|port| port.proto == protocol && port.name == name)
        .map(|port| port.port)
        .collect();
    if numbers.is_empty() {
        let text = format!(
            "{name} ({protocol_text}, which pod {} does not have)",
            pod.key
        );
        return (Vec::new(), text);
    }
    let texts: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    let text = format!(
        "{name} ({protocol_text} {} at pod {})",
        texts.join(", "),
        pod.key
    );
    let choice = |number| PortAdvice {
        protocol,
        ports: Some(PortRange {
            first: number,
            last: number,
        }),
    };
    (numbers.into_iter().map(choice).collect(), text)
}

impl PortAdvice {
    fn covers(self, asked: Asked) -> bool {
        let in_range = |PortRange { first, last }| (first..=last).contains(&asked.port);
        self.protocol == asked.protocol && self.ports.is_none_or(in_range)
    }

    /// Returns a packet that takes the advice.
    pub(super) fn taken(self, asked: Asked) -> Asked {
        Asked {
            protocol: self.protocol,
            port: self.ports.map_or(asked.port, |range| range.first),
        }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = protocol_name(self.protocol);
        if ip_proto::has_ports(self.protocol) {
            write!(f, "{protocol} port {}", self.port)
        } else {
            f.write_str(&protocol)
        }
    }
}
