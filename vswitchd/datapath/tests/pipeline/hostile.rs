//! Bytes that no honest stack sends.

use proptest::prelude::*;
use vswitch_datapath::Verdict;
use vswitch_datapath::packet::{Frame, VnetHeader};

use crate::packets::{ACK, Segment, arp, ping, tcp, udp};
use crate::switch::TestSwitch;

/// Frames that get far into the pipeline unless they are damaged.
fn seeds(switch: &mut TestSwitch) -> Vec<Vec<u8>> {
    let (a, b) = (switch.add_pod(1).host, switch.add_pod(2).host);
    let segment = Segment {
        ports: (5000, 80),
        flags: ACK,
        seq: 1,
        ack: 1,
    };
    vec![
        udp(a, b, (5000, 53), b"payload"),
        tcp(a, b, segment),
        ping(a, b, 1),
        arp(a, 1, std::net::Ipv4Addr::new(10, 0, 0, 2)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn damaged_frames_end_in_a_verdict_that_is_counted(
        seed in 0usize..4,
        damage in proptest::collection::vec((0usize..64, any::<u8>()), 0..6),
        cut in 0usize..64,
        vnet in any::<[u8; 10]>(),
        has_vnet in any::<bool>(),
    ) {
        let mut switch = TestSwitch::new();
        let mut bytes = seeds(&mut switch).swap_remove(seed);
        for (at, byte) in damage {
            if let Some(there) = bytes.get_mut(at) {
                *there = byte;
            }
        }
        bytes.truncate(bytes.len().saturating_sub(cut / 4));
        let mut frame = Frame::from_bytes(&bytes);
        if has_vnet {
            frame.vnet = VnetHeader::parse(&vnet);
        }
        let port = vswitch_api::PortNo(1);
        let verdict = switch.engine.process(port, &mut frame, switch.now, &mut switch.out);
        let drops: u64 = switch.drops().values().sum();
        prop_assert_eq!(drops, u64::from(matches!(verdict, Verdict::Drop(_))));
        prop_assert_eq!(switch.out.replies.is_empty(), verdict != Verdict::Answered);
        prop_assert!(switch.dp.connections(switch.now).len() <= 1);
    }
}
