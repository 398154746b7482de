//! vswitchd as a node has it: pods attached by CNI, a cluster around them, policies in force.
//!
//! The pods under load are selected by two policies of their own, one for each direction; the
//! others select bystander pods in twenty namespaces, which are attached as well, so that their
//! rules are in the tables that every packet of a new connection walks.

use std::collections::BTreeSet;

use anyhow::{Result, anyhow, ensure};
use serde_json::{Value, json};
use vswitch_tests::{Daemon, DaemonOptions, Pod, eventually};

use crate::load::PORTS;

/// Namespace of the pods under load.
const NAMESPACE: &str = "load";
/// Namespaces of bystanders; one attached pod each.
const TEAMS: usize = 20;
/// Pods of each team at other nodes, the peers of its policies.
const REMOTE_PODS: usize = 10;
/// CNI calls under way at a time.
const AT_A_TIME: usize = 8;
/// Policies of the pods under load.
const OWN_POLICIES: usize = 2;

/// The daemon and its pods. Fields are dropped in order: pods while the daemon still answers.
#[derive(Debug)]
pub(crate) struct LoadedNode {
    pods: Vec<Pod>,
    _bystanders: Vec<Pod>,
    _daemon: Daemon,
}

impl LoadedNode {
    pub(crate) fn pods(&self) -> &[Pod] {
        &self.pods
    }
}

/// Starts a daemon, attaches the pods and puts all policies in force.
///
/// # Errors
/// Fails if a step does, and if the tables hold fewer policies than asked for.
pub(crate) fn build(pods: usize, policies: usize) -> Result<LoadedNode> {
    ensure!(
        policies >= OWN_POLICIES,
        "at least {OWN_POLICIES} policies select the pods under load"
    );
    let daemon = Daemon::start(&DaemonOptions::default())?;
    let teams = (0..TEAMS).map(|team| ("bystander".to_owned(), team_name(team)));
    let loaded = (0..pods).map(|index| (format!("pod-{index}"), NAMESPACE.to_owned()));
    let local = teams
        .clone()
        .map(|(name, namespace)| pod(&name, &namespace, "bystander"));
    let local = local.chain(
        loaded
            .clone()
            .map(|(name, namespace)| pod(&name, &namespace, "load")),
    );
    let cluster = (0..=TEAMS).map(namespace).chain(local).chain(remote_pods());
    daemon.apply(&list(cluster))?;
    let bystanders = attach_all(&daemon, &teams.collect::<Vec<_>>())?;
    let pods = attach_all(&daemon, &loaded.collect::<Vec<_>>())?;
    let others = (0..policies - OWN_POLICIES).map(bystander_policy);
    daemon.apply(&list(own_policies().into_iter().chain(others)))?;
    eventually("all policies are in force", || {
        let found = policies_in_force(&daemon)?;
        ensure!(
            found == policies,
            "rules of {found} policies, not of {policies}"
        );
        Ok(())
    });
    Ok(LoadedNode {
        pods,
        _bystanders: bystanders,
        _daemon: daemon,
    })
}

/// Attaches pods, given by name and namespace, several at a time as a runtime does.
fn attach_all(daemon: &Daemon, pods: &[(String, String)]) -> Result<Vec<Pod>> {
    let attach =
        |(name, namespace): &(String, String)| Pod::named(name).namespace(namespace).attach(daemon);
    let chunks = std::thread::scope(|scope| {
        let started: Vec<_> = pods
            .chunks(pods.len().div_ceil(AT_A_TIME))
            .map(|chunk| scope.spawn(|| chunk.iter().map(attach).collect::<Result<Vec<_>>>()))
            .collect();
        let joined = started.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined.collect::<Result<Vec<_>, _>>()
    });
    let chunks = chunks.map_err(|_| anyhow!("a thread that attaches pods panicked"))?;
    let chunks = chunks.into_iter().collect::<Result<Vec<_>>>()?;
    Ok(chunks.into_iter().flatten().collect())
}

/// Counts the policies that rules of the tables name as their origin.
fn policies_in_force(daemon: &Daemon) -> Result<usize> {
    let mut origins = BTreeSet::new();
    for table in ["EgressRule", "IngressRule"] {
        let dump = daemon.vsctl_json(&["dump-flows", table])?;
        let rules = dump.as_array().into_iter().flatten();
        origins.extend(
            rules
                .map(|rule| &rule["origin"])
                .filter(|origin| origin["kind"] == "NetworkPolicy")
                .filter_map(|origin| origin["name"].as_str().map(str::to_owned)),
        );
    }
    Ok(origins.len())
}

fn list(items: impl Iterator<Item = Value>) -> String {
    let items: Vec<Value> = items.collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

fn team_name(team: usize) -> String {
    format!("team-{team}")
}

/// Namespaces of the teams, and behind them that of the load.
fn namespace(number: usize) -> Value {
    let name = if number < TEAMS {
        team_name(number)
    } else {
        NAMESPACE.to_owned()
    };
    json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {"tier": format!("tier-{}", number % 3)}}})
}

/// A pod of this node, as the scheduler leaves it to the runtime: without an address.
fn pod(name: &str, namespace: &str, app: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": app}},
        "spec": {"nodeName": "node-a", "containers": [{"name": "main", "image": "none"}]}})
}

fn remote_pods() -> impl Iterator<Item = Value> {
    (0..TEAMS * REMOTE_PODS).map(|number| {
        let (team, app) = (number % TEAMS, number / TEAMS);
        let mut pod = pod(
            &format!("remote-{app}"),
            &team_name(team),
            &format!("app-{app}"),
        );
        let ip = format!("10.245.0.{}", number + 1);
        pod["spec"]["nodeName"] = json!("node-b");
        pod["status"] = json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]});
        pod
    })
}

fn policy(namespace: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": name}, "spec": spec})
}

/// Load may come from and go to pods of the load, on its ports.
fn own_policies() -> [Value; OWN_POLICIES] {
    let pods = json!({"matchLabels": {"app": "load"}});
    let ports: Vec<Value> = ["TCP", "UDP"]
        .map(
            |protocol| json!({"protocol": protocol, "port": PORTS.start(), "endPort": PORTS.end()}),
        )
        .into();
    [
        policy(
            NAMESPACE,
            "load-in",
            json!({"podSelector": pods, "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": pods}], "ports": ports}]}),
        ),
        policy(
            NAMESPACE,
            "load-out",
            json!({"podSelector": pods, "policyTypes": ["Egress"],
            "egress": [{"to": [{"podSelector": pods}], "ports": ports}]}),
        ),
    ]
}

/// Policies of many kinds of peers, each with a port of its own.
fn bystander_policy(number: usize) -> Value {
    let team = number % TEAMS;
    let app = json!({"matchLabels": {"app": format!("app-{}", number / TEAMS % REMOTE_PODS)}});
    let peer = match number / TEAMS % 3 {
        0 => json!({"podSelector": app}),
        1 => json!({"podSelector": app,
            "namespaceSelector": {"matchLabels": {"tier": format!("tier-{}", team % 3)}}}),
        _ => json!({"ipBlock": {"cidr": format!("172.16.{}.0/24", number % 256)}}),
    };
    let ports = json!([{"port": 10_000 + number}]);
    let bystanders = json!({"matchLabels": {"app": "bystander"}});
    policy(
        &team_name(team),
        &format!("policy-{number}"),
        json!({"podSelector": bystanders,
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [peer], "ports": ports}],
        "egress": [{"to": [peer], "ports": ports}]}),
    )
}
