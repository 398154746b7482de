//! What is too large for its port and may be fragmented is.

use vswitch_api::PortNo;
use vswitch_datapath::flow::PortClass;
use vswitch_datapath::packet::{Fragment, Frame, VnetHeader, parse, verify_l4_checksum};
use vswitch_datapath::{DropReason, Verdict};

use crate::packets::udp;
use crate::switch::{Pod, TestSwitch};
use crate::transport::fragment;

const MTU: usize = 1_000;
const MORE: u16 = 0x2000;
const TOO_BIG: Verdict = Verdict::Drop(DropReason::MtuExceeded);

/// Two pods, the second one behind a smaller MTU.
fn two_pods() -> (TestSwitch, Pod, Pod) {
    let mut switch = TestSwitch::new();
    let (a, b) = (switch.add_pod(1), switch.add_pod(2));
    switch.add_port(b.port, PortClass::Pod, b.host.mac, 1_000);
    (switch, a, b)
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

/// A datagram without DF, as `fragment` makes one of it.
fn datagram(a: Pod, b: Pod, len: usize) -> Vec<u8> {
    fragment(udp(a.host, b.host, (5000, 80), &payload(len)), false, 0)
}

/// Puts the header right after a change.
fn mend(bytes: &mut [u8]) {
    let header = usize::from(bytes[14] & 0xf) * 4;
    bytes[24..26].fill(0);
    let sum = pnet_packet::util::checksum(&bytes[14..14 + header], 5);
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// Where a fragment stands (flags and units of 8 bytes), its header's options and its payload.
struct Part {
    field: u16,
    options: Vec<u8>,
    payload: Vec<u8>,
}

/// Reading checks version, lengths and the header's checksum.
#[track_caller]
fn parts(followers: &[(PortNo, Frame)], to: Pod) -> Vec<Part> {
    let read = |(port, frame): &(PortNo, Frame)| {
        assert_eq!(*port, to.port);
        assert_eq!(frame.vnet, VnetHeader::default());
        let bytes = frame.bytes();
        let packet = parse(frame, PortNo(1)).unwrap();
        assert_eq!(packet.l3_end, bytes.len());
        assert!(bytes.len() - 14 <= MTU, "{}", bytes.len());
        assert_eq!(bytes[..6], to.host.mac.0);
        assert_eq!(
            bytes[18..20],
            [0, 7],
            "the identification is the datagram's"
        );
        let header = 14 + usize::from(bytes[14] & 0xf) * 4;
        Part {
            field: u16::from_be_bytes([bytes[20], bytes[21]]),
            options: bytes[34..header].to_vec(),
            payload: bytes[header..].to_vec(),
        }
    };
    followers.iter().map(read).collect()
}

fn fields(parts: &[Part]) -> Vec<u16> {
    parts.iter().map(|part| part.field).collect()
}

fn joined(parts: &[Part]) -> Vec<u8> {
    let payloads = parts.iter().map(|part| part.payload.as_slice());
    payloads.collect::<Vec<_>>().concat()
}

#[test]
fn a_datagram_without_df_arrives_in_fragments_that_fit() {
    let (mut switch, a, b) = two_pods();
    for (len, expected) in [
        (972, vec![]),
        (973, vec![MORE, 122]),
        (1_944, vec![MORE, 122]),
        (1_945, vec![MORE, MORE | 122, 244]),
    ] {
        let sent = datagram(a, b, len);
        // Uncached and cached.
        for _ in 0..2 {
            let verdict = switch.send(a.port, &sent);
            if expected.is_empty() {
                assert_eq!(verdict, Verdict::Forward(b.port));
                continue;
            }
            assert_eq!(verdict, Verdict::InFragments);
            let parts = parts(&switch.out.followers, b);
            assert_eq!(fields(&parts), expected, "{len}");
            assert_eq!(joined(&parts), sent[34..]);
        }
    }
    assert!(switch.dp.cache_stats().hits > 0);
    assert_eq!(switch.drops(), [].into());
    let connection = &switch.dp.connections(switch.now)[0];
    assert_eq!(connection.packets_original, 8, "datagrams, not fragments");
}

#[test]
fn ethernet_padding_is_no_part_of_a_fragment() {
    let (mut switch, a, b) = two_pods();
    let sent = datagram(a, b, 973);
    let padded = [&sent[..], &[0xee; 6]].concat();
    assert_eq!(switch.send(a.port, &padded), Verdict::InFragments);
    assert_eq!(joined(&parts(&switch.out.followers, b)), sent[34..]);
}

#[test]
fn a_fragment_that_is_too_large_keeps_its_place_in_the_datagram() {
    let (mut switch, a, b) = two_pods();
    let whole = datagram(a, b, 2_400);
    let part = |from: usize, to: usize, more| {
        let mut bytes = whole.clone();
        bytes.truncate(34 + to);
        bytes.drain(34..34 + from);
        let total = u16::try_from(20 + to - from).unwrap();
        bytes[16..18].copy_from_slice(&total.to_be_bytes());
        fragment(bytes, more, u16::try_from(from / 8).unwrap())
    };
    assert_eq!(
        switch.send(a.port, &part(0, 1_200, true)),
        Verdict::InFragments
    );
    let mut all = parts(&switch.out.followers, b);
    assert_eq!(fields(&all), [MORE, MORE | 122]);
    assert_eq!(
        switch.send(a.port, &part(1_200, 2_408, false)),
        Verdict::InFragments
    );
    let last = parts(&switch.out.followers, b);
    assert_eq!(fields(&last), [MORE | 150, 272]);
    all.extend(last);
    assert_eq!(joined(&all), whole[34..]);
}

#[test]
fn held_fragments_are_cut_behind_their_first_one() {
    let (mut switch, a, b) = two_pods();
    let whole = datagram(a, b, 2_400);
    let part = |from: usize, to: usize, more| {
        let mut bytes = [&whole[..34], &whole[34 + from..34 + to]].concat();
        let total = u16::try_from(20 + to - from).unwrap();
        bytes[16..18].copy_from_slice(&total.to_be_bytes());
        fragment(bytes, more, u16::try_from(from / 8).unwrap())
    };
    assert_eq!(
        switch.send(a.port, &part(1_200, 2_408, false)),
        Verdict::Held
    );
    assert_eq!(
        switch.send(a.port, &part(0, 1_200, true)),
        Verdict::InFragments
    );
    let parts = parts(&switch.out.followers, b);
    assert_eq!(fields(&parts), [MORE, MORE | 122, MORE | 150, 272]);
    assert_eq!(joined(&parts), whole[34..]);
}

#[test]
fn options_are_in_every_fragment_or_in_the_first_one_only_as_they_say() {
    // Record route (7) is not copied, a security option (130) is, no-operations are in between.
    let options = [7, 7, 4, 0, 0, 0, 0, 1, 130, 3, 9, 0];
    let later = [1, 1, 1, 1, 1, 1, 1, 1, 130, 3, 9, 1];
    // A length of nothing, and one beyond the header.
    let broken = [130, 0, 9, 9, 130, 3, 9, 0, 0, 0, 0, 0];
    let beyond = [130, 3, 9, 1, 131, 40, 9, 9, 9, 9, 9, 9];
    let mut beyond_later = beyond;
    beyond_later[3..].fill(1);
    for (options, expected) in [(options, later), (broken, [1; 12]), (beyond, beyond_later)] {
        let (mut switch, a, b) = two_pods();
        let plain = datagram(a, b, 1_400);
        let mut sent = [&plain[..34], &options, &plain[34..]].concat();
        sent[14] = 0x48;
        let total = u16::try_from(sent.len() - 14).unwrap();
        sent[16..18].copy_from_slice(&total.to_be_bytes());
        mend(&mut sent);
        assert_eq!(switch.send(a.port, &sent), Verdict::InFragments);
        let parts = parts(&switch.out.followers, b);
        assert_eq!(fields(&parts), [MORE, 121]);
        assert_eq!(parts[0].options, options);
        assert_eq!(parts[1].options, expected);
        assert_eq!(joined(&parts), plain[34..]);
    }
}

#[test]
fn a_super_frame_becomes_the_fragments_of_its_segments() {
    let (mut switch, a, b) = two_pods();
    let mut frame = Frame::from_bytes(&datagram(a, b, 3_000));
    frame.vnet = VnetHeader {
        flags: VnetHeader::F_NEEDS_CSUM,
        gso_type: VnetHeader::GSO_UDP_L4,
        hdr_len: 42,
        gso_size: 1_200,
        csum_start: 34,
        csum_offset: 6,
    };
    let (now, out) = (switch.now, &mut switch.out);
    let verdict = switch.engine.process(a.port, &mut frame, now, out);
    assert_eq!(verdict, Verdict::InFragments);
    let fields: Vec<u16> = out
        .followers
        .iter()
        .map(|(_, frame)| u16::from_be_bytes([frame.bytes()[20], frame.bytes()[21]]))
        .collect();
    assert_eq!(fields, [MORE, 122, MORE, 122, 0]);
    // Put together, each segment has a right checksum.
    for (first, second) in [(0, 1), (2, 3)] {
        let [first, second] = [first, second].map(|nth: usize| out.followers[nth].1.bytes());
        let mut whole = fragment([first, &second[34..]].concat(), false, 0);
        let total = u16::try_from(whole.len() - 14).unwrap();
        whole[16..18].copy_from_slice(&total.to_be_bytes());
        mend(&mut whole);
        let whole = Frame::from_bytes(&whole);
        let packet = parse(&whole, PortNo(1)).unwrap();
        assert_eq!(packet.fragment, Fragment::No);
        assert!(verify_l4_checksum(&whole, &packet));
    }
}

#[test]
fn what_must_not_be_fragmented_is_not() {
    let (mut switch, a, b) = two_pods();
    let mut with_df = datagram(a, b, 1_400);
    with_df[20] |= 0x40;
    mend(&mut with_df);
    for _ in 0..2 {
        assert_eq!(switch.send(a.port, &with_df), TOO_BIG);
        assert_eq!(switch.out.replies.len(), 1);
        assert_eq!(switch.out.followers.len(), 0);
    }
    let six = |n: u8| format!("fd00::{n}").parse().unwrap();
    let (c, d) = (switch.add_pod_at(3, six(3)), switch.add_pod_at(4, six(4)));
    switch.add_port(d.port, PortClass::Pod, d.host.mac, 1_280);
    let v6 = udp(c.host, d.host, (5000, 80), &payload(1_400));
    for _ in 0..2 {
        assert_eq!(switch.send(c.port, &v6), TOO_BIG);
        assert_eq!(switch.out.replies.len(), 1);
        assert_eq!(switch.out.followers.len(), 0);
    }
}

#[test]
fn an_mtu_without_room_for_a_fragment_takes_nothing() {
    let (mut switch, a, b) = two_pods();
    switch.add_port(b.port, PortClass::Pod, b.host.mac, 27);
    assert_eq!(switch.send(a.port, &datagram(a, b, 100)), TOO_BIG);
    assert_eq!(switch.out.followers.len(), 0);
    switch.add_port(b.port, PortClass::Pod, b.host.mac, 28);
    let sent = datagram(a, b, 100);
    assert_eq!(switch.send(a.port, &sent), Verdict::InFragments);
    assert_eq!(joined(&parts(&switch.out.followers, b)), sent[34..]);
}
