//! Tests of the packet layer as a whole; each format is met through [`super::parse`], as the
//! datapath meets it.

mod answering;
mod frames;
mod hostile;
mod offloading;
mod parsing;
mod plain;
mod rewriting;
