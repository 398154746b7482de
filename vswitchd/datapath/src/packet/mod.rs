//! Packet formats: bytes to meaning and back, checksums, offloads.

mod frame;
mod parsed;
mod vnet;

pub use frame::{Frame, HEADROOM, MAX_FRAME};
pub use parsed::{Fragment, IcmpQuote, ParsedPacket, TcpSegment, tcp_flags};
pub use vnet::{VNET_HDR_LEN, VnetHeader};
