//! A `vswitchd` of its own, in a namespace that plays the node.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::http::request;
use crate::{Namespace, Output, binary, eventually_within, run};

/// Longest start, which waits for the disk and for several runs of `nft`: how long one takes is
/// measured elsewhere.
const START: Duration = Duration::from_secs(60);

/// What differs from the test default.
#[derive(Debug, Clone)]
pub struct DaemonOptions {
    /// Name of the Node.
    pub node_name: String,
    /// Pod networks.
    pub pod_cidrs: Vec<String>,
    /// Lines of the section `[api]`.
    pub api: String,
    /// Lines appended to the configuration file.
    pub extra: String,
}

impl Default for DaemonOptions {
    fn default() -> Self {
        Self {
            node_name: "node-a".to_owned(),
            pod_cidrs: vec!["10.244.0.0/24".to_owned()],
            api: "tcp_listen = [\"127.0.0.1:7441\"]\n".to_owned(),
            extra: String::new(),
        }
    }
}

/// A running daemon; killed and its node namespace removed on drop.
#[derive(Debug)]
pub struct Daemon {
    child: Option<Child>,
    node: Namespace,
    node_name: String,
    folder: TempDir,
    set: Vec<String>,
    program: PathBuf,
}

impl Daemon {
    /// Starts a daemon in a fresh node namespace and waits until it is ready.
    ///
    /// # Errors
    /// Fails if the namespace or the process cannot be made.
    pub fn start(options: &DaemonOptions) -> Result<Self> {
        Self::start_in(Namespace::of_host("node")?, options)
    }

    /// Starts a daemon in a namespace that is prepared as a node, and waits until it is ready.
    ///
    /// # Errors
    /// Fails if the process cannot be made.
    pub fn start_in(node: Namespace, options: &DaemonOptions) -> Result<Self> {
        let mut daemon = Self::prepare_in(node, options)?;
        daemon.spawn()?;
        Ok(daemon)
    }

    /// Makes everything but the process, for which see [`Self::spawn`].
    ///
    /// # Errors
    /// Fails if the namespace cannot be made.
    pub fn prepare(options: &DaemonOptions) -> Result<Self> {
        Self::prepare_in(Namespace::of_host("node")?, options)
    }

