//! The standalone object registry: Kubernetes-shaped objects, validated, stored, watched.
//!
//! Free of HTTP. `rest::kube_api` puts it on the wire, `attach` declares pods through it, and
//! [`feed`] turns its changes into `ClusterChange`s. A write is durable before it is visible.
//!
//! In a cluster the same registry mirrors the objects of the API server: `kube` tells it what it
//! hears, [`follow`] keeps it for the next start, and nobody else writes.

mod apply;
mod bandwidth;
mod calico;
mod causes;
mod cluster_policy;
mod defaults;
mod endpoints;
mod events;
mod feed;
mod host_endpoints;
mod last_known;
mod manifest;
mod mirror;
mod options;
mod patch;
mod persist;
mod pods;
mod prepare;
mod reduce;
mod registry;
mod resource;
mod schema;
mod selectors;
mod services;
mod shared;
mod shelf;
mod status;
mod strip;
#[cfg(test)]
mod tests;
mod validate;
mod watch;

pub(crate) use calico::{CALICO_CRD_GROUP, of_stored_calico};
pub use feed::{Feed, feed};
pub use host_endpoints::without_effect;
pub use last_known::{LastKnown, follow};
pub use manifest::{cluster_change, cluster_policy_change, served_change};
pub use mirror::Objects;
pub use options::{
    DeleteOptions, FieldValidation, ObjectList, Page, PageStart, PatchKind, RegistryConfig,
    Selection, WatchOptions, WriteOptions, Written,
};
pub use pods::{MadePod, PodMismatch};
pub use prepare::{now, timestamp};
pub use registry::Registry;
pub use resource::{EVENTS, Family, RESOURCES, Resource, ResourceInfo, Scope};
pub(crate) use schema::{definition_of, definitions, from_protobuf};
pub use shelf::ObjectId;
pub use status::{StatusCause, StatusError};
pub use strip::stripped;
pub use watch::{Watch, WatchEvent};
