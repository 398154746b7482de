//! How it stands with one destination: what went there, what was lost, and why.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// See the module.
#[derive(Debug)]
pub struct Destination {
    /// `file`, `journald`, `otlp` or `ipfix`.
    pub name: &'static str,
    /// Where that is, for people.
    place: String,
    exported: AtomicU64,
    lost: AtomicU64,
    problem: Mutex<Option<String>>,
}

impl Destination {
    pub(super) const fn new(name: &'static str, place: String) -> Self {
        Self {
            name,
            place,
            exported: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            problem: Mutex::new(None),
        }
    }

    /// Returns how many records went there since the start.
    #[must_use]
    pub fn exported(&self) -> u64 {
        self.exported.load(Relaxed)
    }

    /// Returns how many never will.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Returns why none go there at the moment.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let problem = self.lock();
        let (place, lost) = (&self.place, self.lost());
        let problem = problem.as_ref()?;
        Some(format!(
            "flow records do not go to {place}: {problem}; {lost} are lost"
        ))
    }

    pub(super) fn count_exported(&self, records: usize) {
        let records = u64::try_from(records).unwrap_or(0);
        self.exported.fetch_add(records, Relaxed);
    }

    pub(super) fn count_lost(&self, records: u64) {
        if records > 0 && self.lost.fetch_add(records, Relaxed) == 0 {
            let place = &self.place;
            tracing::warn!(place, "flow records lost that should have gone elsewhere");
        }
    }

    /// None go there; what is said again is not logged again.
    pub(super) fn fails(&self, problem: String) {
        let mut now = self.lock();
        if now.is_none() {
            let place = &self.place;
            tracing::error!(place, problem, "flow records do not go where they should");
        }
        *now = Some(problem);
    }

    /// They go there.
    pub(super) fn works(&self) {
        if self.lock().take().is_some() {
            let (place, lost) = (&self.place, self.lost());
            tracing::info!(place, lost, "flow records go where they should again");
        }
    }

    /// Each change leaves it whole, so that a panic beside leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
