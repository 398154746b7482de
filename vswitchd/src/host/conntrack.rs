//! The node's own connection tracking (ctnetlink), reduced to forgetting.
//!
//! The kernel translates a connection by its first packet. UDP has no end: who goes on sending
//! keeps what was decided before a port was led elsewhere, for ever. Blocks.

use std::io;
use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, Nla as _,
};
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Status, Tuple,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr as NetlinkAddress};

/// Attributes that tell entries with the same addresses apart (linux/netfilter/nfnetlink_conntrack.h).
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;

/// Forgetting failed.
#[derive(Debug, thiserror::Error)]
pub enum ConntrackError {
    /// No netlink socket.
    #[error("open ctnetlink socket")]
    Open {
        /// Cause.
        source: io::Error,
    },
    /// The kernel refused a request.
    #[error("{operation} the node's tracked connections")]
    Request {
        /// What was asked, an imperative.
        operation: &'static str,
        /// Cause.
        source: io::Error,
    },
}

/// A connection that the node's kernel tracks, with ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TrackedConnection {
    pub(super) proto: u8,
    /// Where its first packet went.
    pub(super) to: SocketAddr,
    /// Where its answers come from: somewhere else, if it is translated.
    pub(super) answered_by: SocketAddr,
    pub(super) is_answered: bool,
}

/// Has the kernel forget the connections that `is_stale` names; returns how many it forgot.
///
/// # Errors
/// [`ConntrackError`]; some may be forgotten.
pub(super) fn forget(
    is_stale: impl Fn(&TrackedConnection) -> bool,
) -> Result<usize, ConntrackError> {
    let open = |source| ConntrackError::Open { source };
    let mut socket = Socket::new(NETLINK_NETFILTER).map_err(open)?;
    socket.bind_auto().map_err(open)?;
    let mut stale = Vec::new();
    let list = ConntrackMessage::Get(Vec::new());
    let listed = request(
        &socket,
        NLM_F_DUMP,
        (NetfilterProtoFamily::Unspec, list),
        |family, attributes| {
            if read(&attributes).is_some_and(|connection| is_stale(&connection)) {
                stale.push((family, name(attributes)));
            }
        },
    );
    let failed = |operation| move |source| ConntrackError::Request { operation, source };
    listed.map_err(failed("list"))?;
    let mut forgotten = 0;
    for (family, name) in stale {
        let delete = (family, ConntrackMessage::Delete(name));
        match request(&socket, NLM_F_ACK, delete, |_, _| {}) {
            Ok(()) => forgotten += 1,
            // It ended meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(source) => return Err(failed("forget one of")(source)),
        }
    }
    Ok(forgotten)
}

/// Sends a request and takes in what it is answered with, up to the end of the answer.
fn request(
    socket: &Socket,
    flags: u16,
    (family, message): (NetfilterProtoFamily, ConntrackMessage),
    mut entry: impl FnMut(NetfilterProtoFamily, Vec<ConntrackAttribute>),
) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let message = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message);
    let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send_to(&bytes, &NetlinkAddress::new(0, 0), 0)?;
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let answer = NetlinkMessage::<NetfilterMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let length = usize::try_from(answer.header.length).unwrap_or(rest.len());
            match answer.payload {
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => {
                    return error.code.map_or(Ok(()), |_| Err(error.to_io()));
                }
                NetlinkPayload::InnerMessage(message) => {
                    if let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) =
                        message.inner
                    {
                        entry(message.header.family, attributes);
                    }
                }
                _ => {}
            }
            // Messages are aligned to four bytes.
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// Returns what names an entry.
fn name(attributes: Vec<ConntrackAttribute>) -> Vec<ConntrackAttribute> {
    let names = |attribute: &ConntrackAttribute| match attribute {
        ConntrackAttribute::CtaTupleOrig(_) => true,
        ConntrackAttribute::Other(other) => matches!(other.kind(), CTA_ID | CTA_ZONE),
        _ => false,
    };
    attributes.into_iter().filter(names).collect()
}

/// Reads an entry; `None` for protocols without ports.
fn read(attributes: &[ConntrackAttribute]) -> Option<TrackedConnection> {
    let (mut original, mut reply, mut is_answered) = (None, None, false);
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(tuples) => original = read_tuple(tuples),
            ConntrackAttribute::CtaTupleReply(tuples) => reply = read_tuple(tuples),
            ConntrackAttribute::CtaStatus(status) => {
                is_answered = status.contains(Status::SeenReply);
            }
            _ => {}
        }
    }
    let (original, reply) = (original?, reply?);
    Some(TrackedConnection {
        proto: original.proto,
        to: original.to,
        answered_by: reply.from,
        is_answered,
    })
}

struct Ends {
    proto: u8,
    from: SocketAddr,
    to: SocketAddr,
}

fn read_tuple(tuples: &[Tuple]) -> Option<Ends> {
    let (mut src, mut dst): (Option<IpAddr>, Option<IpAddr>) = (None, None);
    let (mut proto, mut src_port, mut dst_port) = (None, None, None);
    for tuple in tuples {
        match tuple {
            Tuple::Ip(ips) => {
                for ip in ips {
                    match ip {
                        IPTuple::SourceAddress(ip) => src = Some(*ip),
                        IPTuple::DestinationAddress(ip) => dst = Some(*ip),
                        _ => {}
                    }
                }
            }
            Tuple::Proto(parts) => {
                for part in parts {
                    match part {
                        ProtoTuple::Protocol(protocol) => proto = Some(u8::from(*protocol)),
                        ProtoTuple::SourcePort(port) => src_port = Some(*port),
                        ProtoTuple::DestinationPort(port) => dst_port = Some(*port),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(Ends {
        proto: proto?,
        from: SocketAddr::new(src?, src_port?),
        to: SocketAddr::new(dst?, dst_port?),
    })
}
