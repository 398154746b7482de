//! Long-lived threads and tasks: started here and nowhere else, watched as long as they run.
//!
//! A switch of which a part has ended looks healthy and enforces nothing of what that part was
//! for. So each has a name ([`Part`]) and
//!
//! - its end, by return or panic, ends the process with a log line that names it: closed, never
//!   open, and the service manager starts the process again;
//! - it beats ([`Beat`]); a queue or a piece of work that is handed on ([`Queue`]) has to move as
//!   long as something waits in it. The [watchdog](watchdog::start) counts for how long each has
//!   not: readiness is the first to hear of it, then the process ends.
//!
//! `std::thread::spawn`, `tokio::spawn` and their like are banned elsewhere (`clippy.toml`). Work
//! that ends with the request it is for goes through [`request`], or [`for_request`] on the thread
//! of a part, and [`blocking`] is `spawn_blocking` whose panic is that of the part which waits for it.

mod abort;
mod beat;
mod depth;
mod end;
mod entry;
mod fault;
mod part;
mod priority;
mod queue;
mod start;
mod starting;
mod supervisor;
pub mod watchdog;

#[cfg(test)]
mod tests;

pub use beat::Beat;
pub use depth::Depth;
pub use end::end_on_panic;
pub(crate) use end::panic_message;
pub use fault::{Fault, Faults};
pub use part::{Limits, Part};
pub use priority::lower_priority;
pub use queue::Queue;
pub use start::{Beats, Ended, Task, blocking, for_request, request};
pub use supervisor::{Late, Supervisor};
