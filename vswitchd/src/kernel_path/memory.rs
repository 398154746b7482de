//! The memory that the programs and this process share: what is known of each connection, and the
//! generation of the rules. Laid out as in `vswitchd/bpf/kernel_path.c`.
//!
//! Both sides change it at any time. Numbers are raised by compare and swap, facts set by OR,
//! packets counted by addition, so that nothing of it is lost, whoever is first.

use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use vswitch_datapath::KernelUsage;
use vswitch_datapath::conntrack::{KernelCell, KernelState, KernelTcp, KernelTcpEnd};

use crate::clock::MonotonicClock;

/// Facts about a connection (`IS_OPEN` and so on).
mod fact {
    pub(super) const IS_OPEN: u32 = 0x01;
    /// By direction.
    pub(super) const SENT_FIN: [u32; 2] = [0x02, 0x04];
    pub(super) const HAS_ACKED: [u32; 2] = [0x08, 0x10];
    pub(super) const IS_RESET: u32 = 0x20;
    pub(super) const IS_USERSPACES: u32 = 0x40;
}

/// `OFFERS_SCALE`.
const OFFERS_SCALE: u32 = 0x100;
/// `SCALE_BITS`.
const SCALE_BITS: u32 = 0x0f;
/// `MAX_WINDOW`.
const MAX_WINDOW: u32 = 1 << 30;

/// `struct way`, as words.
pub(super) type Way = [u32; 6];

/// `struct side`.
#[repr(C)]
#[derive(Debug, Default)]
struct Side {
    packets: AtomicU64,
    bytes: AtomicU64,
    last: AtomicU64,
    generation: AtomicU64,
    end: AtomicU32,
    max_end: AtomicU32,
    max_win: AtomicU32,
    max_ack: AtomicU32,
    isn: AtomicU32,
    scale: AtomicU32,
    window: AtomicU32,
    pad: u32,
}

/// `struct conn`.
#[repr(C)]
#[derive(Debug, Default)]
struct Conn {
    id: AtomicU32,
    facts: AtomicU32,
    ways: [[AtomicU32; 6]; 2],
    pad: [u32; 2],
    sides: [Side; 2],
}

/// What the kernel takes a connection's value to be.
pub(super) const CONN_SIZE: usize = 192;
const _: () = assert!(size_of::<Conn>() == CONN_SIZE && size_of::<Side>() == 64);

/// An array of the kernel, mapped into this process for as long as this lives.
#[derive(Debug)]
struct Mapped<T> {
    first: NonNull<T>,
    len: usize,
}

// SAFETY: what it points to is made of atomic integers alone (see `Mapped::of`), which any thread
// may use, and stays mapped until it is dropped.
unsafe impl<T: Sync> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Mapped<T> {}

impl<T> Mapped<T> {
    /// Maps a BPF array of that many values of this size (`BPF_F_MMAPABLE`). `T` must consist of
    /// atomic integers and padding, and be as large as the values.
    fn of(map: impl AsFd, len: usize) -> nix::Result<Self> {
        let bytes = NonZeroUsize::new(len * size_of::<T>()).ok_or(nix::Error::EINVAL)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice changes nothing that is
        // mapped. It begins at a page, so that any `T` is aligned; any bits are an integer.
        let first = unsafe { mmap(None, bytes, access, MapFlags::MAP_SHARED, map, 0) }?;
        Ok(Self {
            first: first.cast(),
            len,
        })
    }

    fn get(&self, at: usize) -> Option<&T> {
        // SAFETY: the mapping holds `len` values, each valid (see `of`), until `self` is dropped;
        // nobody has a unique reference to any.
        (at < self.len).then(|| unsafe { self.first.add(at).as_ref() })
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this address and length, and no reference outlives `self`.
        let unmapped = unsafe { munmap(self.first.cast(), self.len * size_of::<T>()) };
        debug_assert_eq!(unmapped, Ok(()));
    }
}

