//! A node in cluster mode beside an API server: pods by the real shim, policies by the cluster.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::PathBuf;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use vswitch_tests::{
    ApiServer, CustomResource, Daemon, DaemonOptions, Namespace, Pod, eventually, pod_manifest,
    wait_for_state,
};

const SECURE_POD: &str = include_str!("../../config/samples/secure-pod.yaml");

/// An API server and a node that has joined it.
struct World {
    // Before the server: what goes first ends first.
    node: Daemon,
    api: ApiServer,
}

impl World {
    fn start() -> Self {
        let mut world = Self::prepare();
        world.node.spawn().unwrap();
        wait_for_state(&world.node, "live");
        world
    }

    /// Everything but the node's process; its Node object and two pods are there.
    fn prepare() -> Self {
        let machine = Namespace::of_host("hub").unwrap();
        let node = Namespace::of_host("node").unwrap();
        node.connect("up0", "192.0.2.2/24", &machine, "down0", "192.0.2.1/24")
            .unwrap();
        let hub = DaemonOptions {
            node_name: "hub".to_owned(),
            ..DaemonOptions::default()
        };
        let api = ApiServer::start_in(machine, "192.0.2.1", &hub).unwrap();
        let spec = json!({"podCIDR": "10.77.0.0/24", "podCIDRs": ["10.77.0.0/24"]});
        let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-a"},
            "spec": spec});
        api.apply(&object.to_string()).unwrap();
        for (name, app) in [("client", "client"), ("server", "secure-pod")] {
            api.apply(&pod(name, app)).unwrap();
        }
        let mut node = Daemon::prepare_in(node, &DaemonOptions::default()).unwrap();
        api.enroll(&mut node).unwrap();
        node.set("cluster.pod_wait_seconds", "3");
        Self { node, api }
    }

    fn attach(&self, name: &str) -> Pod {
        self.api.run_pod(&self.node, "default", name).unwrap()
    }

    fn conflist(&self) -> PathBuf {
        self.node.folder().join("net.d/10-vswitch.conflist")
    }
}

fn pod(name: &str, app: &str) -> String {
    pod_manifest("node-a", name, &json!({"app": app}))
}

fn reaches(client: &Pod, server: &Pod) -> anyhow::Result<()> {
    client.fetch(server.ip(), 80).map(drop)
}

fn cannot_reach(client: &Pod, server: &Pod) -> anyhow::Result<()> {
    anyhow::ensure!(reaches(client, server).is_err(), "it is reached");
    Ok(())
}

#[test]
fn the_story_is_played_with_the_objects_of_a_cluster() {
    let world = World::start();
    let (client, server) = (world.attach("client"), world.attach("server"));
    let _web = server.serve(80).unwrap();
    assert!(
        server.ip().to_string().starts_with("10.77.0."),
        "{}",
        server.ip()
    );
    reaches(&client, &server).unwrap();

    world.api.apply(SECURE_POD).unwrap();
    eventually("the policy blocks", || cannot_reach(&client, &server));
    let trace = world
        .node
        .vsctl(&["trace", "client", "server:80", "-o", "json"]);
    let trace = format!("{:#}", trace.unwrap_err());
    assert!(trace.contains("default/secure-pod"), "{trace}");
    let why = world
        .node
        .vsctl(&["explain", "client", "server:80"])
        .unwrap_err();
    assert!(format!("{why:#}").contains("allow-access"), "{why:#}");

    world
        .api
        .kubectl(&["label", "pod", "client", "allow-access=true"])
        .unwrap();
    eventually("the label admits", || reaches(&client, &server));
    world.api.kubectl(&["delete", "pod", "client"]).unwrap();
    eventually("a pod that is gone is nobody", || {
        cannot_reach(&client, &server)
    });
}

