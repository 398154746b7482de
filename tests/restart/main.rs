//! The daemon goes away in the middle of the story and comes back.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod records;
mod store;
mod streams;

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::Signal;
use vswitch_tests::{Daemon, DaemonOptions, Output, Pod, eventually, run};

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

/// Namespaces of the containers in `fixtures/state-0.1.tar.gz`, whose paths are on record there.
struct Kept;

impl Kept {
    const NAMES: [&str; 2] = ["vswitch-kept-web", "vswitch-kept-db"];

    fn make() -> Self {
        for name in Self::NAMES {
            // One that a test left which was killed.
            let _ = run(Command::new("ip").args(["netns", "del", name]), "");
            let added = run(Command::new("ip").args(["netns", "add", name]), "");
            added.unwrap().success().unwrap();
        }
        Self
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        for name in Self::NAMES {
            let _ = run(Command::new("ip").args(["netns", "del", name]), "");
        }
    }
}

fn in_kept(name: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", name]).args(arguments);
    run(&mut command, "").unwrap()
}

#[test]
fn a_state_directory_of_release_0_1_is_taken_over_whole() {
    let options = DaemonOptions {
        pod_cidrs: vec!["10.244.0.0/24".to_owned(), "fd00:10:244::/64".to_owned()],
        ..DaemonOptions::default()
    };
    let mut daemon = Daemon::prepare(&options).unwrap();
    let fixture = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/restart/fixtures/state-0.1.tar.gz"
    );
    let mut tar = Command::new("tar");
    tar.args(["-xzf", fixture, "-C"]).arg(daemon.folder());
    run(&mut tar, "").unwrap().success().unwrap();
    let _kept = Kept::make();
    daemon.spawn().unwrap();
    // Pods `web` and `db` run on; the namespace of `lost` is gone.
    for _ in 0..2 {
        let ports = daemon.vsctl_json(&["show"]).unwrap();
        let ports: Vec<_> = ports
            .as_array()
            .unwrap()
            .iter()
            .map(|port| {
                let text = |key: &str| port[key].as_str().unwrap_or_default();
                let address = port["addresses"][0].as_str().unwrap_or_default();
                let no = port["no"].as_u64().unwrap();
                format!("{no} {} {} {address}", text("kind"), text("pod"))
            })
            .collect();
        assert_eq!(
            ports,
            [
                "1 gateway  10.244.0.1",
                "3 pod default/web 10.244.0.3",
                "4 pod shop/db 10.244.0.4",
                "1000000 vm default/vmtap0 10.244.0.6",
                "1000001 mirror  ",
            ]
        );
        let leases = daemon.api("GET", "/v1/leases", None).unwrap().unwrap();
        let held = leases.as_array().unwrap().iter();
        let held: Vec<_> = held
            .filter(|lease| lease["address"].as_str().unwrap().contains('.'))
            .filter_map(|lease| Some((lease["address"].as_str()?, lease["container_id"].as_str()?)))
            .collect();
        assert_eq!(
            held,
            [
                ("10.244.0.3", "web-container"),
                ("10.244.0.4", "db-container"),
                ("10.244.0.6", "vm:vmtap0"),
            ]
        );
        let flows = daemon.api("GET", "/v1/admin-flows", None).unwrap().unwrap();
        assert_eq!(flows.as_array().unwrap().len(), 2, "{flows}");
        for (name, address) in [
            ("vswitch-kept-web", "10.244.0.4"),
            ("vswitch-kept-db", "10.244.0.3"),
        ] {
            let ping = ["ping", "-n", "-c", "1", "-W", "2", address];
            in_kept(name, &ping).success().unwrap();
        }
        daemon.stop(Signal::SIGKILL).unwrap();
        daemon.spawn().unwrap();
    }
    let fresh = Pod::named("fresh").attach(&daemon).unwrap();
    assert_eq!(fresh.ip().to_string(), "10.244.0.7", "the cursor goes on");
    let ports = daemon.vsctl_json(&["show"]).unwrap();
    let mut ports = ports.as_array().unwrap().iter();
    let port = ports.find(|port| port["pod"] == "default/fresh").unwrap();
    assert!(port["no"].as_u64().unwrap() >= 66, "numbers go on: {port}");
}

/// Runs what Debian's package runs when it is removed, for this daemon, where there is no systemd.
fn remove_package(daemon: &Daemon) -> anyhow::Result<String> {
    let script = include_str!("../../config/debian/prerm");
    let at = |name: &str| daemon.folder().join(name).display().to_string();
    let vswitchd = vswitch_tests::binary("vswitchd").display().to_string();
    let script = script
        .replace("/run/systemd/system", &at("no-systemd"))
        .replace("/opt/cni/bin", &at("no-cni"))
        .replace("/etc/vswitchd/vswitchd.toml", &at("vswitchd.toml"))
        .replace("/usr/bin/vswitchd", &vswitchd);
    let mut shell = daemon.node().command("sh");
    run(shell.args(["-c", &script, "prerm", "remove"]), "")?.success()
}

