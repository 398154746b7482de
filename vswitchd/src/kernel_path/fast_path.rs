//! The fast path as the datapath and the worker pool see it.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use aya::programs::tc::SchedClassifierLink;
use vswitch_api::{IfName, PortNo};
use vswitch_datapath::conntrack::Connection;
use vswitch_datapath::kernel_path::Account;
use vswitch_datapath::{KernelFlow, KernelPath, Timestamp};

use super::entries::{Entries, NewEntry};
use super::kernel::{self, GenerationMap, KernelError, Programs};
use super::wire::{self, Way};
use crate::errors;
use crate::port::{Port, PortCounters};

/// Slots that a round of `sync` goes through under one lock: some tens of microseconds, which a
/// worker with an offer may have to wait.
const SYNC_CHUNK: usize = 64;

/// Where a port's packets come from.
#[derive(Debug, Clone, Copy)]
pub enum PortKind<'a> {
    /// The host end of a pod, with a packet socket on it.
    Pod {
        /// The socket.
        socket: BorrowedFd<'a>,
    },
    /// The gateway device: what the host sends into the pod network.
    Gateway,
}

/// The fast path cannot be had, or not on a port.
#[derive(Debug, thiserror::Error)]
pub enum FastPathError {
    /// The kernel refused the programs.
    #[error("set the fast path up")]
    Kernel {
        /// Why.
        source: KernelError,
    },
    /// The device is not there.
    #[error("find interface {ifname} for the fast path")]
    FindInterface {
        /// The device.
        ifname: IfName,
        /// Why.
        source: std::io::Error,
    },
}

impl From<KernelError> for FastPathError {
    fn from(source: KernelError) -> Self {
        Self::Kernel { source }
    }
}

#[derive(Debug)]
struct KnownPort {
    way: Way,
    counters: Arc<PortCounters>,
    /// Detached from the gateway device when it goes.
    _link: Option<SchedClassifierLink>,
}

/// Flows in the kernel.
#[derive(Debug)]
pub struct FastPath {
    /// Guards the attaching of programs, which may take milliseconds; a worker takes
    /// it only to give the fast path up.
    programs: Mutex<Programs>,
    /// Read by workers for each offer, written when a port comes or goes.
    ports: RwLock<HashMap<PortNo, KnownPort>>,
    /// Guards the flows; held for a few system calls.
    entries: Mutex<Entries>,
    /// Guards the kernel's copy of `generation`.
    generation_map: Mutex<GenerationMap>,
    /// Sequentially consistent: see the invariant of `vswitch_datapath::kernel_path`.
    generation: AtomicU64,
    /// The kernel refused what it has to grant: nothing is installed any more.
    is_broken: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panic leaves half done is a flow of a generation that ends before long.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FastPath {
    /// Loads the programs; ports are attached one by one. Blocks.
    ///
    /// # Errors
    /// The kernel lacks BPF, or the process the capabilities (CAP_BPF, CAP_NET_ADMIN,
    /// CAP_PERFMON).
    pub fn open() -> Result<Arc<Self>, FastPathError> {
        let (programs, maps, mut generation_map) = kernel::load()?;
        generation_map.set(1)?;
        Ok(Arc::new(Self {
            programs: Mutex::new(programs),
            ports: RwLock::default(),
            entries: Mutex::new(Entries::new(maps)),
            generation_map: Mutex::new(generation_map),
            generation: AtomicU64::new(1),
            is_broken: AtomicBool::new(false),
        }))
    }

    /// Lets packets of this port, in the caller's network namespace, take the fast path. Blocks.
    ///
    /// # Errors
    /// [`FastPathError`]; the port goes on without.
    pub fn attach(
        &self,
        no: PortNo,
        ifname: &IfName,
        kind: PortKind<'_>,
        counters: Arc<PortCounters>,
    ) -> Result<(), FastPathError> {
        let if_index = nix::net::if_::if_nametoindex(ifname.as_str()).map_err(|errno| {
            FastPathError::FindInterface {
                ifname: ifname.clone(),
                source: errno.into(),
            }
        })?;
        let mut programs = lock(&self.programs);
        let link = match kind {
            PortKind::Pod { socket } => {
                programs.attach_pod(ifname, if_index, socket)?;
                None
            }
            PortKind::Gateway => Some(programs.attach_gateway(ifname)?),
        };
        let way = Way {
            if_index,
            to_gateway: matches!(kind, PortKind::Gateway),
        };
        let known = KnownPort {
            way,
            counters,
            _link: link,
        };
        self.ports
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(no, known);
        Ok(())
    }

    /// Attaches a port that was just opened; one that cannot be goes without, and the log says
    /// why. Blocks.
    pub fn offer_to(&self, port: &Port, kind: PortKind<'_>) {
        let attached = self.attach(port.no, &port.ifname, kind, Arc::clone(&port.counters));
        if let Err(error) = attached {
            let error = errors::chain(&error);
            tracing::warn!(port = port.no.0, ifname = %port.ifname, error, "attaching a port to the fast path failed; its packets go through the workers");
        }
    }

    /// Returns whether packets of this port may take the fast path.
    #[cfg(test)]
    pub(crate) fn knows(&self, no: PortNo) -> bool {
        let ports = self.ports.read().unwrap_or_else(PoisonError::into_inner);
        ports.contains_key(&no)
    }

    /// Ends the fast path of a port; nothing happens if it has none. Blocks.
    pub fn detach(&self, no: PortNo) {
        let known = self
            .ports
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&no);
        if known.is_some() {
            self.check(lock(&self.entries).forget_port(no));
        }
    }

