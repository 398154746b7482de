//! Namespaces for the tests of `host/`: the machine's own is never touched.
//!
//! They have no names, so nothing is left behind by a test that panics.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, setns, unshare};

use super::NftTable;

/// Runs a test body on a thread with a network namespace of its own: "the host".
pub(super) fn in_new_netns<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let host = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("tests of host/ need root");
            // A namespace inherits some values of the machine; the tests start from known ones.
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
            run("ip link set lo up").unwrap();
            body()
        });
        host.join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs a command line in the namespace of the calling thread; `Err` has its output.
pub(super) fn run(command_line: &str) -> Result<String, String> {
    let output = Command::new("sh")
        .args(["-c", command_line])
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    if output.status.success() {
        Ok(text)
    } else {
        Err(text)
    }
}

/// A table that another process owns (`flags owner`, nft(8)): until this is dropped the kernel
/// refuses every change of it.
pub(super) struct HeldTable {
    holder: Child,
}

/// Holds a table of the calling thread's namespace.
pub(super) fn held_table(family: &str, table: &NftTable) -> HeldTable {
    let mut holder = Command::new("nft")
        .arg("-i")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdin = holder.stdin.as_mut().unwrap();
    writeln!(
        stdin,
        "add table {family} {table} {{ flags owner; }}\nlist tables"
    )
    .unwrap();
    let mut answer = BufReader::new(holder.stdout.as_mut().unwrap()).lines();
    let made = answer.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("table")));
    assert!(made.is_some(), "nft made no table");
    HeldTable { holder }
}

impl Drop for HeldTable {
    fn drop(&mut self) {
        // The kernel removes the table when its owner's socket closes.
        self.holder.kill().unwrap();
        self.holder.wait().unwrap();
    }
}

/// A network namespace that stands for a container.
pub(super) struct Pod {
    netns: File,
}

impl Pod {
    pub(super) fn new() -> Self {
        let netns = in_new_netns(|| File::open("/proc/thread-self/ns/net").unwrap());
        Self { netns }
    }

    /// A path under which the namespace can be opened by this process and its children.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.netns.as_raw_fd()).into()
    }

    /// Runs a command line inside.
    pub(super) fn run(&self, command_line: &str) -> Result<String, String> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.netns, CloneFlags::CLONE_NEWNET).unwrap();
                run(command_line)
            });
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}
