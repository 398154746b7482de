//! Devices behind ports: how each is opened and given to the workers.

use std::sync::Arc;

use vswitch_api::{IfName, PortNo};

use super::error::SwitchError;
use crate::kernel_path::{FastPath, PortKind};
use crate::port::{
    Port, PortError, SocketKeeper, TapConfig, TapOffloads, open_mirror, open_tap, open_veth,
};
use crate::worker::WorkerPool;

/// A device that a port is opened on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    /// The host end of a container's veth pair.
    Veth(IfName),
    /// A persistent TAP with offloads: a virtual machine's. Made if it is not there.
    Tap(IfName),
    /// A plain TAP that receives copies of frames; it vanishes with its port.
    Mirror(IfName),
}

/// Opens the devices of ports, with what the kernel offers beyond their sockets.
#[derive(Debug, Default)]
pub struct DeviceOpener {
    /// Forwards established connections.
    pub fast_path: Option<Arc<FastPath>>,
    /// Keeps packet sockets until the process has ended.
    pub keeper: Option<Arc<SocketKeeper>>,
}

impl DeviceOpener {
    /// Opens a device and gives it to the workers. Returns what a TAP can take. Blocks.
    ///
    /// # Errors
    /// [`SwitchError`]; the device is closed then, and off the fast path.
    pub(super) fn open_for(
        &self,
        workers: &WorkerPool,
        no: PortNo,
        device: &Device,
    ) -> Result<Option<TapOffloads>, SwitchError> {
        let opened = self.open(no, device);
        let (port, offloads) =
            opened.map_err(|source| SwitchError::OpenPort { port: no, source })?;
        if let Err(source) = workers.attach(port) {
            self.close(no);
            return Err(SwitchError::Worker { port: no, source });
        }
        Ok(offloads)
    }

    /// Opens a device. Blocks.
    fn open(&self, no: PortNo, device: &Device) -> Result<(Port, Option<TapOffloads>), PortError> {
        match device {
            Device::Veth(ifname) => {
                let port = open_veth(no, ifname, None, self.keeper.as_ref())?;
                if let (Some(fast_path), Some(rx)) = (&self.fast_path, &port.rx) {
                    fast_path.offer_to(&port, PortKind::Pod { socket: rx.fd() });
                }
                Ok((port, None))
            }
            Device::Tap(ifname) => {
                // The guest has the attachment's MAC; the host's end must have another.
                let tap = TapConfig {
                    ifname: ifname.clone(),
                    mac: None,
                    persistent: true,
                };
                let tap = open_tap(no, &tap, None)?;
                Ok((tap.port, Some(tap.offloads)))
            }
            Device::Mirror(ifname) => Ok((open_mirror(no, ifname, None)?, None)),
        }
    }

    /// Takes a port off the fast path; nothing happens if it is not on it. Blocks.
    pub(super) fn close(&self, no: PortNo) {
        if let Some(fast_path) = &self.fast_path {
            fast_path.detach(no);
        }
    }

    /// States that the process is about to end.
    pub(super) fn end(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::channel;
    use vswitch_datapath::{Datapath, DatapathConfig};

    use super::*;
    use crate::clock::MonotonicClock;
    use crate::netns::in_netns;
    use crate::port::testnet::{Sandbox, ifname};
    use crate::supervise::Supervisor;
    use crate::worker::{WorkerConfig, WorkerError};

    #[test]
    fn a_port_that_no_worker_takes_is_off_the_fast_path() {
        let net = Sandbox::new();
        let checked = in_netns(&net.open("switch"), || {
            let datapath = Datapath::new(DatapathConfig::default());
            let (events, _notices) = channel(16);
            let config = WorkerConfig::new(MonotonicClock::start());
            let workers =
                WorkerPool::start(&datapath, config, events, &Supervisor::default()).unwrap();
            let (taken, free) = (PortNo(5), PortNo(6));
            workers
                .attach(open_veth(taken, &ifname("hpod"), None, None).unwrap())
                .unwrap();
            let fast_path = FastPath::open(MonotonicClock::start()).unwrap();
            let devices = DeviceOpener {
                fast_path: Some(Arc::clone(&fast_path)),
                keeper: None,
            };
            let device = Device::Veth(ifname("hpeer"));
            let refused = devices.open_for(&workers, taken, &device).unwrap_err();
            let exists = |source: &WorkerError| matches!(source, WorkerError::PortExists { .. });
            assert!(
                matches!(&refused, SwitchError::Worker { port, source } if *port == taken && exists(source)),
                "{refused:?}"
            );
            assert!(!fast_path.knows(taken));
            devices.open_for(&workers, free, &device).unwrap();
            assert!(fast_path.knows(free));
            workers.shutdown();
        });
        checked.unwrap();
    }
}
