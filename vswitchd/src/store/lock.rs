//! One process at a time has a store open.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::StoreError;

/// How long a start waits for an ending process: longer than a drain takes.
const WAIT: Duration = Duration::from_secs(15);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The lock of a store, held until it is dropped.
#[derive(Debug)]
pub struct StoreLock(Flock<File>);

impl StoreLock {
    /// Takes the lock of the store in a folder if nobody has it.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::Open`].
    pub fn take(folder: &Path) -> Result<Self, StoreError> {
        let dir = || folder.display().to_string();
        let fail = |source: io::Error| StoreError::Open {
            dir: dir(),
            source: source.into(),
        };
        let mut options = File::options();
        options
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600);
        let file = options.open(folder.join("lock")).map_err(fail)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self(lock)),
            Err((_, Errno::EWOULDBLOCK)) => Err(StoreError::Locked { dir: dir() }),
            Err((_, errno)) => Err(fail(errno.into())),
        }
    }

    /// Waits for an ending process to let go of it; not for ever. Blocks.
    pub(super) fn wait(folder: &Path) -> Result<Self, StoreError> {
        Self::wait_for(folder, WAIT)
    }

    pub(super) fn wait_for(folder: &Path, longest: Duration) -> Result<Self, StoreError> {
        let mut waited = Duration::ZERO;
        loop {
            match Self::take(folder) {
                Err(StoreError::Locked { .. }) if waited < longest => {
                    if waited.is_zero() {
                        let (folder, seconds) = (folder.display(), longest.as_secs());
                        tracing::info!(%folder, seconds, "waiting for another process to release the store");
                    }
                    waited += LOOK_AGAIN;
                    std::thread::sleep(LOOK_AGAIN);
                }
                other => return other,
            }
        }
    }

    /// Whether the store has been in use.
    pub(super) fn is_marked(&self) -> bool {
        self.0.metadata().is_ok_and(|metadata| metadata.len() > 0)
    }

    /// Marks the store as one that is in use.
    pub(super) fn mark(&self) -> io::Result<()> {
        let permissions = std::fs::Permissions::from_mode(0o600);
        self.0.set_permissions(permissions)?;
        if self.is_marked() {
            return Ok(());
        }
        self.0.write_all_at(b"in use\n", 0)?;
        self.0.sync_all()
    }
}
