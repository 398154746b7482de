//! Bounds of a capture.

use std::time::Duration;

use vswitch_datapath::packet::MAX_FRAME;

use crate::switch::{LimitError, within};

/// When a capture ends by itself, and how much of each packet is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaptureLimits {
    /// Packets.
    pub packets: u64,
    /// Bytes of the capture file.
    pub bytes: u64,
    /// How long it lasts.
    pub time: Duration,
    /// Bytes of each packet.
    pub snaplen: usize,
}

impl CaptureLimits {
    /// Checks what was asked for; what was not is 100,000 packets, 64 MiB, 60 s, and 2,048 bytes of
    /// each packet: whole frames of an MTU of 1,500, and the headers of super-frames.
    ///
    /// # Errors
    /// [`LimitError`].
    pub fn new(
        packets: Option<u64>,
        megabytes: Option<u64>,
        seconds: Option<u64>,
        snaplen: Option<u64>,
    ) -> Result<Self, LimitError> {
        let longest = u64::try_from(MAX_FRAME).unwrap_or(u64::MAX);
        let snaplen = within("snaplen", snaplen, 2_048, longest)?;
        Ok(Self {
            packets: within("count", packets, 100_000, 100_000_000)?,
            bytes: within("megabytes", megabytes, 64, 65_536)? << 20,
            time: Duration::from_secs(within("seconds", seconds, 60, 86_400)?),
            snaplen: usize::try_from(snaplen).unwrap_or(MAX_FRAME),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_named() {
        let error = |limits: Result<CaptureLimits, LimitError>| limits.unwrap_err().to_string();
        assert_eq!(
            error(CaptureLimits::new(Some(0), None, None, None)),
            "count: 0 is not within 1 to 100000000"
        );
        assert_eq!(
            error(CaptureLimits::new(None, None, Some(86_401), None)),
            "seconds: 86401 is not within 1 to 86400"
        );
        assert_eq!(
            error(CaptureLimits::new(None, None, None, Some(100_000))),
            "snaplen: 100000 is not within 1 to 65557"
        );
    }
}