#[test]
fn cleanup_is_refused_while_the_daemon_runs_and_its_pods_come_back_after_it() {
    let mut daemon = Daemon::start(&DaemonOptions::default()).unwrap();
    let one = Pod::named("one").attach(&daemon).unwrap();
    let two = Pod::named("two").attach(&daemon).unwrap();
    let refused = format!("{:#}", daemon.cleanup().unwrap_err());
    for part in ["vswitchd is running", "exit Some(75)"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    assert!(one.pings(two.ip()).unwrap(), "nothing was removed");
    remove_package(&daemon).unwrap_err();
    assert!(one.pings(two.ip()).unwrap(), "the package stays as well");
    daemon.vsctl(&["add-port", "vm", "vmtap0"]).unwrap();

    daemon.stop(Signal::SIGTERM).unwrap();
    remove_package(&daemon).unwrap();
    let links = daemon.node().ip(&["-o", "link"]).unwrap();
    assert!(
        !links.contains("vsw") && !links.contains("vmtap0"),
        "{links}"
    );
    daemon.spawn().unwrap();
    assert!(one.pings(two.ip()).unwrap());
    for pod in [&one, &two] {
        pod.cni("CHECK").unwrap().success().unwrap();
    }
    let ports = daemon.vsctl(&["show"]).unwrap();
    assert!(ports.contains("vmtap0"), "{ports}");
}

#[test]
fn clients_that_hang_up_leave_no_port_and_no_flow_half_there() {
    let mut daemon = Daemon::start(&DaemonOptions::default()).unwrap();
    for round in 0..40 {
        let (kind, ifname) = [
            ("vm", format!("vm{round}")),
            ("mirror", format!("sp{round}")),
        ][round % 2]
            .clone();
        let port = format!("{{\"kind\":\"{kind}\",\"ifname\":\"{ifname}\"}}");
        let flow = format!(
            "{{\"name\":\"f{round}\",\"priority\":9,\"match\":\"tcp,tp_dst={}\",\"actions\":\"drop\"}}",
            1000 + round
        );
        for (path, body) in [("ports", port), ("flows", flow)] {
            let mut curl = Command::new("curl");
            curl.args(["-s", "--max-time", &format!("0.00{}", 1 + round % 9)])
                .arg("--unix-socket")
                .arg(daemon.socket())
                .args(["-H", "content-type: application/json", "-d", &body])
                .arg(format!("http://localhost/v1/{path}"));
            run(&mut curl, "").unwrap();
        }
    }
    let is_whole = |daemon: &Daemon| -> anyhow::Result<()> {
        let listed = daemon.vsctl_json(&["show"])?;
        let links = daemon.node().ip(&["-o", "link"])?;
        let taps = |prefix: &str| links.matches(&format!(": {prefix}")).count();
        let of_kind = |kind: &str| {
            let listed = listed.as_array().unwrap().iter();
            listed.filter(|port| port["kind"] == kind).count()
        };
        let leases = daemon.api("GET", "/v1/leases", None)?.unwrap();
        let held = leases.as_array().unwrap().iter();
        let held = held
            .filter(|lease| lease["container_id"].is_string())
            .count();
        let pods = daemon.vsctl_json(&["get", "pods"])?;
        let pods = pods["items"].as_array().unwrap().len();
        let vms = of_kind("vm");
        anyhow::ensure!(
            (taps("vm"), held, pods) == (vms, vms, vms) && taps("sp") == of_kind("mirror"),
            "{vms} VM ports, {held} leases, {pods} pods, {links}, {listed}"
        );
        let stored = daemon.api("GET", "/v1/admin-flows", None)?.unwrap();
        let in_force = daemon.api("GET", "/v1/flows?table=30", None)?.unwrap();
        let in_force = in_force.as_array().unwrap().iter();
        let in_force = in_force.filter(|flow| flow["priority"] == 9).count();
        let stored = stored.as_array().unwrap().len();
        anyhow::ensure!(stored == in_force, "{stored} stored, {in_force} in force");
        Ok(())
    };
    eventually("what was begun is whole", || is_whole(&daemon));
    daemon.stop(Signal::SIGKILL).unwrap();
    daemon.spawn().unwrap();
    is_whole(&daemon).unwrap();
}
