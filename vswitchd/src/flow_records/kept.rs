//! What is known until now: the records of both kinds, and what their names come from.

use std::path::PathBuf;
use std::sync::Arc;

use vswitch_api::v1::FlowOf;
use vswitch_datapath::flow::ip_proto;
use vswitch_datapath::{Denial, DenialVerdict, Denials, DropReason, NotedConnections, Timestamp};

use super::connections::{alike, lost};
use super::explain::explanation;
use super::files::{ALLOWED, DENIED};
use super::minute::{Counted, MAX_ALLOWED, MAX_RECORDS, Minute, Unexplained};
use super::record::{Names, flow_of};
use super::shelf::{Room, Shelf};
use crate::audit::AuditBook;
use crate::config::{FlowsConfig, RecordedShare};
use crate::reconcile::ReconciledState;

/// Records that are explained at a time: some milliseconds of work. Others wait their turn.
const EXPLAINED_AT_ONCE: usize = 64;

/// Part of the disk that records of allowed connections have, where there are any.
const SHARE_OF_ALLOWED: u64 = 4;

/// Where records come from and go to.
#[derive(Debug)]
pub struct FlowLogOptions {
    /// Name of this node.
    pub node: String,
    /// Where they are kept.
    pub folder: PathBuf,
    /// How long, and how much of them.
    pub keep: FlowsConfig,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) audit: AuditBook,
    pub(super) denied: Shelf,
    pub(super) allowed: Shelf,
    /// Whether connections of which too many begin or end at once are missed among those that are
    /// kept.
    share: RecordedShare,
    pub(super) lost: u64,
    pub(super) lost_connections: u64,
    /// What was known the last time: who has left since is known by it.
    state: Option<Arc<ReconciledState>>,
}

impl Kept {
    /// Opens the records that are kept. Blocks.
    pub(super) fn open(options: &FlowLogOptions, now: u64) -> Self {
        let (folder, keep) = (&options.folder, options.keep);
        let is_shared = keep.connections != RecordedShare::OFF || ALLOWED.are_in(folder);
        let of_allowed = if is_shared {
            keep.max_bytes / SHARE_OF_ALLOWED
        } else {
            0
        };
        let room = |records, bytes| Room {
            records,
            bytes,
            seconds: keep.keep.as_secs(),
        };
        let of_denied = room(MAX_RECORDS, keep.max_bytes - of_allowed);
        let of_allowed = room(MAX_ALLOWED, of_allowed);
        Self {
            audit: AuditBook::default(),
            denied: Shelf::open(folder, DENIED, of_denied, now),
            allowed: Shelf::open(folder, ALLOWED, of_allowed, now),
            share: keep.connections,
            lost: 0,
            lost_connections: 0,
            state: None,
        }
    }

    pub(super) fn shelf(&self, allowed: bool) -> &Shelf {
        if allowed { &self.allowed } else { &self.denied }
    }

    /// Begins another minute, if it is time.
    pub(super) fn turn_to(&mut self, now: u64) {
        self.denied.turn_to(now);
        self.allowed.turn_to(now);
    }

    /// Writes the running minute.
    pub(super) fn write(&mut self) {
        self.denied.write();
        self.allowed.write();
    }

    /// Returns whether there is something left to explain.
    pub(super) fn is_behind(&self) -> bool {
        !self.denied.minute.unexplained.is_empty()
    }

    /// Returns what was known the last time.
    pub(super) fn state_before(&self, now: &Arc<ReconciledState>) -> Arc<ReconciledState> {
        Arc::clone(self.state.as_ref().unwrap_or(now))
    }

    /// Remembers what is known now.
    pub(super) fn know(&mut self, state: Arc<ReconciledState>) {
        self.state = Some(state);
    }

    /// Counts what was denied; returns what was counted in which record.
    pub(super) fn take_denials(
        &mut self,
        noted: &Denials,
        names: &Names<'_>,
        at: impl Fn(Timestamp) -> u64,
    ) -> Vec<(FlowOf, Counted)> {
        self.lost += noted.lost;
        let mut all = Vec::with_capacity(noted.denials.len());
        let minute = &mut self.denied.minute;
        for denial in &noted.denials {
            let (first, last) = (at(denial.first), at(denial.last));
            if denial.verdict == DenialVerdict::WouldDeny {
                self.audit.add(denial, names.state, (first, last));
            }
            let counted = Counted {
                packets: denial.packets,
                connections: denial.connections,
                first,
                last,
                explanation: None,
                traffic: None,
            };
            let (of, is_new) = minute.add(flow_of(denial, names), &counted);
            if is_new && let Some(record) = to_explain(denial, &of) {
                minute.unexplained.push_back(record);
            }
            all.push((of, counted));
        }
        explain(minute, names);
        all
    }

    /// Counts connections that have begun or ended; returns what was counted in which record.
    pub(super) fn take_connections(
        &mut self,
        noted: NotedConnections,
        names: &Names<'_>,
        (now, at): (u64, impl Fn(Timestamp) -> u64),
    ) -> Connections {
        self.lost_connections += noted.lost;
        let number = self.allowed.minute.number;
        let (mut all, mut recorded) = (
            Minute::new(number, MAX_ALLOWED),
            Minute::new(number, MAX_ALLOWED),
        );
        let mut add = |of: FlowOf, counted: &Counted, is_recorded| {
            if is_recorded {
                self.allowed.minute.add(of.clone(), counted);
                recorded.add(of.clone(), counted);
            }
            all.add(of, counted);
        };
        for (kind, counted) in alike(noted.connections, at) {
            add(kind.flow(names), &counted, kind.is_sample);
        }
        if noted.lost > 0 {
            let (of, counted) = lost(noted.lost, now);
            add(of, &counted, self.share != RecordedShare::OFF);
        }
        Connections {
            all: in_order(all),
            recorded: in_order(recorded),
        }
    }
}

/// Connections of a round, in which records they count.
#[derive(Debug)]
pub(super) struct Connections {
    /// Those that are for followers alone as well.
    pub(super) all: Vec<(FlowOf, Counted)>,
    pub(super) recorded: Vec<(FlowOf, Counted)>,
}

fn in_order(round: Minute) -> Vec<(FlowOf, Counted)> {
    let mut round: Vec<_> = round.records.into_iter().collect();
    round.sort_by(|(of, a), (other, b)| a.last.cmp(&b.last).then_with(|| of.cmp(other)));
    round
}

fn explain(minute: &mut Minute, names: &Names<'_>) {
    for _ in 0..EXPLAINED_AT_ONCE {
        let Some(record) = minute.unexplained.pop_front() else {
            return;
        };
        let explanation = explanation(&record, &names.ends);
        if let Some(of) = minute.records.get_mut(&record.of) {
            of.explanation = explanation;
            minute.is_changed = true;
        }
    }
}

/// Returns what is to be explained of a new record: what policies denied.
fn to_explain(denial: &Denial, of: &FlowOf) -> Option<Unexplained> {
    let is_by_policies = matches!(
        denial.reason,
        DropReason::PolicyIngress | DropReason::PolicyEgress
    );
    let told = denial
        .of
        .filter(|_| is_by_policies && of.source.is_some())?;
    (denial.verdict != DenialVerdict::WouldDeny).then(|| Unexplained {
        of: of.clone(),
        proto: told.proto,
        port: if ip_proto::has_ports(told.proto) {
            told.number
        } else {
            0
        },
    })
}
