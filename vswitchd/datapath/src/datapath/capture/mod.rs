//! Packet capture of one port: copies of its packets with what the switch decided on them.
//!
//! Engines copy, whoever captures takes out; neither waits for the other, and what there is no
//! room for is counted. Which ports are captured is part of what is published
//! ([`crate::Datapath::begin_watch`]): while one is, its packets take the longer way through the
//! engine and none of them is offered to the path below, so that every packet is seen.

mod filter;
mod packet;
mod ring;

pub use filter::{CaptureFilter, FilterError};
pub use packet::{CapturedPacket, Decision, Outcome, Way};
pub use ring::Capture;
