//! Live traces: packets of a description while they pass, each with the tables that it met.
//!
//! A [`LiveTraceSession`] takes out of the datapath what the workers put in; it lasts as long as somebody
//! asks for the next packet, and within [`TraceLimits`]. When it is dropped the trace ends, and the
//! connections of the port may take the fast path again.

mod limits;
mod session;

pub use limits::TraceLimits;
pub use session::{Ended, Heard, LiveTraceSession};
