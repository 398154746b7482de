//! The store on sled 0.34, with the measures that its known failures call for.
//!
//! - `flush()` only starts the write-back on Linux (`sync_file_range`): a power cut would lose
//!   acknowledged writes. Every commit is followed by `fdatasync` on the log file.
//! - A kill while sled opens leaves a half-written `snap.*.generating` that makes every later
//!   open fail: such files are removed first. A damaged snapshot is set aside; sled rebuilds it
//!   from the log.
//! - A kill during the very first creation may leave half a database: it is created under
//!   another name and renamed.
//! - sled's own threads may hold its file for a moment after the database was dropped: an open
//!   waits until they have let go.
//!
//! One tree holds all buckets (a key begins with the bucket's byte), so that a batch over
//! several buckets is one atomic batch. Each record carries a schema version and a CRC.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::{Bucket, Record, Store, StoreError, Write, export, record};

/// Commits between two exports.
const EXPORT_EVERY: u32 = 256;

/// sled's threads may take a moment to let go of a database that was dropped: ten seconds at most.
const RELEASE_TRIES: u32 = 5_000;
const RELEASE_PAUSE: Duration = Duration::from_millis(2);

/// A store in a directory of its own.
#[derive(Debug)]
pub struct SledStore {
    tree: sled::Tree,
    db: sled::Db,
    /// sled's log: what has to be on the disk before a commit is acknowledged.
    log: File,
    folder: PathBuf,
    /// Guards the number of commits since the last export and lets one export run at a time.
    since_export: Mutex<u32>,
    /// Held as long as the store is open.
    _lock: Flock<File>,
}

impl SledStore {
    /// Opens the store, or creates it. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process has it open, [`StoreError::Open`] otherwise.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let fail = |source: io::Error| open_error(folder, source);
        fs::create_dir_all(folder).map_err(fail)?;
        let lock = lock(folder)?;
        let database = folder.join("db");
        if !database.exists() {
            create(folder, &database)?;
        }
        let (db, restore) = match open_repaired(&database) {
            Ok(db) => (db, false),
            Err(error) if means_damage(&error) => {
                set_aside(folder, &database, &error)?;
                create(folder, &database)?;
                (
                    open_engine(&database).map_err(|e| open_error(folder, e))?,
                    true,
                )
            }
            Err(error) => return Err(open_error(folder, error)),
        };
        let tree = db.open_tree("records").map_err(|e| open_error(folder, e))?;
        let log = File::open(database.join("db")).map_err(fail)?;
        let store = Self {
            tree,
            db,
            log,
            folder: folder.to_owned(),
            since_export: Mutex::new(0),
            _lock: lock,
        };
        if restore {
            store.restore_export()?;
        }
        Ok(store)
    }

    /// Reads the last export into a fresh database.
    fn restore_export(&self) -> Result<(), StoreError> {
        let records =
            export::read(&self.folder).map_err(|source| open_error(&self.folder, source))?;
        tracing::error!(
            records = records.len(),
            "store was damaged; the last export is restored"
        );
        let mut batch = sled::Batch::default();
        for (key, value) in records {
            batch.insert(key, value);
        }
        self.apply(batch)
    }

    fn apply(&self, batch: sled::Batch) -> Result<(), StoreError> {
        let fail = |source: Box<dyn std::error::Error + Send + Sync>| StoreError::Commit { source };
        self.tree.apply_batch(batch).map_err(|e| fail(e.into()))?;
        self.db.flush().map_err(|e| fail(e.into()))?;
        self.log.sync_data().map_err(|e| fail(e.into()))
    }

    /// Counts a commit and writes an export when one is due. A failed export is logged: it is
    /// the second line of defence, the commit itself is on the disk.
    fn export_if_due(&self) {
        let mut since = self
            .since_export
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        *since += 1;
        if *since >= EXPORT_EVERY {
            *since = 0;
            self.export();
        }
    }

    fn export(&self) {
        let records = self.tree.iter().filter_map(|record| record.ok());
        let records = records.map(|(key, value)| (key.to_vec(), value.to_vec()));
        if let Err(error) = export::write(&self.folder, records) {
            tracing::warn!(%error, "store export failed");
        }
    }

    fn decode(&self, bucket: Bucket, key: &[u8], value: &[u8]) -> Result<Vec<u8>, StoreError> {
        record::decode(value).map_err(|problem| StoreError::Damaged {
            bucket,
            key: String::from_utf8_lossy(key).into_owned(),
            problem: problem.to_owned(),
        })
    }

    /// Moves a damaged record out of the way so that it is reported once.
    fn set_record_aside(&self, bucket: Bucket, key: &[u8], value: &[u8], error: &StoreError) {
        tracing::error!(%error, ?bucket, "damaged record set aside");
        let name = format!("damaged-{bucket:?}-{:08x}", record::checksum(key));
        if let Err(error) = fs::write(self.folder.join(name), value) {
            tracing::warn!(%error, "keep damaged record");
            return;
        }
        let mut batch = sled::Batch::default();
        batch.remove(full_key(bucket, key));
        if let Err(error) = self.apply(batch) {
            tracing::warn!(%error, "remove damaged record");
        }
    }
}

