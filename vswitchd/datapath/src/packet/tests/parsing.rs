//! What each valid format becomes in the flow key.

use super::frames::*;
use crate::flow::{ether_type, ip_proto};
use crate::packet::{Fragment, tcp_flags};

#[test]
fn tcp_over_ipv4_yields_addresses_ports_and_segment() {
    let frame = valid("tcp4");
    let packet = parse_bytes(&frame).unwrap();
    let key = packet.key;
    assert_eq!((key.eth_src, key.eth_dst), (SRC_MAC, DST_MAC));
    assert_eq!((key.eth_type, key.vlan_tci), (ether_type::IPV4, 0));
    assert_eq!(
        (key.ip_proto, key.ip_tos, key.ip_ttl),
        (ip_proto::TCP, 0x2a, 61)
    );
    assert_eq!(
        (key.ip_src, key.ip_dst),
        (Some(SRC4.into()), Some(DST4.into()))
    );
    assert_eq!((key.tp_src, key.tp_dst), (SRC_PORT, DST_PORT));
    assert_eq!(
        (packet.l3_offset, packet.l4_offset, packet.l3_end),
        (14, 34, frame.len())
    );
    assert_eq!(key.in_port, vswitch_api::PortNo(7));
    let tcp = packet.tcp.unwrap();
    assert_eq!(
        (tcp.seq, tcp.ack, tcp.window),
        (0xffff_fff0, 0x0102_0304, 0xfaf0)
    );
    assert_eq!((tcp.flags, tcp.payload_len), (tcp_flags::ACK, 5));
    assert!(packet.dont_fragment);
}

#[test]
fn options_of_a_syn_are_read() {
    let tcp = parse_bytes(&valid("tcp4 syn")).unwrap().tcp.unwrap();
    assert_eq!((tcp.window_scale, tcp.sack_permitted), (Some(7), true));
}

#[test]
fn a_window_scale_past_14_counts_as_14() {
    let syn = tcp(tcp_flags::SYN, &[3, 3, 200, 0], &[]);
    let tcp = parse_bytes(&ipv4(ip_proto::TCP, &syn))
        .unwrap()
        .tcp
        .unwrap();
    assert_eq!(tcp.window_scale, Some(14));
}

#[test]
fn the_right_edge_is_the_furthest_block_across_the_wrap() {
    let mut options = vec![1, 1, 5, 18];
    for edge in [1u32, 10, 0xffff_ff00, 0xffff_ff80] {
        options.extend(edge.to_be_bytes());
    }
    let ack = tcp(tcp_flags::ACK, &options, &[]);
    let tcp = parse_bytes(&ipv4(ip_proto::TCP, &ack))
        .unwrap()
        .tcp
        .unwrap();
    assert_eq!(tcp.sack_right_edge, Some(10));
}

#[test]
fn a_broken_tcp_option_ends_the_options_and_not_the_segment() {
    let syn = tcp(tcp_flags::SYN, &[8, 0, 3, 3], &[]);
    let tcp = parse_bytes(&ipv4(ip_proto::TCP, &syn))
        .unwrap()
        .tcp
        .unwrap();
    assert_eq!(tcp.window_scale, None);
}

#[test]
fn ethernet_padding_is_not_part_of_the_packet() {
    let mut frame = valid("udp4");
    let len = frame.len();
    frame.extend([0xee; 13]);
    let packet = parse_bytes(&frame).unwrap();
    assert_eq!(packet.l3_end, len);
    assert!(crate::packet::verify_l4_checksum(
        &crate::packet::Frame::from_bytes(&frame),
        &packet
    ));
}

#[test]
fn ipv4_options_move_the_transport_header() {
    let packet = parse_bytes(&valid("options4")).unwrap();
    assert_eq!((packet.l4_offset, packet.key.tp_dst), (14 + 24, DST_PORT));
}

#[test]
fn the_outermost_vlan_tag_stands_in_the_key() {
    let packet = parse_bytes(&valid("vlan")).unwrap();
    assert_eq!((packet.key.vlan_tci, packet.l3_offset), (0x3064, 18));
    let packet = parse_bytes(&valid("qinq")).unwrap();
    assert_eq!((packet.key.vlan_tci, packet.l3_offset), (0x1005, 22));
    assert_eq!(packet.key.eth_type, ether_type::IPV6);
}

#[test]
fn behind_a_third_vlan_tag_nothing_is_read() {
    let tags = [
        (ether_type::QINQ, 1),
        (ether_type::VLAN, 2),
        (ether_type::VLAN, 3),
    ];
    let packet = parse_bytes(&ethernet(&tags, ether_type::IPV4, &[0xff; 4])).unwrap();
    assert_eq!(
        (packet.key.eth_type, packet.key.ip_src),
        (ether_type::VLAN, None)
    );
}

#[test]
fn an_unknown_ether_type_is_left_to_the_pipeline() {
    assert_eq!(parse_bytes(&valid("lldp")).unwrap().key.eth_type, 0x88cc);
    let llc = ethernet(&[], 38, &[0x42; 38]);
    assert_eq!(parse_bytes(&llc).unwrap().key.eth_type, 0x05ff);
}

#[test]
fn arp_reuses_the_ip_fields() {
    let packet = parse_bytes(&valid("arp")).unwrap();
    let key = packet.key;
    assert_eq!((key.ip_proto, key.arp_sha), (1, SRC_MAC));
    assert_eq!(
        (key.ip_src, key.ip_dst),
        (Some(SRC4.into()), Some(DST4.into()))
    );
    assert_eq!(packet.l3_end, 14 + 28);
}

