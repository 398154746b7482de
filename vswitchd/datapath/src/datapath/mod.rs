//! The datapath: published pipeline, connection table, and the engines that workers drive.

mod attached_path;
pub mod capture;
mod captured;
mod captures;
mod config;
mod connections;
mod counters;
mod denial;
mod denial_table;
mod denials;
mod engine;
mod figures;
mod forgotten;
mod held;
mod in_hand;
mod kernel_path;
mod notices;
mod shared;
mod verdict;
mod versions;
mod writer;

pub use captures::{MAX_CAPTURES, TooManyCaptures};
pub use config::DatapathConfig;
pub use connections::{EndedConnection, EndedConnections};
pub use denial::{Denial, DenialOf, DenialVerdict, Denials};
pub use engine::Engine;
pub use shared::Datapath;
pub use verdict::{Outputs, Verdict};
