//! References of the kernel to packet sockets, so that the end of the process does not wait for
//! them to be closed.
//!
//! Closing a packet socket waits for an RCU grace period (`synchronize_net` in the kernel's
//! `packet_release`), 10 to 20 ms. When a process ends, the kernel closes its descriptors one
//! after another before the process is gone: with 250 ports nothing is forwarded, and no next
//! daemon started, for seconds. An io_uring instance holds a reference to each file registered
//! with it, and a worker of the kernel drops these references after the process has ended. The
//! ring does no input or output.
//!
//! A socket that is kept so has no reader any more. It queues what comes, up to its buffer, until
//! it is closed; the rules that keep unswitched frames out of the node's stack are not its.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use io_uring::IoUring;
use nix::sys::resource::{Resource, getrlimit};

/// Most sockets that are kept. Those of further ports are closed while the process ends.
const MOST: u64 = 8192;

/// Keeps packet sockets referenced until after the process has ended.
pub struct SocketKeeper {
    ring: IoUring,
    free: Mutex<Vec<u32>>,
    is_ending: AtomicBool,
}

impl SocketKeeper {
    /// Makes the ring.
    ///
    /// # Errors
    /// The kernel is older than 5.19, io_uring is switched off (`kernel.io_uring_disabled`), or a
    /// seccomp profile forbids it.
    pub fn open() -> io::Result<Arc<Self>> {
        let ring = IoUring::new(1)?;
        // The kernel has no table larger than the number of descriptors a process may have.
        let (descriptors, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let size = u32::try_from(descriptors.min(MOST)).unwrap_or(u32::MAX);
        ring.submitter().register_files_sparse(size)?;
        Ok(Arc::new(Self {
            ring,
            free: Mutex::new((0..size).rev().collect()),
            is_ending: AtomicBool::new(false),
        }))
    }

    /// Keeps a socket until what is returned is dropped; `None` if there are too many.
    pub(super) fn keep(self: &Arc<Self>, socket: &OwnedFd) -> Option<Kept> {
        let slot = self.free().pop()?;
        if let Err(error) = self.update(slot, socket.as_raw_fd()) {
            tracing::debug!(%error, "keeping a packet socket for a quick end failed");
            self.free().push(slot);
            return None;
        }
        Some(Kept {
            keeper: Arc::clone(self),
            slot,
        })
    }

    /// States that the process is about to end: sockets that are kept now stay so.
    pub fn end(&self) {
        self.is_ending.store(true, Relaxed);
    }

    fn update(&self, slot: u32, fd: i32) -> io::Result<()> {
        let submitter = self.ring.submitter();
        submitter.register_files_update(slot, &[fd]).map(drop)
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Vec<u32>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SocketKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketKeeper").finish_non_exhaustive()
    }
}

/// A socket that is kept.
#[derive(Debug)]
pub(super) struct Kept {
    keeper: Arc<SocketKeeper>,
    slot: u32,
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.keeper.is_ending.load(Relaxed) {
            return;
        }
        // By this number the kernel takes the file out of the table.
        match self.keeper.update(self.slot, -1) {
            Ok(()) => self.keeper.free().push(self.slot),
            Err(error) => tracing::warn!(%error, "closing a packet socket failed"),
        }
    }
}
