//! Link state of a device, read from the kernel without netlink.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::sys;

/// Whether a device can move frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// Administratively up.
    Up,
    /// Administratively down.
    Down,
    /// Deleted, or moved to another namespace.
    Gone,
}

/// Asks for one device by its index: a rename does not confuse it, and a socket stays in the
/// namespace it was opened in, whatever thread asks.
#[derive(Debug, Clone)]
pub(super) struct LinkProbe {
    socket: Arc<OwnedFd>,
    if_index: i32,
}

impl LinkProbe {
    pub(super) const fn new(socket: Arc<OwnedFd>, if_index: i32) -> Self {
        Self { socket, if_index }
    }

    pub(super) fn link(&self) -> LinkState {
        let up = sys::if_name(&self.socket, self.if_index)
            .and_then(|name| sys::if_is_up(&self.socket, &name));
        match up {
            Ok(true) => LinkState::Up,
            Ok(false) => LinkState::Down,
            Err(_) => LinkState::Gone,
        }
    }
}
