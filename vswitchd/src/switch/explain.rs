//! Explains what would become of a described packet: finds the pods, builds the key, traces. Says as
//! well which packets a description means, to trace those that come.

use std::collections::HashSet;
use std::net::IpAddr;

use vswitch_api::{MacAddr, PortNo, v1};
use vswitch_datapath::flow::{FlowKey, ether_type, ip_proto};
use vswitch_datapath::live_trace::TracedFlow;
use vswitch_datapath::pipeline::{Trace, TraceInput, TracePacket};

use super::{GATEWAY_PORT, Switch};
use crate::reconcile::ReconciledState;
use crate::state::{Attachment, ObjectKey};

/// A description that names nothing.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ExplainError {
    /// Neither an address nor a pod that has one.
    #[error("{end:?} is neither an address, nor `node`, nor a pod with an address")]
    UnknownEnd {
        /// As given.
        end: String,
    },
    /// No Service of that name that has something to balance.
    #[error("there is no service {name} with an address")]
    UnknownService {
        /// `namespace/name`.
        name: String,
    },
    /// The two have no address family in common.
    #[error("{from:?} and {to:?} have no address family in common")]
    NoCommonFamily {
        /// Sender, as given.
        from: String,
        /// Receiver, as given.
        to: String,
    },
    /// The protocol.
    #[error("protocol {protocol:?} is not tcp, udp, sctp or icmp")]
    UnknownProtocol {
        /// As given.
        protocol: String,
    },
    /// The port is missing.
    #[error("{protocol} needs a destination port")]
    NoPort {
        /// The protocol.
        protocol: String,
    },
}

/// Packets that a description means.
#[derive(Debug, Clone)]
pub struct Described {
    /// Those of connections between two ends.
    pub flow: TracedFlow,
    /// Port of an end of theirs on this switch: that of the sender if it is here, else that of the
    /// receiver, else the gateway.
    pub port: PortNo,
}

impl Switch {
    /// Finds out which packets are meant: of both families, and behind a Service those to its
    /// endpoints as well.
    ///
    /// # Errors
    /// [`ExplainError`].
    pub fn describe(&self, request: &v1::TraceRequest) -> Result<Described, ExplainError> {
        let snapshot = self.reconcile.snapshot();
        let sources = self.addresses_of(&snapshot, &request.from)?;
        let receivers = self.addresses_of(&snapshot, &request.to)?;
        let pairs = of_one_family(&sources, &receivers);
        let no_common_family = || ExplainError::NoCommonFamily {
            from: request.from.clone(),
            to: request.to.clone(),
        };
        let first = pairs.first().ok_or_else(no_common_family)?;
        let proto = self.key_of(&snapshot, request, first.0, first.1)?.ip_proto;
        let port = if ip_proto::has_ports(proto) {
            request.port.unwrap_or_default()
        } else {
            0
        };
        let mut destinations: HashSet<_> = receivers.iter().map(|ip| (*ip, port)).collect();
        for (src, dst) in &pairs {
            let key = self.key_of(&snapshot, request, *src, *dst)?;
            let input = TraceInput {
                in_port: key.in_port,
                packet: TracePacket::Key(key),
            };
            let trace = self.datapath.trace(&input, self.clock.now());
            let group = trace.translation.map(|translation| translation.group);
            let endpoints = group.iter().flat_map(|group| group.endpoints.iter());
            destinations.extend(endpoints.map(|endpoint| (endpoint.ip, endpoint.port)));
        }
        let here = |ip: &IpAddr| attachment_with(&snapshot, *ip).map(|it| it.port_no);
        let end = sources.iter().chain(&receivers).find_map(here);
        Ok(Described {
            flow: TracedFlow {
                sources: sources.into_iter().collect(),
                destinations,
                proto,
                src_port: request.src_port,
            },
            port: end.unwrap_or(GATEWAY_PORT),
        })
    }

    /// Walks the packet through the tables; nothing is sent, counted or remembered.
    ///
    /// # Errors
    /// [`ExplainError`].
    pub fn explain(&self, request: &v1::TraceRequest) -> Result<(FlowKey, Trace), ExplainError> {
        let snapshot = self.reconcile.snapshot();
        let sources = self.addresses_of(&snapshot, &request.from)?;
        let destinations = self.addresses_of(&snapshot, &request.to)?;
        let pairs = of_one_family(&sources, &destinations);
        let (src, dst) = *pairs.first().ok_or_else(|| ExplainError::NoCommonFamily {
            from: request.from.clone(),
            to: request.to.clone(),
        })?;
        let key = self.key_of(&snapshot, request, src, dst)?;
        let input = TraceInput {
            in_port: key.in_port,
            packet: TracePacket::Key(key),
        };
        Ok((key, self.datapath.trace(&input, self.clock.now())))
    }

