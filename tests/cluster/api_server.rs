//! The API server that a test's node reads: a standalone `vswitchd`, or a real kube-apiserver with
//! its etcd where `KUBEBUILDER_ASSETS` names the folder that has them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::TempDir;
use vswitch_tests::{Daemon, DaemonOptions, Namespace, run, tool};

/// Its address on the link to the node, and the token that the node has.
const ADDRESS: &str = "192.0.2.1";
const TOKEN: &str = "c2VjcmV0LW9mLXRoZS10ZXN0";

/// The API server; ends with its value.
pub(crate) enum ApiServer {
    Standalone(Box<Daemon>),
    Kubernetes(Box<Kubernetes>),
}

impl ApiServer {
    /// Starts it, and says which one it is.
    pub(crate) fn start() -> Result<Self> {
        if let Some(folder) = std::env::var_os("KUBEBUILDER_ASSETS") {
            let kubernetes = Kubernetes::start(PathBuf::from(folder))?;
            eprintln!("API server: {}", kubernetes.version()?);
            return Ok(Self::Kubernetes(Box::new(kubernetes)));
        }
        eprintln!("API server: vswitchd (standalone)");
        let mut daemon = Daemon::prepare(&DaemonOptions::default())?;
        let token_file = daemon.folder().join("token");
        std::fs::write(&token_file, TOKEN)?;
        daemon.set("node_name", "hub");
        daemon.set("api.tcp_listen", "0.0.0.0:6443");
        daemon.set("api.allow_plaintext", "true");
        daemon.set("api.token_file", &token_file.display().to_string());
        daemon.spawn()?;
        Ok(Self::Standalone(Box::new(daemon)))
    }

    fn namespace(&self) -> &Namespace {
        match self {
            Self::Standalone(daemon) => daemon.node(),
            Self::Kubernetes(kubernetes) => &kubernetes.namespace,
        }
    }

    /// Connects a node's namespace to it, and writes the node's kubeconfig.
    pub(crate) fn connect(&self, node: &Namespace, folder: &Path) -> Result<PathBuf> {
        let far = self.namespace();
        if let Self::Standalone(_) = self {
            node.connect(
                "up0",
                "192.0.2.2/24",
                far,
                "down0",
                &format!("{ADDRESS}/24"),
            )?;
        } else {
            // The server listens on the address already.
            let veth = [
                "link", "add", "up0", "type", "veth", "peer", "name", "down0", "netns",
            ];
            node.ip(&[&veth[..], &[far.name()]].concat())?;
            far.ip(&["link", "set", "down0", "master", "br0", "up"])?;
            node.ip(&["address", "add", "192.0.2.2/24", "dev", "up0"])?;
            node.ip(&["link", "set", "up0", "up"])?;
        }
        let path = folder.join("kubeconfig");
        std::fs::write(&path, self.kubeconfig())?;
        Ok(path)
    }

    fn kubeconfig(&self) -> String {
        let cluster = match self {
            Self::Standalone(_) => json!({"server": format!("http://{ADDRESS}:6443")}),
            Self::Kubernetes(kubernetes) => kubernetes.cluster(),
        };
        kubeconfig(&cluster)
    }

    /// Runs what vsctl and kubectl have in common.
    pub(crate) fn run(&self, arguments: &[&str], input: &str) -> Result<String> {
        match self {
            Self::Standalone(daemon) => daemon.vsctl_input(arguments, input),
            Self::Kubernetes(kubernetes) => kubernetes.kubectl(arguments, input),
        }
    }

    pub(crate) fn apply(&self, manifest: &str) -> Result<()> {
        self.run(&["apply", "-f", "-"], manifest).map(drop)
    }

    /// Returns an object.
    pub(crate) fn get(&self, kind: &str, name: &str) -> Result<serde_json::Value> {
        let text = self.run(&["get", kind, name, "-o", "json"], "")?;
        serde_json::from_str(&text).with_context(|| text.clone())
    }

    /// Does what a kubelet does when the pod has its network.
    pub(crate) fn set_pod_ip(&self, name: &str, ip: std::net::IpAddr) -> Result<()> {
        let status = json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]});
        let patch = json!({ "status": status }).to_string();
        match self {
            Self::Standalone(daemon) => {
                let mut curl = Command::new("curl");
                curl.args(["-sSf", "-X", "PATCH", "--unix-socket"])
                    .arg(daemon.socket());
                curl.args([
                    "-H",
                    "content-type: application/merge-patch+json",
                    "-d",
                    &patch,
                ]);
                curl.arg(format!(
                    "http://x/api/v1/namespaces/default/pods/{name}/status"
                ));
                run(&mut curl, "")?.success().map(drop)
            }
            Self::Kubernetes(kubernetes) => {
                let how = ["--subresource=status", "--type=merge", "-p", &patch];
                let arguments = [&["patch", "pod", name][..], &how].concat();
                kubernetes.kubectl(&arguments, "").map(drop)
            }
        }
    }

    /// Ends the process without a warning.
    pub(crate) fn kill(&mut self) -> Result<()> {
        match self {
            Self::Standalone(daemon) => daemon.stop(Signal::SIGKILL).map(drop),
            Self::Kubernetes(kubernetes) => kubernetes.kill_server(),
        }
    }

    /// Starts it again with the objects that it had.
    pub(crate) fn revive(&mut self) -> Result<()> {
        match self {
            Self::Standalone(daemon) => daemon.spawn(),
            Self::Kubernetes(kubernetes) => kubernetes.start_server(),
        }
    }
}

