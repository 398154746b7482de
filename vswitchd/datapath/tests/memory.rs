//! What a connection takes: itself, its place in the table, its alias and the index.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[expect(
    dead_code,
    reason = "shared with the test of the hit path, which counts allocations"
)]
mod allocator;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use allocator::{Counting, held};
use vswitch_api::{MacAddr, PortNo};
use vswitch_datapath::Timestamp;
use vswitch_datapath::conntrack::{CommitOptions, ConnTable, ConntrackConfig};
use vswitch_datapath::flow::{FlowKey, ether_type, ip_proto};
use vswitch_datapath::packet::{Fragment, ParsedPacket, TcpSegment, tcp_flags};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CONNECTIONS: u32 = 100_000;

/// The SYN of a connection of its own.
fn syn(number: u32, addresses: fn(u32) -> (IpAddr, IpAddr)) -> ParsedPacket {
    let (src, dst) = addresses(number);
    let key = FlowKey {
        in_port: PortNo(2),
        eth_src: MacAddr([2, 0, 0, 0, 0, 2]),
        eth_type: if src.is_ipv4() {
            ether_type::IPV4
        } else {
            ether_type::IPV6
        },
        ip_proto: ip_proto::TCP,
        ip_src: Some(src),
        ip_dst: Some(dst),
        tp_src: 40_000,
        tp_dst: 80,
        ..FlowKey::default()
    };
    let tcp = TcpSegment {
        flags: tcp_flags::SYN,
        window: 0xffff,
        window_scale: Some(7),
        ..TcpSegment::default()
    };
    ParsedPacket {
        key,
        l3_offset: 14,
        l4_offset: 34,
        l3_end: 54,
        fragment: Fragment::No,
        tcp: Some(tcp),
        sctp: None,
        icmp_echo_id: None,
        icmp_quote: None,
        dont_fragment: true,
    }
}

fn ipv4(number: u32) -> (IpAddr, IpAddr) {
    let dst = Ipv4Addr::new(10, 0, 0, 1);
    (Ipv4Addr::from_bits(0x0b00_0000 + number).into(), dst.into())
}

fn ipv6(number: u32) -> (IpAddr, IpAddr) {
    let at = |number: u32| Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(number));
    (at(number + 2).into(), at(1).into())
}

/// Returns the bytes of each connection in a table of so many.
fn bytes_each(addresses: fn(u32) -> (IpAddr, IpAddr), endpoint: Option<IpAddr>) -> i64 {
    let table = ConnTable::new(ConntrackConfig {
        max_entries: 1 << 20,
        ..ConntrackConfig::default()
    });
    let options = CommitOptions {
        midstream_pickup: false,
        swapped: false,
        in_port: PortNo(2),
        out_port: PortNo(3),
    };
    let before = held();
    for number in 0..CONNECTIONS {
        let packet = syn(number, addresses);
        let leaves_as = FlowKey {
            ip_dst: endpoint.or(packet.key.ip_dst),
            ..packet.key
        };
        table
            .commit(&packet, &leaves_as, Timestamp::default(), options)
            .unwrap();
    }
    assert_eq!(table.stats().entries, CONNECTIONS as usize);
    (held() - before) / i64::from(CONNECTIONS)
}

#[test]
fn a_connection_takes_no_more_than_256_bytes() {
    let bytes = bytes_each(ipv4, None);
    println!("TCP over IPv4: {bytes} bytes a connection");
    assert!(bytes <= 256, "{bytes}");
}

#[test]
fn a_million_connections_to_services_take_no_more_than_300_mb() {
    let bytes = bytes_each(ipv4, Some(Ipv4Addr::new(10, 9, 0, 1).into()));
    println!("TCP over IPv4 to a Service: {bytes} bytes a connection");
    assert!(bytes <= 300, "{bytes}");
}

#[test]
fn a_million_connections_of_ipv6_take_no_more_than_300_mb() {
    let bytes = bytes_each(ipv6, None);
    println!("TCP over IPv6: {bytes} bytes a connection");
    assert!(bytes <= 300, "{bytes}");
}
