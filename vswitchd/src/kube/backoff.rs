//! How long to wait before the next attempt: doubled each time, with jitter, so that the nodes
//! of a cluster do not come back to their API server all at once.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// Pauses that grow.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    least: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) const fn new(least: Duration, most: Duration) -> Self {
        Self {
            least,
            most,
            next: least,
        }
    }

    /// Returns the next pause: between half of and the whole of what it has grown to.
    pub(super) fn pause(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.most);
        // The keys of a RandomState are random enough for this.
        let random = RandomState::new().hash_one(()) % 1000;
        let share = u32::try_from(random).unwrap_or(0);
        whole / 2 + whole * share / 2000
    }

    /// Begins anew after a success.
    pub(super) fn reset(&mut self) {
        self.next = self.least;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_begin_anew_after_a_success() {
        let (least, most) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(least, most);
        for whole in [100, 200, 400, 800, 1000, 1000] {
            let (pause, whole) = (backoff.pause(), Duration::from_millis(whole));
            assert!(
                pause >= whole / 2 && pause <= whole,
                "{pause:?} of {whole:?}"
            );
        }
        backoff.reset();
        assert!(backoff.pause() <= least);
    }

    #[test]
    fn nodes_do_not_wait_equally_long() {
        let pauses: std::collections::HashSet<Duration> = (0..20)
            .map(|_| Backoff::new(Duration::from_secs(1), Duration::from_secs(1)).pause())
            .collect();
        assert!(pauses.len() > 10, "{pauses:?}");
    }
}
