//! The standalone object registry: Kubernetes-shaped objects, validated, stored, watched.
//!
//! Free of HTTP. `rest::kube_api` puts it on the wire, `cni` declares pods through it, and
//! [`feed`](self) turns its changes into `ClusterChange`s.

mod registry;
mod resource;
mod status;

pub use registry::{
    DeleteOptions, FieldValidation, ObjectList, PatchKind, Registry, RegistryConfig, Selection,
    Watch, WatchEvent, WatchOptions, WriteOptions, Written,
};
pub use resource::{RESOURCES, Resource, ResourceInfo, Scope};
pub use status::{StatusCause, StatusError};
