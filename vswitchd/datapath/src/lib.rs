//! The packet engine of vswitch: bytes and a time stamp in, a verdict out.
//!
//! No sockets, no clocks, no threads: a worker hands in a [`packet::Frame`] with the port it
//! came from and the time, and does with the [`Verdict`] what it says.
//!
//! ```text
//!  frame ─► parse ─► FlowCache (per worker, exact match, epoch-checked) ──hit──► actions ─► verdict
//!                        │miss                                             ▲
//!                        ▼                                                 │install
//!                    translate: pipeline tables 0…90, ConnTable ───────────┘
//! ```
//!
//! Bottom up: `packet` (formats) · `flow` (key and match) · `action` · `drop_reason` ·
//! `shared_map` · `address_set` · `classifier` · `group` · `fairness` ·
//! `conntrack` · `cache` · `pipeline` · [`Datapath`].

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![warn(clippy::indexing_slicing)]

pub mod action;
mod address_set;
mod cache;
mod classifier;
pub mod conntrack;
pub mod datapath;
pub mod drop_reason;
pub mod fairness;
mod fixed_hash;
pub mod flow;
pub mod group;
pub mod kernel_path;
pub mod packet;
pub mod pipeline;
mod shared_map;
mod table_id;
pub mod time;

pub use action::{Action, ActionList, parse_actions};
pub use cache::CacheStats;
pub use conntrack::{ConnectionEnd, KernelUsage, RecordConnections};
pub use datapath::{
    Datapath, DatapathConfig, Denial, DenialOf, DenialVerdict, Denials, Engine, MAX_CAPTURES,
    MAX_LIVE_TRACES, MAX_PROBES, NotedConnection, NotedConnections, Outputs, TooManyWatchers,
    Verdict, Watcher, capture, live_trace, probe,
};
pub use drop_reason::DropReason;
pub use kernel_path::{KernelFlow, KernelPath};
pub use time::Timestamp;
