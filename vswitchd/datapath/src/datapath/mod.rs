//! The datapath: published pipeline, connection table, and the engines that workers drive.

mod attached_path;
pub mod capture;
mod config;
mod connections;
mod counters;
mod denial;
mod denial_table;
mod denials;
mod engine;
mod explained;
mod figures;
mod forgotten;
mod held;
mod in_hand;
mod kernel_path;
pub mod live_trace;
mod notices;
pub mod probe;
mod shared;
mod verdict;
mod versions;
mod watched;
mod watchers;
mod watching;
mod writer;

pub use config::DatapathConfig;
pub use connections::{NotedConnection, NotedConnections};
pub use denial::{Denial, DenialOf, DenialVerdict, Denials};
pub use engine::Engine;
pub use shared::Datapath;
pub use verdict::{Outputs, Verdict};
pub use watchers::{MAX_CAPTURES, MAX_LIVE_TRACES, MAX_PROBES, TooManyWatchers, Watcher};
