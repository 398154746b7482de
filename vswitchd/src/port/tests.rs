use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vswitch_api::{MacAddr, PortNo};
use vswitch_datapath::packet::{Frame, VnetHeader};

use super::testnet::{Sandbox, ifname};
use super::*;
use crate::netns::in_netns;

const EXPERIMENTAL: u16 = 0x88b5; // IEEE 802 local experimental EtherType

fn plain_frame(tag: u8) -> Frame {
    let mut bytes = vec![tag; 64];
    bytes[..6].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    bytes[12..14].copy_from_slice(&EXPERIMENTAL.to_be_bytes());
    Frame::from_bytes(&bytes)
}

fn wait_readable(rx: &dyn PortRx) {
    let mut fds = [PollFd::new(rx.fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::from(2000_u16)).unwrap();
}

/// Receives until `wanted` accepts a frame, at most two seconds of silence.
fn recv_until(port: &mut Port, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
    let rx = port.rx.as_mut().unwrap();
    let mut frames: Vec<Frame> = (0..8).map(|_| Frame::new()).collect();
    for _ in 0..500 {
        wait_readable(rx.as_ref());
        let received = rx.recv_batch(&mut frames).unwrap();
        if received.frames == 0 {
            return None;
        }
        if let Some(found) = frames[..received.frames].iter().find(|frame| wanted(frame)) {
            return Some(found.clone());
        }
    }
    None
}

fn pod_and_switch(net: &Sandbox) -> (Port, Port) {
    let pod = open_veth(PortNo(1), &ifname("eth0"), Some(&net.open("pod")), None).unwrap();
    let switch = open_veth(PortNo(2), &ifname("hpod"), Some(&net.open("switch")), None).unwrap();
    (pod, switch)
}

#[test]
fn a_batch_to_a_foreign_destination_arrives_whole_and_in_order() {
    let net = Sandbox::new();
    let (pod, mut switch) = pod_and_switch(&net);
    let frames: Vec<Frame> = (0..40).map(plain_frame).collect();
    let sent = pod.tx.send_batch(&frames.iter().collect::<Vec<_>>());
    assert_eq!((sent.frames, sent.bytes, sent.lost()), (40, 40 * 64, 0));
    let rx = switch.rx.as_mut().unwrap();
    let mut room: Vec<Frame> = (0..MAX_BATCH).map(|_| Frame::new()).collect();
    let mut tags = Vec::new();
    loop {
        wait_readable(rx.as_ref());
        let count = rx.recv_batch(&mut room).unwrap().frames;
        if count == 0 {
            break;
        }
        let ours = room[..count]
            .iter()
            .filter(|frame| frame.bytes()[12] == 0x88);
        tags.extend(ours.map(|frame| frame.bytes()[14]));
        if tags.len() >= 40 {
            break;
        }
    }
    assert_eq!(tags, (0..40).collect::<Vec<u8>>());
}

#[test]
fn what_others_send_into_the_pod_is_not_taken_for_the_pods() {
    let net = Sandbox::new();
    let (mut pod, mut switch) = pod_and_switch(&net);
    let other = open_veth(PortNo(3), &ifname("hpod"), Some(&net.open("switch")), None).unwrap();
    other.tx.send_batch(&[&plain_frame(7)]);
    assert!(recv_until(&mut pod, |frame| frame.bytes()[14] == 7).is_some());
    let mut room: Vec<Frame> = (0..MAX_BATCH).map(|_| Frame::new()).collect();
    let received = switch.rx.as_mut().unwrap().recv_batch(&mut room).unwrap();
    let mut echoed = room[..received.frames].iter();
    assert!(!echoed.any(|frame| frame.bytes()[12..14] == [0x88, 0xb5]));
}

#[test]
fn a_vlan_tag_that_the_kernel_took_out_is_put_back() {
    let net = Sandbox::new();
    let (pod, mut switch) = pod_and_switch(&net);
    for (tpid, tci) in [(0x8100, 0x2064), (0x88a8, 0x0005)] {
        let mut tagged = plain_frame(3);
        tagged.insert_vlan_tag(tpid, tci);
        assert_eq!(pod.tx.send_batch(&[&tagged]).frames, 1);
        let got = recv_until(&mut switch, |frame| {
            frame.bytes()[..6] == [2, 0, 0, 0, 0, 9]
        });
        assert_eq!(got.expect("the tagged frame").bytes(), tagged.bytes());
    }
}

#[test]
fn a_udp_datagram_arrives_with_its_partial_checksum_described() {
    let net = Sandbox::new();
    let mut switch =
        open_veth(PortNo(2), &ifname("hpod"), Some(&net.open("switch")), None).unwrap();
    net.ip(
        "pod",
        "neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev eth0",
    );
    in_netns(&net.open("pod"), || {
        let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
        socket.send_to(b"hello", "10.9.0.2:9").unwrap();
    })
    .unwrap();
    let frame = recv_until(&mut switch, |frame| frame.bytes()[23] == 17).expect("the datagram");
    assert!(frame.vnet.needs_csum());
    assert_eq!((frame.vnet.csum_start, frame.vnet.csum_offset), (34, 6));
}

#[expect(clippy::disallowed_methods, reason = "both are joined")]
#[test]
fn tcp_gives_super_frames_and_they_arrive_as_such() {
    let net = Sandbox::new();
    let mut a = open_veth(PortNo(1), &ifname("hpod"), Some(&net.open("switch")), None).unwrap();
    let mut b = open_veth(PortNo(2), &ifname("hpeer"), Some(&net.open("switch")), None).unwrap();
    let listener = in_netns(&net.open("peer"), || {
        TcpListener::bind("10.9.0.2:5000").unwrap()
    })
    .unwrap();
    let reader = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        std::io::copy(&mut { stream }, &mut std::io::sink()).unwrap()
    });
    let pod = net.open("pod");
    let writer = std::thread::spawn(move || {
        in_netns(&pod, || {
            let to: SocketAddr = "10.9.0.2:5000".parse().unwrap();
            let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap();
            std::io::Write::write_all(&mut stream, &vec![1; 4 << 20]).unwrap();
        })
        .unwrap();
    });
    let mut longest = Frame::new();
    let mut room: Vec<Frame> = (0..16).map(|_| Frame::new()).collect();
    while !reader.is_finished() {
        cable(&mut a, &b, &mut room, &mut longest);
        cable(&mut b, &a, &mut room, &mut longest);
    }
    writer.join().unwrap();
    assert_eq!(reader.join().unwrap(), 4 << 20);
    assert!(longest.len() > 1514, "longest frame {}", longest.len());
    assert_eq!(
        longest.vnet.gso_type & !VnetHeader::GSO_ECN,
        VnetHeader::GSO_TCPV4
    );
    assert!(longest.vnet.gso_size <= 1460);
}

