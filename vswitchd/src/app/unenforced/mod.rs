//! What of the cluster's objects is not enforced as it is written: an Event on each such object, and
//! at start the counts of what of Calico's that is, in the log.

mod follow;
mod plan;

pub(super) use follow::{Unenforced, follow};
