//! Threads that collect and write answers which may be long: metrics, lists, dumps.
//!
//! They have a lower scheduling priority than the rest of the daemon, so that scrapes and lists of
//! ten thousand objects, read in a loop, leave the processors to CNI calls, readiness and packets.
//! A thread may lower its priority, but not raise it again without `CAP_SYS_NICE`: that is why
//! these are threads of their own and not those of the runtime.

use std::collections::VecDeque;
use std::io;
use std::num::NonZero;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::supervise::{self, Beat, Ended, Part, Supervisor};

/// Most threads: a long read does not hold up a short one, where there are processors for both.
const MOST_THREADS: usize = 4;

/// How many reads may wait for a thread; the clients of others wait for a place.
const MOST_WAITING: usize = 64;

/// Added to the daemon's nice value (sched(7)): beside a thread of the daemon's own priority, a
/// reader gets a quarter of a processor. Not the most, since others wait for the locks that a read
/// holds.
const NICE: i32 = 5;

/// Runs reads. Its threads end with the last clone of it.
#[derive(Debug, Clone)]
pub struct Readers {
    open: Arc<Open>,
    places: Arc<Semaphore>,
}

/// A read panicked, or the daemon stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer could not be collected: its thread panicked, see the daemon's log")]
pub struct ReadFailed;

impl Readers {
    /// Starts the threads.
    ///
    /// # Errors
    /// A thread cannot be had.
    pub fn start(supervisor: &Supervisor) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        for index in 0..threads() {
            let (shared, instance) = (Arc::clone(&shared), index.to_string());
            let name = format!("vsw-reader-{index}");
            let serve = move |beat: &Beat| {
                supervise::lower_priority(NICE);
                shared.serve(beat);
                Ended::AsTold
            };
            drop(supervisor.thread(Part::Reader, &instance, &name, serve)?);
        }
        Ok(Self {
            open: Arc::new(Open(shared)),
            places: Arc::new(Semaphore::new(MOST_WAITING)),
        })
    }

    /// Collects an answer, unless nobody waits for it any more when its turn comes.
    ///
    /// # Errors
    /// `read` panicked, which is the request's matter alone.
    pub async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ReadFailed> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let (sender, answer) = oneshot::channel();
        let run = Box::new(move || {
            if !sender.is_closed() {
                // Who hung up meanwhile misses nothing.
                drop(sender.send(read()));
            }
        });
        self.open.0.push(Job {
            run,
            _place: place.map_err(|_closed| ReadFailed)?,
        });
        answer.await.map_err(|_dropped| ReadFailed)
    }
}

/// A read that waits, and its place among [`MOST_WAITING`].
struct Job {
    run: Box<dyn FnOnce() + Send>,
    _place: OwnedSemaphorePermit,
}

#[derive(Default)]
struct Inbox {
    jobs: VecDeque<Job>,
    is_closed: bool,
}

/// What clients and threads share.
#[derive(Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, job: Job) {
        self.lock().jobs.push_back(job);
        self.changed.notify_one();
    }

    fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Runs reads until the inbox is closed.
    fn serve(&self, beat: &Beat) {
        loop {
            beat.beat();
            let mut inbox = self.lock();
            if inbox.jobs.is_empty() && !inbox.is_closed {
                let waited = self.changed.wait_timeout(inbox, beat.period());
                inbox = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            if inbox.is_closed {
                return;
            }
            let job = inbox.jobs.pop_front();
            drop(inbox);
            if let Some(Job { run, _place: place }) = job {
                drop(place);
                supervise::for_request(run);
            }
        }
    }
}

/// Closes the inbox with the last client.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Open")
    }
}

/// Half of the processors: whoever reads takes what was read on another one.
fn threads() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    (processors / 2).clamp(1, MOST_THREADS)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use std::sync::mpsc;

    use super::*;
    use crate::supervise::Faults;

    fn readers() -> Readers {
        Readers::start(&Supervisor::new(Faults::none())).unwrap()
    }

    /// Nice value of the calling thread.
    fn nice() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        // proc_pid_stat(5): field 19, of which two are before the name's end.
        fields.split(' ').nth(16).unwrap().parse().unwrap()
    }

    #[tokio::test]
    async fn a_read_runs_with_a_lower_priority_than_who_asks() {
        let (here, there) = (nice(), readers().run(nice).await.unwrap());
        assert_eq!(there - here, NICE);
    }

    #[tokio::test]
    async fn a_panic_is_the_requests_alone() {
        let readers = readers();
        for _ in 0..=threads() {
            let failed = readers.run(|| panic!("a test makes a read panic")).await;
            assert_eq!(failed.map(|()| 0), Err(ReadFailed));
        }
        assert_eq!(readers.run(|| 7).await, Ok(7));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_read_that_nobody_waits_for_is_not_begun_and_gives_its_place_back() {
        let readers = readers();
        let mut release = Vec::new();
        let mut busy = Vec::new();
        for _ in 0..threads() {
            let (sender, wait) = mpsc::sync_channel::<()>(0);
            let (begun, has_begun) = oneshot::channel();
            release.push(sender);
            let readers = readers.clone();
            busy.push(supervise::request(async move {
                let read = move || {
                    let _told = begun.send(());
                    let _closed = wait.recv();
                };
                readers.run(read).await
            }));
            has_begun.await.unwrap();
        }
        let has_run = Arc::new(AtomicBool::new(false));
        for _ in 0..MOST_WAITING {
            let seen = Arc::clone(&has_run);
            let read = readers.run(move || seen.store(true, SeqCst));
            // Polled once, then dropped, as by a client that hangs up.
            assert!(futures_util::FutureExt::now_or_never(read).is_none());
        }
        assert_eq!(readers.places.available_permits(), 0);
        release.clear();
        for task in busy {
            assert_eq!(task.await.unwrap(), Ok(()));
        }
        assert_eq!(readers.run(|| 7).await, Ok(7));
        assert!(!has_run.load(SeqCst));
        assert_eq!(readers.places.available_permits(), MOST_WAITING);
    }

    #[tokio::test]
    async fn threads_end_with_the_last_client() {
        let readers = readers();
        let shared = Arc::clone(&readers.open.0);
        drop(readers.clone());
        assert!(!shared.lock().is_closed);
        drop(readers);
        assert!(shared.lock().is_closed);
    }
}
