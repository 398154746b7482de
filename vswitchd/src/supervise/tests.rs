use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use super::watchdog::Round;
use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn limits() -> Limits {
    Limits {
        late: 3 * SECOND,
        end: 3600 * SECOND,
    }
}

fn supervisor() -> Supervisor {
    Supervisor::new(Faults::new(limits(), |_| None))
}

fn names(late: &[Late]) -> Vec<&str> {
    late.iter().map(|late| late.name.as_str()).collect()
}

#[test]
fn every_part_has_a_name_of_its_own_and_ends_after_it_is_late() {
    let mut names: Vec<_> = Part::ALL.iter().map(|part| part.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Part::ALL.len());
    for part in Part::ALL {
        assert!(part.limits().end > part.limits().late, "{part:?}");
    }
}

#[test]
fn who_does_not_beat_is_late_until_it_does() {
    let supervisor = supervisor();
    let (go, wait) = std::sync::mpsc::sync_channel::<()>(1);
    let (said, heard) = std::sync::mpsc::sync_channel::<()>(1);
    let body = move |beat: &Beat| {
        while wait.recv().is_ok() {
            beat.beat();
            said.send(()).unwrap();
        }
        Ended::AsTold
    };
    let thread = supervisor.thread(Part::Expiry, "a", "test", body).unwrap();
    let mut round = Round::default();
    let mut count = || round.count(&supervisor, SECOND, |_| true);
    for _ in 0..3 {
        count();
        assert_eq!(supervisor.late(), []);
    }
    count();
    assert_eq!(names(&supervisor.late()), ["expiry a"]);
    assert_eq!(
        supervisor.late()[0].to_string(),
        "expiry a gave no sign of life for 3 s"
    );
    go.send(()).unwrap();
    heard.recv().unwrap();
    count();
    assert_eq!(supervisor.late(), []);
    drop(go);
    thread.join().unwrap();
    assert!(supervisor.names().is_empty(), "the watch ends with it");
}

#[test]
fn a_queue_is_late_when_it_stands_still_with_something_in_it() {
    let supervisor = supervisor();
    let state = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
    let seen = Arc::clone(&state);
    let _queue = supervisor.queue(Part::WatcherInbox, move || Depth {
        waiting: seen.0.load(SeqCst),
        taken: seen.1.load(SeqCst),
    });
    let mut round = Round::default();
    let mut count = |times| {
        for _ in 0..times {
            round.count(&supervisor, SECOND, |_| true);
        }
    };
    count(10);
    assert_eq!(supervisor.late(), [], "an empty queue need not move");
    state.0.store(5, SeqCst);
    count(3);
    assert_eq!(names(&supervisor.late()), ["watcher-inbox"]);
    state.1.store(1, SeqCst);
    count(1);
    assert_eq!(supervisor.late(), [], "it moves, however full it is");
}

#[test]
fn work_that_does_not_end_is_late() {
    let supervisor = supervisor();
    let work = supervisor.work(Part::Store);
    let mut round = Round::default();
    work.run(|| {
        for _ in 0..4 {
            round.count(&supervisor, SECOND, |_| true);
        }
        assert_eq!(names(&supervisor.late()), ["store"]);
    });
    round.count(&supervisor, SECOND, |_| true);
    assert_eq!(supervisor.late(), []);
}

#[tokio::test(start_paused = true)]
async fn a_task_beats_while_it_waits_and_not_while_it_hangs() {
    let supervisor = supervisor();
    let run = |beat: Beats| async move {
        beat.wait(tokio::time::sleep(60 * SECOND)).await;
        std::future::pending::<()>().await;
        Ended::AsTold
    };
    let task = supervisor.task(Part::HostWatch, "", run);
    let mut round = Round::default();
    for _ in 0..59 {
        tokio::time::sleep(SECOND).await;
        round.count(&supervisor, SECOND, |_| true);
        assert_eq!(supervisor.late(), []);
    }
    for _ in 0..5 {
        tokio::time::sleep(SECOND).await;
        round.count(&supervisor, SECOND, |_| true);
    }
    assert_eq!(names(&supervisor.late()), ["host-watch"]);
    task.cancel().await;
    assert!(supervisor.names().is_empty());
}

#[tokio::test]
async fn an_end_in_order_ends_nothing_else() {
    let supervisor = supervisor();
    let told = supervisor.task(Part::Mirror, "", |_| async { Ended::AsTold });
    told.ended().await;
    supervisor.stop();
    let early = supervisor.task(Part::Mirror, "", |_| async { Ended::Early("no more") });
    early.ended().await;
    let request = request(async { panic!("of one request") });
    assert!(request.await.unwrap_err().is_panic());
}

/// Waits on its drop until `dependent` has ended and was judged.
struct UntilEnded(Task);

impl Drop for UntilEnded {
    fn drop(&mut self) {
        while !self.0.is_finished() {
            std::thread::yield_now();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ends_because_the_start_failed_does_not_hide_why() {
    let supervisor = supervisor();
    let start = async {
        let (needed, mut gone) = tokio::sync::mpsc::channel::<()>(1);
        let _dependent = UntilEnded(supervisor.task(Part::Mirror, "", move |_| async move {
            gone.recv().await;
            Ended::Early("the watchers have ended")
        }));
        tokio::task::yield_now().await;
        // Goes before what depends on it.
        let _needed = needed;
        Err::<(), _>("the address is in use")
    };
    assert_eq!(
        supervisor.starting(start).await,
        Err("the address is in use")
    );
    let late = supervisor.task(Part::Mirror, "", |_| async { Ended::Early("late") });
    late.ended().await;
}

#[tokio::test]
#[should_panic(expected = "of the work")]
async fn a_panic_of_blocking_work_is_that_of_who_waits_for_it() {
    blocking(|| panic!("of the work")).await
}
