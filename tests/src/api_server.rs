//! The API server that nodes of a test read: a hub, or a real kube-apiserver where
//! `KUBEBUILDER_ASSETS` names the folder that has it and its etcd.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http::request;
use crate::hub::kubeconfig;
use crate::kubernetes::{self, Kubernetes};
use crate::{CustomResource, Daemon, DaemonOptions, Hub, Namespace, Pod, binary, run, tool};

/// The API server; ends with its value.
#[derive(Debug)]
pub struct ApiServer {
    server: Server,
    /// Where kubectl keeps its configuration and what it discovered.
    home: TempDir,
}

#[derive(Debug)]
enum Server {
    Hub(Box<Hub>),
    Kubernetes(Box<Kubernetes>),
}

impl ApiServer {
    /// Starts it in a namespace that has this address; `hub` is for the daemon, if it is one.
    ///
    /// # Errors
    /// Fails if it cannot be started.
    pub fn start_in(machine: Namespace, address: &str, hub: &DaemonOptions) -> Result<Self> {
        let server = match std::env::var_os("KUBEBUILDER_ASSETS") {
            Some(assets) => {
                let kubernetes = Kubernetes::start_in(machine, address, assets.into(), false)?;
                eprintln!("API server: {}", kubernetes.version()?);
                Server::Kubernetes(Box::new(kubernetes))
            }
            None => Server::Hub(Box::new(Hub::start_in(machine, address, hub)?)),
        };
        Self::of(server)
    }

    /// Starts the kube-apiserver and the etcd of a folder; pods have service accounts there, which
    /// a controller-manager has to make.
    ///
    /// # Errors
    /// Fails if it cannot be started.
    pub fn kubernetes_in(machine: Namespace, address: &str, assets: PathBuf) -> Result<Self> {
        let kubernetes = Kubernetes::start_in(machine, address, assets, true)?;
        Self::of(Server::Kubernetes(Box::new(kubernetes)))
    }

    fn of(server: Server) -> Result<Self> {
        let prefix = format!("vswitch-test-{}-", std::process::id());
        let home = tempfile::Builder::new().prefix(&prefix).tempdir()?;
        let api = Self { server, home };
        api.wait_until_it_answers()?;
        let user = json!({"token": api.token()});
        let config = kubeconfig(&api.url(), &api.authority(), &user);
        std::fs::write(api.kubeconfig(), config)?;
        Ok(api)
    }

    /// A kube-apiserver takes longer than other waits: certificates, the first tables of etcd.
    fn wait_until_it_answers(&self) -> Result<()> {
        for _ in 0..60 {
            let answer = self.request("GET", "/api/v1/namespaces/default", None);
            if let Ok(Some(_)) = answer {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(500));
        }
        bail!("{} does not answer", self.url())
    }

    /// Returns where it runs.
    #[must_use]
    pub fn machine(&self) -> &Namespace {
        match &self.server {
            Server::Hub(hub) => hub.daemon().node(),
            Server::Kubernetes(kubernetes) => kubernetes.machine(),
        }
    }

