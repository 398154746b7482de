//! Ports of pods and their protocols.

use serde::{Deserialize, Serialize};

/// Protocol of a connection.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
    /// An echo request.
    Icmp,
}

/// A declared port of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterPort {
    /// Its name; empty for none.
    pub name: String,
    /// Its number.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
}
