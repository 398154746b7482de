//! Throughput between two namespaces by iperf3, and the median of its rounds.

use std::net::IpAddr;
use std::process::{Child, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vswitch_tests::{Namespace, eventually, run_in};

/// An iperf3 server inside a namespace; ends when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
}

impl Server {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// Fails if it cannot be started.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let child = namespace
            .command("iperf3")
            .args(["-s", "-p", "5201"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("start iperf3")?;
        let server = Self { child };
        eventually("iperf3 listens", || {
            let listening = run_in(namespace, &["ss", "-Hltn", "sport = :5201"])?.success()?;
            ensure!(!listening.trim().is_empty(), "port 5201 is closed");
            Ok(())
        });
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns what one client received by the server, in Gb/s.
///
/// # Errors
/// Fails if iperf3 does, or reports nothing.
pub fn throughput(from: &Namespace, to: IpAddr, seconds: u32, streams: u32) -> Result<f64> {
    let (to, seconds, streams) = (to.to_string(), seconds.to_string(), streams.to_string());
    let command = ["iperf3", "-c", &to, "-t", &seconds, "-P", &streams, "-J"];
    let report = run_in(from, &command)?.success()?;
    let report: Value = serde_json::from_str(&report)?;
    let bits = report["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(bits.with_context(|| format!("iperf3 reports no throughput: {report}"))? / 1e9)
}

/// Returns the median of at least one value.
///
/// # Panics
/// Without any.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
