//! MTU, fragments, ICMP.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use vswitch_api::{MacAddr, PortNo};
use vswitch_datapath::flow::PortClass;
use vswitch_datapath::packet::{Frame, VnetHeader};
use vswitch_datapath::pipeline::TableId;
use vswitch_datapath::{DropReason, Verdict};

use crate::packets::{Host, ip, ping, udp};
use crate::switch::{Pod, TestSwitch};

fn two_pods() -> (TestSwitch, Pod, Pod) {
    let mut switch = TestSwitch::new();
    let (a, b) = (switch.add_pod(1), switch.add_pod(2));
    (switch, a, b)
}

fn small_mtu(switch: &mut TestSwitch, pod: Pod) {
    switch.add_port(pod.port, PortClass::Pod, pod.host.mac, 1_000);
}

#[test]
fn what_is_too_big_for_the_out_port_is_answered_and_dropped() {
    let (mut switch, a, b) = two_pods();
    small_mtu(&mut switch, b);
    let mirror = "mirror:50,goto_table:40";
    switch.rules(&[(TableId::Admin, 5, "in_port=1", mirror)]);
    let fits = udp(a.host, b.host, (1, 2), &[0; 972]);
    let exceeds = udp(a.host, b.host, (1, 2), &[0; 973]);
    // Twice: uncached and cached.
    for _ in 0..2 {
        assert_eq!(
            switch.send(a.port, &exceeds),
            Verdict::Drop(DropReason::MtuExceeded)
        );
        let [(port, error)] = &switch.out.replies[..] else {
            panic!("one ICMP error")
        };
        assert_eq!(*port, a.port);
        assert_eq!(switch.out.copies.len(), 1, "a mirror sees what is dropped");
        let error = error.bytes();
        assert_eq!(&error[..6], a.host.mac.0);
        assert_eq!(
            IpAddr::from(<[u8; 4]>::try_from(&error[30..34]).unwrap()),
            a.host.ip
        );
        assert_eq!(
            &error[34..36],
            [3, 4],
            "destination unreachable, fragmentation needed"
        );
        assert_eq!(&error[40..42], 1_000u16.to_be_bytes());
        assert_eq!(switch.send(a.port, &fits), Verdict::Forward(b.port));
    }
    assert!(switch.dp.cache_stats().hits > 0);
}

#[test]
fn a_super_frame_is_judged_by_its_segments() {
    let (mut switch, a, b) = two_pods();
    small_mtu(&mut switch, b);
    let bytes = udp(a.host, b.host, (1, 2), &[0; 9_000]);
    let vnet = |gso_size| VnetHeader {
        flags: VnetHeader::F_NEEDS_CSUM,
        gso_type: VnetHeader::GSO_UDP_L4,
        hdr_len: 42,
        gso_size,
        csum_start: 34,
        csum_offset: 6,
    };
    for (gso_size, verdict) in [
        (972, Verdict::Forward(b.port)),
        (973, Verdict::Drop(DropReason::MtuExceeded)),
    ] {
        let mut frame = Frame::from_bytes(&bytes);
        frame.vnet = vnet(gso_size);
        let out = &mut switch.out;
        assert_eq!(
            switch.engine.process(a.port, &mut frame, switch.now, out),
            verdict
        );
    }
}

/// Sets identification, flags and offset (in units of 8 bytes) and mends the checksum.
pub(crate) fn fragment(mut bytes: Vec<u8>, more: bool, offset: u16) -> Vec<u8> {
    bytes[18..20].copy_from_slice(&7u16.to_be_bytes());
    bytes[20..22].copy_from_slice(&(u16::from(more) << 13 | offset).to_be_bytes());
    bytes[24..26].fill(0);
    let sum = pnet_packet::util::checksum(&bytes[14..34], 5);
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    bytes
}

#[test]
fn later_fragments_follow_their_first() {
    let (mut switch, a, b) = two_pods();
    switch.ingress_policy("web", 80);
    switch.set("web/pods", &[b]);
    switch.set("web/from", &[a]);
    let first = |port| fragment(udp(a.host, b.host, (5000, port), &[1; 24]), true, 0);
    let later = fragment(ip(a.host, b.host, 17, &[2; 8]), false, 4);
    assert_eq!(
        switch.send(a.port, &first(81)),
        Verdict::Drop(DropReason::PolicyIngress)
    );
    assert_eq!(switch.send(a.port, &first(80)), Verdict::Forward(b.port));
    assert_eq!(switch.send(a.port, &later), Verdict::Forward(b.port));
    assert_eq!(switch.dp.connections(switch.now)[0].packets_original, 2);
}

