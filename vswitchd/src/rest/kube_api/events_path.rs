//! Paths of events, in both of their API groups.

/// The API groups that have them: kubectl reads the first, some clients the second.
pub(super) const GROUPS: [&str; 2] = ["", "events.k8s.io"];

/// What a path below `events` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EventsPath {
    /// One of [`GROUPS`].
    pub(super) group: &'static str,
    /// `None` for the collection.
    pub(super) name: Option<String>,
}
