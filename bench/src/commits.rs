//! Commit latency of the store: commits of two records each, one after the other, over a store of
//! 10,000; beside it sled, which earlier releases stored in, with a flush for each commit.
//!
//! Rounds of both are interleaved. Prints one line for each: p50, p99 and the longest commit, the time
//! of opening what was written, bytes on the disk. The disk is that of `--folder`.

#![allow(clippy::print_stdout, reason = "the report is what it is for")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use vswitch_bench::times::{Times, micros};
use vswitchd::store::{Bucket, LogStore, Store as _, Write};

/// Measures commits of the store, and of sled beside it.
#[derive(Debug, Parser)]
#[command(name = "vswitch-commits")]
struct Args {
    /// Records that are there before.
    #[arg(long, default_value_t = 10_000)]
    records: usize,
    /// Bytes of a record's value.
    #[arg(long, default_value_t = 600)]
    bytes: usize,
    /// Commits that are measured, over all rounds.
    #[arg(long, default_value_t = 2_000)]
    commits: usize,
    /// Rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Where the files go.
    #[arg(long, default_value = "target")]
    folder: PathBuf,
}

/// Records of one commit.
const RECORDS: usize = 2;

type Record = (Vec<u8>, Vec<u8>);

fn record(number: usize, bytes: usize) -> Record {
    let key = format!("networkpolicies/namespace-{}/policy-{number}", number % 100);
    // Not the same byte again and again: sled might compress it, a page cache does not care.
    let value = (0..bytes).map(|at| (number.wrapping_mul(31) + at * 7).to_le_bytes()[0]);
    (key.into_bytes(), value.collect())
}

/// What commits.
trait Commits: Sized {
    const NAME: &str;
    fn open(folder: &Path) -> Result<Self>;
    fn commit(&self, records: Vec<Record>) -> Result<()>;
    fn count(&self) -> Result<usize>;
}

impl Commits for LogStore {
    const NAME: &str = "two logs";

    fn open(folder: &Path) -> Result<Self> {
        Ok(Self::open(folder)?)
    }

    fn commit(&self, records: Vec<Record>) -> Result<()> {
        let put = |(key, value)| Write::Put(Bucket::Objects, key, value);
        Ok(vswitchd::store::Store::commit(
            self,
            records.into_iter().map(put).collect(),
        )?)
    }

    fn count(&self) -> Result<usize> {
        Ok(self.scan(Bucket::Objects, b"")?.len())
    }
}

impl Commits for sled::Db {
    const NAME: &str = "sled";

    fn open(folder: &Path) -> Result<Self> {
        Ok(sled::Config::new()
            .path(folder)
            .flush_every_ms(None)
            .open()?)
    }

    fn commit(&self, records: Vec<Record>) -> Result<()> {
        let mut batch = sled::Batch::default();
        for (key, value) in records {
            batch.insert(key, value);
        }
        self.apply_batch(batch)?;
        self.flush()?;
        Ok(())
    }

    fn count(&self) -> Result<usize> {
        Ok(self.len())
    }
}

/// One store under measurement.
struct Measured<S> {
    folder: tempfile::TempDir,
    store: S,
    times: Vec<Duration>,
    next: usize,
}

impl<S: Commits> Measured<S> {
    fn new(args: &Args) -> Result<Self> {
        let folder = tempfile::tempdir_in(&args.folder)
            .with_context(|| format!("no folder in {}", args.folder.display()))?;
        let store = S::open(folder.path())?;
        store.commit(
            (0..args.records)
                .map(|number| record(number, args.bytes))
                .collect(),
        )?;
        Ok(Self {
            folder,
            store,
            times: Vec::new(),
            next: args.records,
        })
    }

    fn round(&mut self, args: &Args) -> Result<()> {
        for _ in 0..args.commits / args.rounds {
            let numbers = self.next..self.next + RECORDS;
            let records = numbers.map(|number| record(number, args.bytes)).collect();
            self.next += RECORDS;
            let begun = Instant::now();
            self.store.commit(records)?;
            self.times.push(begun.elapsed());
        }
        Ok(())
    }

    fn report(self) -> Result<()> {
        let Self {
            folder,
            store,
            times,
            next,
        } = self;
        drop(store);
        let begun = Instant::now();
        let store = S::open(folder.path())?;
        let opened = begun.elapsed();
        ensure!(
            store.count()? == next,
            "{} has {} of {next} records",
            S::NAME,
            store.count()?
        );
        let times = Times::new(times);
        println!(
            "{:<9} {} commits: p50 {:.0} us, p99 {:.0} us, longest {:.0} us; opened in {:.0} ms; {} KiB",
            S::NAME,
            times.count(),
            micros(times.quantile(50)),
            micros(times.quantile(99)),
            micros(times.quantile(100)),
            opened.as_secs_f64() * 1e3,
            size(folder.path())? >> 10,
        );
        Ok(())
    }
}

fn size(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        sum += if metadata.is_dir() {
            size(&entry.path())?
        } else {
            metadata.len()
        };
    }
    Ok(sum)
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(args.rounds > 0, "rounds must be at least 1");
    let mut logs = Measured::<LogStore>::new(&args)?;
    let mut sled = Measured::<sled::Db>::new(&args)?;
    for _ in 0..args.rounds {
        logs.round(&args)?;
        sled.round(&args)?;
    }
    logs.report()?;
    sled.report()
}
