//! The daemon with parts that fail when a file says so: `vswitch-faulty --config FILE [--set
//! KEY=VALUE]… --faults FILE --end-after SECONDS`. The file has a line `panic NAME` or `hang NAME`,
//! and may be written at any time; the process ends when a part has hung for so long.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use vswitchd::config::{Config, Machine, Overrides};
use vswitchd::supervise::{Fault, Faults, Limits, Part};
use vswitchd::{app, telemetry};

/// Shorter than the daemon's, so that a test need not wait for a minute.
const LATE_AFTER: Duration = Duration::from_secs(3);

/// How often the file is read.
const READ_EVERY: Duration = Duration::from_millis(50);

fn main() -> Result<()> {
    let (mut config, mut faults, mut end_after) = (None, None, None);
    let mut overrides = Overrides::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if let Some(setting) = argument.strip_prefix("--set=") {
            let (key, value) = setting.split_once('=').context("KEY=VALUE")?;
            overrides.set(key, value);
            continue;
        }
        let value = arguments.next().with_context(|| argument.clone())?;
        match argument.as_str() {
            "--config" => config = Some(PathBuf::from(value)),
            "--faults" => faults = Some(PathBuf::from(value)),
            "--end-after" => end_after = Some(value.parse()?),
            other => bail!("unknown argument {other}"),
        }
    }
    let config = Config::load(config.as_deref(), &Machine::read(), &overrides)?;
    telemetry::init(&config.log)?;
    let limits = Limits {
        late: LATE_AFTER,
        end: Duration::from_secs(end_after.context("--end-after")?),
    };
    let faults = follow(faults.context("--faults")?, limits);
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(app::run(config, faults))
}

/// Reads the file again and again: a part that beats must not wait for a disk.
fn follow(file: PathBuf, limits: Limits) -> Faults {
    let wanted = Arc::new(Mutex::new(read(&file)));
    let seen = Arc::clone(&wanted);
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(READ_EVERY);
            *wanted.lock().unwrap_or_else(PoisonError::into_inner) = read(&file);
        }
    });
    Faults::new(limits, move |part| {
        let wanted = *seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, fault) = wanted.filter(|(failing, _)| *failing == part)?;
        // The part asks on its own thread, and does nothing else any more once it is answered.
        let told = format!("fault injected name=\"{}\" {fault:?}\n", part.name());
        // To where the log goes.
        let _ = std::io::stderr().write_all(told.as_bytes());
        Some(fault)
    })
}

fn read(file: &Path) -> Option<(Part, Fault)> {
    let text = std::fs::read_to_string(file).ok()?;
    let (fault, name) = text.trim().split_once(' ')?;
    let fault = match fault {
        "panic" => Fault::Panic,
        "hang" => Fault::Hang,
        _ => return None,
    };
    let part = Part::ALL.into_iter().find(|part| part.name() == name)?;
    Some((part, fault))
}
