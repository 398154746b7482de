//! The task of one destination.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::{Receiver, error::RecvError, error::TryRecvError};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::destination::Destination;
use super::sink::{Outcome, Sink};
use super::waiting::{Batch, MAX_WAITING, Waiting};
use crate::flow_records::Round;
use crate::supervise::{Beats, Ended};

/// Records that are handed over at a time (OpenTelemetry's `maxExportBatchSize`).
const BATCH: usize = 512;

/// How often a sink is asked how it does while nothing is denied.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// For how long a sink may have a batch before that is said: a disk or a network that hangs.
const HANGS_AFTER: Duration = Duration::from_secs(10);

/// Takes records to their destination until it is told to stop, then those that are still there.
pub(super) async fn follow(
    rounds: Receiver<Arc<Round>>,
    sink: impl Sink,
    to: Arc<Destination>,
    stop: watch::Receiver<bool>,
    beat: Beats,
) -> Ended {
    let waiting = Waiting::new(MAX_WAITING);
    let work = async {
        tokio::join!(
            take_in(rounds, &waiting, &to, stop),
            hand_over(&sink, &waiting, &to)
        )
    };
    let (ended, ()) = beat.wait(work).await;
    ended
}

/// Does nothing else, so that what is told is never held up.
pub(super) async fn take_in(
    mut rounds: Receiver<Arc<Round>>,
    waiting: &Waiting,
    to: &Destination,
    mut stop: watch::Receiver<bool>,
) -> Ended {
    // Records of all rounds until now.
    let mut heard = None;
    let mut take = |round: Arc<Round>| {
        let missed = heard.map_or(0, |heard| round.before.saturating_sub(heard));
        heard = Some(round.before + u64::try_from(round.records.len()).unwrap_or(0));
        let lost = waiting.add(Batch::of(round));
        to.count_lost(missed + u64::try_from(lost).unwrap_or(0));
    };
    let ended = loop {
        let round = tokio::select! {
            biased;
            round = rounds.recv() => round,
            // An error means that the daemon is gone.
            _ = stop.wait_for(|stopped| *stopped) => break Ended::AsTold,
        };
        match round {
            Ok(round) => take(round),
            // The next one tells how many were missed.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => break Ended::Early("nobody records any more"),
        }
    };
    loop {
        match rounds.try_recv() {
            Ok(round) => take(round),
            Err(TryRecvError::Lagged(_)) => {}
            Err(TryRecvError::Empty | TryRecvError::Closed) => break,
        }
    }
    waiting.close();
    ended
}

/// Hands records over, again and again until they are taken or given up.
pub(super) async fn hand_over(sink: &impl Sink, waiting: &Waiting, to: &Destination) {
    // The first look says at once what cannot work.
    let mut next = Some(Batch::default());
    while let Some(mut batch) = next {
        loop {
            let outcome = send(sink, &batch, to).await;
            let _out = batch.split(outcome.taken + outcome.given_up);
            to.count_exported(outcome.taken);
            to.count_lost(u64::try_from(outcome.given_up).unwrap_or(0));
            match outcome.failed {
                None => to.works(),
                Some(failed) => {
                    to.fails(failed.problem);
                    sleep(failed.again_after).await;
                }
            }
            if batch.is_empty() {
                break;
            }
        }
        next = match timeout(LOOK_EVERY, waiting.next(BATCH)).await {
            Ok(next) => next,
            Err(_) => Some(Batch::default()),
        };
    }
}

async fn send(sink: &impl Sink, batch: &Batch, to: &Destination) -> Outcome {
    let mut sent = pin!(sink.send(batch.clone()));
    match timeout(HANGS_AFTER, &mut sent).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let seconds = HANGS_AFTER.as_secs();
            to.fails(format!("no answer for more than {seconds} s"));
            sent.await
        }
    }
}
