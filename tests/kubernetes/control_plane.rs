//! A control plane on a machine of its own: etcd, API server, controller-manager, scheduler, and a
//! registry of images.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use vswitch_tests::{ApiServer, Namespace, Output, plug, run, underlay};

use crate::wait::within;

/// Place on the underlay: 192.0.2.100.
const PLACE: usize = 99;
const ADDRESS: &str = "192.0.2.100";
/// Where images come from.
pub(crate) const REGISTRY: &str = "192.0.2.100:5000";

/// The control plane; ends with its value.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    programs: Vec<Child>,
    api: ApiServer,
    assets: PathBuf,
    /// Logs, and what the registry holds.
    folder: TempDir,
    pub(crate) underlay: Namespace,
}

impl ControlPlane {
    /// Starts everything, with the programs in the folder `assets`.
    pub(crate) fn start(assets: &Path) -> Result<Self> {
        let underlay = underlay()?;
        let machine = Namespace::new("control")?;
        plug(&underlay, &machine, PLACE)?;
        let api = ApiServer::kubernetes_in(machine, ADDRESS, assets.to_owned())?;
        let prefix = format!("vswitch-test-{}-", std::process::id());
        let mut control = Self {
            programs: Vec::new(),
            api,
            assets: assets.to_owned(),
            folder: tempfile::Builder::new().prefix(&prefix).tempdir()?,
            underlay,
        };
        let kubeconfig = format!("--kubeconfig={}", control.kubeconfig());
        let key = control.api.account_key().context("a key of accounts")?;
        let manager = [
            kubeconfig.clone(),
            format!("--service-account-private-key-file={}", key.display()),
            format!("--root-ca-file={}", control.api.authority().display()),
            "--allocate-node-cidrs=true".to_owned(),
            "--cluster-cidr=10.244.0.0/16".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            "--leader-elect=false".to_owned(),
        ];
        control.spawn("kube-controller-manager", &manager)?;
        let scheduler = [kubeconfig, "--leader-elect=false".to_owned()];
        control.spawn("kube-scheduler", &scheduler)?;
        control.start_registry()?;
        Ok(control)
    }

    fn spawn(&mut self, name: &str, arguments: &[String]) -> Result<()> {
        let program = self.assets.join(name);
        let program = if program.exists() {
            program
        } else {
            PathBuf::from(name)
        };
        let log = self.folder.path().join(format!("{name}.log"));
        let child = self
            .api
            .machine()
            .command(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(log)?)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        self.programs.push(child);
        Ok(())
    }

    fn start_registry(&mut self) -> Result<()> {
        let root = self.folder.path().join("registry");
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: {REGISTRY}}}\n",
            root.display()
        );
        let file = self.folder.path().join("registry.yml");
        std::fs::write(&file, config)?;
        let arguments = ["serve".to_owned(), file.display().to_string()];
        self.spawn("docker-registry", &arguments)
    }

    /// Puts an image of this machine's podman into the registry.
    pub(crate) fn publish(&self, image: &str, name: &str) -> Result<()> {
        let to = format!("docker://{REGISTRY}/{name}");
        within(30, "the registry takes an image", || {
            let mut podman = self.api.machine().command("podman");
            podman.args(["push", "--quiet", "--tls-verify=false", image, &to]);
            run(&mut podman, "")?.success()
        })
        .map(drop)
    }

    /// Returns the administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> String {
        self.api.kubeconfig().display().to_string()
    }

    /// Writes a kubeconfig for another user; returns its path.
    pub(crate) fn kubeconfig_of(&self, user: &Value) -> Result<String> {
        let path = self.folder.path().join("user.kubeconfig");
        let config = vswitch_tests::kubeconfig(&self.api.url(), &self.api.authority(), user);
        std::fs::write(&path, config)?;
        Ok(path.display().to_string())
    }

    /// Returns the path of one of Kubernetes' programs.
    pub(crate) fn program(&self, name: &str) -> String {
        self.assets.join(name).display().to_string()
    }

    /// Returns a command of the control plane's machine whose kubectl is that of the release.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = self.api.machine().command("timeout");
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .args(["180", program])
            .env("PATH", format!("{}:{path}", self.assets.display()))
            .env("HOME", self.folder.path())
            .env("KUBECONFIG", self.api.kubeconfig());
        command
    }

    /// Runs kubectl as the administrator, whatever comes of it.
    pub(crate) fn try_kubectl(&self, arguments: &[&str]) -> Result<Output> {
        run(self.command("kubectl").args(arguments), "")
    }

    /// Runs kubectl as the administrator.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.try_kubectl(arguments)?
            .success()
            .with_context(|| format!("kubectl {}", arguments.join(" ")))
    }

    /// Applies a manifest that is no file.
    pub(crate) fn apply(&self, manifest: &str) -> Result<()> {
        let mut kubectl = self.command("kubectl");
        // Its fields may be newer than the API server.
        kubectl.args(["apply", "--validate=false", "-f", "-"]);
        run(&mut kubectl, manifest)?.success().map(drop)
    }

    /// Returns an object.
    pub(crate) fn get(&self, arguments: &[&str]) -> Result<Value> {
        let json = self.kubectl(&[&["get", "-o", "json"][..], arguments].concat())?;
        Ok(serde_json::from_str(&json)?)
    }

    /// Waits until a node has a state: `Ready` or not.
    pub(crate) fn wait_for_node(&self, node: &str, is_ready: bool) -> Result<()> {
        let wanted = if is_ready { "True" } else { "False" };
        within(90, &format!("Ready of {node} is {wanted}"), || {
            let node = self.get(&["node", node])?;
            let conditions = node["status"]["conditions"].as_array();
            let mut conditions = conditions.into_iter().flatten();
            let ready = conditions.find(|one| one["type"] == "Ready");
            let status = ready.map(|ready| ready["status"].clone());
            ensure!(status == Some(Value::from(wanted)), "{ready:?}");
            Ok(())
        })
    }

    /// Ends the API server without a warning; what it has stored stays.
    pub(crate) fn kill_api_server(&mut self) -> Result<()> {
        self.api.kill()
    }

    /// Starts it again.
    pub(crate) fn revive_api_server(&mut self) -> Result<()> {
        self.api.revive()
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        for program in &mut self.programs {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}
