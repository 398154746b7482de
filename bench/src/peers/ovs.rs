//! Open vSwitch with its userspace datapath, run by hand in a folder and a namespace of its own.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use vswitch_tests::{Namespace, eventually, run, run_in};

use crate::fabric::{PREFIX, Peer};
use crate::kernel::attach;

/// Where Debian's package keeps the schema of the database.
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// Every connection is tracked; replies of committed ones pass, as a stateful policy has it.
const FLOWS: &str = "\
table=0,priority=100,arp,actions=NORMAL
table=0,priority=90,ip,actions=ct(table=1)
table=0,priority=0,actions=drop
table=1,priority=100,ip,ct_state=+trk+est,actions=NORMAL
table=1,priority=100,ip,ct_state=+trk+rel,actions=NORMAL
table=1,priority=90,ip,ct_state=+trk+new,nw_src=10.90.0.0/24,nw_dst=10.90.0.0/24,actions=ct(commit),NORMAL
table=1,priority=0,actions=drop
";

/// How ports are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// AF_PACKET, userspace-tso-enable.
    Tso,
    /// AF_PACKET.
    Plain,
    /// AF_XDP by the main threads: one that polls would take a core from all peers.
    Afxdp,
}

impl Kind {
    pub(crate) const fn of(peer: Peer) -> Self {
        match peer {
            Peer::OvsTso => Self::Tso,
            Peer::OvsAfxdp => Self::Afxdp,
            _ => Self::Plain,
        }
    }
}

/// Its two daemons; ended on drop, before their namespace.
#[derive(Debug)]
pub(crate) struct OpenVSwitch {
    switch: Daemon,
    database: Daemon,
    _node: Namespace,
    folder: TempDir,
}

impl OpenVSwitch {
    /// Starts it and adds every pod to its bridge.
    ///
    /// # Errors
    /// Fails if a step does.
    pub(crate) fn start(kind: Kind, pods: &[Namespace]) -> Result<Self> {
        let node = Namespace::new("ovs")?;
        let prefix = format!("vswitch-test-{}-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir()?;
        let host_ends = attach(&node, pods, PREFIX)?;
        if kind != Kind::Tso {
            // These ports carry frames as on a wire: the pod has to complete its checksums.
            for pod in pods {
                run_in(pod, &["ethtool", "-K", "eth0", "tx", "off"])?.success()?;
            }
        }
        let files = folder.path();
        let (conf, socket) = (files.join("conf.db"), files.join("db.sock"));
        run(
            Command::new("ovsdb-tool")
                .arg("create")
                .args([&conf, Path::new(SCHEMA)]),
            "",
        )?
        .success()?;
        let remote = format!("--remote=punix:{}", socket.display());
        let database = Daemon::start(
            &node,
            files,
            "ovsdb-server",
            &[&conf.display().to_string(), &remote],
        )?;
        eventually("ovsdb-server listens", || {
            ensure!(socket.exists(), "{} is missing", socket.display());
            Ok(())
        });
        let remote = format!("unix:{}", socket.display());
        vsctl(files, &["--no-wait", "init"])?;
        let tso = format!("other_config:userspace-tso-enable={}", kind == Kind::Tso);
        vsctl(files, &["--no-wait", "set", "Open_vSwitch", ".", &tso])?;
        let switch = Daemon::start(&node, files, "ovs-vswitchd", &[&remote])?;
        let this = Self {
            switch,
            database,
            _node: node,
            folder,
        };
        this.add_ports(kind, &host_ends)?;
        this.add_flows()?;
        Ok(this)
    }

    fn add_ports(&self, kind: Kind, host_ends: &[String]) -> Result<()> {
        let mut arguments = vec![
            "add-br",
            "br0",
            "--",
            "set",
            "bridge",
            "br0",
            "datapath_type=netdev",
        ];
        for host_end in host_ends {
            arguments.extend(["--", "add-port", "br0", host_end]);
            if kind == Kind::Afxdp {
                arguments.extend(["--", "set", "interface", host_end, "type=afxdp-nonpmd"]);
            }
        }
        vsctl(self.folder.path(), &arguments).context("add ports")?;
        let faults = vsctl(
            self.folder.path(),
            &[
                "--bare",
                "--columns=name,error",
                "find",
                "interface",
                "error!=[]",
            ],
        )?;
        ensure!(faults.trim().is_empty(), "ports that do not open: {faults}");
        Ok(())
    }

    fn add_flows(&self) -> Result<()> {
        let management = self.folder.path().join("br0.mgmt");
        let mut command = Command::new("ovs-ofctl");
        command
            .args(["-O", "OpenFlow13", "replace-flows"])
            .arg(management)
            .arg("-");
        run(&mut command, FLOWS)?.success().context("add flows")?;
        Ok(())
    }
}

impl Drop for OpenVSwitch {
    fn drop(&mut self) {
        self.switch.end();
        self.database.end();
    }
}

fn vsctl(files: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("ovs-vsctl");
    command.arg(format!("--db=unix:{}", files.join("db.sock").display()));
    run(command.arg("--timeout=30").args(arguments), "")?
        .success()
        .with_context(|| format!("ovs-vsctl {arguments:?}"))
}

/// A daemon of Open vSwitch that keeps its files in our folder.
#[derive(Debug)]
struct Daemon(Child);

impl Daemon {
    fn start(node: &Namespace, files: &Path, program: &str, arguments: &[&str]) -> Result<Self> {
        let control = format!("--unixctl={}", files.join(program).display());
        let log = std::fs::File::create(files.join(format!("{program}.log")))?;
        let child = node
            .command(program)
            .args(arguments)
            .arg(control)
            .envs(
                ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"]
                    .map(|name| (name, files)),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {program}"))?;
        Ok(Self(child))
    }

    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
