//! The cases through a running daemon: pods are network namespaces that the real shim
//! attached, changes go through the standalone API, verdicts come from sockets.
//!
//! The pods are attached once and stay: what each step changes is told to a running switch.
//! Their addresses are the switch's own, so ipBlocks are rewritten to them. SCTP is not in
//! this kernel: its probes are played in process only.
//!
//! Every probe of Kubernetes' own suite is made twice at a time: to the pod's own address, and to
//! the ClusterIP of a Service that has only this pod behind it, as that suite makes it. Other nodes
//! are addresses that the daemon's own one has besides, with servers there for the pods in their
//! network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use vswitch_api::client::Client;
use vswitch_tests::{Daemon, DaemonOptions, Pod};

use crate::Tally;
use crate::cases::{
    self, Action, Case, Expected, Labels, Node, Protocol, State, Step, container_ports,
};
use crate::sockets::{Attempt, attempt, serve};

const POLICIES: &str = "/apis/networking.k8s.io/v1";
const CLUSTER_POLICIES: &str = "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies";

/// How a probe addresses a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Pod,
    Service,
}

/// Verdicts of both ways.
#[derive(Debug, Default)]
pub(crate) struct Tallies {
    pub(crate) pods: Tally,
    pub(crate) services: Tally,
}

impl Tallies {
    fn of(&mut self, way: Way) -> &mut Tally {
        match way {
            Way::Pod => &mut self.pods,
            Way::Service => &mut self.services,
        }
    }
}

/// Plays all cases, to pods and to Services.
pub(crate) fn play(cases: &[Case]) -> Result<Tallies> {
    play_ways(cases, &[Way::Pod, Way::Service])
}

/// Plays all cases, to pods alone.
pub(crate) fn play_to_pods(cases: &[Case]) -> Result<Tally> {
    Ok(play_ways(cases, &[Way::Pod])?.pods)
}

fn play_ways(cases: &[Case], ways: &'static [Way]) -> Result<Tallies> {
    let mut stage = Stage::new(cases, ways)?;
    let mut tallies = Tallies::default();
    for case in cases {
        tallies.pods.begin();
        tallies.services.begin();
        stage
            .play(case, &mut tallies)
            .with_context(|| case.id.clone())?;
        let services = match ways {
            [Way::Pod] => String::new(),
            _ => format!(", services {}", tallies.services.of_case()),
        };
        println!(
            "{} namespaces {}{services} {}",
            case.id,
            tallies.pods.of_case(),
            case.description
        );
    }
    Ok(tallies)
}

/// The daemon with its pods.
struct Stage {
    /// Before the daemon, so that they are detached while it runs.
    pods: BTreeMap<String, Pod>,
    /// ClusterIP of each pod's Service.
    services: BTreeMap<String, IpAddr>,
    namespaces: BTreeSet<String>,
    ways: &'static [Way],
    api: Client,
    daemon: Daemon,
}

impl Stage {
    /// Starts a daemon and attaches everybody whom the cases speak of.
    fn new(cases: &[Case], ways: &'static [Way]) -> Result<Self> {
        let daemon = Daemon::start(&DaemonOptions::default())?;
        let api = Client::new(daemon.socket());
        let mut stage = Self {
            pods: BTreeMap::new(),
            services: BTreeMap::new(),
            namespaces: BTreeSet::new(),
            ways,
            api,
            daemon,
        };
        let states = || {
            cases
                .iter()
                .flat_map(|case| &case.steps)
                .map(|step| &step.state)
        };
        for namespace in states().flat_map(|state| &state.namespaces) {
            if stage.namespaces.insert(namespace.name.clone()) {
                stage.label_namespace(&namespace.name, &Labels::new())?;
            }
        }
        let pods: BTreeMap<String, &cases::Pod> = states()
            .flat_map(|state| &state.pods)
            .map(|pod| (pod.key(), pod))
            .collect();
        let mut on_nodes = BTreeSet::new();
        for (key, described) in pods {
            let ports = ports_of(described, cases);
            if described.host_network {
                on_nodes.extend(ports);
                continue;
            }
            let pod = Pod::named(&described.name)
                .namespace(&described.namespace)
                .attach(&stage.daemon)?;
            serve(&pod.netns, Ipv4Addr::UNSPECIFIED.into(), &ports)?;
            if ways.contains(&Way::Service) {
                stage.make_service(&pod, &described.namespace, &described.name, &ports)?;
            }
            stage.pods.insert(key, pod);
        }
        let nodes: BTreeMap<&String, &Node> = states()
            .flat_map(|state| &state.nodes)
            .map(|node| (&node.name, node))
            .collect();
        let on_nodes: Vec<_> = on_nodes.into_iter().collect();
        for node in nodes.into_values() {
            stage.make_node(node)?;
            // What answers from any address answers from the nearest one.
            serve(stage.daemon.node(), node.ip, &on_nodes)?;
        }
        Ok(stage)
    }