    fn token(&self) -> &'static str {
        match &self.server {
            Server::Hub(_) => Hub::ADMINISTRATOR,
            Server::Kubernetes(_) => kubernetes::TOKEN,
        }
    }

    /// Returns the key that signs tokens of service accounts; `None` for a hub.
    #[must_use]
    pub fn account_key(&self) -> Option<PathBuf> {
        match &self.server {
            Server::Hub(_) => None,
            Server::Kubernetes(kubernetes) => Some(kubernetes.account_key()),
        }
    }

    /// Returns the certificate of the authority that its own is checked by.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        match &self.server {
            Server::Hub(hub) => hub.authority(),
            Server::Kubernetes(kubernetes) => kubernetes.authority(),
        }
    }

    /// Returns where nodes reach it.
    #[must_use]
    pub fn url(&self) -> String {
        match &self.server {
            Server::Hub(hub) => hub.url().to_owned(),
            Server::Kubernetes(kubernetes) => kubernetes.url(),
        }
    }

    /// Returns the administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.home.path().join("kubeconfig")
    }

    /// Prepares a daemon as a node of the cluster, with a kubeconfig of its own.
    ///
    /// # Errors
    /// Fails if a file cannot be written.
    pub fn enroll(&self, node: &mut Daemon) -> Result<()> {
        let token = match &self.server {
            Server::Hub(hub) => hub.add_member(node.node_name())?,
            Server::Kubernetes(_) => self.token().to_owned(),
        };
        self.enroll_with(node, &token)
    }

    /// Makes a daemon a node of this server that may write whatever it wants to.
    ///
    /// # Errors
    /// Fails if files cannot be written.
    pub fn enroll_as_administrator(&self, node: &mut Daemon) -> Result<()> {
        self.enroll_with(node, self.token())
    }

    fn enroll_with(&self, node: &mut Daemon, token: &str) -> Result<()> {
        let user = json!({ "token": token });
        let config = kubeconfig(&self.url(), &self.authority(), &user);
        let folder = node.folder().to_owned();
        std::fs::write(folder.join("kubeconfig"), config)?;
        let at = |name: &str| folder.join(name).display().to_string();
        node.set("cluster.mode", "cluster");
        node.set("cluster.kubeconfig", &at("kubeconfig"));
        node.set("cluster.cni_conf_dir", &at("net.d"));
        node.set("cluster.cni_bin_dir", &at("bin"));
        let shim = binary("vswitch-cni").display().to_string();
        node.set("cluster.cni_plugin", &shim);
        Ok(())
    }

    /// Runs kubectl as the administrator.
    ///
    /// # Errors
    /// Fails if it exits with another code than 0.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_with(arguments, "")
    }

    fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = self.machine().command("timeout");
        command
            .arg("30")
            .arg(tool("kubectl-1.35"))
            .args(arguments)
            .env("HOME", self.home.path())
            .env("KUBECONFIG", self.kubeconfig());
        if arguments.first() == Some(&"delete") {
            // No kubelet is there to end what a pod runs.
            command.args(["--force", "--grace-period=0"]);
        }
        run(&mut command, input)?
            .success()
            .with_context(|| format!("kubectl {arguments:?}"))
    }

    /// Applies a manifest by kubectl.
    ///
    /// # Errors
    /// Fails if it is refused.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        self.kubectl_with(&["apply", "-f", "-"], manifest).map(drop)
    }

    /// Makes it serve a kind of object; a hub does by itself.
    ///
    /// # Errors
    /// Fails if it does not within half a minute.
    pub fn define(&self, kind: CustomResource) -> Result<()> {
        if let Server::Hub(_) = self.server {
            return Ok(());
        }
        self.apply(&kind.definition().to_string())?;
        let wait = kind.wait();
        let wait: Vec<&str> = wait.iter().map(String::as_str).collect();
        self.kubectl(&wait).map(drop)
    }

    /// Sends a request as the administrator; `None` for a status of 404.
    ///
    /// # Errors
    /// Fails with the answer of any other status that is no success.
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Option<Value>> {
        let mut curl = self.machine().command("curl");
        let token = format!("Authorization: Bearer {}", self.token());
        curl.args(["-H", &token, "--cacert"]).arg(self.authority());
        request(&mut curl, method, &format!("{}{path}", self.url()), body)
    }

    /// Returns an object by its path.
    ///
    /// # Errors
    /// Fails if there is none.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.request("GET", path, None)?.context(path.to_owned())
    }

    /// Does what a kubelet does for a Pod that is bound to this node: attaches it by the shim,
    /// and tells the API server its addresses.
    ///
    /// # Errors
    /// Fails if there is no such Pod, or ADD does.
    pub fn run_pod(&self, node: &Daemon, namespace: &str, name: &str) -> Result<Pod> {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        let object = self.get(&path)?;
        let bound = &object["spec"]["nodeName"];
        ensure!(bound == node.node_name(), "{name} is bound to {bound}");
        let uid = object["metadata"]["uid"].as_str().context("a UID")?;
        let pod = Pod::named(name).namespace(namespace).uid(uid);
        let pod = pod.attach(node)?;
        let ips: Vec<Value> = pod.addresses.iter().map(|ip| json!({"ip": ip})).collect();
        let status = json!({"phase": "Running", "podIP": pod.ip(), "podIPs": ips});
        let patch = json!({ "status": status });
        self.request("PATCH", &format!("{path}/status"), Some(&patch))?;
        Ok(pod)
    }

    /// Ends the process without a warning.
    ///
    /// # Errors
    /// Fails if it is not running.
    pub fn kill(&mut self) -> Result<()> {
        match &mut self.server {
            Server::Hub(hub) => hub.daemon_mut().stop(Signal::SIGKILL).map(drop),
            Server::Kubernetes(kubernetes) => kubernetes.kill_server(),
        }
    }

    /// Starts it again with the objects that it had.
    ///
    /// # Errors
    /// Fails if it cannot be started.
    pub fn revive(&mut self) -> Result<()> {
        match &mut self.server {
            Server::Hub(hub) => hub.daemon_mut().spawn()?,
            Server::Kubernetes(kubernetes) => kubernetes.start_server()?,
        }
        self.wait_until_it_answers()
    }
}

/// Returns the manifest of a Pod that is bound to a node.
#[must_use]
pub fn pod_manifest(node: &str, name: &str, labels: &Value) -> String {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": {"nodeName": node,
            "containers": [{"name": "c", "image": "busybox", "ports": [{"containerPort": 80}]}]}})
    .to_string()
}

/// Waits until a node says this about what it hears. Longer than for other things: the pauses of
/// its watchers have grown to seconds while the API server was away.
///
/// # Panics
/// Panics if it does not in time.
pub fn wait_for_state(node: &Daemon, state: &str) {
    let mut status = Value::Null;
    for _ in 0..120 {
        status = node.vsctl_json(&["status"]).expect("the daemon answers");
        if status["cluster"]["state"] == state {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    panic!("the node is not {state}: {status}");
}
