//! How a connection ended.

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConnectionEnd {
    /// Both ends have closed it: by FIN, or an SCTP association by either of its ways.
    Fin,
    /// One end has reset it.
    Reset,
    /// Nothing came for too long.
    Timeout,
    /// It had to make room in a table that is full, or crowded with unanswered ones.
    Evicted,
    /// A policy forbids it, or it was removed on request.
    Cut,
    /// Its next packet begins another one: its Service has no such endpoint any more.
    Replaced,
    /// The port or the address of one of its ends is gone.
    Detached,
}
