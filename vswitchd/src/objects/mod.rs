//! The standalone object registry: Kubernetes-shaped objects, validated, stored, watched.
