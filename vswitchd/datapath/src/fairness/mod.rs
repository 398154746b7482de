//! Fairness: keeps one port from taking the others' share of a worker and of the connection
//! table.
//!
//! ```text
//!  ready port ─► Account::begin_turn ─► batches while it has credit ─► Account::charge
//!                                            │
//!                      Account::standing ◄───┘ Within: packets walk the tables
//!                                              Refusing: new flows are dropped before the walk
//!                                              Paused: its frames wait in its socket
//! ```
//!
//! Two measures, both in time that a worker spent:
//!
//! - *turns*: deficit round robin (Shreedhar, Varghese 1995) over the ports that have frames. A
//!   port that took longer than its quantum waits that much longer for its next turn.
//! - *waste*: what goes into packets that come to nothing, so far: first packets of flows that
//!   nobody answered, and what is dropped or answered by the switch itself. A port's waste fills a
//!   bucket that leaks [`WASTE_SHARE`] of a worker. While others contend for the worker or for the
//!   processor, a port whose bucket is full is over its share. A flow that is answered takes its
//!   cost out again, so that a busy client is never over it.
//!
//! Nothing here reads a clock, and an account belongs to one thread. What the connection table
//! counts for a port is in its [`PortShare`], which all threads share.

mod account;
mod contention;
mod port_share;
#[cfg(test)]
mod tests;

pub use account::{Account, Standing, WASTE_SHARE, Work};
pub use contention::Contention;
pub use port_share::PortShare;
