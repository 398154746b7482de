//! Watched queues: one that is not empty has to move.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::abort::end;
use super::depth::Counts;
use super::end::{Within, panic_message};
use super::entry::Entry;
use super::fault::fail;

/// A kind of work, or a queue, under supervision; the watch ends with it.
#[derive(Debug)]
pub struct Queue {
    pub(super) entry: Arc<Entry>,
    pub(super) counts: Arc<Counts>,
}

impl Queue {
    /// Does a piece of work. A panic ends the process, as that of a thread does.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        self.counts.begun.fetch_add(1, Relaxed);
        let part = self.entry.part;
        let done = catch_unwind(AssertUnwindSafe(|| {
            let _within = Within::enter(&self.entry);
            if let Some(fault) = self.entry.faults.of(part) {
                fail(part, fault);
            }
            work()
        }));
        self.counts.done.fetch_add(1, Relaxed);
        done.unwrap_or_else(|payload| {
            if self.entry.is_stopping() {
                resume_unwind(payload);
            }
            end(
                &self.entry.name,
                &format!("panicked: {}", panic_message(payload.as_ref())),
            )
        })
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.entry.leave();
    }
}
