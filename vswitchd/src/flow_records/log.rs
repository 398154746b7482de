//! Fetches what the datapath notes, every second, and answers who asks.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;
use vswitch_api::v1::{FlowOf, FlowRecord, FlowRecords};
use vswitch_datapath::flow::ip_proto;
use vswitch_datapath::{Datapath, Denial, DenialVerdict, Denials, DropReason};

use super::explain::explanation;
use super::files::RecordFiles;
use super::merge::Merged;
use super::minute::{Counted, Minute, SECONDS, Unexplained};
use super::query::FlowQuery;
use super::record::flow_of;
use super::round::Round;
use crate::audit::AuditBook;
use crate::clock::{self, MonotonicClock};
use crate::config::FlowsConfig;
use crate::objects::timestamp;
use crate::reconcile::{ReconcileHandle, ReconciledState};
use crate::supervise::{self, Beats, Ended};
use crate::switch::Ends;

/// Often enough that a pod is still there of which a packet was denied, and what a daemon that is
/// killed loses.
const FETCH_EVERY: Duration = Duration::from_secs(1);

/// Records that are explained at a time: some milliseconds of work. Others wait their turn.
const EXPLAINED_AT_ONCE: usize = 64;

/// Rounds of records that a follower may be behind before it misses some.
const FOLLOWERS_BEHIND: usize = 64;

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

/// The records, and where they come from.
#[derive(Debug)]
pub struct FlowLog {
    datapath: Arc<Datapath>,
    reconcile: ReconcileHandle,
    clock: MonotonicClock,
    node: String,
    keep: Duration,
    /// Each change leaves it whole, so that a panic beside leaves nothing half done.
    kept: Mutex<Kept>,
    followers: broadcast::Sender<Arc<Round>>,
}

/// What is known until now.
#[derive(Debug)]
pub(super) struct Kept {
    audit: AuditBook,
    pub(super) minute: Minute,
    pub(super) lost: u64,
    /// Records that followers were told.
    told: u64,
    /// `None`: the folder cannot be used.
    files: Option<RecordFiles>,
    /// Why records are not on the disk.
    problem: Option<String>,
}

impl FlowLog {
    /// Opens the records that are kept. Blocks.
    #[must_use]
    pub fn open(
        options: FlowLogOptions,
        datapath: Arc<Datapath>,
        reconcile: ReconcileHandle,
        clock: MonotonicClock,
    ) -> Self {
        let keep = options.keep;
        let kept = Kept::open(&options, clock::unix_seconds());
        Self {
            datapath,
            reconcile,
            clock,
            node: options.node,
            keep: keep.keep,
            kept: Mutex::new(kept),
            followers: broadcast::channel(FOLLOWERS_BEHIND).0,
        }
    }

    /// Looks at what policies in audit would have denied since they are what they are.
    pub fn current_audit<T>(&self, look: impl FnOnce(&AuditBook) -> T) -> T {
        let mut kept = self.up_to_now();
        kept.audit.tidy(&self.reconcile.snapshot());
        look(&kept.audit)
    }

    /// Looks at all that policies in audit would have denied until now.
    pub fn audit<T>(&self, look: impl FnOnce(&AuditBook) -> T) -> T {
        look(&self.up_to_now().audit)
    }

    /// Returns the records that are asked for, until now. Blocks: reads files.
    #[must_use]
    pub fn query(&self, query: &FlowQuery) -> FlowRecords {
        let kept = self.up_to_now();
        let running = kept.minute.records.clone();
        let (minute, lost) = (kept.minute.number, kept.lost);
        let mut problems: Vec<String> = kept.problem.iter().cloned().collect();
        let reader = kept.files.as_ref().map(RecordFiles::reader);
        drop(kept);
        let oldest = clock::unix_seconds().saturating_sub(self.keep.as_secs());
        let mut merged = Merged::default();
        let mut add = |minute, of: FlowOf, counted: Counted| {
            if counted.last >= oldest && query.is_in_time(&counted) && query.wants(&of) {
                merged.add(minute, of, counted);
            }
        };
        if let Some(reader) = reader {
            problems.extend(reader.read(|line| add(line.minute, line.of, line.counted)));
        }
        for (of, counted) in running {
            add(minute, of, counted);
        }
        if merged.left_out > 0 {
            problems.push(format!(
                "{} records more than an answer can tell apart",
                merged.left_out
            ));
        }
        let mut records = merged.into_records();
        let more = records.len().saturating_sub(query.limit);
        records.truncate(query.limit);
        let records = records.into_iter();
        FlowRecords {
            node: self.node.clone(),
            records: records
                .map(|(of, counted)| self.view(of, counted))
                .collect(),
            more,
            lost,
            problems,
        }
    }

