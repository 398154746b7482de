//! Bounded reads and writes of network-order fields; every format view is built on these.
//!
//! A read past the end is `None`, so that no length that a peer states can cause a panic.

/// Returns the `N` bytes at `offset`.
pub(super) fn chunk<const N: usize>(bytes: &[u8], offset: usize) -> Option<&[u8; N]> {
    bytes.get(offset..)?.first_chunk()
}

/// Returns the octet at `offset`.
pub(super) fn u8_at(bytes: &[u8], offset: usize) -> Option<u8> {
    bytes.get(offset).copied()
}

/// Returns the 16-bit number at `offset`.
pub(super) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    chunk(bytes, offset).map(|b| u16::from_be_bytes(*b))
}

/// Returns the 32-bit number at `offset`.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    chunk(bytes, offset).map(|b| u32::from_be_bytes(*b))
}

/// Writes `value` at `offset`; does nothing and returns `None` where it does not fit.
pub(super) fn put<const N: usize>(bytes: &mut [u8], offset: usize, value: [u8; N]) -> Option<()> {
    *bytes.get_mut(offset..)?.first_chunk_mut()? = value;
    Some(())
}

/// Writes a 16-bit number at `offset`; does nothing and returns `None` where it does not fit.
pub(super) fn put_u16(bytes: &mut [u8], offset: usize, value: u16) -> Option<()> {
    put(bytes, offset, value.to_be_bytes())
}
