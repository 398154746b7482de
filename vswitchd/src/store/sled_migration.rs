//! Reads a store in the format of earlier releases, once: a sled database `db`, and beside it
//! `export.jsonl` with all records of some moment.
//!
//! sled takes a damaged place in its log for the end of it, so that a database may have less
//! than was acknowledged and say nothing. The export knows better if its counters are ahead.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::loss::Loss;
use super::{Bucket, Write};

const DATABASE: &str = "db";
const EXPORT: &str = "export.jsonl";

/// Counters that only grow.
const COUNTERS: [&[u8]; 2] = [b"objects/resource_version", b"cluster/last_known"];

/// A file system in memory, which every Linux has (tmpfs, kernel Documentation/filesystems/tmpfs.rst).
const MEMORY: &str = "/dev/shm";

const RELEASE_TRIES: u32 = 5_000;
const RELEASE_PAUSE: Duration = Duration::from_millis(2);

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Keys, with the bucket's byte before them, and values in their envelopes.
type Raw = BTreeMap<Vec<u8>, Vec<u8>>;

/// What an earlier release has left.
#[derive(Debug, Default)]
pub(super) struct Migrated {
    pub(super) records: Vec<Write>,
    pub(super) losses: BTreeSet<Loss>,
}

/// Reads what an earlier release has left in a store's folder, if it has. Blocks.
///
/// # Errors
/// The machine refuses to read it; what is damaged is a loss and no error.
pub(super) fn read(folder: &Path) -> Result<Option<Migrated>, Cause> {
    let database = folder.join(DATABASE);
    let export = fs::read_to_string(folder.join(EXPORT)).ok();
    let export = export.as_deref().and_then(read_export);
    let stored = if database.is_dir() {
        open(&database)?
    } else if export.is_some() {
        None
    } else {
        return Ok(None);
    };
    let mut migrated = Migrated::default();
    let raw = match (stored, export) {
        (Some(stored), Some(export)) if is_ahead(&export, &stored) => {
            migrated.losses.insert(Loss::SinceExport);
            export
        }
        (Some(stored), _) => stored,
        (None, Some(export)) => {
            migrated.losses.insert(Loss::SinceExport);
            export
        }
        (None, None) => {
            migrated.losses.insert(Loss::Everything);
            Raw::new()
        }
    };
    for (key, value) in raw {
        migrated.add(&key, &value);
    }
    let records = migrated.records.len();
    tracing::info!(records, "store of an earlier release read");
    Ok(Some(migrated))
}

/// Puts what was read out of the way, once its records are stored anew.
pub(super) fn retire(folder: &Path) -> io::Result<()> {
    for name in [DATABASE, EXPORT] {
        let old = folder.join(name);
        if old.exists() {
            fs::rename(old, folder.join(format!("{name}.migrated")))?;
        }
    }
    Ok(())
}

impl Migrated {
    fn add(&mut self, full_key: &[u8], value: &[u8]) {
        let Some((byte, key)) = full_key.split_first() else {
            return;
        };
        let Some(bucket) = Bucket::of_byte(*byte) else {
            return;
        };
        match payload(value) {
            Some(payload) => {
                let write = Write::Put(bucket, key.to_vec(), payload.to_vec());
                self.records.push(write);
            }
            None => {
                self.losses.insert(Loss::Record {
                    bucket,
                    key: String::from_utf8_lossy(key).into_owned(),
                });
            }
        }
    }
}

/// Takes a value out of its envelope: version 1, CRC-32, payload.
fn payload(value: &[u8]) -> Option<&[u8]> {
    let (sum, payload) = value.strip_prefix(&[1])?.split_first_chunk::<4>()?;
    (u32::from_be_bytes(*sum) == crc32fast::hash(payload)).then_some(payload)
}

