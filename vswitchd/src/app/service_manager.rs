//! systemd: readiness and the watchdog (sd_notify(3)). Without systemd nothing happens.

use std::time::Duration;

use sd_notify::NotifyState;

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "notifying the service manager failed");
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

/// Says that everybody is alive; called once a second, and systemd's watchdog is content with less.
pub(super) fn alive() {
    if sd_notify::watchdog_enabled().is_some() {
        notify(&[NotifyState::Watchdog]);
    }
}
