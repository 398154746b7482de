//! The standalone Kubernetes API on the wire: discovery, objects, watches, `Status` errors.
//!
//! Speaks what an unmodified kubectl speaks (JSON, YAML and protobuf in, JSON out); a client that takes
//! no JSON is refused before anything is done. All knowledge about objects is in `crate::objects`;
//! here are paths, headers, encodings.

mod discovery;
mod events;
mod hooks;
mod objects;
mod openapi;
mod request;
mod respond;
mod router;
mod table;
mod version;
mod watch;

pub use hooks::{AfterWrite, KubeApiHooks};
pub use router::router;

use hooks::ApiState;
