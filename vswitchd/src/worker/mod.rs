//! Worker threads: they move frames between ports through the datapath.
//!
//! ```text
//!  epoll ─► port: recv_batch ─► Engine::process each ─► group by out port ─► send_batch
//!    ▲                                                                          │
//!    └──── sleeps when nothing came for `spin_polls` rounds ◄───────────────────┘
//! ```
//!
//! A port's receiving half belongs to one worker, its sending half to all (`table`). Ready ports
//! take turns by the time that they take, and one whose packets come to nothing while others have
//! work is held back ([`vswitch_datapath::fairness`]): first by refusing its new flows, then by
//! not reading its socket for a while, so that the kernel drops what it sends at its own expense.
//! Buffers belong to the worker, not to the port. No worker waits for anything but epoll: a full channel
//! or socket costs a counted frame or a later notice, never time.
//!
//! A panic on a worker ends the process: a switch that forwards on half of its threads would look
//! healthy. systemd starts it again; until then nothing passes (fail closed).

mod config;
#[cfg(test)]
mod datapath_tests;
mod first_packets;
mod forward;
mod pool;
mod processor;
mod processor_wait;
mod table;
#[cfg(test)]
mod tests;
mod thread;

pub use config::WorkerConfig;
pub use first_packets::{BOUNDS as FIRST_PACKET_BOUNDS, FirstPackets};
pub use pool::{WorkerError, WorkerPool};
pub use processor::{FrameProcessor, WorkerDatapath};
