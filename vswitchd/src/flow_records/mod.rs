//! Flow records: what was denied, when, by which policy, and what would have helped.
//!
//! The datapath counts each denied packet by kind; [`FlowLog`] fetches that every second, while the
//! pods behind the addresses are known, and counts it up in the records of the minute. Those are
//! written to `current.jsonl` every second and to a file of lines when the minute is over, so that
//! a daemon that is killed loses a second. Memory and disk are bounded; what had no room is counted.
//!
//! Who follows is told of each second, among them what takes records elsewhere ([`export`]).
//!
//! What policies in audit would deny comes the same way, and goes to `audit` as well.

mod explain;
pub mod export;
mod files;
mod log;
mod merge;
mod minute;
mod query;
mod record;
mod round;
#[cfg(test)]
mod tests;

pub use log::{FlowLog, FlowLogOptions, follow};
pub use query::{EndFilter, FlowQuery, parse_time};
pub use record::end;
pub use round::Round;
