//! podman with its CNI backend as a real container runtime, over a folder with busybox.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::json;
use tempfile::TempDir;
use vswitch_tests::{Daemon, DaemonOptions, binary, eventually, fetch, run};

use crate::podman::files::write_executable;
use crate::{assert_nothing_is_left, links};

/// podman with storage, networks and configuration of its own.
struct Podman {
    folder: TempDir,
}

impl Podman {
    fn new(daemon: &Daemon) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("vswitch-podman-")
            .tempdir()?;
        let podman = Self { folder };
        let root = podman.path("rootfs");
        for sub in ["bin", "proc", "sys", "dev", "tmp", "etc", "www"] {
            std::fs::create_dir_all(root.join(sub))?;
        }
        std::fs::copy("/bin/busybox", root.join("bin/busybox"))?;
        for applet in ["sh", "sleep", "httpd", "nc"] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet))?;
        }
        std::fs::write(root.join("www/index.html"), "from podman")?;
        podman.write_network(daemon)?;
        podman.write_containers_conf()?;
        Ok(podman)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_network(&self, daemon: &Daemon) -> Result<()> {
        std::fs::create_dir_all(self.path("net.d"))?;
        std::fs::create_dir_all(self.path("plugins"))?;
        write_executable(&binary("vswitch-cni"), &self.path("plugins/vswitch-cni"))?;
        let list = json!({"cniVersion": "1.0.0", "name": "vswitch-test", "plugins": [
            {"type": "vswitch-cni", "socket": daemon.socket(),
             "capabilities": {"portMappings": true}}]});
        std::fs::write(self.path("net.d/10-vswitch.conflist"), list.to_string())?;
        Ok(())
    }

    fn write_containers_conf(&self) -> Result<()> {
        let text = format!(
            "[network]\nnetwork_backend = \"cni\"\nnetwork_config_dir = {:?}\n\
             cni_plugin_dirs = [{:?}, \"/usr/lib/cni\"]\n\
             [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n",
            self.path("net.d"),
            self.path("plugins"),
        );
        std::fs::write(self.path("containers.conf"), text)?;
        Ok(())
    }

    fn podman(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("timeout");
        command
            .args([
                "60",
                "podman",
                "--runtime",
                "runc",
                "--cgroup-manager",
                "cgroupfs",
            ])
            .arg("--root")
            .arg(self.path("storage"))
            .arg("--runroot")
            .arg(self.path("runroot"))
            .arg("--tmpdir")
            .arg(self.path("tmp"))
            .args(arguments)
            .env("CONTAINERS_CONF", self.path("containers.conf"));
        run(&mut command, "")?.success()
    }

    /// Starts a container that lives until it is removed.
    fn start(&self, name: &str, options: &[&str], program: &[&str]) -> Result<String> {
        let root = self.path("rootfs");
        let root = root.to_string_lossy();
        let mut arguments = vec![
            "run",
            "-d",
            "--name",
            name,
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=1024:1024",
            "--network",
            "vswitch-test",
        ];
        arguments.extend(options);
        arguments.extend(["--rootfs", &root]);
        arguments.extend(program);
        self.podman(&arguments)
    }

    /// Fetches a page with what busybox has that works without any library; fails if no
    /// connection comes about within two seconds.
    fn fetch(&self, from: &str, address: &str) -> Result<String> {
        let script = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | /bin/nc -w 2 {address} 80");
        let answer = self.podman(&["exec", from, "/bin/sh", "-c", &script])?;
        let (_, page) = answer.split_once("\r\n\r\n").context("an HTTP answer")?;
        Ok(page.to_owned())
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.podman(&["rm", "-f", "-t", "0", "--all"]);
    }
}

mod files {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    /// Copies a program and makes it executable.
    pub(super) fn write_executable(from: &Path, to: &Path) -> std::io::Result<()> {
        std::fs::copy(from, to)?;
        std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o755))
    }
}

#[test]
fn two_podman_containers_talk_stand_under_policy_and_leave_nothing_behind() {
    let daemon = Daemon::start(&DaemonOptions::default()).unwrap();
    let before = links(&daemon);
    let podman = Podman::new(&daemon).unwrap();
    podman
        .start(
            "server",
            &[],
            &["/bin/httpd", "-f", "-p", "80", "-h", "/www"],
        )
        .unwrap();
    podman.start("client", &[], &["/bin/sleep", "600"]).unwrap();

    let pods = daemon.vsctl_json(&["get", "pods"]).unwrap();
    let names: Vec<_> = pods["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pod| pod["metadata"]["name"].clone())
        .collect();
    assert_eq!(
        names,
        ["client", "server"],
        "podman's container names are the pods' names"
    );
    let server = daemon.vsctl_json(&["get", "pod", "server"]).unwrap();
    let address = server["status"]["podIP"].as_str().unwrap().to_owned();
    assert_eq!(podman.fetch("client", &address).unwrap(), "from podman");

    daemon
        .vsctl(&["label", "pod", "server", "app=secure-pod"])
        .unwrap();
    daemon
        .apply(include_str!("../../config/samples/secure-pod.yaml"))
        .unwrap();
    podman.fetch("client", &address).unwrap_err();
    daemon
        .vsctl(&["label", "pod", "client", "allow-access=true"])
        .unwrap();
    assert_eq!(podman.fetch("client", &address).unwrap(), "from podman");

    podman
        .podman(&["rm", "-f", "-t", "0", "client", "server"])
        .unwrap();
    assert_nothing_is_left(&daemon, &before);
    let ports = daemon.vsctl_json(&["show"]).unwrap();
    assert_eq!(
        ports.as_array().unwrap().len(),
        1,
        "only the gateway port is left: {ports}"
    );
}

#[test]
fn a_published_port_answers_on_the_nodes_addresses_until_the_container_is_gone() {
    let daemon = Daemon::start(&DaemonOptions::default()).unwrap();
    let podman = Podman::new(&daemon).unwrap();
    let web = ["/bin/httpd", "-f", "-p", "80", "-h", "/www"];
    podman.start("web", &["-p", "18080:80"], &web).unwrap();
    let fetch = |address: &str| fetch(daemon.node(), address.parse().unwrap(), 18080);
    for address in ["127.0.0.1", "10.244.0.1"] {
        let page = eventually("the published port answers", || fetch(address));
        assert_eq!(page, "from podman");
    }
    podman.podman(&["rm", "-f", "-t", "0", "web"]).unwrap();
    eventually("the published port is closed", || {
        fetch("127.0.0.1").map_or(Ok(()), Err)
    });
}
