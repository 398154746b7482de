//! The kernel path: admitted connections forwarded and tracked inside the kernel, by BPF programs.
//!
//! ```text
//!  engine ─ offers both directions ─► FastPath ─► map `flows`: key ─► place in `conns`
//!    │                                               ▲
//!    │                                               └ filter, tcx: find, track, count, redirect
//!    └ Connection ◄── reads before, joins after ──► place in `conns` (shared memory)
//! ```
//!
//! The programs (`vswitchd/bpf/kernel_path.c`) decide nothing: they follow directions that were
//! judged under the current generation and leave everything else to the packet sockets, so that a
//! switch without them does the same, slower. They are bound to this process: when it ends, nothing
//! is forwarded.
//!
//! # Maps
//!
//! | map | key | value | written by |
//! |---|---|---|---|
//! | `flows`, hash | device, MACs and tuple of a direction's packets, as they come | place, direction, id | daemon |
//! | `conns`, array in shared memory | place | id, facts; for each direction its way, its generation, what it carried, how far TCP has come | both |
//! | `translations`, array | place | addresses and ports that packets leave with | daemon |
//! | `generation`, array in shared memory | | generation of the rules | daemon |
//! | `findings`, one for each processor | | what the socket's filter found out for tcx | programs |
//! | `alive`, programs | | the rest of the socket's filter, while this process lives | daemon |
//!
//! # In which order
//!
//! *Entering*, under the lock of `entries` and then the connection's: translation; id, numbers and
//! facts of the place; the connection has the place. From here on whoever takes the connection's
//! lock reads the place first. Then for each direction its way and generation, and last its key:
//! only now can a packet find it.
//!
//! *A packet in the kernel*: key, place, id, `IS_USERSPACES`, generation, ports, size; what TCP
//! makes of it; counts. Everything that is found not to fit leaves the packet to userspace.
//!
//! *A packet that comes up*, under the connection's lock: read the place (acknowledgements, then
//! ends, then what allows them: each was true before the next was read), replace what was known, take
//! the packet in, join what it changed.
//!
//! *Leaving* (over, cut, idle, stale, a port that goes, a SYN): `IS_USERSPACES` first; then the
//! connection has taken over what was there; then the keys go. The place rests for a second and what
//! still went by is told, before it is another's.
//!
//! *Revoking*: the rules are published, then the generation moves. An offer reads the generation
//! before it looks whether its rules are those in force.
//!
//! # What may happen at the same time
//!
//! - *Two packets of a connection*, of one direction even: numbers are raised by compare and swap,
//!   facts only set, counts added. Two that raise the same number for too long: the packet goes up.
//! - *A packet in the kernel and one in userspace*: the same. Userspace may judge by a state that is a
//!   packet old; the sender of what it judges cannot have known of that packet either.
//! - *A packet is on its way through a program while its connection leaves*: it is forwarded as if
//!   it had come before, counted when the place is given up, and unknown to the state that
//!   userspace goes on with: it is as if it had been lost behind the switch, and comes again.
//! - *A key's memory becomes another flow's while a program reads it*: both words are read at once, and
//!   lead to a place whose ports are not the packet's.
//! - *A place becomes another connection's while a program has it*: not within a second; what an id
//!   of before leads to is not followed.
//! - *Two offers of one connection*: one lock, and the second finds what the first made.
//! - *A connection is offered while it is removed*: who removes it marks it dead and then has it
//!   leave; who enters takes the same lock and looks for the mark.
//!
//! The only home of `aya`. Called by workers (offers), by whoever publishes rules (revokes) and by
//! the expiry thread (sync); one lock, held for a few system calls.

mod entries;
mod fast_path;
mod kernel;
mod memory;
#[cfg(test)]
mod program_tests;
mod tcx;
#[cfg(test)]
mod tests;
mod wire;

pub use fast_path::{FastPath, FastPathError, PortKind};
