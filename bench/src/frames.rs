//! Frames that a guest's stack would send.

use std::net::Ipv4Addr;

use vswitch_api::MacAddr;
use vswitch_datapath::packet::checksum::checksum;
use vswitch_datapath::packet::{Frame, VnetHeader};

/// TCP flags.
pub const SYN: u8 = 0x02;
/// The answer to a SYN.
pub const SYN_ACK: u8 = 0x12;
/// Data.
pub const ACK: u8 = 0x10;

/// Headers of Ethernet, IPv4 and TCP with the timestamp option that stacks send.
pub const HEADERS: usize = 14 + 20 + 32;

/// Where the sequence number stands, followed by the acknowledgement number.
pub const SEQ: usize = 14 + 20 + 4;

/// A segment of TCP over IPv4.
#[derive(Debug, Clone, Copy)]
pub struct Segment {
    /// Sender's MAC.
    pub mac_src: MacAddr,
    /// Receiver's MAC.
    pub mac_dst: MacAddr,
    /// Sender.
    pub src: (Ipv4Addr, u16),
    /// Receiver.
    pub dst: (Ipv4Addr, u16),
    /// TCP flags.
    pub flags: u8,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Bytes of payload, all zero.
    pub payload: u16,
}

impl Segment {
    /// Returns the frame, its TCP checksum left out and vouched for, as a veth hands it over.
    #[must_use]
    pub fn frame(&self) -> Frame {
        let mut bytes = Vec::with_capacity(HEADERS);
        bytes.extend(self.mac_dst.0);
        bytes.extend(self.mac_src.0);
        bytes.extend([0x08, 0x00]);
        bytes.extend(self.ipv4_header());
        bytes.extend(self.src.1.to_be_bytes());
        bytes.extend(self.dst.1.to_be_bytes());
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(self.ack.to_be_bytes());
        bytes.extend([0x80, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        bytes.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 1]);
        bytes.resize(HEADERS + usize::from(self.payload), 0);
        let mut frame = Frame::from_bytes(&bytes);
        frame.vnet.flags = VnetHeader::F_DATA_VALID;
        frame
    }

    fn ipv4_header(&self) -> [u8; 20] {
        let mut header = [0; 20];
        let [high, low] = (52 + self.payload).to_be_bytes();
        header[..4].copy_from_slice(&[0x45, 0, high, low]);
        header[6..10].copy_from_slice(&[0x40, 0, 64, 6]);
        header[12..16].copy_from_slice(&self.src.0.octets());
        header[16..].copy_from_slice(&self.dst.0.octets());
        let sum = checksum(&header).to_be_bytes();
        header[10..12].copy_from_slice(&sum);
        header
    }
}
