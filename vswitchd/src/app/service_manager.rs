//! systemd: readiness and the watchdog (sd_notify(3)). Without systemd nothing happens.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::switch::Switch;

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "notify the service manager");
    }
}

/// Says that the switch is ready.
pub(super) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// Asks for time to become ready, for longer than [`EXTEND_EVERY`].
pub(super) fn extend_start() {
    let microseconds = u32::try_from(EXTEND_EVERY.as_micros() * 3).unwrap_or(u32::MAX);
    notify(&[NotifyState::ExtendTimeoutUsec(microseconds)]);
}

/// How often to ask for time.
pub(super) const EXTEND_EVERY: Duration = Duration::from_secs(10);

/// Says that the switch is stopping.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Feeds the watchdog as long as every worker's heartbeat grows; a stuck worker gets the daemon
/// restarted.
pub(super) async fn watch_workers(switch: Arc<Switch>) {
    let Some(timeout) = sd_notify::watchdog_enabled() else {
        return;
    };
    // A worker beats at least once a second, also when idle.
    let period = (timeout / 3).max(Duration::from_secs(2));
    let mut last = vec![0; switch.workers().heartbeats().len()];
    loop {
        tokio::time::sleep(period).await;
        let now = switch.workers().heartbeats();
        if now.iter().zip(&last).all(|(now, last)| now > last) {
            notify(&[NotifyState::Watchdog]);
        } else {
            tracing::error!("a worker is stuck");
        }
        last = now;
    }
}
