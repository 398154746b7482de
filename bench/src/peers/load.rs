//! The load between pods: its ports, and whether they reach each other.

use std::ops::RangeInclusive;

use anyhow::Result;
use vswitch_bench::load_process::{Load, at, load_binary};
use vswitch_tests::{eventually, run_in};

use crate::fabric::End;

/// Ports that load uses; what the policies of vswitchd admit.
pub(crate) const PORTS: RangeInclusive<u16> = 7_000..=7_199;

/// Waits until one pod reaches another.
///
/// # Errors
/// Fails if `echo` cannot be started.
pub(crate) fn probe(from: &End<'_>, to: &End<'_>) -> Result<()> {
    let port = PORTS.end().to_string();
    let _echo = Load::serve(to.netns, &["echo", "--port", &port])?;
    let target = at(to.ip, *PORTS.end());
    let ask = [
        "request-response",
        "--to",
        &target,
        "--warmup-ms",
        "0",
        "--window-ms",
        "1",
    ];
    let program = load_binary().display().to_string();
    eventually(&format!("{} is reached from {}", to.ip, from.ip), || {
        run_in(from.netns, &[&[program.as_str()], &ask[..]].concat())?.success()
    });
    Ok(())
}
