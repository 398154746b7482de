//! Where records go besides the store on the node: a file of lines, the journal, collectors.
//!
//! ```text
//! FlowLog ─► Round ─► Waiting (bounded) ─► Sink ─► file, journald, OTLP, IPFIX
//! ```
//!
//! Each destination has a task, a place in what is told and a queue of its own: one that is slow or
//! away holds up neither the others nor the records of the node. What it does not take is handed to
//! it again; beyond the bound the oldest records are lost to it, which is counted.

mod destination;
mod file;
mod follow;
mod ipfix;
mod ipfix_messages;
mod ipfix_records;
mod journal;
mod journal_entry;
mod otlp;
mod otlp_records;
mod otlp_tls;
mod rotated;
mod sentence;
mod sink;
mod start;
#[cfg(test)]
mod tests;
mod waiting;

pub use destination::Destination;
pub use start::{Exports, check, start};
