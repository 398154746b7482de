//! Sysctls of the calling thread's network namespace, and a ledger to restore them from.
//!
//! The ledger is written before a value is changed, and keeps the first value it saw: after
//! any number of crashes and restarts, [`SysctlLedger::restore`] brings back what was there
//! before the daemon first ran. Blocks.

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A sysctl or its record that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    /// Reading failed.
    #[error("read sysctl {key}")]
    Read {
        /// Path below /proc/sys.
        key: String,
        /// Cause.
        source: io::Error,
    },
    /// Writing failed.
    #[error("set sysctl {key} to {value}")]
    Write {
        /// Path below /proc/sys.
        key: String,
        /// The value that was to be set.
        value: String,
        /// Cause.
        source: io::Error,
    },
    /// The record of earlier values could not be read, written or removed.
    #[error("keep earlier sysctl values in {}", path.display())]
    Ledger {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

/// Where the host's /proc/sys is mounted for a daemon in a container, whose own is read-only
/// unless it is privileged. Below it too, `net` is that of the network namespace of the thread.
const HOST_PROC_SYS: &str = "/host/proc/sys";

/// Returns the path of `key`, a path below /proc/sys.
pub(super) fn path_of(key: &str) -> PathBuf {
    let of_host = Path::new(HOST_PROC_SYS);
    let root = if of_host.exists() {
        of_host
    } else {
        Path::new("/proc/sys")
    };
    root.join(key)
}

/// Returns the value of `key`, a path below /proc/sys.
pub(super) fn read(key: &str) -> Result<String, SysctlError> {
    fs::read_to_string(path_of(key))
        .map(|value| value.trim().to_owned())
        .map_err(|source| SysctlError::Read {
            key: key.to_owned(),
            source,
        })
}

/// Sets `key`, a path below /proc/sys.
pub(super) fn write(key: &str, value: &str) -> Result<(), SysctlError> {
    fs::write(path_of(key), value).map_err(|source| SysctlError::Write {
        key: key.to_owned(),
        value: value.to_owned(),
        source,
    })
}

/// Sets `key` where the kernel has it: without IPv6 there is nothing to switch off.
pub(super) fn write_if_present(key: &str, value: &str) -> Result<(), SysctlError> {
    match write(key, value) {
        Err(SysctlError::Write { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(())
        }
        written => written,
    }
}

/// One changed sysctl.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ChangedSysctl {
    key: String,
    before: String,
    set: String,
}

/// Earlier values of sysctls that outlive the daemon's interfaces.
#[derive(Debug)]
pub struct SysctlLedger {
    path: PathBuf,
    entries: Vec<ChangedSysctl>,
}

impl SysctlLedger {
    /// Opens the ledger; a file that is not there is an empty one.
    ///
    /// # Errors
    /// [`SysctlError::Ledger`], also when the file is damaged.
    pub fn open(path: &Path) -> Result<Self, SysctlError> {
        let entries = match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| ledger_error(path, io::Error::from(error)))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(ledger_error(path, error)),
        };
        Ok(Self {
            path: path.to_owned(),
            entries,
        })
    }

    /// Sets a sysctl and remembers its earlier value.
    ///
    /// # Errors
    /// [`SysctlError`]; if the value cannot be recorded, it is not changed.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), SysctlError> {
        let before = read(key)?;
        if before == value {
            return Ok(());
        }
        if !self.entries.iter().any(|entry| entry.key == key) {
            let (key, set) = (key.to_owned(), value.to_owned());
            self.entries.push(ChangedSysctl { key, before, set });
            self.save()?;
        }
        write(key, value)
    }

    /// Restores all recorded values, the latest first, and forgets them; returns what went
    /// wrong. A value that somebody else has changed since, or whose interface is gone, is
    /// left as it is.
    pub fn restore(mut self) -> Vec<SysctlError> {
        let mut problems = Vec::new();
        let mut kept = Vec::new();
        for entry in self.entries.drain(..).rev() {
            let restored = match read(&entry.key) {
                Ok(current) if current == entry.set => write(&entry.key, &entry.before),
                Ok(_) => Ok(()),
                Err(SysctlError::Read { source, .. })
                    if source.kind() == io::ErrorKind::NotFound =>
                {
                    Ok(())
                }
                Err(error) => Err(error),
            };
            if let Err(problem) = restored {
                problems.push(problem);
                kept.insert(0, entry);
            }
        }
        self.entries = kept;
        if let Err(problem) = self.save() {
            problems.push(problem);
        }
        problems
    }

    /// Replaces the file in one step, so that a crash leaves the old or the new one.
    fn save(&self) -> Result<(), SysctlError> {
        let failed = |source| ledger_error(&self.path, source);
        if self.entries.is_empty() {
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
                _ => Ok(()),
            };
        }
        let text = serde_json::to_vec_pretty(&self.entries)
            .map_err(|error| failed(io::Error::from(error)))?;
        let next = self.path.with_extension("next");
        let mut options = fs::File::options();
        options.create(true).truncate(true).write(true).mode(0o600);
        let mut file = options.open(&next).map_err(failed)?;
        io::Write::write_all(&mut file, &text)
            .and_then(|()| file.sync_all())
            .map_err(failed)?;
        fs::rename(&next, &self.path).map_err(failed)
    }
}

fn ledger_error(path: &Path, source: io::Error) -> SysctlError {
    SysctlError::Ledger {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::in_new_netns;
    use super::*;

    const FORWARD: &str = "net/ipv4/ip_forward";

    #[test]
    fn restore_brings_back_the_value_from_before_the_first_run() {
        in_new_netns(|| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("sysctls.json");
            assert_eq!(read(FORWARD).unwrap(), "0");
            SysctlLedger::open(&path)
                .unwrap()
                .set(FORWARD, "1")
                .unwrap();
            assert_eq!(read(FORWARD).unwrap(), "1");
            // A crash and a second start: the value is 1 now, but 0 is what must come back.
            let mut second = SysctlLedger::open(&path).unwrap();
            second.set(FORWARD, "1").unwrap();
            assert!(second.restore().is_empty());
            assert_eq!(read(FORWARD).unwrap(), "0");
            assert!(!path.exists());
        });
    }

    #[test]
    fn restore_leaves_what_somebody_else_has_changed_since() {
        in_new_netns(|| {
            let dir = tempfile::tempdir().unwrap();
            let mut ledger = SysctlLedger::open(&dir.path().join("s.json")).unwrap();
            ledger.set("net/ipv4/conf/lo/rp_filter", "2").unwrap();
            write("net/ipv4/conf/lo/rp_filter", "1").unwrap();
            assert!(ledger.restore().is_empty());
            assert_eq!(read("net/ipv4/conf/lo/rp_filter").unwrap(), "1");
        });
    }

    #[test]
    fn nothing_is_changed_that_cannot_be_recorded() {
        in_new_netns(|| {
            let mut ledger = SysctlLedger::open(Path::new("/no/such/dir/s.json")).unwrap();
            assert!(matches!(
                ledger.set(FORWARD, "1"),
                Err(SysctlError::Ledger { .. })
            ));
            assert_eq!(read(FORWARD).unwrap(), "0");
        });
    }

    #[test]
    fn damaged_ledger_is_an_error_not_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.json");
        fs::write(&path, "{").unwrap();
        assert!(matches!(
            SysctlLedger::open(&path),
            Err(SysctlError::Ledger { .. })
        ));
    }
}