impl Store for SledStore {
    fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let value = self
            .tree
            .get(full_key(bucket, key))
            .map_err(|source| StoreError::Read {
                bucket,
                source: source.into(),
            })?;
        value
            .map(|value| self.decode(bucket, key, &value))
            .transpose()
    }

    fn scan(&self, bucket: Bucket, prefix: &[u8]) -> Result<Vec<Record>, StoreError> {
        let mut found = Vec::new();
        for record in self.tree.scan_prefix(full_key(bucket, prefix)) {
            let (key, value) = record.map_err(|source| StoreError::Read {
                bucket,
                source: source.into(),
            })?;
            let key = key.get(1..).unwrap_or_default();
            match self.decode(bucket, key, &value) {
                Ok(value) => found.push((key.to_vec(), value)),
                Err(error) => self.set_record_aside(bucket, key, &value, &error),
            }
        }
        Ok(found)
    }

    fn commit(&self, batch: Vec<Write>) -> Result<(), StoreError> {
        let mut writes = sled::Batch::default();
        for write in batch {
            match write {
                Write::Put(bucket, key, value) => {
                    writes.insert(full_key(bucket, &key), record::encode(&value));
                }
                Write::Delete(bucket, key) => writes.remove(full_key(bucket, &key)),
            }
        }
        self.apply(writes)?;
        self.export_if_due();
        Ok(())
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        self.export();
    }
}

fn full_key(bucket: Bucket, key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(key.len() + 1);
    full.push(bucket.byte());
    full.extend_from_slice(key);
    full
}

fn open_error(
    folder: &Path,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> StoreError {
    StoreError::Open {
        dir: folder.display().to_string(),
        source: source.into(),
    }
}

fn lock(folder: &Path) -> Result<Flock<File>, StoreError> {
    let path = folder.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|source| open_error(folder, source))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => StoreError::Locked {
            dir: folder.display().to_string(),
        },
        other => open_error(folder, other),
    })
}

fn open_engine(database: &Path) -> Result<sled::Db, sled::Error> {
    wait_until_released(database)?;
    // No background flusher: a commit flushes itself, and nothing else counts as written.
    sled::Config::new()
        .path(database)
        .flush_every_ms(None)
        .cache_capacity(8 << 20)
        .open()
}

