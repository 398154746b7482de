//! Tests of the compiler as a whole: what it compiles is walked, table by table.

mod admin_policies;
mod calico;
mod changes;
mod cluster_policies;
mod explain;
mod naive;
mod naive_calico;
pub(crate) mod program;
mod property;
mod sentences;
mod walker;
mod world;
