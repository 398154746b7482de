//! The store in its folder: two logs to which every commit goes, snapshots, and what follows
//! from a disk that refuses.
//!
//! | file | holds |
//! |---|---|
//! | `log-N.a`, `log-N.b` | the commits since the snapshot that began with them, twice |
//! | `snapshot-N` | all records after commit N; the two newest are kept, with the logs after each |
//! | `head` | the number of the last acknowledged commit; not waited for, never ahead of the disk |
//! | `lock` | held by the process that has the store open; not empty once the store was in use |
//! | `room` | there for a moment, to see whether a disk that was full has room again |
//! | `damaged/` | files that could not be read, for a person to look at |
//!
//! A commit is acknowledged when both logs have it (`fdatasync` in parallel). Snapshots are
//! written by a thread of their own from a copy that costs nothing; a commit waits for none.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use super::frame::{self, Kind, SNAPSHOT_PART, Tag};
use super::lock::StoreLock;
use super::loss::{self, Loss};
use super::recover::{Named, Recovered, recover};
use super::{Bucket, Record, Records, Store, StoreError, Write, sled_migration};

/// A log that is longer than this and than the last snapshot calls for the next snapshot.
const ROLL_AT: u64 = 1 << 20;

/// Pause before a disk that refused is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Snapshots that are kept.
const GENERATIONS: usize = 2;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A store in a directory of its own.
#[derive(Debug)]
pub struct LogStore {
    inner: Arc<Inner>,
    /// Wakes the thread that writes snapshots; dropped to end it.
    jobs: Option<SyncSender<()>>,
    snapshots: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    /// What is acknowledged; its lock is held for the time of a look-up.
    records: RwLock<Records>,
    /// Held by one commit at a time, across the disk.
    writer: Mutex<Writer>,
    /// Why the last commit failed.
    failure: Mutex<Option<String>>,
    losses: watch::Sender<Arc<Vec<Loss>>>,
    /// Held as long as the store is open.
    lock: StoreLock,
}

#[derive(Debug)]
struct Writer {
    seq: u64,
    chain: u32,
    roll: u32,
    /// `None`: the disk refused, and the next commit begins another pair.
    pair: Option<Pair>,
    head: Option<File>,
    /// Bytes of the last snapshot.
    snapshot_len: u64,
    /// Whether the next snapshot has been asked for.
    is_due: bool,
    /// What is in the records and not yet on the disk: what the start has found.
    pending: Vec<Write>,
    /// Snapshots that are kept, each with the number of the pair that began with it.
    generations: VecDeque<(String, u32)>,
    /// Bytes of the longest commit for which the disk had no room; 0 since there was room for it.
    refused: u64,
}

impl LogStore {
    /// Opens the store, or creates it; waits for another process to let go of it. Blocks.
    ///
    /// A disk that cannot be written to is no error: what is on it is there to be read, and
    /// [`Store::health`] says what is wrong.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process keeps it open, [`StoreError::Open`] otherwise.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let fail = |source: Cause| StoreError::Open {
            dir: folder.display().to_string(),
            source,
        };
        let made = make_private(folder);
        if !folder.is_dir() {
            made.map_err(|error| fail(error.into()))?;
        }
        let lock = StoreLock::wait(folder)?;
        let files = read_all(folder).map_err(|error| fail(error.into()))?;
        let mut found = recover(&files);
        // Files alone do not say so: a start on a full disk may have left empty ones.
        let is_new = found.seq == 0 && !lock.is_marked();
        drop(files);
        let mut pending = Vec::new();
        if is_new && let Some(old) = sled_migration::read(folder).map_err(fail)? {
            (pending, found.losses) = (old.records, old.losses);
        } else if found.seq == 0 && !is_new {
            found.losses = BTreeSet::from([Loss::Everything]);
        }
        found.say();
        pending.extend(found.losses.iter().map(Loss::put));
        let inner = Arc::new(Inner {
            folder: folder.to_owned(),
            records: RwLock::new(std::mem::take(&mut found.records)),
            writer: Mutex::new(Writer {
                seq: found.seq,
                chain: found.chain,
                roll: found.roll,
                pair: None,
                head: None,
                snapshot_len: 0,
                is_due: false,
                pending: pending.clone(),
                generations: VecDeque::new(),
                refused: 0,
            }),
            failure: Mutex::new(None),
            losses: watch::Sender::default(),
            lock,
        });
        inner.apply(pending);
        inner.note_losses();
        if let Err(error) = inner.begin(&found) {
            inner.fails(&error);
        }
        // One that waits stands for all that are asked for.
        let (jobs, asked) = sync_channel(1);
        let worker = Arc::clone(&inner);
        #[expect(clippy::disallowed_methods, reason = "`health` says when it has ended")]
        let snapshots = std::thread::Builder::new()
            .name("vsw-snapshots".to_owned())
            .spawn(move || worker.keep_snapshots(&asked))
            .map_err(|error| fail(error.into()))?;
        Ok(Self {
            inner,
            jobs: Some(jobs),
            snapshots: Some(snapshots),
        })
    }
}

