//! The connection that is asked about.

use std::net::IpAddr;

use crate::state::ObjectKey;

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
