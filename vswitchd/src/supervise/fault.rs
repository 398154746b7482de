//! Faults that tests put into parts. The daemon has none: [`Faults::none`].

use std::fmt;
use std::sync::Arc;

use super::part::{Limits, Part};

/// What a part is made to do at its next beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// To panic.
    Panic,
    /// To give no sign of life any more: a thread sleeps, a task waits for what never comes.
    Hang,
}

type Hook = Arc<dyn Fn(Part) -> Option<Fault> + Send + Sync>;

/// Decides which part fails, and shortens the limits of all.
#[derive(Clone, Default)]
pub struct Faults {
    hook: Option<Hook>,
    limits: Option<Limits>,
}

impl Faults {
    /// Nothing fails.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Asks `hook` at each beat; every part has these limits.
    #[must_use]
    pub fn new(
        limits: Limits,
        hook: impl Fn(Part) -> Option<Fault> + Send + Sync + 'static,
    ) -> Self {
        Self {
            hook: Some(Arc::new(hook)),
            limits: Some(limits),
        }
    }

    /// Returns what becomes of a part now.
    pub(super) fn of(&self, part: Part) -> Option<Fault> {
        self.hook.as_ref()?(part)
    }

    pub(super) fn limits(&self, part: Part) -> Limits {
        self.limits.unwrap_or_else(|| part.limits())
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").finish_non_exhaustive()
    }
}

/// Carries out a fault on a thread.
pub(super) fn fail(part: Part, fault: Fault) {
    match fault {
        Fault::Panic => panic!("a test made {} panic", part.name()),
        Fault::Hang => loop {
            std::thread::park();
        },
    }
}
