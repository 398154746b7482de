//! Connection tracking: a bounded, sharded table of connections shared by all workers.
//!
//! The pipeline calls [`ConnTable::lookup`] for each packet that no flow cache knows,
//! [`ConnTable::commit`] when it forwards the first packet of a connection, and
//! [`Connection::track`] for each packet that it forwards of one that is there.
//!
//! ```text
//!  packet ─► lookup ─┬─ NEW ───► policies ─► commit ─► forward
//!                    ├─ EST ───► (re-judge) ─► Connection::track ─► forward
//!                    ├─ REL ───► forward (an ICMP error about a connection)
//!                    └─ INV ───► drop
//! ```
//!
//! Invariants: never more than `max_entries` connections; a connection that is past its time is
//! not found; a connection that is out of the table is dead and says so. Connections that begin and
//! end are noted while somebody wants to know (`noted`). Everything takes
//! `&self` and may be called from any thread. Locks are held for one operation, one at a time.

mod config;
mod connection;
mod end;
mod faces;
mod fragment;
mod generic;
mod icmp;
mod in_kernel;
mod kernel_state;
mod lookup;
mod nat;
mod noted;
mod port_shares;
mod protocol;
mod recording;
mod sctp;
mod shard;
mod step;
mod table;
mod tally;
mod tcp;
mod tcp_window;
mod tuple;
mod udp;

pub use config::ConntrackConfig;
pub use connection::{Connection, ConnectionInfo};
pub use end::ConnectionEnd;
pub(crate) use fragment::DatagramId;
pub use kernel_state::{KernelCell, KernelState, KernelTcp, KernelTcpEnd, KernelUsage};
pub use lookup::CtLookup;
pub(crate) use noted::Noted;
pub use noted::RecordConnections;
pub use table::{CommitOptions, ConnTable};
pub use tally::ConntrackStats;
pub use tuple::{Direction, Tuple};

#[cfg(test)]
mod tests;
