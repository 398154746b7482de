//! Kubernetes' description of the served kinds: which fields they have, how lists and maps are
//! merged, and what a body looks like in the API's own form.
//!
//! `openapi.json` is Kubernetes' OpenAPI document reduced to what the served kinds reach;
//! `distill.py` tells where it comes from and makes it anew. `cluster_network_policy.json`,
//! `admin_network_policy.json` and `calico.json` have the kinds that Kubernetes leaves to CRDs. Everything that has to know fields
//! (patches, server-side apply, the published OpenAPI) reads it here.

mod canonical;
mod cluster_network_policy;
mod protobuf;
mod types;

pub(super) use canonical::canonical;
pub(crate) use protobuf::from_protobuf;
pub(super) use types::{List, Map, Relation, Strategy, Type, root};
pub(crate) use types::{definition_of, definitions};
