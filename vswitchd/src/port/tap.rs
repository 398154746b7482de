//! A TAP with the virtio-net header and offloads: the gateway `vsw0` and virtual machines.
//!
//! A persistent TAP keeps its addresses and routes while the daemon restarts; opening one that
//! exists attaches to it again, and [`remove_tap`] (`vswitchd --cleanup`) deletes it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use vswitch_api::{IfName, MacAddr, PortNo};
use vswitch_datapath::packet::Frame;

use super::fault::send_all;
use super::link::LinkProbe;
use super::{LinkState, Port, PortError, PortFault, PortRx, PortTx, Received, Sent, sys};
use crate::netns::{NetnsFile, in_netns};

/// How to open a TAP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapConfig {
    /// Name of the device.
    pub ifname: IfName,
    /// MAC address it gets; `None` leaves what it has.
    pub mac: Option<MacAddr>,
    /// Whether it outlives the daemon.
    pub persistent: bool,
}

/// What the kernel may leave undone in frames that it hands to the switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TapOffloads {
    /// Checksums.
    pub csum: bool,
    /// TCP segmentation, IPv4 and IPv6, with ECN.
    pub tso: bool,
    /// UDP segmentation (Linux 6.2).
    pub uso: bool,
}

impl TapOffloads {
    /// From best to none; the kernel takes a set whole or not at all.
    const LADDER: [Self; 4] = [
        Self {
            csum: true,
            tso: true,
            uso: true,
        },
        Self {
            csum: true,
            tso: true,
            uso: false,
        },
        Self {
            csum: true,
            tso: false,
            uso: false,
        },
        Self {
            csum: false,
            tso: false,
            uso: false,
        },
    ];

    const fn bits(self) -> libc::c_uint {
        let mut bits = 0;
        if self.csum {
            bits |= libc::TUN_F_CSUM;
        }
        if self.tso {
            bits |= libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
        }
        if self.uso {
            bits |= libc::TUN_F_USO4 | libc::TUN_F_USO6;
        }
        bits
    }
}

/// An open TAP and what was found out on the way.
#[derive(Debug)]
pub struct TapPort {
    /// The port.
    pub port: Port,
    /// Offloads that the kernel granted.
    pub offloads: TapOffloads,
    /// Whether the device was there before.
    pub reattached: bool,
    /// Interface index, for `host`.
    pub if_index: u32,
}

/// Opens the TAP, in `netns` or in the caller's namespace. It stays down: `host` sets it up.
/// Blocks while the TAP is in use.
///
/// # Errors
///
/// [`PortError::Tap`] if the name is taken by another kind of device (`EINVAL`) or stays in use by
/// another process (`EBUSY`), or if a privilege is missing.
pub fn open_tap(
    no: PortNo,
    config: &TapConfig,
    netns: Option<&NetnsFile>,
) -> Result<TapPort, PortError> {
    match netns {
        None => open_here(no, config),
        Some(netns) => {
            in_netns(netns, || open_here(no, config)).map_err(|source| PortError::Netns {
                ifname: config.ifname.clone(),
                source,
            })?
        }
    }
}

/// For how long a TAP may still be in use: by a worker that was told to let go of it, or by a
/// process that is ending, as this daemon before it was started again.
const IN_USE_FOR: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Deletes a TAP that no process has open, or not for long any more; returns whether there was one.
/// Blocks.
///
/// # Errors
///
/// [`PortError::Tap`] if the device is not a TAP or stays in use.
pub fn remove_tap(ifname: &IfName, netns: Option<&NetnsFile>) -> Result<bool, PortError> {
    match netns {
        None => remove_here(ifname),
        Some(netns) => {
            in_netns(netns, || remove_here(ifname)).map_err(|source| PortError::Netns {
                ifname: ifname.clone(),
                source,
            })?
        }
    }
}

fn remove_here(ifname: &IfName) -> Result<bool, PortError> {
    let failed = |step| {
        move |source| PortError::Tap {
            ifname: ifname.clone(),
            step,
            source,
        }
    };
    let control = sys::control_socket().map_err(failed("socket"))?;
    if sys::if_index(&control, ifname.as_str()).is_err() {
        return Ok(false);
    }
    let tap = sys::open_tun().map_err(failed("open /dev/net/tun"))?;
    attach(&tap, ifname).map_err(failed("TUNSETIFF"))?;
    sys::tun_set_persist(&tap, false).map_err(failed("TUNSETPERSIST"))?;
    Ok(true)
}