/// Creates an empty database under another name, then renames it: after a kill there is either
/// none or a whole one.
fn create(folder: &Path, database: &Path) -> Result<(), StoreError> {
    let fail = |source: io::Error| open_error(folder, source);
    let fresh = folder.join("db.creating");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).map_err(fail)?;
    }
    let db = open_engine(&fresh).map_err(|e| open_error(folder, e))?;
    db.open_tree("records").map_err(|e| open_error(folder, e))?;
    db.flush().map_err(|e| open_error(folder, e))?;
    drop(db);
    for entry in fs::read_dir(&fresh).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.is_file() {
            File::open(path)
                .and_then(|file| file.sync_all())
                .map_err(fail)?;
        }
    }
    File::open(&fresh)
        .and_then(|dir| dir.sync_all())
        .map_err(fail)?;
    fs::rename(&fresh, database).map_err(fail)?;
    File::open(folder)
        .and_then(|dir| dir.sync_all())
        .map_err(fail)
}

/// Waits until nobody holds the database's file. No other process of ours can: `lock` is held.
fn wait_until_released(database: &Path) -> io::Result<()> {
    let mut tries = 0;
    loop {
        let file = match File::open(database.join("db")) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Err((_, Errno::EWOULDBLOCK)) if tries < RELEASE_TRIES => {
                tries += 1;
                std::thread::sleep(RELEASE_PAUSE);
            }
            Err((_, errno)) => return Err(errno.into()),
            Ok(_) => return Ok(()),
        }
    }
}

/// Whether the database itself is broken. An error of the machine (no memory, no descriptors, no
/// permission, a full or failing disk) is not: the data may be whole, and stays where it is.
fn means_damage(error: &sled::Error) -> bool {
    match error {
        sled::Error::Io(error) => matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::InvalidData
                | io::ErrorKind::InvalidInput
                | io::ErrorKind::IsADirectory
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::NotFound
        ),
        _ => true,
    }
}

/// Opens an existing database; repairs what a kill in sled's own start-up leaves behind.
fn open_repaired(database: &Path) -> Result<sled::Db, sled::Error> {
    for path in snapshots(database)? {
        if path
            .extension()
            .is_some_and(|extension| extension == "generating")
        {
            tracing::warn!(path = %path.display(), "unfinished snapshot removed");
            fs::remove_file(path)?;
        }
    }
    match open_engine(database) {
        Err(error @ sled::Error::Corruption { .. }) => {
            tracing::warn!(%error, "store snapshot is damaged; rebuilding it from the log");
            for path in snapshots(database)? {
                let mut aside = path.clone().into_os_string();
                aside.push(".damaged");
                // Out of the way under a name that sled does not take for a snapshot.
                let name = PathBuf::from(aside);
                let name = name.file_name().unwrap_or_default();
                let parent = database.parent().unwrap_or(database);
                fs::rename(&path, parent.join(name))?;
            }
            open_engine(database)
        }
        other => other,
    }
}

fn snapshots(database: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(database)? {
        let path = entry?.path();
        if path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("snap."))
        {
            found.push(path);
        }
    }
    Ok(found)
}

