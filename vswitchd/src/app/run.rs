//! The daemon from its start to the signal that ends it.

use anyhow::{Context as _, Error, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::daemon::Daemon;
use super::service_manager;
use crate::config::Config;
use crate::supervise::{self, Faults, Supervisor, Task, watchdog};

/// Runs the daemon until it is told to stop. Nothing fails but what fails by itself, unless a test
/// puts `faults` into its parts.
///
/// # Errors
/// What kept it from starting.
pub async fn run(config: Config, faults: Faults) -> Result<()> {
    supervise::end_on_panic();
    let supervisor = Supervisor::new(faults);
    let watchdog = watchdog::start(&supervisor, service_manager::alive);
    let watchdog = watchdog.context("start the watchdog")?;
    let (stop, stopping) = watch::channel(false);
    let start = async {
        let mut app = Daemon::start(&config, stopping.clone(), &supervisor).await?;
        let servers = app.listen(&config, stopping).await?;
        app.announce();
        Ok::<_, Error>((app, servers))
    };
    let (app, servers) = supervisor.starting(start).await?;

    tokio::select! {
        signal = wait_for_signal() => signal?,
        never = watchdog::guard(&supervisor) => match never {},
    }
    service_manager::stopping();
    tracing::info!("stopping");
    supervisor.stop();
    stop.send_replace(true);
    drain(servers).await;
    app.shutdown().await;
    drop(watchdog);
    tracing::info!("stopped");
    Ok(())
}

/// How long requests under way may take to finish.
const DRAIN_FOR: std::time::Duration = std::time::Duration::from_secs(5);

async fn drain(servers: Vec<Task>) {
    let finished = async {
        for server in servers {
            server.ended().await;
        }
    };
    if tokio::time::timeout(DRAIN_FOR, finished).await.is_err() {
        tracing::warn!("requests were cut off");
    }
}

async fn wait_for_signal() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