/// The fragments of one datagram from `a` to `b` at port 80, the first one first.
fn fragments(a: Host, b: Host) -> [Vec<u8>; 3] {
    let datagram = udp(a, b, (5000, 80), &[7; 56]);
    if a.ip.is_ipv4() {
        let part = |from: usize, to: usize, more| {
            let offset = u16::try_from((from - 34) / 8).unwrap();
            fragment(ip(a, b, 17, &datagram[from..to]), more, offset)
        };
        return [part(34, 58, true), part(58, 82, true), part(82, 98, false)];
    }
    // A Fragment header (RFC 8200 section 4.5) behind the IPv6 header.
    let part = |from: usize, to: usize, more: bool| {
        let offset = u16::try_from(from - 54).unwrap() | u16::from(more);
        let header = [&[17, 0][..], &offset.to_be_bytes(), &[0, 0, 0, 7]].concat();
        ip(a, b, 44, &[&header[..], &datagram[from..to]].concat())
    };
    [
        part(54, 78, true),
        part(78, 102, true),
        part(102, 118, false),
    ]
}

fn v6_pods(switch: &mut TestSwitch) -> (Pod, Pod) {
    (
        switch.add_pod_at(21, "fd00::21".parse().unwrap()),
        switch.add_pod_at(22, "fd00::22".parse().unwrap()),
    )
}

#[test]
fn fragments_that_come_before_their_first_follow_it() {
    let (mut switch, a, b) = two_pods();
    let v6 = v6_pods(&mut switch);
    for (a, b) in [(a, b), v6] {
        let [first, second, third] = fragments(a.host, b.host);
        assert_eq!(switch.send(a.port, &third), Verdict::Held);
        assert_eq!(switch.send(a.port, &second), Verdict::Held);
        assert!(switch.out.followers.is_empty());
        assert_eq!(switch.send(a.port, &first), Verdict::Forward(b.port));
        let payload = |frame: &Frame| frame.bytes()[14..].to_vec();
        let followers = std::mem::take(&mut switch.out.followers);
        let sent: Vec<_> = followers
            .iter()
            .map(|(port, f)| (*port, payload(f)))
            .collect();
        assert_eq!(
            sent,
            [
                (b.port, third[14..].to_vec()),
                (b.port, second[14..].to_vec())
            ]
        );
        assert_eq!(followers[0].1.bytes()[..6], b.host.mac.0);
    }
    assert_eq!(switch.drops(), BTreeMap::new());
    let connections = switch.dp.connections(switch.now);
    assert!(
        connections.iter().all(|c| c.packets_original == 3),
        "{connections:?}"
    );
}

#[test]
fn fragments_of_a_datagram_that_is_denied_are_dropped_with_it() {
    let (mut switch, a, b) = two_pods();
    switch.ingress_policy("web", 81);
    switch.set("web/pods", &[b]);
    switch.set("web/from", &[a]);
    let [first, second, third] = fragments(a.host, b.host);
    assert_eq!(switch.send(a.port, &second), Verdict::Held);
    assert_eq!(
        switch.send(a.port, &first),
        Verdict::Drop(DropReason::PolicyIngress)
    );
    assert!(switch.out.followers.is_empty());
    assert_eq!(switch.drops()[&DropReason::FragmentUnknown], 1);
    assert_eq!(switch.send(a.port, &third), Verdict::Held);
    switch.tick(Duration::from_secs(30));
    switch.dp.expire(switch.now);
    assert_eq!(switch.drops()[&DropReason::FragmentUnknown], 2);
    let of_port = switch.dp.port_drops(a.port);
    assert!(
        of_port.contains(&(DropReason::FragmentUnknown, 2)),
        "{of_port:?}"
    );
}