/// Keeps a database that cannot be opened for a person to look at.
fn set_aside(folder: &Path, database: &Path, error: &sled::Error) -> Result<(), StoreError> {
    tracing::error!(%error, "store cannot be opened; it is set aside");
    for number in 0.. {
        let aside = folder.join(format!("db.damaged.{number}"));
        if !aside.exists() {
            return fs::rename(database, aside).map_err(|source| open_error(folder, source));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Bucket::{Leases, Objects};

    fn put(bucket: Bucket, key: &str, value: &str) -> Write {
        Write::Put(bucket, key.as_bytes().to_vec(), value.as_bytes().to_vec())
    }

    #[test]
    fn records_survive_a_reopen_and_buckets_do_not_mix() {
        let folder = tempfile::tempdir().unwrap();
        let store = SledStore::open(folder.path()).unwrap();
        store
            .commit(vec![put(Leases, "a", "1"), put(Objects, "a", "2")])
            .unwrap();
        store
            .commit(vec![Write::Delete(Leases, b"b".to_vec())])
            .unwrap();
        drop(store);
        let store = SledStore::open(folder.path()).unwrap();
        assert_eq!(store.get(Leases, b"a").unwrap().unwrap(), b"1");
        assert_eq!(
            store.scan(Objects, b"").unwrap(),
            [(b"a".to_vec(), b"2".to_vec())]
        );
        assert_eq!(store.get(Leases, b"b").unwrap(), None);
    }

    #[test]
    fn a_second_process_is_kept_out() {
        let folder = tempfile::tempdir().unwrap();
        let _store = SledStore::open(folder.path()).unwrap();
        let error = SledStore::open(folder.path()).unwrap_err();
        assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    }

    #[expect(clippy::disallowed_methods, reason = "it is joined")]
    #[test]
    fn a_database_that_cannot_be_read_now_stays_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let store = SledStore::open(folder.path()).unwrap();
        store.commit(vec![put(Objects, "k", "v")]).unwrap();
        drop(store);
        // Somebody else holds sled's own file.
        let file = File::open(folder.path().join("db/db")).unwrap();
        let held = Flock::lock(file, FlockArg::LockExclusive).unwrap();
        let release = std::thread::spawn(move || {
            // Long enough for the open below to find it held.
            std::thread::sleep(Duration::from_millis(50));
            drop(held);
        });
        let store = SledStore::open(folder.path()).unwrap();
        release.join().unwrap();
        assert_eq!(store.get(Objects, b"k").unwrap().unwrap(), b"v");
        assert!(!folder.path().join("db.damaged.0").exists());
    }

    #[test]
    fn an_unfinished_snapshot_does_not_stop_the_next_open() {
        let folder = tempfile::tempdir().unwrap();
        let store = SledStore::open(folder.path()).unwrap();
        store.commit(vec![put(Objects, "k", "v")]).unwrap();
        drop(store);
        fs::write(
            folder.path().join("db/snap.00000000FFFFFFFF.generating"),
            b"half",
        )
        .unwrap();
        let store = SledStore::open(folder.path()).unwrap();
        assert_eq!(store.get(Objects, b"k").unwrap().unwrap(), b"v");
    }

    #[test]
    fn a_truncated_snapshot_is_rebuilt_from_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let store = SledStore::open(folder.path()).unwrap();
        for number in 0..50 {
            store
                .commit(vec![put(Objects, &format!("k{number}"), "v")])
                .unwrap();
        }
        drop(store);
        for path in snapshots(&folder.path().join("db")).unwrap() {
            fs::write(path, b"x").unwrap();
        }
        let store = SledStore::open(folder.path()).unwrap();
        assert_eq!(store.scan(Objects, b"").unwrap().len(), 50);
    }

    #[test]
    fn a_database_beyond_repair_is_set_aside_and_the_export_restored() {
        let folder = tempfile::tempdir().unwrap();
        let store = SledStore::open(folder.path()).unwrap();
        store.commit(vec![put(Objects, "k", "v")]).unwrap();
        drop(store);
        fs::remove_file(folder.path().join("db/conf")).unwrap();
        fs::create_dir(folder.path().join("db/conf")).unwrap();
        let store = SledStore::open(folder.path()).unwrap();
        assert_eq!(store.get(Objects, b"k").unwrap().unwrap(), b"v");
        assert!(folder.path().join("db.damaged.0").exists());
    }

    #[test]
    fn a_damaged_record_is_set_aside_and_the_others_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let store = SledStore::open(folder.path()).unwrap();
        store
            .commit(vec![put(Objects, "good", "v"), put(Objects, "bad", "v")])
            .unwrap();
        store
            .tree
            .insert(full_key(Objects, b"bad"), b"\x01garbage")
            .unwrap();
        let error = store.get(Objects, b"bad").unwrap_err();
        assert!(error.to_string().contains("bad"), "{error}");
        assert_eq!(store.scan(Objects, b"").unwrap().len(), 1);
        assert_eq!(store.get(Objects, b"bad").unwrap(), None);
    }
}
