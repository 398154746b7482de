//! Removing everything when interrupted.
//!
//! Values that go out of scope remove what they made; a signal ends the process before that. So
//! a thread waits for the signal and sweeps what carries this process's id: its namespaces with
//! all processes inside (daemons, load) and its folders.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use nix::sys::signal::{SigSet, Signal};
use vswitch_tests::run;

/// Blocks SIGINT and SIGTERM in this thread and all it starts, and waits for them in another.
///
/// # Errors
/// Fails if the signal mask cannot be set.
pub(crate) fn clean_up_when_interrupted() -> Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    std::thread::spawn(move || {
        if let Ok(signal) = signals.wait() {
            sweep();
            std::process::exit(128 + signal as i32);
        }
    });
    Ok(())
}

fn sweep() {
    let own =
        |name: &str, prefix: &str| name.starts_with(&format!("{prefix}-{}-", std::process::id()));
    // Twice: the main thread may have been making one meanwhile.
    for _ in 0..2 {
        for name in names_in(Path::new("/run/netns")) {
            if own(&name, "vst") {
                remove_namespace(&name);
            }
        }
    }
    let folders = std::env::temp_dir();
    for name in names_in(&folders) {
        if own(&name, "vswitch-test") {
            let _ = std::fs::remove_dir_all(folders.join(name));
        }
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

fn remove_namespace(name: &str) {
    if let Ok(pids) = run(Command::new("ip").args(["netns", "pids", name]), "") {
        for pid in pids.stdout.lines() {
            let _ = run(Command::new("kill").args(["-KILL", pid]), "");
        }
    }
    let _ = run(Command::new("ip").args(["netns", "del", name]), "");
}
