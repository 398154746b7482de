//! What the policies in audit would deny of what is allowed.
//!
//! Their tables decide nothing: a connection that the tables in force allow is judged by them as
//! well, once for each version of them, as a connection is judged anew after a change of policies.

use std::sync::Arc;

use super::snapshot::{AuditedProgram, Snapshot};
use super::translate::key_of;
use super::walk::{Tracked, Walk, WalkScratch};
use super::{Rule, TableId};
use crate::conntrack::Connection;
use crate::drop_reason::DropReason;
use crate::flow::{CtState, FlowKey};

/// A denial that is not carried out.
#[derive(Debug)]
pub(crate) struct AuditDenial {
    /// The direction that denies.
    pub(crate) reason: DropReason,
    /// The rule that would deny; of policies that isolate together, the first one's.
    pub(crate) rule: Option<Arc<Rule>>,
    /// What it was judged as.
    pub(crate) key: FlowKey,
}

/// Returns how a connection would be denied, if it would; `in_force` knows the ports.
pub(crate) fn audit(
    program: &AuditedProgram,
    conn: &Connection,
    in_force: &Snapshot,
) -> Option<AuditDenial> {
    let in_port = conn.in_port();
    let mut key = FlowKey {
        in_port,
        class: in_force.class_of(in_port),
        ct_state: CtState::TRK | CtState::EST,
        ..key_of(&conn.forwarded())
    };
    // The Forward table, which has no policies, chose the port when the connection was made.
    let sides = [
        (TableId::EgressAdminTier, TableId::Forward),
        (TableId::IngressAdminTier, TableId::Output),
    ];
    let mut scratch = WalkScratch::default();
    for (start, before) in sides {
        let mut walk = Walk::new(&program.tables, key, &mut scratch);
        if let Some(end) = walk.run(start, Some(before), &mut Tracked)
            && let Some(reason) = end.drop_reason()
        {
            let rule = scratch.hits.last().and_then(|hit| hit.rule);
            let rule = rule.map(|rule| Arc::clone(&rule.rule));
            return Some(AuditDenial { reason, rule, key });
        }
        key.out_port = conn.out_port();
    }
    None
}
