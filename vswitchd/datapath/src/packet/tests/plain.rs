//! Plain packets: what is read in one pass is what [`parse`] says of the same frame.

use proptest::prelude::*;
use vswitch_api::PortNo;

use super::frames::*;
use super::hostile::{any_vnet, mutated_frame};
use crate::cache::CacheKey;
use crate::flow::ip_proto;
use crate::packet::{
    Frame, PlainPacket, VnetHeader, offload, parse, tcp_flags, verify_l4_checksum,
};

const IN_PORT: PortNo = PortNo(7);
const VOUCHED: VnetHeader = VnetHeader {
    flags: VnetHeader::F_DATA_VALID,
    gso_type: VnetHeader::GSO_NONE,
    hdr_len: 0,
    gso_size: 0,
    csum_start: 0,
    csum_offset: 0,
};

fn read(frame: &Frame) -> Option<PlainPacket<'_>> {
    PlainPacket::read_ipv4(frame).or_else(|| PlainPacket::read_ipv6(frame))
}

/// Panics if the frame is plain and `parse` says anything else of it.
fn compare(frame: &Frame) {
    let Some(plain) = read(frame) else { return };
    let parsed = parse(frame, IN_PORT).expect("a plain packet is well-formed");
    let key = CacheKey::of(&parsed).expect("a plain packet is cacheable");
    assert_eq!(CacheKey::of_plain(&plain, IN_PORT), key);
    assert_eq!(plain.l3_len, parsed.l3_end - parsed.l3_offset);
    assert_eq!(
        plain.segment_l3_len,
        offload::segment_l3_len(frame, &parsed)
    );
    assert_eq!(plain.tcp_segment(), parsed.tcp);
    assert!(verify_l4_checksum(frame, &parsed));
}

fn is_plain(bytes: &[u8], vnet: VnetHeader) -> bool {
    let frame = frame_with(bytes, vnet);
    compare(&frame);
    read(&frame).is_some()
}

#[test]
fn whole_tcp_and_udp_without_options_is_plain() {
    for name in ["tcp4", "udp4", "tcp6", "udp6"] {
        assert!(is_plain(&valid(name), VOUCHED), "{name}");
    }
    for name in valid_frames().iter().map(|(name, _)| *name) {
        let is_simple = ["tcp4", "udp4", "tcp6", "udp6"].contains(&name);
        assert_eq!(is_plain(&valid(name), VOUCHED), is_simple, "{name}");
    }
}

#[test]
fn of_options_only_timestamps_are_plain() {
    let timestamps = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    let sack = [1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    let with = |options: &[u8]| {
        let segment = seal4(ip_proto::TCP, tcp(tcp_flags::ACK, options, b"x"), 16);
        is_plain(&ipv4(ip_proto::TCP, &segment), VOUCHED)
    };
    assert!(with(&timestamps));
    assert!(!with(&sack));
    assert!(!with(&[timestamps, timestamps].concat()));
}

#[test]
fn nothing_is_plain_whose_checksum_nobody_vouches_for() {
    assert!(!is_plain(&valid("tcp4"), VnetHeader::default()));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 8_000, ..Default::default() })]

    #[test]
    fn what_is_plain_is_what_parse_says(bytes in mutated_frame(), vnet in any_vnet(), vouched: bool) {
        compare(&frame_with(&bytes, if vouched { VOUCHED } else { vnet }));
    }
}
