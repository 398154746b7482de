//! Writes Events, one at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::correlator::{Correlator, EventWrite, Outcome};
use super::{Inbox, Note};
use crate::clock::unix_seconds;
use crate::errors::chain;
use crate::kube::{ApiServer, KubeError};
use crate::objects::Registry;
use crate::supervise::{Beats, Ended};

/// How often a write is tried that an API server does not answer, and after which pause again
/// (client-go's `maxTriesPerEvent` and `defaultSleepDuration`).
const TRIES: usize = 12;
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Pause between writes to an API server: client-go's clients send five requests a second.
const PAUSE: Duration = Duration::from_millis(200);

/// How often it is looked for Events whose time is over.
const TIDY_EVERY: Duration = Duration::from_secs(60);

/// Where Events go.
#[derive(Debug)]
pub enum Destination {
    /// The API server of the cluster.
    ApiServer(ApiServer),
    /// The registry of Events of this daemon.
    Registry(Arc<Registry>),
    /// Nowhere: they are switched off.
    Nowhere,
}

impl Destination {
    async fn write(&self, write: EventWrite) -> Result<Outcome, KubeError> {
        match (self, write) {
            (Self::Nowhere, _) => Ok(Outcome::Written),
            (Self::Registry(registry), EventWrite::Create(event)) => {
                registry.put_event(event);
                Ok(Outcome::Written)
            }
            (
                Self::Registry(registry),
                EventWrite::Count {
                    namespace,
                    name,
                    patch,
                },
            ) => Ok(match registry.change_event(&namespace, &name, &patch) {
                true => Outcome::Written,
                false => Outcome::Gone,
            }),
            (Self::ApiServer(api), EventWrite::Create(event)) => {
                let is_new = api.create_event(&event).await?;
                Ok(if is_new {
                    Outcome::Written
                } else {
                    Outcome::Exists
                })
            }
            (
                Self::ApiServer(api),
                EventWrite::Count {
                    namespace,
                    name,
                    patch,
                },
            ) => {
                let is_there = api.patch_event(&namespace, &name, &patch).await?;
                Ok(if is_there {
                    Outcome::Written
                } else {
                    Outcome::Gone
                })
            }
        }
    }
}

/// Writes what is noted for as long as the daemon runs; `node` is its name.
pub async fn follow(
    mut inbox: Inbox,
    destination: Destination,
    node: String,
    beat: Beats,
) -> Ended {
    let mut correlator = Correlator::new(&node);
    let mut last_error = None;
    let mut tidy = tokio::time::interval(TIDY_EVERY);
    loop {
        let noted = async {
            tokio::select! {
                note = inbox.0.recv() => Some(note),
                _ = tidy.tick() => None,
            }
        };
        match beat.wait(noted).await {
            None => {
                if let Destination::Registry(registry) = &destination {
                    registry.end_events(unix_seconds());
                }
            }
            Some(None) => return Ended::Early("nobody has anything to note any more"),
            Some(Some((note, times))) => {
                let Some(write) = correlator.note(&note, times, unix_seconds()) else {
                    continue;
                };
                let written = record(&mut correlator, &destination, &note, write, &beat).await;
                let error = written.err().map(|error| chain(&error));
                if let Some(error) = error.as_ref().filter(|_| error != last_error) {
                    tracing::warn!(error, "recording an Event failed");
                }
                last_error = error;
                if matches!(destination, Destination::ApiServer(_)) {
                    beat.wait(sleep(PAUSE)).await;
                }
            }
        }
    }
}

async fn record(
    correlator: &mut Correlator,
    destination: &Destination,
    note: &Note,
    mut write: EventWrite,
    beat: &Beats,
) -> Result<(), KubeError> {
    let mut tries = 1;
    loop {
        match beat.wait(destination.write(write.clone())).await {
            Ok(outcome) => {
                let now = unix_seconds();
                if !correlator.wrote(note, outcome, now) {
                    return Ok(());
                }
                write = correlator.write(note, now);
            }
            Err(error) if error.is_final() || tries == TRIES => return Err(error),
            Err(_) => {
                tries += 1;
                beat.wait(sleep(TRY_AGAIN_AFTER)).await;
            }
        }
    }
}
