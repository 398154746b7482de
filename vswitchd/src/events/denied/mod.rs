//! Events about pods that policies denied something: what `kubectl describe pod` says of a fetch that hangs.
//!
//! ```text
//! flow records ─► Plan (counts, spares) ─► Recorder
//! ```
//!
//! Who denies is one node alone: that of the sender for its egress policies, that of the receiver
//! for its ingress policies. Its Events are on the sender, whose owner asks why, on whichever node
//! that runs; of ingress policies on the receiver as well, whose owner wrote them or did not.
//!
//! A pod has an Event for each of a few kinds of connections, and one for all others, so that a
//! flood is some lines that count up.

mod follow;
mod message;
mod plan;

pub use follow::follow_denied;
