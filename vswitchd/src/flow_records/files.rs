//! Records on the disk: a line of JSON each.
//!
//! `current.jsonl` has those of the minute that is running, and is replaced as a whole;
//! `records-N.jsonl` those of minutes that are over, oldest first. Records of allowed connections
//! have files and room of their own, so that they displace none of what was denied
//! ([`FileNames`]). Shares of the room keep all of
//! them, with the file that is about to replace another, within the bound. A process that is killed
//! may leave a line cut short, or a minute in both places: a line that cannot be read costs itself,
//! and readers count a minute once.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vswitch_api::v1::FlowOf;

use super::minute::{Counted, Minute};
use crate::store::make_private;

/// Names of files of one kind of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileNames {
    current: &'static str,
    /// What replaces it.
    next: &'static str,
    /// Before the number.
    closed: &'static str,
}

/// What was denied.
pub(super) const DENIED: FileNames = FileNames {
    current: "current.jsonl",
    next: "current.jsonl.next",
    closed: "records-",
};

/// Allowed connections.
pub(super) const ALLOWED: FileNames = FileNames {
    current: "allowed-current.jsonl",
    next: "allowed-current.jsonl.next",
    closed: "allowed-records-",
};

/// Shares of the room: the running minute, and as much again for the file that replaces it, and
/// what a file of earlier minutes has before the next one begins. The rest is theirs.
const SHARE_OF_CURRENT: u64 = 8;
const SHARE_OF_FILE: u64 = 16;

/// A record as it is written.
#[derive(Debug, Serialize)]
struct Written<'a> {
    minute: u64,
    #[serde(flatten)]
    of: &'a FlowOf,
    #[serde(flatten)]
    counted: &'a Counted,
}

/// A record as it is read.
#[derive(Debug, Deserialize)]
pub(super) struct Line {
    pub(super) minute: u64,
    #[serde(flatten)]
    pub(super) of: FlowOf,
    #[serde(flatten)]
    pub(super) counted: Counted,
}

/// A file of minutes that are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Closed {
    number: u64,
    bytes: u64,
}

/// See the module. One process has it, as it has the state directory.
#[derive(Debug)]
pub(super) struct RecordFiles {
    folder: PathBuf,
    names: FileNames,
    max_bytes: u64,
    keep_seconds: u64,
    closed: Vec<Closed>,
}

impl RecordFiles {
    /// Opens a folder, which is made if there is none; returns the records of the minute that was
    /// running when the process before ended as well, and what of it cannot be read.
    pub(super) fn open(
        folder: &Path,
        names: FileNames,
        (max_bytes, keep_seconds): (u64, u64),
    ) -> io::Result<(Self, Vec<Line>, Vec<String>)> {
        make_private(folder)?;
        let mut closed = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if let Some(number) = names.number_of(&entry.file_name().to_string_lossy()) {
                let bytes = entry.metadata()?.len();
                closed.push(Closed { number, bytes });
            }
        }
        closed.sort_by_key(|of| of.number);
        let files = Self {
            folder: folder.to_owned(),
            names,
            max_bytes,
            keep_seconds,
            closed,
        };
        let (lines, problem) = read(&folder.join(names.current), max_bytes);
        Ok((files, lines, problem.into_iter().collect()))
    }

    /// Writes the running minute; returns for how many records there was no room.
    pub(super) fn write_current(&self, minute: &Minute) -> io::Result<usize> {
        let (lines, left_out) = self.lines(minute)?;
        let next = self.folder.join(self.names.next);
        let mut file = create(&next)?;
        file.write_all(&lines)?;
        fs::rename(&next, self.folder.join(self.names.current))?;
        Ok(left_out)
    }

    /// Adds a minute that is over to the others, in the place of the oldest.
    pub(super) fn append(&mut self, minute: &Minute, now: u64) -> io::Result<()> {
        let (lines, _) = self.lines(minute)?;
        let length = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        self.expire(length, now)?;
        let is_full = |of: &Closed| of.bytes + length > self.max_bytes / SHARE_OF_FILE;
        let number = match self.closed.last() {
            Some(last) if is_full(last) => last.number + 1,
            Some(last) => last.number,
            None => 1,
        };
        let mut file = open_for_append(&self.path(number))?;
        let written = file.write_all(&lines);
        let bytes = file.metadata()?.len();
        match self.closed.last_mut() {
            Some(last) if last.number == number => last.bytes = bytes,
            _ => self.closed.push(Closed { number, bytes }),
        }
        written?;
        remove(&self.folder.join(self.names.current))
    }

    /// Removes what is too old, and what leaves no room for so many bytes.
    fn expire(&mut self, length: u64, now: u64) -> io::Result<()> {
        let room = self.max_bytes - 2 * (self.max_bytes / SHARE_OF_CURRENT);
        while let Some(oldest) = self.closed.first() {
            let path = self.path(oldest.number);
            // When the latest record was added.
            let modified = fs::metadata(&path).map_or(0, |of| of.mtime());
            let age = now.saturating_sub(u64::try_from(modified).unwrap_or(0));
            // The line break that may stand before what is added.
            let total: u64 = self.closed.iter().map(|of| of.bytes + 1).sum();
            if age <= self.keep_seconds && total + length <= room {
                break;
            }
            remove(&path)?;
            self.closed.remove(0);
        }
        Ok(())
    }

    fn lines(&self, minute: &Minute) -> io::Result<(Vec<u8>, usize)> {
        let most = usize::try_from(self.max_bytes / SHARE_OF_CURRENT).unwrap_or(usize::MAX);
        let (mut lines, mut left_out) = (Vec::new(), 0);
        for (of, counted) in &minute.records {
            let before = lines.len();
            let minute = minute.number;
            let written = Written {
                minute,
                of,
                counted,
            };
            serde_json::to_writer(&mut lines, &written)?;
            lines.push(b'\n');
            if lines.len() > most {
                lines.truncate(before);
                left_out += 1;
            }
        }
        Ok((lines, left_out))
    }

    /// Returns what reads the minutes that are over, while others are added.
    pub(super) fn reader(&self) -> Reader {
        let paths = self.closed.iter().map(|of| self.path(of.number));
        Reader {
            paths: paths.collect(),
            max_bytes: self.max_bytes,
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(self.names.name_of(number))
    }
}

