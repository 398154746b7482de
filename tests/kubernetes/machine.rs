//! A machine of the cluster: namespaces of its own for processes, mounts and network, and a disk
//! that outlives its power.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tempfile::TempDir;
use vswitch_tests::{Namespace, Output, plug, run};

use crate::wait::within;

const INIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/kubernetes/machine.sh");

/// A machine, which is on or off.
#[derive(Debug)]
pub(crate) struct Machine {
    name: String,
    place: usize,
    disk: TempDir,
    power: Option<Power>,
}

/// What goes when the power does.
#[derive(Debug)]
struct Power {
    _network: Namespace,
    /// unshare(1), whose end is that of process 1.
    unshare: Child,
    /// Process 1, as this process sees it.
    init: String,
    programs: Vec<Child>,
}

impl Machine {
    /// Makes a machine that is off; its disk is empty.
    pub(crate) fn new(name: &str, place: usize) -> Result<Self> {
        // The process id tells `run.sh` whose it was.
        let prefix = format!("vswitch-test-{}-", std::process::id());
        Ok(Self {
            name: name.to_owned(),
            place,
            disk: tempfile::Builder::new().prefix(&prefix).tempdir()?,
            power: None,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns its address on the underlay.
    pub(crate) fn address(&self) -> String {
        format!("192.0.2.{}", self.place + 1)
    }

    /// Switches it on; it runs nothing yet.
    pub(crate) fn boot(&mut self, underlay: &Namespace) -> Result<()> {
        ensure!(self.power.is_none(), "{} is on", self.name);
        let network = Namespace::new(&self.name)?;
        plug(underlay, &network, self.place)?;
        let unshare = network
            .command("unshare")
            .args(["--mount", "--propagation", "private"])
            .args(["--pid", "--fork", "--kill-child", INIT])
            .arg(self.disk.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(self.log("init"))?)
            .spawn()
            .context("start unshare")?;
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let init = within(10, "process 1 runs", || {
            let children = std::fs::read_to_string(&children)?;
            let child = children.split_whitespace().next().map(str::to_owned);
            child.context("unshare has no child")
        })?;
        self.power = Some(Power {
            _network: network,
            unshare,
            init,
            programs: Vec::new(),
        });
        within(20, "the machine is up", || {
            self.run(&["test", "-e", "/run/is-up"])?
                .success()
                .with_context(|| self.text_of_log("init"))
        })
        .map(drop)
    }

    /// Cuts the power: every process ends at once, what is not on the disk is gone.
    pub(crate) fn cut_power(&mut self) {
        if let Some(mut power) = self.power.take() {
            let _ = power.unshare.kill();
            let _ = power.unshare.wait();
            for mut program in power.programs {
                let _ = program.wait();
            }
        }
    }

    fn power(&self) -> Result<&Power> {
        let name = &self.name;
        self.power
            .as_ref()
            .with_context(|| format!("{name} is off"))
    }

    /// Returns a command that will run on the machine.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let mut command = Command::new("nsenter");
        command
            .arg("--target")
            .arg(&self.power()?.init)
            .args(["--mount", "--pid", "--net", "--"])
            .arg(program);
        Ok(command)
    }

    /// Runs a program on the machine, for at most two minutes.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<Output> {
        run(self.command("timeout")?.arg("120").args(arguments), "")
    }

    /// Starts a program that goes on running.
    fn start(&mut self, name: &str, mut command: Command) -> Result<()> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log(name))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let power = self.power.as_mut().context("it is on")?;
        power.programs.push(child);
        Ok(())
    }

    fn log(&self, name: &str) -> PathBuf {
        self.disk.path().join(format!("{name}.log"))
    }

    /// Returns the end of what a program logged.
    pub(crate) fn text_of_log(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.log(name)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(30);
        format!("{name} on {}:\n{}", self.name, lines[from..].join("\n"))
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.disk.path().join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// Starts containerd and waits for it; images come from a registry.
    pub(crate) fn start_containerd(&mut self, registry: &str) -> Result<()> {
        let root = self.disk.path().join("containerd");
        let config = self.write("containerd.toml", &containerd_config(&root, registry))?;
        let mut command = self.command("containerd")?;
        command.arg("--config").arg(config);
        self.start("containerd", command)?;
        within(30, "containerd answers", || {
            self.run(&["ctr", "version"])?
                .success()
                .with_context(|| self.text_of_log("containerd"))
        })
        .map(drop)
    }

    /// Imports an image from an archive of the host under a name of the runtime's.
    pub(crate) fn import(&self, archive: &str, from: &str, name: &str) -> Result<()> {
        let ctr = ["ctr", "--namespace", "k8s.io", "images"];
        let import = ["import", "--snapshotter", "native", archive];
        self.run(&[&ctr[..], &import].concat())?.success()?;
        let tag = ["tag", "--force", from, name];
        self.run(&[&ctr[..], &tag].concat())?.success().map(drop)
    }

    /// Starts the kubelet.
    pub(crate) fn start_kubelet(&mut self, kubelet: &str, kubeconfig: &str) -> Result<()> {
        // QoS cgroups and reservations are about shares of a real machine.
        let config = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs", "cgroupsPerQOS": false, "enforceNodeAllocatable": [],
            "failSwapOn": false, "readOnlyPort": 0, "oomScoreAdj": 0,
            "evictionHard": {"memory.available": "50Mi"},
            "nodeStatusUpdateFrequency": "2s",
        });
        let config = self.write("kubelet.json", &config.to_string())?;
        let mut command = self.command(kubelet)?;
        command
            .arg("--config")
            .arg(config)
            .arg(format!("--kubeconfig={kubeconfig}"))
            .arg("--container-runtime=remote")
            .arg("--container-runtime-endpoint=unix:///run/containerd/containerd.sock")
            .arg(format!("--hostname-override={}", self.name))
            .arg(format!("--node-ip={}", self.address()));
        self.start("kubelet", command)
    }

    /// Starts the daemon as a process of the machine.
    pub(crate) fn start_daemon(&mut self, config: &str) -> Result<()> {
        let config = self.write("vswitchd.toml", config)?;
        let mut command = self.command(vswitch_tests::binary("vswitchd"))?;
        command.arg("--config").arg(config);
        self.start("vswitchd", command)
    }

    /// Ends the daemon that is a process of the machine, as a service manager does.
    pub(crate) fn stop_daemon(&self) -> Result<()> {
        // The machine's processes alone are seen by it.
        self.run(&["busybox", "killall", "vswitchd"])?.success()?;
        within(20, "the daemon has ended", || {
            let is_gone = self.run(&["busybox", "pidof", "vswitchd"])?.code != Some(0);
            ensure!(is_gone, "it runs");
            Ok(())
        })
    }

    /// Runs `vsctl` on the machine.
    pub(crate) fn vsctl(&self, arguments: &[&str]) -> Result<String> {
        let vsctl = vswitch_tests::binary("vsctl").display().to_string();
        self.run(&[&[vsctl.as_str()][..], arguments].concat())?
            .success()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.cut_power();
    }
}

fn containerd_config(root: &std::path::Path, registry: &str) -> String {
    let root = root.display();
    format!(
        r#"version = 2
root = "{root}"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/library/pause:1"
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]
  endpoint = ["http://{registry}"]
"#
    )
}
