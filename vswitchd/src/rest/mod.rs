//! HTTP: `/v1`, the standalone Kubernetes API, metrics, health.
//!
//! The only user of axum. Handlers translate between wire and the layers below; they hold no state.

mod error;
pub mod serve;
