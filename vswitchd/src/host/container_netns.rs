//! The network namespace of a container, as a path leads to it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};

/// A namespace that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The path does not open.
    #[error("open {}", path.display())]
    Open {
        /// The path.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// What is there is not a network namespace, or must not be entered.
    #[error("enter {}", path.display())]
    Enter {
        /// The path.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

/// An open network namespace; it lives at least as long as this.
#[derive(Debug)]
pub(super) struct NetnsFile {
    path: PathBuf,
    file: File,
    /// Device and inode of nsfs: what makes two namespaces the same.
    identity: (u64, u64),
}

impl NetnsFile {
    pub(super) fn open(path: &Path) -> Result<Self, NetnsError> {
        let failed = |source| NetnsError::Open {
            path: path.to_owned(),
            source,
        };
        // Non-blocking, because the path comes from outside and may lead to a FIFO.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let identity = (metadata.dev(), metadata.ino());
        Ok(Self {
            path: path.to_owned(),
            file,
            identity,
        })
    }

    /// Returns the calling thread's.
    pub(super) fn current() -> Result<Self, NetnsError> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

/// Runs `task` on a thread of its own inside; blocks.
pub(super) fn in_netns<T: Send>(
    netns: &NetnsFile,
    task: impl FnOnce() -> T + Send,
) -> Result<T, NetnsError> {
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            setns(&netns.file, CloneFlags::CLONE_NEWNET).map_err(|errno| NetnsError::Enter {
                path: netns.path.clone(),
                source: errno.into(),
            })?;
            Ok(task())
        });
        inside
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

impl AsFd for NetnsFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
