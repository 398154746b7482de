//! Descriptors that are kept back, so that an attachment can be undone when there are no others.
//!
//! Nothing is begun before the reserve is full. Descriptors belong to the whole process: what
//! others open while an undoing uses the reserve may still make it fail; then the attachment
//! stays on record, and the next DEL tries again.

use std::io;

use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::Mutex;

/// What an undoing has open at a time (a netlink socket and what serves it, `nft` with its pipes,
/// a file of the store), twice.
const DESCRIPTORS: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Reserve {
    /// Held over an undoing that needs them: one at a time.
    kept: Mutex<Vec<EventFd>>,
}

impl Reserve {
    /// Fills it up.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub(super) async fn fill(&self) -> io::Result<()> {
        fill(&mut *self.kept.lock().await)
    }

    /// Undoes something, as often as twice: again with the reserve if there is something left
    /// of it and descriptors are short. Returns what failed.
    pub(super) async fn undo<F>(&self, undo: impl Fn() -> F) -> Vec<String>
    where
        F: Future<Output = Vec<String>>,
    {
        let problems = undo().await;
        if problems.is_empty() || fill(&mut Vec::new()).is_ok() {
            return problems;
        }
        let mut kept = self.kept.lock().await;
        kept.clear();
        let problems = undo().await;
        // What is not to be had again now is when the next attachment is begun.
        let _later = fill(&mut kept);
        problems
    }
}

fn fill(kept: &mut Vec<EventFd>) -> io::Result<()> {
    while kept.len() < DESCRIPTORS {
        kept.push(EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?);
    }
    Ok(())
}
