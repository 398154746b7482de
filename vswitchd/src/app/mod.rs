//! Start order, readiness, and the way down.
//!
//! 1. state: store, objects, leases;
//! 2. packet engine, workers, reconciler, gateway, masquerade;
//! 3. known objects and ports in force;
//! 4. the API opens, systemd is told.
//!
//! On SIGTERM or SIGINT: API closed, workers drained, store exported; ports and gateway stay.

mod attachments;
mod cleanup;
mod cluster;
mod daemon;
mod followed;
mod host_tables;
mod in_force;
mod nodes;
mod open;
mod packet_path;
mod policy_status;
mod publish_node;
mod run;
mod service_manager;
mod services;
mod unenforced;

pub use cleanup::cleanup;
pub use run::run;
