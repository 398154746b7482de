//! Malformed frames: the right drop reason for each contradiction, and never a panic.

use proptest::prelude::*;
use vswitch_api::PortNo;

use super::frames::*;
use crate::DropReason;
use crate::flow::{ether_type, ip_proto};
use crate::packet::{
    Frame, VnetHeader, emit, offload, parse, rewrite, tcp_flags, verify_l4_checksum,
};

#[track_caller]
fn assert_drop(frame: &[u8], reason: DropReason) {
    assert_eq!(parse_bytes(frame).map(|packet| packet.key), Err(reason));
}

fn ipv4_packet(packet: &[u8]) -> Vec<u8> {
    ethernet(&[], ether_type::IPV4, packet)
}

/// Breaks one octet of the IPv4 header and sums the header again.
fn with_ipv4_octet(at: usize, value: u8) -> Vec<u8> {
    let mut frame = valid("tcp4");
    frame[14 + at] = value;
    let sum = pnet_packet::util::checksum(&frame[14..34], 5);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// Drives everything that takes a parsed frame.
fn drive(mut frame: Frame) {
    let mut scratch = Vec::new();
    let _segments = offload::segment(&frame, &mut scratch, |segment| {
        assert!(
            segment.len() <= frame.len(),
            "a segment is no longer than its frame"
        );
    });
    let Ok(packet) = parse(&frame, PortNo(1)) else {
        return;
    };
    assert!(packet.l3_offset <= packet.l4_offset, "{packet:?}");
    assert!(packet.l4_offset <= packet.l3_end, "{packet:?}");
    assert!(packet.l3_end <= frame.len(), "{packet:?}");
    assert!(
        packet
            .icmp_quote
            .is_none_or(|quote| quote.offset < packet.l3_end),
        "{packet:?}"
    );
    let _valid = verify_l4_checksum(&frame, &packet);
    assert!(offload::segment_l3_len(&frame, &packet) <= packet.l3_end - packet.l3_offset);
    for answer in [
        emit::arp_reply(&frame, &packet, DST_MAC),
        emit::neighbor_advertisement(&frame, &packet, DST_MAC),
        emit::icmp_too_big(&frame, &packet, 1_400, DST4.into()),
        emit::icmp_too_big(&frame, &packet, 1_400, DST6.into()),
        emit::icmp_unreachable(&frame, &packet, emit::Refusal::Prohibited, DST4.into()),
        emit::icmp_unreachable(&frame, &packet, emit::Refusal::Prohibited, DST6.into()),
        emit::tcp_reset(&frame, &packet),
    ]
    .into_iter()
    .flatten()
    {
        parse(&answer, PortNo(1)).expect("what the switch sends is valid");
    }
    rewrite::set_ip(&mut frame, &packet, rewrite::End::Src, DST4.into());
    rewrite::set_ip(&mut frame, &packet, rewrite::End::Dst, SRC6.into());
    rewrite::set_port(&mut frame, &packet, rewrite::End::Dst, 1);
    rewrite::decrement_ttl(&mut frame, &packet);
    let _plain = offload::complete_checksum(&mut frame);
    frame.insert_vlan_tag(ether_type::VLAN, 3);
    let _tagged = parse(&frame, PortNo(1));
    assert_eq!(frame.remove_vlan_tag(), Some((ether_type::VLAN, 3)));
}

#[test]
fn every_prefix_of_every_valid_frame_parses_or_names_a_reason() {
    for (name, frame) in valid_frames() {
        assert!(
            parse_bytes(&frame).is_ok(),
            "{name}: {:?}",
            parse_bytes(&frame)
        );
        for len in 0..frame.len() {
            if let Ok(packet) = parse_bytes(&frame[..len]) {
                assert_eq!(name, "lldp", "{len} of {} bytes: {packet:?}", frame.len());
            }
        }
    }
}

#[test]
fn a_frame_cut_in_a_link_or_ip_header_is_truncated() {
    assert_drop(&valid("tcp4")[..13], DropReason::Truncated);
    assert_drop(&valid("vlan")[..17], DropReason::Truncated);
    assert_drop(&valid("tcp4")[..33], DropReason::Truncated);
    assert_drop(
        &valid("tcp4")[..valid("tcp4").len() - 1],
        DropReason::Truncated,
    );
    assert_drop(&valid("tcp6")[..53], DropReason::Truncated);
    assert_drop(
        &valid("tcp6")[..valid("tcp6").len() - 1],
        DropReason::Truncated,
    );
}

#[test]
fn an_impossible_ip_header_is_malformed() {
    assert_drop(&with_ipv4_octet(0, 0x55), DropReason::MalformedIp);
    assert_drop(&with_ipv4_octet(0, 0x44), DropReason::MalformedIp);
    // Total length below the header's.
    assert_drop(&with_ipv4_octet(3, 19), DropReason::MalformedIp);
    let mut frame = valid("tcp6");
    frame[14] = 0x40;
    assert_drop(&frame, DropReason::MalformedIp);
}

#[test]
fn a_wrong_ipv4_header_checksum_is_malformed() {
    let mut frame = valid("tcp4");
    frame[14 + 10] ^= 1;
    assert_drop(&frame, DropReason::MalformedIp);
}

#[test]
fn arp_that_is_not_ethernet_and_ipv4_is_malformed() {
    for at in [1, 2, 4, 5] {
        let mut frame = valid("arp");
        frame[14 + at] ^= 0x10;
        assert_drop(&frame, DropReason::MalformedArp);
    }
    assert_drop(&valid("arp")[..14 + 27], DropReason::MalformedArp);
}

#[test]
fn a_tcp_data_offset_outside_the_segment_is_malformed() {
    for offset in [0x40, 0xf0] {
        let mut segment = tcp(tcp_flags::ACK, &[], b"hello");
        segment[12] = offset;
        assert_drop(&ipv4(ip_proto::TCP, &segment), DropReason::MalformedL4);
    }
}

#[test]
fn a_udp_length_outside_the_packet_is_malformed() {
    for length in [0, 7, 14] {
        let mut datagram = udp(b"hello");
        datagram[5] = length;
        assert_drop(&ipv4(ip_proto::UDP, &datagram), DropReason::MalformedL4);
        assert_drop(&ipv6(ip_proto::UDP, &datagram), DropReason::MalformedL4);
    }
}

#[test]
fn an_sctp_chunk_outside_the_packet_is_malformed() {
    for length in [0, 3, 21] {
        let mut packet = sctp();
        packet[15] = length;
        assert_drop(&ipv4(ip_proto::SCTP, &packet), DropReason::MalformedL4);
    }
}

#[test]
fn an_icmp_message_shorter_than_its_header_is_malformed() {
    assert_drop(
        &ipv4(ip_proto::ICMP, &icmp(13, 0, [0; 4], &[])[..7]),
        DropReason::MalformedL4,
    );
    for (kind, len) in [(128, 7), (1, 7), (200, 3)] {
        let message = icmp6(kind, 0, [0; 4], &[]);
        assert_drop(
            &ipv6(ip_proto::ICMPV6, &message[..len]),
            DropReason::MalformedL4,
        );
    }
    assert!(parse_bytes(&ipv6(ip_proto::ICMPV6, &icmp6(200, 0, [0; 4], &[])[..4])).is_ok());
}

#[test]
fn an_icmp_error_without_a_usable_quote_is_malformed() {
    let cut = &valid("udp4")[14..14 + 20 + 3];
    assert_drop(
        &ipv4(ip_proto::ICMP, &icmp(3, 1, [0; 4], cut)),
        DropReason::MalformedL4,
    );
    assert_drop(
        &ipv4(ip_proto::ICMP, &icmp(3, 1, [0; 4], &[0x45; 4])),
        DropReason::MalformedL4,
    );
    let other = &valid("udp6")[14..];
    assert_drop(
        &ipv4(ip_proto::ICMP, &icmp(3, 1, [0; 4], other)),
        DropReason::MalformedL4,
    );
    assert_drop(
        &ipv6(58, &icmp6(1, 0, [0; 4], &other[..43])),
        DropReason::MalformedL4,
    );
}

#[test]
fn tiny_and_overlapping_fragments_are_malformed() {
    let segment = tcp(tcp_flags::SYN, &[], &[0; 12]);
    let first = |len: usize| ipv4_packet(&ipv4_with(&[], 0x2000, ip_proto::TCP, &segment[..len]));
    assert_drop(&first(8), DropReason::MalformedFragment);
    assert_drop(&first(16), DropReason::MalformedFragment);
    assert!(parse_bytes(&first(24)).is_ok());
    for offset in [1, 2] {
        let later = ipv4_with(&[], offset, ip_proto::TCP, &[0; 24]);
        assert_drop(&ipv4_packet(&later), DropReason::MalformedFragment);
    }
    let tiny6 = [
        fragment_header(ip_proto::TCP, 0, true),
        segment[..16].to_vec(),
    ]
    .concat();
    assert_drop(&ipv6(44, &tiny6), DropReason::MalformedFragment);
    let over6 = [fragment_header(ip_proto::TCP, 8, false), vec![0; 24]].concat();
    assert_drop(&ipv6(44, &over6), DropReason::MalformedFragment);
}

#[test]
fn fragments_of_impossible_length_are_malformed() {
    let cases: [(u16, &[u8]); 3] = [(0x2000, &[0; 13]), (0x0003, &[]), (0x1fff, &[0; 8])];
    for (field, payload) in cases {
        let packet = ipv4_with(&[], field, ip_proto::UDP, payload);
        assert_drop(&ipv4_packet(&packet), DropReason::MalformedFragment);
    }
    let past_end = [fragment_header(ip_proto::UDP, 0xfff8, false), vec![0; 8]].concat();
    assert_drop(&ipv6(44, &past_end), DropReason::MalformedFragment);
}

#[test]
fn a_first_fragment_must_hold_the_whole_chain() {
    let chain = [
        fragment_header(60, 0, true),
        vec![ip_proto::TCP, 1, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    assert_drop(&ipv6(44, &chain), DropReason::MalformedFragment);
}

#[test]
fn a_broken_extension_header_chain_is_malformed() {
    let malformed = DropReason::MalformedExtensionHeader;
    let options = [60, 0, 1, 4, 0, 0, 0, 0];
    let chain = |n: usize| {
        let mut payload = options.repeat(n);
        payload[(n - 1) * 8] = ip_proto::UDP;
        payload.extend(udp(b"x"));
        ipv6(60, &payload)
    };
    assert!(parse_bytes(&chain(8)).is_ok());
    assert_drop(&chain(9), malformed);
    // Longer than the packet, cut, hop-by-hop not first, two fragment headers, type 0 routing.
    assert_drop(&ipv6(60, &[17, 9, 0, 0, 0, 0, 0, 0]), malformed);
    assert_drop(&ipv6(60, &[]), malformed);
    assert_drop(
        &ipv6(60, &[0, 0, 1, 4, 0, 0, 0, 0, 59, 0, 1, 4, 0, 0, 0, 0]),
        malformed,
    );
    let twice = [fragment_header(44, 0, false), fragment_header(59, 0, false)].concat();
    assert_drop(&ipv6(44, &twice), malformed);
    assert_drop(&ipv6(43, &[59, 0, 0, 1, 0, 0, 0, 0]), malformed);
    assert!(parse_bytes(&ipv6(43, &[59, 0, 0, 0, 0, 0, 0, 0])).is_ok());
}

#[test]
fn neighbour_messages_that_receivers_must_discard_are_malformed() {
    use std::net::Ipv6Addr;
    let any = Ipv6Addr::UNSPECIFIED;
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let ns = |options: &[u8]| nd_message(135, 0, DST6, options);
    let with_code = |mut message: Vec<u8>| {
        message[1] = 1;
        message
    };
    let lladdr = SOURCE_LINK_LAYER;
    let twice = [lladdr, lladdr].concat();
    for (case, frame) in [
        ("hop limit", nd(SRC6, solicited_node(), 254, ns(&[]))),
        ("code", nd(SRC6, solicited_node(), 255, with_code(ns(&[])))),
        (
            "short",
            nd(SRC6, solicited_node(), 255, ns(&[])[..23].to_vec()),
        ),
        (
            "zero option",
            nd(SRC6, solicited_node(), 255, ns(&[14, 0, 0, 0, 0, 0, 0, 0])),
        ),
        (
            "cut option",
            nd(SRC6, solicited_node(), 255, ns(&[14, 2, 0, 0, 0, 0, 0, 0])),
        ),
        ("two addresses", nd(SRC6, solicited_node(), 255, ns(&twice))),
        (
            "group target",
            nd(
                SRC6,
                solicited_node(),
                255,
                nd_message(135, 0, all_nodes, &[]),
            ),
        ),
        (
            "DAD with address",
            nd(any, solicited_node(), 255, ns(&lladdr)),
        ),
        ("DAD to unicast", nd(any, DST6, 255, ns(&[]))),
        (
            "solicited to group",
            nd(SRC6, all_nodes, 255, nd_message(136, 0x40, SRC6, &[])),
        ),
        (
            "router not link-local",
            nd(SRC6, DST6, 255, nd_message(134, 0, SRC6, &[])),
        ),
    ] {
        assert_eq!(
            parse_bytes(&frame).err(),
            Some(DropReason::MalformedNd),
            "{case}"
        );
    }
    assert!(
        parse_bytes(&nd(any, solicited_node(), 255, ns(&[]))).is_ok(),
        "valid DAD"
    );
}

#[test]
fn a_neighbour_message_with_wrong_checksum_or_in_a_fragment_is_malformed() {
    let mut frame = valid("ns");
    frame[14 + 40 + 3] ^= 1;
    assert_drop(&frame, DropReason::MalformedNd);
    let message = icmp6(135, 0, [0; 4], &DST6.octets());
    let payload = [fragment_header(ip_proto::ICMPV6, 0, false), message].concat();
    let packet = ipv6_with(SRC6, DST6, 255, 44, &payload);
    assert_drop(
        &ethernet(&[], ether_type::IPV6, &packet),
        DropReason::MalformedNd,
    );
}

#[test]
fn a_vnet_header_that_contradicts_the_frame_is_malformed() {
    let frame = valid("tcp4");
    let good = VnetHeader {
        flags: VnetHeader::F_NEEDS_CSUM,
        gso_type: VnetHeader::GSO_TCPV4,
        hdr_len: 54,
        gso_size: 1_448,
        csum_start: 34,
        csum_offset: 16,
    };
    assert!(parse(&frame_with(&frame, good), PortNo(1)).is_ok());
    let past_end = u16::try_from(frame.len()).unwrap();
    for bad in [
        VnetHeader {
            csum_start: 13,
            ..good
        },
        VnetHeader {
            csum_start: past_end - 17,
            ..good
        },
        VnetHeader {
            csum_start: u16::MAX,
            csum_offset: u16::MAX,
            ..good
        },
        VnetHeader {
            gso_size: 0,
            ..good
        },
        VnetHeader {
            gso_type: 2,
            ..good
        },
        VnetHeader {
            gso_type: VnetHeader::GSO_TCPV6,
            ..good
        },
        VnetHeader {
            gso_type: VnetHeader::GSO_UDP_L4,
            ..good
        },
        VnetHeader {
            hdr_len: past_end + 1,
            ..good
        },
    ] {
        let parsed = parse(&frame_with(&frame, bad), PortNo(1));
        assert_eq!(
            parsed.err(),
            Some(DropReason::MalformedVnetHeader),
            "{bad:?}"
        );
    }
    let fragment = frame_with(
        &valid("first4"),
        VnetHeader {
            gso_type: 5,
            ..good
        },
    );
    assert_eq!(
        parse(&fragment, PortNo(1)).err(),
        Some(DropReason::MalformedVnetHeader)
    );
}

#[test]
fn a_wrong_transport_checksum_is_found_unless_the_kernel_vouches() {
    for name in [
        "tcp4",
        "udp4",
        "icmp echo",
        "sctp4",
        "tcp6",
        "udp6",
        "icmp6 echo",
        "extensions6",
    ] {
        let mut bytes = valid(name);
        let frame = Frame::from_bytes(&bytes);
        let packet = parse(&frame, PortNo(1)).unwrap();
        assert!(verify_l4_checksum(&frame, &packet), "{name} is right");
        *bytes.last_mut().unwrap() ^= 0x40;
        let mut frame = Frame::from_bytes(&bytes);
        assert!(!verify_l4_checksum(&frame, &packet), "{name} is wrong");
        frame.vnet.flags = VnetHeader::F_DATA_VALID;
        assert!(verify_l4_checksum(&frame, &packet), "{name} was verified");
        frame.vnet = VnetHeader {
            gso_type: VnetHeader::GSO_TCPV4,
            ..VnetHeader::default()
        };
        assert!(
            verify_l4_checksum(&frame, &packet),
            "{name} has no sum of the whole"
        );
    }
}

pub(super) fn any_vnet() -> impl Strategy<Value = VnetHeader> {
    let gso = prop_oneof![Just(0u8), Just(1), Just(3), Just(4), Just(5), Just(0x81)];
    let small = prop_oneof![0u16..100, any::<u16>()];
    (
        0u8..4,
        gso,
        small.clone(),
        small.clone(),
        small.clone(),
        small,
    )
        .prop_map(
            |(flags, gso_type, hdr_len, gso_size, csum_start, csum_offset)| VnetHeader {
                flags,
                gso_type,
                hdr_len,
                gso_size,
                csum_start,
                csum_offset,
            },
        )
}

pub(super) fn mutated_frame() -> impl Strategy<Value = Vec<u8>> {
    let edits = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    (
        prop::sample::select(valid_frames()),
        edits,
        any::<bool>(),
        0usize..40,
    )
        .prop_map(|((_, mut frame), edits, sum_again, padding)| {
            for (at, value) in edits {
                let at = at.index(frame.len());
                frame[at] = value;
            }
            // Without a right header checksum nothing behind it would be reached.
            if sum_again && frame.len() > 34 {
                let sum = pnet_packet::util::checksum(&frame[14..34], 5);
                frame[24..26].copy_from_slice(&sum.to_be_bytes());
            }
            frame.resize(frame.len() + padding, 0xee);
            frame
        })
}

/// The switch quotes what it refuses: whatever it parses, it must parse within an error too.
#[test]
fn every_short_packet_that_is_valid_can_be_quoted() {
    let mut quoted = 0;
    for proto in 0..=u8::MAX {
        for kind in [0, 3, 8, 128, 129, 133, 138, 200] {
            for len in 0..24 {
                let payload = [&[kind], &[0_u8; 24][..]].concat();
                for bytes in [ipv4(proto, &payload[..len]), ipv6(proto, &payload[..len])] {
                    let frame = Frame::from_bytes(&bytes);
                    let Ok(packet) = parse(&frame, PortNo(1)) else {
                        continue;
                    };
                    let from = packet.key.ip_dst.expect("an IP packet has a destination");
                    let refusal = emit::Refusal::Prohibited;
                    if let Some(error) = emit::icmp_unreachable(&frame, &packet, refusal, from) {
                        let parsed = parse(&error, PortNo(1)).map(|error| {
                            let quote = error.icmp_quote.expect("an error quotes its packet");
                            (quote.src, quote.dst, quote.proto)
                        });
                        let expected = (
                            packet.key.ip_src.expect("an IP packet has a source"),
                            from,
                            packet.key.ip_proto,
                        );
                        assert_eq!(parsed, Ok(expected), "{proto} {kind} {len}");
                        quoted += 1;
                    }
                }
            }
        }
    }
    assert!(quoted > 80_000, "{quoted} packets were quoted");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 4_000, ..Default::default() })]

    #[test]
    fn no_mutation_of_a_valid_frame_leads_out_of_it(bytes in mutated_frame()) {
        drive(Frame::from_bytes(&bytes));
    }

    #[test]
    fn no_vnet_header_leads_out_of_the_frame(bytes in mutated_frame(), vnet in any_vnet()) {
        drive(frame_with(&bytes, vnet));
    }

    #[test]
    fn no_random_bytes_lead_out_of_the_frame(
        bytes in proptest::collection::vec(any::<u8>(), 0..120),
        eth_type in prop::sample::select(vec![0x0800u16, 0x86dd, 0x0806, 0x8100]),
    ) {
        drive(Frame::from_bytes(&ethernet(&[], eth_type, &bytes)));
        drive(Frame::from_bytes(&bytes));
    }
}