/// All connections in the kernel.
#[derive(Debug)]
pub(super) struct ConnMemory {
    conns: Mapped<Conn>,
    clock: MonotonicClock,
}

/// The generation of the rules that a direction has to be judged by to be followed.
#[derive(Debug)]
pub(super) struct Generation(Mapped<AtomicU64>);

impl Generation {
    pub(super) fn of(map: impl AsFd) -> nix::Result<Self> {
        Mapped::of(map, 1).map(Self)
    }

    // Sequentially consistent: see the invariant of `vswitch_datapath::kernel_path`.
    pub(super) fn get(&self) -> u64 {
        self.0
            .get(0)
            .map_or(0, |generation| generation.load(SeqCst))
    }

    /// Ends the generation.
    pub(super) fn advance(&self) {
        if let Some(generation) = self.0.get(0) {
            generation.fetch_add(1, SeqCst);
        }
    }
}

impl ConnMemory {
    pub(super) fn of(map: impl AsFd, len: u32, clock: MonotonicClock) -> nix::Result<Self> {
        let conns = Mapped::of(map, len as usize)?;
        Ok(Self { conns, clock })
    }

    /// Returns how many connections there can be.
    pub(super) fn len(&self) -> usize {
        self.conns.len
    }

    fn conn(&self, slot: u32) -> Option<&Conn> {
        self.conns.get(slot as usize)
    }

    /// Makes a place a connection's, which no packet finds yet; returns what tells it from those
    /// that had the place before, never 0.
    pub(super) fn begin(&self, slot: u32, tcp: Option<&KernelTcp>) -> u32 {
        let Some(conn) = self.conn(slot) else {
            return 0;
        };
        let id = conn.id.load(Acquire).wrapping_add(1).max(1);
        conn.facts.store(fact::IS_USERSPACES, Release);
        conn.id.store(id, Release);
        for (side, end) in conn.sides.iter().zip(tcp.copied().unwrap_or_default().ends) {
            side.begin(&end);
        }
        let facts = tcp.map_or(0, facts_of);
        conn.facts.store(facts, Release);
        id
    }

    /// States where packets of a direction go, and the generation of the rules that say so; before
    /// any of its packets finds the connection.
    pub(super) fn set_way(&self, slot: u32, direction: usize, way: Way, generation: u64) {
        let Some(conn) = self.conn(slot) else { return };
        for (word, value) in conn.ways[direction].iter().zip(way) {
            word.store(value, Release);
        }
        self.set_generation(slot, direction, generation);
    }

    /// States that the rules of this generation allow packets of a direction.
    pub(super) fn set_generation(&self, slot: u32, direction: usize, generation: u64) {
        if let Some(conn) = self.conn(slot) {
            conn.sides[direction].generation.store(generation, Release);
        }
    }

    /// Returns what went by in each direction.
    pub(super) fn usage(&self, slot: u32) -> [KernelUsage; 2] {
        let conn = self.conn(slot);
        conn.map_or([KernelUsage::default(); 2], |conn| {
            [0, 1].map(|at: usize| conn.sides[at].usage())
        })
    }
}

fn facts_of(tcp: &KernelTcp) -> u32 {
    let [client, server] = &tcp.ends;
    let facts = [
        (tcp.is_open, fact::IS_OPEN),
        (tcp.is_reset, fact::IS_RESET),
        (client.has_sent_fin, fact::SENT_FIN[0]),
        (server.has_sent_fin, fact::SENT_FIN[1]),
        (client.has_acked, fact::HAS_ACKED[0]),
        (server.has_acked, fact::HAS_ACKED[1]),
    ];
    let so = facts.iter().filter(|(is_so, _)| *is_so);
    so.fold(0, |all, (_, fact)| all | fact)
}

