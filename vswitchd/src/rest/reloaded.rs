//! A value that follows the files it was read from: certificates and tokens are renewed while
//! the daemon runs.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Reads the value from the files; the error says which file and why.
type Read<T> = Box<dyn Fn(&[PathBuf]) -> Result<T, String> + Send + Sync>;

/// What tells one state of a file from another: device, inode, size, time of change.
type Stamp = (u64, u64, u64, (i64, i64));

/// A value read from files, read again when one of them changes.
pub(super) struct Reloaded<T> {
    files: Vec<PathBuf>,
    read: Read<T>,
    /// The value with the stamps it belongs to, exchanged together.
    current: Mutex<(Vec<Option<Stamp>>, Arc<T>)>,
}

impl<T> std::fmt::Debug for Reloaded<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloaded")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl<T> Reloaded<T> {
    /// Reads the value for the first time.
    pub(super) fn open(
        files: Vec<PathBuf>,
        read: impl Fn(&[PathBuf]) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let stamps = stamps(&files);
        let value = Arc::new(read(&files)?);
        Ok(Self {
            files,
            read: Box::new(read),
            current: Mutex::new((stamps, value)),
        })
    }

    /// Returns the value as the files have it. While they are not usable, which they may be in
    /// the middle of a renewal, the last usable one stays.
    pub(super) fn get(&self) -> Arc<T> {
        let stamps = stamps(&self.files);
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.0 != stamps {
            match (self.read)(&self.files) {
                Ok(value) => {
                    tracing::info!(files = ?self.files, "files changed and were read again");
                    current.1 = Arc::new(value);
                }
                Err(error) => tracing::error!(
                    error,
                    "reading changed files failed; what was read before stays"
                ),
            }
            current.0 = stamps;
        }
        Arc::clone(&current.1)
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |file: &PathBuf| {
        let of = fs::metadata(file).ok()?;
        let changed = (of.ctime(), of.ctime_nsec());
        Some((of.dev(), of.ino(), of.size(), changed))
    };
    files.iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_read_again_and_an_unusable_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("number");
        fs::write(&file, "1").unwrap();
        let number = Reloaded::open(vec![file.clone()], |files| {
            let text = fs::read_to_string(&files[0]).map_err(|error| error.to_string())?;
            text.parse::<u32>().map_err(|error| error.to_string())
        })
        .unwrap();
        assert_eq!(*number.get(), 1);
        fs::write(&file, "22").unwrap();
        assert_eq!(*number.get(), 22);
        fs::write(&file, "none").unwrap();
        assert_eq!(*number.get(), 22);
        fs::remove_file(&file).unwrap();
        assert_eq!(*number.get(), 22);
        fs::write(&file, "3").unwrap();
        assert_eq!(*number.get(), 3);
    }
}
