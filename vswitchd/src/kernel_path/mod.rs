//! The fast path: established connections forwarded inside the kernel, by BPF programs.
//!
//! ```text
//!  engine ─ offers a flow ─► FastPath ─► map `flows` ─► tcx on the in port redirects its packets
//!         ◄─ what went by ──          ◄─ map `usages` ◄─ and counts them
//! ```
//!
//! The programs (`vswitchd/bpf/kernel_path.c`) decide nothing: they follow flows of the current
//! generation and leave everything else to the packet sockets, so that a switch without them
//! does the same, slower. They are bound to this process: when it ends, nothing is forwarded.
//!
//! The only home of `aya`. Called by workers (offers, reclaims), by whoever publishes rules
//! (revokes) and by the expiry thread (sync); one lock, held for a few system calls.

mod entries;
mod fast_path;
mod kernel;
mod tcx;
mod wire;

pub use fast_path::{FastPath, FastPathError, PortKind};
