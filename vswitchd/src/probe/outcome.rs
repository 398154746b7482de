//! What became of a probe.

use std::time::Duration;

use vswitch_api::PortNo;
use vswitch_datapath::conntrack::Tuple;
use vswitch_datapath::probe::Answer;
use vswitch_datapath::{DropReason, TooManyWatchers};

use crate::worker::WorkerError;

/// Why nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Others probe.
    #[error(transparent)]
    TooMany(#[from] TooManyWatchers),
    /// The pod has connections from each.
    #[error("no source port is free for a probe: the pod uses all from {first} on")]
    NoFreePort {
        /// The first one that is tried.
        first: u16,
    },
    /// Ends of different families, or a protocol that has no probe.
    #[error("there is no probe of {packet}")]
    NoSuchPacket {
        /// The packet.
        packet: String,
    },
    /// The port is gone, or its worker hangs.
    #[error("send the probe")]
    Send {
        /// Why.
        source: WorkerError,
    },
    /// The daemon stops.
    #[error("the daemon stops")]
    Stopping,
}

/// What became of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// Where it ended.
    pub outcome: Outcome,
    /// The port that it left through, if it did.
    pub out_port: Option<PortNo>,
    /// The addresses and ports that it left with, if it did.
    pub left_with: Option<Tuple>,
}

/// Where a probe ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// This switch dropped it.
    Dropped(DropReason),
    /// Something answered, after so long.
    Answered(Answer, Duration),
    /// Nothing answered.
    NoAnswer,
}
