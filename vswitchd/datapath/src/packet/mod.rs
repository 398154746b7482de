//! Packet formats: bytes to meaning and back, checksums, offloads.
//!
//! [`parse`] takes a frame apart, `plain` the plain ones in a fraction of the time; each format has a module with a checked view. `rewrite`
//! changes a parsed frame in place, `offload` does what a port cannot, `fragmentation` cuts what it does not take, `emit` builds the
//! frames that the switch itself sends. All of it treats every byte as hostile.

mod arp;
mod bytes;
pub mod checksum;
pub mod emit;
mod ethernet;
mod fragmentation;
mod frame;
mod icmp;
mod ipv4;
mod ipv6;
mod l4_checksum;
mod nd;
pub mod offload;
mod parse;
mod parsed;
mod plain;
pub mod rewrite;
mod sctp;
mod tcp;
mod udp;
mod vnet;
mod vnet_check;

pub use fragmentation::{fragment, may_fragment};
pub use frame::{Frame, HEADROOM, MAX_FRAME};
pub use l4_checksum::verify_l4_checksum;
pub use parse::parse;
pub use parsed::{Fragment, IcmpQuote, ParsedPacket, TcpSegment, tcp_flags};
pub(crate) use plain::{PlainPacket, pack, pack_ipv6};
pub use sctp::crc32c;
pub use vnet::{VNET_HDR_LEN, VnetHeader};

#[cfg(test)]
mod tests;
