//! Devices behind ports, and how each is opened.

use std::sync::Arc;

use vswitch_api::{IfName, PortNo};

use crate::kernel_path::{FastPath, PortKind};
use crate::port::{Port, PortError, TapConfig, TapOffloads, open_mirror, open_tap, open_veth};

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

impl Device {
    /// Opens the device. Blocks.
    pub(super) fn open(
        &self,
        no: PortNo,
        fast_path: Option<&Arc<FastPath>>,
    ) -> Result<(Port, Option<TapOffloads>), PortError> {
        match self {
            Self::Veth(ifname) => {
                let port = open_veth(no, ifname, None)?;
                if let (Some(fast_path), Some(rx)) = (fast_path, &port.rx) {
                    fast_path.offer_to(&port, PortKind::Pod { socket: rx.fd() });
                }
                Ok((port, None))
            }
            Self::Tap(ifname) => {
                // The guest has the attachment's MAC; the host's end must have another.
                let tap = TapConfig {
                    ifname: ifname.clone(),
                    mac: None,
                    persistent: true,
                };
                let tap = open_tap(no, &tap, None)?;
                Ok((tap.port, Some(tap.offloads)))
            }
            Self::Mirror(ifname) => Ok((open_mirror(no, ifname, None)?, None)),
        }
    }
}
