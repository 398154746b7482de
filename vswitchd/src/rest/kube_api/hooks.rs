//! Hooks of the Kubernetes API into the daemon, and the state of its handlers.

use std::sync::Arc;

use super::super::{Readers, Task};
use crate::objects::{Registry, Resource, ResourceInfo, StatusError};

/// Waits until what was written with a version is in force, or says why it is not.
pub type AfterWrite = Arc<dyn Fn(u64) -> Task<Result<(), StatusError>> + Send + Sync>;

/// What the API asks of its surroundings.
#[derive(Clone)]
pub struct KubeApiHooks {
    /// Called with the version of each write before it is answered, so that the caller may wait
    /// until it is in force; an error is answered in its place.
    pub after_write: Option<AfterWrite>,
    /// Events, which the daemon records itself.
    pub events: Arc<Registry>,
    /// Runs what collects long answers.
    pub readers: Readers,
    /// Turns true when the daemon stops: watches end then.
    pub stop: tokio::sync::watch::Receiver<bool>,
}

impl std::fmt::Debug for KubeApiHooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubeApiHooks")
            .field("stop", &self.stop)
            .finish_non_exhaustive()
    }
}

/// What handlers act on.
#[derive(Debug, Clone)]
pub(super) struct ApiState {
    pub(super) registry: Arc<Registry>,
    pub(super) hooks: KubeApiHooks,
}

impl ApiState {
    /// Returns the registry that has the objects of a kind.
    pub(super) fn registry_of(&self, info: &ResourceInfo) -> &Arc<Registry> {
        match info.resource {
            Resource::Event => &self.hooks.events,
            _ => &self.registry,
        }
    }
}