/// Reads the files of minutes that are over.
#[derive(Debug)]
pub(super) struct Reader {
    paths: Vec<PathBuf>,
    max_bytes: u64,
}

impl Reader {
    /// Hands on each record, the oldest minute first; returns what cannot be read.
    pub(super) fn read(&self, mut visit: impl FnMut(Line)) -> Vec<String> {
        let mut problems = Vec::new();
        for path in &self.paths {
            let (lines, problem) = read(path, self.max_bytes);
            lines.into_iter().for_each(&mut visit);
            problems.extend(problem);
        }
        problems
    }
}

impl FileNames {
    fn name_of(self, number: u64) -> String {
        format!("{}{number:010}.jsonl", self.closed)
    }

    fn number_of(self, name: &str) -> Option<u64> {
        let number = name.strip_prefix(self.closed)?.strip_suffix(".jsonl")?;
        number.parse().ok()
    }

    /// Returns whether a folder has any records of this kind.
    pub(super) fn are_in(self, folder: &Path) -> bool {
        let Ok(mut entries) = fs::read_dir(folder) else {
            return false;
        };
        let is_one = |name: &str| name == self.current || self.number_of(name).is_some();
        entries.any(|entry| entry.is_ok_and(|entry| is_one(&entry.file_name().to_string_lossy())))
    }
}

/// Reads a file; what is not there has no records.
fn read(path: &Path, max_bytes: u64) -> (Vec<Line>, Option<String>) {
    let name = path.display();
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return (Vec::new(), None),
        Ok(of) if of.len() > max_bytes => {
            let problem = format!("{name} is longer than all records may be");
            return (Vec::new(), Some(problem));
        }
        _ => {}
    }
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return (Vec::new(), None),
        Err(error) => return (Vec::new(), Some(format!("reading {name} failed: {error}"))),
    };
    let (mut lines, mut damaged) = (Vec::new(), 0);
    let written = bytes.split(|byte| *byte == b'\n');
    for line in written.filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(line) => lines.push(line),
            Err(_) => damaged += 1,
        }
    }
    let problem = format!("{name}: {damaged} records cannot be read");
    (lines, (damaged > 0).then_some(problem))
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.create(true).truncate(true).write(true).mode(0o600);
    options.open(path)
}

/// Opens a file to add lines; what was cut short there ends first.
fn open_for_append(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.create(true).append(true).read(true).mode(0o600);
    let mut file = options.open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    end_last_line(&mut file)?;
    Ok(file)
}

/// Ends a line that was cut short, in a file that is open for reading and adding.
pub(super) fn end_last_line(file: &mut File) -> io::Result<()> {
    let length = file.metadata()?.len();
    let mut last = *b"\n";
    if let Some(at) = length.checked_sub(1) {
        file.read_exact_at(&mut last, at)?;
    }
    if last != *b"\n" {
        file.write_all(b"\n")?;
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
