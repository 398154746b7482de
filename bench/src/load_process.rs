//! Starting `vswitch-load` inside namespaces and taking its results.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use vswitch_tests::{Namespace, binary};

/// A process of `vswitch-load`; ends when this is dropped.
#[derive(Debug)]
pub struct Load {
    child: Child,
    /// Its end is the process's.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Load {
    /// Starts one side inside a namespace.
    ///
    /// # Errors
    /// Fails if the process cannot be started.
    pub fn start(netns: &Namespace, arguments: &[&str]) -> Result<Self> {
        Self::spawn(netns.command(load_binary()), arguments)
    }

    /// Starts one side on the first core, where the other side is as well.
    ///
    /// # Errors
    /// Fails if the process cannot be started.
    pub fn start_pinned(netns: &Namespace, arguments: &[&str]) -> Result<Self> {
        let mut command = netns.command("taskset");
        command.args(["-c", "0"]).arg(load_binary());
        Self::spawn(command, arguments)
    }

    fn spawn(mut command: Command, arguments: &[&str]) -> Result<Self> {
        let mut child = command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start vswitch-load")?;
        let orders = child.stdin.take();
        let answers = child.stdout.take().context("standard output is piped")?;
        Ok(Self {
            child,
            orders,
            answers: BufReader::new(answers),
        })
    }

    /// Starts a side that others come to, and waits until they may.
    ///
    /// # Errors
    /// Fails if it ends before.
    pub fn serve(netns: &Namespace, arguments: &[&str]) -> Result<Self> {
        Self::start(netns, arguments)?.until_ready()
    }

    /// Waits until others may come to this side.
    ///
    /// # Errors
    /// Fails if it ends before.
    pub fn until_ready(mut self) -> Result<Self> {
        let line = self.line()?;
        ensure!(
            line == "ready",
            "vswitch-load says {line:?}, not that it is ready"
        );
        Ok(self)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        ensure!(!line.is_empty(), "vswitch-load ended without a result");
        Ok(line.trim_end().to_owned())
    }

    /// Lets a side begin that waits for it.
    ///
    /// # Errors
    /// Fails if the process has ended.
    pub fn go(&mut self) -> Result<()> {
        let orders = self.orders.as_mut().context("still under orders")?;
        Ok(orders.write_all(b"go\n")?)
    }

    /// Waits for the result.
    ///
    /// # Errors
    /// Fails if the process ends without one.
    pub fn result(&mut self) -> Result<Value> {
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("vswitch-load printed {line:?}"))
    }

    /// Tells a side to stop, and takes the result that it prints then.
    ///
    /// # Errors
    /// As [`Self::result`].
    pub fn stop(&mut self) -> Result<Value> {
        self.orders = None;
        self.result()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the path of `vswitch-load`, which stands beside this program.
///
/// # Panics
/// Panics if it has not been built.
#[must_use]
pub fn load_binary() -> PathBuf {
    binary("vswitch-load")
}

/// Returns address and port as arguments have it.
#[must_use]
pub fn at(ip: Ipv4Addr, port: u16) -> String {
    format!("{ip}:{port}")
}

/// Returns what a side counted, a second.
///
/// # Errors
/// Fails if the result has no such count.
pub fn rate(outcome: &Value, key: &str) -> Result<f64> {
    let number = |key: &str| {
        let number = outcome[key].as_f64();
        number.with_context(|| format!("no {key} in {outcome}"))
    };
    Ok(number(key)? / number("seconds")?)
}

/// Measures beside a side that does something until it is told to stop; returns how many packets a
/// second that one sent as well.
///
/// # Errors
/// Fails if either does.
pub fn beside<T>(
    netns: &Namespace,
    load: &[&str],
    measure: impl FnOnce() -> Result<T>,
) -> Result<(T, f64)> {
    const HEAD_START: Duration = Duration::from_millis(300);
    let mut load = Load::start(netns, load)?;
    std::thread::sleep(HEAD_START);
    let measured = measure()?;
    Ok((measured, rate(&load.stop()?, "packets")?))
}

/// Returns an address that `vswitch-load` can go to.
///
/// # Errors
/// Fails if it is one of IPv6.
pub fn ipv4(ip: IpAddr) -> Result<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Ok(ip),
        IpAddr::V6(ip) => bail!("{ip} is no IPv4 address"),
    }
}

/// How long a measurement runs before it counts.
pub const WARMUP_MS: &str = "200";

/// Measures new TCP connections a second, of four threads on each side.
///
/// # Errors
/// Fails if one of the sides does.
pub fn new_connections(
    client: &Namespace,
    (server, ip): (&Namespace, Ipv4Addr),
    window_ms: u64,
) -> Result<f64> {
    const PORT: u16 = 7_000;
    const THREADS: [&str; 2] = ["--threads", "4"];
    let (port, target, window) = (PORT.to_string(), at(ip, PORT), window_ms.to_string());
    let answer = ["answer", "--port", &port];
    let _server = Load::serve(server, &[&answer[..], &THREADS].concat())?;
    let to = ["connect", "--to", &target];
    let window = ["--warmup-ms", WARMUP_MS, "--window-ms", &window];
    let mut asking = Load::start(client, &[&to[..], &THREADS, &window].concat())?;
    rate(&asking.result()?, "connections")
}