/// Moves what is there from one port to the other and remembers the longest frame.
fn cable(from: &mut Port, to: &Port, room: &mut [Frame], longest: &mut Frame) {
    let count = from.rx.as_mut().unwrap().recv_batch(room).unwrap().frames;
    let frames: Vec<&Frame> = room[..count].iter().collect();
    assert_eq!(to.tx.send_batch(&frames).refused, 0);
    if let Some(frame) = frames.iter().max_by_key(|frame| frame.len())
        && frame.len() > longest.len()
    {
        *longest = (*frame).clone();
    }
}

#[test]
fn a_frame_beyond_the_mtu_is_refused_and_the_next_one_goes() {
    let net = Sandbox::new();
    let (pod, _switch) = pod_and_switch(&net);
    let long = Frame::from_bytes(&[0x11; 1600]);
    let sent = pod.tx.send_batch(&[&long, &plain_frame(1)]);
    assert_eq!((sent.frames, sent.refused), (1, 1));
    assert!(sent.fault.is_none());
}

#[test]
fn a_virtio_header_that_lies_is_refused() {
    let net = Sandbox::new();
    let (pod, _switch) = pod_and_switch(&net);
    let mut frame = plain_frame(1);
    frame.vnet = VnetHeader {
        flags: VnetHeader::F_NEEDS_CSUM,
        csum_start: 9000,
        ..frame.vnet
    };
    assert_eq!(pod.tx.send_batch(&[&frame]).refused, 1);
}

