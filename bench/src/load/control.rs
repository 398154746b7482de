//! What the harness says on standard input: `go`, and the end by closing it.

use std::io::{BufRead as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

/// Longest life of a process, should the harness forget it.
const LIFETIME: Duration = Duration::from_secs(45);
/// What a side has, after the end is told, to print its result.
const GRACE: Duration = Duration::from_secs(5);

/// Watches standard input; ends the process when it closes or the time is over.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    // Relaxed: a flag alone, nothing is published with it.
    go: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

impl Control {
    pub(crate) fn listen() -> Self {
        let control = Self {
            go: Arc::default(),
            stop: Arc::default(),
        };
        let (go, stop) = (Arc::clone(&control.go), Arc::clone(&control.stop));
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                if line == "go" {
                    go.store(true, Ordering::Relaxed);
                }
            }
            stop.store(true, Ordering::Relaxed);
            std::thread::sleep(GRACE);
            std::process::exit(0);
        });
        std::thread::spawn(|| {
            std::thread::sleep(LIFETIME);
            eprintln!("vswitch-load: still running after {LIFETIME:?}");
            std::process::exit(1);
        });
        control
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Waits for `go`; a fraction of a millisecond is lost at most.
    pub(crate) fn wait_for_go(&self) {
        while !self.go.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

/// Tells the harness that others may come.
pub(crate) fn ready() -> Result<()> {
    say("ready")
}

/// Prints the result, the only other line.
pub(crate) fn result(value: &Value) -> Result<()> {
    say(&value.to_string())
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
