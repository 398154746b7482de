//! Answers as sentences for people.

use std::fmt;

use vswitch_datapath::flow::{PortRange, ip_proto};

use super::answer::{
    Advice, Ground, Labelled, MissCause, PortAdvice, PortMismatch, Relabel, RulePart,
};

impl fmt::Display for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPod { end, direction } => {
                write!(f, "{end} is no pod: no policy judges its {direction}")
            }
            Self::Node => f.write_str("the node always reaches its pods"),
            Self::HostNetwork(pod) => {
                write!(
                    f,
                    "pod {pod} is in the host's network: no policy selects it"
                )
            }
            Self::Itself => f.write_str("a pod to itself is not judged"),
            Self::Unknown(pod) => write!(f, "pod {pod} is isolated until its object is known"),
            Self::Finished(pod) => {
                write!(f, "pod {pod} has finished: its address belongs to nobody")
            }
            Self::NotIsolated { pod, direction } => {
                write!(f, "no policy isolates pod {pod} for {direction}")
            }
            Self::Allowed(rule) => write!(f, "allowed by {rule}"),
            Self::Accepted(rule) => write!(f, "accepted by {}", WithKind(rule)),
            Self::Denied(rule) => write!(f, "denied by {}", WithKind(rule)),
            Self::NoTableLeft(rule) => write!(
                f,
                "denied by {}, a Pass for which no table is left: too many tiers pass on",
                WithKind(rule)
            ),
            Self::NothingAllows { pod, direction } => {
                write!(
                    f,
                    "pod {pod} is isolated for {direction}, and no rule allows it"
                )
            }
        }
    }
}

/// A rule with the kind of its policy.
struct WithKind<'a>(&'a RulePart);

impl fmt::Display for WithKind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RulePart { policy, part } = self.0;
        write!(f, "{} {} {part}", policy.kind(), policy.name())
    }
}

impl fmt::Display for RulePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.policy, self.part)
    }
}

impl fmt::Display for MissCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRule => f.write_str("the policy has no rule in this direction"),
            Self::NotUnderstood(problem) => {
                write!(f, "not understood, therefore allows nothing: {problem}")
            }
            Self::Mismatch { peer, port } => match (peer, port) {
                (Some(peer), None) => write!(f, "port matches, peer does not: {peer}"),
                (None, Some(PortMismatch { asked, wanted })) => {
                    write!(f, "peer matches, {asked} does not: the rule wants {wanted}")
                }
                (Some(peer), Some(PortMismatch { asked, wanted })) => write!(
                    f,
                    "neither matches: {peer}; the rule wants {wanted}, not {asked}"
                ),
                (None, None) => f.write_str("matches"),
            },
        }
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Labels(relabels) => {
                f.write_str("would pass ")?;
                write_joined(f, relabels, " and ")
            }
            Self::Ports(ports) => {
                f.write_str("would pass to ")?;
                write_joined(f, ports, " or ")
            }
        }
    }
}

impl fmt::Display for Relabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("with ")?;
        write_joined(f, &self.changes, " and ")?;
        write!(f, " on {}", self.object)
    }
}

impl fmt::Display for Labelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(key) => write!(f, "pod {key}"),
            Self::Namespace(name) => write!(f, "namespace {name}"),
        }
    }
}

impl fmt::Display for PortAdvice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = protocol_name(self.protocol);
        match self.ports {
            None => write!(f, "any {protocol} port"),
            Some(PortRange { first, last }) if first == last => write!(f, "{protocol} {first}"),
            Some(PortRange { first, last }) => write!(f, "{protocol} {first}-{last}"),
        }
    }
}

fn write_joined<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    items: &[T],
    separator: &str,
) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        write!(f, "{}{item}", if index == 0 { "" } else { separator })?;
    }
    Ok(())
}

/// Returns a protocol's usual name, or its number.
#[must_use]
pub fn protocol_name(protocol: u8) -> String {
    ip_proto::name(protocol).map_or_else(|| format!("protocol {protocol}"), str::to_owned)
}

/// Returns the protocol that [`protocol_name`] names so.
#[must_use]
pub fn protocol_number(name: &str) -> Option<u8> {
    ip_proto::by_name(name).or_else(|| name.strip_prefix("protocol ")?.parse().ok())
}
