//! Throughput of TCP between namespaces, by iperf3.

use std::net::IpAddr;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::{Namespace, eventually, run_in};

/// A rate that was measured, in megabits per second of IP: it lies between these two, which are as
/// far apart as it is unknown when the kernel counted.
#[derive(Debug, Clone, Copy)]
pub struct Megabits {
    /// It is not lower.
    pub at_least: f64,
    /// It is not higher.
    pub at_most: f64,
}

/// What a kernel has received at some instant between two.
#[derive(Debug, Clone, Copy)]
struct Received {
    octets: u64,
    asked: Instant,
    answered: Instant,
}

/// An iperf3 server; ends on drop.
#[derive(Debug)]
pub struct Iperf<'a> {
    _server: Ended,
    at: &'a Namespace,
}

/// A process that is ended on drop.
#[derive(Debug)]
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl<'a> Iperf<'a> {
    /// Starts one and waits until it listens.
    ///
    /// # Errors
    /// Fails if it cannot be started.
    pub fn serve(at: &'a Namespace) -> Result<Self> {
        let mut server = at.command("iperf3");
        server.arg("-s").stdin(Stdio::null()).stdout(Stdio::null());
        let server = Ended(server.spawn()?);
        eventually("iperf3 listens", || {
            let listening = run_in(at, &["ss", "-Hltn", "sport = :5201"])?.success()?;
            anyhow::ensure!(!listening.trim().is_empty(), "port 5201 is closed");
            Ok(())
        });
        Ok(Self {
            _server: server,
            at,
        })
    }

    /// Sends TCP to the server's address `to`, and returns what arrives in four seconds, after one
    /// that does not count. The receiving kernel counts: what iperf3 counts had arrived before where
    /// the machine is busy.
    ///
    /// # Errors
    /// Fails if iperf3 does.
    pub fn megabits(&self, from: &Namespace, to: IpAddr) -> Result<Megabits> {
        let mut client = from.command("iperf3");
        client.args(["-c", &to.to_string(), "-t", "20"]);
        client.stdin(Stdio::null()).stdout(Stdio::null());
        let before = self.received()?;
        let mut client = Ended(client.spawn()?);
        eventually("data arrives", || {
            anyhow::ensure!(
                self.received()?.octets > before.octets + 100_000,
                "nothing arrives"
            );
            Ok(())
        });
        // A bucket may have been full.
        thread::sleep(Duration::from_secs(1));
        let first = self.received()?;
        thread::sleep(Duration::from_secs(4));
        let last = self.received()?;
        anyhow::ensure!(client.0.try_wait()?.is_none(), "iperf3 has ended");
        let bits = 8 * u32::try_from((last.octets - first.octets) / 1_000)?;
        let rate = |time: Duration| f64::from(bits) / 1e3 / time.as_secs_f64();
        Ok(Megabits {
            at_least: rate(last.answered - first.asked),
            at_most: rate(last.asked - first.answered),
        })
    }

    /// Returns the bytes of IP that the server's kernel has received.
    #[expect(
        clippy::disallowed_methods,
        reason = "what is measured is the time that passed"
    )]
    fn received(&self) -> Result<Received> {
        let asked = Instant::now();
        let shown = run_in(self.at, &["cat", "/proc/net/netstat"])?.success()?;
        let answered = Instant::now();
        let mut lines = shown.lines().filter(|line| line.starts_with("IpExt:"));
        let (names, values) = (lines.next(), lines.next());
        let (names, values) = names.zip(values).context("no IpExt in netstat")?;
        let mut pairs = names.split_whitespace().zip(values.split_whitespace());
        let octets = pairs.find(|(name, _)| *name == "InOctets");
        Ok(Received {
            octets: octets.context("no InOctets")?.1.parse()?,
            asked,
            answered,
        })
    }
}
