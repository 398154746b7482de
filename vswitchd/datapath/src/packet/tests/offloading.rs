//! Segments carry the whole payload, and smoltcp accepts every one of them.

use smoltcp::wire::{Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket};
use vswitch_api::PortNo;

use super::frames::*;
use crate::DropReason;
use crate::flow::{ether_type, ip_proto};
use crate::packet::offload::{
    MAX_SEGMENTS, OffloadError, complete_checksum, segment, segment_l3_len,
};
use crate::packet::{Frame, VnetHeader, crc32c, parse, tcp_flags};

const CWR: u8 = 0x80;

fn gso(kind: u8, size: u16, start: usize, offset: u16) -> VnetHeader {
    VnetHeader {
        flags: VnetHeader::F_NEEDS_CSUM,
        gso_type: kind,
        hdr_len: 0,
        gso_size: size,
        csum_start: u16::try_from(start).unwrap(),
        csum_offset: offset,
    }
}

fn payload(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

fn segments(frame: &Frame) -> Vec<Vec<u8>> {
    let (mut all, mut scratch) = (Vec::new(), Vec::new());
    let count = segment(frame, &mut scratch, |bytes| all.push(bytes.to_vec())).unwrap();
    assert_eq!(count, all.len());
    all
}

/// Verifies lengths and checksums with smoltcp; returns protocol, IPv4 identification and
/// the transport packet behind `extensions` bytes of extension headers.
fn verified(segment: &[u8], l2: usize, extensions: usize) -> (Option<u16>, Vec<u8>) {
    let (id, src, dst, l4): (_, smoltcp::wire::IpAddress, smoltcp::wire::IpAddress, &[u8]) =
        if segment[l2] >> 4 == 4 {
            let ip = Ipv4Packet::new_checked(&segment[l2..]).unwrap();
            assert!(ip.verify_checksum());
            assert_eq!(usize::from(ip.total_len()), segment.len() - l2);
            (
                Some(ip.ident()),
                ip.src_addr().into(),
                ip.dst_addr().into(),
                &segment[l2 + 20..],
            )
        } else {
            let ip = Ipv6Packet::new_checked(&segment[l2..]).unwrap();
            assert_eq!(ip.total_len(), segment.len() - l2);
            (
                None,
                ip.src_addr().into(),
                ip.dst_addr().into(),
                &segment[l2 + 40 + extensions..],
            )
        };
    let proto = parse_bytes(segment).unwrap().key.ip_proto;
    if proto == ip_proto::TCP {
        assert!(
            TcpPacket::new_checked(l4)
                .unwrap()
                .verify_checksum(&src, &dst)
        );
    } else {
        let datagram = UdpPacket::new_checked(l4).unwrap();
        assert_eq!(usize::from(datagram.len()), l4.len());
        assert!(datagram.checksum() != 0 && datagram.verify_checksum(&src, &dst));
    }
    (id, l4.to_vec())
}

fn assert_tcp_segments(frame: &Frame, l2: usize, extensions: usize, whole: &[u8], mss: usize) {
    let all = segments(frame);
    assert_eq!(all.len(), whole.len().div_ceil(mss));
    let mut data = Vec::new();
    for (index, bytes) in all.iter().enumerate() {
        let (id, l4) = verified(bytes, l2, extensions);
        let tcp = TcpPacket::new_checked(&l4).unwrap();
        let sent = u32::try_from(data.len()).unwrap();
        assert_eq!(
            tcp.seq_number().0.cast_unsigned(),
            0xffff_fff0u32.wrapping_add(sent)
        );
        let index_id = 0x1234 + u16::try_from(index).unwrap();
        assert_eq!(id.unwrap_or(index_id), index_id);
        let is_last = index + 1 == all.len();
        assert_eq!(
            (tcp.psh(), tcp.fin(), tcp.ack()),
            (is_last, is_last, true),
            "{index}"
        );
        assert_eq!(l4[13] & CWR != 0, index == 0, "{index}");
        assert!(tcp.payload().len() <= mss);
        data.extend_from_slice(tcp.payload());
    }
    assert!(data == whole, "the payload is the same");
}

const FLAGS: u8 = tcp_flags::ACK | tcp_flags::PSH | tcp_flags::FIN | CWR;

#[test]
fn a_tcp_super_frame_over_ipv4_becomes_valid_segments() {
    let data = payload(64_000);
    let frame = frame_with(
        &tcp4(FLAGS, &data),
        gso(VnetHeader::GSO_TCPV4, 1_448, 34, 16),
    );
    assert_tcp_segments(&frame, 14, 0, &data, 1_448);
}

#[test]
fn a_tcp_super_frame_over_ipv6_becomes_valid_segments() {
    let data = payload(9_000);
    let frame = frame_with(
        &tcp6(FLAGS, &data),
        gso(VnetHeader::GSO_TCPV6, 1_000, 54, 16),
    );
    assert_tcp_segments(&frame, 14, 0, &data, 1_000);
}

#[test]
fn vlan_tag_and_extension_headers_stand_in_every_segment() {
    let data = payload(3_001);
    let tcp = seal6(ip_proto::TCP, tcp(FLAGS, &[], &data), 16);
    let packet = ipv6_with(SRC6, DST6, 9, 0, &with_extensions(ip_proto::TCP, &tcp));
    let bytes = ethernet(&[(ether_type::VLAN, 77)], ether_type::IPV6, &packet);
    let vnet = gso(VnetHeader::GSO_TCPV6 | VnetHeader::GSO_ECN, 1_000, 74, 16);
    let frame = frame_with(&bytes, vnet);
    assert_tcp_segments(&frame, 18, 16, &data, 1_000);
    assert!(
        segments(&frame)
            .iter()
            .all(|s| parse_bytes(s).unwrap().key.vlan_tci == 0x1000 | 77)
    );
}

#[test]
fn a_udp_super_frame_becomes_datagrams() {
    let data = payload(2_500);
    for (bytes, start) in [(udp4(&data), 34), (udp6(&data), 54)] {
        let frame = frame_with(&bytes, gso(VnetHeader::GSO_UDP_L4, 1_200, start, 6));
        let datagrams: Vec<_> = segments(&frame)
            .iter()
            .map(|s| verified(s, 14, 0).1)
            .collect();
        let lens: Vec<_> = datagrams.iter().map(Vec::len).collect();
        assert_eq!(lens, [1_208, 1_208, 108]);
        assert_eq!(
            datagrams
                .iter()
                .flat_map(|d| &d[8..])
                .copied()
                .collect::<Vec<_>>(),
            data
        );
    }
}

#[test]
fn padding_behind_a_super_frame_is_not_payload() {
    let data = payload(1_500);
    let mut bytes = tcp4(FLAGS, &data);
    bytes.extend([0xee; 9]);
    let frame = frame_with(&bytes, gso(VnetHeader::GSO_TCPV4, 1_000, 34, 16));
    assert_tcp_segments(&frame, 14, 0, &data, 1_000);
}

#[test]
fn a_super_frame_too_long_for_its_length_field_is_cut_to_the_frame_end() {
    let data = payload(5_000);
    let mut bytes = tcp6(FLAGS, &data);
    bytes[18..20].fill(0);
    let frame = frame_with(&bytes, gso(VnetHeader::GSO_TCPV6, 1_440, 54, 16));
    assert_tcp_segments(&frame, 14, 0, &data, 1_440);
    let mut bytes = tcp4(FLAGS, &data);
    bytes[16..18].fill(0);
    let sum = pnet_packet::util::checksum(&bytes[14..34], 5);
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(parse_bytes(&bytes).err(), Some(DropReason::MalformedIp));
    let frame = frame_with(&bytes, gso(VnetHeader::GSO_TCPV4, 1_440, 34, 16));
    assert_tcp_segments(&frame, 14, 0, &data, 1_440);
}

#[test]
fn a_plain_frame_passes_as_it_is() {
    let bytes = valid("tcp4");
    assert_eq!(segments(&Frame::from_bytes(&bytes)), [bytes]);
}

#[test]
fn a_partial_checksum_is_completed_while_segmenting() {
    let mut bytes = tcp4(tcp_flags::ACK, b"odd");
    let right = bytes.clone();
    let pseudo = crate::packet::checksum::pseudo_header(SRC4.into(), DST4.into(), 6, 23).fold();
    bytes[50..52].copy_from_slice(&pseudo.to_be_bytes());
    bytes.extend([0xee; 3]);
    let mut frame = frame_with(&bytes, gso(VnetHeader::GSO_NONE, 0, 34, 16));
    assert_eq!(segments(&frame)[0][..right.len()], right);
    complete_checksum(&mut frame).unwrap();
    assert_eq!(frame.bytes()[..right.len()], right);
    assert_eq!(frame.vnet, VnetHeader::default());
}

#[test]
fn a_partial_sctp_checksum_is_completed_as_crc32c() {
    let mut bytes = valid("sctp4");
    let right = bytes.clone();
    bytes[42..46].fill(0);
    assert_ne!(crc32c(&bytes[34..]), 0);
    let mut frame = frame_with(&bytes, gso(VnetHeader::GSO_NONE, 0, 34, 8));
    complete_checksum(&mut frame).unwrap();
    assert_eq!(frame.bytes(), right);
}

#[test]
fn what_cannot_be_cut_is_refused_and_gives_nothing() {
    let refused = |bytes: &[u8], vnet| {
        let mut scratch = Vec::new();
        let mut given = 0;
        let result = segment(&frame_with(bytes, vnet), &mut scratch, |_| given += 1);
        assert_eq!(given, 0);
        result.unwrap_err()
    };
    let udp = udp4(&payload(3_000));
    assert_eq!(
        refused(&udp, gso(VnetHeader::GSO_UDP, 1_480, 34, 6)),
        OffloadError::LegacyUfo
    );
    let tcp = tcp4(FLAGS, &payload(MAX_SEGMENTS + 1));
    let many = OffloadError::TooManySegments {
        segments: MAX_SEGMENTS + 1,
    };
    assert_eq!(refused(&tcp, gso(VnetHeader::GSO_TCPV4, 1, 34, 16)), many);
    let parse = refused(&tcp[..50], gso(VnetHeader::GSO_TCPV4, 1, 34, 16));
    assert!(matches!(parse, OffloadError::Parse { .. }));
    let mut frame = frame_with(&tcp, gso(VnetHeader::GSO_TCPV4, 1_000, 34, 16));
    assert_eq!(complete_checksum(&mut frame), Err(OffloadError::SuperFrame));
}

#[test]
fn the_wire_length_is_that_of_the_largest_segment() {
    let l3_len = |frame: &Frame| segment_l3_len(frame, &parse(frame, PortNo(1)).unwrap());
    let data = payload(5_000);
    let tcp = frame_with(
        &tcp4(FLAGS, &data),
        gso(VnetHeader::GSO_TCPV4, 1_448, 34, 16),
    );
    assert_eq!(l3_len(&tcp), 20 + 20 + 1_448);
    let longest = segments(&tcp).iter().map(Vec::len).max().unwrap();
    assert_eq!(l3_len(&tcp), longest - 14);
    let udp = frame_with(&udp6(&data), gso(VnetHeader::GSO_UDP_L4, 1_200, 54, 6));
    assert_eq!(l3_len(&udp), 40 + 8 + 1_200);
    assert_eq!(l3_len(&Frame::from_bytes(&udp6(&data))), 40 + 8 + 5_000);
    let short = frame_with(
        &tcp4(FLAGS, b"x"),
        gso(VnetHeader::GSO_TCPV4, 1_448, 34, 16),
    );
    assert_eq!(l3_len(&short), 41);
}
