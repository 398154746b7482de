//! Limits of a datapath.

use crate::conntrack::ConntrackConfig;

/// Limits of a datapath.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DatapathConfig {
    /// Connection tracking limits and timeouts.
    pub conntrack: ConntrackConfig,
    /// Entries of each worker's FlowCache; 0 turns it off.
    pub flow_cache_entries: usize,
}
