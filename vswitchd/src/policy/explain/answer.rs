//! Answers: the judgement of both ends, near misses and advice.

use vswitch_datapath::flow::PortRange;

use super::labels::LabelChange;
use crate::state::{ObjectKey, PolicyKey};

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
    /// The rule of a policy of a tier that accepts it.
    Accepted(RulePart),
    /// The rule of a policy of a tier that denies it.
    Denied(RulePart),
    /// The rule of a policy of a tier that passes it on, and denies it because no table is left
    /// for the next tier.
    NoTableLeft(RulePart),
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
    pub policy: PolicyKey,
    /// E.g. `ingress[0].from[1].ports[0]`; of a policy of a tier with tier, order and action before
    /// it.
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

impl Ground {
    /// Returns whether the connection may pass.
    #[must_use]
    pub const fn allows(&self) -> bool {
        !matches!(
            self,
            Self::Unknown(_)
                | Self::Finished(_)
                | Self::Denied(_)
                | Self::NoTableLeft(_)
                | Self::NothingAllows { .. }
        )
    }
}
