//! A frame in a reusable buffer, with its virtio-net header and room to grow in front.

use super::VnetHeader;

/// Bytes kept free before the Ethernet header, for a VLAN tag or an outer header.
pub const HEADROOM: usize = 64;

/// Longest frame: a 64 KiB IP packet, Ethernet header and two VLAN tags.
pub const MAX_FRAME: usize = 65_535 + 14 + 8;

/// One Ethernet frame. The buffer is allocated once and reused for every receive.
#[derive(Debug, Clone)]
pub struct Frame {
    buf: Vec<u8>,
    start: usize,
    end: usize,
    /// Offload facts of the frame; offsets count from the Ethernet header.
    pub vnet: VnetHeader,
}

impl Frame {
    /// Returns an empty frame that can receive [`MAX_FRAME`] bytes.
    #[must_use]
    pub fn new() -> Self {
        Self {
            buf: vec![0; HEADROOM + MAX_FRAME],
            start: HEADROOM,
            end: HEADROOM,
            vnet: VnetHeader::default(),
        }
    }

    /// Returns a frame that holds a copy of `bytes` (cut at [`MAX_FRAME`]).
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let len = bytes.len().min(MAX_FRAME);
        let mut buf = vec![0; HEADROOM + len];
        if let (Some(to), Some(from)) = (buf.get_mut(HEADROOM..), bytes.get(..len)) {
            to.copy_from_slice(from);
        }
        Self {
            buf,
            start: HEADROOM,
            end: HEADROOM + len,
            vnet: VnetHeader::default(),
        }
    }

    /// Returns the frame from its Ethernet header on.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.buf.get(self.start..self.end).unwrap_or_default()
    }

    /// Returns the frame for rewriting in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.buf.get_mut(self.start..self.end).unwrap_or_default()
    }

    /// Returns the length in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.end - self.start
    }

    /// Returns whether the frame holds no byte.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Empties the frame and returns the room a receive may fill; then call
    /// [`Frame::set_received`].
    pub fn receive_room(&mut self) -> &mut [u8] {
        self.start = HEADROOM;
        self.end = HEADROOM;
        self.vnet = VnetHeader::default();
        self.buf.get_mut(HEADROOM..).unwrap_or_default()
    }

    /// States that a receive filled the first `len` bytes of the room.
    pub fn set_received(&mut self, len: usize, vnet: VnetHeader) {
        self.end = (self.start + len).min(self.buf.len());
        self.vnet = vnet;
    }

    /// Puts back a VLAN tag that the kernel took out (PACKET_AUXDATA) behind the addresses,
    /// and moves the offload offsets with it. Does nothing on a frame without addresses.
    pub fn insert_vlan_tag(&mut self, tpid: u16, tci: u16) {
        if self.len() < 12 || self.start < 4 {
            return;
        }
        let old = self.start;
        self.start -= 4;
        self.buf.copy_within(old..old + 12, self.start);
        let [p0, p1] = tpid.to_be_bytes();
        let [t0, t1] = tci.to_be_bytes();
        if let Some(tag) = self.buf.get_mut(self.start + 12..self.start + 16) {
            tag.copy_from_slice(&[p0, p1, t0, t1]);
        }
        // A peer may state offsets that overflow; saturated ones lie outside every frame,
        // and parsing refuses them.
        if self.vnet.needs_csum() {
            self.vnet.csum_start = self.vnet.csum_start.saturating_add(4);
        }
        if self.vnet.is_gso() {
            self.vnet.hdr_len = self.vnet.hdr_len.saturating_add(4);
        }
    }

    /// Takes out the outermost VLAN tag and moves the offload offsets with it. Returns its
    /// TPID and TCI, `None` if there is no tag.
    pub fn remove_vlan_tag(&mut self) -> Option<(u16, u16)> {
        let &[p0, p1, t0, t1] = self.bytes().get(12..)?.first_chunk()?;
        let tpid = u16::from_be_bytes([p0, p1]);
        if !super::ethernet::is_vlan(tpid) {
            return None;
        }
        self.buf
            .copy_within(self.start..self.start + 12, self.start + 4);
        self.start += 4;
        if self.vnet.needs_csum() {
            self.vnet.csum_start = self.vnet.csum_start.saturating_sub(4);
        }
        if self.vnet.is_gso() {
            self.vnet.hdr_len = self.vnet.hdr_len.saturating_sub(4);
        }
        Some((tpid, u16::from_be_bytes([t0, t1])))
    }
}

impl Default for Frame {
    fn default() -> Self {
        Self::new()
    }
}
