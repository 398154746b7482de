//! HTTP: `/v1`, the standalone Kubernetes API, metrics, health.
