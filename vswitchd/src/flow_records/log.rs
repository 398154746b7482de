//! Fetches what the datapath notes, every second, and answers who asks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use vswitch_api::v1::{FlowOf, FlowRecord, FlowRecords};
use vswitch_datapath::{Datapath, Denials, NotedConnections, RecordConnections};

use super::kept::{FlowLogOptions, Kept};
use super::merge::Merged;
use super::minute::Counted;
use super::query::FlowQuery;
use super::record::Names;
use super::round::{Followers, Round};
use crate::audit::AuditBook;
use crate::clock::{self, MonotonicClock};
use crate::config::RecordedShare;
use crate::objects::timestamp;
use crate::reconcile::ReconcileHandle;
use crate::supervise::{self, Beats, Ended};

/// Often enough that a pod is still there of which a packet was denied, and what a daemon that is
/// killed loses.
const FETCH_EVERY: Duration = Duration::from_secs(1);

/// The records, and where they come from.
#[derive(Debug)]
pub struct FlowLog {
    datapath: Arc<Datapath>,
    reconcile: ReconcileHandle,
    clock: MonotonicClock,
    node: String,
    keep: Duration,
    /// Which allowed connections are recorded for good.
    share: RecordedShare,
    /// Whether those that are recorded are so when they begin as well.
    starts: bool,
    /// Each change leaves it whole, so that a panic beside leaves nothing half done.
    kept: Mutex<Kept>,
    denied: Followers,
    /// While somebody listens, all connections are recorded.
    allowed: Followers,
    /// Of both, what is recorded for good.
    recorded: Followers,
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
        let log = Self {
            datapath,
            reconcile,
            clock,
            node: options.node,
            keep: keep.keep,
            share: keep.connections,
            starts: keep.connection_starts,
            kept: Mutex::new(kept),
            denied: Followers::default(),
            allowed: Followers::default(),
            recorded: Followers::default(),
        };
        drop(log.up_to_now());
        log
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
        let shelf = kept.shelf(query.allowed);
        let (minute, running) = (shelf.minute.number, shelf.minute.records.clone());
        let (lost, lost_connections) = (kept.lost, kept.lost_connections);
        let mut problems: Vec<String> = shelf.problem().into_iter().cloned().collect();
        let reader = shelf.reader();
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
            recording: self.share.to_string(),
            lost_connections,
            problems,
        }
    }

    /// Returns what is denied from now on, as records of a second each.
    #[must_use]
    pub fn subscribe(&self) -> Receiver<Arc<Round>> {
        self.denied.subscribe()
    }

    /// Returns which allowed connections end from now on, and begin if that is recorded, as records
    /// of a second each. As long as it is held all of them are recorded, whatever is recorded for good. Blocks.
    #[must_use]
    pub fn subscribe_allowed(&self) -> Receiver<Arc<Round>> {
        let follower = self.allowed.subscribe();
        drop(self.up_to_now());
        follower
    }

    /// Returns all that is recorded for good from now on, as records of a second each.
    #[must_use]
    pub fn subscribe_recorded(&self) -> Receiver<Arc<Round>> {
        self.recorded.subscribe()
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
            traffic: counted.traffic,
            explanation: counted.explanation,
        }
    }

    /// Returns all that was noted until now.
    fn up_to_now(&self) -> MutexGuard<'_, Kept> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let is_followed = self.allowed.are_there();
        let is_any_wanted = is_followed || self.share != RecordedShare::OFF;
        self.datapath.record_connections(RecordConnections {
            one_in: self.share.one_in(),
            all: is_followed,
            starts: self.starts && is_any_wanted,
        });
        let (now, ticks) = (clock::unix_seconds(), self.clock.now());
        let noted = self.datapath.fetch_denials();
        let connections = self.datapath.fetch_connections(ticks);
        kept.turn_to(now);
        let is_any = noted != Denials::default() || connections != NotedConnections::default();
        let state = self.reconcile.snapshot();
        if is_any || kept.is_behind() {
            let before = kept.state_before(&state);
            let names = Names::of(&state, &before, &self.datapath);
            let at = |time| now.saturating_sub(ticks.since(time).as_secs());
            let denied = kept.take_denials(&noted, &names, at);
            let denied = self.explained(&kept, denied);
            let connections = kept.take_connections(connections, &names, (now, at));
            self.tell(&self.denied, &denied);
            self.tell(&self.allowed, &connections.all);
            self.tell(&self.recorded, denied.iter().chain(&connections.recorded));
        }
        kept.know(state);
        kept
    }

    /// Adds what is known of why, if anybody is to be told.
    fn explained(&self, kept: &Kept, mut denied: Vec<(FlowOf, Counted)>) -> Vec<(FlowOf, Counted)> {
        if self.denied.are_there() || self.recorded.are_there() {
            for (of, counted) in &mut denied {
                let record = kept.denied.minute.records.get(of);
                counted.explanation = record.and_then(|of| of.explanation.clone());
            }
        }
        denied
    }

    fn tell<'a>(
        &self,
        followers: &Followers,
        counted: impl IntoIterator<Item = &'a (FlowOf, Counted)>,
    ) {
        if followers.are_there() {
            let records = counted.into_iter();
            let records = records.map(|(of, counted)| self.view(of.clone(), counted.clone()));
            followers.tell(records.collect());
        }
    }
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
