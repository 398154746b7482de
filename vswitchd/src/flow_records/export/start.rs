//! Starts what takes records elsewhere, and ends it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::sync::broadcast::Receiver;
use tokio::sync::watch;
use tokio::time::timeout;

use super::destination::Destination;
use super::file::JsonLines;
use super::follow::follow;
use super::ipfix::Ipfix;
use super::journal::{JOURNAL, Journal};
use super::otlp::Otlp;
use super::sink::{Blocking, Sink};
use crate::config::{FlowExportConfig, FlowFileConfig};
use crate::flow_records::{FlowLog, Round};
use crate::supervise::{Part, Supervisor, Task};

/// For how long a stop waits until records that were told are where they should go.
const FINISH_WITHIN: Duration = Duration::from_secs(3);

/// What takes records elsewhere.
#[derive(Debug)]
pub struct Exports {
    destinations: Vec<Arc<Destination>>,
    tasks: Vec<Task>,
    stop: watch::Sender<bool>,
}

/// Refuses what can never work, which is better said at the start than tried for ever. Blocks: reads
/// files.
///
/// # Errors
/// The key of the configuration, and what is wrong with it.
pub fn check(config: &FlowExportConfig) -> Result<()> {
    if let Some(FlowFileConfig { path, .. }) = &config.file {
        ensure!(!path.is_dir(), "flows.file: {} is a folder", path.display());
    }
    config.otlp.as_ref().map(Otlp::new).transpose()?;
    Ok(())
}

/// Starts a task for each destination.
///
/// # Errors
/// The process has no descriptors left, or as [`check`].
pub fn start(config: &FlowExportConfig, log: &FlowLog, supervisor: &Supervisor) -> Result<Exports> {
    let mut exports = Exports {
        destinations: Vec::new(),
        tasks: Vec::new(),
        stop: watch::channel(false).0,
    };
    if let Some(file) = &config.file {
        let destination = Destination::new("file", file.path.display().to_string());
        let sink = Blocking::new(JsonLines::new(file.clone()));
        exports.add(destination, sink, log.subscribe_recorded(), supervisor);
    }
    if config.journald {
        let journal =
            Journal::open(Path::new(JOURNAL)).context("open a socket for flow records")?;
        let destination = Destination::new("journald", format!("journald at {JOURNAL}"));
        exports.add(
            destination,
            Blocking::new(journal),
            log.subscribe_recorded(),
            supervisor,
        );
    }
    if let Some(otlp) = &config.otlp {
        let sink = Otlp::new(otlp)?;
        let destination = Destination::new("otlp", otlp.endpoint.clone());
        exports.add(destination, sink, log.subscribe_recorded(), supervisor);
    }
    if let Some(ipfix) = &config.ipfix {
        let place = format!("{}://{}", ipfix.transport, ipfix.address);
        let sink = Blocking::new(Ipfix::new(ipfix.clone()));
        exports.add(
            Destination::new("ipfix", place),
            sink,
            log.subscribe_recorded(),
            supervisor,
        );
    }
    Ok(exports)
}

impl Exports {
    fn add(
        &mut self,
        destination: Destination,
        sink: impl Sink,
        rounds: Receiver<Arc<Round>>,
        supervisor: &Supervisor,
    ) {
        let to = Arc::new(destination);
        self.destinations.push(Arc::clone(&to));
        let (instance, stop) = (to.name, self.stop.subscribe());
        let run = |beat| follow(rounds, sink, to, stop, beat);
        let task = supervisor.task(Part::FlowExport, instance, run);
        self.tasks.push(task);
    }

    /// Returns how it stands with each.
    #[must_use]
    pub fn destinations(&self) -> Vec<Arc<Destination>> {
        self.destinations.clone()
    }

    /// Waits until what was told is where it should go, but not for ever.
    pub async fn finish(self) {
        self.stop.send_replace(true);
        let ended = async {
            for task in self.tasks {
                task.ended().await;
            }
        };
        if timeout(FINISH_WITHIN, ended).await.is_err() {
            tracing::warn!("flow records are lost that had not been sent elsewhere yet");
        }
    }
}
