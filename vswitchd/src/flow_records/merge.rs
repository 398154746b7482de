//! Records of many minutes as one for each kind.

use std::collections::HashMap;

use vswitch_api::v1::FlowOf;

use super::minute::Counted;

/// So many kinds are told apart in an answer.
const MAX_KINDS: usize = 65_536;

/// Counts of the minutes before, and those of the last one that was heard of.
#[derive(Debug)]
struct Kind {
    before: Option<Counted>,
    minute: u64,
    counted: Counted,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Merged {
    kinds: HashMap<FlowOf, Kind>,
    /// Records that there was no room for.
    pub(super) left_out: u64,
}

impl Merged {
    /// Takes in a record, in the order of their minutes. Of a minute that is told of twice, the
    /// higher count is the later.
    pub(super) fn add(&mut self, minute: u64, of: FlowOf, counted: Counted) {
        let Some(kind) = self.kinds.get_mut(&of) else {
            if self.kinds.len() >= MAX_KINDS {
                self.left_out += 1;
                return;
            }
            let kind = Kind {
                before: None,
                minute,
                counted,
            };
            self.kinds.insert(of, kind);
            return;
        };
        let sum = |of: &Counted| of.packets + of.connections;
        if kind.minute == minute {
            if sum(&counted) >= sum(&kind.counted) {
                kind.counted = counted;
            }
            return;
        }
        let over = std::mem::replace(&mut kind.counted, counted);
        kind.minute = minute;
        match &mut kind.before {
            Some(before) => before.add(&over),
            None => kind.before = Some(over),
        }
    }

    /// Returns the records, the latest first. Of one second, ends of connections are later than
    /// beginnings.
    pub(super) fn into_records(self) -> Vec<(FlowOf, Counted)> {
        let kinds = self.kinds.into_iter();
        let mut records: Vec<(FlowOf, Counted)> = kinds
            .map(|(of, kind)| match kind.before {
                Some(mut before) => {
                    before.add(&kind.counted);
                    (of, before)
                }
                None => (of, kind.counted),
            })
            .collect();
        records.sort_by(|(of, a), (other, b)| {
            let latest = b.last.cmp(&a.last);
            let ends_first = || other.end.is_some().cmp(&of.end.is_some());
            latest.then_with(ends_first).then_with(|| of.cmp(other))
        });
        records
    }
}
