//! The host end of a pod's veth pair: an AF_PACKET socket with the virtio-net header.
//!
//! Sending segments offload on the pod's end (TSO is on by default) gives super-frames, and sending
//! them back out as such makes the other pod receive them whole. GRO is of no use here: a veth
//! runs it only with NAPI switched on, and what arrives is already as large as it gets.
//! The socket is bound only after its options are set, so that no frame arrives without them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use vswitch_api::{IfName, PortNo};
use vswitch_datapath::packet::Frame;

use super::fault::send_all;
use super::keeper::{Kept, SocketKeeper};
use super::link::LinkProbe;
use super::{LinkState, Port, PortError, PortFault, PortRx, PortTx, Received, Sent, sys};
use crate::netns::{NetnsFile, in_netns};

/// Opens a port on the host end `ifname`, in `netns` or in the caller's namespace. A `keeper`
/// spares the end of the process the closing of its socket.
///
/// # Errors
///
/// [`PortError`] if there is no such device or the socket cannot be set up.
pub fn open_veth(
    no: PortNo,
    ifname: &IfName,
    netns: Option<&NetnsFile>,
    keeper: Option<&Arc<SocketKeeper>>,
) -> Result<Port, PortError> {
    match netns {
        None => open_here(no, ifname, keeper),
        Some(netns) => in_netns(netns, || open_here(no, ifname, keeper)).map_err(|source| {
            PortError::Netns {
                ifname: ifname.clone(),
                source,
            }
        })?,
    }
}

fn open_here(
    no: PortNo,
    ifname: &IfName,
    keeper: Option<&Arc<SocketKeeper>>,
) -> Result<Port, PortError> {
    let failed = |(step, source)| PortError::PacketSocket {
        ifname: ifname.clone(),
        step,
        source,
    };
    let socket = sys::packet_socket().map_err(failed)?;
    let if_index =
        sys::if_index(&socket, ifname.as_str()).map_err(|source| PortError::FindInterface {
            ifname: ifname.clone(),
            source,
        })?;
    sys::bind_packet_socket(&socket, if_index).map_err(failed)?;
    let kept = keeper.and_then(|keeper| keeper.keep(&socket));
    let socket = Arc::new(socket);
    let link = LinkProbe::new(Arc::clone(&socket), if_index);
    Ok(Port {
        no,
        ifname: ifname.clone(),
        rx: Some(Box::new(VethRx {
            socket: Arc::clone(&socket),
            link: link.clone(),
        })),
        tx: Box::new(VethTx {
            socket,
            link,
            _kept: kept,
        }),
        counters: Arc::default(),
    })
}

#[derive(Debug)]
struct VethRx {
    socket: Arc<OwnedFd>,
    link: LinkProbe,
}

impl PortRx for VethRx {
    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn recv_batch(&mut self, frames: &mut [Frame]) -> Result<Received, PortFault> {
        match sys::recv_frames(&self.socket, frames) {
            Ok(received) => Ok(received),
            Err(error) if sys::is_try_again(&error) => Ok(Received::default()),
            Err(error) => match PortFault::of_rx(error) {
                // The same ENETDOWN announces "down" and "deleted", and may be about the past.
                PortFault::LinkDown => match self.link.link() {
                    LinkState::Up => Ok(Received::default()),
                    LinkState::Down => Err(PortFault::LinkDown),
                    LinkState::Gone => Err(PortFault::Gone),
                },
                fault => Err(fault),
            },
        }
    }

    fn take_kernel_drops(&mut self) -> u64 {
        sys::take_packet_drops(&self.socket).unwrap_or(0)
    }
}

#[derive(Debug)]
struct VethTx {
    socket: Arc<OwnedFd>,
    link: LinkProbe,
    /// As long as the port is there.
    _kept: Option<Kept>,
}

impl PortTx for VethTx {
    fn send_batch(&self, frames: &[&Frame]) -> Sent {
        send_all(frames, |rest| sys::send_frames(&self.socket, rest))
    }

    fn link(&self) -> LinkState {
        self.link.link()
    }
}
