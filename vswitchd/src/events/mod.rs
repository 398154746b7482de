//! Events of Kubernetes (core/v1) about objects: what `kubectl describe` and `kubectl get events` show.
//!
//! ```text
//! Note ─► Recorder (bounded queue) ─► Correlator (counts up, spares) ─► API server, or registry of Events
//! ```
//!
//! As client-go's recorder does it: one Event for each object, reason and message, which counts up;
//! an object that has many costs few writes. What is noted by every node alike has a name that
//! follows from it, so that one node writes the Event and the others find it there. In standalone
//! mode the daemon keeps Events in memory, for an hour.
//!
//! Whoever has something to say holds a [`Recorder`]; noting waits for nothing.

mod correlator;
mod denied;
mod note;
mod recent;
mod recorder;
mod spam_filter;
mod write;

pub use denied::follow_denied;
pub use note::{EventType, MAX_MESSAGE, Note, Regarding, Writers};
pub use recorder::{Inbox, Recorder, channel};
pub use write::{Destination, follow};