#[test]
fn fragments_of_another_sender_do_not_follow() {
    let (mut switch, a, b) = two_pods();
    let c = switch.add_pod(3);
    let [first, second, _] = fragments(a.host, b.host);
    let [_, foreign, _] = fragments(c.host, b.host);
    let mut forged = second.clone();
    forged[6..12].copy_from_slice(&c.host.mac.0);
    assert_eq!(
        switch.send(c.port, &forged),
        Verdict::Drop(DropReason::Spoofed)
    );
    assert_eq!(switch.send(c.port, &foreign), Verdict::Held);
    assert_eq!(switch.send(a.port, &first), Verdict::Forward(b.port));
    assert!(switch.out.followers.is_empty());
}

#[test]
fn no_pod_can_fill_the_room_of_another() {
    let (mut switch, a, b) = two_pods();
    let [first, second, _] = fragments(a.host, b.host);
    let c = switch.add_pod(3);
    assert_eq!(switch.send(a.port, &second), Verdict::Held);
    for offset in 1..2_000 {
        let flood = fragment(ip(c.host, b.host, 17, &[0; 8]), true, offset);
        assert_eq!(switch.send(c.port, &flood), Verdict::Held);
    }
    assert_eq!(switch.drops()[&DropReason::FragmentNoRoom], 1_999 - 256);
    assert_eq!(switch.send(a.port, &first), Verdict::Forward(b.port));
    assert_eq!(switch.out.followers.len(), 1);
}

#[test]
fn pings_with_different_identifiers_are_different_connections() {
    let (mut switch, a, b) = two_pods();
    for id in [1, 2, 1] {
        assert_eq!(
            switch.send(a.port, &ping(a.host, b.host, id)),
            Verdict::Forward(b.port)
        );
    }
    let mut packets: Vec<_> = switch
        .dp
        .connections(switch.now)
        .iter()
        .map(|c| c.packets_original)
        .collect();
    packets.sort_unstable();
    assert_eq!(packets, [1, 2]);
}

/// Port unreachable (RFC 792) about `about`, an Ethernet frame.
pub(crate) fn unreachable(from: Host, to: Host, about: &[u8]) -> Vec<u8> {
    let mut message = vec![3, 3, 0, 0, 0, 0, 0, 0];
    message.extend(&about[14..]);
    let sum = pnet_packet::util::checksum(&message, 1);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ip(from, to, 1, &message)
}

#[test]
fn an_error_about_an_allowed_connection_reaches_an_isolated_pod_until_policies_deny_it() {
    let (mut switch, a, b) = two_pods();
    switch.ingress_policy("closed", 1);
    switch.set("closed/pods", &[a]);
    switch.egress_policy("open");
    switch.set("open/pods", &[a]);
    switch.set("open/to", &[b]);
    let query = udp(a.host, b.host, (5000, 53), b"x");
    let error = unreachable(b.host, a.host, &query);
    assert_eq!(
        switch.send(b.port, &error),
        Verdict::Drop(DropReason::CtInvalid)
    );
    assert_eq!(switch.send(a.port, &query), Verdict::Forward(b.port));
    assert_eq!(switch.send(b.port, &error), Verdict::Forward(a.port));
    switch.set("open/to", &[]);
    assert_eq!(
        switch.send(b.port, &error),
        Verdict::Drop(DropReason::PolicyEgress)
    );
    assert_eq!(switch.dp.connections(switch.now), []);
}

#[test]
fn a_wrong_checksum_is_refused_before_and_after_the_flow_is_cached() {
    let (mut switch, a, b) = two_pods();
    let good = udp(a.host, b.host, (5000, 53), b"x");
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    let invalid = Verdict::Drop(DropReason::CtInvalid);
    assert_eq!(switch.send(a.port, &bad), invalid);
    for _ in 0..3 {
        assert_eq!(switch.send(a.port, &good), Verdict::Forward(b.port));
        assert_eq!(switch.send(a.port, &bad), invalid);
    }
    assert!(switch.dp.cache_stats().hits >= 2);
}

#[test]
fn an_engine_serves_ports_it_never_saw() {
    let (mut switch, a, _) = two_pods();
    let c = switch.add_pod(3);
    assert_eq!(c.host.mac, MacAddr([2, 0, 0, 0, 0, 3]));
    assert_eq!(
        switch.send(c.port, &ping(c.host, a.host, 1)),
        Verdict::Forward(PortNo(1))
    );
}
