//! The real shim and the real daemon under the rules of the CNI specification, and podman.

mod podman;
mod spec;
