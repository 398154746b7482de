//! A daemon that serves other nodes: TLS, tokens, and what a member's token allows.

use std::fs;
use std::process::Command;

use anyhow::Result;
use serde_json::json;
use vswitch_tests::{
    DaemonOptions, Namespace, eventually, kubeconfig, make_certificate, run, run_in, tool,
};

use super::{SECURE_POD, WATCH_POLICIES, assert_watch_sees_the_policy};

const ADMINISTRATOR: &str = vswitch_tests::Hub::ADMINISTRATOR;
const ADDRESS: &str = "192.0.2.1";
const NODE_B: &str = "apiVersion: v1\nkind: Node\nmetadata:\n  name: node-b\n";

/// A hub on an underlay, and a machine beside it.
struct Hub {
    hub: vswitch_tests::Hub,
    /// The token of node-b.
    member: String,
    machine: Namespace,
}

impl Hub {
    fn start() -> Self {
        let node = Namespace::of_host("hub").unwrap();
        let machine = Namespace::new("machine").unwrap();
        node.connect("up0", "192.0.2.1/24", &machine, "eth0", "192.0.2.2/24")
            .unwrap();
        let options = DaemonOptions::default();
        let hub = vswitch_tests::Hub::start_in(node, ADDRESS, &options).unwrap();
        let member = hub.add_member("node-b").unwrap();
        Self {
            hub,
            member,
            machine,
        }
    }

    fn kubectl(&self, token: &str) -> Kubectl<'_> {
        let home = tempfile::tempdir().unwrap();
        let authority = home.path().join("ca.pem");
        fs::copy(self.hub.authority(), &authority).unwrap();
        let user = json!({ "token": token });
        let config = kubeconfig(self.hub.url(), &authority, &user);
        fs::write(home.path().join("config"), config).unwrap();
        Kubectl { hub: self, home }
    }
}

/// kubectl on the machine beside the hub, with a kubeconfig.
struct Kubectl<'a> {
    hub: &'a Hub,
    home: tempfile::TempDir,
}

impl Kubectl<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.hub.machine.command("timeout");
        command
            .arg("30")
            .arg(tool("kubectl-1.35"))
            .args(arguments)
            .env("HOME", self.home.path())
            .env("KUBECONFIG", self.home.path().join("config"));
        command
    }

    fn with_input(&self, arguments: &[&str], input: &str) -> Result<String> {
        run(&mut self.command(arguments), input)?.success()
    }

    fn run(&self, arguments: &[&str]) -> String {
        self.with_input(arguments, "").unwrap()
    }

    fn fails(&self, arguments: &[&str], input: &str) -> String {
        format!("{:#}", self.with_input(arguments, input).unwrap_err())
    }
}

#[test]
fn kubectl_reads_writes_and_watches_over_tls_with_a_kubeconfig() {
    let hub = Hub::start();
    let kubectl = hub.kubectl(ADMINISTRATOR);
    let watch = &mut kubectl.command(&WATCH_POLICIES);
    let apply = || {
        kubectl
            .with_input(&["apply", "-f", "-"], SECURE_POD)
            .unwrap()
    };
    assert_watch_sees_the_policy(watch, || drop(apply()));
}

#[test]
fn nobody_gets_in_without_a_token_and_no_client_trusts_another_certificate() {
    let hub = Hub::start();
    // kubectl would ask for a user.
    let get = |path| {
        let url = format!("https://192.0.2.1:7441{path}");
        let curl = ["curl", "-sk", "--noproxy", "*", &url];
        run_in(&hub.machine, &curl).unwrap().success().unwrap()
    };
    let nobody = get("/api/v1/pods");
    assert!(nobody.contains("\"code\":401"), "{nobody}");
    assert!(nobody.contains("bearer token is required"), "{nobody}");
    assert_eq!(get("/healthz"), "ok");
    let wrong = hub
        .kubectl("administrator-0123456780")
        .fails(&["get", "pods"], "");
    assert!(
        wrong.contains("Unauthorized") || wrong.contains("must be logged in"),
        "{wrong}"
    );

    let stranger = hub.kubectl(ADMINISTRATOR);
    make_certificate(stranger.home.path(), ADDRESS).unwrap();
    fs::rename(
        stranger.home.path().join("hub-cert.pem"),
        stranger.home.path().join("ca.pem"),
    )
    .unwrap();
    let distrust = stranger.fails(&["get", "pods"], "");
    assert!(distrust.contains("certificate"), "{distrust}");
}

#[test]
fn a_member_reads_everything_and_writes_its_own_node_alone() {
    let hub = Hub::start();
    hub.hub.daemon().apply(SECURE_POD).unwrap();
    let member = hub.kubectl(&hub.member);
    let policies = member.run(&["get", "networkpolicies", "-o", "name"]);
    assert!(policies.contains("secure-pod"), "{policies}");

    member.with_input(&["create", "-f", "-"], NODE_B).unwrap();
    member.run(&["annotate", "node", "node-b", "vswitch/note=seen"]);
    let patch = r#"{"status":{"conditions":[{"type":"NetworkUnavailable","status":"False"}]}}"#;
    member.run(&[
        "patch",
        "node",
        "node-b",
        "--subresource=status",
        "-p",
        patch,
    ]);
    let node = member.run(&["get", "node", "node-b", "-o", "json"]);
    assert!(
        node.contains("NetworkUnavailable") && node.contains("seen"),
        "{node}"
    );

    for (arguments, input) in [
        (
            &["create", "-f", "-"][..],
            &NODE_B.replace("node-b", "node-c")[..],
        ),
        (&["annotate", "node", "node-a", "vswitch/note=seen"], ""),
        (&["delete", "node", "node-b"], ""),
        (&["delete", "networkpolicy", "secure-pod"], ""),
        (
            &["create", "-f", "-"],
            &SECURE_POD.replace("name: secure-pod", "name: other"),
        ),
        (&["get", "--raw", "/v1/status"], ""),
        (&["get", "--raw", "/metrics"], ""),
    ] {
        let refused = member.fails(arguments, input);
        assert!(refused.contains("orbidden"), "{arguments:?}: {refused}");
    }
}

#[test]
fn certificate_and_tokens_are_renewed_without_a_restart() {
    let hub = Hub::start();
    hub.kubectl(ADMINISTRATOR).run(&["get", "pods"]);
    let before = hub.kubectl(ADMINISTRATOR);
    make_certificate(hub.hub.daemon().folder(), ADDRESS).unwrap();
    let other = ADMINISTRATOR.replace("0123", "4567");
    fs::write(hub.hub.daemon().folder().join("token"), &other).unwrap();
    eventually("the certificate is renewed", || {
        let kubectl = hub.kubectl(&other);
        kubectl.with_input(&["get", "pods"], "")
    });
    let stale = before.fails(&["get", "pods"], "");
    assert!(stale.contains("certificate"), "{stale}");
    let revoked = hub.kubectl(ADMINISTRATOR).fails(&["get", "pods"], "");
    assert!(!revoked.contains("certificate"), "{revoked}");
}
