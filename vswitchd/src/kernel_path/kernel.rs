//! The programs and maps in the kernel.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::{fmt, io};

use aya::maps::{Array, HashMap, Map, MapData, MapError, ProgramArray};
use aya::programs::links::LinkOrder;
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{ProgramError, SchedClassifier, SocketFilter, TcAttachType};
use aya::{Ebpf, EbpfError, EbpfLoader};
use vswitch_api::IfName;

use super::memory::{ConnMemory, Generation};
use super::tcx;
use super::wire::{Flow, Key, Translation};
use crate::clock::MonotonicClock;

/// `vswitchd/bpf/kernel_path.c`, built by `make bpf`.
const OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/kernel_path.o");

/// A program or map could not be had.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The kernel does not take the object.
    #[error("load the fast path's programs")]
    Load {
        /// Why.
        source: Box<EbpfError>,
    },
    /// The object lacks something: it was not built from this source.
    #[error("the fast path's object has no {what}")]
    Missing {
        /// What.
        what: &'static str,
    },
    /// A program was refused.
    #[error("fast path: {step}")]
    Program {
        /// What was asked for.
        step: &'static str,
        /// Why.
        source: ProgramError,
    },
    /// A program could not be attached to a device.
    #[error("attach {what} to tcx of {ifname} (Linux 6.6)")]
    Attach {
        /// The program.
        what: &'static str,
        /// The device.
        ifname: IfName,
        /// Why.
        source: io::Error,
    },
    /// A map was refused.
    #[error("fast path: {step}")]
    Map {
        /// What was asked for.
        step: &'static str,
        /// Why.
        source: MapError,
    },
    /// A map cannot be shared with the programs.
    #[error("fast path: map {what} into memory")]
    Share {
        /// Which.
        what: &'static str,
        /// Why.
        source: nix::Error,
    },
}

fn refused(step: &'static str) -> impl FnOnce(ProgramError) -> KernelError {
    move |source| KernelError::Program { step, source }
}

fn map_failed(step: &'static str) -> impl FnOnce(MapError) -> KernelError {
    move |source| KernelError::Map { step, source }
}

/// The loaded programs.
pub(super) struct Programs {
    object: Ebpf,
    /// The way of a socket's filter to the rest of it; empty when its last descriptor is closed,
    /// which is this one.
    alive: ProgramArray<MapData>,
}

/// What leads from a direction's key to its connection.
pub(super) struct FlowMap(HashMap<MapData, Key, Flow>);

/// What packets of translated connections look like when they leave.
pub(super) struct Translations(Array<MapData, Translation>);

/// What is loaded.
pub(super) struct Loaded {
    pub(super) programs: Programs,
    pub(super) flows: FlowMap,
    pub(super) translations: Translations,
    pub(super) conns: Arc<ConnMemory>,
    pub(super) generation: Generation,
}

/// Loads the object, with room for that many connections; nothing is attached yet.
pub(super) fn load(max_conns: u32, clock: MonotonicClock) -> Result<Loaded, KernelError> {
    let loaded = EbpfLoader::new()
        .map_max_entries("conns", max_conns)
        .map_max_entries("translations", max_conns)
        .map_max_entries("flows", max_conns.saturating_mul(2))
        .load(OBJECT);
    let mut object = loaded.map_err(|source| KernelError::Load {
        source: Box::new(source),
    })?;
    let mut take = |what| object.take_map(what).ok_or(KernelError::Missing { what });
    let flows = HashMap::try_from(take("flows")?).map_err(map_failed("open map flows"))?;
    let translations = Array::try_from(take("translations")?);
    let translations = translations.map_err(map_failed("open map translations"))?;
    let conns = array(take("conns")?, "conns")?;
    let conns = ConnMemory::of(conns.fd(), max_conns, clock).map_err(not_shared("conns"))?;
    let generation = array(take("generation")?, "generation")?;
    let generation = Generation::of(generation.fd()).map_err(not_shared("generation"))?;
    let alive = ProgramArray::try_from(take("alive")?).map_err(map_failed("open map alive"))?;
    let mut programs = Programs { object, alive };
    for name in [IF_ALIVE, SEEN_BY_SOCKET] {
        let loaded = programs.socket_filter(name)?.load();
        loaded.map_err(refused("load a socket filter"))?;
    }
    for name in [FROM_POD, FROM_GATEWAY] {
        let loaded = programs.classifier(name)?.load();
        loaded.map_err(refused("load a classifier"))?;
    }
    let rest = programs.socket_filter(SEEN_BY_SOCKET)?;
    let rest = rest.fd().and_then(|fd| Ok(fd.try_clone()?));
    let rest = rest.map_err(refused("open the socket filter"))?;
    let set = programs.alive.set(0, &rest, 0);
    set.map_err(map_failed("set map alive"))?;
    Ok(Loaded {
        programs,
        flows: FlowMap(flows),
        translations: Translations(translations),
        conns: Arc::new(conns),
        generation,
    })
}

