//! Tests of the compiler as a whole: what it compiles is walked, table by table.

mod changes;
mod cluster_policies;
mod explain;
mod naive;
pub(crate) mod program;
mod property;
mod sentences;
mod walker;
mod world;
