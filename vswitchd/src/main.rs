//! `vswitchd`: reads its arguments and configuration, then runs the app.
//!
//! Exit codes: 0 ok, 1 failure, 64 bad usage or configuration (EX_USAGE), 75 `--cleanup`
//! beside a running daemon (EX_TEMPFAIL).

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use nix::sys::signal::{SigSet, Signal};
use vswitchd::config::{Config, Machine, Overrides};
use vswitchd::store::StoreError;
use vswitchd::supervise::Faults;
use vswitchd::{app, telemetry};

/// Virtual switch for container nodes.
#[derive(Debug, Parser)]
#[command(name = "vswitchd", version)]
struct Arguments {
    /// Configuration file; without it, /etc/vswitchd/vswitchd.toml if it exists.
    #[arg(long)]
    config: Option<PathBuf>,

    /// Set a key of the configuration, e.g. --set network.mtu=1400; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,

    /// Print the effective configuration, or every problem in it, and exit.
    #[arg(long)]
    check_config: bool,

    /// Undo what the daemon changed in the kernel (ports, gateway, nftables, sysctls), remove
    /// what it installed for the CNI in a cluster, and exit.
    #[arg(long, conflicts_with = "check_config")]
    cleanup: bool,

    /// Do nothing until SIGTERM or SIGINT: for a pod whose work an init container has done, since
    /// the pods of a DaemonSet do not end by themselves.
    #[arg(long, conflicts_with_all = ["check_config", "cleanup"])]
    idle: bool,
}

const DEFAULT_CONFIG: &str = "/etc/vswitchd/vswitchd.toml";
/// For how long the end waits for what blocks.
const END_WITHIN: Duration = Duration::from_secs(5);
const EXIT_USAGE: u8 = 64;
const EXIT_RUNNING: u8 = 75;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 });
        }
    };
    if arguments.idle {
        return idle();
    }
    let config = match load(&arguments) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("vswitchd: {error:#}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let outcome = if arguments.check_config {
        print_config(&config)
    } else if arguments.cleanup {
        app::cleanup(&config)
    } else {
        run(config)
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vswitchd: {error:#}");
            match error.downcast_ref() {
                Some(StoreError::Locked { .. }) if arguments.cleanup => {
                    ExitCode::from(EXIT_RUNNING)
                }
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// Process 1 of a container gets only signals that it waits for.
fn idle() -> ExitCode {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    match signals.thread_block().and_then(|()| signals.wait()) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vswitchd: waiting for a signal failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn load(arguments: &Arguments) -> anyhow::Result<Config> {
    let mut overrides = Overrides::default();
    for setting in &arguments.set {
        let Some((key, value)) = setting.split_once('=') else {
            anyhow::bail!("--set {setting:?} is not KEY=VALUE");
        };
        overrides.set(key, value);
    }
    let default = PathBuf::from(DEFAULT_CONFIG);
    let file = arguments
        .config
        .clone()
        .or_else(|| default.exists().then_some(default));
    Ok(Config::load(file.as_deref(), &Machine::read(), &overrides)?)
}

#[expect(clippy::print_stdout, reason = "what --check-config is for")]
fn print_config(config: &Config) -> anyhow::Result<()> {
    print!("{}", config.to_toml());
    Ok(())
}

fn run(config: Config) -> anyhow::Result<()> {
    telemetry::init(&config.log)?;
    for name in &config.ignored_environment {
        tracing::warn!(name, "unknown environment variable");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("vswitch-control")
        .enable_all()
        .build()?;
    let ended = runtime.block_on(app::run(config, Faults::none()));
    // A write to a disk that hangs must not keep the process.
    runtime.shutdown_timeout(END_WITHIN);
    ended
}
