//! The daemon goes away in the middle of the story and comes back.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod store;

use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::Signal;
use vswitch_tests::{Daemon, DaemonOptions, Pod, eventually};

const SECURE_POD: &str = include_str!("../../config/samples/secure-pod.yaml");

/// A slow download: 300 numbered lines, one each 20 ms, from a shell behind `nc`.
struct Download {
    server: Child,
    client: Child,
    target: tempfile::TempDir,
}

const LINES: usize = 300;

impl Download {
    fn start(client: &Pod, server: &Pod) -> Self {
        let target = tempfile::tempdir().unwrap();
        let script = target.path().join("send.sh");
        std::fs::write(
            &script,
            format!("#!/bin/sh\ni=0\nwhile [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); busybox usleep 20000; done\n"),
        )
        .unwrap();
        let sender = server
            .netns
            .command("busybox")
            .args(["nc", "-l", "-p", "80", "-e", "/bin/sh"])
            .arg(&script)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        eventually("the download server listens", || {
            let listening = server.run(&["ss", "-Hltn", "sport = :80"])?.success()?;
            anyhow::ensure!(!listening.trim().is_empty());
            Ok(())
        });
        let file = std::fs::File::create(target.path().join("received")).unwrap();
        let receiver = client
            .netns
            .command("busybox")
            .args(["nc", &server.ip().to_string(), "80"])
            .stdin(Stdio::null())
            .stdout(file)
            .spawn()
            .unwrap();
        let download = Self {
            server: sender,
            client: receiver,
            target,
        };
        eventually("the download has begun", || {
            if download.lines() > 10 {
                Ok(())
            } else {
                Err(download.lines())
            }
        });
        download
    }

    fn received(&self) -> String {
        std::fs::read_to_string(self.target.path().join("received")).unwrap()
    }

    fn lines(&self) -> usize {
        self.received().lines().count()
    }

    /// Waits for the end and compares every line.
    fn finish(self) {
        for _ in 0..3 {
            let before = self.lines();
            if before == LINES {
                break;
            }
            eventually("the download goes on", || {
                let now = self.lines();
                if now == LINES || now > before + 100 {
                    Ok(())
                } else {
                    Err(now)
                }
            });
        }
        let expected: String = (0..LINES)
            .map(|number| format!("line {number}\n"))
            .collect();
        assert_eq!(self.received(), expected, "nothing lost, nothing twice");
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        for child in [&mut self.server, &mut self.client] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn restart_in_the_middle(signal: Signal) {
    let mut daemon = Daemon::start(&DaemonOptions::default()).unwrap();
    let client = Pod::named("client").attach(&daemon).unwrap();
    let server = Pod::named("server").attach(&daemon).unwrap();
    let stranger = Pod::named("stranger").attach(&daemon).unwrap();
    daemon
        .vsctl(&["label", "pod", "server", "app=secure-pod"])
        .unwrap();
    daemon
        .vsctl(&["label", "pod", "client", "allow-access=true"])
        .unwrap();
    daemon.apply(SECURE_POD).unwrap();
    let _ping_target = server.serve(8080).unwrap();
    let download = Download::start(&client, &server);
    let before = daemon.vsctl_json(&["show"]).unwrap();

    // A stranger knocks all the time: not one answer may ever come back, above all not in the
    // moment when ports are attached again.
    let leak = AtomicBool::new(false);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let ping = [
                    "ping",
                    "-n",
                    "-c",
                    "5",
                    "-i",
                    "0.01",
                    "-W",
                    "1",
                    &server.ip().to_string(),
                ];
                if stranger.run(&ping).unwrap().code == Some(0) {
                    leak.store(true, Ordering::Relaxed);
                }
            }
        });
        let code = daemon.stop(signal).unwrap();
        if signal == Signal::SIGTERM {
            assert_eq!(
                code,
                Some(0),
                "SIGTERM drains and ends well\n{}",
                daemon.log()
            );
        }
        daemon.spawn().unwrap();
        download.finish();
        stop.store(true, Ordering::Relaxed);
    });
    assert!(
        !leak.load(Ordering::Relaxed),
        "the policy holds before the first packet passes"
    );

    let after = daemon.vsctl_json(&["show"]).unwrap();
    for (old, new) in before
        .as_array()
        .unwrap()
        .iter()
        .zip(after.as_array().unwrap())
    {
        for field in ["no", "pod", "addresses", "mac", "ifname"] {
            assert_eq!(
                old[field], new[field],
                "{field} is the same after a restart"
            );
        }
    }
    stranger.fetch(server.ip(), 8080).unwrap_err();
    daemon
        .vsctl(&["delete", "networkpolicy", "secure-pod"])
        .unwrap();
    assert_eq!(stranger.fetch(server.ip(), 8080).unwrap(), "server");
    client.cni("CHECK").unwrap().success().unwrap();
}

