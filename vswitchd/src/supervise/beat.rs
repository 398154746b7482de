//! Heartbeat of a thread or task.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::entry::Entry;
use super::fault::{Fault, fail};

/// Gives the signs of life of one thread or task; the watch ends with it.
#[derive(Debug)]
pub struct Beat {
    pub(super) entry: Arc<Entry>,
}

impl Beat {
    /// Beats, on a thread: at least once in [`Self::period`].
    #[inline]
    pub fn beat(&self) {
        self.entry.beats.fetch_add(1, Relaxed);
        if let Some(fault) = self.entry.faults.of(self.entry.part) {
            fail(self.entry.part, fault);
        }
    }

    /// Returns how often to beat.
    #[must_use]
    pub fn period(&self) -> std::time::Duration {
        self.entry.limits.late / 4
    }

    /// Waits for something that may take for ever, and beats meanwhile. What a task waits for
    /// outside of this has to come within the limits. Cancel safe if `event` is.
    pub async fn wait<T>(&self, event: impl Future<Output = T>) -> T {
        let mut event = pin!(event);
        let mut tick = tokio::time::interval(self.period());
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                value = &mut event => {
                    self.alive().await;
                    return value;
                }
                _ = tick.tick() => self.alive().await,
            }
        }
    }

    async fn alive(&self) {
        self.entry.beats.fetch_add(1, Relaxed);
        match self.entry.faults.of(self.entry.part) {
            None => {}
            // The thread belongs to the runtime.
            Some(Fault::Hang) => std::future::pending().await,
            Some(fault) => fail(self.entry.part, fault),
        }
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.entry.leave();
    }
}
