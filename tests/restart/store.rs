//! What becomes of the daemon when its store is damaged, full or still in use.

use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use vswitch_tests::{Daemon, DaemonOptions, Pod, eventually};

const POLICY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: unlucky-deny}
spec: {podSelector: {matchLabels: {app: server}}, policyTypes: [Ingress]}
";

fn store_of(daemon: &Daemon) -> PathBuf {
    daemon.folder().join("state/store")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    files.map(|entry| entry.path()).collect()
}

/// A daemon with two pods, of which one may not be reached, stopped by kill -9.
fn forbidden() -> (Daemon, Pod, Pod) {
    let mut daemon = Daemon::start(&DaemonOptions::default()).unwrap();
    let client = Pod::named("client").attach(&daemon).unwrap();
    let server = Pod::named("server").attach(&daemon).unwrap();
    daemon
        .vsctl(&["label", "pod", "server", "app=server"])
        .unwrap();
    assert!(client.pings(server.ip()).unwrap());
    daemon.apply(POLICY).unwrap();
    assert!(!client.pings(server.ip()).unwrap());
    daemon.stop(Signal::SIGKILL).unwrap();
    (daemon, client, server)
}

fn problems(daemon: &Daemon) -> String {
    daemon.vsctl_json(&["status"]).unwrap()["problems"].to_string()
}

#[test]
fn a_policy_damaged_in_every_file_stays_in_force_until_it_is_written_again() {
    let (mut daemon, client, server) = forbidden();
    let mut hits = 0;
    for path in files(&store_of(&daemon)) {
        let mut bytes = std::fs::read(&path).unwrap();
        // The policy's text, not the key that it lies under.
        let text = b"\"name\":\"unlucky-deny\"";
        while let Some(at) = bytes.windows(text.len()).position(|found| found == text) {
            bytes[at + 10] ^= 1;
            hits += 1;
        }
        std::fs::write(path, bytes).unwrap();
    }
    assert!(hits >= 2, "{hits}");
    daemon.spawn().unwrap();
    assert!(!client.pings(server.ip()).unwrap());
    assert!(!server.pings(client.ip()).unwrap(), "both ways");
    let said = problems(&daemon);
    assert!(
        said.contains("networkpolicies/default/unlucky-deny"),
        "{said}"
    );
    assert!(said.contains("namespace default is isolated"), "{said}");
    let rules = daemon.vsctl(&["dump-flows"]).unwrap();
    assert!(rules.contains("isolated:records-lost"), "{rules}");
    assert!(daemon.log().contains("unlucky-deny"), "{}", daemon.log());
    daemon.apply(POLICY).unwrap();
    assert!(!client.pings(server.ip()).unwrap());
    assert!(server.pings(client.ip()).unwrap(), "what the policy allows");
    assert_eq!(problems(&daemon), "[]");
}

#[test]
fn a_database_that_is_gone_closes_everything_until_the_loss_is_accepted() {
    let (mut daemon, client, server) = forbidden();
    let given = [client.ip(), server.ip()];
    for path in files(&store_of(&daemon)) {
        if !path.ends_with("lock") {
            std::fs::remove_file(path).unwrap();
        }
    }
    daemon.spawn().unwrap();
    assert!(problems(&daemon).contains("all namespaces are isolated"));
    assert!(!client.pings(server.ip()).unwrap());
    // Whoever has an address keeps it: nobody gets one before all have rested.
    let refused = Pod::named("new").attach(&daemon).unwrap_err();
    let refused = format!("{refused:#}");
    assert!(refused.contains("try again in"), "{refused}");
    for address in given {
        let leases = daemon.vsctl(&["dump-leases"]).unwrap();
        assert!(!leases.contains(&address.to_string()), "{leases}");
    }
    let accepted = daemon.vsctl(&["store", "accept-loss"]).unwrap();
    assert!(
        accepted.contains("accepted: the records of the last run are gone"),
        "{accepted}"
    );
    assert_eq!(problems(&daemon), "[]");
}