    /// Gives the daemon's node the address of another one, and tells of that.
    fn make_node(&self, node: &Node) -> Result<()> {
        let address = format!("{}/32", node.ip);
        self.daemon
            .node()
            .ip(&["address", "add", &address, "dev", "lo"])?;
        let object = json!({ "apiVersion": "v1", "kind": "Node",
                             "metadata": { "name": node.name, "labels": node.labels } });
        let mut made = self.send("POST", "/api/v1/nodes", &object)?;
        made["status"]["addresses"] = json!([{ "type": "InternalIP", "address": node.ip }]);
        let path = format!("/api/v1/nodes/{}/status", node.name);
        self.send("PUT", &path, &made)?;
        Ok(())
    }

    /// Puts a Service before a pod, with all its ports.
    fn make_service(
        &mut self,
        pod: &Pod,
        namespace: &str,
        name: &str,
        ports: &[(u16, Protocol)],
    ) -> Result<()> {
        let port_name = |(port, protocol): (u16, Protocol)| match protocol {
            Protocol::Tcp => (format!("tcp-{port}"), "TCP", port),
            Protocol::Udp => (format!("udp-{port}"), "UDP", port),
            Protocol::Sctp => (format!("sctp-{port}"), "SCTP", port),
        };
        let ports = ports.iter().copied().map(port_name);
        let ports: Vec<Value> = ports
            .map(|(name, protocol, port)| json!({"name": name, "protocol": protocol, "port": port}))
            .collect();
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": format!("s-{name}") },
            "spec": { "ports": ports },
        });
        let path = format!("/api/v1/namespaces/{namespace}/services");
        let made = self.send("POST", &path, &service)?;
        let address = made["spec"]["clusterIP"].as_str().unwrap_or_default();
        let address = address.parse().context("a Service gets a ClusterIP")?;
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": { "name": format!("s-{name}-1"),
                          "labels": { "kubernetes.io/service-name": format!("s-{name}") } },
            "addressType": "IPv4", "ports": ports,
            "endpoints": [{ "addresses": [pod.ip()] }],
        });
        let path = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices");
        self.send("POST", &path, &slice)?;
        self.services.insert(format!("{namespace}/{name}"), address);
        Ok(())
    }

    fn play(&mut self, case: &Case, tallies: &mut Tallies) -> Result<()> {
        self.reset()?;
        let first = case.steps.first().context("a case has a step")?;
        self.set(&first.state)?;
        for (number, step) in case.steps.iter().enumerate() {
            let addresses = self.addresses(&step.state)?;
            for action in &step.actions {
                self.act(action, &addresses)?;
            }
            for ((expected, way), found) in self.probe(step)? {
                let text = if found { "an answer" } else { "silence" };
                let tally = tallies.of(way);
                tally.count(case, number, expected, text, found == expected.allowed);
            }
        }
        Ok(())
    }

    /// Leaves no policy behind.
    fn reset(&self) -> Result<()> {
        for namespace in &self.namespaces {
            let path = format!("{POLICIES}/namespaces/{namespace}/networkpolicies");
            self.send("DELETE", &path, &Value::Null)?;
        }
        self.send("DELETE", CLUSTER_POLICIES, &Value::Null)?;
        Ok(())
    }

    /// Gives namespaces and pods the labels and ports of a state.
    fn set(&self, state: &State) -> Result<()> {
        for namespace in &state.namespaces {
            self.label_namespace(&namespace.name, &namespace.labels)?;
        }
        for pod in state.pods.iter().filter(|pod| !pod.host_network) {
            let path = format!("/api/v1/namespaces/{}/pods/{}", pod.namespace, pod.name);
            let mut object = self.send("GET", &path, &Value::Null)?;
            object["metadata"]["labels"] = json!(pod.labels);
            object["spec"]["containers"][0]["ports"] = container_ports(pod);
            self.send("PUT", &path, &object)?;
        }
        Ok(())
    }

    fn label_namespace(&self, name: &str, labels: &Labels) -> Result<()> {
        let path = format!("/api/v1/namespaces/{name}");
        let object = json!({ "apiVersion": "v1", "kind": "Namespace",
                             "metadata": { "name": name, "labels": labels } });
        match self.api.request("GET", &path, &[], &[])?.status {
            404 => self.send("POST", "/api/v1/namespaces", &object)?,
            _ => self.send("PUT", &path, &object)?,
        };
        Ok(())
    }

    fn act(&self, action: &Action, addresses: &BTreeMap<IpAddr, IpAddr>) -> Result<()> {
        match action {
            Action::CreatePolicy { namespace, policy } => {
                let path = format!("{POLICIES}/namespaces/{namespace}/networkpolicies");
                self.send("POST", &path, &translated(policy, addresses))?;
            }
            Action::UpdatePolicy {
                namespace,
                name,
                policy,
            } => {
                let path = format!("{POLICIES}/namespaces/{namespace}/networkpolicies/{name}");
                self.send("PUT", &path, &translated(policy, addresses))?;
            }
            Action::DeletePolicy { namespace, name } => {
                let path = format!("{POLICIES}/namespaces/{namespace}/networkpolicies/{name}");
                self.send("DELETE", &path, &Value::Null)?;
            }
            Action::CreateClusterPolicy { policy } => {
                self.send("POST", CLUSTER_POLICIES, &translated(policy, addresses))?;
            }
            Action::UpdateClusterPolicy { name, policy } => {
                let path = format!("{CLUSTER_POLICIES}/{name}");
                self.send("PUT", &path, &translated(policy, addresses))?;
            }
            Action::SetNamespaceLabels { name, labels } => self.label_namespace(name, labels)?,
            Action::SetPodLabels {
                namespace,
                name,
                labels,
            } => {
                let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
                let mut object = self.send("GET", &path, &Value::Null)?;
                object["metadata"]["labels"] = json!(labels);
                self.send("PUT", &path, &object)?;
            }
        }
        Ok(())
    }

    /// Sends a request; an answer means that the change is in force.
    fn send(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let body = if body.is_null() {
            Vec::new()
        } else {
            serde_json::to_vec(body)?
        };
        let answer =
            self.api
                .request(method, path, &[("content-type", "application/json")], &body)?;
        let text = String::from_utf8_lossy(&answer.body);
        anyhow::ensure!(
            answer.status < 300,
            "{method} {path}: {} {text}",
            answer.status
        );
        serde_json::from_str(&text).with_context(|| format!("{method} {path}: {text}"))
    }

    /// Maps the addresses of the case to those of the pods here.
    fn addresses(&self, state: &State) -> Result<BTreeMap<IpAddr, IpAddr>> {
        let pods = state.pods.iter().filter(|pod| !pod.host_network);
        pods.map(|pod| Ok((pod.ip, self.pod(&pod.key())?.ip())))
            .collect()
    }

    fn pod(&self, key: &str) -> Result<&Pod> {
        self.pods
            .get(key)
            .with_context(|| format!("there is no pod {key}"))
    }

    fn address(&self, pod: &str, way: Way) -> Result<IpAddr> {
        if let Ok(address) = pod.parse() {
            return Ok(address);
        }
        match way {
            Way::Pod => Ok(self.pod(pod)?.ip()),
            Way::Service => {
                let address = self.services.get(pod).copied();
                address.with_context(|| format!("there is no Service of {pod}"))
            }
        }
    }

    /// Tries everything that a step judges, all senders at once.
    fn probe<'s>(&self, step: &'s Step) -> Result<Vec<((&'s Expected, Way), bool)>> {
        let played = step
            .judged()
            .filter(|expected| expected.protocol != Protocol::Sctp);
        let played: Vec<(&Expected, Way)> = played
            .flat_map(|expected| self.ways.iter().map(move |way| (expected, *way)))
            .collect();
        let senders: BTreeSet<&str> = played.iter().map(|(e, _)| e.from.as_str()).collect();
        let mut running = Vec::new();
        for sender in senders {
            let of_sender: Vec<(&Expected, Way)> = played
                .iter()
                .copied()
                .filter(|(e, _)| e.from == sender)
                .collect();
            let attempts = of_sender.iter().map(|(expected, way)| {
                Ok(Attempt {
                    to: self.address(&expected.to, *way)?,
                    port: expected.port,
                    protocol: expected.protocol,
                    is_expected: expected.allowed,
                })
            });
            let thread = attempt(&self.pod(sender)?.netns, attempts.collect::<Result<_>>()?)?;
            running.push((of_sender, thread));
        }
        let mut found = Vec::new();
        for (expected, thread) in running {
            let answers = thread
                .join()
                .map_err(|_| anyhow::anyhow!("a thread panicked"))??;
            found.extend(expected.into_iter().zip(answers));
        }
        Ok(found)
    }
}

