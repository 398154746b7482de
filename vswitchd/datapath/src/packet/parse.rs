//! Frame parser: [`parse`] is the first thing that happens to every frame.
//!
//! Every header that the flow key or connection tracking relies on is checked here, once;
//! what a format itself demands stands in the format's module. No allocation.

use vswitch_api::PortNo;

use super::arp::{self, ArpView};
use super::ethernet::EthernetView;
use super::icmp::{IcmpVersion, IcmpView};
use super::ipv4::Ipv4View;
use super::ipv6::{self, Chain, Ipv6View};
use super::nd::{self, NdContext};
use super::parsed::{Fragment, ParsedPacket};
use super::sctp::SctpView;
use super::tcp::TcpView;
use super::udp::UdpView;
use super::vnet_check::{check_gso_type, check_vnet};
use super::{Frame, verify_l4_checksum};
use crate::drop_reason::DropReason;
use crate::flow::{FlowKey, ether_type, ip_proto};

/// Takes `frame` apart.
///
/// EtherTypes that the switch does not know and a third VLAN tag are no error: the key says
/// what they are, and the pipeline decides.
///
/// # Errors
///
/// Returns why the frame must be dropped, if a header contradicts itself or its surroundings.
pub fn parse(frame: &Frame, in_port: PortNo) -> Result<ParsedPacket, DropReason> {
    let bytes = frame.bytes();
    let ethernet = EthernetView::new_checked(bytes)?;
    check_vnet(frame.vnet, bytes.len())?;
    let mut packet = ParsedPacket {
        key: FlowKey {
            in_port,
            eth_src: ethernet.src,
            eth_dst: ethernet.dst,
            vlan_tci: ethernet.vlan_tci,
            eth_type: ethernet.ether_type,
            ..FlowKey::default()
        },
        l3_offset: ethernet.payload,
        l4_offset: bytes.len(),
        l3_end: bytes.len(),
        fragment: Fragment::No,
        tcp: None,
        sctp: None,
        icmp_echo_id: None,
        icmp_quote: None,
        dont_fragment: false,
    };
    match ethernet.ether_type {
        ether_type::IPV4 => parse_ipv4(frame, &mut packet)?,
        ether_type::IPV6 => parse_ipv6(frame, &mut packet)?,
        ether_type::ARP => parse_arp(bytes, &mut packet)?,
        _ => {}
    }
    let kind = (packet.key.eth_type, packet.key.ip_proto);
    check_gso_type(frame.vnet, kind, packet.fragment)?;
    Ok(packet)
}

fn parse_arp(bytes: &[u8], packet: &mut ParsedPacket) -> Result<(), DropReason> {
    let arp = ArpView::new_checked(l3(bytes, packet))?;
    packet.key.ip_proto = arp.operation();
    packet.key.ip_src = Some(arp.sender_ip().into());
    packet.key.ip_dst = Some(arp.target_ip().into());
    packet.key.arp_sha = arp.sender_mac();
    packet.key.arp_tha = arp.target_mac();
    packet.l3_end = packet.l3_offset + arp::LEN;
    packet.l4_offset = packet.l3_end;
    Ok(())
}

fn parse_ipv4(frame: &Frame, packet: &mut ParsedPacket) -> Result<(), DropReason> {
    let bytes = l3(frame.bytes(), packet);
    let ip = Ipv4View::new_checked(bytes)?;
    let len = ip.packet_len(bytes.len(), frame.vnet.is_gso())?;
    ip.check_fragment(len - ip.header_len())?;
    packet.fragment = ip.fragment();
    packet.dont_fragment = ip.dont_fragment();
    packet.l3_end = packet.l3_offset + len;
    packet.l4_offset = packet.l3_offset + ip.header_len();
    packet.key.ip_proto = ip.protocol();
    packet.key.ip_tos = ip.tos();
    packet.key.ip_ttl = ip.ttl();
    packet.key.ip_src = Some(ip.src().into());
    packet.key.ip_dst = Some(ip.dst().into());
    if is_later(packet) {
        return Ok(());
    }
    match ip.protocol() {
        ip_proto::ICMP => parse_icmp(frame, packet, IcmpVersion::V4).map(|_| ()),
        _ => parse_l4(frame, packet),
    }
}

fn parse_ipv6(frame: &Frame, packet: &mut ParsedPacket) -> Result<(), DropReason> {
    let bytes = l3(frame.bytes(), packet);
    let ip = Ipv6View::new_checked(bytes)?;
    let len = ip.packet_len(bytes.len(), frame.vnet.is_gso())?;
    let upper = ipv6::walk(
        bytes.get(..len).unwrap_or_default(),
        ip.next_header(),
        Chain::Whole,
    )?;
    packet.fragment = upper.fragment;
    packet.dont_fragment = true;
    packet.l3_end = packet.l3_offset + len;
    packet.l4_offset = packet.l3_offset + upper.offset;
    packet.key.ip_proto = upper.proto;
    packet.key.ip_tos = ip.traffic_class();
    packet.key.ip_ttl = ip.hop_limit();
    packet.key.ip_src = Some(ip.src().into());
    packet.key.ip_dst = Some(ip.dst().into());
    if is_later(packet) {
        return Ok(());
    }
    if upper.proto != ip_proto::ICMPV6 {
        return parse_l4(frame, packet);
    }
    let icmp = parse_icmp(frame, packet, IcmpVersion::V6)?;
    if nd::is_nd(icmp.kind()) {
        let context = NdContext {
            src: ip.src(),
            dst: ip.dst(),
            hop_limit: ip.hop_limit(),
            has_fragment_header: upper.has_fragment_header,
        };
        parse_nd(frame, packet, context)?;
    }
    Ok(())
}

