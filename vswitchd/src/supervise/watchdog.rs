//! The watchdog: the thread that checks heartbeats.
//!
//! Time counts only while this thread runs: a process that was stopped or a machine that slept
//! makes nobody late.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::abort::end;
use super::beat::Beat;
use super::depth::Depth;
use super::entry::{Entry, Sign};
use super::part::Part;
use super::start::Ended;
use super::supervisor::Supervisor;

/// The running watchdog; it ends when this is dropped.
#[derive(Debug)]
pub struct Watchdog {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

/// Starts to count. `all_well` is called in every round in which nobody is late: it tells the
/// service manager. The watchdog's own beat is for [`guard`] to count.
///
/// # Errors
/// The thread cannot be had.
pub fn start(
    supervisor: &Supervisor,
    all_well: impl Fn() + Send + 'static,
) -> io::Result<Watchdog> {
    let (stop, stopped) = sync_channel::<()>(0);
    let watched = supervisor.clone();
    let body = move |beat: &Beat| {
        let mut round = Round::default();
        let period = beat.period().min(Duration::from_secs(1));
        while stopped.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
            beat.beat();
            round.count(&watched, period, |part| part != Part::Watchdog);
            if watched.late().is_empty() {
                all_well();
            }
        }
        Ended::AsTold
    };
    let thread = supervisor.thread(Part::Watchdog, "", "vsw-watchdog", body)?;
    Ok(Watchdog {
        stop: Some(stop),
        thread: Some(thread),
    })
}

/// Counts the beats of the watchdog itself, for ever.
pub async fn guard(supervisor: &Supervisor) -> Infallible {
    let mut round = Round::default();
    let mut tick = tokio::time::interval(GUARD_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        round.count(supervisor, GUARD_EVERY, |part| part == Part::Watchdog);
    }
}

const GUARD_EVERY: Duration = Duration::from_secs(1);

/// What was seen in the round before.
#[derive(Default)]
pub(super) struct Round {
    seen: HashMap<u64, Seen>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Beats(u64),
    Queue(Depth),
}

impl Round {
    /// Counts another `period` of silence for whoever has not moved, and ends the process if one is
    /// silent for too long.
    pub(super) fn count(
        &mut self,
        supervisor: &Supervisor,
        period: Duration,
        is_mine: impl Fn(Part) -> bool,
    ) {
        let before = std::mem::take(&mut self.seen);
        let mut longest = None;
        for entry in supervisor
            .entries()
            .iter()
            .filter(|entry| is_mine(entry.part))
        {
            let now = look(entry);
            let key = entry.id;
            let was_late = entry.silent_for() >= entry.limits.late;
            let silent = match before.get(&key) {
                Some(last) if !moved(*last, now) => entry.silent_for() + period,
                _ => Duration::ZERO,
            };
            let millis = u64::try_from(silent.as_millis()).unwrap_or(u64::MAX);
            entry.silent.store(millis, Relaxed);
            self.seen.insert(key, now);
            warn(entry, silent, was_late);
            if silent >= entry.limits.end {
                longest = longest.max(Some(silent));
            }
        }
        if let Some(silent) = longest.filter(|_| !supervisor.is_stopping()) {
            // All of them: a part that hangs makes the queue that it empties late as well.
            let late = supervisor.late();
            let names: Vec<&str> = late.iter().map(|late| late.name.as_str()).collect();
            let why = format!("no sign of life for {} s", silent.as_secs());
            end(&names.join(", "), &why);
        }
    }
}

fn look(entry: &Entry) -> Seen {
    match &entry.sign {
        Sign::Beats => Seen::Beats(entry.beats.load(Relaxed)),
        // A queue that a test makes hang is one from which nothing is taken.
        Sign::Queue(_) if entry.part.is_queue() && entry.faults.of(entry.part).is_some() => {
            Seen::Queue(Depth {
                waiting: 1,
                taken: u64::MAX,
            })
        }
        Sign::Queue(depth) => Seen::Queue(depth()),
    }
}

fn moved(last: Seen, now: Seen) -> bool {
    match (last, now) {
        (Seen::Queue(last), Seen::Queue(now)) => now.waiting == 0 || now.taken != last.taken,
        (last, now) => last != now,
    }
}

fn warn(entry: &Entry, silent: Duration, was_late: bool) {
    let (name, seconds) = (&entry.name, silent.as_secs());
    let is_late = silent >= entry.limits.late;
    if is_late && !was_late {
        tracing::error!(name, seconds, "a part of the switch gives no sign of life");
    } else if was_late && !is_late {
        tracing::info!(name, "a part of the switch is alive again");
    }
}