    /// Notes a refusal. A map of our own is refused only if the kernel is out of memory or
    /// something is very wrong: the switch does without.
    fn check(&self, result: Result<(), KernelError>) {
        let Err(error) = result else { return };
        if self.is_broken.swap(true, SeqCst) {
            return;
        }
        let error = errors::chain(&error);
        tracing::error!(
            error,
            "entering a flow failed; the fast path ends and every packet goes through the workers"
        );
        // Without its programs no flow is followed, whatever the maps say.
        if let Err(error) = lock(&self.programs).end() {
            let error = errors::chain(&error);
            tracing::error!(error, "ending the fast path failed");
        }
        self.ports
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    fn new_entry(&self, flow: KernelFlow, generation: u64) -> Option<(NewEntry, Way)> {
        let ports = self.ports.read().unwrap_or_else(PoisonError::into_inner);
        let (from, to) = (ports.get(&flow.in_port)?, ports.get(&flow.out_port)?);
        let key = wire::key(&flow, from.way.if_index);
        let ports = [Arc::clone(&from.counters), Arc::clone(&to.counters)];
        let way = to.way;
        Some((
            NewEntry {
                flow,
                key,
                generation,
                ports,
            },
            way,
        ))
    }
}

impl KernelPath for FastPath {
    fn generation(&self) -> u64 {
        self.generation.load(SeqCst)
    }

    fn install(&self, flow: KernelFlow, generation: u64, account: Account<'_>) {
        if self.is_broken.load(SeqCst) || generation != self.generation() {
            return;
        }
        let Some((entry, way)) = self.new_entry(flow, generation) else {
            return;
        };
        let value = |new: &NewEntry, place| wire::flow(&new.flow, new.generation, place, way);
        self.check(lock(&self.entries).install(entry, value, account));
    }

    fn catch_up(&self, conn: &Arc<Connection>, account: Account<'_>) {
        self.check(lock(&self.entries).catch_up(conn, account));
    }

    fn reclaim(&self, conn: &Arc<Connection>, account: Account<'_>) {
        self.check(lock(&self.entries).reclaim(conn, account));
    }

    fn revoke(&self) {
        let mut map = lock(&self.generation_map);
        let generation = self.generation() + 1;
        self.check(map.set(generation));
        self.generation.store(generation, SeqCst);
    }

    fn sync(&self, now: Timestamp, account: Account<'_>) {
        let slots = lock(&self.entries).slots();
        for start in (0..slots).step_by(SYNC_CHUNK) {
            let chunk = start..slots.min(start + SYNC_CHUNK);
            let at = (self.generation(), now);
            self.check(lock(&self.entries).sync(chunk, at, account));
        }
    }

    fn flows(&self) -> usize {
        lock(&self.entries).len()
    }
}
