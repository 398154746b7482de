//! Somebody who watches packets, as long as somebody wants to know, and within bounds.

use std::sync::Arc;

use vswitch_datapath::{Datapath, TooManyWatchers, Watcher};

use crate::supervise;

/// A bound that is out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {given} is not within 1 to {most}")]
pub struct LimitError {
    name: &'static str,
    given: u64,
    most: u64,
}

/// Returns a bound that was given, or the default.
///
/// # Errors
/// [`LimitError`] if it is 0 or more than `most`.
pub fn within(
    name: &'static str,
    given: Option<u64>,
    default: u64,
    most: u64,
) -> Result<u64, LimitError> {
    let given = given.unwrap_or(default);
    if (1..=most).contains(&given) {
        Ok(given)
    } else {
        Err(LimitError { name, given, most })
    }
}

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watch(Option<Watching>);

#[derive(Debug)]
struct Watching {
    datapath: Arc<Datapath>,
    watcher: Watcher,
}

impl Watch {
    /// Begins: every packet that is decided on from then on is watched.
    ///
    /// # Errors
    /// [`TooManyWatchers`].
    pub async fn begin(datapath: Arc<Datapath>, watcher: Watcher) -> Result<Self, TooManyWatchers> {
        // A publication may be under way, which is waited for; so it is at the end.
        let begin = move || {
            datapath.begin_watch(&watcher)?;
            Ok(Self(Some(Watching { datapath, watcher })))
        };
        supervise::blocking(begin).await
    }

    /// Ends at once. Blocks.
    pub fn end(mut self) {
        if let Some(watching) = self.0.take() {
            watching.end();
        }
    }
}

impl Watching {
    fn end(self) {
        self.datapath.end_watch(&self.watcher);
        if let Watcher::Capture(capture) = &self.watcher {
            capture.close();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some(watching) = self.0.take() else {
            return;
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(|| watching.end())),
            Err(_) => watching.end(),
        }
    }
}
