//! Live trace: what happens to the next packets of a description, packet by packet.
//!
//! Engines put in what the tables say of a packet and what became of it, whoever traces takes it out;
//! neither waits for the other, and what there is no room for is counted. Every packet of one port is
//! looked at, as long as some are wanted: that of one end of what is described.

mod flow;
mod packet;
mod queue;

pub use flow::TracedFlow;
pub use packet::{PacketSummary, TracedPacket};
pub use queue::LiveTrace;