#[test]
fn extension_headers_are_walked_to_the_transport_header() {
    let packet = parse_bytes(&valid("extensions6")).unwrap();
    assert_eq!(
        (packet.key.ip_proto, packet.l4_offset),
        (ip_proto::UDP, 14 + 40 + 16)
    );
    assert_eq!((packet.key.tp_src, packet.key.tp_dst), (SRC_PORT, DST_PORT));
    assert_eq!((packet.key.ip_tos, packet.key.ip_ttl), (0x2a, 61));
}

#[test]
fn an_authentication_header_counts_in_words() {
    // RFC 4302: payload length 4 is six words.
    let ah = [vec![ip_proto::UDP, 4], vec![0; 22], udp(b"x")].concat();
    let packet = parse_bytes(&ipv6(51, &ah)).unwrap();
    assert_eq!(
        (packet.key.ip_proto, packet.key.tp_dst),
        (ip_proto::UDP, DST_PORT)
    );
}

#[test]
fn esp_and_no_next_header_end_the_walk() {
    let packet = parse_bytes(&valid("esp6")).unwrap();
    assert_eq!(
        (packet.key.ip_proto, packet.l4_offset, packet.key.tp_src),
        (50, 54, 0)
    );
    let packet = parse_bytes(&ipv6(59, &[1, 2, 3])).unwrap();
    assert_eq!((packet.key.ip_proto, packet.l4_offset), (59, packet.l3_end));
}

#[test]
fn a_first_fragment_has_ports_and_a_later_one_has_none() {
    for (name, id) in [("first4", 0x1234), ("first6", 0xcafe_f00d)] {
        let packet = parse_bytes(&valid(name)).unwrap();
        assert_eq!(packet.fragment, Fragment::First { id }, "{name}");
        assert_eq!(packet.key.tp_dst, DST_PORT, "{name}");
        assert!(!packet.key.is_later_fragment, "{name}");
    }
    for (name, id) in [("later4", 0x1234), ("later6", 0xcafe_f00d)] {
        let packet = parse_bytes(&valid(name)).unwrap();
        assert_eq!(packet.fragment, Fragment::Later { id }, "{name}");
        assert_eq!((packet.key.tp_src, packet.key.tp_dst), (0, 0), "{name}");
        assert_eq!(packet.l4_offset, packet.l3_end, "{name}");
        assert!(packet.key.is_later_fragment, "{name}");
    }
}

#[test]
fn an_atomic_fragment_is_a_whole_packet() {
    let payload = [fragment_header(ip_proto::UDP, 0, false), udp(b"x")].concat();
    let packet = parse_bytes(&ipv6(44, &payload)).unwrap();
    assert_eq!(
        (packet.fragment, packet.key.tp_dst),
        (Fragment::No, DST_PORT)
    );
}

#[test]
fn echoes_have_their_type_and_identifier() {
    for (name, kind) in [("icmp echo", 8), ("icmp6 echo", 128)] {
        let packet = parse_bytes(&valid(name)).unwrap();
        assert_eq!((packet.key.tp_src, packet.key.tp_dst), (kind, 0), "{name}");
        assert_eq!(packet.icmp_echo_id, Some(0xabcd), "{name}");
        assert_eq!(packet.icmp_quote, None, "{name}");
    }
}

#[test]
fn icmp_errors_quote_the_packet_that_caused_them() {
    let quote = parse_bytes(&valid("icmp error"))
        .unwrap()
        .icmp_quote
        .unwrap();
    assert_eq!((quote.src, quote.dst), (SRC4.into(), DST4.into()));
    assert_eq!(
        (quote.proto, quote.tp_src, quote.tp_dst),
        (ip_proto::UDP, SRC_PORT, DST_PORT)
    );
    assert_eq!(quote.offset, 14 + 20 + 8);
    let quote = parse_bytes(&valid("icmp6 error"))
        .unwrap()
        .icmp_quote
        .unwrap();
    assert_eq!((quote.src, quote.dst), (SRC6.into(), DST6.into()));
    assert_eq!(
        (quote.proto, quote.tp_src, quote.tp_dst),
        (ip_proto::TCP, SRC_PORT, DST_PORT)
    );
    assert_eq!(quote.offset, 14 + 40 + 8);
}

#[test]
fn a_quoted_echo_has_its_identifier_twice() {
    let echo = ipv4_with(&[], 0, ip_proto::ICMP, &icmp(8, 0, [0xab, 0xcd, 0, 1], &[]));
    let error = ipv4(ip_proto::ICMP, &icmp(11, 0, [0; 4], &echo));
    let quote = parse_bytes(&error).unwrap().icmp_quote.unwrap();
    assert_eq!(
        (quote.proto, quote.tp_src, quote.tp_dst),
        (ip_proto::ICMP, 0xabcd, 0xabcd)
    );
}

#[test]
fn neighbour_messages_have_target_and_link_layer_address() {
    for (name, target) in [("ns", DST6), ("na", SRC6)] {
        let key = parse_bytes(&valid(name)).unwrap().key;
        assert_eq!(
            (key.nd_target, key.arp_sha),
            (Some(target), SRC_MAC),
            "{name}"
        );
    }
}

#[test]
fn sctp_has_its_tag_and_first_chunk() {
    let packet = parse_bytes(&valid("sctp4")).unwrap();
    assert_eq!(packet.sctp, Some((0xdead_beef, 1)));
    assert_eq!((packet.key.tp_src, packet.key.tp_dst), (SRC_PORT, DST_PORT));
}

#[test]
fn port_zero_is_a_port() {
    let mut datagram = udp(b"x");
    datagram[..4].fill(0);
    let frame = ipv4(ip_proto::UDP, &seal4(ip_proto::UDP, datagram, 6));
    assert_eq!(parse_bytes(&frame).unwrap().key.tp_dst, 0);
}
