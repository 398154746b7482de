//! A captured packet.

use std::sync::Arc;

use smallvec::SmallVec;
use vswitch_api::PortNo;

use crate::datapath::verdict::Verdict;
use crate::flow::FlowKey;
use crate::pipeline::Rule;
use crate::time::Timestamp;

/// Which way a packet goes, as whatever hangs on the port sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the pod, from the switch.
    Inbound,
    /// From the pod, into the switch.
    Outbound,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It came in through a port, and this was decided.
    Decided {
        /// Where it came in.
        in_port: PortNo,
        /// The decision.
        verdict: Verdict,
    },
    /// The switch made it: an answer, a reset, an ICMP error, a copy for a mirror.
    Made,
    /// A fragment that follows a packet: cut from it, or one that waited for it.
    Fragment,
}

/// What led to a verdict.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// Rules of policies and of operators that allowed the packet, or the connection that it
    /// answers; of a dropped packet, the rule that dropped it.
    pub rules: SmallVec<[Arc<Rule>; 4]>,
    /// What the rule that dropped it saw.
    pub key: FlowKey,
    /// It answers a connection: that was judged, by its first packet.
    pub is_reply: bool,
}

/// A packet as it was at the port: as the pod sent it, or as it is delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapturedPacket {
    /// When the batch began that it was in.
    pub time: Timestamp,
    /// Which way it goes.
    pub way: Way,
    /// Its length; `bytes` may be less.
    pub len: usize,
    /// Its first bytes, from the Ethernet header on.
    pub bytes: Vec<u8>,
    /// What became of it.
    pub outcome: Outcome,
    /// By which rules.
    pub decision: Decision,
}

impl CapturedPacket {
    /// Returns an empty one with room for `snaplen` bytes.
    pub(super) fn with_room(snaplen: usize) -> Self {
        Self {
            time: Timestamp::default(),
            way: Way::Inbound,
            len: 0,
            bytes: Vec::with_capacity(snaplen),
            outcome: Outcome::Made,
            decision: Decision::default(),
        }
    }

    /// Returns whether the switch dropped it.
    #[must_use]
    pub const fn is_dropped(&self) -> bool {
        matches!(
            self.outcome,
            Outcome::Decided {
                verdict: Verdict::Drop(_),
                ..
            }
        )
    }
}
