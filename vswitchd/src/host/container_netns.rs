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
pub(super) struct Netns {
    path: PathBuf,
    file: File,
    /// Device and inode of nsfs: what makes two namespaces the same.
    identity: (u64, u64),
}

impl PartialEq for Netns {
    fn eq(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

impl Netns {
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

    /// Runs `body` on a thread of its own inside; blocks.
    pub(super) fn run<T, E>(&self, body: impl FnOnce() -> Result<T, E> + Send) -> Result<T, E>
    where
        T: Send,
        E: From<NetnsError> + Send,
    {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(|errno| NetnsError::Enter {
                    path: self.path.clone(),
                    source: errno.into(),
                })?;
                body()
            });
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
