//! The real shim and the real daemon under the rules of the CNI specification, and podman.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod podman;
mod spec;
