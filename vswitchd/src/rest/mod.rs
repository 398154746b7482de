//! HTTP: `/v1`, the standalone Kubernetes API, metrics, health.
//!
//! The only user of axum. Handlers translate between wire and the layers below; they hold no state.

mod auth;
mod connections;
mod enforced;
mod error;
mod health_checks;
pub mod kube_api;
mod peer;
mod readers;
mod reloaded;
mod router;
pub mod serve;
mod state;
pub mod tcp;
mod tls;
mod ui;
mod v1;

pub use health_checks::HealthChecks;
pub use readers::Readers;
pub use router::router;
pub use state::{RestState, Task};
