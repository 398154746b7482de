//! A store in a folder: what it keeps, what it restores, and what it says it has lost.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use super::Bucket::{Leases, Objects};
use super::*;

fn put(bucket: Bucket, key: &str, value: &str) -> Write {
    Write::Put(bucket, key.as_bytes().to_vec(), value.as_bytes().to_vec())
}

fn open(folder: &Path) -> LogStore {
    LogStore::open(folder).unwrap()
}

fn losses(store: &LogStore) -> Vec<Loss> {
    store.losses().borrow().to_vec()
}

fn objects(store: &LogStore) -> Vec<String> {
    let keys = store.scan(Objects, b"").unwrap().into_iter();
    keys.map(|(key, _)| String::from_utf8(key).unwrap())
        .collect()
}

/// A closed store with objects `0` to `count - 1`, one commit each.
fn filled(count: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for number in 0..count {
        let key = format!("networkpolicies/shop/{number}");
        store
            .commit(vec![put(Objects, &key, "value of a policy")])
            .unwrap();
    }
    folder
}

/// The files with records, by name.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let named = entries.filter(|entry| entry.file_type().unwrap().is_file());
    let named = named.map(|entry| {
        let name = entry.file_name().into_string().unwrap();
        (name, fs::read(entry.path()).unwrap())
    });
    named.filter(|(name, _)| name != "lock").collect()
}

/// Flips a bit of the last occurrence of a text in a file; says whether there was one.
fn flip(path: &Path, text: &[u8]) -> bool {
    let mut bytes = fs::read(path).unwrap();
    let Some(at) = bytes.windows(text.len()).rposition(|found| found == text) else {
        return false;
    };
    bytes[at] ^= 0x20;
    fs::write(path, bytes).unwrap();
    true
}

#[test]
fn records_survive_a_reopen_and_buckets_do_not_mix() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let both = vec![put(Leases, "a", "1"), put(Objects, "a", "2")];
    store.commit(both).unwrap();
    store.commit(vec![put(Leases, "b", "3")]).unwrap();
    store
        .commit(vec![Write::Delete(Leases, b"b".to_vec())])
        .unwrap();
    drop(store);
    for _ in 0..3 {
        let store = open(folder.path());
        assert_eq!(store.get(Leases, b"a").unwrap().unwrap(), b"1");
        assert_eq!(objects(&store), ["a"]);
        assert_eq!(store.get(Leases, b"b").unwrap(), None);
        assert!(losses(&store).is_empty());
    }
}

#[test]
fn a_start_waits_for_an_ending_process_and_not_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let kept = StoreLock::wait_for(folder.path(), Duration::from_millis(60));
    assert!(matches!(kept, Err(StoreError::Locked { .. })), "{kept:?}");
    std::thread::scope(|scope| {
        let next = scope.spawn(|| open(folder.path()));
        store.commit(vec![put(Objects, "last", "word")]).unwrap();
        drop(store);
        assert_eq!(objects(&next.join().unwrap()), ["last"]);
    });
}

#[test]
fn folders_and_files_are_private_whatever_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state/store");
    drop(open(&path));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    drop(open(&path));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for entry in fs::read_dir(&path).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[test]
fn snapshots_follow_and_older_files_go() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let value = "v".repeat(100_000);
    for round in 0..100 {
        store
            .commit(vec![put(Objects, &format!("{}", round % 7), &value)])
            .unwrap();
    }
    drop(store);
    let names: Vec<String> = files(folder.path()).into_keys().collect();
    let count = |prefix: &str| names.iter().filter(|name| name.starts_with(prefix)).count();
    assert!(count("snapshot-") == 2, "{names:?}");
    assert!(count("log-") <= 6, "{names:?}");
    assert_eq!(objects(&open(folder.path())).len(), 7);
}

#[test]
fn half_a_commit_at_the_end_was_never_acknowledged() {
    let folder = filled(4);
    let logs: Vec<String> = files(folder.path()).into_keys().collect();
    let logs = logs.iter().filter(|name| name.starts_with("log-"));
    // What a power cut in the middle of the fifth leaves, when the head was not written either.
    for log in logs {
        let path = folder.path().join(log);
        let mut bytes = fs::read(&path).unwrap();
        let cut = bytes.len() - 30;
        let tail = bytes[cut..].to_vec();
        bytes.extend(tail);
        fs::write(&path, bytes).unwrap();
    }
    let store = open(folder.path());
    assert_eq!(objects(&store).len(), 4);
    assert!(losses(&store).is_empty());
    assert!(!folder.path().join("damaged").exists());
}