    fn addresses_of(
        &self,
        snapshot: &ReconciledState,
        end: &str,
    ) -> Result<Vec<IpAddr>, ExplainError> {
        if let Ok(address) = end.parse() {
            return Ok(vec![address]);
        }
        if end == "node" {
            return Ok(self.gateway.addresses.clone());
        }
        if let Some(service) = end.strip_prefix("svc/") {
            return addresses_of_service(snapshot, service);
        }
        let key = match end.split_once('/') {
            Some((namespace, name)) => key(namespace, name),
            None => key("default", end),
        };
        let local = snapshot
            .attachments
            .values()
            .find(|attachment| attachment.pod == key);
        let addresses = match local {
            Some(attachment) => attachment
                .addresses
                .iter()
                .map(ipnet::IpNet::addr)
                .collect(),
            None => snapshot
                .cluster
                .pod(&key)
                .map(|pod| pod.ips.clone())
                .unwrap_or_default(),
        };
        if addresses.is_empty() {
            return Err(ExplainError::UnknownEnd {
                end: end.to_owned(),
            });
        }
        Ok(addresses)
    }

    fn key_of(
        &self,
        snapshot: &ReconciledState,
        request: &v1::TraceRequest,
        src: IpAddr,
        dst: IpAddr,
    ) -> Result<FlowKey, ExplainError> {
        let protocol = request.protocol.as_deref().unwrap_or("tcp");
        let (proto, tp_src, tp_dst) = transport(request, protocol, src.is_ipv6())?;
        let sender = attachment_with(snapshot, src);
        let receiver = attachment_with(snapshot, dst);
        // A pod asks ARP for a neighbour and gets its MAC; all else goes to the gateway's.
        let far_mac = receiver.map_or(self.gateway.mac, |attachment| attachment.mac);
        let (in_port, eth_src): (PortNo, MacAddr) = match sender {
            Some(attachment) => (attachment.port_no, attachment.mac),
            None => (GATEWAY_PORT, self.gateway.mac),
        };
        Ok(FlowKey {
            in_port,
            eth_src,
            eth_dst: far_mac,
            eth_type: ether_type::of_ip(src.is_ipv6()),
            ip_proto: proto,
            ip_ttl: 64,
            ip_src: Some(src),
            ip_dst: Some(dst),
            tp_src,
            tp_dst,
            ..FlowKey::default()
        })
    }
}

fn addresses_of_service(
    snapshot: &ReconciledState,
    name: &str,
) -> Result<Vec<IpAddr>, ExplainError> {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    let key = key(namespace, name);
    let service = snapshot.cluster.service(&key);
    let addresses = service.map(|service| service.cluster_ips.clone());
    addresses
        .filter(|addresses| !addresses.is_empty())
        .ok_or_else(|| ExplainError::UnknownService {
            name: key.to_string(),
        })
}

fn key(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

fn attachment_with(snapshot: &ReconciledState, address: IpAddr) -> Option<&Attachment> {
    let mut attachments = snapshot.attachments.values();
    let found = attachments.find(|a| a.addresses.iter().any(|net| net.addr() == address));
    found.map(AsRef::as_ref)
}

/// Returns the pairs of a source and a destination of one address family.
fn of_one_family(sources: &[IpAddr], destinations: &[IpAddr]) -> Vec<(IpAddr, IpAddr)> {
    let pairs = sources
        .iter()
        .flat_map(|src| destinations.iter().map(move |dst| (*src, *dst)));
    pairs
        .filter(|(src, dst)| src.is_ipv6() == dst.is_ipv6())
        .collect()
}

/// Source port of a described packet that names none: like a client's, outside the usual
/// ephemeral range of Linux, so that no real connection is met by chance.
const DEFAULT_SOURCE_PORT: u16 = 61_000;

fn transport(
    request: &v1::TraceRequest,
    protocol: &str,
    is_ipv6: bool,
) -> Result<(u8, u16, u16), ExplainError> {
    let proto = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => ip_proto::TCP,
        "udp" => ip_proto::UDP,
        "sctp" => ip_proto::SCTP,
        // Echo requests (RFC 792, RFC 4443).
        "icmp" | "icmp6" if is_ipv6 => return Ok((ip_proto::ICMPV6, 128, 0)),
        "icmp" => return Ok((ip_proto::ICMP, 8, 0)),
        _ => {
            return Err(ExplainError::UnknownProtocol {
                protocol: protocol.to_owned(),
            });
        }
    };
    let tp_dst = request.port.ok_or_else(|| ExplainError::NoPort {
        protocol: protocol.to_owned(),
    })?;
    Ok((
        proto,
        request.src_port.unwrap_or(DEFAULT_SOURCE_PORT),
        tp_dst,
    ))
}