/// The ports of a pod that this kernel can serve: those that it declares, and those that are tried.
fn ports_of(pod: &cases::Pod, cases: &[Case]) -> Vec<(u16, Protocol)> {
    let declared = pod.ports.iter().map(|port| (port.port, port.protocol));
    let key = pod.key();
    let steps = cases.iter().flat_map(|case| &case.steps);
    let tried = steps
        .flat_map(Step::judged)
        .filter(|expected| expected.to == key)
        .map(|expected| (expected.port, expected.protocol));
    let ports: BTreeSet<_> = declared.chain(tried).collect();
    ports
        .into_iter()
        .filter(|(_, protocol)| *protocol != Protocol::Sctp)
        .collect()
}

/// Puts the addresses of the pods here in the place of the case's, in every CIDR.
fn translated(policy: &Value, addresses: &BTreeMap<IpAddr, IpAddr>) -> Value {
    match policy {
        Value::String(text) => json!(translated_cidr(text, addresses)),
        Value::Array(items) => items
            .iter()
            .map(|item| translated(item, addresses))
            .collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.clone(), translated(value, addresses)))
            .collect(),
        other => other.clone(),
    }
}

/// Wide blocks hold the addresses of the case as well as those here.
fn translated_cidr(text: &str, addresses: &BTreeMap<IpAddr, IpAddr>) -> String {
    let Ok(block) = text.parse::<ipnet::IpNet>() else {
        return text.to_owned();
    };
    match addresses.get(&block.addr()) {
        Some(real) if block.prefix_len() == block.max_prefix_len() => {
            format!("{real}/{}", block.prefix_len())
        }
        _ => text.to_owned(),
    }
}
