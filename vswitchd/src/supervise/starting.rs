//! The start of the daemon, and parts that end early while it lasts.
//!
//! A start that fails drops the parts that it has begun, and whoever depends on them ends because
//! of that. Its own error is the cause and has to be what the process ends with, so an early end
//! counts only when the start has not failed.

use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::abort::end;

#[derive(Debug, Default)]
pub(super) struct Starting {
    phase: Mutex<Phase>,
    ended_early: Notify,
}

#[derive(Debug, Default)]
enum Phase {
    /// What ends early ends the process.
    #[default]
    Started,
    /// What ended early first: name and reason.
    Starting(Option<(String, &'static str)>),
}

impl Starting {
    /// The start of the daemon begins.
    pub(super) fn begin(&self) {
        *self.lock() = Phase::Starting(None);
    }

    /// Ends the process because a part ended early: now, or with the start if that does not fail.
    pub(super) fn ended_early(&self, name: &str, why: &'static str) {
        match &mut *self.lock() {
            Phase::Started => end_early(name, why),
            Phase::Starting(first) => {
                first.get_or_insert_with(|| (name.to_owned(), why));
            }
        }
        self.ended_early.notify_one();
    }

    /// From here on what ends early ends the process, also what has.
    pub(super) fn finish(&self) {
        if let Phase::Starting(Some((name, why))) = std::mem::take(&mut *self.lock()) {
            end_early(&name, why);
        }
    }

    /// Ends the process when a part has ended early.
    pub(super) async fn end(&self) -> Infallible {
        loop {
            self.ended_early.notified().await;
            self.finish();
        }
    }

    /// Each change is a single assignment, so a panic elsewhere leaves it whole.
    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn end_early(name: &str, why: &str) -> ! {
    end(name, &format!("ended: {why}"))
}
