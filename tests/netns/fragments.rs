//! Datagrams that are larger than an MTU on their way, between real stacks.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use serde_json::json;
use vswitch_tests::{Daemon, Namespace, Pod, RawSocket, inside, join, run_in};

use crate::nodes::{dual_stack, serve_as_service};

const CLUSTER_IP: [&str; 2] = ["10.96.0.50", "fd96::50"];
const DATAGRAMS: u16 = 5;
const PORT: u16 = 5353;

/// A Service of both families with UDP port 5353 at that of the pod.
fn serve_large(daemon: &Daemon, server: &Pod) {
    let ports = json!([{"port": PORT, "protocol": "UDP"}]);
    serve_as_service(daemon, server, ("large", CLUSTER_IP), (&ports, &ports));
}

/// A pod, and a server with a smaller MTU.
fn unequal(daemon: &Daemon) -> [Pod; 2] {
    let client = Pod::named("client").attach(daemon).unwrap();
    let server = Pod::named("server").config("mtu", json!(1300));
    [client, server.attach(daemon).unwrap()]
}

fn bind(place: &Namespace, address: &'static str) -> UdpSocket {
    let bind = move || {
        let socket = UdpSocket::bind(address)?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(socket)
    };
    join(inside(place, bind).unwrap()).unwrap()
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

#[track_caller]
fn assert_arrives(server: &UdpSocket, expected: &[u8], what: &str) {
    let mut received = vec![0; 65_536];
    let (len, _) = server
        .recv_from(&mut received)
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(
        received[..len] == *expected,
        "{what}: {len} bytes that differ"
    );
}

#[test]
fn datagrams_without_df_reach_a_pod_behind_a_smaller_mtu_whole() {
    let daemon = dual_stack();
    let [client, server] = unequal(&daemon);
    serve_large(&daemon, &server);
    let socket = bind(&server.netns, "0.0.0.0:5353");
    let ways: [IpAddr; 2] = [server.ip(), CLUSTER_IP[0].parse().unwrap()];
    for (place, whence) in [(&client.netns, "pod"), (daemon.node(), "node")] {
        // As a DNS server sends: without DF, whatever path MTU is known.
        let without_df = ["sysctl", "-qw", "net.ipv4.ip_no_pmtu_disc=1"];
        run_in(place, &without_df).unwrap().success().unwrap();
        let from = bind(place, "0.0.0.0:0");
        for (to, len) in ways
            .into_iter()
            .flat_map(|to| [(to, 1_400), (to, 1_272), (to, 4_000)])
        {
            let sent = payload(len);
            // Every time: the first one is the one that is not cached.
            for nth in 0..3 {
                from.send_to(&sent, (to, PORT)).unwrap();
                assert_arrives(
                    &socket,
                    &sent,
                    &format!("{whence} to {to}, {len} bytes, {nth}"),
                );
            }
        }
    }
}

#[test]
fn with_df_the_sender_hears_of_the_smaller_mtu() {
    let daemon = dual_stack();
    let [client, server] = unequal(&daemon);
    let socket = bind(&server.netns, "0.0.0.0:5353");
    let from = bind(&client.netns, "0.0.0.0:0");
    socket
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    // Once it knows, it fragments by itself.
    let sent = payload(1_400);
    let mut received = [0; 2_000];
    let len = vswitch_tests::eventually("the sender knows the MTU", || {
        from.send_to(&sent, (server.ip(), PORT))?;
        socket.recv(&mut received)
    });
    assert!(received[..len] == sent);
    let status = daemon.vsctl_json(&["status"]).unwrap();
    assert_eq!(status["drops"]["mtu_exceeded"], 1, "{status}");
}

/// The frames of one datagram's fragments, in order; `id` is its identification.
fn frames(client: &Pod, to: SocketAddr, id: u16, data: &[u8]) -> Vec<Vec<u8>> {
    let from = client.addresses[usize::from(to.is_ipv6())];
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let (src, dst) = (octets(from), octets(to.ip()));
    let length = u16::try_from(8 + data.len()).unwrap();
    let ports = [4_000_u16.to_be_bytes(), to.port().to_be_bytes()].concat();
    let mut datagram = [&ports[..], &length.to_be_bytes(), &[0, 0], data].concat();
    let pseudo = [&src[..], &dst, &[0, 17], &length.to_be_bytes(), &datagram].concat();
    let sum = checksum(&pseudo);
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    let link = link_header(client, to.is_ipv6());
    let size = 1_200;
    let count = datagram.len().div_ceil(size);
    let parts = datagram.chunks(size).enumerate();
    parts
        .map(|(nth, part)| {
            let (units, more) = (u16::try_from(nth * size / 8).unwrap(), nth + 1 < count);
            let header = if to.is_ipv4() {
                let total = u16::try_from(20 + part.len()).unwrap().to_be_bytes();
                let field = (u16::from(more) << 13 | units).to_be_bytes();
                let id = id.to_be_bytes();
                let mut header = [
                    &[0x45, 0][..],
                    &total,
                    &id,
                    &field,
                    &[64, 17, 0, 0],
                    &src,
                    &dst,
                ]
                .concat();
                let sum = checksum(&header).to_be_bytes();
                header[10..12].copy_from_slice(&sum);
                header
            } else {
                let length = u16::try_from(8 + part.len()).unwrap().to_be_bytes();
                let field = (units << 3 | u16::from(more)).to_be_bytes();
                let id = u32::from(id).to_be_bytes();
                let fixed = [&[0x60, 0, 0, 0][..], &length, &[44, 64], &src, &dst].concat();
                [&fixed[..], &[17, 0], &field, &id].concat()
            };
            [&link[..], &header, part].concat()
        })
        .collect()
}

fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        u32::from(u16::from_be_bytes([pair[0], low]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

/// The Ethernet header of what the pod sends to its gateway.
fn link_header(client: &Pod, is_ipv6: bool) -> Vec<u8> {
    let mac_behind = |word: &str, text: &str| -> Option<Vec<u8>> {
        let mut words = text.split_whitespace().skip_while(|at| *at != word);
        let parts = words.nth(1)?.split(':');
        parts
            .map(|part| u8::from_str_radix(part, 16).ok())
            .collect()
    };
    let link = client.netns.ip(&["-o", "link", "show", "eth0"]).unwrap();
    let own = mac_behind("link/ether", &link).unwrap();
    let family = if is_ipv6 { "-6" } else { "-4" };
    let to = if is_ipv6 {
        CLUSTER_IP[1]
    } else {
        CLUSTER_IP[0]
    };
    // Has the pod's stack find out its gateway's MAC.
    let socket = bind(&client.netns, "[::]:0");
    let to: IpAddr = to.parse().unwrap();
    let to = match to {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let gateway = vswitch_tests::eventually("the gateway is known", || {
        let _ = socket.send_to(b"?", (to, 9));
        let known = client
            .netns
            .ip(&[family, "neighbour", "show", "dev", "eth0"])?;
        let found = mac_behind("lladdr", &known);
        found.ok_or_else(|| anyhow::anyhow!("{known}"))
    });
    let eth_type = if is_ipv6 { [0x86, 0xdd] } else { [0x08, 0x00] };
    [&gateway[..], &own, &eth_type].concat()
}

#[test]
fn fragments_in_any_order_make_whole_datagrams() {
    let daemon = dual_stack();
    let [client, server] =
        ["client", "server"].map(|name| Pod::named(name).attach(&daemon).unwrap());
    serve_large(&daemon, &server);
    let socket = bind(&server.netns, "[::]:5353");
    let raw = RawSocket::open(&client.netns, "eth0").unwrap();
    let service = CLUSTER_IP.map(|ip| ip.parse().unwrap());
    let mut id = 0;
    for ip in [
        server.addresses[0],
        server.addresses[1],
        service[0],
        service[1],
    ] {
        // Last first; the first in the middle; in order.
        for order in [[2, 1, 0], [2, 0, 1], [0, 1, 2]] {
            for nth in 0..DATAGRAMS {
                id += 1;
                let data = [&nth.to_be_bytes()[..], &payload(3_000)].concat();
                let frames = frames(&client, (ip, PORT).into(), id, &data);
                assert_eq!(frames.len(), 3);
                for at in order {
                    raw.send(&frames[at]).unwrap();
                }
                let what = format!("{nth} of {DATAGRAMS} to {ip}, {order:?}");
                assert_arrives(&socket, &data, &what);
            }
        }
    }
}
