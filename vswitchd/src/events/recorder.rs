//! The end at which Events are noted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::sync::mpsc;

use super::Note;

/// What is noted waits here while an Event is written (client-go's `maxQueuedEvents`).
const QUEUE: usize = 1_000;

/// Takes notes; cheap to clone.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: mpsc::Sender<(Note, u64)>,
    has_lost: Arc<AtomicBool>,
}

/// What was noted, how many times, and is not written yet.
#[derive(Debug)]
pub struct Inbox(pub(super) mpsc::Receiver<(Note, u64)>);

/// Returns a recorder, and where what it notes arrives.
#[must_use]
pub fn channel() -> (Recorder, Inbox) {
    let (queue, inbox) = mpsc::channel(QUEUE);
    let recorder = Recorder {
        queue,
        has_lost: Arc::default(),
    };
    (recorder, Inbox(inbox))
}

impl Recorder {
    /// Returns how many notes are not written yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// Notes something. Waits for nothing: what does not fit into the queue is lost, which the
    /// first time is logged.
    pub fn note(&self, note: Note) {
        self.note_times(note, 1);
    }

    /// Notes something that was so many times.
    pub fn note_times(&self, note: Note, times: u64) {
        if let Err(error) = self.queue.try_send((note.cut(), times))
            && !self.has_lost.swap(true, Relaxed)
        {
            tracing::warn!(%error, "Event lost: more are noted than can be written");
        }
    }
}
