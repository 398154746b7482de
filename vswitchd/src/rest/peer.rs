//! Who is at the other end of a connection.

/// A client, as far as the kernel says who it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    /// User id over the unix socket (SO_PEERCRED); `None` over TCP.
    uid: Option<u32>,
}

impl Peer {
    /// Somebody behind a TCP connection.
    pub(super) const OVER_TCP: Self = Self { uid: None };

    /// A process of this user on this machine.
    pub(super) const fn with_uid(uid: u32) -> Self {
        Self { uid: Some(uid) }
    }

    /// Returns whether it is a process of root on this machine.
    pub(super) fn is_root(self) -> bool {
        self.uid == Some(0)
    }
}
