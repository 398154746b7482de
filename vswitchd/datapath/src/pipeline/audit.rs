//! What policies say of a connection as a whole: those in audit, and those that admitted it.
//!
//! The tables of policies in audit decide nothing: a connection that the tables in force allow is
//! judged by them as well, once for each version of them, as a connection is judged anew after a
//! change of policies. Which rules of policies admitted a connection is found out in the same way,
//! of a version that did.

use std::sync::Arc;

use super::snapshot::{AuditedProgram, Snapshot};
use super::translate::key_of;
use super::walk::{Tracked, Walk, WalkScratch};
use super::{Rule, TableId, is_builtin};
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
    judge(&program.tables, conn, in_force).err()
}

/// Returns the rules of policies, of either direction, by which a version of the rules admits a
/// connection: none where nothing isolates. `None` if it does not admit it.
pub(crate) fn admitted_by(version: &Snapshot, conn: &Connection) -> Option<Vec<Arc<Rule>>> {
    let deciding = judge(version, conn, version).ok()?;
    let of_policies = deciding.into_iter().flatten();
    Some(of_policies.filter(|rule| !is_builtin(rule.id)).collect())
}

/// Walks a connection through the tables of policies; returns the rule that decided in each
/// direction.
fn judge(
    tables: &Snapshot,
    conn: &Connection,
    in_force: &Snapshot,
) -> Result<[Option<Arc<Rule>>; 2], AuditDenial> {
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
    let mut deciding = [None, None];
    for ((start, before), deciding) in sides.into_iter().zip(&mut deciding) {
        let mut walk = Walk::new(tables, key, &mut scratch);
        let end = walk.run(start, Some(before), &mut Tracked);
        let rule = scratch.hits.last().and_then(|hit| hit.rule);
        let rule = rule.map(|rule| Arc::clone(&rule.rule));
        if let Some(reason) = end.and_then(|end| end.drop_reason()) {
            return Err(AuditDenial { reason, rule, key });
        }
        *deciding = rule;
        key.out_port = conn.out_port();
    }
    Ok(deciding)
}
