//! The shipped network configuration list, run plugin by plugin as a runtime runs it, and one
//! with the plugin portmap, which does without the switch what the switch does itself.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use vswitch_tests::{
    Daemon, DaemonOptions, Iperf, Namespace, binary, eventually, fetch, run, serve,
};

const LIST: &str = include_str!("../../config/10-vswitch.conflist");

/// Host ports by portmap, as other networks have them.
const WITH_PORTMAP: &str = r#"{
    "cniVersion": "1.0.0",
    "name": "vswitch",
    "plugins": [
        {"type": "vswitch-cni"},
        {"type": "portmap", "snat": true, "capabilities": {"portMappings": true}}
    ]
}"#;

/// A container whose network is made by the list.
struct Container<'a> {
    daemon: &'a Daemon,
    netns: Namespace,
    plugins: Vec<Value>,
    capabilities: Value,
}

impl<'a> Container<'a> {
    fn new(daemon: &'a Daemon, list: &str, capabilities: Value) -> Self {
        let list: Value = serde_json::from_str(list).unwrap();
        let mut plugins = list["plugins"].as_array().unwrap().clone();
        for plugin in &mut plugins {
            plugin["name"] = list["name"].clone();
            plugin["cniVersion"] = list["cniVersion"].clone();
        }
        plugins[0]["socket"] = json!(daemon.socket());
        Self {
            daemon,
            netns: Namespace::new("chained").unwrap(),
            plugins,
            capabilities,
        }
    }

    /// Runs one plugin in the node's namespace, with what it is capable of.
    fn run(&self, command: &str, plugin: &Value, prev_result: Option<&Value>) -> Result<String> {
        let mut config = plugin.clone();
        let wanted = plugin["capabilities"].as_object().into_iter().flatten();
        for (name, _) in wanted.filter(|(_, is_wanted)| **is_wanted == json!(true)) {
            config["runtimeConfig"][name] = self.capabilities[name].clone();
        }
        if let Some(prev_result) = prev_result {
            config["prevResult"] = prev_result.clone();
        }
        let name = plugin["type"].as_str().context("a plugin has a type")?;
        let mut process = self.daemon.node().command(program(name));
        process
            .env("CNI_COMMAND", command)
            .env(
                "CNI_CONTAINERID",
                format!("{}-container", self.netns.name()),
            )
            .env("CNI_NETNS", self.netns.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/usr/lib/cni")
            .env("CNI_ARGS", "K8S_POD_NAMESPACE=default;K8S_POD_NAME=chained");
        let output = run(&mut process, &config.to_string())?;
        output
            .success()
            .with_context(|| format!("{command} of {name}"))
    }

    fn add(&self) -> Result<Value> {
        let mut result = None;
        for plugin in &self.plugins {
            let text = self.run("ADD", plugin, result.as_ref())?;
            result = Some(serde_json::from_str(&text)?);
        }
        result.context("the list has plugins")
    }

    /// Not portmap's: up to 1.1 it looks for rules of each address in the tables of both
    /// families, and fails wherever the node has both.
    fn check(&self, result: &Value) -> Result<()> {
        let mut plugins = self.plugins.iter().filter(|p| p["type"] != "portmap");
        plugins.try_for_each(|plugin| self.run("CHECK", plugin, Some(result)).map(drop))
    }

    fn delete(&self, result: &Value) -> Result<()> {
        let mut plugins = self.plugins.iter().rev();
        plugins.try_for_each(|plugin| self.run("DEL", plugin, Some(result)).map(drop))
    }
}

fn program(plugin: &str) -> PathBuf {
    if plugin == "vswitch-cni" {
        binary(plugin)
    } else {
        Path::new("/usr/lib/cni").join(plugin)
    }
}

/// A node with an uplink, a host behind it, and what a container is asked to have.
fn node() -> (Daemon, Namespace, Value) {
    let daemon = Daemon::start(&DaemonOptions::default()).unwrap();
    let outside = Namespace::new("outside").unwrap();
    daemon
        .node()
        .connect("up0", "192.0.2.1/24", &outside, "eth0", "192.0.2.2/24")
        .unwrap();
    let capabilities = json!({
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
        "bandwidth": {"ingressRate": 8_000_000, "ingressBurst": 2_000_000},
    });
    (daemon, outside, capabilities)
}

#[test]
fn host_port_and_bandwidth_of_the_shipped_list_work_and_all_is_gone_after_del() {
    let (daemon, outside, capabilities) = node();
    let node = daemon.node();
    let container = Container::new(&daemon, LIST, capabilities);
    let result = container.add().unwrap();
    let address = result["ips"][0]["address"].as_str().unwrap();
    assert!(
        address.starts_with("10.244.0.") && address.ends_with("/32"),
        "{result}"
    );
    let links = |qdisc: &str| {
        let shown = run(node.command("tc").args(["qdisc", "show"]), "").unwrap();
        shown.success().unwrap().matches(qdisc).count()
    };

    let _web = serve(&container.netns, "behind the port", 80).unwrap();
    let page = eventually("the host port answers", || {
        fetch(&outside, "192.0.2.1".parse().unwrap(), 8080)
    });
    assert_eq!(page, "behind the port");
    assert_eq!(links("qdisc tbf"), 1);
    container.check(&result).unwrap();

    container.delete(&result).unwrap();
    container.delete(&result).unwrap();
    assert_eq!(links("qdisc tbf"), 0);
    eventually("the host port is gone", || {
        match fetch(&outside, "192.0.2.1".parse().unwrap(), 8080) {
            Err(_) => Ok(()),
            Ok(page) => Err(page),
        }
    });
    assert_eq!(daemon.vsctl_json(&["dump-attachments"]).unwrap(), json!([]));
}

#[test]
fn portmap_works_behind_the_switch_and_masquerades_no_other_pod() {
    let (daemon, outside, capabilities) = node();
    let node = daemon.node();
    let container = Container::new(&daemon, WITH_PORTMAP, capabilities);
    let result = container.add().unwrap();
    let _web = serve(&container.netns, "behind the port", 80).unwrap();
    let page = fetch(&outside, "192.0.2.1".parse().unwrap(), 8080).unwrap();
    assert_eq!(page, "behind the port");
    let rules = run(&mut node.command("iptables-save"), "").unwrap();
    let rules = rules.success().unwrap();
    let address = result["ips"][0]["address"].as_str().unwrap();
    assert!(address.ends_with("/32"), "{result}");
    assert!(
        rules.contains(&format!("-s {address} -p tcp")) && !rules.contains("10.244.0.0/24 -p"),
        "only the container itself is masqueraded: {rules}"
    );
    container.check(&result).unwrap();
    container.delete(&result).unwrap();
    fetch(&outside, "192.0.2.1".parse().unwrap(), 8080).unwrap_err();
}

#[test]
fn the_chained_plugin_shapes_what_the_container_receives() {
    let daemon = Daemon::start(&DaemonOptions::default()).unwrap();
    let bandwidth = json!({"ingressRate": 8_000_000, "ingressBurst": 800_000});
    let container = Container::new(
        &daemon,
        LIST,
        json!({"portMappings": [], "bandwidth": bandwidth}),
    );
    let result = container.add().unwrap();
    let address = result["ips"][0]["address"].as_str().unwrap();
    let address = address.split('/').next().unwrap();
    let iperf = Iperf::serve(&container.netns).unwrap();
    let rate = iperf
        .megabits(daemon.node(), address.parse().unwrap())
        .unwrap();
    assert!(
        rate.at_most >= 6.8 && rate.at_least <= 8.4,
        "{rate:?} of 8 Mbit/s"
    );
}
