//! Counters of a port: written by workers, read by REST and metrics at any time.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use vswitch_api::{IfName, PortNo};

use super::{LinkState, Received, Sent};

/// Live counters of one port. Relaxed: each stands alone, nothing is ordered by them.
#[derive(Debug, Default)]
pub struct PortCounters {
    rx_frames: AtomicU64,
    rx_bytes: AtomicU64,
    rx_dropped: AtomicU64,
    rx_errors: AtomicU64,
    tx_frames: AtomicU64,
    tx_bytes: AtomicU64,
    tx_dropped: AtomicU64,
    tx_errors: AtomicU64,
}

impl PortCounters {
    /// Counts a receive call; `bytes` is the sum over its good frames.
    pub fn count_received(&self, received: Received, bytes: u64) {
        self.rx_frames.fetch_add(received.frames as u64, Relaxed);
        self.rx_bytes.fetch_add(bytes, Relaxed);
        if received.bad > 0 {
            self.rx_errors.fetch_add(received.bad as u64, Relaxed);
        }
    }

    /// Counts frames that the kernel dropped before the switch read them.
    pub fn count_rx_dropped(&self, frames: u64) {
        self.rx_dropped.fetch_add(frames, Relaxed);
    }

    /// Counts a receive call that failed.
    pub fn count_rx_error(&self) {
        self.rx_errors.fetch_add(1, Relaxed);
    }

    /// Counts a send call.
    pub fn count_sent(&self, sent: &Sent) {
        self.tx_frames.fetch_add(sent.frames as u64, Relaxed);
        self.tx_bytes.fetch_add(sent.bytes, Relaxed);
        if sent.lost() > 0 {
            self.tx_dropped
                .fetch_add((sent.no_room + sent.down) as u64, Relaxed);
            self.tx_errors.fetch_add(sent.refused as u64, Relaxed);
        }
    }

    /// Counts frames that were received below the switch.
    pub fn count_kernel_rx(&self, frames: u64, bytes: u64) {
        self.rx_frames.fetch_add(frames, Relaxed);
        self.rx_bytes.fetch_add(bytes, Relaxed);
    }

    /// Counts frames that were sent below the switch.
    pub fn count_kernel_tx(&self, frames: u64, bytes: u64) {
        self.tx_frames.fetch_add(frames, Relaxed);
        self.tx_bytes.fetch_add(bytes, Relaxed);
    }

    /// Returns the counters as they stand.
    #[must_use]
    pub fn stats(&self, port: PortNo, ifname: IfName, link: LinkState) -> PortStats {
        PortStats {
            port,
            ifname,
            link,
            rx_frames: self.rx_frames.load(Relaxed),
            rx_bytes: self.rx_bytes.load(Relaxed),
            rx_dropped: self.rx_dropped.load(Relaxed),
            rx_errors: self.rx_errors.load(Relaxed),
            tx_frames: self.tx_frames.load(Relaxed),
            tx_bytes: self.tx_bytes.load(Relaxed),
            tx_dropped: self.tx_dropped.load(Relaxed),
            tx_errors: self.tx_errors.load(Relaxed),
        }
    }
}

/// A port's counters at one moment. rx and tx are from the switch's side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortStats {
    /// The port.
    pub port: PortNo,
    /// Its device.
    pub ifname: IfName,
    /// State of its device, as last seen.
    pub link: LinkState,
    /// Frames received; a GSO super-frame counts as one.
    pub rx_frames: u64,
    /// Bytes received, Ethernet headers included.
    pub rx_bytes: u64,
    /// Frames that the kernel dropped because the switch did not read fast enough.
    pub rx_dropped: u64,
    /// Frames that could not be received whole, and failed receive calls.
    pub rx_errors: u64,
    /// Frames sent; a GSO super-frame counts as one.
    pub tx_frames: u64,
    /// Bytes sent, Ethernet headers included.
    pub tx_bytes: u64,
    /// Frames lost because the device was down, gone or full.
    pub tx_dropped: u64,
    /// Frames that the kernel refused (too long, bad offload).
    pub tx_errors: u64,
}
