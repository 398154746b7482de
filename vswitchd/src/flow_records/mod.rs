//! Flow records: what was denied, when, by which policy, and what would have helped; and which
//! connections were allowed, as far as that is asked for.
//!
//! The datapath counts each denied packet by kind; [`FlowLog`] fetches that every second, while the
//! pods behind the addresses are known, and counts it up in the records of the minute. Those are
//! written to `current.jsonl` every second and to a file of lines when the minute is over, so that
//! a daemon that is killed loses a second. Memory and disk are bounded; what had no room is counted.
//!
//! Who follows is told of each second, among them what takes records elsewhere ([`export`]).
//! Connections are recorded when they have ended, and when they begin if that is asked for: all, some
//! or none of them for good, and all of them for who follows. They have a `shelf` of their own, so that however many there are,
//! none of what was denied is displaced.
//!
//! What policies in audit would deny comes the same way, and goes to `audit` as well.

mod connections;
mod explain;
pub mod export;
mod files;
mod kept;
mod log;
mod merge;
mod minute;
mod query;
mod record;
mod round;
mod shelf;
#[cfg(test)]
mod tests;

pub use kept::FlowLogOptions;
pub use log::{FlowLog, follow};
pub use query::{EndFilter, FlowQuery, parse_time};
pub use record::end;
pub use round::Round;
