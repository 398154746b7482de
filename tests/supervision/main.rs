//! Faults in the daemon's own machinery: the process ends and names the part that failed, and
//! until then nobody is told that all is well.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod every_part;
mod held_reconciler;

use std::process::Command;

use anyhow::{Result, ensure};
use vswitch_tests::{Daemon, Output, eventually, run};
use vswitchd::supervise::{Fault, Part};

/// Makes the parts of a daemon fail when [`fail`] says so; `end_after` is how long one may hang
/// before the process ends, in seconds.
fn make_faulty(node: &mut Daemon, end_after: u64) {
    node.program(env!("CARGO_BIN_EXE_vswitch-faulty"));
    let faults = node.folder().join("faults").display().to_string();
    for argument in ["--faults", &faults, "--end-after", &end_after.to_string()] {
        node.argument(argument);
    }
}

/// Makes a part fail at its next beat, also at the next start.
fn fail(node: &Daemon, fault: Fault, part: Part) {
    let word = match fault {
        Fault::Panic => "panic",
        Fault::Hang => "hang",
    };
    let file = node.folder().join("faults");
    // By a name of its own first: it must not be read half written.
    let new = node.folder().join("faults.new");
    std::fs::write(&new, format!("{word} {}", part.name())).unwrap();
    std::fs::rename(new, file).unwrap();
}

/// Waits until a part fails: it does so at its next beat, up to which it works as ever.
fn wait_until_it_fails(node: &Daemon, part: Part) {
    let name = format!("name=\"{}\"", part.name());
    eventually("the fault is injected", || {
        let log = node.log();
        let mut injected = log.lines().filter(|line| line.contains("fault injected"));
        ensure!(injected.any(|line| line.contains(&name)), "{log}");
        Ok(())
    });
}

/// Lets nothing fail any more.
fn heal(node: &Daemon) {
    let removed = std::fs::remove_file(node.folder().join("faults"));
    assert!(removed.is_ok() || !node.folder().join("faults").exists());
}

/// The parts that the last line of a log names, without which one of several each is.
fn names_of(line: &str) -> impl Iterator<Item = &str> {
    let names = line.split_once("name=\"").map_or("", |(_, names)| names);
    let names = names.split_once('"').map_or("", |(names, _)| names);
    let parts = names.split(", ");
    parts.map(|name| name.split(' ').next().unwrap_or_default())
}

/// Asks for `/readyz`: the body, and the status on a line of its own.
fn readyz(curl: &mut Command, url: &str) -> Result<String> {
    let options = ["-sS", "--noproxy", "*", "--max-time", "2"];
    curl.args(options)
        .args(["-w", "\n%{http_code}", &format!("{url}/readyz")]);
    run(curl, "").and_then(Output::success)
}

/// The same over the unix socket.
fn readyz_over_unix(node: &Daemon) -> Result<String> {
    let mut curl = Command::new("curl");
    curl.arg("--unix-socket").arg(node.socket());
    readyz(&mut curl, "http://localhost")
}

/// The same over TCP.
fn readyz_over_tcp(node: &Daemon) -> Result<String> {
    readyz(&mut node.node().command("curl"), node.api_url())
}
