//! What the figures were taken on.

use std::fmt;
use std::process::Command;

use anyhow::Result;
use serde_json::{Value, json};
use vswitch_tests::run;

/// Machine, kernel and versions.
#[derive(Debug)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
    commit: String,
    iptables: String,
    ovs: String,
}

impl Machine {
    pub(crate) fn describe() -> Result<Self> {
        let info = std::fs::read_to_string("/proc/cpuinfo")?;
        let model = info
            .lines()
            .find_map(|line| line.strip_prefix("model name"));
        let model = model.and_then(|line| line.split_once(':'));
        Ok(Self {
            cpu: model
                .map_or("unknown processor", |(_, name)| name.trim())
                .to_owned(),
            cores: std::thread::available_parallelism()?.get(),
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")?
                .trim()
                .to_owned(),
            commit: first_line("git", &["describe", "--always", "--dirty"]),
            iptables: first_line("iptables", &["--version"]),
            ovs: first_line("ovs-vswitchd", &["--version"]),
        })
    }

    pub(crate) fn json(&self) -> Value {
        json!({"cpu": self.cpu, "cores": self.cores, "kernel": self.kernel,
            "commit": self.commit, "iptables": self.iptables, "ovs": self.ovs})
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cpu,
            cores,
            kernel,
            commit,
            iptables,
            ovs,
        } = self;
        write!(
            f,
            "{cpu}, {cores} cores, Linux {kernel}, commit {commit}, {iptables}, {ovs}"
        )
    }
}

/// A version is worth reporting, its lack is not worth failing.
fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = run(Command::new(program).args(arguments), "");
    let text = output.and_then(vswitch_tests::Output::success);
    let line = text
        .ok()
        .and_then(|text| text.lines().next().map(str::to_owned));
    line.unwrap_or_else(|| format!("no {program}"))
}
