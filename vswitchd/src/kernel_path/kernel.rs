//! The programs and maps in the kernel.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::{fmt, io};

use aya::maps::{Array, HashMap, MapData, MapError, ProgramArray};
use aya::programs::links::LinkOrder;
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{ProgramError, SchedClassifier, SocketFilter, TcAttachType};
use aya::{Ebpf, EbpfError};
use vswitch_api::IfName;

use super::tcx;
use super::wire::{Flow, Key, Total, Usage};

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

/// The flows and what went by of them.
pub(super) struct FlowMaps {
    flows: HashMap<MapData, Key, Flow>,
    usages: Array<MapData, Usage>,
}

/// The generation that flows have to be of.
pub(super) struct GenerationMap(Array<MapData, u64>);

/// Loads the object; nothing is attached yet.
pub(super) fn load() -> Result<(Programs, FlowMaps, GenerationMap), KernelError> {
    let mut object = Ebpf::load(OBJECT).map_err(|source| KernelError::Load {
        source: Box::new(source),
    })?;
    let mut take = |what| object.take_map(what).ok_or(KernelError::Missing { what });
    let flows = HashMap::try_from(take("flows")?).map_err(map_failed("open map flows"))?;
    let usages = Array::try_from(take("usages")?).map_err(map_failed("open map usages"))?;
    let generation =
        Array::try_from(take("generation")?).map_err(map_failed("open map generation"))?;
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
    Ok((
        programs,
        FlowMaps { flows, usages },
        GenerationMap(generation),
    ))
}

impl fmt::Debug for Programs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Programs").finish_non_exhaustive()
    }
}

impl fmt::Debug for FlowMaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowMaps").finish_non_exhaustive()
    }
}

impl fmt::Debug for GenerationMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenerationMap").finish_non_exhaustive()
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

    fn classifier(&mut self, what: &'static str) -> Result<&mut SchedClassifier, KernelError> {
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

    /// Leaves all packets of pods to userspace, whatever the other maps say.
    pub(super) fn end(&mut self) -> Result<(), KernelError> {
        let emptied = self.alive.clear_index(&0);
        emptied.map_err(map_failed("empty map alive"))
    }
}

impl FlowMaps {
    /// Returns how many flows there can be.
    pub(super) fn capacity(&self) -> u32 {
        self.usages.len()
    }

    pub(super) fn insert(&mut self, key: &Key, flow: &Flow) -> Result<(), KernelError> {
        let inserted = self.flows.insert(key, flow, 0);
        inserted.map_err(map_failed("install a flow"))
    }

    /// Takes a flow out; one that is not there is no failure.
    pub(super) fn remove(&mut self, key: &Key) -> Result<(), KernelError> {
        match self.flows.remove(key) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) => Err(map_failed("remove a flow")(error)),
        }
    }

    pub(super) fn total(&self, slot: u32) -> Result<Total, KernelError> {
        let usage = self.usages.get(&slot, 0);
        usage
            .map(Total::from)
            .map_err(map_failed("read a flow's use"))
    }
}

impl GenerationMap {
    pub(super) fn set(&mut self, generation: u64) -> Result<(), KernelError> {
        let set = self.0.set(0, generation, 0);
        set.map_err(map_failed("set the generation"))
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
