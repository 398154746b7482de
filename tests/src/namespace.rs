//! A named network namespace that goes away with its value.

use std::ffi::OsStr;
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::command::{Output, run};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// What every new namespace is set to: the kernel's defaults. Otherwise it would begin with what
/// this machine is set to, and a machine with containers forwards.
const SYSCTLS: [(&str, &str); 8] = [
    ("ipv4/ip_forward", "0"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/lo/rp_filter", "0"),
    ("ipv6/conf/all/forwarding", "0"),
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("ipv6/conf/lo/disable_ipv6", "0"),
];

/// A network namespace under `/run/netns` with a unique name and `lo` up.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace; `role` becomes part of its name.
    ///
    /// # Errors
    /// Fails if `ip netns add` does.
    pub fn new(role: &str) -> Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("vst-{}-{number}-{role}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]), "")?.success()?;
        let namespace = Self { name };
        for (key, value) in SYSCTLS {
            namespace.set_sysctl(key, value)?;
        }
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Makes the namespace of a host, where a daemon will run. `hostile.sh` says what hosts are
    /// set up as; otherwise they are as every namespace.
    ///
    /// # Errors
    /// Fails if it cannot be made, or not be set up.
    pub fn of_host(role: &str) -> Result<Self> {
        let host = Self::new(role)?;
        if let Some(setup) = std::env::var_os("VSWITCH_TEST_HOST_SETUP") {
            run(&mut host.command(setup), "")?
                .success()
                .context("set up a host as others have")?;
        }
        Ok(host)
    }

    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the path that CNI_NETNS takes.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Returns a command that will run inside.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.path().display()))
            .arg(program);
        command
    }

    /// Sets a sysctl, which is a path below `/proc/sys/net`; one that this kernel does not have is
    /// left out.
    ///
    /// # Errors
    /// Fails if the value is refused.
    pub fn set_sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = PathBuf::from("/proc/sys/net").join(key);
        let value = value.to_owned();
        let set = inside(self, move || match std::fs::write(&path, value) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            written => written.with_context(|| path.display().to_string()),
        });
        join(set?)
    }

    /// Runs `ip` inside.
    ///
    /// # Errors
    /// Fails if `ip` does.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        run(self.command("ip").args(arguments), "")?.success()
    }

    /// Connects two namespaces by a veth pair; both ends get an address and are set up.
    ///
    /// # Errors
    /// Fails if a step of `ip` does.
    pub fn connect(
        &self,
        ifname: &str,
        address: &str,
        far: &Self,
        far_ifname: &str,
        far_address: &str,
    ) -> Result<()> {
        self.ip(&[
            "link",
            "add",
            ifname,
            "type",
            "veth",
            "peer",
            "name",
            far_ifname,
            "netns",
            far.name(),
        ])?;
        for (side, name, address) in [(self, ifname, address), (far, far_ifname, far_address)] {
            side.ip(&["address", "add", address, "dev", name])?;
            side.ip(&["link", "set", name, "up"])?;
        }
        Ok(())
    }

    /// Returns what the kernel tells of an interface inside, as `ip -json -statistics` prints it.
    ///
    /// # Errors
    /// Fails if there is no such interface.
    pub fn link(&self, ifname: &str) -> Result<Value> {
        let text = self.ip(&["-json", "-statistics", "link", "show", "dev", ifname])?;
        let links: Value = serde_json::from_str(&text)?;
        Ok(links[0].clone())
    }

    /// Ends every process inside, then removes it.
    fn remove(&self) {
        if let Ok(pids) = run(Command::new("ip").args(["netns", "pids", &self.name]), "") {
            for pid in pids.stdout.lines() {
                let _ = run(Command::new("kill").args(["-KILL", pid]), "");
            }
        }
        let _ = run(Command::new("ip").args(["netns", "del", &self.name]), "");
    }
}

/// Runs `work` in a thread of its own that is inside the namespace.
///
/// # Errors
/// Fails if the namespace is gone.
pub fn inside<T: Send + 'static>(
    namespace: &Namespace,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<JoinHandle<Result<T>>> {
    let netns = File::open(namespace.path())?;
    // A namespace belongs to a thread; what it opens stays in it.
    Ok(std::thread::spawn(move || {
        nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET)?;
        work()
    }))
}

/// Waits for a thread that works inside a namespace.
///
/// # Errors
/// Returns that of the work; fails if the thread panicked.
pub fn join<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread
        .join()
        .map_err(|_| anyhow::anyhow!("a thread panicked"))?
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Runs `arguments` inside a namespace, for at most 60 seconds.
///
/// # Errors
/// Fails if the program cannot be started.
pub fn run_in(namespace: &Namespace, arguments: &[&str]) -> Result<Output> {
    let mut command = namespace.command("timeout");
    command.arg("60").args(arguments);
    run(&mut command, "")
}
