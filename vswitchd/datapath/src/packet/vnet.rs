//! The virtio-net header that travels with every frame (virtio 1.2, section 5.1.6).

/// Bytes of `struct virtio_net_hdr` (without `num_buffers`), as PACKET_VNET_HDR and
/// TUNSETVNETHDRSZ 10 exchange it.
pub const VNET_HDR_LEN: usize = 10;

/// A decoded `struct virtio_net_hdr`; all fields little-endian on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VnetHeader {
    /// VIRTIO_NET_HDR_F_*.
    pub flags: u8,
    /// VIRTIO_NET_HDR_GSO_*.
    pub gso_type: u8,
    /// Bytes of all headers, up to and including TCP's.
    pub hdr_len: u16,
    /// Payload bytes of each segment.
    pub gso_size: u16,
    /// Where the checksum starts, from the Ethernet header.
    pub csum_start: u16,
    /// Where the checksum is stored, from `csum_start`.
    pub csum_offset: u16,
}

impl VnetHeader {
    /// The checksum at `csum_start + csum_offset` holds only the pseudo-header sum.
    pub const F_NEEDS_CSUM: u8 = 1;
    /// The checksum was verified.
    pub const F_DATA_VALID: u8 = 2;
    /// Not a super-frame.
    pub const GSO_NONE: u8 = 0;
    /// TCP over IPv4.
    pub const GSO_TCPV4: u8 = 1;
    /// UDP fragmentation (legacy UFO).
    pub const GSO_UDP: u8 = 3;
    /// TCP over IPv6.
    pub const GSO_TCPV6: u8 = 4;
    /// UDP segmentation (USO).
    pub const GSO_UDP_L4: u8 = 5;
    /// TCP with ECN; ORed into the type.
    pub const GSO_ECN: u8 = 0x80;

    /// Decodes the ten bytes.
    #[must_use]
    pub const fn parse(b: &[u8; VNET_HDR_LEN]) -> Self {
        Self {
            flags: b[0],
            gso_type: b[1],
            hdr_len: u16::from_le_bytes([b[2], b[3]]),
            gso_size: u16::from_le_bytes([b[4], b[5]]),
            csum_start: u16::from_le_bytes([b[6], b[7]]),
            csum_offset: u16::from_le_bytes([b[8], b[9]]),
        }
    }

    /// Encodes the ten bytes.
    #[must_use]
    pub const fn emit(self) -> [u8; VNET_HDR_LEN] {
        let [h0, h1] = self.hdr_len.to_le_bytes();
        let [g0, g1] = self.gso_size.to_le_bytes();
        let [s0, s1] = self.csum_start.to_le_bytes();
        let [o0, o1] = self.csum_offset.to_le_bytes();
        [self.flags, self.gso_type, h0, h1, g0, g1, s0, s1, o0, o1]
    }

    /// Returns whether the frame is a GSO super-frame.
    #[must_use]
    pub const fn is_gso(self) -> bool {
        self.gso_type & !Self::GSO_ECN != Self::GSO_NONE
    }

    /// Returns whether the transport checksum still has to be completed.
    #[must_use]
    pub const fn needs_csum(self) -> bool {
        self.flags & Self::F_NEEDS_CSUM != 0
    }
}
