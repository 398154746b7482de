//! What was denied, cut or would be denied, until somebody fetches it.
//!
//! Each engine notes in a [table of its own](super::denial_table): a denied packet costs a look
//! there, and whatever is known of it from reading rules again is found when it is fetched.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use vswitch_api::Epoch;

use super::denial::{Denial, DenialOf, DenialVerdict, Denials};
use super::denial_table::{DenialLog, Kind, Noted, SeenAs};
use crate::conntrack::Connection;
use crate::drop_reason::DropReason;
use crate::flow::{FlowKey, ether_type, ip_proto};
use crate::group::Endpoint;
use crate::pipeline::{
    AuditedProgram, ConnUpdate, Rule, Snapshot, Translation, WalkScratch, audit, deciding_drops,
    denied_by,
};
use crate::time::Timestamp;

/// The logs of all engines.
#[derive(Debug, Default)]
pub(super) struct DenialLogs {
    /// Held while they are fetched, so that no two threads fetch from one log at a time; engines
    /// note without it.
    logs: Mutex<Vec<Arc<DenialLog>>>,
}

impl DenialLogs {
    /// Returns the log of one more engine.
    pub(super) fn register(&self) -> Arc<DenialLog> {
        let log = Arc::<DenialLog>::default();
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.push(Arc::clone(&log));
        log
    }

    /// Returns what was noted since the last call.
    pub(super) fn fetch(&self, in_force: &Snapshot) -> Denials {
        let mut fetched = Denials::default();
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.retain(|log| {
            // Asked first: an engine that goes afterwards has noted all that it will.
            let is_in_use = Arc::strong_count(log) > 1;
            fetched.lost += log.fetch(|kind, noted| {
                fetched.denials.push(denial(in_force, kind, noted));
            });
            is_in_use
        });
        fetched
    }
}

fn denial(in_force: &Snapshot, kind: Kind, noted: Noted) -> Denial {
    let rules = deciding(in_force, &kind, &noted);
    Denial {
        verdict: kind.verdict,
        reason: kind.reason,
        of: kind.of,
        rules,
        packets: noted.packets,
        connections: noted.connections,
        first: noted.first,
        last: noted.last,
    }
}

/// Returns the rule that decided, with those of other policies that isolate the pod as well; these
/// are read from the rules as they are now.
fn deciding(in_force: &Snapshot, kind: &Kind, noted: &Noted) -> Vec<Arc<Rule>> {
    let Some(winner) = &noted.rule else {
        return Vec::new();
    };
    let alone = || vec![Arc::clone(winner)];
    let tables = match (kind.verdict, &in_force.audit) {
        (DenialVerdict::WouldDeny, Some(audited)) => &audited.tables,
        (DenialVerdict::WouldDeny, None) => return alone(),
        (DenialVerdict::Denied | DenialVerdict::Cut, _) => in_force,
    };
    let Some(of) = &kind.of else { return alone() };
    let all = deciding_drops(tables, &key(in_force, of, noted.seen_as), winner);
    if all.iter().any(|rule| rule.id == winner.id) {
        all
    } else {
        alone()
    }
}

/// Returns the key of such packets, as far as policies look at it.
fn key(in_force: &Snapshot, of: &DenialOf, seen_as: SeenAs) -> FlowKey {
    let is_icmp = ip_proto::is_icmp(of.proto);
    FlowKey {
        in_port: of.ports.0,
        out_port: of.ports.1,
        class: in_force.class_of(of.ports.0),
        eth_type: ether_type::of_ip(of.ends.0.is_ipv6()),
        ip_proto: of.proto,
        ip_src: Some(of.ends.0),
        ip_dst: Some(of.ends.1),
        tp_src: if is_icmp { of.number } else { seen_as.tp_src },
        tp_dst: if is_icmp { 0 } else { of.number },
        ct_state: seen_as.ct_state,
        ..FlowKey::default()
    }
}

