//! Counters of each engine, and their sums, ended engines included.

use std::cell::OnceCell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cache::CacheStats;
use crate::drop_reason::DropReason;
use crate::pipeline::{CounterSlot, Counts, DropCounters, PathCounters, RuleCounters};

/// Counters of one engine. Written by its worker only, read by anybody: relaxed, nothing is
/// ordered by them.
#[derive(Debug, Default)]
pub(super) struct EngineCounters {
    /// What packets counted that were translated.
    pub(super) rules: RuleCounters,
    /// What packets of cached flows counted.
    pub(super) paths: PathCounters,
    pub(super) drops: DropCounters,
    pub(super) hits: AtomicU64,
    pub(super) misses: AtomicU64,
    pub(super) entries: AtomicU64,
    pub(super) max_entries: AtomicU64,
    pub(super) evictions: AtomicU64,
}

/// The counters of all engines.
#[derive(Debug, Default)]
pub(super) struct AllCounters {
    /// Guards the list only; engines count without it.
    engines: Mutex<Vec<Arc<EngineCounters>>>,
    /// What engines had counted that are gone.
    retired: EngineCounters,
}

impl AllCounters {
    /// Returns counters for one more engine.
    pub(super) fn register(&self) -> Arc<EngineCounters> {
        let counters = Arc::new(EngineCounters::default());
        self.lock().push(Arc::clone(&counters));
        counters
    }

    /// Keeps what an engine counted that goes.
    pub(super) fn retire(&self, gone: &Arc<EngineCounters>) {
        let mut engines = self.lock();
        engines.retain(|counters| !Arc::ptr_eq(counters, gone));
        gone.paths.flush();
        self.retired.rules.add_all(&gone.rules);
        self.retired.rules.add_all(gone.paths.flushed());
        gone.drops
            .read()
            .into_iter()
            .for_each(|(reason, n)| self.retired.drops.add(reason, n));
        let add = |to: &AtomicU64, from: &AtomicU64| to.fetch_add(from.load(Relaxed), Relaxed);
        add(&self.retired.hits, &gone.hits);
        add(&self.retired.misses, &gone.misses);
        add(&self.retired.evictions, &gone.evictions);
    }

    /// Returns what tells what was counted in a slot.
    pub(super) fn of_rules(&self) -> impl Fn(CounterSlot) -> Counts {
        let flushed = OnceCell::new();
        move |slot| {
            flushed.get_or_init(|| self.each(|counters| counters.paths.flush()));
            let mut sum = Counts::default();
            self.each(|counters| {
                let cached = counters.paths.flushed().read(slot);
                sum = sum.plus(counters.rules.read(slot)).plus(cached);
            });
            sum
        }
    }

    /// Returns the drops for each reason.
    pub(super) fn drops(&self) -> Vec<(DropReason, u64)> {
        let sum = DropCounters::default();
        self.each(|counters| {
            counters
                .drops
                .read()
                .into_iter()
                .for_each(|(reason, n)| sum.add(reason, n));
        });
        sum.read()
    }

    /// Returns the figures of all caches together.
    pub(super) fn cache(&self) -> CacheStats {
        let mut stats = CacheStats::default();
        self.each(|counters| {
            stats.hits += counters.hits.load(Relaxed);
            stats.misses += counters.misses.load(Relaxed);
            stats.entries += counters.entries.load(Relaxed);
            stats.max_entries += counters.max_entries.load(Relaxed);
            stats.evictions += counters.evictions.load(Relaxed);
        });
        stats
    }

    /// The list stays locked, so that an engine that goes is counted once.
    fn each(&self, mut visit: impl FnMut(&EngineCounters)) {
        let engines = self.lock();
        engines.iter().for_each(|counters| visit(counters));
        visit(&self.retired);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<EngineCounters>>> {
        // A list of pointers is whole whenever the lock is free.
        self.engines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
