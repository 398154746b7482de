//! What the kernel path knows of a connection that it forwards.

use std::fmt::Debug;

use crate::time::Timestamp;

/// A connection's place in the kernel, while it has one.
///
/// The kernel changes it at any time, by operations that lose nothing of each other: numbers only
/// grow, facts stay. The connection reads it before it takes a packet in, and has it know what
/// the packet changed, both under its own lock.
pub trait KernelCell: Debug + Send + Sync {
    /// Returns what the kernel knows by now.
    fn read(&self) -> KernelState;

    /// Has the kernel know at least this of TCP.
    fn join(&self, tcp: &KernelTcp);

    /// Has the kernel leave all packets that come from now on to the engine.
    fn close(&self);
}

/// What went by of a connection, and how far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KernelState {
    /// What went by of who began and of who answers, ever since it was handed over.
    pub sides: [KernelUsage; 2],
    /// When the last packet of either came; means nothing before the first.
    pub last: [Timestamp; 2],
    /// How far TCP has come.
    pub tcp: Option<KernelTcp>,
}

/// What went by in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KernelUsage {
    /// Frames; a super-frame is one.
    pub packets: u64,
    /// Their bytes, Ethernet header included.
    pub bytes: u64,
}

/// How far a TCP connection has come. The states between which the kernel tells are what these
/// facts amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KernelTcp {
    /// The handshake is complete.
    pub is_open: bool,
    /// A reset ended it.
    pub is_reset: bool,
    /// Who began, and who answers.
    pub ends: [KernelTcpEnd; 2],
}

/// How far one end of a TCP connection has come; see [RFC 9293] for the words.
///
/// [RFC 9293]: https://www.rfc-editor.org/rfc/rfc9293
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KernelTcpEnd {
    /// It has acknowledged something. Who answers is known only once it has.
    pub has_acked: bool,
    /// It has sent a FIN.
    pub has_sent_fin: bool,
    /// Sequence number of its SYN.
    pub isn: u32,
    /// End of the highest segment that it sent.
    pub end: u32,
    /// End of what the other end lets it send.
    pub max_end: u32,
    /// Largest window that it offered.
    pub max_win: u32,
    /// Highest acknowledgement that it sent.
    pub max_ack: u32,
    /// Window scale; `None` if it offers none.
    pub scale: Option<u8>,
    /// Window that it offered last, as the header has it.
    pub window: u16,
}
