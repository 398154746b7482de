//! Bounds of a live trace.

use std::time::Duration;

use crate::switch::{LimitError, within};

/// When a live trace ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceLimits {
    /// Packets.
    pub packets: u32,
    /// How long it lasts.
    pub time: Duration,
}

impl TraceLimits {
    /// Checks what was asked for; what was not is 10 packets and 30 s.
    ///
    /// # Errors
    /// [`LimitError`].
    pub fn new(packets: Option<u64>, seconds: Option<u64>) -> Result<Self, LimitError> {
        let packets = within("count", packets, 10, 10_000)?;
        Ok(Self {
            packets: u32::try_from(packets).unwrap_or(u32::MAX),
            time: Duration::from_secs(within("seconds", seconds, 30, 3_600)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_named() {
        let error = |packets, seconds| TraceLimits::new(packets, seconds).unwrap_err().to_string();
        assert_eq!(error(Some(0), None), "count: 0 is not within 1 to 10000");
        assert_eq!(
            error(None, Some(3_601)),
            "seconds: 3601 is not within 1 to 3600"
        );
    }
}
