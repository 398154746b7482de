//! SCTP common header and first chunk header (RFC 9260), and its CRC32c checksum.

use super::bytes::chunk;

/// Bytes of the common header.
pub(super) const HEADER_LEN: usize = 12;
/// Where the checksum stands.
pub(super) const CHECKSUM: usize = 8;

const CHUNK_HEADER_LEN: usize = 4;

/// An SCTP common header and the first chunk's header.
#[derive(Debug, Clone, Copy)]
pub(super) struct SctpView<'a> {
    bytes: &'a [u8; HEADER_LEN + CHUNK_HEADER_LEN],
}

impl<'a> SctpView<'a> {
    /// Reads the headers if they are whole and the chunk's length is possible (RFC 9260
    /// section 3.2: at least its own header).
    pub(super) fn new_checked(packet: &'a [u8]) -> Option<Self> {
        let view = Self {
            bytes: chunk(packet, 0)?,
        };
        (view.chunk_len() >= CHUNK_HEADER_LEN).then_some(view)
    }

    pub(super) fn src_port(self) -> u16 {
        u16::from_be_bytes([self.bytes[0], self.bytes[1]])
    }

    pub(super) fn dst_port(self) -> u16 {
        u16::from_be_bytes([self.bytes[2], self.bytes[3]])
    }

    pub(super) fn verification_tag(self) -> u32 {
        let b = self.bytes;
        u32::from_be_bytes([b[4], b[5], b[6], b[7]])
    }

    pub(super) fn chunk_type(self) -> u8 {
        self.bytes[12]
    }

    /// Returns the stated length of the first chunk.
    pub(super) fn chunk_len(self) -> usize {
        usize::from(u16::from_be_bytes([self.bytes[14], self.bytes[15]]))
    }
}

/// CRC32c (Castagnoli, reflected), one table step per byte.
#[expect(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "evaluated at compile time with an index below 256"
)]
const CRC32C_TABLE: [u32; 256] = {
    // RFC 9260 appendix A: the polynomial 0x1edc6f41, here bit-reversed.
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ POLYNOMIAL
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

fn crc32c_step(crc: u32, byte: u8) -> u32 {
    let index = usize::from(crc.to_le_bytes()[0] ^ byte);
    CRC32C_TABLE.get(index).copied().unwrap_or_default() ^ crc >> 8
}

/// Returns the CRC32c of `bytes`.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    !bytes
        .iter()
        .fold(u32::MAX, |crc, &byte| crc32c_step(crc, byte))
}

/// Returns the checksum field that an SCTP packet must have, as the bytes on the wire
/// (the field itself counts as zero); `None` if it has no common header.
pub(super) fn checksum(packet: &[u8]) -> Option<[u8; 4]> {
    let (head, rest) = (packet.get(..CHECKSUM)?, packet.get(HEADER_LEN..)?);
    let bytes = head.iter().chain(&[0; 4]).chain(rest);
    // RFC 9260 appendix A: the reflected CRC goes out with its low byte first.
    Some((!bytes.fold(u32::MAX, |crc, &byte| crc32c_step(crc, byte))).to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_of_the_check_string_is_the_catalogued_value() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn crc32c_of_zeroes_is_that_of_rfc_3720() {
        // RFC 3720 B.4: 32 bytes of zeroes give aa 36 91 8a on the wire.
        assert_eq!(crc32c(&[0; 32]).to_le_bytes(), [0xaa, 0x36, 0x91, 0x8a]);
    }
}
