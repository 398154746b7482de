//! Unmodified kubectl, new and old, against the standalone API of a real daemon; a daemon that
//! serves others; the manifests that install one on a cluster.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod denied;
mod everyday;
mod hub;
mod manifests;
mod server_side_apply;
mod unenforced;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use anyhow::Result;
use vswitch_tests::{Daemon, DaemonOptions, Pod, WebServer, run, tool};

const SECURE_POD: &str = include_str!("../../config/samples/secure-pod.yaml");
const VERSIONS: [&str; 2] = ["kubectl-1.35", "kubectl-1.20"];

/// kubectl of one version, with a home of its own.
struct Kubectl<'a> {
    daemon: &'a Daemon,
    version: &'static str,
    home: tempfile::TempDir,
}

impl<'a> Kubectl<'a> {
    fn new(daemon: &'a Daemon, version: &'static str) -> Self {
        Self {
            daemon,
            version,
            home: tempfile::tempdir().unwrap(),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.daemon.node().command("timeout");
        command
            .arg("30")
            .arg(tool(self.version))
            .args(["--server", self.daemon.api_url()])
            .args(arguments)
            .env("HOME", self.home.path())
            .env_remove("KUBECONFIG");
        command
    }

    fn with_input(&self, arguments: &[&str], input: &str) -> Result<String> {
        run(&mut self.command(arguments), input)?.success()
    }

    fn run(&self, arguments: &[&str]) -> String {
        self.with_input(arguments, "")
            .unwrap_or_else(|e| panic!("{} {arguments:?}: {e}", self.version))
    }

    fn fails(&self, arguments: &[&str], input: &str) -> String {
        format!("{:#}", self.with_input(arguments, input).unwrap_err())
    }
}

fn daemon() -> Daemon {
    Daemon::start(&DaemonOptions::default()).unwrap()
}

/// Plays with each version of kubectl, against a daemon of its own.
#[expect(
    clippy::print_stdout,
    reason = "what a failed test printed names the version"
)]
fn with_each_kubectl(play: impl Fn(&Kubectl<'_>, &Daemon)) {
    for version in VERSIONS {
        println!("{version}:");
        let daemon = daemon();
        play(&Kubectl::new(&daemon, version), &daemon);
    }
}

/// Attaches two pods; the second one serves its name at the port.
fn client_and_server(daemon: &Daemon, port: u16) -> (Pod, Pod, WebServer) {
    let client = Pod::named("client").attach(daemon).unwrap();
    let server = Pod::named("server").attach(daemon).unwrap();
    let web = server.serve(port).unwrap();
    (client, server, web)
}

#[test]
fn kubectl_plays_the_story() {
    with_each_kubectl(|kubectl, daemon| {
        let (client, server, _web) = client_and_server(daemon, 80);
        kubectl.run(&["label", "pod", "server", "app=secure-pod"]);
        assert_eq!(client.fetch(server.ip(), 80).unwrap(), "server");

        let applied = kubectl
            .with_input(&["apply", "-f", "-"], SECURE_POD)
            .unwrap();
        assert_eq!(
            applied.trim(),
            "networkpolicy.networking.k8s.io/secure-pod created"
        );
        client.fetch(server.ip(), 80).unwrap_err();
        let again = kubectl
            .with_input(&["apply", "-f", "-"], SECURE_POD)
            .unwrap();
        assert_eq!(
            again.trim(),
            "networkpolicy.networking.k8s.io/secure-pod unchanged"
        );

        assert_eq!(
            kubectl
                .run(&["label", "pod", "client", "allow-access=true"])
                .trim(),
            "pod/client labeled"
        );
        assert_eq!(client.fetch(server.ip(), 80).unwrap(), "server");
        kubectl.run(&["label", "pod", "client", "allow-access-"]);
        client.fetch(server.ip(), 80).unwrap_err();
        kubectl.run(&["delete", "networkpolicy", "secure-pod"]);
        assert_eq!(client.fetch(server.ip(), 80).unwrap(), "server");
    });
}

#[test]
fn kubectl_shows_describes_annotates_edits_and_lists_resources() {
    with_each_kubectl(|kubectl, daemon| {
        let pod = Pod::named("client").attach(daemon).unwrap();
        kubectl
            .with_input(&["apply", "-f", "-"], SECURE_POD)
            .unwrap();

        let resources = kubectl.run(&["api-resources"]);
        for name in [
            "pods",
            "namespaces",
            "nodes",
            "services",
            "endpointslices",
            "networkpolicies",
            "events",
        ] {
            assert!(resources.contains(name), "{resources}");
        }
        let wide = kubectl.run(&["get", "pods", "-o", "wide"]);
        assert!(
            wide.contains("Running") && wide.contains(&pod.ip().to_string()),
            "{wide}"
        );
        let yaml = kubectl.run(&["get", "netpol", "secure-pod", "-o", "yaml"]);
        assert!(
            yaml.contains("app: secure-pod") && yaml.contains("uid:"),
            "{yaml}"
        );
        let described = kubectl.run(&["describe", "networkpolicy", "secure-pod"]);
        assert!(
            described.contains("PodSelector:     app=secure-pod"),
            "{described}"
        );
        let described = kubectl.run(&["describe", "pod", "client"]);
        assert!(described.contains(&pod.ip().to_string()), "{described}");

        kubectl.run(&["annotate", "pod", "client", "note=seen"]);
        let note = kubectl.run(&[
            "get",
            "pod",
            "client",
            "-o",
            "jsonpath={.metadata.annotations.note}",
        ]);
        assert_eq!(note, "seen");

        let mut edit = kubectl.command(&["edit", "networkpolicy", "secure-pod"]);
        edit.env("KUBE_EDITOR", "sed -i s/port:.80/port:\\ 8080/");
        run(&mut edit, "").unwrap().success().unwrap();
        let port = kubectl.run(&[
            "get",
            "netpol",
            "secure-pod",
            "-o",
            "jsonpath={.spec.ingress[0].ports[0].port}",
        ]);
        assert_eq!(port, "8080");
        let shop = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n";
        kubectl.with_input(&["create", "-f", "-"], shop).unwrap();
        let label = kubectl.run(&["get", "ns", "shop", "-o", "jsonpath={.metadata.labels}"]);
        assert!(label.contains("kubernetes.io/metadata.name"), "{label}");
        kubectl.run(&["delete", "namespace", "shop"]);
    });
}

/// What has kubectl print each policy as it comes.
const WATCH_POLICIES: [&str; 5] = ["get", "networkpolicies", "-w", "-o", "name"];

/// Checks that a watch that is under way tells of a policy that is applied.
fn assert_watch_sees_the_policy(watch: &mut Command, apply: impl FnOnce()) {
    let mut watch = watch.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let (sender, seen) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    apply();
    let line = seen
        .recv_timeout(std::time::Duration::from_secs(10))
        .unwrap();
    assert_eq!(line, "networkpolicy.networking.k8s.io/secure-pod");
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn kubectl_watches_changes_as_they_happen() {
    with_each_kubectl(|kubectl, _| {
        let watch = &mut kubectl.command(&WATCH_POLICIES);
        let apply = || {
            kubectl
                .with_input(&["apply", "-f", "-"], SECURE_POD)
                .unwrap()
        };
        assert_watch_sees_the_policy(watch, || drop(apply()));
    });
}

#[test]
fn what_the_api_server_would_refuse_is_refused_with_the_field_named() {
    let daemon = daemon();
    for version in VERSIONS {
        let kubectl = Kubectl::new(&daemon, version);
        let refused = |from: &str, to: &str| {
            kubectl.fails(&["apply", "-f", "-"], &SECURE_POD.replace(from, to))
        };
        let name = refused("name: secure-pod", "name: Secure_Pod");
        assert!(
            name.contains("metadata.name: Invalid value"),
            "{version}: {name}"
        );
        let port = refused("port: 80", "port: 80000");
        assert!(
            port.contains("spec.ingress[0].ports[0].port: Invalid value"),
            "{version}: {port}"
        );
        let protocol = refused("protocol: TCP", "protocol: ICMP");
        assert!(
            protocol.contains("spec.ingress[0].ports[0].protocol"),
            "{version}: {protocol}"
        );
        let block = SECURE_POD.replace(
            "podSelector:\n            matchLabels:\n              allow-access: \"true\"",
            "ipBlock:\n            cidr: 10.0.0.0/33",
        );
        let cidr = kubectl.fails(&["apply", "-f", "-"], &block);
        assert!(
            cidr.contains("spec.ingress[0].from[0].ipBlock.cidr"),
            "{version}: {cidr}"
        );
    }
    assert_eq!(
        daemon.vsctl_json(&["get", "netpol"]).unwrap()["items"],
        serde_json::json!([])
    );
}

#[test]
fn kubectl_exposes_a_pod_and_its_endpoints_follow() {
    with_each_kubectl(|kubectl, daemon| {
        let (client, server, _web) = client_and_server(daemon, 8080);
        kubectl.run(&["label", "pod", "server", "app=web"]);
        kubectl.run(&["expose", "pod", "server", "--port=80", "--target-port=8080"]);
        let address = kubectl.run(&[
            "get",
            "service",
            "server",
            "-o",
            "jsonpath={.spec.clusterIP}",
        ]);
        let address = address.parse().unwrap();
        assert_eq!(client.fetch(address, 80).unwrap(), "server");
        let slices = kubectl.run(&["get", "endpointslices"]);
        assert!(slices.contains(&server.ip().to_string()), "{slices}");
        let services = kubectl.run(&["get", "services"]);
        assert!(services.contains("80/TCP"), "{services}");
        kubectl.run(&["label", "pod", "server", "app-"]);
        client.fetch(address, 80).unwrap_err();
        kubectl.run(&["delete", "service", "server"]);
        let slices = kubectl.run(&["get", "endpointslices", "-o", "name"]);
        assert_eq!(slices, "");
    });
}