#[test]
fn a_link_that_goes_down_and_up_again_keeps_its_port() {
    let net = Sandbox::new();
    let (pod, mut switch) = pod_and_switch(&net);
    net.ip("switch", "link set hpod down");
    let mut room = vec![Frame::new()];
    let fault = switch
        .rx
        .as_mut()
        .unwrap()
        .recv_batch(&mut room)
        .unwrap_err();
    assert!(matches!(fault, PortFault::LinkDown), "{fault:?}");
    let sent = switch.tx.send_batch(&[&plain_frame(1)]);
    assert!(
        matches!(sent.fault, Some(PortFault::LinkDown)) && sent.down == 1,
        "{sent:?}"
    );
    assert_eq!(switch.tx.link(), LinkState::Down);
    net.ip("switch", "link set hpod up");
    assert_eq!(switch.tx.link(), LinkState::Up);
    pod.tx.send_batch(&[&plain_frame(5)]);
    assert!(recv_until(&mut switch, |frame| frame.bytes()[14] == 5).is_some());
}

#[test]
fn a_deleted_device_is_reported_gone() {
    let net = Sandbox::new();
    let (_pod, mut switch) = pod_and_switch(&net);
    net.ip("switch", "link del hpod");
    let mut room = vec![Frame::new()];
    let fault = switch
        .rx
        .as_mut()
        .unwrap()
        .recv_batch(&mut room)
        .unwrap_err();
    assert!(matches!(fault, PortFault::Gone), "{fault:?}");
    let sent = switch.tx.send_batch(&[&plain_frame(1)]);
    assert!(matches!(sent.fault, Some(PortFault::Gone)), "{sent:?}");
    assert_eq!(switch.tx.link(), LinkState::Gone);
}

#[test]
fn a_missing_interface_is_a_clear_error() {
    let err = open_veth(PortNo(1), &ifname("vst-no-such"), None, None).unwrap_err();
    assert!(matches!(err, PortError::FindInterface { .. }), "{err}");
}

fn features(net: &Sandbox) -> String {
    let output = net.command("pod", &["ethtool", "-k", "eth0"]).output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

#[test]
fn the_named_features_are_switched_off_and_no_others() {
    let net = Sandbox::new();
    let before = features(&net);
    assert!(before.contains("tx-checksum-sctp: on\n"), "{before}");
    let names = ["tx-checksum-sctp", "no kernel has this"];
    for _again in 0..2 {
        disable_features(&ifname("eth0"), Some(&net.open("pod")), &names).unwrap();
        let expected = before.replace("tx-checksum-sctp: on\n", "tx-checksum-sctp: off\n");
        assert_eq!(features(&net), expected);
    }
}

#[test]
fn features_of_a_missing_interface_are_a_clear_error() {
    let net = Sandbox::new();
    let error = disable_features(&ifname("none0"), Some(&net.open("pod")), &[]).unwrap_err();
    assert_eq!(error.to_string(), "find interface none0");
}

#[test]
fn sockets_do_not_leak_into_children() {
    let net = Sandbox::new();
    let (pod, _switch) = pod_and_switch(&net);
    let rx = pod.rx.as_ref().unwrap();
    let flags = nix::fcntl::fcntl(rx.fd(), nix::fcntl::FcntlArg::F_GETFD).unwrap();
    assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
}

fn tap_config(persistent: bool) -> TapConfig {
    TapConfig {
        ifname: ifname("vsw0"),
        mac: Some(MacAddr([2, 0, 0, 0, 0, 0xfe])),
        persistent,
    }
}

#[test]
fn a_tap_gets_its_offloads_and_its_mac() {
    let net = Sandbox::new();
    let tap = open_tap(PortNo(1), &tap_config(false), Some(&net.open("switch"))).unwrap();
    assert!(tap.offloads.csum && tap.offloads.tso, "{:?}", tap.offloads);
    assert!(!tap.reattached && tap.if_index > 0);
    let show = net
        .command("switch", &["ip", "-o", "link", "show", "vsw0"])
        .output()
        .unwrap();
    let show = String::from_utf8_lossy(&show.stdout).into_owned();
    assert!(show.contains("02:00:00:00:00:fe"), "{show}");
}

/// Lets go of the TAP a moment later.
#[expect(
    clippy::disallowed_methods,
    reason = "whoever comes next has to meet a device in use"
)]
fn let_go_soon(tap: TapPort) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(200));
        drop(tap);
    })
}

