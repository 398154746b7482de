//! What all tables of flow records have in common.

use std::fmt::Write as _;

use vswitch_api::v1::{FlowEnd, FlowRecords};

/// Returns an end by name.
pub(crate) fn end(end: Option<&FlowEnd>) -> String {
    end.map_or_else(|| "various".to_owned(), FlowEnd::to_string)
}

/// Says what was beyond the limit.
pub(crate) fn write_more(text: &mut String, answer: &FlowRecords) {
    if answer.more > 0 {
        let more = answer.more;
        let _ = writeln!(text, "and {more} earlier ones (--limit shows more)");
    }
}

/// Says what there is no record of.
pub(crate) fn write_gaps(text: &mut String, answer: &FlowRecords, lost: u64) {
    if lost > 0 {
        let _ = writeln!(
            text,
            "{lost} more since the daemon started: too many at once to keep apart"
        );
    }
    for problem in &answer.problems {
        let _ = writeln!(text, "note: {problem}");
    }
}
