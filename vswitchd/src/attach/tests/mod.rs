//! Attachments over neighbours in memory. `world` holds the neighbours.

mod faults;
mod release_0_1;
pub(crate) mod world;
