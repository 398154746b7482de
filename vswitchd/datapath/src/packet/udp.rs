//! UDP header (RFC 768).

use super::bytes::chunk;

/// Bytes of the header.
pub(super) const LEN: usize = 8;
/// Where the checksum stands.
pub(super) const CHECKSUM: usize = 6;
/// Where the length stands.
pub(super) const LENGTH: usize = 4;

/// A UDP header.
#[derive(Debug, Clone, Copy)]
pub(super) struct UdpView<'a> {
    bytes: &'a [u8; LEN],
}

impl<'a> UdpView<'a> {
    /// Reads the header if it is whole.
    pub(super) fn new_checked(datagram: &'a [u8]) -> Option<Self> {
        chunk(datagram, 0).map(|bytes| Self { bytes })
    }

    pub(super) fn src_port(self) -> u16 {
        u16::from_be_bytes([self.bytes[0], self.bytes[1]])
    }

    pub(super) fn dst_port(self) -> u16 {
        u16::from_be_bytes([self.bytes[2], self.bytes[3]])
    }

    /// Returns the stated length of header and payload.
    pub(super) fn length(self) -> usize {
        usize::from(u16::from_be_bytes([self.bytes[4], self.bytes[5]]))
    }

    pub(super) fn checksum(self) -> u16 {
        u16::from_be_bytes([self.bytes[6], self.bytes[7]])
    }

    /// Returns whether the stated length fits into `available` bytes. Bytes behind it are
    /// allowed (RFC 9868); 0 stands for "to the end" in jumbograms (RFC 2675), which only
    /// super-frames can be here.
    pub(super) fn length_fits(self, available: usize, is_gso: bool) -> bool {
        (LEN..=available).contains(&self.length()) || (is_gso && self.length() == 0)
    }
}
