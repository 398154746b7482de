//! UDP: no states on the wire, so that only the traffic itself tells a question and its answer
//! from a stream.

use std::time::Duration;

use super::ConntrackConfig;
use super::protocol::Progress;

/// A flow that is still active after this time is a stream; DNS is over by then (nf_conntrack
/// uses the same two seconds).
const STREAM_AFTER: Duration = Duration::from_secs(2);

/// Returns how a datagram keeps its connection, `age` after the first one.
pub(super) fn track(config: &ConntrackConfig, replied: bool, age: Duration) -> Progress {
    if replied && age > STREAM_AFTER {
        Progress::keep(config.udp_stream, true)
    } else {
        Progress::keep(config.udp, false)
    }
}
