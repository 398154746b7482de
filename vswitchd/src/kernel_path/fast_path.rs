//! The fast path as the datapath and the worker pool see it.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use aya::programs::tc::SchedClassifierLink;
use vswitch_api::{IfName, PortNo};
use vswitch_datapath::kernel_path::Account;
use vswitch_datapath::{KernelFlow, KernelPath, Timestamp};

use super::entries::{Entries, NewFlow};
use super::kernel::{self, KernelError, Loaded, Programs};
use super::memory::Generation;
use super::wire::{self, Device};
use crate::clock::MonotonicClock;
use crate::errors;
use crate::port::{Port, PortCounters};

/// Slots that a round of `sync` goes through under one lock: some tens of microseconds, which a
/// worker with an offer may have to wait.
const SYNC_CHUNK: usize = 64;

/// Connections that the kernel forwards at a time: 192 bytes each, of memory that the kernel takes
/// at once.
const MAX_CONNS: u32 = 131_072;

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
    device: Device,
    counters: Arc<PortCounters>,
    /// Detached from the gateway device when it goes.
    _link: Option<SchedClassifierLink>,
}

/// Connections in the kernel.
#[derive(Debug)]
pub struct FastPath {
    /// Guards the attaching of programs, which may take milliseconds; no worker takes it.
    programs: Mutex<Programs>,
    /// Read by workers for each offer, written when a port comes or goes.
    ports: RwLock<HashMap<PortNo, KnownPort>>,
    /// Guards the connections; held for a few system calls.
    entries: Mutex<Entries>,
    generation: Generation,
    clock: MonotonicClock,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panic leaves half done is a connection that the kernel does not follow.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FastPath {
    /// Loads the programs; ports are attached one by one. Blocks.
    ///
    /// # Errors
    /// The kernel lacks BPF, or the process the capabilities (CAP_BPF, CAP_NET_ADMIN,
    /// CAP_PERFMON).
    pub fn open(clock: MonotonicClock) -> Result<Arc<Self>, FastPathError> {
        Self::with_room(MAX_CONNS, clock)
    }

    pub(super) fn with_room(
        max_conns: u32,
        clock: MonotonicClock,
    ) -> Result<Arc<Self>, FastPathError> {
        let Loaded {
            programs,
            flows,
            translations,
            conns,
            generation,
        } = kernel::load(max_conns, clock)?;
        // 0 is that of no rules.
        generation.advance();
        Ok(Arc::new(Self {
            programs: Mutex::new(programs),
            ports: RwLock::default(),
            entries: Mutex::new(Entries::new(flows, translations, conns)),
            generation,
            clock,
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
        let device = Device {
            if_index,
            is_gateway: matches!(kind, PortKind::Gateway),
        };
        let known = KnownPort {
            device,
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
            lock(&self.entries).forget_port(no, self.clock.now());
        }
    }

    fn new_flow(&self, flow: &KernelFlow) -> Option<NewFlow> {
        let ports = self.ports.read().unwrap_or_else(PoisonError::into_inner);
        let (from, to) = (ports.get(&flow.in_port)?, ports.get(&flow.out_port)?);
        Some(NewFlow {
            key: wire::key(&flow.tuple, &flow.macs, from.device.if_index),
            to: to.device,
            ports: [Arc::clone(&from.counters), Arc::clone(&to.counters)],
            flow: flow.clone(),
        })
    }
}

impl KernelPath for FastPath {
    fn generation(&self) -> u64 {
        self.generation.get()
    }

    fn install(&self, flows: &[KernelFlow], generation: u64, account: Account<'_>) {
        if generation != self.generation() {
            return;
        }
        let flows = flows.iter().map_while(|flow| self.new_flow(flow));
        let at = (generation, self.clock.now());
        lock(&self.entries).install(flows, at, account);
    }

    fn revoke(&self) {
        self.generation.advance();
    }

    fn sync(&self, now: Timestamp, account: Account<'_>) {
        let slots = lock(&self.entries).slots();
        for start in (0..slots).step_by(SYNC_CHUNK) {
            let chunk = start..slots.min(start + SYNC_CHUNK);
            let at = (self.generation(), now);
            lock(&self.entries).sync(chunk, at, account);
        }
    }

    fn flows(&self) -> usize {
        lock(&self.entries).len()
    }
}
