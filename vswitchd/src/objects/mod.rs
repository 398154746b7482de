//! The standalone object registry: Kubernetes-shaped objects, validated, stored, watched.
//!
//! Free of HTTP. `rest::kube_api` puts it on the wire, `cni` declares pods through it, and
//! [`feed`] turns its changes into `ClusterChange`s. A write is durable before it is visible.

mod defaults;
mod endpoints;
mod feed;
mod manifest;
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
mod shelf;
mod status;
#[cfg(test)]
mod tests;
mod validate;
mod watch;

pub use feed::{Feed, feed};
pub use manifest::cluster_change;
pub use options::{
    DeleteOptions, FieldValidation, ObjectList, PatchKind, RegistryConfig, Selection, WatchOptions,
    WriteOptions, Written,
};
pub use registry::Registry;
pub use resource::{RESOURCES, Resource, ResourceInfo, Scope};
pub use status::{StatusCause, StatusError};
pub use watch::{Watch, WatchEvent};
