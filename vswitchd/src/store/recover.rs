//! Recovery of the acknowledged records from the files of a store.
//!
//! Every commit is in two logs, and in the snapshots after it. Files are known by what is in
//! them, not by their names: two that were swapped are read as if they had not been. Of each
//! commit the copy that is whole counts; what no copy has is a [`Loss`].
//!
//! The end needs care, because a power cut may leave half a commit there that nobody was told
//! of. Such a commit ends short. One that is there in its full length, or whose number the head
//! has, was acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use super::frame::{self, Contents, Frame, Kind, Tail};
use super::loss::Loss;
use super::{Bucket, Records};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    pub(super) records: Records,
    /// Number and header checksum of the last commit.
    pub(super) seq: u64,
    pub(super) chain: u32,
    /// Highest number of a pair of logs.
    pub(super) roll: u32,
    pub(super) losses: BTreeSet<Loss>,
    /// What is not as it was written, with what is wrong.
    pub(super) damaged: Vec<(String, &'static str)>,
    /// What each readable file has or covers.
    pub(super) files: Vec<FileIs>,
}

/// A file of which something could be read.
#[derive(Debug)]
pub(super) struct FileIs {
    pub(super) name: String,
    /// Number of the last commit that it has or covers.
    pub(super) last: u64,
    /// `None`: a log; otherwise whether the snapshot is whole.
    pub(super) snapshot: Option<bool>,
}

/// A snapshot, whole or not.
#[derive(Debug, Default)]
struct Snapshot<'a> {
    seq: u64,
    chain: u32,
    parts: Vec<Frame<'a>>,
    /// All its parts are there; records of them may be damaged.
    is_complete: bool,
    is_whole: bool,
}

/// A pair of logs.
#[derive(Debug, Default)]
struct Pair<'a> {
    /// Number of the last commit before it.
    begins_after: Option<u64>,
    /// Copies of each commit.
    commits: BTreeMap<u64, Vec<Frame<'a>>>,
    /// Number of the last commit of each file, and how the file ends.
    ends: Vec<(u64, Tail)>,
}

/// A file by its name and content.
pub(super) type Named = (String, Vec<u8>);

#[derive(Debug, Default)]
struct Files<'a> {
    snapshots: Vec<Snapshot<'a>>,
    pairs: BTreeMap<u32, Pair<'a>>,
    head: u64,
    /// Ends of files without a frame: what they were is not known.
    nameless: Vec<Tail>,
    readable: Vec<FileIs>,
    damaged: Vec<(String, &'static str)>,
}

/// Puts together what the files of a folder hold.
pub(super) fn recover(named: &[Named]) -> Recovered {
    let mut files = Files::default();
    for (name, bytes) in named {
        files.add(name, frame::parse(bytes));
    }
    files.compare_newest_pair();
    let roll = files.pairs.keys().next_back().copied().unwrap_or(0);
    let newest = files.pairs.values().next_back();
    let ends = newest.map_or_else(Vec::new, |pair| pair.ends.clone());
    let covered = files.snapshots.iter().map(|snapshot| snapshot.seq).max();
    let commits = merged(std::mem::take(&mut files.pairs));
    let mut end = last_of(&commits, &ends, &files, covered.unwrap_or(0));
    if ends.is_empty() && files.head == 0 && covered.is_some() {
        // A snapshot alone: there was a pair of logs behind it.
        end += 1;
    }
    let nothing = Snapshot {
        is_complete: true,
        is_whole: true,
        ..Snapshot::default()
    };
    let mut candidates = std::mem::take(&mut files.snapshots);
    candidates.push(nothing);
    candidates.sort_by_key(|snapshot| (snapshot.is_whole, snapshot.seq));
    let mut best: Option<Recovered> = None;
    for snapshot in candidates.into_iter().rev() {
        let state = replay(snapshot, &commits, end);
        let is_better = |best: &Recovered| weight(&state) < weight(best);
        if best.as_ref().is_none_or(is_better) {
            best = Some(state);
        }
        if best.as_ref().is_some_and(|best| best.losses.is_empty()) {
            break;
        }
    }
    let mut found = best.unwrap_or_default();
    (found.roll, found.damaged, found.files) = (roll, files.damaged, files.readable);
    found
}