fn kubeconfig(cluster: &serde_json::Value) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": cluster}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "node"}}],
        "users": [{"name": "node", "user": {"token": TOKEN}}],
    })
    .to_string()
}

/// etcd and kube-apiserver in a namespace of their own.
pub(crate) struct Kubernetes {
    assets: PathBuf,
    namespace: Namespace,
    folder: TempDir,
    etcd: Child,
    server: Option<Child>,
}

impl Kubernetes {
    fn start(assets: PathBuf) -> Result<Self> {
        let namespace = Namespace::new("apiserver")?;
        // The address has to be there before a node is connected.
        namespace.ip(&["link", "add", "br0", "type", "bridge"])?;
        namespace.ip(&["address", "add", &format!("{ADDRESS}/24"), "dev", "br0"])?;
        namespace.ip(&["link", "set", "br0", "up"])?;
        let folder = tempfile::tempdir()?;
        let key = folder.path().join("sa.key");
        let openssl = [
            "genpkey",
            "-algorithm",
            "RSA",
            "-pkeyopt",
            "rsa_keygen_bits:2048",
            "-out",
        ];
        run(Command::new("openssl").args(openssl).arg(&key), "")?.success()?;
        let tokens = format!("{TOKEN},node,1,\"system:masters\"\n");
        std::fs::write(folder.path().join("tokens.csv"), tokens)?;
        let etcd = namespace
            .command(assets.join("etcd"))
            .arg("--data-dir")
            .arg(folder.path().join("etcd"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("etcd.log"))?)
            .spawn()
            .context("start etcd")?;
        let mut kubernetes = Self {
            assets,
            namespace,
            folder,
            etcd,
            server: None,
        };
        kubernetes.start_server()?;
        Ok(kubernetes)
    }

    fn start_server(&mut self) -> Result<()> {
        let folder = self.folder.path();
        let at = |name: &str| folder.join(name).display().to_string();
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(at("server.log"))?;
        let server = self
            .namespace
            .command(self.assets.join("kube-apiserver"))
            .args(["--etcd-servers=http://127.0.0.1:2379", "--secure-port=6443"])
            .arg(format!("--bind-address={ADDRESS}"))
            .arg(format!("--advertise-address={ADDRESS}"))
            .arg(format!("--cert-dir={}", at("certs")))
            .arg(format!("--token-auth-file={}", at("tokens.csv")))
            .args([
                "--authorization-mode=RBAC",
                "--service-cluster-ip-range=10.96.0.0/16",
            ])
            .args(["--disable-admission-plugins=ServiceAccount"])
            .arg("--service-account-issuer=https://kubernetes.default.svc")
            .arg(format!(
                "--service-account-signing-key-file={}",
                at("sa.key")
            ))
            .arg(format!("--service-account-key-file={}", at("sa.key")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("start kube-apiserver")?;
        self.server = Some(server);
        // Certificates and the first tables of etcd take longer than other waits.
        for attempt in 0.. {
            match self.kubectl(&["get", "namespace", "default"], "") {
                Ok(_) => break,
                Err(error) if attempt == 60 => return Err(error.context("kube-apiserver answers")),
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(500)),
            }
        }
        Ok(())
    }

    fn kill_server(&mut self) -> Result<()> {
        let mut server = self.server.take().context("kube-apiserver runs")?;
        server.kill()?;
        server.wait()?;
        Ok(())
    }

    fn version(&self) -> Result<String> {
        let server = self.assets.join("kube-apiserver");
        let version = run(Command::new(server).arg("--version"), "")?.success()?;
        Ok(format!("kube-apiserver, {}", version.trim()))
    }

    fn cluster(&self) -> serde_json::Value {
        // The certificate that it makes for itself is its own authority.
        let authority = self.folder.path().join("certs/apiserver.crt");
        json!({"server": format!("https://{ADDRESS}:6443"), "certificate-authority": authority})
    }

    fn kubectl(&self, arguments: &[&str], input: &str) -> Result<String> {
        let path = self.folder.path().join("kubeconfig");
        std::fs::write(&path, kubeconfig(&self.cluster()))?;
        let mut command = self.namespace.command("timeout");
        command
            .arg("30")
            .arg(tool("kubectl-1.35"))
            .arg("--kubeconfig")
            .arg(path)
            .args(arguments);
        if arguments.first() == Some(&"delete") {
            // No kubelet is there to end what a pod runs.
            command.args(["--force", "--grace-period=0"]);
        }
        command.env("HOME", self.folder.path());
        run(&mut command, input)?.success()
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        for child in self.server.iter_mut().chain([&mut self.etcd]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits until the node says this about what it hears. Longer than for other things: the pauses of
/// its watchers have grown to seconds while the API server was away.
pub(crate) fn wait_for_state(node: &Daemon, state: &str) {
    let mut status = serde_json::Value::Null;
    for _ in 0..120 {
        status = node.vsctl_json(&["status"]).unwrap();
        if status["cluster"]["state"] == state {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    panic!("the node is not {state}: {status}");
}
