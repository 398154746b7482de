//! Several nodes in cluster mode, their API server, and a link between them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::{ApiServer, Daemon, DaemonOptions, Namespace, Pod, eventually, pod_manifest};

/// Place of the API server on the link: 192.0.2.100.
const API_SERVER: usize = 99;

/// How the nodes are to be.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// How many nodes.
    pub nodes: usize,
    /// `[network] backend`.
    pub backend: &'static str,
    /// Whether pods have IPv6 as well.
    pub dual_stack: bool,
}

/// Nodes that are namespaces on one bridge, each with a daemon in cluster mode, and an API server
/// in a namespace beside them.
///
/// Node number `n` (from 0) is called `node-n`, has the underlay addresses 192.0.2.(n+1) and
/// 2001:db8::(n+1), and the pod networks 10.244.n.0/24 and fd00:244:0:n::/64. The API server is
/// at 192.0.2.100; a hub is a node itself, with pod networks like that of number 99. The bridge
/// has 192.0.2.254 and 2001:db8::254, and plays the world outside.
#[derive(Debug)]
pub struct Cluster {
    // First, so that they end while there are an API server and an underlay.
    nodes: Vec<Daemon>,
    api: ApiServer,
    underlay: Namespace,
    options: ClusterOptions,
}

impl ClusterOptions {
    fn pod_cidrs(&self, place: usize) -> Vec<String> {
        let mut pod_cidrs = vec![format!("10.244.{place}.0/24")];
        if self.dual_stack {
            pod_cidrs.push(format!("fd00:244:0:{place}::/64"));
        }
        pod_cidrs
    }

    fn daemon(&self, node_name: &str, pod_cidrs: Vec<String>) -> DaemonOptions {
        DaemonOptions {
            node_name: node_name.to_owned(),
            pod_cidrs,
            extra: format!("backend = {:?}\n", self.backend),
            ..DaemonOptions::default()
        }
    }
}

impl Cluster {
    /// Starts all nodes and waits until each reaches each.
    ///
    /// # Errors
    /// Fails if a namespace or a daemon cannot be made.
    pub fn start(options: &ClusterOptions) -> Result<Self> {
        let underlay = underlay()?;
        let machine = Namespace::of_host("hub")?;
        plug(&underlay, &machine, API_SERVER)?;
        let hub = options.daemon("hub", options.pod_cidrs(API_SERVER));
        let api = ApiServer::start_in(machine, "192.0.2.100", &hub)?;
        let mut cluster = Self {
            nodes: Vec::new(),
            api,
            underlay,
            options: options.clone(),
        };
        let manifests = (0..options.nodes).map(|number| cluster.node_manifest(number, number));
        cluster.apply(&manifests.collect::<Vec<_>>().join("\n---\n"))?;
        for number in 0..options.nodes {
            let node = cluster.launch_node(number, number)?;
            cluster.nodes.push(node);
        }
        cluster.nodes.iter().for_each(Daemon::wait_until_ready);
        cluster.wait_for_ways();
        Ok(cluster)
    }

