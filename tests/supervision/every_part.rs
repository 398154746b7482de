//! A panic and a hang in each part, by the list that the daemon has of them.

use std::sync::Mutex;
use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use vswitch_tests::{
    ApiServer, Daemon, DaemonOptions, Namespace, eventually_within, plug, underlay,
};
use vswitchd::supervise::{Fault, Part};

use super::{fail, heal, make_faulty, names_of, readyz_over_tcp, readyz_over_unix};

/// Nodes that run at a time: most of a case is waiting.
const AT_ONCE: usize = 12;

/// How long a part may hang, in seconds: long enough to be asked about before, on a machine that
/// is busy with a dozen nodes.
const END_AFTER: u64 = 15;

/// How long such a machine may take to start one, or to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// An API server for all nodes, and something to do for each of their parts.
struct World {
    // First, so that it ends while there is an underlay.
    api: ApiServer,
    underlay: Namespace,
}

impl World {
    fn start() -> Self {
        let underlay = underlay().unwrap();
        let machine = Namespace::new("hub").unwrap();
        plug(&underlay, &machine, 99).unwrap();
        let hub = DaemonOptions {
            node_name: "hub".to_owned(),
            pod_cidrs: vec!["10.244.99.0/24".to_owned()],
            ..DaemonOptions::default()
        };
        let api = ApiServer::start_in(machine, "192.0.2.100", &hub).unwrap();
        let world = Self { api, underlay };
        // Has a health check port on every node.
        world.create(
            "/api/v1/namespaces/default/services",
            &json!({"metadata": {"name": "web"}, "spec": {"type": "LoadBalancer",
                "selector": {"app": "web"}, "externalTrafficPolicy": "Local",
                "ports": [{"port": 80}]}}),
        );
        world
    }

    fn create(&self, path: &str, object: &Value) {
        self.api.request("POST", path, Some(object)).unwrap();
    }

    /// Prepares a node in which every part runs: in a cluster, with a TCP listener.
    fn node(&self, place: usize) -> Daemon {
        let name = format!("node-{place}");
        let pod_cidr = format!("10.244.{place}.0/24");
        self.create(
            "/api/v1/nodes",
            &json!({"metadata": {"name": name},
                "spec": {"podCIDR": pod_cidr, "podCIDRs": [pod_cidr]}}),
        );
        let machine = Namespace::new("node").unwrap();
        plug(&self.underlay, &machine, place).unwrap();
        let options = DaemonOptions {
            node_name: name,
            ..DaemonOptions::default()
        };
        let mut node = Daemon::prepare_in(machine, &options).unwrap();
        self.api.enroll(&mut node).unwrap();
        let records = node.folder().join("flows.jsonl").display().to_string();
        node.set("flows.file", &records);
        make_faulty(&mut node, END_AFTER);
        node
    }

    /// Makes the cluster tell all nodes something, so that every part has something to do.
    fn stir(&self, part: Part, fault: Fault) {
        let name = format!("{}-{fault:?}", part.name()).to_lowercase();
        self.create(
            "/api/v1/namespaces/default/pods",
            &json!({"metadata": {"name": name, "labels": {"app": "web"}},
                "spec": {"nodeName": "node-0", "containers": [{"name": "c", "image": "c"}]}}),
        );
    }

    fn play(&self, node: &mut Daemon, part: Part, fault: Fault) {
        let name = part.name();
        let log_before = node.log().len();
        // What has done its work when the node is ready can only fail before.
        if part == Part::ClusterSync {
            fail(node, fault, part);
            node.launch().unwrap();
        } else {
            node.spawn().unwrap();
            eventually_within(PATIENCE, "the node is ready", || {
                let answer = readyz_over_unix(node)?;
                ensure!(answer.ends_with("\n200"), "{answer}");
                Ok(())
            });
            fail(node, fault, part);
            self.stir(part, fault);
        }
        if fault == Fault::Hang {
            // By the listener that does not hang.
            let ask = match part {
                Part::UnixListener => readyz_over_tcp,
                _ => readyz_over_unix,
            };
            eventually_within(PATIENCE, &format!("readiness names {name}"), || {
                let answer = ask(node)?;
                // `watcher` is not `watcher-inbox`.
                let is_named = answer.contains(&format!("{name} "));
                let is_silent = answer.contains("no sign of life for");
                ensure!(
                    is_named && is_silent && answer.ends_with("\n503"),
                    "{answer}"
                );
                Ok(())
            });
        }
        let code = node.wait().unwrap();
        assert_eq!(code, None, "{name}: a signal ends the process");
        heal(node);
        let log = node.log().split_off(log_before);
        let why = match fault {
            Fault::Panic => format!("panicked: a test made {name} panic"),
            Fault::Hang => "no sign of life for".to_owned(),
        };
        let is_told = |line: &str| {
            line.contains("the process ends")
                && names_of(line).any(|part| part == name)
                && line.contains(&why)
        };
        assert!(log.lines().any(is_told), "{name} {fault:?}:\n{log}");
    }
}

#[test]
fn every_part_that_panics_or_hangs_ends_the_process_and_is_named() {
    let mut cases: Vec<(Part, Fault)> = Vec::new();
    for part in Part::ALL {
        // A queue has no thread that could panic: those that fill and empty it have.
        if !part.is_queue() {
            cases.push((part, Fault::Panic));
        }
        cases.push((part, Fault::Hang));
    }
    let cases = Mutex::new(cases);
    let world = World::start();
    std::thread::scope(|scope| {
        for place in 0..AT_ONCE {
            let (world, cases) = (&world, &cases);
            scope.spawn(move || {
                let mut node = world.node(place);
                loop {
                    let next = cases.lock().unwrap().pop();
                    let Some((part, fault)) = next else {
                        return;
                    };
                    world.play(&mut node, part, fault);
                }
            });
        }
    });
}
