//! A file of lines that begins anew when it is full: `flows.jsonl`, and before it `flows.jsonl.1`,
//! `flows.jsonl.2` and so on, the latest first.
//!
//! Others may move it away or cut it, as logrotate(8) does: it is compared with what its path leads
//! to before each use. What could not be written whole is taken back, so that there are no half
//! lines.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use crate::config::FlowFileConfig;
use crate::flow_records::files::end_last_line;

/// Who may read it learns who talks to whom: owner and group. What is there already keeps what it
/// has.
const MODE: u32 = 0o640;

/// See the module.
#[derive(Debug)]
pub(super) struct RotatedFile {
    config: FlowFileConfig,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
}

impl RotatedFile {
    /// Opens nothing yet.
    pub(super) const fn new(config: FlowFileConfig) -> Self {
        Self { config, open: None }
    }

    /// Opens the file, if that is another one than before; returns how many bytes it has, and has
    /// room for.
    pub(super) fn begin(&mut self) -> Result<(u64, u64), String> {
        let max = self.config.max_bytes;
        let current = self.current();
        current.map(|open| (open.bytes, max)).map_err(opening)
    }

    /// Adds lines, all of them or none.
    pub(super) fn add(&mut self, lines: &[u8]) -> Result<(), String> {
        let open = self.current().map_err(opening)?;
        let Err(error) = open.file.write_all(lines) else {
            return Ok(());
        };
        let is_longer = |of: Metadata| of.len() > open.bytes;
        if open.file.metadata().is_ok_and(is_longer) {
            // If not even that can be done, the next line is begun on a line of its own.
            let _cut = open.file.set_len(open.bytes);
        }
        self.open = None;
        Err(format!("writing failed: {error}"))
    }

    /// Moves the file to the earlier ones, of which the oldest goes, and begins anew.
    pub(super) fn rotate(&mut self) -> Result<(), String> {
        self.open = None;
        self.make_way()
            .map_err(|error| format!("moving it to the earlier ones failed: {error}"))?;
        self.current().map(drop).map_err(opening)
    }

    fn make_way(&self) -> io::Result<()> {
        let keep = self.config.keep;
        if keep == 0 {
            unless_absent(fs::remove_file(&self.config.path))?;
        }
        for number in (1..=keep).rev() {
            let moved = fs::rename(self.numbered(number - 1), self.numbered(number));
            unless_absent(moved)?;
        }
        // Of a time when more were kept.
        let mut beyond = keep + 1;
        while fs::remove_file(self.numbered(beyond)).is_ok() {
            beyond += 1;
        }
        Ok(())
    }

    /// Returns the file that the path leads to.
    fn current(&mut self) -> io::Result<&mut Open> {
        let path = &self.config.path;
        let there = match fs::symlink_metadata(path) {
            Ok(there) => Some(there),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let identity = |of: &Metadata| (of.dev(), of.ino());
        let mut open = self.open.take();
        if let Some(before) = &open {
            let of = before.file.metadata()?;
            if there.as_ref().map(identity) != Some(identity(&of)) {
                open = None;
            }
        }
        let file = match open {
            Some(open) => open.file,
            None => open_for_append(path)?,
        };
        let bytes = file.metadata()?.len();
        Ok(self.open.insert(Open { file, bytes }))
    }

    fn numbered(&self, number: usize) -> PathBuf {
        let mut name = OsString::from(&self.config.path);
        if number > 0 {
            name.push(format!(".{number}"));
        }
        PathBuf::from(name)
    }
}

fn opening(error: io::Error) -> String {
    format!("opening it failed: {error}")
}

/// Follows no link, which might lead to a file of others, and waits for no reader of a pipe.
fn open_for_append(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    options.append(true).read(true).custom_flags(flags.bits());
    let mut new = options.clone();
    let mut file = match new.create_new(true).mode(MODE).open(path) {
        Ok(file) => {
            // Whatever the umask.
            file.set_permissions(Permissions::from_mode(MODE))?;
            file
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => options.open(path)?,
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    end_last_line(&mut file)?;
    Ok(file)
}

fn unless_absent(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