/// How much is lost: commits of which nothing is known, then records.
fn weight(state: &Recovered) -> (u64, usize) {
    let unknown = state.losses.iter().map(|loss| match loss {
        Loss::Commits { first, last } => last - first + 1,
        _ => 0,
    });
    (unknown.sum(), state.losses.len())
}

impl<'a> Files<'a> {
    fn add(&mut self, name: &str, contents: Contents<'a>) {
        let seqs = contents.frames.iter().map(|frame| frame.tag.seq);
        let last = seqs.max().unwrap_or(0);
        let mut problem = match contents {
            Contents {
                has_damage: true, ..
            } => Some("a frame of it cannot be read"),
            Contents {
                tail: Tail::Damaged,
                ..
            } => Some("its end cannot be read"),
            _ => None,
        };
        match contents.frames.first().map(|frame| frame.tag.kind) {
            None => {
                self.nameless.push(contents.tail);
                if contents.tail != Tail::Clean {
                    problem = Some("nothing of it can be read");
                }
            }
            Some(Kind::Head) => self.head = self.head.max(last),
            Some(Kind::Part | Kind::End) => {
                let snapshot = snapshot_of(contents, last);
                if !snapshot.is_whole {
                    problem = problem.or(Some("parts of it are missing"));
                }
                self.readable.push(FileIs {
                    name: name.to_owned(),
                    last,
                    snapshot: Some(snapshot.is_whole),
                });
                self.snapshots.push(snapshot);
            }
            Some(Kind::Begin | Kind::Commit) => {
                self.readable.push(FileIs {
                    name: name.to_owned(),
                    last,
                    snapshot: None,
                });
                self.add_log(contents, last);
            }
        }
        self.damaged
            .extend(problem.map(|problem| (name.to_owned(), problem)));
    }

    fn add_log(&mut self, contents: Contents<'a>, last: u64) {
        let roll = contents.frames.iter().map(|frame| frame.tag.roll).max();
        let pair = self.pairs.entry(roll.unwrap_or(0)).or_default();
        pair.ends.push((last, contents.tail));
        for frame in contents.frames {
            match frame.tag.kind {
                Kind::Begin => pair.begins_after = Some(frame.tag.seq),
                Kind::Commit => pair.commits.entry(frame.tag.seq).or_default().push(frame),
                Kind::Part | Kind::End | Kind::Head => {}
            }
        }
    }

    /// Notes where one log has less than its twin.
    fn compare_newest_pair(&mut self) {
        let Some((roll, pair)) = self.pairs.iter().next_back() else {
            return;
        };
        let lasts = || pair.ends.iter().map(|(last, _)| *last);
        let (shortest, longest) = (lasts().min().unwrap_or(0), lasts().max().unwrap_or(0));
        // One commit may have reached one log alone: it was cut off, and nobody was told of it.
        let problem = if pair.ends.len() < 2 && !pair.commits.is_empty() {
            "one of the two cannot be read"
        } else if longest > shortest + 1 {
            "one of the two ends before the other"
        } else {
            return;
        };
        self.damaged.push((format!("logs {roll}"), problem));
    }
}

