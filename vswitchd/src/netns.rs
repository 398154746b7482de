//! Network namespaces: open, compare, enter on a helper thread, leave.
//!
//! A namespace belongs to a thread. Entering one on a thread that others share (a tokio worker)
//! would strand whatever runs there next, also when a `?` or a panic leaves early. So
//! [`in_netns`] never switches the caller: it runs the closure on a thread of its own, which
//! ends afterwards. Called by `port`, `host`, `cni` and `reconcile`; blocks.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statfs::{FsType, fstatfs};

use crate::supervise::panic_message;

/// `linux/magic.h`; libc types it differently from one target to the next.
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);

/// `NS_GET_NSTYPE` of `linux/nsfs.h`, `_IO(0xb7, 0x3)`.
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

/// What can go wrong with a network namespace.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The path cannot be opened.
    #[error("open network namespace {path}")]
    Open {
        /// The path as given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The path is something else: a plain file, or a namespace of another kind.
    #[error("{path} is not a network namespace")]
    NotNetns {
        /// The path as given.
        path: PathBuf,
    },
    /// The kernel did not tell which namespace it is.
    #[error("identify network namespace {path}")]
    Identify {
        /// The path as given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The helper thread could not be started.
    #[error("start a thread for network namespace {path}")]
    Spawn {
        /// The path as given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `setns` failed.
    #[error("enter network namespace {path}")]
    Enter {
        /// The path as given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The closure panicked on the helper thread.
    #[error("a task panicked in network namespace {path}: {panic}")]
    Panicked {
        /// The path as given.
        path: PathBuf,
        /// The panic's message.
        panic: String,
    },
}

/// Which namespace it is, whatever path it was opened by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetnsId {
    /// Device of the namespace file system.
    pub dev: u64,
    /// Inode of the namespace.
    pub inode: u64,
}

/// An open network namespace; it lives at least as long as this.
#[derive(Debug)]
pub struct NetnsFile {
    fd: OwnedFd,
    id: NetnsId,
    path: PathBuf,
}

impl NetnsFile {
    /// Opens the namespace at `path` (`/run/netns/…`, `/proc/<pid>/ns/net`).
    ///
    /// # Errors
    ///
    /// [`NetnsError::Open`] if it is not there, [`NetnsError::NotNetns`] if it is something else.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, NetnsError> {
        let path = path.as_ref().to_owned();
        let failed = |source: io::Error| NetnsError::Open {
            path: path.clone(),
            source,
        };
        // O_PATH first: a FIFO or device that a caller names must not be opened for real.
        let probe = open(&path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|errno| failed(errno.into()))?;
        if !is_on_nsfs(&probe) {
            return Err(NetnsError::NotNetns { path });
        }
        let reopen = format!("/proc/self/fd/{}", probe.as_raw_fd());
        let fd = OwnedFd::from(File::open(reopen).map_err(failed)?);
        if namespace_kind(&fd) != Some(libc::CLONE_NEWNET) {
            return Err(NetnsError::NotNetns { path });
        }
        match fstat(&fd) {
            Ok(stat) => Ok(Self {
                fd,
                id: NetnsId {
                    dev: stat.st_dev,
                    inode: stat.st_ino,
                },
                path,
            }),
            Err(errno) => Err(NetnsError::Identify {
                path,
                source: errno.into(),
            }),
        }
    }

    /// Opens the namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// As [`NetnsFile::open`].
    pub fn current() -> Result<Self, NetnsError> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// Returns which namespace it is.
    #[must_use]
    pub const fn id(&self) -> NetnsId {
        self.id
    }

    /// Returns the path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether both are the same namespace.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl AsFd for NetnsFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Returns whether `path` is a network namespace.
#[must_use]
pub fn is_netns(path: impl AsRef<Path>) -> bool {
    NetnsFile::open(path).is_ok()
}

/// Runs `task` inside the namespace, on a thread of its own, and waits for it.
///
/// # Errors
///
/// [`NetnsError::Enter`] if the thread cannot enter, [`NetnsError::Panicked`] if `task` panics;
/// the caller's thread keeps its namespace in every case.
pub fn in_netns<T, F>(netns: &NetnsFile, task: F) -> Result<T, NetnsError>
where
    T: Send,
    F: FnOnce() -> T + Send,
{
    let path = || netns.path.clone();
    std::thread::scope(|scope| {
        let helper = std::thread::Builder::new()
            .name("vsw-netns".to_owned())
            .spawn_scoped(scope, || {
                setns(&netns.fd, CloneFlags::CLONE_NEWNET).map_err(|errno| NetnsError::Enter {
                    path: path(),
                    source: errno.into(),
                })?;
                Ok(task())
            })
            .map_err(|source| NetnsError::Spawn {
                path: path(),
                source,
            })?;
        helper.join().unwrap_or_else(|payload| {
            Err(NetnsError::Panicked {
                path: path(),
                panic: panic_message(payload.as_ref()),
            })
        })
    })
}

fn is_on_nsfs(fd: &OwnedFd) -> bool {
    fstatfs(fd).is_ok_and(|stat| stat.filesystem_type() == NSFS_MAGIC)
}

fn namespace_kind(fd: &OwnedFd) -> Option<libc::c_int> {
    // SAFETY: NS_GET_NSTYPE takes no argument and only reads; the fd is open for the call.
    let kind = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) };
    (kind >= 0).then_some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::testnet::Sandbox;

    #[test]
    fn a_task_sees_the_other_namespace_and_the_caller_stays() {
        let net = Sandbox::new();
        let before = NetnsFile::current().unwrap();
        let other = net.open("pod");
        let inside = in_netns(&other, || NetnsFile::current().unwrap().id()).unwrap();
        assert_eq!(inside, other.id());
        assert_ne!(inside, before.id());
        assert!(NetnsFile::current().unwrap().is_same(&before));
    }

    #[test]
    fn a_panic_inside_comes_back_as_an_error() {
        let here = NetnsFile::current().unwrap();
        let err = in_netns(&here, || -> u8 { panic!("boom {}", 1) }).unwrap_err();
        assert!(
            matches!(&err, NetnsError::Panicked { panic, .. } if panic == "boom 1"),
            "{err}"
        );
    }

    #[test]
    fn two_paths_to_one_namespace_have_one_identity() {
        let by_thread = NetnsFile::current().unwrap();
        let by_process = NetnsFile::open("/proc/self/ns/net").unwrap();
        assert!(by_thread.is_same(&by_process));
    }

    #[test]
    fn what_is_not_a_network_namespace_is_refused_clearly() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        for path in [
            file.path(),
            dir.path(),
            &fifo,
            Path::new("/proc/self/ns/mnt"),
        ] {
            let err = NetnsFile::open(path).unwrap_err();
            assert!(
                matches!(err, NetnsError::NotNetns { .. }),
                "{}: {err}",
                path.display()
            );
            assert!(!is_netns(path));
        }
        let err = NetnsFile::open("/run/netns/there-is-none").unwrap_err();
        assert!(matches!(err, NetnsError::Open { .. }), "{err}");
    }
}
