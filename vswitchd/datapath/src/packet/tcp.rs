//! TCP header and options (RFC 9293, window scale: RFC 7323, SACK: RFC 2018).

use super::bytes::chunk;
use super::parsed::{TcpSegment, tcp_flags};

/// Bytes of a header without options.
pub(super) const MIN_LEN: usize = 20;

/// Offsets of the fields that are rewritten in place.
pub(super) mod field {
    pub(in super::super) const SEQ: usize = 4;
    pub(in super::super) const FLAGS: usize = 13;
    pub(in super::super) const CHECKSUM: usize = 16;
}

/// RFC 7323 section 2.3: a larger shift counts as 14.
const MAX_WINDOW_SCALE: u8 = 14;

/// Bytes of the timestamps option.
const TIMESTAMPS_LEN: u8 = 10;

mod option {
    pub(super) const END: u8 = 0;
    pub(super) const NOP: u8 = 1;
    pub(super) const WINDOW_SCALE: u8 = 3;
    pub(super) const SACK_PERMITTED: u8 = 4;
    pub(super) const SACK: u8 = 5;
    pub(super) const TIMESTAMPS: u8 = 8;
}

/// A TCP header with its options.
#[derive(Debug, Clone, Copy)]
pub(super) struct TcpView<'a> {
    fixed: &'a [u8; MIN_LEN],
    options: &'a [u8],
}

impl<'a> TcpView<'a> {
    /// Reads the header if it is whole and its data offset lies within the segment.
    #[inline]
    pub(super) fn new_checked(segment: &'a [u8]) -> Option<Self> {
        let fixed: &[u8; MIN_LEN] = chunk(segment, 0)?;
        let header_len = usize::from(fixed[12] >> 4) * 4;
        let options = segment.get(MIN_LEN..header_len)?;
        Some(Self { fixed, options })
    }

    /// Returns the length of header and options.
    #[inline]
    pub(super) fn header_len(self) -> usize {
        MIN_LEN + self.options.len()
    }

    pub(super) fn src_port(self) -> u16 {
        u16::from_be_bytes([self.fixed[0], self.fixed[1]])
    }

    pub(super) fn dst_port(self) -> u16 {
        u16::from_be_bytes([self.fixed[2], self.fixed[3]])
    }

    pub(super) fn seq(self) -> u32 {
        let b = self.fixed;
        u32::from_be_bytes([b[4], b[5], b[6], b[7]])
    }

    pub(super) fn ack(self) -> u32 {
        let b = self.fixed;
        u32::from_be_bytes([b[8], b[9], b[10], b[11]])
    }

    pub(super) fn flags(self) -> u8 {
        self.fixed[13]
    }

    pub(super) fn window(self) -> u16 {
        u16::from_be_bytes([self.fixed[14], self.fixed[15]])
    }

    /// Returns what connection tracking needs.
    pub(super) fn segment(self, payload_len: u32) -> TcpSegment {
        self.with_options(self.bare_segment(payload_len))
    }

    /// Returns the same without what options say.
    #[inline(always)]
    pub(super) fn bare_segment(self, payload_len: u32) -> TcpSegment {
        TcpSegment {
            seq: self.seq(),
            ack: self.ack(),
            window: self.window(),
            flags: self.flags(),
            payload_len,
            window_scale: None,
            sack_permitted: false,
            sack_right_edge: None,
        }
    }

    /// Returns the header alone.
    #[inline(always)]
    pub(super) const fn without_options(self) -> Self {
        Self {
            fixed: self.fixed,
            options: &[],
        }
    }

    /// Returns whether there is no option besides timestamps, which all segments of a connection
    /// that has them carry like this (RFC 7323 appendix A).
    #[inline(always)]
    pub(super) fn has_no_options(self) -> bool {
        const TIMESTAMPS: [u8; 4] = [option::NOP, option::NOP, option::TIMESTAMPS, TIMESTAMPS_LEN];
        let has_timestamps_only = || {
            self.options.len() == 2 + TIMESTAMPS_LEN as usize
                && self.options.first_chunk() == Some(&TIMESTAMPS)
        };
        self.options.is_empty() || has_timestamps_only()
    }

    /// Reads the options up to the first one that is broken, as Linux does.
    fn with_options(self, mut segment: TcpSegment) -> TcpSegment {
        let is_syn = segment.flags & tcp_flags::SYN != 0;
        let mut rest = self.options;
        while let Some((&kind, behind)) = rest.split_first() {
            if kind == option::END {
                break;
            }
            if kind == option::NOP {
                rest = behind;
                continue;
            }
            let Some((data, next)) = split_option(rest) else {
                break;
            };
            match (kind, data) {
                (option::WINDOW_SCALE, &[shift]) if is_syn => {
                    segment.window_scale = Some(shift.min(MAX_WINDOW_SCALE));
                }
                (option::SACK_PERMITTED, []) if is_syn => segment.sack_permitted = true,
                (option::SACK, blocks) => segment.sack_right_edge = right_edge(blocks),
                _ => {}
            }
            rest = next;
        }
        segment
    }
}

/// Splits one option with a length into its data and what follows.
fn split_option(options: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = usize::from(*options.get(1)?);
    let (option, next) = options.split_at_checked(len)?;
    Some((option.get(2..)?, next))
}

/// Returns the right edge that is furthest in sequence space.
fn right_edge(blocks: &[u8]) -> Option<u32> {
    let (blocks, rest) = blocks.as_chunks::<8>();
    if !rest.is_empty() {
        return None;
    }
    let edges = blocks
        .iter()
        .map(|&[_, _, _, _, a, b, c, d]| u32::from_be_bytes([a, b, c, d]));
    // Serial numbers: `b` is past `a` if it is less than half of the space ahead.
    edges.reduce(|a, b| if b.wrapping_sub(a) < 1 << 31 { b } else { a })
}
