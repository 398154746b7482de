//! Client of a cluster's API server: lists and watches its objects. The only user of the crate
//! `kube`.
//!
//! A `watcher` per kind lists and watches; pods of the own node have one more, so that
//! they need not wait for the list of all. `merge` makes one sequence of changes of what they
//! tell, which a mirror [`crate::objects::Registry`] shows to everybody else. Only objects in
//! their stripped form leave a watcher. [`Health`] says how far each watcher is.

mod api_server;
mod backoff;
mod cluster;
mod health;
mod local_pods;
mod merge;
mod node;
mod source;
mod watched;
mod watcher;

pub use api_server::{ApiServer, KubeError};
pub use cluster::{Cluster, watch};
pub use health::Health;
pub use local_pods::ClusterPods;
pub use node::{NodeCidrsError, pod_cidrs};
pub use watcher::WatchSettings;