impl Side {
    fn begin(&self, end: &KernelTcpEnd) {
        for count in [&self.packets, &self.bytes, &self.last, &self.generation] {
            count.store(0, Release);
        }
        let scale = end.scale.map_or(0, |scale| OFFERS_SCALE | u32::from(scale));
        let words = [
            (&self.end, end.end),
            (&self.max_end, end.max_end),
            (&self.max_win, end.max_win),
            (&self.max_ack, end.max_ack),
            (&self.isn, end.isn),
            (&self.scale, scale),
            (&self.window, u32::from(end.window)),
        ];
        words
            .iter()
            .for_each(|(word, value)| word.store(*value, Release));
    }

    fn usage(&self) -> KernelUsage {
        KernelUsage {
            packets: self.packets.load(Acquire),
            bytes: self.bytes.load(Acquire),
        }
    }
}

/// One connection's place, as the connection knows it.
#[derive(Debug)]
pub(super) struct Place {
    memory: Arc<ConnMemory>,
    slot: u32,
}

impl Place {
    pub(super) const fn new(memory: Arc<ConnMemory>, slot: u32) -> Self {
        Self { memory, slot }
    }
}

impl KernelCell for Place {
    fn read(&self) -> KernelState {
        let Some(conn) = self.memory.conn(self.slot) else {
            return KernelState::default();
        };
        let sides = &conn.sides;
        let each =
            |word: fn(&Side) -> &AtomicU32| [0, 1].map(|at: usize| word(&sides[at]).load(Acquire));
        // What is acknowledged was sent before, what was sent had been allowed before: read the
        // other way round, whatever comes in between, no end is ahead of what allows it.
        let facts = conn.facts.load(Acquire);
        let max_acks = each(|side| &side.max_ack);
        let ends = each(|side| &side.end);
        let max_ends = each(|side| &side.max_end);
        let max_wins = each(|side| &side.max_win);
        let end = |at: usize| {
            let (side, scale) = (&sides[at], sides[at].scale.load(Acquire));
            let is_so = |fact: [u32; 2]| facts & fact[at] != 0;
            KernelTcpEnd {
                has_acked: is_so(fact::HAS_ACKED),
                has_sent_fin: is_so(fact::SENT_FIN),
                isn: side.isn.load(Acquire),
                end: ends[at],
                max_end: max_ends[at],
                max_win: max_wins[at],
                max_ack: max_acks[at],
                scale: (scale & OFFERS_SCALE != 0)
                    .then(|| u8::try_from(scale & SCALE_BITS).unwrap_or_default()),
                window: u16::try_from(side.window.load(Acquire)).unwrap_or(u16::MAX),
            }
        };
        let tcp = KernelTcp {
            is_open: facts & fact::IS_OPEN != 0,
            is_reset: facts & fact::IS_RESET != 0,
            ends: [end(0), end(1)],
        };
        KernelState {
            sides: self.memory.usage(self.slot),
            last: [0, 1].map(|at: usize| {
                let last = sides[at].last.load(Acquire);
                self.memory.clock.at(last)
            }),
            tcp: Some(tcp),
        }
    }

    fn join(&self, tcp: &KernelTcp) {
        let Some(conn) = self.memory.conn(self.slot) else {
            return;
        };
        let facts = facts_of(tcp);
        for (at, (side, end)) in conn.sides.iter().zip(&tcp.ends).enumerate() {
            // Who answers is unknown until it has acknowledged something.
            if at == 0 || end.has_acked {
                raise(&side.end, end.end);
                raise(&side.max_end, end.max_end);
                side.max_win.fetch_max(end.max_win.min(MAX_WINDOW), SeqCst);
            }
            if end.has_acked {
                raise(&side.max_ack, end.max_ack);
            }
        }
        conn.facts.fetch_or(facts, SeqCst);
    }

    fn close(&self) {
        if let Some(conn) = self.memory.conn(self.slot) {
            conn.facts.fetch_or(fact::IS_USERSPACES, SeqCst);
        }
    }
}

/// Raises a number in sequence space (RFC 9293 section 3.4).
fn raise(number: &AtomicU32, to: u32) {
    let later = |was: u32| (was.wrapping_sub(to) > u32::MAX / 2).then_some(to);
    let _raised_or_as_far = number.fetch_update(SeqCst, SeqCst, later);
}