#[test]
fn the_switch_shows_the_objects_of_the_cluster_and_changes_none() {
    let world = World::start();
    let pods = world.node.vsctl_json(&["get", "pods"]).unwrap();
    let names = pods["items"].as_array().unwrap().iter();
    let names: Vec<&Value> = names.map(|pod| &pod["metadata"]["name"]).collect();
    assert_eq!(names, ["client", "server"]);
    let _attached = ["client", "server"].map(|name| world.attach(name));
    eventually("the addresses are heard", || {
        let matrix = world.node.vsctl(&["matrix"])?;
        anyhow::ensure!(matrix.contains("2 of 2 allowed"), "{matrix}");
        Ok(())
    });
    let error = world.node.apply(SECURE_POD).unwrap_err();
    assert!(format!("{error:#}").contains(&world.api.url()), "{error:#}");

    let status = world.node.vsctl(&["status"]).unwrap();
    assert!(
        status.contains(&world.api.url()) && status.contains("(live)"),
        "{status}"
    );
    let metrics = std::process::Command::new("curl")
        .args(["-sS", "--unix-socket"])
        .arg(world.node.socket())
        .arg("http://vswitchd/metrics")
        .output()
        .unwrap();
    let metrics = String::from_utf8(metrics.stdout).unwrap();
    for line in [
        "vswitch_kube_watch_synced{kind=\"own_pods\"} 1",
        "vswitch_kube_stale_seconds 0",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
}

#[test]
fn runtimes_and_the_cluster_are_told_when_the_node_is_ready_and_cleanup_takes_it_back() {
    let mut world = World::prepare();
    // Left behind by a boot before this one: without rules no runtime may take it for true.
    std::fs::create_dir_all(world.node.folder().join("net.d")).unwrap();
    std::fs::write(world.conflist(), "stale").unwrap();
    world.node.spawn().unwrap();
    let plugin = world.node.folder().join("bin/vswitch-cni");
    eventually("the configuration is installed", || {
        let conf: Value = serde_json::from_slice(&std::fs::read(world.conflist())?)?;
        anyhow::ensure!(conf["plugins"][0]["type"] == "vswitch-cni", "{conf}");
        anyhow::ensure!(plugin.exists(), "the plugin is missing");
        Ok(())
    });
    eventually("the condition of the Node is cleared", || {
        let node = world.api.get("/api/v1/nodes/node-a")?;
        let conditions = node["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let cleared = |one: &Value| one["type"] == "NetworkUnavailable" && one["status"] == "False";
        anyhow::ensure!(conditions.iter().any(cleared), "{node}");
        Ok(())
    });
    world.node.stop(Signal::SIGTERM).unwrap();
    world.node.cleanup().unwrap();
    assert!(!world.conflist().exists() && !plugin.exists());
}

#[test]
fn a_restart_without_the_api_server_enforces_what_was_known() {
    let mut world = World::start();
    let (client, server) = (world.attach("client"), world.attach("server"));
    let _web = server.serve(80).unwrap();
    world.api.apply(SECURE_POD).unwrap();
    eventually("the policy blocks", || cannot_reach(&client, &server));

    world.api.kill().unwrap();
    wait_for_state(&world.node, "stale");
    world.node.stop(Signal::SIGTERM).unwrap();
    world.node.spawn().unwrap();
    let status = world.node.vsctl_json(&["status"]).unwrap();
    assert_eq!(status["cluster"]["state"], "last-known", "{status}");
    assert_eq!(status["pod_cidrs"][0], "10.77.0.0/24");
    assert!(status["cluster"]["stale_seconds"].is_u64(), "{status}");
    cannot_reach(&client, &server).unwrap();
    let blocked = world
        .node
        .vsctl(&["trace", "client", "server:80", "-o", "json"]);
    let blocked = format!("{:#}", blocked.unwrap_err());
    assert!(blocked.contains("default/secure-pod"), "{blocked}");

    world.api.revive().unwrap();
    world
        .api
        .kubectl(&["delete", "networkpolicy", "secure-pod"])
        .unwrap();
    eventually("what changed meanwhile is heard", || {
        reaches(&client, &server)
    });
    wait_for_state(&world.node, "live");
}

#[test]
fn add_fails_closed_with_code_11_for_a_pod_that_the_cluster_does_not_tell_of() {
    let world = World::start();
    let older = Pod::named("server").uid("00000000-0000-0000-0000-000000000001");
    let unknown = Pod::named("nobody");
    for (builder, part) in [(older, "has UID"), (unknown, "there is none")] {
        let error = format!("{:#}", builder.attach(&world.node).unwrap_err());
        assert!(
            error.contains("\"code\": 11") || error.contains("\"code\":11"),
            "{error}"
        );
        assert!(error.contains(part), "{error}");
    }
    for what in ["/v1/leases", "/v1/attachments"] {
        let left = std::process::Command::new("curl")
            .args(["-sS", "--unix-socket"])
            .arg(world.node.socket())
            .arg(format!("http://vswitchd{what}"))
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8(left.stdout).unwrap().trim(),
            "[]",
            "{what}"
        );
    }
}

#[test]
fn add_waits_for_a_pod_that_the_cluster_tells_of_a_moment_later() {
    let mut world = World::prepare();
    // How long the moment is, the API server's machine decides.
    world.node.set("cluster.pod_wait_seconds", "100");
    world.node.spawn().unwrap();
    wait_for_state(&world.node, "live");
    std::thread::scope(|scope| {
        let attach = scope.spawn(|| Pod::named("late").attach(&world.node));
        std::thread::sleep(std::time::Duration::from_millis(700));
        assert!(!attach.is_finished(), "it waits");
        world.api.apply(&pod("late", "late")).unwrap();
        let pod = attach.join().unwrap().unwrap();
        assert!(pod.ip().to_string().starts_with("10.77.0."));
    });
}

#[test]
fn a_node_that_knows_neither_policies_nor_its_networks_does_not_start() {
    let mut world = World::prepare();
    std::fs::create_dir_all(world.node.folder().join("net.d")).unwrap();
    std::fs::write(world.conflist(), "stale").unwrap();
    world.api.kill().unwrap();
    world.node.set("cluster.pod_cidrs_wait_seconds", "1");
    world.node.launch().unwrap();
    assert_eq!(world.node.wait().unwrap(), Some(1));
    let log = world.node.log();
    let not_heard = format!("{} is not heard", world.api.url());
    assert!(log.contains(&not_heard), "{log}");
    assert!(
        !world.conflist().exists(),
        "no runtime takes the node for ready"
    );
}

const GUARD: &str = "apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: guard}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {}}
  egress:
  - action: Deny
    to: [{networks: [192.0.2.0/24]}]
";

#[test]
fn the_status_of_a_policy_says_whether_it_is_in_force_on_the_node() {
    let mut world = World::prepare();
    let kind = CustomResource::CLUSTER_NETWORK_POLICY;
    world.api.define(kind).unwrap();
    world.api.enroll_as_administrator(&mut world.node).unwrap();
    world.api.apply(GUARD).unwrap();
    let get = |world: &World| -> Value {
        let text = ["get", "clusternetworkpolicy", "guard", "-o", "json"];
        serde_json::from_str(&world.api.kubectl(&text).unwrap()).unwrap()
    };
    let condition = |world: &World| -> Option<Value> {
        let policy = get(world);
        let all = policy["status"]["conditions"].as_array()?;
        let own = |of: &&Value| of["type"] == "Ready-In-Zone-node-a";
        all.iter().find(own).cloned()
    };
    let until = |world: &World, status: &str, reason: &str, generation: u64| -> Value {
        eventually("the node says so", || {
            let said = condition(world).unwrap_or_default();
            let is_so = said["status"] == status
                && said["reason"] == reason
                && said["observedGeneration"] == generation;
            anyhow::ensure!(is_so, "{said}");
            Ok(())
        });
        condition(world).unwrap()
    };
    // A node that was there once.
    let gone = r#"{"status": {"conditions": [{"type": "Ready-In-Zone-gone", "status": "True",
        "reason": "SetupSucceeded", "message": "x", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        {"type": "Other", "status": "True", "reason": "R", "message": "x",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}"#;
    let patch = [
        "patch",
        "clusternetworkpolicy",
        "guard",
        "--subresource=status",
    ];
    let patch = [&patch[..], &["--type=merge", "-p", gone]].concat();
    world.api.kubectl(&patch).unwrap();

    world.node.spawn().unwrap();
    until(&world, "True", "SetupSucceeded", 1);
    let policy = get(&world);
    let conditions = policy["status"]["conditions"].as_array().unwrap();
    let types: Vec<&str> = conditions
        .iter()
        .map(|of| of["type"].as_str().unwrap())
        .collect();
    assert!(types.contains(&"Other"), "{types:?}");
    assert!(!types.contains(&"Ready-In-Zone-gone"), "{types:?}");

    let unknown = GUARD.replace("networks: [192.0.2.0/24]", "domainNames: [example.com]");
    let unknown = unknown.replace("action: Deny", "action: Accept");
    world.api.apply(&unknown).unwrap();
    let said = until(&world, "False", "SetupFailed", 2);
    let message = said["message"].as_str().unwrap();
    assert!(
        message.contains("egress[0].to[0]: domainNames"),
        "{message}"
    );

    let audit = [
        "annotate",
        "clusternetworkpolicy",
        "guard",
        "policy.vswitch.io/mode=audit",
    ];
    world.api.kubectl(&audit).unwrap();
    until(&world, "False", "Audit", 2);
    let enforce = [
        "annotate",
        "clusternetworkpolicy",
        "guard",
        "policy.vswitch.io/mode-",
    ];
    world.api.kubectl(&enforce).unwrap();
    world.api.apply(GUARD).unwrap();
    let said = until(&world, "True", "SetupSucceeded", 3);

    // Pods that come and a restart change nothing of it, and nothing is written.
    let version = get(&world)["metadata"]["resourceVersion"].clone();
    world.attach("client");
    world.node.stop(Signal::SIGKILL).unwrap();
    world.node.spawn().unwrap();
    world.api.apply(&GUARD.replace("guard", "second")).unwrap();
    eventually("what is new is said after the restart", || {
        let text = ["get", "clusternetworkpolicy", "second", "-o", "json"];
        let second = world.api.kubectl(&text)?;
        anyhow::ensure!(second.contains("Ready-In-Zone-node-a"), "{second}");
        Ok(())
    });
    assert_eq!(get(&world)["metadata"]["resourceVersion"], version);
    assert_eq!(condition(&world), Some(said));
}