#[test]
fn a_file_that_is_gone_costs_nothing() {
    let (mut daemon, client, server) = forbidden();
    for number in 0..files(&store_of(&daemon)).len() {
        let mut names = files(&store_of(&daemon));
        names.sort();
        let Some(path) = names.get(number) else {
            break;
        };
        std::fs::remove_file(path).unwrap();
        daemon.spawn().unwrap();
        assert!(!client.pings(server.ip()).unwrap(), "{}", path.display());
        assert!(server.pings(client.ip()).unwrap(), "{}", path.display());
        assert_eq!(problems(&daemon), "[]", "{}", path.display());
        daemon.stop(Signal::SIGKILL).unwrap();
    }
}

#[test]
fn a_start_waits_for_the_process_that_ends() {
    let mut daemon = Daemon::start(&DaemonOptions::default()).unwrap();
    for starts in 1..=3 {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(daemon.pid()).unwrap());
        let mut ending = daemon.launch_beside().unwrap();
        eventually("the log says that a start waits", || {
            let log = daemon.log();
            let waited = log.matches("waiting for another process").count();
            anyhow::ensure!(waited == starts, "{waited} of {starts}: {log}");
            Ok(())
        });
        nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
        ending.wait().unwrap();
        daemon.wait_until_ready();
    }
}

#[test]
fn a_full_disk_is_said_and_what_is_on_it_is_enforced() {
    let mut daemon = Daemon::prepare(&DaemonOptions::default()).unwrap();
    let state = daemon.folder().join("state");
    std::fs::create_dir_all(&state).unwrap();
    let mounted = SmallDisk::mount(&state);
    daemon.spawn().unwrap();
    let client = Pod::named("client").attach(&daemon).unwrap();
    let server = Pod::named("server").attach(&daemon).unwrap();
    daemon
        .vsctl(&["label", "pod", "server", "app=server"])
        .unwrap();
    daemon.apply(POLICY).unwrap();
    mounted.fill();
    let readyz = |daemon: &Daemon| daemon.text("/readyz").unwrap();
    // What is left of the last page may take one more.
    let mut number = 0;
    let large = "x".repeat(8_000);
    let refused = loop {
        let policy = POLICY.replace("unlucky", &format!("p{number}"));
        let policy = policy.replace(
            "-deny}",
            &format!("-deny, annotations: {{note: {large}}}}}"),
        );
        match daemon.apply(&policy) {
            Ok(_) if number < 4 => number += 1,
            outcome => break outcome,
        }
    };
    refused.unwrap_err();
    let said = readyz(&daemon);
    assert!(
        said.contains("cannot be written to") && said.contains("No space left"),
        "{said}"
    );
    daemon.stop(Signal::SIGKILL).unwrap();
    daemon.launch().unwrap();
    eventually("the daemon is up, and not ready", || {
        let said = daemon.text("/readyz")?;
        anyhow::ensure!(said.contains("No space left"), "{said}");
        Ok(())
    });
    eventually("the pods are back", || {
        anyhow::ensure!(server.pings(client.ip())?);
        Ok(())
    });
    assert!(!client.pings(server.ip()).unwrap());
    mounted.empty();
    daemon.wait_until_ready();
    daemon.apply(&POLICY.replace("unlucky", "lucky")).unwrap();
}

/// A file system of a few pages.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: &Path) -> Self {
        let flags = nix::mount::MsFlags::empty();
        let options = Some("size=512k,mode=700");
        nix::mount::mount(Some("tmpfs"), folder, Some("tmpfs"), flags, options).unwrap();
        Self(folder.to_owned())
    }

    fn fill(&self) {
        let (mut size, mut number) = (512 << 10, 0);
        while size > 0 {
            if std::fs::write(self.0.join(format!("ballast-{number}")), vec![b'x'; size]).is_err() {
                size /= 2;
            }
            number += 1;
        }
    }

    fn empty(&self) {
        for path in files(&self.0) {
            if path
                .file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("ballast")
            {
                std::fs::remove_file(path).unwrap();
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}