#[test]
fn a_sigterm_in_the_middle_keeps_addresses_policy_and_download() {
    restart_in_the_middle(Signal::SIGTERM);
}

#[test]
fn a_kill_9_in_the_middle_keeps_addresses_policy_and_download() {
    restart_in_the_middle(Signal::SIGKILL);
}

#[test]
fn a_pod_whose_namespace_vanished_while_the_daemon_was_away_is_released() {
    let mut daemon = Daemon::start(&DaemonOptions::default()).unwrap();
    let kept = Pod::named("kept").attach(&daemon).unwrap();
    let lost = Pod::named("lost").attach(&daemon).unwrap();
    daemon.stop(Signal::SIGKILL).unwrap();
    drop(lost);
    daemon.spawn().unwrap();
    let attachments = daemon.vsctl_json(&["dump-attachments"]).unwrap();
    assert_eq!(attachments.as_array().unwrap().len(), 1, "{attachments}");
    assert_eq!(attachments[0]["pod"], "default/kept");
    assert!(kept.pings("10.244.0.1".parse().unwrap()).unwrap());
    let pods = daemon.vsctl_json(&["get", "pods"]).unwrap();
    assert_eq!(pods["items"].as_array().unwrap().len(), 1, "{pods}");
}

#[test]
fn a_kill_in_the_middle_of_many_adds_leaves_no_half_made_pod() {
    let mut daemon = Daemon::start(&DaemonOptions::default()).unwrap();
    for round in 0..3 {
        let pods: Vec<_> = std::thread::scope(|scope| {
            let handles: Vec<_> = (0..6)
                .map(|number| {
                    let daemon = &daemon;
                    scope.spawn(move || Pod::named(&format!("p{round}-{number}")).attach(daemon))
                })
                .collect();
            std::thread::sleep(std::time::Duration::from_millis(30 * (round + 1)));
            let pid = i32::try_from(daemon.pid()).unwrap();
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
            handles
                .into_iter()
                .map(|handle| handle.join().unwrap())
                .collect()
        });
        daemon.stop(Signal::SIGKILL).unwrap();
        daemon.spawn().unwrap();
        let attachments = daemon.vsctl_json(&["dump-attachments"]).unwrap();
        // What ADD acknowledged is there; what it did not is gone or removed by the runtime's DEL,
        // which dropping a failed `Pod` has tried while the daemon was away.
        for pod in pods.iter().flatten() {
            let known = attachments.as_array().unwrap().iter();
            let mut known = known.filter(|a| a["container_id"] == pod.container_id.as_str());
            assert!(
                known.next().is_some(),
                "{} is lost: {attachments}",
                pod.name
            );
            pod.cni("CHECK").unwrap().success().unwrap();
        }
        let objects = daemon.vsctl_json(&["get", "pods"]).unwrap();
        let acknowledged = pods.iter().flatten().count();
        assert_eq!(
            attachments.as_array().unwrap().len(),
            acknowledged,
            "{attachments}"
        );
        let objects = objects["items"].as_array().unwrap();
        assert_eq!(objects.len(), acknowledged, "{objects:?}");
        drop(pods);
    }
}
