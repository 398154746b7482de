//! Bounds how often Events about one object are written (client-go's `EventSourceObjectSpamFilter`).

use super::Regarding;
use super::recent::{MAX_REMEMBERED, Recent};

/// So many may be written at once.
const BURST: u64 = 25;

/// Seconds after which one more may.
const REFILL_SECONDS: u64 = 300;

/// A token bucket for each object.
#[derive(Debug)]
pub(super) struct SpamFilter {
    /// When each object's bucket is full again, in seconds since 1970.
    full_at: Recent<Regarding, u64>,
}

impl Default for SpamFilter {
    fn default() -> Self {
        Self {
            full_at: Recent::new(MAX_REMEMBERED),
        }
    }
}

impl SpamFilter {
    /// Returns whether an Event about an object may be written now, in seconds since 1970.
    pub(super) fn allows(&mut self, regarding: &Regarding, now: u64) -> bool {
        let full_at = self.full_at.entry(regarding, || now);
        let empty = now + BURST * REFILL_SECONDS;
        // A clock that was put back leaves it empty at most.
        *full_at = (*full_at).clamp(now, empty);
        let after = *full_at + REFILL_SECONDS;
        let is_allowed = after <= empty;
        if is_allowed {
            *full_at = after;
        }
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_has_a_burst_and_one_more_every_five_minutes() {
        let regarding = |name: &str| Regarding {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            uid: String::new(),
        };
        let mut filter = SpamFilter::default();
        let (web, db) = (regarding("web"), regarding("db"));
        let allowed = |filter: &mut SpamFilter, of: &Regarding, now| {
            (0..100).filter(|_| filter.allows(of, now)).count()
        };
        assert_eq!(allowed(&mut filter, &web, 1_000), 25);
        assert_eq!(allowed(&mut filter, &db, 1_000), 25, "each has its own");
        assert_eq!(allowed(&mut filter, &web, 1_299), 0);
        assert_eq!(allowed(&mut filter, &web, 1_300), 1);
        assert_eq!(allowed(&mut filter, &web, 1_900), 2);
        assert_eq!(allowed(&mut filter, &web, 1_000_000), 25);
        assert_eq!(allowed(&mut filter, &web, 5), 0, "the clock was put back");
        assert_eq!(allowed(&mut filter, &web, 305), 1);
    }
}