    /// Returns what is counted from now on, as records of a second each.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Round>> {
        self.followers.subscribe()
    }

    /// Takes in what was noted until now, and writes it. Blocks.
    pub fn keep(&self) {
        self.up_to_now().write();
    }

    fn view(&self, of: FlowOf, counted: Counted) -> FlowRecord {
        FlowRecord {
            node: self.node.clone(),
            of,
            packets: counted.packets,
            connections: counted.connections,
            first: timestamp(counted.first),
            last: timestamp(counted.last),
            explanation: counted.explanation,
        }
    }

    /// Returns all that was noted until now.
    fn up_to_now(&self) -> MutexGuard<'_, Kept> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = self.datapath.fetch_denials();
        let (now, ticks) = (clock::unix_seconds(), self.clock.now());
        kept.turn_to(now);
        if noted != Denials::default() || !kept.minute.unexplained.is_empty() {
            let state = self.reconcile.snapshot();
            let ends = Ends::of(&state, &self.datapath);
            let age = |time| ticks.since(time).as_secs();
            let counted = kept.take(&noted, (&state, &ends), |time| {
                now.saturating_sub(age(time))
            });
            self.tell(&mut kept, counted);
        }
        kept
    }

    /// Tells who follows what was counted.
    fn tell(&self, kept: &mut Kept, counted: Vec<(FlowOf, Counted)>) {
        if self.followers.receiver_count() == 0 || counted.is_empty() {
            return;
        }
        let records = counted.into_iter().map(|(of, mut counted)| {
            let record = kept.minute.records.get(&of);
            counted.explanation = record.and_then(|of| of.explanation.clone());
            self.view(of, counted)
        });
        let round = Round {
            before: kept.told,
            records: records.collect(),
        };
        kept.told += u64::try_from(round.records.len()).unwrap_or(0);
        // Nobody may be there any more.
        let _told = self.followers.send(Arc::new(round));
    }
}

impl Kept {
    pub(super) fn open(options: &FlowLogOptions, now: u64) -> Self {
        let mut kept = Self {
            audit: AuditBook::default(),
            minute: Minute::new(now / SECONDS),
            lost: 0,
            told: 0,
            files: None,
            problem: None,
        };
        let keep = options.keep;
        let bounds = (keep.max_bytes, keep.keep.as_secs());
        match RecordFiles::open(&options.folder, bounds) {
            Ok((files, before, problems)) => {
                kept.files = Some(files);
                for problem in problems {
                    tracing::warn!(problem, "reading flow records failed");
                }
                if let Some(before) = before {
                    kept.minute = before;
                    kept.turn_to(now);
                }
            }
            Err(error) => {
                let folder = options.folder.display();
                kept.fails(format!("opening {folder} failed: {error}"));
            }
        }
        kept
    }

    fn fails(&mut self, problem: String) {
        if self.problem.is_none() {
            tracing::error!(problem, "keeping flow records failed");
        }
        self.problem = Some(problem);
    }

    /// Begins another minute, if it is time.
    pub(super) fn turn_to(&mut self, now: u64) {
        let number = now / SECONDS;
        if number == self.minute.number {
            return;
        }
        let over = std::mem::replace(&mut self.minute, Minute::new(number));
        if over.records.is_empty() {
            return;
        }
        if let Some(files) = &mut self.files
            && let Err(error) = files.append(&over, now)
        {
            self.fails(format!("writing flow records failed: {error}"));
        }
    }

    /// Counts what was noted; returns what was counted in which record.
    pub(super) fn take(
        &mut self,
        noted: &Denials,
        (state, ends): (&ReconciledState, &Ends<'_>),
        at: impl Fn(vswitch_datapath::Timestamp) -> u64,
    ) -> Vec<(FlowOf, Counted)> {
        self.lost += noted.lost;
        let mut all = Vec::with_capacity(noted.denials.len());
        for denial in &noted.denials {
            let (first, last) = (at(denial.first), at(denial.last));
            if denial.verdict == DenialVerdict::WouldDeny {
                self.audit.add(denial, state, (first, last));
            }
            let counted = Counted {
                packets: denial.packets,
                connections: denial.connections,
                first,
                last,
                explanation: None,
            };
            let (of, is_new) = self.minute.add(flow_of(denial, state, ends), &counted);
            if is_new && let Some(record) = to_explain(denial, &of) {
                self.minute.unexplained.push_back(record);
            }
            all.push((of, counted));
        }
        self.explain(ends);
        all
    }

    fn explain(&mut self, ends: &Ends<'_>) {
        for _ in 0..EXPLAINED_AT_ONCE {
            let Some(record) = self.minute.unexplained.pop_front() else {
                return;
            };
            let explanation = explanation(&record, ends);
            if let Some(of) = self.minute.records.get_mut(&record.of) {
                of.explanation = explanation;
                self.minute.is_changed = true;
            }
        }
    }

    /// Writes the running minute.
    pub(super) fn write(&mut self) {
        let Some(files) = &self.files else { return };
        if !std::mem::take(&mut self.minute.is_changed) {
            return;
        }
        match files.write_current(&self.minute) {
            Ok(0) => {
                if self.problem.take().is_some() {
                    tracing::info!("flow records are kept again");
                }
            }
            Ok(left_out) => self.fails(format!(
                "flows.max_megabytes leaves no room for {left_out} records of this minute"
            )),
            Err(error) => {
                self.minute.is_changed = true;
                self.fails(format!("writing flow records failed: {error}"));
            }
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

/// Fetches and writes as long as the daemon runs.
pub async fn follow(log: Arc<FlowLog>, beat: Beats) -> Ended {
    let mut ticks = tokio::time::interval(FETCH_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beat.wait(ticks.tick()).await;
        let log = Arc::clone(&log);
        beat.wait(supervise::blocking(move || log.keep())).await;
    }
}
