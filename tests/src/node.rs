//! Several nodes, a daemon in each, and a link between them.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::{Daemon, DaemonOptions, Namespace, eventually};

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

/// Nodes that are namespaces on one bridge, each with a standalone daemon.
///
/// Node number `n` (from 0) is called `node-n`, has the underlay addresses 192.0.2.(n+1) and
/// 2001:db8::(n+1), and the pod networks 10.244.n.0/24 and fd00:244:0:n::/64. The bridge has
/// 192.0.2.254 and 2001:db8::254, and plays the world outside.
#[derive(Debug)]
pub struct Cluster {
    // First, so that they end while there is an underlay.
    nodes: Vec<Daemon>,
    underlay: Namespace,
    options: ClusterOptions,
}

impl Cluster {
    /// Starts all nodes and waits until each reaches each.
    ///
    /// # Errors
    /// Fails if a namespace or a daemon cannot be made.
    pub fn start(options: &ClusterOptions) -> Result<Self> {
        let underlay = Namespace::new("underlay")?;
        underlay.ip(&["link", "add", "br0", "type", "bridge"])?;
        underlay.ip(&["link", "set", "br0", "up"])?;
        underlay.ip(&["address", "add", "192.0.2.254/24", "dev", "br0"])?;
        underlay.ip(&["address", "add", "2001:db8::254/64", "dev", "br0", "nodad"])?;
        let mut cluster = Self {
            nodes: Vec::new(),
            underlay,
            options: options.clone(),
        };
        for number in 0..options.nodes {
            let node = cluster.start_node(number, number)?;
            cluster.nodes.push(node);
        }
        cluster.share()?;
        cluster.wait_for_ways();
        Ok(cluster)
    }

    /// Starts the node called `node-number` with addresses and pod networks of number `place`.
    fn start_node(&self, number: usize, place: usize) -> Result<Daemon> {
        let node = Namespace::new(&format!("node{number}"))?;
        self.plug(&node, place)?;
        let mut pod_cidrs = vec![format!("10.244.{place}.0/24")];
        if self.options.dual_stack {
            pod_cidrs.push(format!("fd00:244:0:{place}::/64"));
        }
        let options = DaemonOptions {
            node_name: format!("node-{number}"),
            pod_cidrs,
            extra: format!("backend = {:?}\n", self.options.backend),
            ..DaemonOptions::default()
        };
        Daemon::start_in(node, &options)
    }

    /// Connects a namespace to the bridge by its interface `eth0`.
    ///
    /// # Errors
    /// Fails if a step of `ip` does.
    pub fn plug(&self, node: &Namespace, place: usize) -> Result<()> {
        let port = format!("port{place}");
        self.underlay.ip(&[
            "link",
            "add",
            &port,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            node.name(),
        ])?;
        self.underlay
            .ip(&["link", "set", &port, "master", "br0", "up"])?;
        let v4 = format!("192.0.2.{}/24", place + 1);
        let v6 = format!("2001:db8::{:x}/64", place + 1);
        node.ip(&["address", "add", &v4, "dev", "eth0"])?;
        node.ip(&["address", "add", &v6, "dev", "eth0", "nodad"])?;
        node.ip(&["link", "set", "eth0", "up"])?;
        node.ip(&["route", "add", "default", "via", "192.0.2.254"])?;
        node.ip(&["-6", "route", "add", "default", "via", "2001:db8::254"])?;
        Ok(())
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

    /// Puts another machine in the place of a node: same name, other addresses and networks.
    ///
    /// # Errors
    /// Fails if the new one cannot be made.
    pub fn replace(&mut self, number: usize, place: usize) -> Result<()> {
        let node = self.start_node(number, place)?;
        self.nodes[number] = node;
        self.share()?;
        self.wait_for_ways();
        Ok(())
    }

    /// Applies a manifest on all nodes.
    ///
    /// # Errors
    /// Fails if one of them refuses it.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        self.nodes
            .iter()
            .try_for_each(|node| node.apply(manifest).map(drop))
    }

    /// Runs `vsctl` on all nodes, to change what all of them have.
    ///
    /// # Errors
    /// Fails if it does on one of them.
    pub fn vsctl(&self, arguments: &[&str]) -> Result<()> {
        self.nodes
            .iter()
            .try_for_each(|node| node.vsctl(arguments).map(drop))
    }

    /// Brings to all nodes what each of them says of itself: its Node and the pods on it. The
    /// only place where the nodes learn of each other.
    ///
    /// # Errors
    /// Fails if an API does.
    pub fn share(&self) -> Result<()> {
        for owner in &self.nodes {
            let path = format!("/api/v1/nodes/{}", owner.node_name());
            let node = eventually("a node says where it is", || told(owner, &path));
            let pods = owner.api("GET", "/api/v1/pods", None)?.context("pods")?;
            let pods = pods["items"].as_array().context("a list")?.clone();
            let own = pods
                .iter()
                .filter(|pod| pod["spec"]["nodeName"] == owner.node_name());
            for other in self
                .nodes
                .iter()
                .filter(|one| one.node_name() != owner.node_name())
            {
                copy(other, "/api/v1/nodes", &node)?;
                for pod in own.clone() {
                    let namespace = pod["metadata"]["namespace"].as_str().context("namespace")?;
                    copy(other, &format!("/api/v1/namespaces/{namespace}/pods"), pod)?;
                }
            }
        }
        Ok(())
    }

    /// Waits until each node has a way to each other.
    pub fn wait_for_ways(&self) {
        let families = if self.options.dual_stack { 2 } else { 1 };
        let wanted = (self.nodes.len() - 1) * families;
        for node in &self.nodes {
            eventually("ways to the other nodes", || {
                let status = node.vsctl_json(&["status"])?;
                anyhow::ensure!(
                    status["remote_networks"] == wanted && status["problems"] == json!([]),
                    "{status}"
                );
                Ok(())
            });
        }
    }
}

/// Returns a Node once it has what others need to know.
fn told(owner: &Daemon, path: &str) -> Result<Value> {
    let node = owner.api("GET", path, None)?.context("own Node")?;
    let backend = &node["metadata"]["annotations"]["flannel.alpha.coreos.com/backend-type"];
    let address = &node["status"]["addresses"][0]["address"];
    anyhow::ensure!(backend.is_string() && address.is_string(), "{node}");
    Ok(node)
}

/// Creates or replaces an object, with its status.
fn copy(to: &Daemon, collection: &str, object: &Value) -> Result<()> {
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().context("a name")?;
    let path = format!("{collection}/{name}");
    let body = json!({
        "apiVersion": object["apiVersion"],
        "kind": object["kind"],
        "metadata": {"name": name, "labels": metadata["labels"], "annotations": metadata["annotations"]},
        "spec": object["spec"],
    });
    match to.api("GET", &path, None)? {
        Some(mut present) => {
            for field in ["labels", "annotations"] {
                present["metadata"][field] = metadata[field].clone();
            }
            present["spec"] = object["spec"].clone();
            to.api("PUT", &path, Some(&present))?
        }
        None => to.api("POST", collection, Some(&body))?,
    }
    .context("the object is written")?;
    let status = json!({"status": object["status"]});
    to.api("PATCH", &format!("{path}/status"), Some(&status))?
        .context("the status is written")?;
    Ok(())
}