#[test]
fn a_record_damaged_in_every_copy_is_named_until_it_is_written_again() {
    let folder = filled(4);
    let store = open(folder.path());
    store
        .commit(vec![put(Objects, "networkpolicies/shop/x", "the unlucky")])
        .unwrap();
    store
        .commit(vec![put(Objects, "networkpolicies/shop/y", "other")])
        .unwrap();
    drop(store);
    let hits = files(folder.path())
        .into_keys()
        .filter(|name| flip(&folder.path().join(name), b"unlucky"));
    assert_eq!(hits.count(), 2);
    let loss = Loss::Record {
        bucket: Objects,
        key: "networkpolicies/shop/x".to_owned(),
    };
    for _ in 0..2 {
        let store = open(folder.path());
        assert_eq!(losses(&store), std::slice::from_ref(&loss));
        assert_eq!(objects(&store).len(), 5);
    }
    let store = open(folder.path());
    store
        .commit(vec![put(Objects, "networkpolicies/shop/x", "again")])
        .unwrap();
    assert!(losses(&store).is_empty());
    drop(store);
    assert!(losses(&open(folder.path())).is_empty());
}

#[test]
fn a_commit_without_any_copy_is_a_loss_until_it_is_accepted() {
    let folder = filled(4);
    for (name, mut bytes) in files(folder.path()) {
        let key = b"networkpolicies/shop/2";
        if let Some(at) = bytes.windows(key.len()).position(|found| found == key) {
            // The header of its frame: 44 bytes before its keys, which begin with 12 of their own.
            bytes[at - 40] ^= 1;
            fs::write(folder.path().join(name), bytes).unwrap();
        }
    }
    let store = open(folder.path());
    assert!(matches!(losses(&store)[..], [Loss::Commits { first, last }] if first == last));
    assert_eq!(objects(&store).len(), 3, "what came after it is there");
    drop(store);
    let store = open(folder.path());
    assert_eq!(store.accept_loss(Some("shop")).unwrap(), []);
    assert_eq!(store.accept_loss(None).unwrap().len(), 1);
    drop(store);
    assert!(losses(&open(folder.path())).is_empty());
}

