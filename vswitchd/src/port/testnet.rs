//! Namespaces and veth pairs for tests; removed also when the test panics.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use vswitch_api::IfName;

use crate::netns::NetnsFile;

const NETNS: [&str; 3] = ["switch", "pod", "peer"];

/// A `pod` and a `peer` namespace, each on a veth pair whose host end is in `switch`.
#[derive(Debug)]
pub(crate) struct Sandbox {
    tag: String,
}

impl Sandbox {
    /// `pod` has 10.9.0.1 on `eth0`, `peer` has 10.9.0.2; the host ends are `hpod` and `hpeer`.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let tag = format!(
            "vst{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let net = Self { tag };
        for name in NETNS {
            run(&["ip", "netns", "add", &net.name(name)]);
        }
        for (pod, octet) in [("pod", 1), ("peer", 2)] {
            let host = format!("h{pod}");
            let mac = format!("02:00:00:00:00:0{octet}");
            let address = format!("10.9.0.{octet}/24");
            let netns = net.name(pod);
            net.ip(
                "switch",
                &format!("link add {host} type veth peer name eth0 netns {netns}"),
            );
            for name in [pod, "switch"] {
                net.sysctl(name, "net.ipv6.conf.all.disable_ipv6=1");
            }
            net.ip(pod, &format!("link set eth0 address {mac} up"));
            net.ip(pod, &format!("addr add {address} dev eth0"));
            net.ip("switch", &format!("link set {host} up"));
        }
        net
    }

    pub(crate) fn name(&self, netns: &str) -> String {
        format!("{}-{netns}", self.tag)
    }

    pub(crate) fn open(&self, netns: &str) -> NetnsFile {
        NetnsFile::open(format!("/run/netns/{}", self.name(netns))).unwrap()
    }

    /// Runs `ip` inside a namespace.
    pub(crate) fn ip(&self, netns: &str, args: &str) {
        let name = self.name(netns);
        let mut all = vec!["ip", "-n", &name];
        all.extend(args.split(' '));
        run(&all);
    }

    pub(crate) fn sysctl(&self, netns: &str, setting: &str) {
        run(&[
            "ip",
            "netns",
            "exec",
            &self.name(netns),
            "sysctl",
            "-qw",
            setting,
        ]);
    }

    /// Returns a command that runs inside a namespace.
    pub(crate) fn command(&self, netns: &str, args: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.name(netns)])
            .args(args);
        command
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        for name in NETNS {
            let _ = Command::new("ip")
                .args(["netns", "del", &self.name(name)])
                .status();
        }
    }
}

/// Returns the first sandbox of a process that ended without removing it.
pub(crate) fn adopt(pid: u32) -> Sandbox {
    Sandbox {
        tag: format!("vst{pid}-0"),
    }
}

fn run(args: &[&str]) {
    let output = Command::new(args[0]).args(&args[1..]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {stderr}");
}

pub(crate) fn ifname(name: &str) -> IfName {
    name.parse().unwrap()
}