/// Ends the parsing of a later fragment: what stands behind its IP header is no header.
fn is_later(packet: &mut ParsedPacket) -> bool {
    let later = matches!(packet.fragment, Fragment::Later { .. });
    if later {
        packet.key.is_later_fragment = true;
        packet.l4_offset = packet.l3_end;
    }
    later
}

fn parse_l4(frame: &Frame, packet: &mut ParsedPacket) -> Result<(), DropReason> {
    match packet.key.ip_proto {
        ip_proto::TCP => parse_tcp(frame, packet),
        ip_proto::UDP => parse_udp(frame, packet),
        ip_proto::SCTP => parse_sctp(frame, packet),
        _ => Ok(()),
    }
}

fn parse_tcp(frame: &Frame, packet: &mut ParsedPacket) -> Result<(), DropReason> {
    let segment = l4(frame.bytes(), packet);
    let tcp = TcpView::new_checked(segment).ok_or_else(|| malformed_l4(packet))?;
    // The frame is far shorter than 4 GiB; a wrong length would only widen no window.
    let payload_len = u32::try_from(segment.len() - tcp.header_len()).unwrap_or(u32::MAX);
    packet.key.tp_src = tcp.src_port();
    packet.key.tp_dst = tcp.dst_port();
    packet.tcp = Some(tcp.segment(payload_len));
    Ok(())
}

fn parse_udp(frame: &Frame, packet: &mut ParsedPacket) -> Result<(), DropReason> {
    let datagram = l4(frame.bytes(), packet);
    let udp = UdpView::new_checked(datagram).ok_or_else(|| malformed_l4(packet))?;
    // A first fragment states the length of the whole datagram.
    let available = if packet.fragment == Fragment::No {
        datagram.len()
    } else {
        usize::from(u16::MAX)
    };
    if !udp.length_fits(available, frame.vnet.is_gso()) {
        return Err(DropReason::MalformedL4);
    }
    packet.key.tp_src = udp.src_port();
    packet.key.tp_dst = udp.dst_port();
    Ok(())
}

fn parse_sctp(frame: &Frame, packet: &mut ParsedPacket) -> Result<(), DropReason> {
    let bytes = l4(frame.bytes(), packet);
    let sctp = SctpView::new_checked(bytes).ok_or_else(|| malformed_l4(packet))?;
    let is_cut = super::sctp::HEADER_LEN + sctp.chunk_len() > bytes.len();
    if is_cut && packet.fragment == Fragment::No {
        return Err(DropReason::MalformedL4);
    }
    packet.key.tp_src = sctp.src_port();
    packet.key.tp_dst = sctp.dst_port();
    packet.sctp = Some((sctp.verification_tag(), sctp.chunk_type()));
    Ok(())
}

fn parse_icmp<'a>(
    frame: &'a Frame,
    packet: &mut ParsedPacket,
    version: IcmpVersion,
) -> Result<IcmpView<'a>, DropReason> {
    let message = l4(frame.bytes(), packet);
    let icmp = IcmpView::new_checked(message, version).ok_or_else(|| malformed_l4(packet))?;
    packet.key.tp_src = u16::from(icmp.kind());
    packet.key.tp_dst = u16::from(icmp.code());
    packet.icmp_echo_id = icmp.echo_id();
    if icmp.is_error() {
        let quote = icmp
            .quote(packet.l4_offset)
            .ok_or_else(|| malformed_l4(packet))?;
        packet.icmp_quote = Some(quote);
    }
    Ok(icmp)
}

fn parse_nd(frame: &Frame, packet: &mut ParsedPacket, ip: NdContext) -> Result<(), DropReason> {
    let message = l4(frame.bytes(), packet);
    let nd = nd::parse(message, ip).ok_or(DropReason::MalformedNd)?;
    // RFC 4861 section 7.1 lists the checksum too; it is summed last, as it costs most.
    if !verify_l4_checksum(frame, packet) {
        return Err(DropReason::MalformedNd);
    }
    packet.key.nd_target = nd.target;
    packet.key.arp_sha = nd.link_layer.unwrap_or_default();
    Ok(())
}

/// Returns the reason of a transport header that is cut or contradicts itself. RFC 1858: of
/// a first fragment it may be cut on purpose, so that a filter does not see it.
fn malformed_l4(packet: &ParsedPacket) -> DropReason {
    if packet.fragment == Fragment::No {
        DropReason::MalformedL4
    } else {
        DropReason::MalformedFragment
    }
}

fn l3<'a>(frame: &'a [u8], packet: &ParsedPacket) -> &'a [u8] {
    frame
        .get(packet.l3_offset..packet.l3_end)
        .unwrap_or_default()
}

fn l4<'a>(frame: &'a [u8], packet: &ParsedPacket) -> &'a [u8] {
    frame
        .get(packet.l4_offset..packet.l3_end)
        .unwrap_or_default()
}
