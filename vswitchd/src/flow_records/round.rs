//! What followers are told at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::broadcast::{Receiver, Sender, channel};
use vswitch_api::v1::FlowRecord;

/// Rounds of records that a follower may be behind before it misses some.
const FOLLOWERS_BEHIND: usize = 64;

/// What was counted since the round before, as records of their own.
#[derive(Debug, Default)]
pub struct Round {
    /// Records of all rounds before: whoever missed some knows how many.
    pub before: u64,
    /// Those of this one.
    pub records: Vec<FlowRecord>,
}

/// Who follows records of one sort. Whoever tells them waits for nobody.
#[derive(Debug)]
pub(super) struct Followers {
    rounds: Sender<Arc<Round>>,
    /// Records that were told; rounds are told one after the other.
    told: AtomicU64,
}

impl Default for Followers {
    fn default() -> Self {
        Self {
            rounds: channel(FOLLOWERS_BEHIND).0,
            told: AtomicU64::new(0),
        }
    }
}

impl Followers {
    pub(super) fn subscribe(&self) -> Receiver<Arc<Round>> {
        self.rounds.subscribe()
    }

    pub(super) fn are_there(&self) -> bool {
        self.rounds.receiver_count() > 0
    }

    pub(super) fn tell(&self, records: Vec<FlowRecord>) {
        if records.is_empty() {
            return;
        }
        let count = u64::try_from(records.len()).unwrap_or(0);
        let before = self.told.fetch_add(count, Relaxed);
        // Nobody may be there any more.
        let _told = self.rounds.send(Arc::new(Round { before, records }));
    }
}
