//! UDP: no states on the wire, so that only the traffic itself tells a question and its answer
//! from a stream.

use std::time::Duration;

use super::step::{Progress, Step};

/// A flow that is still active after this time is a stream; DNS is over by then (nf_conntrack
/// uses the same two seconds).
const STREAM_AFTER: Duration = Duration::from_secs(2);

/// Returns how a datagram keeps its connection.
#[inline]
pub(super) fn track(step: Step<'_>) -> Progress {
    if step.replied && step.now > step.created + STREAM_AFTER {
        Progress::keep(step.config.udp_stream, true)
    } else {
        Progress::keep(step.config.udp, false)
    }
}
