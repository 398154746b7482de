//! Throughput of TCP between namespaces, by iperf3.

use std::net::IpAddr;
use std::process::{Child, Stdio};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{Namespace, eventually, run_in};

/// An iperf3 server; ends on drop.
#[derive(Debug)]
pub struct Iperf(Child);

impl Iperf {
    /// Starts one and waits until it listens.
    ///
    /// # Errors
    /// Fails if it cannot be started.
    pub fn serve(at: &Namespace) -> Result<Self> {
        let mut server = at.command("iperf3");
        server.arg("-s").stdin(Stdio::null()).stdout(Stdio::null());
        let iperf = Self(server.spawn()?);
        eventually("iperf3 listens", || {
            let listening = run_in(at, &["ss", "-Hltn", "sport = :5201"])?.success()?;
            anyhow::ensure!(!listening.trim().is_empty(), "port 5201 is closed");
            Ok(())
        });
        Ok(iperf)
    }
}

impl Drop for Iperf {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends TCP for four seconds, after one that does not count; returns what arrives, in megabits
/// per second.
///
/// # Errors
/// Fails if iperf3 does.
pub fn megabits(from: &Namespace, to: IpAddr) -> Result<f64> {
    let address = to.to_string();
    let client = ["iperf3", "-c", &address, "-t", "4", "-O", "1", "-J"];
    let report = run_in(from, &client)?.success()?;
    let report: Value = serde_json::from_str(&report)?;
    let rate = report["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(rate.with_context(|| format!("no rate in {report}"))? / 1e6)
}
