//! A reconciler that hangs: what it does not enforce is not acknowledged, and the process ends
//! closed.

use std::net::IpAddr;
use std::process::{Child, Stdio};

use anyhow::ensure;
use serde_json::json;
use vswitch_tests::{Daemon, DaemonOptions, Pod, eventually};
use vswitchd::supervise::{Fault, Part};

use super::{fail, heal, make_faulty, names_of, readyz_over_unix, wait_until_it_fails};

/// Longer than a write waits for its rules, and than a busy machine may take to answer then.
const END_AFTER: u64 = 20;

/// A shell that connects again and again, and writes a line to a file for each page it gets.
struct Knocker {
    shell: Child,
    pages: tempfile::NamedTempFile,
}

impl Knocker {
    fn start(from: &Pod, to: IpAddr) -> Self {
        let pages = tempfile::NamedTempFile::new().unwrap();
        let script = format!(
            "while :; do echo tried >&2; \
             curl -sS --noproxy '*' --connect-timeout 1 --max-time 2 http://{to}/ && echo; done"
        );
        let tried = std::fs::File::create(pages.path().with_extension("tried")).unwrap();
        let shell = from
            .netns
            .command("sh")
            .args(["-c", &script])
            .stdin(Stdio::null())
            .stdout(pages.reopen().unwrap())
            .stderr(tried)
            .spawn()
            .unwrap();
        Self { shell, pages }
    }

    /// How often it got a page.
    fn pages(&self) -> usize {
        let pages = std::fs::read_to_string(self.pages.path()).unwrap();
        pages.lines().count()
    }

    /// How often it has tried.
    fn tries(&self) -> usize {
        let tried = self.pages.path().with_extension("tried");
        let tried = std::fs::read_to_string(tried).unwrap();
        tried.lines().filter(|line| *line == "tried").count()
    }

    /// Waits until it has tried as often again.
    fn wait_for_tries(&self, times: usize) {
        let before = self.tries();
        eventually("the client tries again", || {
            let tries = self.tries() - before;
            ensure!(tries >= times, "{tries}");
            Ok(())
        });
    }
}

impl Drop for Knocker {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
        let _ = std::fs::remove_file(self.pages.path().with_extension("tried"));
    }
}

fn deny_all(name: &str, app: &str) -> serde_json::Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name}, "spec": {"podSelector": {"matchLabels": {"app": app}}}})
}

const POLICIES: &str = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";

#[test]
fn what_a_hanging_reconciler_does_not_enforce_is_not_acknowledged_and_the_process_ends_closed() {
    let mut node = Daemon::prepare(&DaemonOptions::default()).unwrap();
    make_faulty(&mut node, END_AFTER);
    node.spawn().unwrap();
    let client = Pod::named("client").attach(&node).unwrap();
    let guarded = Pod::named("guarded").attach(&node).unwrap();
    let open = Pod::named("open").attach(&node).unwrap();
    for name in ["guarded", "open"] {
        let label = format!("app={name}");
        node.vsctl(&["label", "pod", name, &label]).unwrap();
    }
    let _servers = [guarded.serve(80).unwrap(), open.serve(80).unwrap()];
    assert_eq!(client.fetch(guarded.ip(), 80).unwrap(), "guarded");
    let acknowledged = deny_all("acknowledged", "guarded");
    node.api("POST", POLICIES, Some(&acknowledged)).unwrap();
    // From here on, to the end: not one page.
    let at_guarded = Knocker::start(&client, guarded.ip());

    fail(&node, Fault::Hang, Part::Reconciler);
    wait_until_it_fails(&node, Part::Reconciler);
    let late = deny_all("late", "open");
    let refused = node.api("POST", POLICIES, Some(&late)).unwrap_err();
    let refused = format!("{refused:#}");
    for part in [": 504 ", "stored, but not in force yet", "reconciler gave"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    let answer = readyz_over_unix(&node).unwrap();
    assert!(
        answer.ends_with("\n503") && answer.contains("reconciler gave"),
        "{answer}"
    );
    assert_eq!(client.fetch(open.ip(), 80).unwrap(), "open");
    at_guarded.wait_for_tries(1);

    assert_eq!(node.wait().unwrap(), None, "a signal ends the process");
    let log = node.log();
    // The queue before it has not moved either.
    let is_told = |line: &str| {
        line.contains("the process ends") && names_of(line).any(|part| part == "reconciler")
    };
    assert!(log.lines().any(is_told), "{log}");

    // Closed while there is no daemon, closed when it is back with the policy that was stored.
    let at_open = Knocker::start(&client, open.ip());
    at_open.wait_for_tries(2);
    heal(&node);
    node.spawn().unwrap();
    node.api("PUT", &format!("{POLICIES}/late"), Some(&late))
        .unwrap();
    for knocker in [&at_open, &at_guarded] {
        knocker.wait_for_tries(3);
        assert_eq!(knocker.pages(), 0, "forbidden connections");
    }
    // They would have been noticed.
    for name in ["late", "acknowledged"] {
        node.vsctl(&["delete", "networkpolicy", name]).unwrap();
    }
    for knocker in [&at_open, &at_guarded] {
        eventually("pages once it is allowed", || {
            ensure!(knocker.pages() > 0);
            Ok(())
        });
    }
}
