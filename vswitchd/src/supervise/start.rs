//! Starting threads and tasks, and what their end means.

use std::any::Any;
use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::thread::JoinHandle;

use futures_util::FutureExt as _;
use tokio::task::JoinHandle as TaskHandle;

use super::abort::end;
use super::beat::Beat;
use super::end::{Within, panic_message};
use super::entry::Sign;
use super::part::Part;
use super::supervisor::Supervisor;

/// Why a thread or task returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to, or has done what it was for.
    AsTold,
    /// It cannot go on: unless the daemon is stopping, the process ends.
    Early(&'static str),
}

/// A running task; it is cancelled when this is dropped.
#[derive(Debug)]
#[must_use = "dropping it cancels the task"]
pub struct Task {
    handle: TaskHandle<()>,
}

impl Task {
    /// Waits for its end.
    pub async fn ended(mut self) {
        // Its panic ended the process.
        let _cancelled = (&mut self.handle).await;
    }

    /// Cancels it, and waits until it is gone.
    pub async fn cancel(self) {
        self.handle.abort();
        self.ended().await;
    }

    /// Returns whether it has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl Supervisor {
    /// Starts a thread. `instance` tells it from others of its part, and may be empty. The kernel
    /// keeps 15 bytes of `thread`, its name there.
    ///
    /// # Errors
    /// The thread cannot be had.
    #[expect(clippy::disallowed_methods, reason = "this is the helper")]
    pub fn thread(
        &self,
        part: Part,
        instance: &str,
        thread: &str,
        body: impl FnOnce(&Beat) -> Ended + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let supervisor = self.clone();
        let beat = self.beat(part, instance);
        std::thread::Builder::new()
            .name(thread.to_owned())
            .spawn(move || {
                let _within = Within::enter(&beat.entry);
                let ended = catch_unwind(AssertUnwindSafe(|| body(&beat)));
                supervisor.judge(&beat, ended);
            })
    }

    /// Starts a task. `instance` tells it from others of its part, and may be empty.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[expect(clippy::disallowed_methods, reason = "this is the helper")]
    pub fn task<F>(
        &self,
        part: Part,
        instance: &str,
        body: impl FnOnce(Beats) -> F + Send + 'static,
    ) -> Task
    where
        F: Future<Output = Ended> + Send + 'static,
    {
        let supervisor = self.clone();
        let beat = std::sync::Arc::new(self.beat(part, instance));
        let handle = tokio::spawn(async move {
            let given = std::sync::Arc::clone(&beat);
            let mut run = pin!(async move { body(given).await });
            let run = poll_fn(|context| {
                let _within = Within::enter(&beat.entry);
                run.as_mut().poll(context)
            });
            let ended = AssertUnwindSafe(run).catch_unwind().await;
            supervisor.judge(&beat, ended);
        });
        Task { handle }
    }

    fn beat(&self, part: Part, instance: &str) -> Beat {
        Beat {
            entry: self.enter(part, instance, Sign::Beats),
        }
    }

    /// Ends the process unless the end was in order.
    fn judge(&self, beat: &Beat, ended: Result<Ended, Box<dyn Any + Send>>) {
        let name = &beat.entry.name;
        match ended {
            Ok(Ended::AsTold) => {}
            Ok(Ended::Early(why)) if self.is_stopping() => {
                tracing::debug!(name, why, "part ended with the daemon");
            }
            Ok(Ended::Early(why)) => self.shared.start.ended_early(name, why),
            Err(payload) => end(
                name,
                &format!("panicked: {}", panic_message(payload.as_ref())),
            ),
        }
    }
}

/// The beat of a task, which it may share with what it is made of.
pub type Beats = std::sync::Arc<Beat>;

/// Starts work that ends with the request it is for. It goes on when the client hangs up; a panic
/// of it is the request's alone, and comes back as an error.
///
/// # Panics
/// Outside a tokio runtime.
#[expect(clippy::disallowed_methods, reason = "this is the helper")]
pub fn request<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> TaskHandle<T> {
    tokio::spawn(work)
}

/// Does the work of a request on the thread of a part. A panic of it is the request's alone.
pub fn for_request(work: impl FnOnce()) {
    let _without = Within::none();
    // The hook has logged it, and what `work` held is dropped: the request notices that.
    let _panicked = catch_unwind(AssertUnwindSafe(work));
}

/// Runs what blocks for a part that waits for it, where it may block; a panic is the part's.
///
/// # Panics
/// If `work` does.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(payload) => std::panic::resume_unwind(payload),
            // The runtime is shutting down, and with it whoever waits here.
            Err(_) => std::future::pending().await,
        },
    }
}