/// Opens the database; `None`: it is damaged.
fn open(database: &Path) -> Result<Option<Raw>, Cause> {
    // A kill while sled opened leaves a file of this name that makes every later open fail.
    for entry in fs::read_dir(database)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "generating") {
            fs::remove_file(path)?;
        }
    }
    match scan(database) {
        Ok(raw) => Ok(Some(raw)),
        Err(error) if means_damage(&error) => {
            // The log has everything that a damaged snapshot of sled's has.
            for entry in fs::read_dir(database)? {
                let path = entry?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                if name.starts_with("snap.") {
                    fs::rename(&path, database.join(format!("damaged-{name}")))?;
                }
            }
            match scan(database) {
                Ok(raw) => Ok(Some(raw)),
                Err(error) if means_damage(&error) => {
                    tracing::error!(%error, "opening the store of an earlier release failed");
                    Ok(None)
                }
                Err(error) => Err(error.into()),
            }
        }
        Err(error) => Err(error.into()),
    }
}

/// Reads all records; from a copy in memory if the disk has no room for what sled writes to it
/// when it opens a database.
fn scan(database: &Path) -> Result<Raw, sled::Error> {
    match scan_in_place(database) {
        Err(sled::Error::Io(error)) if error.kind() == io::ErrorKind::StorageFull => {
            tracing::warn!(%error, "store of an earlier release is read from a copy in memory");
            let copy = tempfile::tempdir_in(MEMORY)?;
            copy_folder(database, copy.path())?;
            scan_in_place(copy.path())
        }
        other => other,
    }
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn scan_in_place(database: &Path) -> Result<Raw, sled::Error> {
    wait_until_released(database)?;
    let db = sled::Config::new()
        .path(database)
        .flush_every_ms(None)
        .cache_capacity(8 << 20)
        .open()?;
    let tree = db.open_tree("records")?;
    let mut raw = Raw::new();
    for record in &tree {
        let (key, value) = record?;
        raw.insert(key.to_vec(), value.to_vec());
    }
    Ok(raw)
}

/// sled's own threads may hold its file for a moment after a database was dropped.
fn wait_until_released(database: &Path) -> io::Result<()> {
    for _ in 0..RELEASE_TRIES {
        let file = match File::open(database.join("db")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Err((_, Errno::EWOULDBLOCK)) => std::thread::sleep(RELEASE_PAUSE),
            Err((_, errno)) => return Err(errno.into()),
            Ok(_) => return Ok(()),
        }
    }
    Err(Errno::EWOULDBLOCK.into())
}

/// Whether the database itself is broken. An error of the machine (no memory, no descriptors, no
/// permission, a full or failing disk) is not: the data may be whole.
fn means_damage(error: &sled::Error) -> bool {
    use io::ErrorKind;
    match error {
        sled::Error::Io(error) => matches!(
            error.kind(),
            ErrorKind::UnexpectedEof
                | ErrorKind::InvalidData
                | ErrorKind::InvalidInput
                | ErrorKind::IsADirectory
                | ErrorKind::NotADirectory
                | ErrorKind::NotFound
        ),
        _ => true,
    }
}

/// Reads an export: a JSON array of key and value in hexadecimal on each line.
fn read_export(text: &str) -> Option<Raw> {
    let record = |line: &str| {
        let [key, value]: [String; 2] = serde_json::from_str(line).ok()?;
        Some((unhex(&key)?, unhex(&value)?))
    };
    text.lines().map(record).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).map(pair).collect()
}

/// Whether an export was written after the last that a database knows.
fn is_ahead(export: &Raw, stored: &Raw) -> bool {
    let counter = |raw: &Raw, key: &[u8]| {
        let mut full = vec![Bucket::Meta.byte()];
        full.extend_from_slice(key);
        let text = std::str::from_utf8(payload(raw.get(&full)?)?).ok()?;
        text.parse::<u64>().ok().or_else(|| {
            let note: serde_json::Value = serde_json::from_str(text).ok()?;
            note["heard_at"].as_u64()
        })
    };
    let is_emptied = stored.is_empty() && !export.is_empty();
    is_emptied
        || COUNTERS
            .iter()
            .any(|key| counter(export, key) > counter(stored, key))
}
