//! Hostile frames on a pod port.

use std::net::Ipv4Addr;

use serde_json::Value;
use vswitch_tests::{Daemon, DaemonOptions, Pod, RawSocket, eventually};

const FRAMES: u64 = 20_000;

/// Numbers that look random and are the same in every run (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }
}

/// Addresses of the sender, as the switch knows them, and of the receiver.
struct Ends {
    mac: [u8; 6],
    src: Ipv4Addr,
    dst: Ipv4Addr,
}

fn ethernet(ends: &Ends, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame[0] = 0x02;
    frame.extend(ends.mac);
    frame.extend(ether_type.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A valid IPv4 header, checksum included, around a payload.
fn ipv4(ends: &Ends, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend(u16::try_from(20 + payload.len()).unwrap().to_be_bytes());
    header.extend([0, 1]);
    header.extend(fragment.to_be_bytes());
    header.extend([64, protocol, 0, 0]);
    header.extend(ends.src.octets());
    header.extend(ends.dst.octets());
    let sum = header.chunks(2).fold(0u32, |sum, b| {
        sum + u32::from(u16::from_be_bytes([b[0], b[1]]))
    });
    let folded = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    header[10..12].copy_from_slice(&(!folded).to_be_bytes());
    header.extend(payload);
    header
}

fn ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet.extend([next_header, 255]);
    let mut address = [0u8; 16];
    address[0] = 0xfe;
    address[1] = 0x80;
    address[15] = 1;
    packet.extend(address);
    address[15] = 2;
    packet.extend(address);
    packet.extend(payload);
    packet
}

/// Makes a malformed frame: one that no receiver should forward.
type MakeFrame = fn(&Ends, &mut Numbers) -> Vec<u8>;

/// Kinds of malformation.
const KINDS: &[(&str, MakeFrame)] = &[
    ("ipv4 cut inside its header", |ends, n| {
        let packet = ipv4(ends, 6, 0, &[0; 20]);
        ethernet(ends, 0x0800, &packet[..n.below(20)])
    }),
    ("ipv4 of version 5", |ends, _| {
        let mut packet = ipv4(ends, 6, 0, &[0; 20]);
        packet[0] = 0x55;
        ethernet(ends, 0x0800, &packet)
    }),
    ("ipv4 header length below five words", |ends, n| {
        let mut packet = ipv4(ends, 6, 0, &[0; 20]);
        packet[0] = 0x40 | u8::try_from(n.below(5)).unwrap();
        ethernet(ends, 0x0800, &packet)
    }),
    ("ipv4 longer than its frame", |ends, n| {
        let mut packet = ipv4(ends, 17, 0, &[0; 8]);
        packet[2] = 1 + u8::try_from(n.below(250)).unwrap();
        ethernet(ends, 0x0800, &packet)
    }),
    ("ipv4 with a wrong checksum", |ends, n| {
        let mut packet = ipv4(ends, 17, 0, &[0; 8]);
        packet[10] ^= 1 << n.below(8);
        ethernet(ends, 0x0800, &packet)
    }),
    ("tcp cut inside its header", |ends, n| {
        ethernet(ends, 0x0800, &ipv4(ends, 6, 0, &vec![0x50; n.below(20)]))
    }),
    ("tcp data offset beyond the packet", |ends, _| {
        let mut tcp = [0u8; 20];
        tcp[12] = 0xf0;
        ethernet(ends, 0x0800, &ipv4(ends, 6, 0, &tcp))
    }),
    ("tcp data offset below five words", |ends, n| {
        let mut tcp = [0u8; 20];
        tcp[12] = u8::try_from(n.below(5)).unwrap() << 4;
        ethernet(ends, 0x0800, &ipv4(ends, 6, 0, &tcp))
    }),
    ("tcp with SYN and FIN", |ends, n| {
        let mut tcp = [0u8; 20];
        tcp[..2].copy_from_slice(&u16::try_from(1024 + n.below(60000)).unwrap().to_be_bytes());
        tcp[3] = 80;
        tcp[12] = 0x50;
        tcp[13] = 0x03;
        ethernet(ends, 0x0800, &ipv4(ends, 6, 0, &tcp))
    }),
    ("udp cut inside its header", |ends, n| {
        ethernet(ends, 0x0800, &ipv4(ends, 17, 0, &vec![0; n.below(8)]))
    }),
    ("udp length below eight", |ends, n| {
        let mut udp = [0u8; 8];
        udp[5] = u8::try_from(1 + n.below(7)).unwrap();
        ethernet(ends, 0x0800, &ipv4(ends, 17, 0, &udp))
    }),
    ("udp longer than its packet", |ends, _| {
        let mut udp = [0u8; 8];
        udp[4] = 0x10;
        ethernet(ends, 0x0800, &ipv4(ends, 17, 0, &udp))
    }),
    ("icmp cut inside its header", |ends, n| {
        ethernet(ends, 0x0800, &ipv4(ends, 1, 0, &vec![8; n.below(4)]))
    }),
    ("icmp error about an unknown connection", |ends, n| {
        let mut icmp = vec![3, 1, 0, 0, 0, 0, 0, 0];
        let port = u16::try_from(n.below(65536)).unwrap().to_be_bytes();
        icmp.extend(ipv4(ends, 17, 0, &[port[0], port[1], 0, 53, 0, 8, 0, 0]));
        ethernet(ends, 0x0800, &ipv4(ends, 1, 0, &icmp))
    }),
    ("tiny first fragment", |ends, n| {
        ethernet(
            ends,
            0x0800,
            &ipv4(ends, 6, 0x2000, &vec![0; 8 * (1 + n.below(1))]),
        )
    }),
    ("fragment that overlaps the tcp header", |ends, _| {
        ethernet(ends, 0x0800, &ipv4(ends, 6, 0x0001, &[0; 16]))
    }),
    ("later fragment without a first", |ends, n| {
        let offset = 100 + u16::try_from(n.below(1000)).unwrap();
        ethernet(ends, 0x0800, &ipv4(ends, 17, offset, &[0; 16]))
    }),
    ("sctp cut inside its header", |ends, n| {
        ethernet(ends, 0x0800, &ipv4(ends, 132, 0, &vec![0; n.below(12)]))
    }),
    ("arp cut short", |ends, n| {
        let arp = [
            0, 1, 8, 0, 6, 4, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        ethernet(ends, 0x0806, &arp[..n.below(28)])
    }),
    ("arp of another hardware", |ends, n| {
        let mut arp = [0u8; 28];
        arp[..8].copy_from_slice(&[0, 6, 8, 0, 6, 4, 0, 1]);
        arp[27] = u8::try_from(n.below(256)).unwrap();
        ethernet(ends, 0x0806, &arp)
    }),
    ("ipv6 cut inside its header", |ends, n| {
        ethernet(ends, 0x86dd, &ipv6(59, &[])[..n.below(40)])
    }),
    ("ipv6 extension headers without end", |ends, n| {
        let mut chain = Vec::new();
        for _ in 0..9 + n.below(20) {
            chain.extend([0u8, 0, 1, 4, 0, 0, 0, 0]);
        }
        ethernet(ends, 0x86dd, &ipv6(0, &chain))
    }),
    ("ipv6 extension header beyond the packet", |ends, n| {
        let length = u8::try_from(2 + n.below(250)).unwrap();
        ethernet(ends, 0x86dd, &ipv6(60, &[6, length, 0, 0, 0, 0, 0, 0]))
    }),
    (
        "neighbour solicitation with an option of length zero",
        |ends, _| {
            let mut nd = vec![135u8, 0, 0, 0, 0, 0, 0, 0];
            nd.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
            nd.extend([1, 0, 0, 0, 0, 0, 0, 0]);
            ethernet(ends, 0x86dd, &ipv6(58, &nd))
        },
    ),
    ("unknown EtherType", |ends, n| {
        ethernet(ends, 0x88b5, &vec![0xa5; 1 + n.below(1000)])
    }),
    // The kernel itself takes out the tag and refuses one with less than two bytes behind.
    ("vlan tag with a cut packet behind", |ends, n| {
        let mut tagged = vec![0, 7, 0x08, 0x00];
        tagged.extend(&ipv4(ends, 17, 0, &[0; 8])[..2 + n.below(18)]);
        ethernet(ends, 0x8100, &tagged)
    }),
    ("length instead of an EtherType", |ends, n| {
        ethernet(ends, u16::try_from(n.below(0x600)).unwrap(), &[0x42; 60])
    }),
    ("noise", |ends, n| {
        let noise: Vec<u8> = (0..n.below(200))
            .map(|_| n.next().to_be_bytes()[0])
            .collect();
        let mut frame = ethernet(ends, 0x0800, &noise);
        // Anything but a version 4 header of five words: noise must not be valid by chance.
        if let Some(first) = frame.get_mut(14) {
            *first |= 0xf0;
        }
        frame
    }),
];

fn port_of(daemon: &Daemon, pod: &str) -> Value {
    let ports = daemon.vsctl_json(&["dump-ports"]).unwrap();
    ports
        .as_array()
        .unwrap()
        .iter()
        .find(|port| port["pod"] == pod)
        .unwrap()
        .clone()
}

fn received_and_dropped(port: &Value) -> (u64, u64) {
    let drops = port["drops"]
        .as_object()
        .unwrap()
        .values()
        .map(|n| n.as_u64().unwrap())
        .sum();
    (port["counters"]["rx_packets"].as_u64().unwrap(), drops)
}

#[test]
fn twenty_thousand_malformed_frames_are_counted_one_by_one_and_harm_nobody() {
    let options = DaemonOptions {
        // Fragments whose first one never comes are held for so long, then counted.
        extra: "[conntrack]\nfrag_timeout = 1\n".to_owned(),
        ..DaemonOptions::default()
    };
    let daemon = Daemon::start(&options).unwrap();
    let attacker = Pod::named("attacker").attach(&daemon).unwrap();
    let neighbour = Pod::named("neighbour").attach(&daemon).unwrap();
    let bystander = Pod::named("bystander").attach(&daemon).unwrap();
    let std::net::IpAddr::V4(src) = attacker.ip() else {
        panic!("IPv4")
    };
    let std::net::IpAddr::V4(dst) = neighbour.ip() else {
        panic!("IPv4")
    };
    let mac: vswitch_api::MacAddr = port_of(&daemon, "default/attacker")["mac"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let ends = Ends {
        mac: mac.0,
        src,
        dst,
    };

    let (rx_before, dropped_before) = received_and_dropped(&port_of(&daemon, "default/attacker"));
    let socket = RawSocket::open(&attacker.netns, "eth0").unwrap();
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for number in 0..FRAMES {
        let (kind, make) = KINDS[usize::try_from(number).unwrap() % KINDS.len()];
        let frame = make(&ends, &mut numbers);
        while let Err(error) = socket.send(&frame) {
            // The sender's own queue was full for a moment.
            assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS), "{kind}: {error}");
        }
        if number % 500 == 499 {
            let wanted = rx_before + number + 1;
            eventually("the switch keeps up", || {
                let (rx, _) = received_and_dropped(&port_of(&daemon, "default/attacker"));
                if rx >= wanted {
                    Ok(())
                } else {
                    Err(format!("{rx} of {wanted}"))
                }
            });
        }
    }

    eventually("every frame is counted as received and as dropped", || {
        let port = port_of(&daemon, "default/attacker");
        let (rx, dropped) = received_and_dropped(&port);
        let dropped = dropped - dropped_before;
        anyhow::ensure!(
            dropped >= FRAMES && rx - rx_before == dropped,
            "{dropped} of {FRAMES}: {port}"
        );
        Ok(())
    });
    let port = port_of(&daemon, "default/attacker");
    let reasons = port["drops"].as_object().unwrap().len();
    assert!(reasons >= 10, "by reason: {port}");
    assert!(
        bystander.pings(neighbour.ip()).unwrap(),
        "the others are not disturbed"
    );
    assert!(
        attacker.pings(neighbour.ip()).unwrap(),
        "nor is the port itself"
    );
}