    fn node_manifest(&self, number: usize, place: usize) -> String {
        let pod_cidrs = self.options.pod_cidrs(place);
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("node-{number}")},
            "spec": {"podCIDR": pod_cidrs[0], "podCIDRs": pod_cidrs}})
        .to_string()
    }

    /// Starts the node called `node-number` at a place, without waiting until it is ready.
    fn launch_node(&self, number: usize, place: usize) -> Result<Daemon> {
        let machine = Namespace::of_host(&format!("node{number}"))?;
        self.plug(&machine, place)?;
        let name = format!("node-{number}");
        // Not these networks, but those of the Node object are to be used.
        let elsewhere = vec!["10.9.9.0/24".to_owned()];
        let options = self.options.daemon(&name, elsewhere);
        let mut node = Daemon::prepare_in(machine, &options)?;
        self.api.enroll(&mut node)?;
        node.launch()?;
        Ok(node)
    }

    /// Connects a namespace to the bridge by its interface `eth0`.
    ///
    /// # Errors
    /// Fails if a step of `ip` does.
    pub fn plug(&self, machine: &Namespace, place: usize) -> Result<()> {
        plug(&self.underlay, machine, place)
    }

    /// Returns the API server.
    #[must_use]
    pub fn api(&self) -> &ApiServer {
        &self.api
    }

    /// Returns the API server, to stop and start it.
    pub fn api_mut(&mut self) -> &mut ApiServer {
        &mut self.api
    }

    /// Returns a node's daemon.
    #[must_use]
    pub fn node(&self, number: usize) -> &Daemon {
        &self.nodes[number]
    }

    /// Returns a node's daemon, to stop and start it.
    pub fn node_mut(&mut self, number: usize) -> &mut Daemon {
        &mut self.nodes[number]
    }

    /// Returns the namespace of the bridge, the world outside of the cluster.
    #[must_use]
    pub fn underlay(&self) -> &Namespace {
        &self.underlay
    }

    /// Puts another machine in the place of a node: same name, other addresses and networks, and
    /// a Node object of its own.
    ///
    /// # Errors
    /// Fails if the new one cannot be made.
    pub fn replace(&mut self, number: usize, place: usize) -> Result<()> {
        let old = self.nodes.remove(number);
        self.api.kubectl(&["delete", "node", old.node_name()])?;
        drop(old);
        self.apply(&self.node_manifest(number, place))?;
        let node = self.launch_node(number, place)?;
        node.wait_until_ready();
        self.nodes.insert(number, node);
        self.wait_for_ways();
        Ok(())
    }

    /// Applies a manifest by kubectl.
    ///
    /// # Errors
    /// Fails if it is refused.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        self.api.apply(manifest)
    }

    /// Applies a Pod in the namespace `default` that is bound to a node, and runs it.
    ///
    /// # Errors
    /// Fails if it is refused or cannot be attached.
    pub fn pod(&self, node: usize, name: &str) -> Result<Pod> {
        let node = &self.nodes[node];
        self.apply(&pod_manifest(node.node_name(), name, &json!({})))?;
        self.api.run_pod(node, "default", name)
    }

    /// Waits until each node has a way to each other.
    pub fn wait_for_ways(&self) {
        for node in &self.nodes {
            eventually("ways to the other nodes", || self.has_all_ways(node));
        }
    }

    /// A way to each other Node that the API server has now.
    fn has_all_ways(&self, node: &Daemon) -> Result<()> {
        let path = "/api/v1/nodes";
        let nodes = self.api.get(path)?;
        let heard = node.api("GET", path, None)?.context(path)?;
        ensure!(uids(&nodes) == uids(&heard), "{heard}");
        let others = uids(&nodes).len() - 1;
        let wanted = others * if self.options.dual_stack { 2 } else { 1 };
        let status = node.vsctl_json(&["status"])?;
        let is_without = status["problems"] == json!([]);
        ensure!(
            status["remote_networks"] == wanted && is_without,
            "{status}"
        );
        Ok(())
    }
}

/// UIDs of Nodes by their names.
fn uids(nodes: &Value) -> BTreeMap<&str, &Value> {
    let items = nodes["items"].as_array().into_iter().flatten();
    let metadata = items.map(|node| &node["metadata"]);
    metadata
        .filter_map(|metadata| Some((metadata["name"].as_str()?, &metadata["uid"])))
        .collect()
}

/// Makes a namespace with a bridge that machines are plugged into; see [`Cluster`].
///
/// # Errors
/// Fails if a step of `ip` does.
pub fn underlay() -> Result<Namespace> {
    let underlay = Namespace::new("underlay")?;
    underlay.ip(&["link", "add", "br0", "type", "bridge"])?;
    underlay.ip(&["link", "set", "br0", "up"])?;
    underlay.ip(&["address", "add", "192.0.2.254/24", "dev", "br0"])?;
    underlay.ip(&["address", "add", "2001:db8::254/64", "dev", "br0", "nodad"])?;
    Ok(underlay)
}

/// Connects a namespace to the bridge of an [`underlay`] by its interface `eth0`; a machine at
/// place `n` has the address 192.0.2.(n+1).
///
/// # Errors
/// Fails if a step of `ip` does.
pub fn plug(underlay: &Namespace, machine: &Namespace, place: usize) -> Result<()> {
    let port = format!("port{place}");
    let veth = ["link", "add", &port, "type", "veth"];
    let peer = ["peer", "name", "eth0", "netns", machine.name()];
    underlay.ip(&[&veth[..], &peer].concat())?;
    underlay.ip(&["link", "set", &port, "master", "br0", "up"])?;
    let v4 = format!("192.0.2.{}/24", place + 1);
    let v6 = format!("2001:db8::{:x}/64", place + 1);
    machine.ip(&["address", "add", &v4, "dev", "eth0"])?;
    machine.ip(&["address", "add", &v6, "dev", "eth0", "nodad"])?;
    machine.ip(&["link", "set", "eth0", "up"])?;
    machine.ip(&["route", "add", "default", "via", "192.0.2.254"])?;
    machine.ip(&["-6", "route", "add", "default", "via", "2001:db8::254"])?;
    Ok(())
}
