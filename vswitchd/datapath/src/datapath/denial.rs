//! A denial: packets that were dropped alike because somebody decided against them.

use std::net::IpAddr;
use std::sync::Arc;

use vswitch_api::PortNo;

use crate::drop_reason::DropReason;
use crate::group::Endpoint;
use crate::pipeline::Rule;
use crate::time::Timestamp;

/// What a denial did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DenialVerdict {
    /// Packets of no allowed connection were dropped.
    Denied,
    /// Packets of a connection that had been allowed were dropped.
    Cut,
    /// Nothing: policies in audit would have denied a connection.
    WouldDeny,
}

/// What packets have in common that are denied alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DenialOf {
    /// Ports of the switch that the first packet came in and would have gone out through; the
    /// latter is 0 where that was not found out.
    pub ports: (PortNo, PortNo),
    /// Who began, and with whom, after translation.
    pub ends: (IpAddr, IpAddr),
    /// IP protocol number.
    pub proto: u8,
    /// Destination port, or ICMP type.
    pub number: u16,
    /// The address and port of a Service that was asked for.
    pub service: Option<Endpoint>,
}

/// What is known of such packets since the last time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// What became of them.
    pub verdict: DenialVerdict,
    /// Why.
    pub reason: DropReason,
    /// What they have in common; `None`: too many at once to be told apart.
    pub of: Option<DenialOf>,
    /// The rules that decided: one, or those of all policies that isolate.
    pub rules: Vec<Arc<Rule>>,
    /// Packets that were dropped.
    pub packets: u64,
    /// Connections that were cut, or that would have been denied.
    pub connections: u64,
    /// When the first and the last was judged.
    pub first: Timestamp,
    /// See `first`.
    pub last: Timestamp,
}

/// What was fetched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Denials {
    /// Kinds of denials. One may be there several times: each engine counts for itself.
    pub denials: Vec<Denial>,
    /// Packets and connections that there was no room to note anything of.
    pub lost: u64,
}
