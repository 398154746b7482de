//! Rules, and the transaction that changes what is installed.

use std::sync::Arc;

use vswitch_api::{Cookie, MacAddr, PortNo, Priority};

use super::{Bandwidth, TableId};
use crate::action::Action;
use crate::address_set::SetUpdate;
use crate::flow::{Match, PortClass, SetName};
use crate::group::{GroupUpdate, LostEndpoint, ServiceAddress};

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

/// Why a rule makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// A `goto_table` that does not lead up.
    #[error("goto_table:{} in table {}: tables only go up", to.number(), from.number())]
    GotoNotUp {
        /// The rule's table.
        from: TableId,
        /// Where it wants to go.
        to: TableId,
    },
    /// Nothing says what becomes of the packet.
    #[error("no action decides: end with goto_table, drop, output, redirect or an answer")]
    Undecided,
    /// Something stands behind the action that decides.
    #[error("{action} stands behind the action that decides and would never be done")]
    Unreachable {
        /// The first such action.
        action: Action,
    },
    /// The id belongs to a built-in rule.
    #[error("id {id:?} belongs to a built-in rule")]
    BuiltinId {
        /// The id.
        id: RuleId,
    },
    /// No packet can match.
    #[error("the match contradicts itself")]
    NeverMatches,
}

/// What a rule of policies says of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Its policies let it go.
    Allow,
    /// It is dropped.
    Deny,
    /// The next tier is asked.
    Pass,
}

impl Rule {
    /// Returns what the rule says of a packet, if it stands in a table of policies.
    #[must_use]
    pub fn decision(&self) -> Option<Decision> {
        if !self.table.is_of_policies() {
            return None;
        }
        self.actions.iter().find_map(|action| match action {
            Action::Goto(TableId::Forward | TableId::Output) => Some(Decision::Allow),
            Action::Goto(_) => Some(Decision::Pass),
            Action::Drop(_) | Action::Reject(_) => Some(Decision::Deny),
            _ => None,
        })
    }

    /// Checks a rule that somebody outside wrote; the datapath itself takes any, and drops
    /// what such rules do not decide on.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), RuleError> {
        if is_builtin(self.id) {
            return Err(RuleError::BuiltinId { id: self.id });
        }
        if !self.matches.is_satisfiable() {
            return Err(RuleError::NeverMatches);
        }
        let from = self.table;
        for action in &self.actions {
            match *action {
                Action::Goto(to) if to <= from => return Err(RuleError::GotoNotUp { from, to }),
                _ => {}
            }
        }
        let decides = self.actions.iter().position(|action| action.decides());
        let at = decides.ok_or(RuleError::Undecided)?;
        let behind = self.actions.get(at + 1).copied();
        behind.map_or(Ok(()), |action| Err(RuleError::Unreachable { action }))
    }
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
    /// ports that were attached again after a restart, until they are known to be established.
    pub midstream_pickup: bool,
}

/// A change to one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortUpdate {
    /// Add it or replace what is known of it.
    Upsert(PortSpec),
    /// Limit what its pod sends and receives; a port that does not exist stays without.
    Limit(PortNo, Bandwidth),
    /// Forget it, with its cached flows and connections.
    Remove(PortNo),
}

/// Ids of the built-in rules start here, so that they lose a tie of priorities against any
/// other rule.
pub(super) const FIRST_BUILTIN_ID: u64 = u64::MAX - 0xff;

/// Returns whether this is the id of a built-in rule, which no transaction can change.
#[must_use]
pub fn is_builtin(id: RuleId) -> bool {
    id.0 >= FIRST_BUILTIN_ID
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
    /// Group changes, in order.
    pub groups: Vec<GroupUpdate>,
    /// Port changes, in order.
    pub ports: Vec<PortUpdate>,
    /// Addresses that changed hands: every connection from or to one of them is removed.
    pub forget_addresses: Vec<std::net::IpAddr>,
    /// Endpoints that Services lost: every connection that was sent there is removed.
    pub forget_endpoints: Vec<LostEndpoint>,
    /// Addresses that became Services': every connection that was sent there untranslated is
    /// removed, unless it has an end of its own (TCP, SCTP) and was answered.
    pub forget_untranslated: Vec<ServiceAddress>,
    /// What changes of the policies in audit.
    pub audit: AuditUpdate,
}

/// Changes of a second program of policies, by which connections are judged that are allowed: it
/// decides nothing, what it would deny is noted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AuditUpdate {
    /// As before.
    #[default]
    Nothing,
    /// No policy is in audit.
    Off,
    /// These, to what is there.
    Change {
        /// Rules to remove; unknown ids are ignored.
        remove_rules: Vec<RuleId>,
        /// Rules of policy tables to add or replace.
        add_rules: Vec<Rule>,
        /// Address set changes, in order.
        sets: Vec<(SetName, SetUpdate)>,
    },
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
    /// Of a rule of policies that decides: connections that it admitted when they began, or packets of
    /// no connection that it denied.
    pub connections: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::parse_actions;

    fn check(matches: &str, actions: &str) -> Result<(), RuleError> {
        let name = String::new();
        let rule = Rule {
            id: RuleId(1),
            table: TableId::Admin,
            priority: Priority(1),
            matches: matches.parse().unwrap(),
            actions: parse_actions(actions).unwrap(),
            cookie: Cookie(0),
            origin: Arc::new(Origin {
                kind: "AdminFlow",
                part: name.clone(),
                name,
            }),
        };
        rule.check()
    }

    #[test]
    fn a_rule_has_to_decide_once_and_go_up() {
        assert_eq!(check("tcp", "mirror:4,goto_table:40"), Ok(()));
        assert_eq!(check("", "rate_limit(pps=1,burst=1),redirect:3"), Ok(()));
        let (from, to) = (TableId::Admin, TableId::Admin);
        assert_eq!(
            check("", "goto_table:30"),
            Err(RuleError::GotoNotUp { from, to })
        );
        assert_eq!(check("", "output:3"), Err(RuleError::Undecided));
        let action = Action::Mirror(PortNo(4));
        assert_eq!(
            check("", "drop,mirror:4"),
            Err(RuleError::Unreachable { action })
        );
        let never = check("vlan_tci=0,vlan_tci=0x1000/0x1000", "drop");
        assert_eq!(never, Err(RuleError::NeverMatches));
    }
}
