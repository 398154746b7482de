//! The real shim and the real daemon under the rules of the CNI specification, the shipped
//! list with the plugins behind it, and podman.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod chain;
mod names;
mod podman;
mod spec;
