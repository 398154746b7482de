//! Devices behind ports, and how each is opened.

use std::sync::Arc;

use vswitch_api::{IfName, PortNo};

use crate::kernel_path::{FastPath, PortKind};
use crate::port::{
    Port, PortError, SocketKeeper, TapConfig, TapOffloads, open_mirror, open_tap, open_veth,
};

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
    /// Opens a device. Blocks.
    pub(super) fn open(
        &self,
        no: PortNo,
        device: &Device,
    ) -> Result<(Port, Option<TapOffloads>), PortError> {
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
