//! The Internet checksum: whole (RFC 1071), over pseudo-headers, and by increments (RFC 1624).
//!
//! Sums are one's complement sums in native integers, not yet inverted; [`finish`] inverts.

use std::net::IpAddr;

/// A one's complement sum in progress; wide enough to add a 64 KiB frame without folding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Returns an empty sum.
    #[must_use]
    pub const fn new() -> Self {
        Self(0)
    }

    /// Adds bytes as big-endian 16-bit words; an odd last byte is padded with zero.
    ///
    /// Only the last call on one sum may have an odd length.
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let mut acc = u128::from(self.0);
        let (chunks, tail) = bytes.as_chunks::<8>();
        // RFC 1071 section 2(C): a wider accumulator defers the carries; a one's complement
        // sum modulo 2^64-1 is also one modulo 2^16-1, as 2^16-1 divides 2^64-1.
        let (mut a, mut carries) = (0u64, 0u64);
        for chunk in chunks {
            let (sum, carry) = a.overflowing_add(u64::from_be_bytes(*chunk));
            a = sum;
            carries += u64::from(carry);
        }
        acc += u128::from(a) + u128::from(carries);
        let mut last = [0u8; 8];
        for (to, from) in last.iter_mut().zip(tail) {
            *to = *from;
        }
        acc += u128::from(u64::from_be_bytes(last));
        Self(fold_128(acc))
    }

    /// Adds one 16-bit word.
    #[must_use]
    pub const fn word(self, word: u16) -> Self {
        self.add(word as u64)
    }

    /// Adds a 32-bit number as two words.
    #[must_use]
    pub const fn dword(self, dword: u32) -> Self {
        self.add(dword as u64)
    }

    /// Adds an address.
    #[must_use]
    pub fn ip(self, ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => self.dword(v4.to_bits()),
            IpAddr::V6(v6) => self.bytes(&v6.octets()),
        }
    }

    /// Takes out one 16-bit word that was added before.
    #[must_use]
    pub const fn minus_word(self, word: u16) -> Self {
        // RFC 1624 equation 3: adding the complement is subtracting in one's complement.
        self.word(!word)
    }

    const fn add(self, value: u64) -> Self {
        let (sum, carry) = self.0.overflowing_add(value);
        Self(sum + carry as u64)
    }

    /// Returns the sum folded into 16 bits, not inverted.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the value was folded into 16 bits"
    )]
    pub const fn fold(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    /// Returns the checksum to store: the complement of the folded sum.
    #[must_use]
    pub const fn finish(self) -> u16 {
        !self.fold()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the value was folded into 64 bits"
)]
const fn fold_128(mut sum: u128) -> u64 {
    while sum > u64::MAX as u128 {
        sum = (sum & u64::MAX as u128) + (sum >> 64);
    }
    sum as u64
}

/// Returns the complement of the sum of `bytes`; zero if they hold their own right checksum.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    Sum::new().bytes(bytes).finish()
}

/// Returns the pseudo-header sum of TCP, UDP and ICMPv6 (RFC 9293 3.1, RFC 8200 8.1).
///
/// Addresses of two families have no pseudo-header; both are simply added.
#[must_use]
pub fn pseudo_header(src: IpAddr, dst: IpAddr, proto: u8, len: usize) -> Sum {
    Sum::new()
        .ip(src)
        .ip(dst)
        .word(u16::from(proto))
        .add(len as u64)
}

/// Returns the checksum after some words that it covers changed (RFC 1624 equation 3).
///
/// `old` and `new` are the sums of those words before and after.
#[must_use]
pub const fn update(checksum: u16, old: Sum, new: Sum) -> u16 {
    Sum::new()
        .word(!checksum)
        .minus_word(old.fold())
        .word(new.fold())
        .finish()
}

/// Returns a stored partial checksum (a pseudo-header sum, not inverted) after some words of
/// the pseudo-header changed; what stands in the field of a frame with NEEDS_CSUM.
#[must_use]
pub const fn update_partial(partial: u16, old: Sum, new: Sum) -> u16 {
    Sum::new()
        .word(partial)
        .minus_word(old.fold())
        .word(new.fold())
        .fold()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_rfc_1071_sums_to_ddf2() {
        let sum = Sum::new().bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.fold(), 0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624_updates_to_zero_and_not_to_minus_zero() {
        // RFC 1624 section 4: HC = 0xdd2f, m = 0x5555, m' = 0x3285 gives 0x0000.
        let new = update(0xdd2f, Sum::new().word(0x5555), Sum::new().word(0x3285));
        assert_eq!(new, 0x0000);
    }

    #[test]
    fn a_64_kib_frame_of_ones_does_not_overflow() {
        assert_eq!(
            checksum(&vec![0xff; 65_535 + 22]),
            !Sum::new().word(0xff00).fold()
        );
    }

    proptest! {
        #[test]
        fn the_sum_is_that_of_smoltcp(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            prop_assert_eq!(
                Sum::new().bytes(&bytes).fold(),
                smoltcp::wire::checksum::data(&bytes)
            );
        }

        #[test]
        fn the_pseudo_header_is_that_of_smoltcp(
            src: [u8; 16], dst: [u8; 16], proto: u8, len in 0u32..65_536,
        ) {
            let (src, dst) = (Ipv6Addr::from(src), Ipv6Addr::from(dst));
            let expected = smoltcp::wire::checksum::pseudo_header_v6(
                &src, &dst, smoltcp::wire::IpProtocol::from(proto), len,
            );
            prop_assert_eq!(pseudo_header(src.into(), dst.into(), proto, len as usize).fold(), expected);
        }

        #[test]
        fn an_incremental_update_verifies_as_a_new_sum(
            mut bytes in proptest::collection::vec(any::<u8>(), 8..200), at in 0usize..2, word: u16,
        ) {
            bytes.truncate(bytes.len() & !1);
            let stored = checksum(&bytes);
            let at = at * 2;
            let old = Sum::new().bytes(&bytes[at..at + 2]);
            bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
            let updated = update(stored, old, Sum::new().word(word));
            prop_assert_eq!(Sum::new().bytes(&bytes).word(updated).fold(), 0xffff);
        }
    }
}
