//! Audit: what policies that are tried out would have denied of what is allowed.
//!
//! The datapath judges allowed connections by the policies in audit as well and notes what those
//! would deny. `flow_records` fetches that with all that is denied, while the pods behind the
//! addresses are known. Here it is kept by policy, peer and port: as long as the daemon runs, and
//! in bounded room.

mod book;
mod workload;

pub(crate) use book::pod_at;
pub use book::{AuditBook, AuditCounts, AuditKey, AuditPeer};
pub use workload::Workload;