fn snapshot_of(contents: Contents<'_>, seq: u64) -> Snapshot<'_> {
    let end = contents
        .frames
        .iter()
        .find(|frame| frame.tag.kind == Kind::End);
    let end = end.map(|frame| frame.tag);
    let mut parts = contents.frames;
    parts.retain(|frame| frame.tag.kind == Kind::Part);
    let numbers = parts.iter().map(|part| part.tag.roll);
    let is_complete = end.is_some_and(|end| numbers.eq(0..end.roll));
    Snapshot {
        seq,
        chain: end.map_or(0, |end| end.prev),
        is_whole: is_complete && parts.iter().all(Frame::is_whole),
        is_complete: is_complete && parts.iter().all(|part| part.items.is_some()),
        parts,
    }
}

/// One history from all pairs: what a pair holds beyond the beginning of a later one was never
/// acknowledged.
fn merged(pairs: BTreeMap<u32, Pair<'_>>) -> BTreeMap<u64, Vec<Frame<'_>>> {
    let mut commits: BTreeMap<u64, Vec<Frame<'_>>> = BTreeMap::new();
    for pair in pairs.into_values() {
        let first = pair
            .commits
            .keys()
            .next()
            .map(|first| first.saturating_sub(1));
        if let Some(begin) = pair.begins_after.or(first) {
            commits.split_off(&begin.saturating_add(1));
        }
        for (seq, copies) in pair.commits {
            commits.entry(seq).or_default().extend(copies);
        }
    }
    commits
}

/// The number of the last commit that was acknowledged, as far as that can be known.
fn last_of(
    commits: &BTreeMap<u64, Vec<Frame<'_>>>,
    ends: &[(u64, Tail)],
    files: &Files<'_>,
    covered: u64,
) -> u64 {
    let mut last = commits.keys().next_back().copied().unwrap_or(0);
    if let Some(copies) = commits.get(&last) {
        let is_whole = copies.iter().any(Frame::is_whole);
        // In one of two logs and not whole there: its other copy was never written.
        if !is_whole && copies.len() < 2 && ends.len() == 2 {
            last -= 1;
        }
    }
    let last = last.max(files.head).max(covered);
    // Both logs go on with bytes that no cut leaves: there has been another commit.
    let damaged = |tail: &Tail| *tail == Tail::Damaged;
    let ends = ends
        .iter()
        .filter(|(end, tail)| *end >= last && damaged(tail));
    let nameless = files.nameless.iter().filter(|tail| damaged(tail));
    if ends.count() + nameless.count() >= 2 {
        last + 1
    } else {
        last
    }
}

/// Applies the commits up to `end` to a snapshot.
fn replay(snapshot: Snapshot<'_>, commits: &BTreeMap<u64, Vec<Frame<'_>>>, end: u64) -> Recovered {
    let mut state = Recovered {
        seq: snapshot.seq,
        chain: snapshot.chain,
        ..Recovered::default()
    };
    for part in &snapshot.parts {
        state.apply(&[part]);
    }
    if !snapshot.is_complete {
        state.lose(Some(1), snapshot.seq.max(1));
    }
    let mut chain = snapshot.is_complete.then_some(snapshot.chain);
    let mut missing: Option<u64> = None;
    for seq in snapshot.seq + 1..=end {
        let copies = commits.get(&seq).map_or(&[][..], Vec::as_slice);
        let follows = |copy: &&Frame<'_>| chain.is_none_or(|chain| copy.tag.prev == chain);
        let copies: Vec<&Frame<'_>> = copies.iter().filter(follows).collect();
        if state.apply(&copies) {
            state.lose(missing.take(), seq - 1);
        } else {
            missing = missing.or(Some(seq));
        }
        chain = copies.first().map(|copy| copy.sum);
        (state.seq, state.chain) = (seq, chain.unwrap_or(0));
    }
    state.lose(missing, end);
    state
}

impl Recovered {
    /// Applies the copies of one frame; says whether its keys could be read in one of them.
    fn apply(&mut self, copies: &[&Frame<'_>]) -> bool {
        let readable = || copies.iter().filter_map(|copy| copy.items.as_ref());
        let Some(items) = readable().next() else {
            return false;
        };
        for (index, item) in items.iter().enumerate() {
            let Some(bucket) = Bucket::of_byte(item.bucket) else {
                continue;
            };
            let loss = Loss::Record {
                bucket,
                key: String::from_utf8_lossy(item.key).into_owned(),
            };
            let key = (bucket, item.key.into());
            let value = readable().find_map(|items| items.get(index)?.value);
            match value {
                Some(Some(value)) => {
                    self.losses.remove(&loss);
                    self.records.insert(key, value.into());
                }
                Some(None) => {
                    self.losses.remove(&loss);
                    self.records.remove(&key);
                }
                None => {
                    self.losses.insert(loss);
                    self.records.remove(&key);
                }
            }
        }
        true
    }

    /// Returns the files that are not needed beside a snapshot of commit `newest`: one more
    /// snapshot is kept, and the logs after it.
    pub(super) fn obsolete(&self, newest: u64) -> impl Iterator<Item = &FileIs> {
        let whole = self.files.iter().filter(|file| file.snapshot == Some(true));
        let older = whole.map(|file| file.last).filter(|last| *last < newest);
        let older = older.max().unwrap_or(0);
        self.files.iter().filter(move |file| match file.snapshot {
            Some(_) => file.last != older && file.last != newest,
            None => file.last <= older,
        })
    }

    fn lose(&mut self, first: Option<u64>, last: u64) {
        if let Some(first) = first {
            self.losses.insert(Loss::Commits { first, last });
        }
    }
}
