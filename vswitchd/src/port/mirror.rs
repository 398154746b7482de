//! Mirror (SPAN) ports: a plain TAP on which an operator runs a sniffer; frames only go out.
//!
//! A plain TAP has no virtio-net header, so super-frames are cut into segments and checksums
//! completed here: the sniffer sees what would be on a wire. What the host sends into the device
//! is never read; the kernel drops it when its queue is full.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};

use tun_tap::{Iface, Mode};
use vswitch_api::{IfName, PortNo};
use vswitch_datapath::packet::Frame;
use vswitch_datapath::packet::offload::segment;

use super::fault::send_all;
use super::link::LinkProbe;
use super::{LinkState, Port, PortError, PortTx, Sent, sys};
use crate::netns::{NetnsFile, in_netns};

/// Makes the mirror device, in `netns` or in the caller's namespace. It vanishes with the port.
///
/// # Errors
///
/// [`PortError::Tap`] if the name is taken or a privilege is missing.
pub fn open_mirror(
    no: PortNo,
    ifname: &IfName,
    netns: Option<&NetnsFile>,
) -> Result<Port, PortError> {
    match netns {
        None => open_here(no, ifname),
        Some(netns) => {
            in_netns(netns, || open_here(no, ifname)).map_err(|source| PortError::Netns {
                ifname: ifname.clone(),
                source,
            })?
        }
    }
}

fn open_here(no: PortNo, ifname: &IfName) -> Result<Port, PortError> {
    let failed = |step| {
        move |source| PortError::Tap {
            ifname: ifname.clone(),
            step,
            source,
        }
    };
    // An IfName has at most 15 bytes: tun-tap would cut a longer one and so let two collide.
    let tap =
        Iface::without_packet_info(ifname.as_str(), Mode::Tap).map_err(failed("TUNSETIFF"))?;
    if tap.name() != ifname.as_str() {
        let actual = tap.name().to_owned();
        return Err(PortError::Renamed {
            ifname: ifname.clone(),
            actual,
        });
    }
    sys::set_nonblocking(&tap.as_raw_fd()).map_err(failed("O_NONBLOCK"))?;
    let control = sys::control_socket().map_err(failed("socket"))?;
    let if_index = sys::if_index(&control, ifname.as_str()).map_err(failed("SIOCGIFINDEX"))?;
    let link = LinkProbe::new(Arc::new(control), if_index);
    Ok(Port {
        no,
        ifname: ifname.clone(),
        rx: None,
        tx: Box::new(MirrorTx {
            tap,
            link,
            scratch: Mutex::default(),
        }),
        counters: Arc::default(),
    })
}

struct MirrorTx {
    tap: Iface,
    link: LinkProbe,
    /// Where segments are built. A mutex: workers share the port, and copies are rare.
    scratch: Mutex<Vec<u8>>,
}

impl std::fmt::Debug for MirrorTx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MirrorTx")
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}

impl MirrorTx {
    /// Writes the frame, or all segments of a super-frame. An error that `send_all` may answer
    /// with another try is returned only while nothing is written, so that none goes out twice.
    fn send(&self, frame: &Frame) -> io::Result<()> {
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut written = 0_usize;
        let mut failure = None;
        let segmented = segment(frame, &mut scratch, |bytes| {
            if failure.is_none() {
                match self.tap.send(bytes) {
                    Ok(_) => written += 1,
                    Err(error) => failure = Some(error),
                }
            }
        });
        segmented.map_err(io::Error::other)?;
        match failure {
            None => Ok(()),
            Some(error) if written == 0 => Err(error),
            Some(error) => Err(io::Error::other(error)),
        }
    }
}

impl PortTx for MirrorTx {
    fn send_batch(&self, frames: &[&Frame]) -> Sent {
        send_all(frames, |rest| match rest.first() {
            Some(frame) => self.send(frame).map(|()| 1),
            None => Ok(0),
        })
    }

    fn link(&self) -> LinkState {
        self.link.link()
    }
}
