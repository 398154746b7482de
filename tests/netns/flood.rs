//! One pod floods the switch with new flows; others go on, and the operator hears of it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use vswitch_tests::{Daemon, Pod, RawSocket, eventually, eventually_within, run_in};

use crate::daemon;

fn mac(pod: &Pod) -> [u8; 6] {
    let link = pod.netns.link("eth0").unwrap();
    let mac: vswitch_api::MacAddr = link["address"].as_str().unwrap().parse().unwrap();
    mac.0
}

/// A UDP datagram without checksum, from and to ports made of `n`.
fn datagram((mac, from): ([u8; 6], IpAddr), to: IpAddr, n: u32) -> Vec<u8> {
    let [a, b, c, d] = n.wrapping_mul(0x9e37_79b9).to_be_bytes();
    let mut frame = vec![0x02, 0, 0, 0, 0, 1];
    frame.extend(mac);
    frame.extend([0x08, 0x00]);
    let ip = frame.len();
    frame.extend([0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0]);
    for address in [from, to] {
        let IpAddr::V4(address) = address else {
            panic!("{address} is no IPv4 address")
        };
        frame.extend(address.octets());
    }
    let sum = frame[ip..].chunks(2).fold(0_u32, |sum, word| {
        sum + u32::from(u16::from_be_bytes([word[0], word[1]]))
    });
    let sum = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    frame[ip + 10..ip + 12].copy_from_slice(&(!sum).to_be_bytes());
    frame.extend([a | 0x20, b, c | 0x20, d, 0, 8, 0, 0]);
    frame
}

/// Floods from a pod while `meanwhile` runs.
fn flooding<T>(from: &Pod, to: IpAddr, meanwhile: impl FnOnce() -> T) -> T {
    let (socket, stop) = (
        RawSocket::open(&from.netns, "eth0").unwrap(),
        AtomicBool::new(false),
    );
    let sender = (mac(from), from.ip());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                // A full queue loses the frame, as a flood may.
                let _ = socket.send(&datagram(sender, to, n));
                if stop.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(meanwhile));
        stop.store(true, Ordering::Relaxed);
        result.unwrap()
    })
}

fn problems(daemon: &Daemon) -> Vec<String> {
    let status = daemon.vsctl_json(&["status"]).unwrap();
    let problems = status["problems"].as_array().unwrap().iter();
    problems
        .map(|line| line.as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_pod_that_floods_is_held_back_and_named_while_others_have_work() {
    const NAMED: &str = "pod default/flooder is over its share of new flows";
    let daemon = daemon();
    let flooder = Pod::named("flooder").attach(&daemon).unwrap();
    let victim = Pod::named("victim").attach(&daemon).unwrap();
    let client = Pod::named("client").attach(&daemon).unwrap();
    let server = Pod::named("server").attach(&daemon).unwrap();
    let ping = ["ping", "-n", "-q", "-c", "600", "-i", "0.004", "-W", "2"];
    let server_ip = server.ip().to_string();
    flooding(&flooder, victim.ip(), || {
        let pings = client.run(&[&ping[..], &[&server_ip]].concat()).unwrap();
        let named = problems(&daemon);
        assert_eq!(named, [NAMED], "while it floods");
        let report = pings.success().unwrap();
        assert!(report.contains(" 0% packet loss"), "{report}");
    });
    let drops = |port: &str| {
        let ports = daemon.vsctl_json(&["dump-ports"]).unwrap();
        let ports = ports.as_array().unwrap().iter();
        let mut ports = ports.filter(|known| known["pod"] == port);
        ports.next().unwrap()["drops"]["over_share"]
            .as_u64()
            .unwrap_or(0)
    };
    assert!(drops("default/flooder") > 0, "refused ones are counted");
    assert_eq!(drops("default/client"), 0);
    assert_eq!(drops("default/victim"), 0);
    let url = format!("{}/metrics", daemon.api_url());
    let metrics = run_in(daemon.node(), &["curl", "-s", &url]).unwrap();
    let metrics = metrics.success().unwrap();
    for figure in [
        "vswitch_ports_over_share 1",
        "vswitch_drops_total{reason=\"over_share\"}",
        "vswitch_port_over_share_drops_total{port=\"default/flooder\"}",
        "vswitch_port_rx_drops_total{port=\"default/flooder\"}",
    ] {
        assert!(metrics.contains(figure), "{figure}:\n{metrics}");
    }
    // Behind the flood its queue, some 10,000 frames, is refused in a 64th of the worker's time
    // while others want the processor: a debug build takes up to 30 us for each.
    let longest = Duration::from_secs(60);
    eventually_within(longest, "a flood that is over is forgotten", || {
        let named = problems(&daemon);
        if named.is_empty() { Ok(()) } else { Err(named) }
    });
    assert!(
        flooder.pings(server.ip()).unwrap(),
        "it is as any other again"
    );
}

#[test]
fn what_a_pod_sends_to_loopback_or_to_the_switch_itself_does_not_reach_the_node() {
    let daemon = daemon();
    let pod = Pod::named("client").attach(&daemon).unwrap();
    // A node on which such packets would be taken in.
    for key in ["all", "vsw0"] {
        let path = format!("net.ipv4.conf.{key}.route_localnet=1");
        let set = run_in(daemon.node(), &["sysctl", "-q", "-w", &path]);
        set.unwrap().success().unwrap();
    }
    let received = || {
        let link = daemon
            .node()
            .ip(&["-j", "-s", "link", "show", "vsw0"])
            .unwrap();
        let link: serde_json::Value = serde_json::from_str(&link).unwrap();
        link[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
    };
    let dropped = || {
        let status = daemon.vsctl_json(&["status"]).unwrap();
        status["drops"]["martian_destination"].as_u64().unwrap_or(0)
    };
    let socket = RawSocket::open(&pod.netns, "eth0").unwrap();
    let sender = (mac(&pod), pod.ip());
    let targets = [
        "127.0.0.1",
        "0.0.0.0",
        "240.0.0.1",
        "169.254.86.1",
        "169.254.86.2",
    ];
    let before = received();
    for (n, target) in (1..).zip(targets) {
        let target: Ipv4Addr = target.parse().unwrap();
        socket.send(&datagram(sender, target.into(), n)).unwrap();
        eventually("it is counted", || {
            let count = dropped();
            if count == u64::from(n) {
                Ok(())
            } else {
                Err(count)
            }
        });
    }
    assert_eq!(received(), before, "packets came out of the gateway");
    // What is anywhere else does come out.
    socket
        .send(&datagram(sender, Ipv4Addr::new(192, 0, 2, 1).into(), 99))
        .unwrap();
    eventually("another packet reaches the node", || {
        let now = received();
        if now > before { Ok(()) } else { Err(now) }
    });
}
