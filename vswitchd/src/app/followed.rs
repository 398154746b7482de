//! The state in force as tasks follow it that bring the node's kernel in line: at every change,
//! and at a tick besides, because others change the kernel too.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};

use crate::reconcile::{Changes, ReconcileHandle, ReconciledState};
use crate::supervise::Beat;

/// Waits for the next change or tick.
pub(super) struct Followed {
    reconcile: ReconcileHandle,
    changes: Changes,
    tick: Interval,
}

/// What there is to bring the kernel in line with.
pub(super) struct Look {
    pub(super) state: Arc<ReconciledState>,
    /// Whether it is time to look at the kernel, changed or not.
    pub(super) is_tick: bool,
}

impl Followed {
    /// Begins with a tick at once.
    pub(super) fn new(reconcile: ReconcileHandle, every: Duration) -> Self {
        let mut tick = tokio::time::interval(every);
        // A round may take longer than a tick: then nothing is gained by another one at once.
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            changes: reconcile.changes(),
            reconcile,
            tick,
        }
    }

    /// Returns what is in force, `None` when the reconciler has ended. Cancel safe.
    pub(super) async fn next(&mut self, beat: &Beat) -> Option<Look> {
        let next = async {
            tokio::select! {
                state = self.changes.next() => (state, false),
                _ = self.tick.tick() => (Some(self.reconcile.snapshot()), true),
            }
        };
        let (state, is_tick) = beat.wait(next).await;
        state.map(|state| Look { state, is_tick })
    }

    /// Has the next tick come this soon: something is to be tried again.
    pub(super) fn again_after(&mut self, pause: Duration) {
        self.tick.reset_after(pause);
    }
}