#[test]
fn a_store_that_was_in_use_and_is_empty_has_lost_everything() {
    let folder = filled(4);
    for name in files(folder.path()).into_keys() {
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    assert_eq!(losses(&open(folder.path())), [Loss::Everything]);
    assert_eq!(losses(&open(folder.path())), [Loss::Everything]);
}

#[test]
fn what_both_logs_lack_is_known_by_the_head() {
    for keep in [0, 60, 200] {
        let folder = filled(6);
        for (name, bytes) in files(folder.path()) {
            if name.starts_with("log-") {
                let keep = keep.min(bytes.len());
                fs::write(folder.path().join(name), &bytes[..keep]).unwrap();
            }
        }
        let found = losses(&open(folder.path()));
        assert!(
            matches!(found[..], [Loss::Commits { last: 7, .. }]),
            "{keep}: {found:?}"
        );
    }
}

/// Every damage to one file, or to two by swapping them, costs nothing.
#[test]
fn no_damage_to_one_file_loses_a_record() {
    let folder = filled(8);
    let original = files(folder.path());
    let restored = |damage: &dyn Fn(&Path)| {
        let copy = tempfile::tempdir().unwrap();
        for (name, bytes) in &original {
            fs::write(copy.path().join(name), bytes).unwrap();
        }
        fs::write(copy.path().join("lock"), b"in use\n").unwrap();
        damage(copy.path());
        let store = open(copy.path());
        (objects(&store).len(), losses(&store))
    };
    for (name, bytes) in &original {
        let gone = restored(&|folder| fs::remove_file(folder.join(name)).unwrap());
        assert_eq!(gone, (8, vec![]), "{name} deleted");
        for at in (0..bytes.len()).step_by(1 + bytes.len() / 40) {
            let flipped = restored(&|folder| {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1;
                fs::write(folder.join(name), bytes).unwrap();
            });
            assert_eq!(flipped, (8, vec![]), "{name} flipped at {at}");
            let cut = restored(&|folder| fs::write(folder.join(name), &bytes[..at]).unwrap());
            assert_eq!(cut, (8, vec![]), "{name} cut to {at}");
        }
        for other in original.keys().filter(|other| *other > name) {
            let swapped = restored(&|folder| {
                fs::write(folder.join(name), &original[other]).unwrap();
                fs::write(folder.join(other), bytes).unwrap();
            });
            assert_eq!(swapped, (8, vec![]), "{name} and {other} swapped");
        }
    }
}

mod earlier_release {
    use super::*;

    fn envelope(payload: &[u8]) -> Vec<u8> {
        let mut value = vec![1];
        value.extend_from_slice(&crc32fast::hash(payload).to_be_bytes());
        value.extend_from_slice(payload);
        value
    }

    fn raw_database(folder: &Path, records: &[(&str, &[u8])]) {
        let db = sled::Config::new().path(folder.join("db")).open().unwrap();
        let tree = db.open_tree("records").unwrap();
        for (key, value) in records {
            tree.insert(key, *value).unwrap();
        }
        db.flush().unwrap();
    }

    /// As the last release wrote it.
    pub(super) fn database(folder: &Path, records: &[(&str, &[u8])]) {
        let records: Vec<(&str, Vec<u8>)> = records
            .iter()
            .map(|(key, value)| (*key, envelope(value)))
            .collect();
        let borrowed: Vec<(&str, &[u8])> = records
            .iter()
            .map(|(key, value)| (*key, value.as_slice()))
            .collect();
        raw_database(folder, &borrowed);
    }

    fn export(folder: &Path, records: &[(&str, &[u8])]) {
        let hex = |bytes: &[u8]| {
            bytes
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        let line = |(key, value): &(&str, &[u8])| {
            format!(
                "[\"{}\",\"{}\"]\n",
                hex(key.as_bytes()),
                hex(&envelope(value))
            )
        };
        let lines: String = records.iter().map(line).collect();
        fs::write(folder.join("export.jsonl"), lines).unwrap();
    }

    const VERSION: &str = "mobjects/resource_version";

    #[test]
    fn its_records_are_kept_and_its_files_put_away() {
        let folder = tempfile::tempdir().unwrap();
        database(
            folder.path(),
            &[("oa", b"1"), ("lb", b"2"), (VERSION, b"7")],
        );
        export(folder.path(), &[("oold", b"1"), (VERSION, b"5")]);
        for _ in 0..2 {
            let store = open(folder.path());
            assert_eq!(objects(&store), ["a"]);
            assert_eq!(store.get(Leases, b"b").unwrap().unwrap(), b"2");
            assert!(losses(&store).is_empty());
        }
        assert!(folder.path().join("db.migrated").is_dir());
    }

    #[test]
    fn a_database_that_is_behind_its_export_has_lost_something() {
        let folder = tempfile::tempdir().unwrap();
        database(folder.path(), &[("oa", b"1"), (VERSION, b"4")]);
        export(
            folder.path(),
            &[("oa", b"1"), ("ob", b"1"), (VERSION, b"5")],
        );
        let store = open(folder.path());
        assert_eq!(objects(&store), ["a", "b"]);
        assert_eq!(losses(&store), [Loss::SinceExport]);
    }

    #[test]
    fn without_its_database_the_export_is_restored() {
        let folder = tempfile::tempdir().unwrap();
        export(folder.path(), &[("oa", b"1"), (VERSION, b"5")]);
        let store = open(folder.path());
        assert_eq!(objects(&store), ["a"]);
        assert_eq!(losses(&store), [Loss::SinceExport]);
    }

    #[test]
    fn a_damaged_record_is_named() {
        let folder = tempfile::tempdir().unwrap();
        raw_database(
            folder.path(),
            &[
                ("oa", &envelope(b"1")),
                ("onetworkpolicies/shop/x", b"garbage"),
            ],
        );
        let store = open(folder.path());
        assert_eq!(objects(&store), ["a"]);
        assert!(
            matches!(&losses(&store)[..], [Loss::Record { key, .. }] if key == "networkpolicies/shop/x")
        );
    }
}

mod disk_full {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    /// A file system of a few pages, seen by this thread and those it starts.
    struct SmallDisk(tempfile::TempDir);

    const SIZE: usize = 256 << 10;
    /// A database of sled's takes more.
    const SIZE_FOR_SLED: usize = 4 << 20;

    impl SmallDisk {
        fn of(size: usize) -> Self {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let options = format!("size={size},mode=700");
            mount(
                Some("tmpfs"),
                folder.path(),
                Some("tmpfs"),
                MsFlags::empty(),
                Some(options.as_str()),
            )
            .unwrap();
            Self(folder)
        }

        fn store(&self) -> std::path::PathBuf {
            self.0.path().join("store")
        }

        fn fill(&self) {
            let mut size = SIZE_FOR_SLED;
            let mut number = 0;
            while size > 0 {
                let part = self.0.path().join(format!("ballast-{number}"));
                if fs::write(part, vec![b'x'; size]).is_err() {
                    size /= 2;
                }
                number += 1;
            }
        }

        fn empty(&self) {
            for entry in fs::read_dir(self.0.path()).unwrap().map(Result::unwrap) {
                if entry.file_name().to_string_lossy().starts_with("ballast") {
                    fs::remove_file(entry.path()).unwrap();
                }
            }
        }
    }

    impl Drop for SmallDisk {
        fn drop(&mut self) {
            let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
        }
    }

    /// Mounts are seen by the thread that made them, and by those that it starts.
    fn in_a_thread(test: impl FnOnce() + Send) {
        std::thread::scope(|scope| scope.spawn(test).join().unwrap());
    }

    /// Waits until the store has tried a disk again that has room now.
    fn recovers(store: &LogStore) {
        for _ in 0..1_000 {
            if store.health().is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(store.health(), Ok(()));
    }

    #[test]
    fn a_refused_commit_is_said_at_once_and_the_next_one_that_fits_ends_it() {
        in_a_thread(|| {
            let disk = SmallDisk::of(SIZE);
            let store = open(&disk.store());
            store.commit(vec![put(Objects, "before", "v")]).unwrap();
            disk.fill();
            let large = "v".repeat(20_000);
            store
                .commit(vec![put(Objects, "refused", &large)])
                .unwrap_err();
            let said = store.health().unwrap_err();
            assert!(said.contains("No space left"), "{said}");
            assert_eq!(objects(&store), ["before"]);
            // What is left of the last page has room for a few bytes, and for no more.
            store.commit(Vec::new()).unwrap();
            assert_eq!(store.health(), Err(said));
            disk.empty();
            store.commit(vec![put(Objects, "after", "v")]).unwrap();
            assert_eq!(store.health(), Ok(()));
            let left = fs::read_dir(disk.store()).unwrap();
            let left = left.map(|entry| entry.unwrap().file_name());
            assert!(!left.into_iter().any(|name| name == "room"));
            drop(store);
            assert_eq!(objects(&open(&disk.store())), ["after", "before"]);
        });
    }

    #[test]
    fn a_start_on_a_full_disk_reads_what_is_there_and_recovers_by_itself() {
        in_a_thread(|| {
            let disk = SmallDisk::of(SIZE);
            let store = open(&disk.store());
            store.commit(vec![put(Objects, "before", "v")]).unwrap();
            drop(store);
            disk.fill();
            let store = open(&disk.store());
            assert_eq!(objects(&store), ["before"]);
            store.health().unwrap_err();
            store
                .commit(vec![put(Objects, "refused", "v")])
                .unwrap_err();
            drop(store);
            let store = open(&disk.store());
            assert_eq!(objects(&store), ["before"]);
            disk.empty();
            recovers(&store);
            store.commit(vec![put(Objects, "after", "v")]).unwrap();
            drop(store);
            let store = open(&disk.store());
            assert_eq!(objects(&store), ["after", "before"]);
            assert!(losses(&store).is_empty());
        });
    }
    #[test]
    fn an_upgrade_on_a_full_disk_reads_what_the_earlier_release_wrote_and_moves_it_once_there_is_room()
     {
        in_a_thread(|| {
            let disk = SmallDisk::of(SIZE_FOR_SLED);
            let folder = disk.store();
            fs::create_dir(&folder).unwrap();
            super::earlier_release::database(&folder, &[("oa", b"1")]);
            disk.fill();
            for _ in 0..2 {
                let store = open(&folder);
                assert_eq!(objects(&store), ["a"]);
                store.health().unwrap_err();
                assert!(losses(&store).is_empty());
            }
            assert!(folder.join("db").is_dir());
            disk.empty();
            let store = open(&folder);
            recovers(&store);
            drop(store);
            let store = open(&folder);
            assert_eq!(
                (objects(&store), losses(&store)),
                (vec!["a".to_owned()], vec![])
            );
            assert!(folder.join("db.migrated").is_dir());
        });
    }
}
