//! Rules, and the transaction that changes what is installed.

use std::sync::Arc;

use ipnet::IpNet;
use vswitch_api::{Cookie, MacAddr, PortNo, Priority};

use super::TableId;
use crate::action::Action;
use crate::flow::{Match, PortClass, SetName};

/// Identity of an installed rule, chosen by whoever installs it and stable while the rule's
/// meaning is; adding a rule whose id is installed replaces it and keeps its counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub u64);

/// The object a rule came from, for people: who to blame for a verdict.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// `NetworkPolicy`, `Pod`, `Gateway`, `AdminFlow`, `Builtin`.
    pub kind: &'static str,
    /// `namespace/name` of the object, or its name where it has no namespace.
    pub name: String,
    /// Which part of it, e.g. `ingress[0].from[1].ports[0]`; may be empty.
    pub part: String,
}

/// One rule of one table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Identity.
    pub id: RuleId,
    /// Table it is in.
    pub table: TableId,
    /// The highest matching priority wins; among equals the lowest id.
    pub priority: Priority,
    /// What it matches.
    pub matches: Match,
    /// What it does, in order.
    pub actions: Vec<Action>,
    /// Groups the rules of one owner.
    pub cookie: Cookie,
    /// Where it came from.
    pub origin: Arc<Origin>,
}

/// What the datapath knows of a port beyond the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortSpec {
    /// Its number.
    pub no: PortNo,
    /// What hangs on it.
    pub class: PortClass,
    /// Name for people: `ns/pod`, `vsw0`.
    pub name: String,
    /// Its MAC (the pod's end).
    pub mac: MacAddr,
    /// Largest IP packet it takes, bytes; GSO super-frames are judged by their segments.
    pub mtu: u16,
    /// Accepts TCP segments of unknown connections in the middle of their stream: set for
    /// ports that were attached again after a restart, until they are known to be settled.
    pub midstream_pickup: bool,
}

/// A change to one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortUpdate {
    /// Add it or replace what is known of it.
    Upsert(PortSpec),
    /// Forget it, with its cached flows and connections.
    Remove(PortNo),
}

/// A change to one address set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetUpdate {
    /// Make these its members (creates the set).
    Replace(Vec<IpNet>),
    /// Add members (creates the set).
    Add(Vec<IpNet>),
    /// Remove members.
    Remove(Vec<IpNet>),
    /// Remove the set; rules that still name it match nothing.
    Delete,
}

/// Changes that take effect together: no packet sees half of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// Rules to remove; unknown ids are ignored.
    pub remove_rules: Vec<RuleId>,
    /// Rules to add or replace.
    pub add_rules: Vec<Rule>,
    /// Address set changes, in order.
    pub sets: Vec<(SetName, SetUpdate)>,
    /// Port changes, in order.
    pub ports: Vec<PortUpdate>,
    /// Addresses that changed hands: every connection from or to one of them is removed.
    pub forget_addresses: Vec<std::net::IpAddr>,
}

/// An installed rule with its counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleStats {
    /// The rule.
    pub rule: Arc<Rule>,
    /// Packets that went through it.
    pub packets: u64,
    /// Their bytes, from the Ethernet header on.
    pub bytes: u64,
}
