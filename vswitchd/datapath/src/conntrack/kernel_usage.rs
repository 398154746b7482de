//! Packets, bytes and TCP progress of a connection that the kernel path forwarded.

/// What went by below since it was last asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KernelUsage {
    /// Frames; a super-frame is one.
    pub packets: u64,
    /// Their bytes, Ethernet header included.
    pub bytes: u64,
    /// TCP: how far the flow has come.
    pub tcp: Option<TcpProgress>,
}

/// How far one direction of a TCP connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpProgress {
    /// End of the highest segment.
    pub seq_end: u32,
    /// Highest acknowledgement.
    pub ack: u32,
    /// Window that came with it, as the header has it.
    pub window: u16,
}
