//! Records on their way to one destination.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use vswitch_api::v1::FlowRecord;

use crate::flow_records::Round;

/// Most records that wait for a destination: two minutes of as many kinds as are told apart. They
/// are shared with the others that wait for them; a record takes some 700 bytes.
pub(super) const MAX_WAITING: usize = 32_768;

/// Records of a round. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Batch {
    round: Arc<Round>,
    range: Range<usize>,
}

impl Batch {
    pub(super) fn of(round: Arc<Round>) -> Self {
        let range = 0..round.records.len();
        Self { round, range }
    }

    pub(super) fn records(&self) -> &[FlowRecord] {
        self.round
            .records
            .get(self.range.clone())
            .unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.range.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Takes the first records out.
    pub(super) fn split(&mut self, most: usize) -> Self {
        let end = self.range.end.min(self.range.start + most);
        let first = Self {
            round: Arc::clone(&self.round),
            range: self.range.start..end,
        };
        self.range.start = end;
        first
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Waiting {
    max_records: usize,
    inner: Mutex<Inner>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    batches: VecDeque<Batch>,
    records: usize,
    is_closed: bool,
}

impl Waiting {
    pub(super) fn new(max_records: usize) -> Self {
        Self {
            max_records,
            inner: Mutex::default(),
            more: Notify::new(),
        }
    }

    /// Adds records behind the others; returns how many of the oldest are lost for that.
    pub(super) fn add(&self, batch: Batch) -> usize {
        if batch.is_empty() {
            return 0;
        }
        let mut inner = self.lock();
        inner.records += batch.len();
        inner.batches.push_back(batch);
        let beyond = inner.records.saturating_sub(self.max_records);
        let mut lost = 0;
        while lost < beyond {
            lost += inner
                .take(beyond - lost)
                .map_or(beyond, |batch| batch.len());
        }
        drop(inner);
        self.more.notify_one();
        lost
    }

    /// Says that no more come.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.more.notify_one();
    }

    /// Waits for records and takes out so many, of one round; `None`: no more come. Cancel safe,
    /// for one caller at a time.
    pub(super) async fn next(&self, most: usize) -> Option<Batch> {
        loop {
            {
                let mut inner = self.lock();
                let next = inner.take(most);
                if next.is_some() || inner.is_closed {
                    return next;
                }
            }
            self.more.notified().await;
        }
    }

    /// Each change leaves it whole, so that a panic beside leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn take(&mut self, most: usize) -> Option<Batch> {
        let oldest = self.batches.front_mut()?;
        let taken = oldest.split(most);
        if oldest.is_empty() {
            self.batches.pop_front();
        }
        self.records -= taken.len();
        Some(taken)
    }
}
