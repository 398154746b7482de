//! Why policies allow a connection or not, and what would change that.
//!
//! The compiler turns policies into rules of this node; this module reads the same policies
//! for one question at a time, with the same parsers, and keeps what the compiler throws away:
//! which rule came close, and what it lacked. Pure, like the compiler. A test holds the two
//! together.
//!
//! Both ends are judged wherever they are. The tables of a node judge its own pods only:
//! [`Explanation::allowed_here`] is what they should say.

mod case;
mod labels;
mod party;
mod ports;
mod rules;

use std::fmt;
use std::net::IpAddr;

use vswitch_datapath::flow::{PortRange, ip_proto};

pub use labels::LabelChange;

use super::direction::Direction;
use crate::state::{ClusterState, ObjectKey};

/// One side of a connection. Who it is has been found out: an address of the node or of a pod
/// is marked as such.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct End {
    /// The pod, if it is one.
    pub pod: Option<ObjectKey>,
    /// The address that the packets carry.
    pub address: Option<IpAddr>,
    /// Whether the address is this node's own.
    pub is_node: bool,
    /// Whether the pod is attached to this switch, so that its policies are applied here.
    pub is_local: bool,
}

/// A connection to be judged by its first packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Sender.
    pub from: End,
    /// Receiver, after translation of Service addresses.
    pub to: End,
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port; 0 for protocols without.
    pub port: u16,
}

/// What the policies of both ends say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Whether both ends allow it.
    pub allowed: bool,
    /// The sender's side.
    pub egress: Judgement,
    /// The receiver's side.
    pub ingress: Judgement,
}

/// What the policies of one end say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// Whether the connection may pass at this end.
    pub allowed: bool,
    /// Whether this node applies the policies of this end.
    pub is_here: bool,
    /// What decided.
    pub ground: Ground,
    /// The policies that isolate the pod, by namespace and name.
    pub isolated_by: Vec<ObjectKey>,
    /// If nothing allows it: what came close, the nearest first.
    pub misses: Vec<Miss>,
}

/// What decided at one end. Its text is a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ground {
    /// No pod, nobody's policies.
    NoPod {
        /// How the end is called.
        end: String,
        /// `egress` or `ingress`.
        direction: &'static str,
    },
    /// The node reaches its own pods.
    Node,
    /// The pod is not in the pod network.
    HostNetwork(ObjectKey),
    /// Sender and receiver are one pod.
    Itself,
    /// The pod's object has not been heard of.
    Unknown(ObjectKey),
    /// The pod is over.
    Finished(ObjectKey),
    /// No policy selects the pod.
    NotIsolated {
        /// The pod.
        pod: ObjectKey,
        /// `egress` or `ingress`.
        direction: &'static str,
    },
    /// The first rule that allows it.
    Allowed(RulePart),
    /// Isolated, and no rule allows it.
    NothingAllows {
        /// The pod.
        pod: ObjectKey,
        /// `egress` or `ingress`.
        direction: &'static str,
    },
}

/// A part of a policy, as the compiler names the origin of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RulePart {
    /// The policy.
    pub policy: ObjectKey,
    /// E.g. `ingress[0].from[1].ports[0]`.
    pub part: String,
}

/// A rule that might have allowed the connection. Its text says why it did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Miss {
    /// The rule, down to the peer.
    pub rule: RulePart,
    /// Why it does not allow the connection.
    pub cause: MissCause,
    /// What would let the connection pass at this end without shutting it out at the other.
    pub advice: Option<Advice>,
}

/// Why a rule does not allow a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MissCause {
    /// The policy has no rule in this direction.
    NoRule,
    /// It cannot be understood and therefore allows nothing.
    NotUnderstood(String),
    /// At least one of the two does not match; `None` matches.
    Mismatch {
        /// What is wrong with the peer.
        peer: Option<String>,
        /// What is asked for, and what the rule wants instead.
        port: Option<PortMismatch>,
    },
}

/// Not the port that a rule wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortMismatch {
    /// E.g. `TCP port 8080`.
    pub asked: String,
    /// E.g. `TCP 80 or web (TCP 81 at pod x/b)`.
    pub wanted: String,
}

/// A change that suffices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advice {
    /// All of these together.
    Labels(Vec<Relabel>),
    /// One of these ports instead.
    Ports(Vec<PortAdvice>),
}

/// Labels to change on one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relabel {
    /// The object.
    pub object: Labelled,
    /// The changes, by key.
    pub changes: Vec<LabelChange>,
}

/// An object with labels.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are Kubernetes'")]
pub enum Labelled {
    Pod(ObjectKey),
    Namespace(String),
}

/// Ports that a rule allows to the same peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortAdvice {
    /// IP protocol number.
    pub protocol: u8,
    /// `None`: any port of the protocol.
    pub ports: Option<PortRange>,
}

impl Explanation {
    /// Returns what this node's tables should say: each end judged only if it is here.
    #[must_use]
    pub fn allowed_here(&self) -> bool {
        let passes = |judgement: &Judgement| judgement.allowed || !judgement.is_here;
        passes(&self.egress) && passes(&self.ingress)
    }
}

/// Judges a connection by the policies of both ends.
#[must_use]
pub fn explain(cluster: &ClusterState, question: &Question) -> Explanation {
    let case = case::Case::new(cluster, question);
    let egress = case.judge(Direction::Egress);
    let ingress = case.judge(Direction::Ingress);
    Explanation {
        allowed: egress.allowed && ingress.allowed,
        egress,
        ingress,
    }
}

impl Ground {
    /// Returns whether the connection may pass.
    #[must_use]
    pub const fn allows(&self) -> bool {
        !matches!(
            self,
            Self::Unknown(_) | Self::Finished(_) | Self::NothingAllows { .. }
        )
    }
}

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
            Self::NothingAllows { pod, direction } => {
                write!(
                    f,
                    "pod {pod} is isolated for {direction}, and no rule allows it"
                )
            }
        }
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
    match protocol {
        ip_proto::TCP => "TCP".to_owned(),
        ip_proto::UDP => "UDP".to_owned(),
        ip_proto::SCTP => "SCTP".to_owned(),
        ip_proto::ICMP => "ICMP".to_owned(),
        ip_proto::ICMPV6 => "ICMPv6".to_owned(),
        other => format!("protocol {other}"),
    }
}
