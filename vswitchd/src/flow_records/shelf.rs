//! Records of one kind: those of the minute that is running, and on the disk.

use std::path::Path;

use super::files::{FileNames, Reader, RecordFiles};
use super::minute::{Minute, SECONDS};

/// What there is room for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Records of a minute.
    pub(super) records: usize,
    /// Bytes of the disk; none: nothing is kept there.
    pub(super) bytes: u64,
    /// For how long they are kept.
    pub(super) seconds: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Shelf {
    pub(super) minute: Minute,
    room: Room,
    /// `None`: the folder cannot be used, or there is no room.
    files: Option<RecordFiles>,
    /// Why records are not on the disk.
    problem: Option<String>,
}

impl Shelf {
    /// Opens the records of a folder. Blocks.
    pub(super) fn open(folder: &Path, names: FileNames, room: Room, now: u64) -> Self {
        let mut shelf = Self {
            minute: Minute::new(now / SECONDS, room.records),
            room,
            files: None,
            problem: None,
        };
        if room.bytes == 0 {
            return shelf;
        }
        match RecordFiles::open(folder, names, (room.bytes, room.seconds)) {
            Ok((files, before, problems)) => {
                shelf.files = Some(files);
                for problem in problems {
                    tracing::warn!(problem, "reading flow records failed");
                }
                if let Some(line) = before.first() {
                    shelf.minute = Minute::new(line.minute, room.records);
                }
                for line in before {
                    shelf.minute.add(line.of, &line.counted);
                }
                shelf.turn_to(now);
            }
            Err(error) => {
                let folder = folder.display();
                shelf.fails(format!("opening {folder} failed: {error}"));
            }
        }
        shelf
    }

    fn fails(&mut self, problem: String) {
        if self.problem.is_none() {
            tracing::error!(problem, "keeping flow records failed");
        }
        self.problem = Some(problem);
    }

    /// Returns why records are not on the disk.
    pub(super) fn problem(&self) -> Option<&String> {
        self.problem.as_ref()
    }

    /// Returns what reads the minutes that are over.
    pub(super) fn reader(&self) -> Option<Reader> {
        self.files.as_ref().map(RecordFiles::reader)
    }

    /// Begins another minute, if it is time.
    pub(super) fn turn_to(&mut self, now: u64) {
        let number = now / SECONDS;
        if number == self.minute.number {
            return;
        }
        let next = Minute::new(number, self.room.records);
        let over = std::mem::replace(&mut self.minute, next);
        if over.records.is_empty() {
            return;
        }
        if let Some(files) = &mut self.files
            && let Err(error) = files.append(&over, now)
        {
            self.fails(format!("writing flow records failed: {error}"));
        }
    }

    /// Writes the running minute.
    pub(super) fn write(&mut self) {
        let Some(files) = &self.files else { return };
        if !std::mem::take(&mut self.minute.is_changed) {
            return;
        }
        match files.write_current(&self.minute) {
            Ok(0) => {
                if self.problem.take().is_some() {
                    tracing::info!("flow records are kept again");
                }
            }
            Ok(left_out) => self.fails(format!(
                "flows.max_megabytes leaves no room for {left_out} records of this minute"
            )),
            Err(error) => {
                self.minute.is_changed = true;
                self.fails(format!("writing flow records failed: {error}"));
            }
        }
    }
}
