//! Protocols without a state machine of their own: known once a packet was allowed, kept while
//! packets go either way.

use super::ConntrackConfig;
use super::step::Progress;

/// Returns how a packet of a protocol without ports keeps its connection.
pub(super) fn track(config: &ConntrackConfig, replied: bool) -> Progress {
    Progress::keep(config.generic, replied)
}
