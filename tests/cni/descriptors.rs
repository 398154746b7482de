//! ADD while the daemon has no descriptors left, at whichever step it runs out of them.

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;
use vswitch_tests::{Daemon, DaemonOptions, Pod, eventually, run};

/// Numbers of the descriptors that the daemon has opened. What it was born with does not count:
/// whoever runs tests may have left it some, at any number.
fn open(daemon: &Daemon) -> BTreeSet<usize> {
    let process = Path::new("/proc").join(daemon.pid().to_string());
    let entries = std::fs::read_dir(process.join("fd")).unwrap();
    let opened = entries.filter_map(|entry| {
        let number = entry.unwrap().file_name();
        let file = |process: &Path| std::fs::read_link(process.join("fd").join(&number)).ok();
        // Of these the names are unique: pipe:[12872566].
        let is_unique = |name: &PathBuf| {
            let name = name.to_string_lossy();
            name.starts_with("pipe:[") || name.starts_with("socket:[")
        };
        let is_born = file(&process)
            .filter(is_unique)
            .is_some_and(|name| file(Path::new("/proc/self")) == Some(name));
        let number = number.to_str().unwrap().parse().unwrap();
        // Its standard streams are its own, wherever they lead.
        (number <= 2 || !is_born).then_some(number)
    });
    opened.collect()
}

/// Connects as often as there are numbers free below the highest one: a limit counts numbers, and
/// a descriptor above it does not come back when another one is closed.
fn fill_gaps(daemon: &Daemon) -> Vec<UnixStream> {
    let mut idle = Vec::new();
    loop {
        let before = open(daemon);
        if before.last().is_none_or(|last| last + 1 == before.len()) {
            return idle;
        }
        idle.push(UnixStream::connect(daemon.socket()).unwrap());
        eventually("the daemon has accepted", || {
            ensure!(open(daemon).len() != before.len());
            Ok(())
        });
    }
}

/// Leaves the daemon so many descriptors that it can open, or as many as it had.
fn leave(daemon: &Daemon, free: Option<usize>) {
    let limit = match free {
        Some(free) => {
            let open = open(daemon);
            // The kernel gives the lowest number that is free, below the limit.
            let mut numbers = (0..).filter(|number| !open.contains(number));
            let highest = open.last().copied().unwrap();
            numbers.nth(free).unwrap().max(highest + 1)
        }
        None => 1_024,
    };
    let mut prlimit = Command::new("prlimit");
    prlimit.args([
        format!("--pid={}", daemon.pid()),
        format!("--nofile={limit}:"),
    ]);
    run(&mut prlimit, "").unwrap().success().unwrap();
}

/// Everything of attachments that the daemon and the kernel have.
fn what_is_there(daemon: &Daemon) -> Vec<String> {
    let held = |leases: String| -> String {
        let lines = leases.lines().filter(|line| line.contains("in use"));
        let lines = lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        lines.collect::<Vec<_>>().join("\n")
    };
    let links = daemon.node().ip(&["-br", "link"]).unwrap();
    let links: BTreeSet<&str> = links
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let mut nft = daemon.node().command("nft");
    let tables = run(nft.args(["list", "ruleset"]), "").unwrap();
    let ports = daemon.vsctl_json(&["show"]).unwrap();
    let ports = ports.as_array().unwrap().iter();
    let ports: Vec<&str> = ports.map(|port| port["ifname"].as_str().unwrap()).collect();
    vec![
        daemon.vsctl(&["dump-attachments"]).unwrap(),
        held(daemon.vsctl(&["dump-leases"]).unwrap()),
        daemon.vsctl_json(&["get", "pods"]).unwrap()["items"].to_string(),
        format!("{ports:?} {links:?}"),
        tables.success().unwrap(),
    ]
}

#[test]
fn an_add_that_runs_out_of_descriptors_says_so_and_leaves_nothing_behind() {
    let daemon = Daemon::start(&DaemonOptions::default()).unwrap();
    let other = Pod::named("other").attach(&daemon).unwrap();
    let mut pod = Pod::named("late").prepare(&daemon).unwrap();
    let before = what_is_there(&daemon);
    let _idle = fill_gaps(&daemon);
    let mut failed = 0;
    // With one descriptor the daemon hears the call, and that is all.
    for free in 1..200 {
        leave(&daemon, Some(free));
        let added = pod.add();
        leave(&daemon, None);
        let Err(error) = added else {
            break;
        };
        let error = format!("{error:#}");
        assert!(error.contains("Too many open files"), "{free}: {error}");
        assert_eq!(what_is_there(&daemon), before, "{free}: {error}");
        failed += 1;
    }
    assert!(failed > 0, "there were enough descriptors from the start");
    pod.cni("CHECK").unwrap().success().unwrap();
    assert!(pod.pings(other.ip()).unwrap());
}
