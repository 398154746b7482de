//! A pod: a namespace attached to the switch by the real shim.

use std::net::IpAddr;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::{Daemon, Namespace, Output, WebServer, binary, fetch, run, run_in, serve};

/// How a pod is to be attached.
#[derive(Debug, Clone)]
pub struct PodBuilder {
    name: String,
    namespace: String,
    uid: Option<String>,
    cni_version: String,
    config: Value,
}

impl PodBuilder {
    /// Sets the Kubernetes namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }

    /// Sets K8S_POD_UID.
    #[must_use]
    pub fn uid(mut self, uid: &str) -> Self {
        self.uid = Some(uid.to_owned());
        self
    }

    /// Sets the CNI version of the configuration.
    #[must_use]
    pub fn cni_version(mut self, version: &str) -> Self {
        version.clone_into(&mut self.cni_version);
        self
    }

    /// Adds a key to the network configuration.
    #[must_use]
    pub fn config(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    /// Makes the namespace and attaches it.
    ///
    /// # Errors
    /// Fails if ADD does.
    pub fn attach(self, daemon: &Daemon) -> Result<Pod> {
        let mut pod = self.prepare(daemon)?;
        pod.add()?;
        Ok(pod)
    }

    /// Makes the namespace, for [`Pod::add`].
    ///
    /// # Errors
    /// Fails if the namespace cannot be made.
    pub fn prepare(self, daemon: &Daemon) -> Result<Pod> {
        let netns = Namespace::new(&self.name)?;
        let mut config = self.config;
        config["cniVersion"] = json!(self.cni_version);
        config["socket"] = json!(daemon.socket());
        Ok(Pod {
            container_id: format!("{}-container", netns.name()),
            ifname: "eth0".to_owned(),
            netns,
            name: self.name,
            namespace: self.namespace,
            uid: self.uid,
            config,
            addresses: Vec::new(),
            result: Value::Null,
        })
    }
}

/// An attached pod; detached and removed on drop.
#[derive(Debug)]
pub struct Pod {
    /// Its network namespace.
    pub netns: Namespace,
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// CNI_IFNAME.
    pub ifname: String,
    /// Name of the Pod object.
    pub name: String,
    /// Namespace of the Pod object.
    pub namespace: String,
    /// Its addresses, in the order of the CNI result.
    pub addresses: Vec<IpAddr>,
    /// The CNI result of ADD.
    pub result: Value,
    uid: Option<String>,
    config: Value,
}

impl Pod {
    /// Describes a pod named `name` in namespace `default`.
    #[must_use]
    pub fn named(name: &str) -> PodBuilder {
        PodBuilder {
            name: name.to_owned(),
            namespace: "default".to_owned(),
            uid: None,
            cni_version: "1.0.0".to_owned(),
            config: json!({"name": "vswitch", "type": "vswitch-cni"}),
        }
    }

    /// Returns the first address.
    ///
    /// # Panics
    /// Panics if it has none.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        *self
            .addresses
            .first()
            .expect("an attached pod has an address")
    }

    /// Attaches it.
    ///
    /// # Errors
    /// Fails if ADD does.
    pub fn add(&mut self) -> Result<()> {
        (self.result, self.addresses) = (Value::Null, Vec::new());
        let result = self.cni("ADD")?.success().context("CNI ADD")?;
        self.result = serde_json::from_str(&result).with_context(|| format!("ADD: {result}"))?;
        for ip in self.result["ips"].as_array().context("result has ips")? {
            let address = ip["address"].as_str().context("an ip has an address")?;
            let address: ipnet::IpNet = address.parse()?;
            self.addresses.push(address.addr());
        }
        Ok(())
    }

    /// Runs the shim for this pod with another CNI command.
    ///
    /// # Errors
    /// Fails if the shim cannot be started.
    pub fn cni(&self, command: &str) -> Result<Output> {
        let mut config = self.config.clone();
        if matches!(command, "CHECK" | "DEL") && !self.result.is_null() {
            config["prevResult"] = self.result.clone();
        }
        self.cni_with(command, &config)
    }

    /// Runs the shim with this configuration.
    ///
    /// # Errors
    /// Fails if the shim cannot be started.
    pub fn cni_with(&self, command: &str, config: &Value) -> Result<Output> {
        let uid = self.uid.as_ref();
        let uid = uid.map_or_else(String::new, |uid| format!(";K8S_POD_UID={uid}"));
        let mut shim = Command::new(binary("vswitch-cni"));
        shim.env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &self.container_id)
            .env("CNI_NETNS", self.netns.path())
            .env("CNI_IFNAME", &self.ifname)
            .env("CNI_PATH", "/usr/lib/cni")
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env(
                "CNI_ARGS",
                format!(
                    "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={}{uid}",
                    self.namespace, self.name, self.container_id
                ),
            );
        run(&mut shim, &config.to_string())
    }

    /// Runs a program inside.
    ///
    /// # Errors
    /// Fails if it cannot be started.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        run_in(&self.netns, arguments)
    }

    /// Fetches a page; a connection that is not made within two seconds is a failure.
    ///
    /// # Errors
    /// Fails with curl's exit code: 28 is a time-out, 7 a refusal.
    pub fn fetch(&self, server: IpAddr, port: u16) -> Result<String> {
        fetch(&self.netns, server, port)
    }

    /// Returns whether one ICMP echo is answered within two seconds.
    ///
    /// # Errors
    /// Fails if `ping` cannot be started.
    pub fn pings(&self, to: IpAddr) -> Result<bool> {
        Ok(self
            .run(&["ping", "-n", "-c", "1", "-W", "2", &to.to_string()])?
            .code
            == Some(0))
    }

    /// Serves one page, which is the pod's name, on this TCP port.
    ///
    /// # Errors
    /// Fails if the server cannot be started.
    pub fn serve(&self, port: u16) -> Result<WebServer> {
        serve(&self.netns, &self.name, port)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.cni("DEL");
    }
}