/// Returns what packets with this key have in common, and how the first was seen; `None` if they
/// are no IP packets.
fn of_key(key: &FlowKey, service: Option<Endpoint>) -> Option<(DenialOf, SeenAs)> {
    let is_icmp = ip_proto::is_icmp(key.ip_proto);
    let of = DenialOf {
        ports: (key.in_port, key.out_port),
        ends: (key.ip_src?, key.ip_dst?),
        proto: key.ip_proto,
        number: if is_icmp { key.tp_src } else { key.tp_dst },
        service,
    };
    let seen_as = SeenAs {
        tp_src: key.tp_src,
        ct_state: key.ct_state,
    };
    Some((of, seen_as))
}

impl DenialLog {
    /// Notes a packet that was dropped; `is_cut` says whether a connection ended with it.
    #[cold]
    pub(super) fn dropped(
        &self,
        (translation, reason): (&Translation<'_>, DropReason),
        asked: &FlowKey,
        (own, judge): (&WalkScratch<'_>, &WalkScratch<'_>),
        (now, is_cut): (Timestamp, bool),
    ) {
        let (key, hit) = denied_by(translation, &own.hits, &judge.hits);
        let conn = match &translation.conn_update {
            ConnUpdate::Remove(conn) | ConnUpdate::Linger(conn) => Some(conn),
            ConnUpdate::Nothing | ConnUpdate::Track(..) | ConnUpdate::Commit(_) => None,
        };
        let sent_to = match conn {
            Some(conn) => endpoint(Some(conn.original().dst), conn.original().tp_dst),
            None => endpoint(asked.ip_dst, asked.tp_dst),
        };
        let service =
            sent_to.filter(|to| Some(to.ip) != key.ip_dst && !ip_proto::is_icmp(key.ip_proto));
        let Some((of, seen_as)) = of_key(&key, service) else {
            return;
        };
        let kind = Kind {
            verdict: match conn {
                Some(_) => DenialVerdict::Cut,
                None => DenialVerdict::Denied,
            },
            reason,
            of: Some(of),
            rule: hit.and_then(|hit| hit.rule).map(|rule| rule.rule.id),
        };
        let rule = || {
            let rule = hit.and_then(|hit| hit.rule);
            rule.map(|rule| Arc::clone(&rule.rule))
        };
        self.note(kind, (1, u64::from(is_cut)), now, seen_as, rule);
    }

    /// Judges an allowed connection by the policies in audit; `before` is when it was judged last.
    #[cold]
    pub(super) fn audit(
        &self,
        program: &AuditedProgram,
        (conn, before): (&Connection, Epoch),
        in_force: &Snapshot,
        now: Timestamp,
    ) {
        let denial = audit(program, conn, in_force);
        let was_denied = conn.set_would_be_denied(denial.is_some());
        // What was noted of an audit that has ended is over.
        let was_noted = was_denied && before >= program.began;
        let Some(denial) = denial else { return };
        // A Forward table of no policies chose the port when the connection was made.
        let key = FlowKey {
            out_port: conn.out_port(),
            ..denial.key
        };
        let Some((of, seen_as)) = of_key(&key, service_of(conn)) else {
            return;
        };
        let kind = Kind {
            verdict: DenialVerdict::WouldDeny,
            reason: denial.reason,
            of: Some(of),
            rule: denial.rule.as_ref().map(|rule| rule.id),
        };
        let connections = u64::from(!was_noted);
        self.note(kind, (0, connections), now, seen_as, || denial.rule.clone());
    }
}

fn endpoint(ip: Option<IpAddr>, port: u16) -> Option<Endpoint> {
    ip.map(|ip| Endpoint { ip, port })
}

fn service_of(conn: &Connection) -> Option<Endpoint> {
    let (original, forwarded) = (conn.original(), conn.forwarded());
    endpoint(Some(original.dst), original.tp_dst).filter(|to| to.ip != forwarded.dst)
}
