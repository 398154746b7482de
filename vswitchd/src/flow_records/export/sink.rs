//! What takes records, and what came of it.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use vswitch_api::v1::FlowRecord;

use super::waiting::Batch;
use crate::supervise;

/// Pause after which what was not taken is handed over again, if the sink names none.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What came of a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Records that were taken, the first ones of the batch.
    pub(super) taken: usize,
    /// Those behind them that will never be.
    pub(super) given_up: usize,
    /// Why those behind these were not; they are handed over again.
    pub(super) failed: Option<Failed>,
}

/// Why records were not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) problem: String,
    pub(super) again_after: Duration,
}

impl Failed {
    pub(super) fn with(problem: String) -> Self {
        Self {
            problem,
            again_after: AGAIN_AFTER,
        }
    }
}

/// Takes records to where they go. A batch without any asks whether it could.
pub(super) trait Sink: Send + Sync + 'static {
    fn send(&self, batch: Batch) -> impl Future<Output = Outcome> + Send;
}

/// Writes records, one after the other. Blocks.
pub(super) trait Writer: Send + 'static {
    fn write(&mut self, records: &[FlowRecord]) -> Outcome;
}

/// A sink that may block.
#[derive(Debug)]
pub(super) struct Blocking<W>(Arc<Mutex<W>>);

impl<W: Writer> Blocking<W> {
    pub(super) fn new(writer: W) -> Self {
        Self(Arc::new(Mutex::new(writer)))
    }
}

impl<W: Writer> Sink for Blocking<W> {
    async fn send(&self, batch: Batch) -> Outcome {
        let writer = Arc::clone(&self.0);
        supervise::blocking(move || {
            // A writer that panicked has ended the process.
            let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
            writer.write(batch.records())
        })
        .await
    }
}
