//! Records as lines of JSON in a file.

use serde::Serialize;
use vswitch_api::v1::FlowRecord;

use super::rotated::RotatedFile;
use super::sink::{Failed, Outcome, Writer};
use crate::config::FlowFileConfig;

/// See the module.
#[derive(Debug)]
pub(super) struct JsonLines(RotatedFile);

/// A line: what `/v1/flow-records` tells who follows, and the time under a name that is looked for.
#[derive(Debug, Serialize)]
struct Line<'a> {
    time: &'a str,
    #[serde(flatten)]
    record: &'a FlowRecord,
}

impl JsonLines {
    pub(super) const fn new(config: FlowFileConfig) -> Self {
        Self(RotatedFile::new(config))
    }

    /// Counts up what was taken, also if the rest is not.
    fn append(&mut self, records: &[FlowRecord], taken: &mut usize) -> Result<(), String> {
        let (mut used, max) = self.0.begin()?;
        let mut lines = Vec::new();
        for (place, record) in records.iter().enumerate() {
            let start = lines.len();
            write_line(&mut lines, record)?;
            let length = u64::try_from(lines.len() - start).unwrap_or(u64::MAX);
            if used > 0 && used + length > max {
                let line = lines.split_off(start);
                self.0.add(&lines)?;
                *taken = place;
                self.0.rotate()?;
                (used, lines) = (0, line);
            }
            used += length;
        }
        self.0.add(&lines)?;
        *taken = records.len();
        Ok(())
    }
}

impl Writer for JsonLines {
    fn write(&mut self, records: &[FlowRecord]) -> Outcome {
        let mut outcome = Outcome::default();
        let done = self.append(records, &mut outcome.taken);
        outcome.failed = done.err().map(Failed::with);
        outcome
    }
}

fn write_line(lines: &mut Vec<u8>, record: &FlowRecord) -> Result<(), String> {
    let time = &record.last;
    let line = Line { time, record };
    // Text, numbers and lists are always JSON.
    serde_json::to_writer(&mut *lines, &line).map_err(|error| error.to_string())?;
    lines.push(b'\n');
    Ok(())
}