#[test]
fn a_tap_that_is_let_go_of_a_moment_later_is_deleted() {
    let net = Sandbox::new();
    let switch = net.open("switch");
    let tap = open_tap(PortNo(1), &tap_config(true), Some(&switch)).unwrap();
    let holder = let_go_soon(tap);
    assert!(remove_tap(&ifname("vsw0"), Some(&switch)).unwrap());
    holder.join().unwrap();
    assert!(!remove_tap(&ifname("vsw0"), Some(&switch)).unwrap());
}

#[test]
fn a_tap_that_is_let_go_of_a_moment_later_is_attached_to() {
    let net = Sandbox::new();
    let switch = net.open("switch");
    let tap = open_tap(PortNo(1), &tap_config(true), Some(&switch)).unwrap();
    let holder = let_go_soon(tap);
    let again = open_tap(PortNo(1), &tap_config(true), Some(&switch)).unwrap();
    assert!(again.reattached);
    holder.join().unwrap();
}

#[test]
fn a_persistent_tap_keeps_its_address_and_is_attached_to_again() {
    let net = Sandbox::new();
    let switch = net.open("switch");
    let first = open_tap(PortNo(1), &tap_config(true), Some(&switch)).unwrap();
    net.ip("switch", "addr add 10.9.9.1/24 dev vsw0");
    let busy = open_tap(PortNo(1), &tap_config(true), Some(&switch)).unwrap_err();
    assert!(
        matches!(
            busy,
            PortError::Tap {
                step: "TUNSETIFF",
                ..
            }
        ),
        "{busy}"
    );
    drop(first);
    let again = open_tap(PortNo(1), &tap_config(true), Some(&switch)).unwrap();
    assert!(again.reattached);
    assert_eq!(
        again.offloads,
        TapOffloads {
            csum: true,
            tso: true,
            uso: again.offloads.uso
        }
    );
    let show = net
        .command("switch", &["ip", "-o", "addr", "show", "vsw0"])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&show.stdout).contains("10.9.9.1/24"));
    drop(again);
    assert!(remove_tap(&ifname("vsw0"), Some(&switch)).unwrap());
    assert!(!remove_tap(&ifname("vsw0"), Some(&switch)).unwrap());
}

#[test]
fn a_name_that_another_kind_of_device_has_is_refused() {
    let net = Sandbox::new();
    let config = TapConfig {
        ifname: ifname("hpod"),
        ..tap_config(true)
    };
    let err = open_tap(PortNo(1), &config, Some(&net.open("switch"))).unwrap_err();
    assert!(
        matches!(
            err,
            PortError::Tap {
                step: "TUNSETIFF",
                ..
            }
        ),
        "{err}"
    );
    let err = remove_tap(&ifname("hpod"), Some(&net.open("switch"))).unwrap_err();
    assert!(matches!(err, PortError::Tap { .. }), "{err}");
}

#[test]
fn a_tap_says_when_it_is_down_and_when_it_is_gone() {
    let net = Sandbox::new();
    let mut tap = open_tap(PortNo(1), &tap_config(false), Some(&net.open("switch")))
        .unwrap()
        .port;
    let down = tap.tx.send_batch(&[&plain_frame(1)]);
    assert!(matches!(down.fault, Some(PortFault::LinkDown)), "{down:?}");
    assert_eq!(tap.tx.link(), LinkState::Down);
    net.ip("switch", "link set vsw0 up");
    assert_eq!(tap.tx.send_batch(&[&plain_frame(1)]).frames, 1);
    net.ip("switch", "link del vsw0");
    let gone = tap.tx.send_batch(&[&plain_frame(1)]);
    assert!(matches!(gone.fault, Some(PortFault::Gone)), "{gone:?}");
    let fault = tap
        .rx
        .as_mut()
        .unwrap()
        .recv_batch(&mut [Frame::new()])
        .unwrap_err();
    assert!(matches!(fault, PortFault::Gone), "{fault:?}");
    assert_eq!(tap.tx.link(), LinkState::Gone);
}

