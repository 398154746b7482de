//! The reconciler: compares wanted rules with installed ones, and publishes the difference in one
//! transaction.
//!
//! The watchers, the CNI server and the REST API tell a [`ReconcileHandle`] what they know;
//! one thread works out what that changes of rules, sets and ports and publishes it at once, so
//! that no packet sees half of a change. What is told while it works is taken together the next
//! time: a burst costs one pass.
//!
//! Fail closed: a port becomes known to the datapath in the transaction that also brings its
//! rules, and until everything of the cluster was heard once, pods are isolated.

mod actor;
mod audit;
mod base;
mod forward;
mod gateway;
mod intent;
mod model;
mod owners;
mod responder;
mod since;
mod spoof_guard;

#[cfg(test)]
mod tests;

pub use actor::{Changes, Publish, ReconcileHandle, ReconcileStopped, ReconciledState, Reconciler};
pub use intent::{AdminFlow, GatewayPort, PortAttachMode, ReconcileConfig};
pub use model::{Model, ModelInput};
pub use since::PolicySince;
