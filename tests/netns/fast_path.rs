//! Established connections are forwarded inside the kernel, and stay the switch's.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use vswitch_tests::{Daemon, DaemonOptions, Namespace, Pod, eventually, inside, join, run_in};

use crate::{SECURE_POD, daemon};

/// More rounds than a flow needs to be handed to the kernel.
const PLENTY: usize = 30;

/// Sends back what it is sent, each connection on its own thread, as long as the test runs.
pub(crate) fn echo(at: &Namespace, port: u16) {
    let bind = move || Ok(TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?);
    let listener = join(inside(at, bind).unwrap()).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut bytes = vec![0; 1 << 16];
                while let Ok(count @ 1..) = stream.read(&mut bytes) {
                    if stream.write_all(&bytes[..count]).is_err() {
                        break;
                    }
                }
            });
        }
    });
}

pub(crate) fn connect(from: &Namespace, to: IpAddr, port: u16) -> TcpStream {
    let connect = move || {
        let stream = TcpStream::connect_timeout(&(to, port).into(), Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    join(inside(from, connect).unwrap()).unwrap()
}

pub(crate) fn ask(mut stream: &TcpStream, bytes: usize) -> std::io::Result<()> {
    // Of a length that no segment size is a multiple of.
    let question: Vec<u8> = (0..=250).cycle().take(bytes).collect();
    let mut answer = vec![0; bytes];
    stream.write_all(&question)?;
    stream.read_exact(&mut answer)?;
    assert!(answer == question, "the bytes came back different");
    Ok(())
}

/// Talks until the kernel may have taken the connection over.
pub(crate) fn warm_up(stream: &TcpStream) {
    for _ in 0..PLENTY {
        ask(stream, 100).unwrap();
    }
}

/// Returns the connection that a socket has.
pub(crate) fn tracked(daemon: &Daemon, stream: &TcpStream) -> Value {
    let port = stream.local_addr().unwrap().port();
    let connections = daemon.vsctl_json(&["dump-conntrack"]).unwrap();
    let all = connections.as_array().unwrap();
    let own = all.iter().find(|connection| connection["src_port"] == port);
    own.unwrap_or_else(|| panic!("{connections}")).clone()
}

pub(crate) fn flows(daemon: &Daemon) -> u64 {
    let status = daemon.vsctl_json(&["status"]).unwrap();
    status["fast_path_flows"].as_u64().unwrap()
}

pub(crate) fn pods(daemon: &Daemon) -> [Pod; 2] {
    ["client", "server"].map(|name| Pod::named(name).attach(daemon).unwrap())
}

/// Returns the packets that the workers decided on.
fn decided(daemon: &Daemon) -> u64 {
    let socket = daemon.socket().display().to_string();
    let url = "http://localhost/metrics";
    let answer = run_in(
        daemon.node(),
        &["curl", "-s", "--unix-socket", &socket, url],
    );
    let metrics = answer.unwrap().success().unwrap();
    let count = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    count("vswitch_flow_cache_hits_total") + count("vswitch_flow_cache_misses_total")
}

#[test]
fn a_connection_that_lasts_goes_past_the_workers_and_is_counted() {
    let daemon = daemon();
    let [client, server] = &pods(&daemon);
    echo(&server.netns, 80);
    let stream = connect(&client.netns, server.ip(), 80);
    warm_up(&stream);
    assert_eq!(flows(&daemon), 2);
    assert_eq!(tracked(&daemon, &stream)["offloaded"], true);

    let (before, decided_before) = (tracked(&daemon, &stream), decided(&daemon));
    for _ in 0..200 {
        ask(&stream, 20_000).unwrap();
    }
    let (after, decided_after) = (tracked(&daemon, &stream), decided(&daemon));
    assert!(
        decided_after - decided_before < 50,
        "{} packets went through the workers",
        decided_after - decided_before
    );
    for direction in ["orig", "reply"] {
        let grown = |what: &str| {
            let key = format!("{direction}_{what}");
            after[&key].as_u64().unwrap() - before[&key].as_u64().unwrap()
        };
        assert!(grown("packets") >= 200, "{after}");
        let bytes = grown("bytes");
        assert!((4_000_000..4_200_000).contains(&bytes), "{bytes}: {after}");
    }
    let ports = daemon.vsctl_json(&["dump-ports"]).unwrap();
    let counted = ports.as_array().unwrap().iter().filter(|port| {
        let at_least = |key: &str| port["counters"][key].as_u64().unwrap() > 4_000_000;
        at_least("rx_bytes") && at_least("tx_bytes")
    });
    assert_eq!(counted.count(), 2, "{ports}");
}

#[test]
fn the_end_of_a_connection_is_seen_and_its_flows_go() {
    let daemon = daemon();
    let [client, server] = &pods(&daemon);
    echo(&server.netns, 80);
    let stream = connect(&client.netns, server.ip(), 80);
    warm_up(&stream);
    for _ in 0..20 {
        ask(&stream, 60_000).unwrap();
    }
    let port = stream.local_addr().unwrap().port();
    drop(stream);
    eventually("the connection is closed", || {
        let connections = daemon.vsctl_json(&["dump-conntrack"]).unwrap();
        let all = connections.as_array().unwrap();
        match all.iter().find(|connection| connection["src_port"] == port) {
            Some(connection) if connection["state"] == "TIME_WAIT" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    eventually("no flow is left", || match flows(&daemon) {
        0 => Ok(()),
        some => Err(some),
    });
}

#[test]
fn a_policy_cuts_a_connection_that_the_kernel_forwards_and_a_label_admits_the_next() {
    let daemon = daemon();
    let [client, server] = &pods(&daemon);
    daemon
        .vsctl(&["label", "pod", "server", "app=secure-pod"])
        .unwrap();
    echo(&server.netns, 80);
    let stream = connect(&client.netns, server.ip(), 80);
    warm_up(&stream);
    assert_eq!(flows(&daemon), 2);

    daemon.apply(SECURE_POD).unwrap();
    let cut = ask(&stream, 100).unwrap_err();
    assert_eq!(cut.kind(), ErrorKind::WouldBlock);
    let drops = daemon.vsctl_json(&["status"]).unwrap()["drops"].clone();
    assert!(drops["policy_ingress"].as_u64().unwrap() > 0, "{drops}");

    daemon
        .vsctl(&["label", "pod", "client", "allow-access=true"])
        .unwrap();
    // What was cut stays cut; the next one is allowed, and handed to the kernel.
    let stream = connect(&client.netns, server.ip(), 80);
    warm_up(&stream);
    assert_eq!(tracked(&daemon, &stream)["offloaded"], true);
}

#[test]
fn a_change_that_concerns_nobody_interrupts_nothing() {
    let daemon = daemon();
    let [client, server] = &pods(&daemon);
    echo(&server.netns, 80);
    let stream = connect(&client.netns, server.ip(), 80);
    warm_up(&stream);
    for round in 0..20 {
        let label = format!("round={round}");
        daemon.vsctl(&["label", "pod", "client", &label]).unwrap();
        ask(&stream, 50_000).unwrap();
        ask(&stream, 100).unwrap();
    }
    assert_eq!(tracked(&daemon, &stream)["state"], "ESTABLISHED");
    let drops = daemon.vsctl_json(&["status"]).unwrap()["drops"].clone();
    assert_eq!(drops["ct_invalid"], Value::Null, "{drops}");
}

#[test]
fn the_node_and_its_pods_talk_past_the_workers_in_both_directions() {
    let daemon = daemon();
    let [client, server] = &pods(&daemon);
    echo(&server.netns, 80);
    echo(daemon.node(), 81);
    let to_pod = connect(daemon.node(), server.ip(), 80);
    warm_up(&to_pod);
    let gateway = daemon.vsctl_json(&["status"]).unwrap();
    assert_eq!(flows(&daemon), 2, "{gateway}");
    let to_node = connect(&client.netns, "10.244.0.1".parse().unwrap(), 81);
    warm_up(&to_node);
    assert_eq!(flows(&daemon), 4);
    for stream in [&to_pod, &to_node] {
        for _ in 0..20 {
            ask(stream, 60_000).unwrap();
        }
    }
}

#[test]
fn datagrams_of_a_flow_go_past_the_workers() {
    let daemon = daemon();
    let [client, server] = &pods(&daemon);
    let bind = || {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 53))?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(socket)
    };
    let receiver = join(inside(&server.netns, bind).unwrap()).unwrap();
    let to = SocketAddr::from((server.ip(), 53));
    let open = move || {
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.connect(to)?;
        Ok(socket)
    };
    let sender = join(inside(&client.netns, open).unwrap()).unwrap();
    let mut heard = [0; 16];
    let mut send = |number: u32, is_answered: bool| {
        sender.send(&number.to_be_bytes()).unwrap();
        let (length, from) = receiver.recv_from(&mut heard).unwrap();
        assert_eq!(heard[..length], number.to_be_bytes());
        if is_answered {
            receiver.send_to(&heard[..length], from).unwrap();
            let length = sender.recv(&mut heard).unwrap();
            assert_eq!(heard[..length], number.to_be_bytes());
        }
    };
    (0..100).for_each(|number| send(number, false));
    assert_eq!(
        flows(&daemon),
        0,
        "what nobody answers stays with the workers"
    );
    (100..200).for_each(|number| send(number, true));
    assert_eq!(flows(&daemon), 2);
    let connections = daemon.vsctl_json(&["dump-conntrack"]).unwrap();
    let connection = &connections.as_array().unwrap()[0];
    assert_eq!(connection["orig_packets"], 200, "{connections}");
    assert_eq!(connection["reply_packets"], 100, "{connections}");
}

#[test]
fn ipv6_takes_the_fast_path_too() {
    let options = DaemonOptions {
        pod_cidrs: vec!["10.244.0.0/24".to_owned(), "fd00:10:244::/64".to_owned()],
        ..DaemonOptions::default()
    };
    let daemon = Daemon::start(&options).unwrap();
    let [client, server] = &pods(&daemon);
    echo(&server.netns, 80);
    let address = server.addresses.iter().find(|ip| ip.is_ipv6()).unwrap();
    let stream = connect(&client.netns, *address, 80);
    warm_up(&stream);
    assert_eq!(flows(&daemon), 2);
    for _ in 0..20 {
        ask(&stream, 60_000).unwrap();
    }
}

#[test]
fn connections_go_on_after_a_kill_and_nothing_is_forwarded_in_between() {
    let mut daemon = daemon();
    let [client, server] = &pods(&daemon);
    echo(&server.netns, 80);
    let stream = connect(&client.netns, server.ip(), 80);
    warm_up(&stream);
    assert_eq!(flows(&daemon), 2);
    daemon.stop(Signal::SIGKILL).unwrap();
    // A worker of the kernel takes the programs out, right after the end.
    let silence = eventually("nothing is forwarded", || match ask(&stream, 100) {
        Err(error) => Ok(error.kind()),
        Ok(()) => Err("an answer"),
    });
    assert_eq!(silence, ErrorKind::WouldBlock);
    let late = (&stream).read_exact(&mut [0; 1]).map_err(|e| e.kind());
    assert_eq!(late, Err(ErrorKind::WouldBlock));
    daemon.spawn().unwrap();
    eventually("the answer", || {
        (&stream).read_exact(&mut [0; 100]).map_err(|e| e.kind())
    });
    warm_up(&stream);
    assert_eq!(flows(&daemon), 2);
}

#[test]
fn without_the_fast_path_everything_works_through_the_workers() {
    let options = DaemonOptions {
        extra: "[datapath]\nfast_path = \"off\"\n".to_owned(),
        ..DaemonOptions::default()
    };
    let daemon = Daemon::start(&options).unwrap();
    let [client, server] = &pods(&daemon);
    echo(&server.netns, 80);
    let stream = connect(&client.netns, server.ip(), 80);
    warm_up(&stream);
    ask(&stream, 100_000).unwrap();
    assert_eq!(tracked(&daemon, &stream)["offloaded"], false);
    let status = daemon.vsctl_json(&["status"]).unwrap();
    assert_eq!(status["fast_path_flows"], Value::Null, "{status}");
}
