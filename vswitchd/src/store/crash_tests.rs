//! kill -9 at any moment loses nothing that was acknowledged.
//!
//! The test starts itself again as a writer that acknowledges every commit on its standard
//! output, kills it after a while, and opens the store to compare.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Bucket, LogStore, Store as _, Write};

const FOLDER: &str = "VSWITCH_CRASH_TEST_FOLDER";
const ROUNDS: u64 = 12;

/// The writer; does nothing unless the test below started it.
#[test]
fn writer_that_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let store = LogStore::open(Path::new(&folder)).unwrap();
    let first = store.scan(Bucket::Objects, b"").unwrap().len();
    for number in first.. {
        let key = format!("{number:08}").into_bytes();
        let value = vec![b'v'; 150];
        let lease = Write::Put(Bucket::Leases, key.clone(), b"l".to_vec());
        store
            .commit(vec![Write::Put(Bucket::Objects, key, value), lease])
            .unwrap();
        println!("ack {number}");
    }
}

/// Runs the writer for this long and returns the last number that it acknowledged.
fn run_writer(folder: &Path, for_: Duration) -> Option<usize> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "store::crash_tests::writer_that_is_killed",
            "--nocapture",
        ])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    // The time of the kill is what the test varies.
    std::thread::sleep(for_);
    child.kill().unwrap();
    child.wait().unwrap();
    let acknowledged = output.lines().map_while(Result::ok);
    acknowledged
        .filter_map(|line| line.rsplit_once("ack ")?.1.parse().ok())
        .last()
}

#[test]
fn what_was_acknowledged_survives_a_kill_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        // From before the store is open to long after.
        let for_ = Duration::from_millis(3 + round * round * 2);
        if let Some(last) = run_writer(folder.path(), for_) {
            acknowledged = acknowledged.max(last + 1);
        }
        let store = LogStore::open(folder.path()).unwrap();
        let objects = store.scan(Bucket::Objects, b"").unwrap();
        let leases = store.scan(Bucket::Leases, b"").unwrap();
        assert!(
            objects.len() >= acknowledged,
            "{} of {acknowledged}",
            objects.len()
        );
        assert_eq!(objects.len(), leases.len(), "a batch is whole or absent");
        for (number, (key, _)) in objects.iter().enumerate() {
            assert_eq!(*key, format!("{number:08}").into_bytes(), "no gap");
        }
    }
    assert!(acknowledged > 0, "the writer was never quick enough");
}