#[test]
fn a_tap_reads_what_the_host_sends_with_its_virtio_header() {
    let net = Sandbox::new();
    let mut tap = open_tap(PortNo(1), &tap_config(false), Some(&net.open("switch")))
        .unwrap()
        .port;
    net.ip("switch", "link set vsw0 up");
    net.ip("switch", "addr add 10.9.9.1/24 dev vsw0");
    net.ip(
        "switch",
        "neigh add 10.9.9.2 lladdr 02:00:00:00:00:02 dev vsw0",
    );
    in_netns(&net.open("switch"), || {
        UdpSocket::bind("10.9.9.1:0")
            .unwrap()
            .send_to(b"hello", "10.9.9.2:9")
            .unwrap();
    })
    .unwrap();
    let frame = recv_until(&mut tap, |frame| frame.bytes()[23] == 17).expect("the datagram");
    assert!(frame.vnet.needs_csum());
    assert_eq!(&frame.bytes()[42..47], b"hello");
}

/// A TCP super-frame: three segments of 1000 bytes, checksum left to the device.
fn super_frame() -> Frame {
    let mut bytes = vec![0_u8; 54 + 3000];
    bytes[..12].copy_from_slice(&[2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1]);
    bytes[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
    bytes[16..18].copy_from_slice(&3040_u16.to_be_bytes());
    bytes[22..24].copy_from_slice(&[64, 6]);
    bytes[26..34].copy_from_slice(&[10, 9, 0, 1, 10, 9, 0, 2]);
    let header: u32 = bytes[14..34]
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let folded = (header & 0xffff) + (header >> 16);
    bytes[24..26].copy_from_slice(&(!u16::try_from(folded).unwrap()).to_be_bytes());
    bytes[34..38].copy_from_slice(&[0x13, 0x88, 0x13, 0x89]);
    bytes[46..48].copy_from_slice(&[0x50, 0x10]);
    let mut frame = Frame::from_bytes(&bytes);
    frame.vnet = VnetHeader {
        flags: VnetHeader::F_NEEDS_CSUM,
        gso_type: VnetHeader::GSO_TCPV4,
        hdr_len: 54,
        gso_size: 1000,
        csum_start: 34,
        csum_offset: 16,
    };
    frame
}

#[test]
fn a_mirror_shows_a_super_frame_as_its_segments() {
    let net = Sandbox::new();
    let switch = net.open("switch");
    let mirror = open_mirror(PortNo(9), &ifname("mirror0"), Some(&switch)).unwrap();
    net.ip("switch", "link set mirror0 up");
    let mut sniffer = open_veth(PortNo(8), &ifname("mirror0"), Some(&switch), None).unwrap();
    let sent = mirror.tx.send_batch(&[&super_frame()]);
    assert_eq!((sent.frames, sent.lost()), (1, 0));
    let rx = sniffer.rx.as_mut().unwrap();
    let mut room: Vec<Frame> = (0..8).map(|_| Frame::new()).collect();
    wait_readable(rx.as_ref());
    let count = rx.recv_batch(&mut room).unwrap().frames;
    let lengths: Vec<usize> = room[..count].iter().map(Frame::len).collect();
    assert_eq!(lengths, [1054, 1054, 1054]);
    assert!(
        room[..count]
            .iter()
            .all(|frame| !frame.vnet.is_gso() && !frame.vnet.needs_csum())
    );
}

#[test]
fn a_mirror_vanishes_with_its_port() {
    let net = Sandbox::new();
    let switch = net.open("switch");
    let mirror = open_mirror(PortNo(9), &ifname("mirror0"), Some(&switch)).unwrap();
    assert!(mirror.rx.is_none());
    drop(mirror);
    let err = open_veth(PortNo(8), &ifname("mirror0"), Some(&switch), None).unwrap_err();
    assert!(matches!(err, PortError::FindInterface { .. }), "{err}");
}
