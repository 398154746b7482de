//! Verdict on a frame, and the frames that processing it produces.

use vswitch_api::PortNo;

use crate::drop_reason::DropReason;
use crate::packet::Frame;

/// What is to become of a frame that was processed (and rewritten) in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Send it through this port.
    Forward(PortNo),
    /// Too large for its port, and forwarded in fragments: send [`Outputs::followers`].
    InFragments,
    /// The switch answered it itself: send [`Outputs::replies`].
    Answered,
    /// Drop it; already counted.
    Drop(DropReason),
    /// Forget it: a copy waits for the first fragment of its datagram.
    Held,
    /// Forget it: it answers a probe, which has taken it in.
    Taken,
}

/// What processed frames caused besides their own verdicts, in order. [`super::Engine::process`]
/// adds to it; whoever sends it empties it.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Frames that the switch itself makes (ARP and ND answers, ICMP errors, TCP resets).
    pub replies: Vec<(PortNo, Frame)>,
    /// Copies for mirror ports.
    pub copies: Vec<(PortNo, Frame)>,
    /// Frames to forward behind the processed one: fragments of it, or that waited for it.
    pub followers: Vec<(PortNo, Frame)>,
}