impl Drop for LogStore {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.snapshots.take()
            && thread.join().is_err()
        {
            tracing::error!("writing snapshots of the store ended by a panic");
        }
    }
}

impl Recovered {
    fn say(&self) {
        for (file, problem) in &self.damaged {
            tracing::error!(file, problem, "store file is damaged");
        }
        for loss in &self.losses {
            tracing::error!(%loss, "store has lost something that was acknowledged");
        }
        if !self.damaged.is_empty() && self.losses.is_empty() {
            tracing::warn!(
                commit = self.seq,
                "store restored from its other copies; nothing is lost"
            );
        }
    }
}

impl Inner {
    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn records(&self) -> Records {
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        records.clone()
    }

    fn failure(&self) -> MutexGuard<'_, Option<String>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fails(&self, error: &dyn std::fmt::Display) {
        let error = error.to_string();
        let mut failure = self.failure();
        if failure.as_ref() != Some(&error) {
            let folder = self.folder.display();
            tracing::error!(%folder, error, "writing to the store failed");
        }
        *failure = Some(error);
    }

    /// Ends the failure, unless the disk has room for what it wrote and for no more: a commit
    /// that was refused would be refused again.
    fn works(&self, writer: &mut Writer) {
        if self.failure().is_none() || self.try_room(writer.refused).is_err() {
            return;
        }
        writer.refused = 0;
        *self.failure() = None;
        tracing::info!("store can be written to again");
    }

    /// Writes as much as a commit of this length takes in both logs, and removes it.
    fn try_room(&self, length: u64) -> io::Result<()> {
        let path = self.folder.join(ROOM);
        let written = create(&path).and_then(|file| {
            let mut zeros = io::repeat(0).take(2 * length);
            io::copy(&mut zeros, &mut &file)?;
            file.sync_data()
        });
        written.and(remove(&path))
    }

    /// Begins a pair of logs and a snapshot after a start; then what is older may go.
    fn begin(&self, found: &Recovered) -> Result<(), Cause> {
        make_private(&self.folder)?;
        let mut writer = self.writer();
        self.roll(&mut writer)?;
        if writer.seq == 0 || !writer.pending.is_empty() {
            self.write_batch(&mut writer, Vec::new())?;
        }
        let (seq, roll) = (writer.seq, writer.roll);
        writer.snapshot_len = self.write_snapshot(seq, writer.chain, &self.records())?;
        writer.generations.push_back((snapshot_name(seq), roll));
        self.write_head(&mut writer);
        drop(writer);
        self.lock.mark()?;
        sled_migration::retire(&self.folder)?;
        for (file, _) in &found.damaged {
            let is_new = *file == snapshot_name(seq);
            if !is_new {
                self.set_aside(file)?;
            }
        }
        for file in found.obsolete(seq) {
            remove(&self.folder.join(&file.name))?;
        }
        Ok(())
    }

    fn set_aside(&self, file: &str) -> io::Result<()> {
        let from = self.folder.join(file);
        if file == HEAD || !from.is_file() {
            return Ok(());
        }
        let aside = self.folder.join("damaged");
        make_private(&aside)?;
        fs::rename(from, aside.join(file))
    }

    /// Begins another pair of logs.
    fn roll(&self, writer: &mut Writer) -> io::Result<()> {
        let files = self.create_pair(writer.roll + 1)?;
        self.take_pair(writer, files)
    }

    fn create_pair(&self, roll: u32) -> io::Result<[File; 2]> {
        let file = |twin: &str| create(&self.folder.join(format!("log-{roll}.{twin}")));
        let files = [file("a")?, file("b")?];
        sync_folder(&self.folder)?;
        Ok(files)
    }

    fn take_pair(&self, writer: &mut Writer, files: [File; 2]) -> io::Result<()> {
        writer.roll += 1;
        let tag = Tag {
            kind: Kind::Begin,
            seq: writer.seq,
            roll: writer.roll,
            prev: writer.chain,
        };
        let (begin, _) = frame::encode(tag, std::iter::empty()).map_err(io::Error::other)?;
        writer.pair = Some(Pair::new(files, &begin)?);
        Ok(())
    }

    fn commit(&self, batch: Vec<Write>) -> Result<bool, StoreError> {
        let mut writer = self.writer();
        let outcome = self.write_batch(&mut writer, batch);
        match &outcome {
            Ok(_) => self.works(&mut writer),
            Err(error) => self.fails(error),
        }
        outcome.map_err(|source| StoreError::Commit { source })
    }

    fn write_batch(&self, writer: &mut Writer, mut batch: Vec<Write>) -> Result<bool, Cause> {
        let losses = Arc::clone(&self.losses.borrow());
        let healed = |loss: &&Loss| batch.iter().any(|write| loss.is_healed_by(write));
        let healed: Vec<Write> = losses.iter().filter(healed).map(Loss::delete).collect();
        batch.extend(healed);
        if writer.pair.is_none() {
            self.roll(writer)?;
        }
        let tag = Tag {
            kind: Kind::Commit,
            seq: writer.seq + 1,
            roll: writer.roll,
            prev: writer.chain,
        };
        let mut all = std::mem::take(&mut writer.pending);
        let pending = all.len();
        all.append(&mut batch);
        let (length, sum) = match write_frame(writer, tag, &all) {
            Ok(written) => written,
            Err(error) => {
                all.truncate(pending);
                writer.pending = all;
                return Err(error);
            }
        };
        (writer.seq, writer.chain) = (tag.seq, sum);
        if !self.lock.is_marked()
            && let Err(error) = self.lock.mark()
        {
            tracing::warn!(%error, "marking the store as one that is in use failed");
        }
        self.write_head(writer);
        self.apply(all);
        let is_long = length > ROLL_AT.max(writer.snapshot_len);
        let asks = is_long && !std::mem::replace(&mut writer.is_due, is_long);
        Ok(asks)
    }

    fn apply(&self, batch: Vec<Write>) {
        let mut records = self.records.write().unwrap_or_else(PoisonError::into_inner);
        let mut touches_losses = false;
        for write in batch {
            let (Write::Put(bucket, key, _) | Write::Delete(bucket, key)) = &write;
            touches_losses |= *bucket == Bucket::Meta && key.starts_with(loss::PREFIX.as_bytes());
            match write {
                Write::Put(bucket, key, value) => {
                    records.insert((bucket, key.into()), value.into());
                }
                Write::Delete(bucket, key) => {
                    records.remove(&(bucket, key.into()));
                }
            }
        }
        if touches_losses {
            drop(records);
            self.note_losses();
        }
    }

    fn note_losses(&self) {
        self.losses
            .send_replace(Arc::new(losses_in(&self.records())));
    }

    /// Not waited for: a head that is behind costs nothing, one that is ahead cannot be.
    fn write_head(&self, writer: &mut Writer) {
        let tag = Tag {
            kind: Kind::Head,
            seq: writer.seq,
            roll: 0,
            prev: 0,
        };
        let written = (|| -> Result<(), Cause> {
            let (head, _) = frame::encode(tag, std::iter::empty())?;
            if writer.head.is_none() {
                writer.head = Some(create(&self.folder.join(HEAD))?);
            }
            if let Some(file) = &writer.head {
                file.write_all_at(&head, 0)?;
            }
            Ok(())
        })();
        if let Err(error) = written {
            tracing::debug!(%error, "writing the head of the store failed");
            writer.head = None;
        }
    }

    /// Writes all records under another name, then renames; returns how many bytes they took.
    fn write_snapshot(&self, seq: u64, chain: u32, records: &Records) -> io::Result<u64> {
        let fresh = self.folder.join("snapshot.writing");
        let file = create(&fresh)?;
        let (mut length, mut part) = (0, 0);
        let mut write = |kind, roll, prev, some: &[(&Key, &Arc<[u8]>)]| -> io::Result<()> {
            let tag = Tag {
                kind,
                seq,
                roll,
                prev,
            };
            let items = some
                .iter()
                .map(|((bucket, key), value)| (bucket.byte(), key.as_ref(), Some(value.as_ref())));
            let (bytes, _) = frame::encode(tag, items).map_err(io::Error::other)?;
            file.write_all_at(&bytes, length)?;
            length += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            Ok(())
        };
        let mut some = Vec::with_capacity(SNAPSHOT_PART);
        for record in records {
            some.push(record);
            if some.len() == SNAPSHOT_PART {
                write(Kind::Part, part, 0, &some)?;
                part += 1;
                some.clear();
            }
        }
        if !some.is_empty() {
            write(Kind::Part, part, 0, &some)?;
            part += 1;
        }
        write(Kind::End, part, chain, &[])?;
        file.sync_all()?;
        fs::rename(&fresh, self.folder.join(snapshot_name(seq)))?;
        sync_folder(&self.folder)?;
        Ok(length)
    }

    /// The thread that writes snapshots, and tries a disk again that refused.
    fn keep_snapshots(&self, asked: &Receiver<()>) {
        loop {
            match asked.recv_timeout(TRY_AGAIN) {
                Ok(()) => {
                    if let Err(error) = self.next_generation() {
                        tracing::warn!(%error, "writing a snapshot of the store failed");
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    if self.failure().is_some() {
                        // An empty batch; what it finds is kept in `failure`.
                        drop(self.commit(Vec::new()));
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Begins the next pair of logs, and writes what was there before it.
    fn next_generation(&self) -> io::Result<()> {
        let roll = self.writer().roll;
        let files = self.create_pair(roll + 1)?;
        let mut writer = self.writer();
        writer.is_due = false;
        if writer.roll != roll {
            // A commit has begun a pair itself meanwhile.
            return Ok(());
        }
        self.take_pair(&mut writer, files)?;
        let (seq, chain, roll) = (writer.seq, writer.chain, writer.roll);
        let records = self.records();
        drop(writer);
        let length = self.write_snapshot(seq, chain, &records)?;
        let mut writer = self.writer();
        writer.snapshot_len = length;
        writer.generations.push_back((snapshot_name(seq), roll));
        while writer.generations.len() > GENERATIONS {
            writer.generations.pop_front();
        }
        let kept = writer.generations.clone();
        drop(writer);
        self.remove_older(&kept)
    }

    fn remove_older(&self, kept: &VecDeque<(String, u32)>) -> io::Result<()> {
        let Some((_, oldest)) = kept.front().filter(|_| kept.len() == GENERATIONS) else {
            return Ok(());
        };
        for (name, path) in data_files(&self.folder)? {
            let is_old = match name.strip_prefix("log-") {
                Some(log) => {
                    let roll = log
                        .split('.')
                        .next()
                        .and_then(|roll| roll.parse::<u32>().ok());
                    roll.is_some_and(|roll| roll < *oldest)
                }
                None => name != HEAD && kept.iter().all(|(snapshot, _)| *snapshot != name),
            };
            if is_old {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

type Key = (Bucket, Arc<[u8]>);

impl Store for LogStore {
    fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let records = self.inner.records();
        Ok(records
            .get(&(bucket, key.into()))
            .map(|value| value.to_vec()))
    }

    fn scan(&self, bucket: Bucket, prefix: &[u8]) -> Result<Vec<Record>, StoreError> {
        let records = self.inner.records();
        let from: Key = (bucket, prefix.into());
        let within = records
            .range(from..)
            .take_while(|((of, key), _)| *of == bucket && key.starts_with(prefix));
        Ok(within
            .map(|((_, key), value)| (key.to_vec(), value.to_vec()))
            .collect())
    }

    fn commit(&self, batch: Vec<Write>) -> Result<(), StoreError> {
        let asks = self.inner.commit(batch)?;
        if asks && let Some(jobs) = &self.jobs {
            // The thread ends with the store and not before: somebody listens, unless one waits.
            let _ = jobs.try_send(());
        }
        Ok(())
    }

    fn health(&self) -> Result<(), String> {
        if self.snapshots.as_ref().is_none_or(JoinHandle::is_finished) {
            return Err("the thread that writes snapshots of the store has ended".to_owned());
        }
        match self.inner.failure().as_ref() {
            None => Ok(()),
            Some(error) => {
                let folder = self.inner.folder.display();
                Err(format!("store {folder} cannot be written to: {error}"))
            }
        }
    }

    fn losses(&self) -> watch::Receiver<Arc<Vec<Loss>>> {
        self.inner.losses.subscribe()
    }

    fn accept_loss(&self, namespace: Option<&str>) -> Result<Vec<Loss>, StoreError> {
        let losses = Arc::clone(&self.inner.losses.borrow());
        let is_meant = |loss: &&Loss| namespace.is_none_or(|namespace| loss.is_of(namespace));
        let accepted: Vec<Loss> = losses.iter().filter(is_meant).cloned().collect();
        if !accepted.is_empty() {
            self.commit(accepted.iter().map(Loss::delete).collect())?;
        }
        Ok(accepted)
    }
}

/// Appends a batch; returns how long the logs are then, and the checksum of the frame. A pair that
/// cannot be cut back to what was acknowledged is given up.
fn write_frame(writer: &mut Writer, tag: Tag, batch: &[Write]) -> Result<(u64, u32), Cause> {
    let (bytes, sum) = frame::encode_batch(tag, batch)?;
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let open = writer.pair.as_mut().ok_or("there is no log to write to")?;
    if let Err(error) = open.append(bytes) {
        if open.cut_back().is_err() {
            writer.pair = None;
        }
        writer.refused = writer.refused.max(length);
        return Err(error.into());
    }
    Ok((open.length, sum))
}

fn losses_in(records: &Records) -> Vec<Loss> {
    let from: Key = (Bucket::Meta, loss::PREFIX.as_bytes().into());
    let kept = records.range(from..).take_while(|((bucket, key), _)| {
        *bucket == Bucket::Meta && key.starts_with(loss::PREFIX.as_bytes())
    });
    kept.filter_map(|(_, value)| serde_json::from_slice(value).ok())
        .collect()
}

/// Two logs with the same commits.
#[derive(Debug)]
struct Pair {
    log: File,
    twin: Twin,
    length: u64,
}

impl Pair {
    fn new([log, twin]: [File; 2], begin: &[u8]) -> io::Result<Self> {
        log.write_all_at(begin, 0)?;
        twin.write_all_at(begin, 0)?;
        Ok(Self {
            log,
            twin: Twin::new(twin)?,
            length: u64::try_from(begin.len()).unwrap_or(u64::MAX),
        })
    }

    /// Returns when both have it on the disk.
    fn append(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        let bytes: Arc<[u8]> = bytes.into();
        self.twin.begin(Arc::clone(&bytes), self.length)?;
        let own = append(&self.log, &bytes, self.length);
        let twins = self.twin.end();
        own.and(twins)?;
        self.length += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    /// Removes what a failed append may have left.
    fn cut_back(&self) -> io::Result<()> {
        for file in [&self.log, &*self.twin.file] {
            file.set_len(self.length)?;
            file.sync_data()?;
        }
        Ok(())
    }
}

/// The second log, written by a thread of its own at the same time as the first.
#[derive(Debug)]
struct Twin {
    file: Arc<File>,
    appends: SyncSender<(Arc<[u8]>, u64)>,
    done: Receiver<io::Result<()>>,
}

impl Twin {
    fn new(file: File) -> io::Result<Self> {
        let file = Arc::new(file);
        // One append at a time, which is answered before the next begins.
        let (appends, asked) = sync_channel::<(Arc<[u8]>, u64)>(1);
        let (answer, done) = sync_channel(1);
        let written = Arc::clone(&file);
        #[expect(
            clippy::disallowed_methods,
            reason = "a commit fails when it has ended"
        )]
        let _detached = std::thread::Builder::new()
            .name("vsw-store".to_owned())
            .spawn(move || {
                for (bytes, at) in asked {
                    if answer.send(append(&written, &bytes, at)).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self {
            file,
            appends,
            done,
        })
    }

    fn begin(&self, bytes: Arc<[u8]>, at: u64) -> io::Result<()> {
        self.appends.send((bytes, at)).map_err(|_| thread_ended())
    }

    fn end(&self) -> io::Result<()> {
        self.done.recv().map_err(|_| thread_ended())?
    }
}

fn thread_ended() -> io::Error {
    io::Error::other("the thread that writes the second log has ended")
}

fn append(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    file.write_all_at(bytes, at)?;
    file.sync_data()
}

const HEAD: &str = "head";
const ROOM: &str = "room";

fn snapshot_name(seq: u64) -> String {
    format!("snapshot-{seq}")
}

/// Makes a folder, or makes it one, that nobody else may look into.
///
/// # Errors
/// The system refuses.
pub fn make_private(folder: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    restrict(folder, 0o700)
}

/// Takes rights away that a file of an earlier release has.
fn restrict(path: &Path, mode: u32) -> io::Result<()> {
    if fs::metadata(path)?.permissions().mode() & 0o7777 == mode {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    let file = options
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    restrict(path, 0o600)?;
    Ok(file)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Returns the files that hold records, by name.
fn data_files(folder: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_ours = name == HEAD || name.starts_with("log-") || name.starts_with("snapshot-");
        if is_ours && entry.file_type()?.is_file() {
            found.push((name, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

fn read_all(folder: &Path) -> io::Result<Vec<Named>> {
    let mut files = Vec::new();
    for (name, path) in data_files(folder)? {
        files.push((name, fs::read(path)?));
    }
    Ok(files)
}