    /// The same in a namespace that is prepared as a node.
    ///
    /// # Errors
    /// Fails if the folder cannot be made.
    pub fn prepare_in(node: Namespace, options: &DaemonOptions) -> Result<Self> {
        // The process id tells `run.sh` whose it was.
        let prefix = format!("vswitch-test-{}-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir()?;
        let config = config_text(folder.path(), options)?;
        std::fs::write(folder.path().join("vswitchd.toml"), config)?;
        Ok(Self {
            child: None,
            node,
            node_name: options.node_name.clone(),
            folder,
            set: Vec::new(),
            program: binary("vswitchd"),
        })
    }

    /// Runs another program in place of vswitchd from now on.
    pub fn program(&mut self, program: impl Into<PathBuf>) {
        self.program = program.into();
    }

    /// Adds an argument for every later start.
    pub fn argument(&mut self, argument: &str) {
        self.set.push(argument.to_owned());
    }

    /// Sets a key of the configuration for every later start, over what the file says.
    pub fn set(&mut self, key: &str, value: &str) {
        self.set.push(format!("--set={key}={value}"));
    }

    /// Returns the folder of configuration, state and sockets.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts the process (again) and waits until it is ready.
    ///
    /// # Errors
    /// Fails if the process cannot be started.
    pub fn spawn(&mut self) -> Result<()> {
        self.launch()?;
        self.wait_until_ready();
        Ok(())
    }

    /// Waits until the process says that it is ready.
    ///
    /// # Panics
    /// Panics if it does not in time.
    pub fn wait_until_ready(&self) {
        let folder = self.folder.path();
        eventually_within(
            START,
            &format!("vswitchd is ready, log in {}", folder.display()),
            || {
                let status = self.vsctl_json(&["status"])?;
                anyhow::ensure!(
                    status["ready"] == true,
                    "not ready: {status}\n{}",
                    self.log()
                );
                Ok(())
            },
        );
    }

    /// Starts the process (again) without waiting for anything.
    ///
    /// # Errors
    /// Fails if the process cannot be started.
    pub fn launch(&mut self) -> Result<()> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))?;
        let child = self
            .command()
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start vswitchd")?;
        self.child = Some(child);
        Ok(())
    }

    /// Starts another process beside the one that runs, as whoever does not wait for its end;
    /// returns the earlier one.
    ///
    /// # Errors
    /// Fails if no process is running or the other cannot be started.
    pub fn launch_beside(&mut self) -> Result<Child> {
        let ending = self.child.take().context("the daemon is not running")?;
        self.launch()?;
        Ok(ending)
    }

    /// Returns the daemon's command in its namespace.
    fn command(&self) -> Command {
        let mut command = self.node.command(&self.program);
        command
            .arg("--config")
            .arg(self.folder.path().join("vswitchd.toml"))
            .args(&self.set);
        command
    }

    /// Waits for a process that ends by itself, for at most a minute; returns its exit code
    /// (`None` if a signal ended it).
    ///
    /// # Errors
    /// Fails if the process is not running, or goes on.
    pub fn wait(&mut self) -> Result<Option<i32>> {
        let child = self.child.as_mut().context("the daemon is not running")?;
        for _ in 0..600 {
            if let Some(status) = child.try_wait()? {
                self.child = None;
                return Ok(status.code());
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        anyhow::bail!("vswitchd goes on")
    }

    /// Returns the namespace that plays the node.
    #[must_use]
    pub fn node(&self) -> &Namespace {
        &self.node
    }

    /// Returns the name of its Node.
    #[must_use]
    pub fn node_name(&self) -> &str {
        &self.node_name
    }

    /// Returns the process id.
    ///
    /// # Panics
    /// Panics if it is not running.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the daemon is running").id()
    }

    /// Sends a signal and waits for the end; returns the exit code (`None` after SIGKILL).
    ///
    /// # Errors
    /// Fails if the process is not running.
    pub fn stop(&mut self, signal: Signal) -> Result<Option<i32>> {
        let mut child = self.child.take().context("the daemon is not running")?;
        kill(Pid::from_raw(i32::try_from(child.id())?), signal)?;
        Ok(child.wait()?.code())
    }

    /// Starts a second process with the same configuration and waits for its end.
    ///
    /// # Errors
    /// Fails if it cannot be started.
    pub fn start_again(&self) -> Result<Output> {
        let mut command = self.node.command("timeout");
        command.arg("60").arg(binary("vswitchd"));
        run(
            command
                .arg("--config")
                .arg(self.folder.path().join("vswitchd.toml")),
            "",
        )
    }

    /// Runs `vswitchd --cleanup` with the daemon's configuration.
    ///
    /// # Errors
    /// Fails if it exits with another code than 0.
    pub fn cleanup(&self) -> Result<String> {
        run(self.command().arg("--cleanup"), "")?
            .success()
            .context("vswitchd --cleanup")
    }

    /// Returns the path of the API socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("run/api.sock")
    }

    /// Returns what the daemon logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Returns the address of the standalone API over TCP (inside the node namespace).
    #[must_use]
    pub fn api_url(&self) -> &'static str {
        "http://127.0.0.1:7441"
    }

    /// Runs `vsctl` and returns its standard output.
    ///
    /// # Errors
    /// Fails if it exits with another code than 0.
    pub fn vsctl(&self, arguments: &[&str]) -> Result<String> {
        self.vsctl_input(arguments, "")
    }

    /// Runs `vsctl` with `input` on standard input.
    ///
    /// # Errors
    /// Fails if it exits with another code than 0.
    pub fn vsctl_input(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = std::process::Command::new(binary("vsctl"));
        command.arg("--socket").arg(self.socket()).args(arguments);
        run(&mut command, input)?
            .success()
            .with_context(|| format!("vsctl {arguments:?}"))
    }

    /// Runs `vsctl … -o json` and parses what it prints.
    ///
    /// # Errors
    /// Fails if it fails or does not print JSON.
    pub fn vsctl_json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.vsctl(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("vsctl {arguments:?} printed {text}"))
    }

    /// Sends a request to the API and returns the answer; `None` for a status of 404.
    ///
    /// # Errors
    /// Fails with the answer of any other status that is no success.
    pub fn api(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Option<Value>> {
        let mut curl = Command::new("curl");
        curl.arg("--unix-socket").arg(self.socket());
        request(&mut curl, method, &format!("http://localhost{path}"), body)
    }

    /// Gets a page of the API as text, whatever its status.
    ///
    /// # Errors
    /// Fails if nobody answers.
    pub fn text(&self, path: &str) -> Result<String> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--unix-socket"]);
        curl.arg(self.socket())
            .arg(format!("http://localhost{path}"));
        run(&mut curl, "")?.success()
    }

    /// Applies a manifest.
    ///
    /// # Errors
    /// Fails if `vsctl apply` does.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        self.vsctl_input(&["apply", "-f", "-"], manifest)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- log of vswitchd ---\n{}", self.log());
        }
    }
}

fn config_text(folder: &Path, options: &DaemonOptions) -> Result<String> {
    let mut text = String::new();
    writeln!(text, "node_name = {:?}", options.node_name)?;
    writeln!(text, "state_dir = {:?}", folder.join("state"))?;
    writeln!(text, "run_dir = {:?}", folder.join("run"))?;
    writeln!(text, "[api]\n{}", options.api)?;
    writeln!(text, "[network]\npod_cidrs = {:?}", options.pod_cidrs)?;
    text.push_str(&options.extra);
    Ok(text)
}