/// Makes the descriptor that of the TAP, which is made if there is none; returns its name.
fn attach(tap: &OwnedFd, ifname: &IfName) -> io::Result<String> {
    let mut waited = Duration::ZERO;
    loop {
        match sys::tun_set_iff(tap, ifname.as_str()) {
            Err(error) if is_in_use(&error) && waited < IN_USE_FOR => {}
            attached => return attached,
        }
        std::thread::sleep(LOOK_AGAIN);
        waited += LOOK_AGAIN;
    }
}

fn is_in_use(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EBUSY)
}

fn open_here(no: PortNo, config: &TapConfig) -> Result<TapPort, PortError> {
    let ifname = &config.ifname;
    let failed = |step| {
        move |source| PortError::Tap {
            ifname: ifname.clone(),
            step,
            source,
        }
    };
    let control = sys::control_socket().map_err(failed("socket"))?;
    let reattached = sys::if_index(&control, ifname.as_str()).is_ok();
    let tap = sys::open_tun().map_err(failed("open /dev/net/tun"))?;
    let actual = attach(&tap, ifname).map_err(failed("TUNSETIFF"))?;
    if actual != ifname.as_str() {
        // The kernel fills in a `%d`; such a device must not stay under a name nobody knows.
        return Err(PortError::Renamed {
            ifname: ifname.clone(),
            actual,
        });
    }
    sys::tun_set_vnet_hdr_len(&tap).map_err(failed("TUNSETVNETHDRSZ"))?;
    let offloads = grant_offloads(&tap).map_err(failed("TUNSETOFFLOAD"))?;
    if let Some(mac) = config.mac {
        sys::tun_set_mac(&tap, mac).map_err(failed("SIOCSIFHWADDR"))?;
    }
    let if_index = sys::if_index(&control, ifname.as_str()).map_err(failed("SIOCGIFINDEX"))?;
    // Last, so that a device made by a call that fails vanishes with its descriptor.
    sys::tun_set_persist(&tap, config.persistent).map_err(failed("TUNSETPERSIST"))?;
    let tap = Arc::new(tap);
    let link = LinkProbe::new(Arc::new(control), if_index);
    let port = Port {
        no,
        ifname: ifname.clone(),
        rx: Some(Box::new(TapRx {
            tap: Arc::clone(&tap),
        })),
        tx: Box::new(TapTx { tap, link }),
        counters: Arc::default(),
    };
    Ok(TapPort {
        port,
        offloads,
        reattached,
        if_index: if_index.unsigned_abs(),
    })
}

fn grant_offloads(tap: &OwnedFd) -> io::Result<TapOffloads> {
    let mut refused = io::Error::from_raw_os_error(libc::EINVAL);
    for offloads in TapOffloads::LADDER {
        match sys::tun_set_offload(tap, offloads.bits()) {
            Ok(()) => return Ok(offloads),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

#[derive(Debug)]
struct TapRx {
    tap: Arc<OwnedFd>,
}

impl PortRx for TapRx {
    fn fd(&self) -> BorrowedFd<'_> {
        self.tap.as_fd()
    }

    fn recv_batch(&mut self, frames: &mut [Frame]) -> Result<Received, PortFault> {
        let mut received = Received::default();
        // A bad frame is followed by another try in the same slot: two counts, one bound.
        while received.frames + received.bad < frames.len() {
            let Some(slot) = frames.get_mut(received.frames) else {
                break;
            };
            match sys::read_frame(&self.tap, slot) {
                Ok(true) => received.frames += 1,
                Ok(false) => received.bad += 1,
                Err(error) if sys::is_try_again(&error) => break,
                // What was read is handed on first; the fault shows again on the next call.
                Err(_) if received.frames > 0 => break,
                Err(error) => return Err(PortFault::of_rx(error)),
            }
        }
        Ok(received)
    }
}

#[derive(Debug)]
struct TapTx {
    tap: Arc<OwnedFd>,
    link: LinkProbe,
}

impl PortTx for TapTx {
    fn send_batch(&self, frames: &[&Frame]) -> Sent {
        send_all(frames, |rest| match rest.first() {
            Some(frame) => sys::write_frame(&self.tap, frame).map(|()| 1),
            None => Ok(0),
        })
    }

    fn link(&self) -> LinkState {
        self.link.link()
    }
}