fn array(map: Map, what: &'static str) -> Result<MapData, KernelError> {
    match map {
        Map::Array(array) => Ok(array),
        _ => Err(KernelError::Missing { what }),
    }
}

fn not_shared(what: &'static str) -> impl FnOnce(nix::Error) -> KernelError {
    move |source| KernelError::Share { what, source }
}

impl fmt::Debug for Programs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Programs").finish_non_exhaustive()
    }
}

impl fmt::Debug for FlowMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowMap").finish_non_exhaustive()
    }
}

impl fmt::Debug for Translations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Translations").finish_non_exhaustive()
    }
}

const IF_ALIVE: &str = "if_alive";
const SEEN_BY_SOCKET: &str = "seen_by_socket";
/// By this name a later process finds it.
const FROM_POD: &str = "vsw_from_pod";
const FROM_GATEWAY: &str = "from_gateway";

impl Programs {
    fn socket_filter(&mut self, what: &'static str) -> Result<&mut SocketFilter, KernelError> {
        let missing = KernelError::Missing { what };
        let program = self.object.program_mut(what).ok_or(missing)?;
        program.try_into().map_err(refused("open a socket filter"))
    }

    pub(super) fn classifier(
        &mut self,
        what: &'static str,
    ) -> Result<&mut SchedClassifier, KernelError> {
        let missing = KernelError::Missing { what };
        let program = self.object.program_mut(what).ok_or(missing)?;
        program.try_into().map_err(refused("open a classifier"))
    }

    /// Attaches to the host end of a pod and to the packet socket on it. The device first: what
    /// the socket's filter finds would otherwise have no taker. What is on the device stays when
    /// the socket is closed, and does nothing.
    pub(super) fn attach_pod(
        &mut self,
        ifname: &IfName,
        if_index: u32,
        socket: BorrowedFd<'_>,
    ) -> Result<(), KernelError> {
        let program = self.classifier(FROM_POD)?;
        let program = program.fd().map_err(refused("open a classifier"))?;
        let attached = tcx::attach_ingress(ifname, if_index, FROM_POD, program.as_fd());
        attached.map_err(|source| KernelError::Attach {
            what: FROM_POD,
            ifname: ifname.clone(),
            source,
        })?;
        let attached = self.socket_filter(IF_ALIVE)?.attach(socket);
        attached
            .map(drop)
            .map_err(refused("attach the socket filter"))
    }

    /// Attaches to the gateway device, by a link: it ends with the process.
    pub(super) fn attach_gateway(
        &mut self,
        ifname: &IfName,
    ) -> Result<SchedClassifierLink, KernelError> {
        let program = self.classifier(FROM_GATEWAY)?;
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        let id = program
            .attach_with_options(ifname.as_str(), TcAttachType::Egress, options)
            .map_err(refused("attach to tcx (Linux 6.6)"))?;
        program.take_link(id).map_err(refused("keep the tcx link"))
    }
}

impl Translations {
    pub(super) fn set(&mut self, slot: u32, to: &Translation) -> Result<(), KernelError> {
        let set = self.0.set(slot, to, 0);
        set.map_err(map_failed("state a translation"))
    }
}

impl FlowMap {
    pub(super) fn insert(&mut self, key: &Key, flow: &Flow) -> Result<(), KernelError> {
        let inserted = self.0.insert(key, flow, 0);
        inserted.map_err(map_failed("install a flow"))
    }

    /// Takes a flow out; one that is not there is no failure.
    pub(super) fn remove(&mut self, key: &Key) -> Result<(), KernelError> {
        match self.0.remove(key) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) => Err(map_failed("remove a flow")(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_is_built_from_the_source_beside_it() {
        let source = include_bytes!("../../bpf/kernel_path.c");
        let stamp = format!("kernel_path.c crc32 {:08x}", crc32fast::hash(source));
        let has = |text: &str| {
            OBJECT
                .windows(text.len())
                .any(|bytes| bytes == text.as_bytes())
        };
        assert!(has(&stamp), "the object lacks {stamp:?}: make bpf");
    }
}
