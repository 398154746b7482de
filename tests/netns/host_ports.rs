//! Host ports: who reaches a container through its node's address, and as whom policies see it.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use vswitch_tests::{
    Daemon, DaemonOptions, Namespace, Pod, eventually, fetch, inside, join, run, run_in, serve,
};

use crate::nodes::outside;

const NODE: &str = "192.0.2.1";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A node with an uplink, and a host behind it.
fn node() -> (Daemon, Namespace) {
    let daemon = Daemon::start(&DaemonOptions::default()).unwrap();
    let outside = outside(&daemon);
    (daemon, outside)
}

fn server(daemon: &Daemon, mappings: &Value) -> Pod {
    let server = Pod::named("server").config("runtimeConfig", json!({"portMappings": mappings}));
    server.attach(daemon).unwrap()
}

/// Admits `app=friend`, and the host outside, to TCP 80 of the server.
const FRIENDS: &str = r#"{
    "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
    "metadata": {"name": "friends", "namespace": "default"},
    "spec": {
        "podSelector": {"matchLabels": {"app": "server"}},
        "ingress": [{
            "from": [
                {"podSelector": {"matchLabels": {"app": "friend"}}},
                {"ipBlock": {"cidr": "192.0.2.2/32"}}
            ],
            "ports": [{"port": 80}]
        }]
    }
}"#;

#[test]
fn a_pod_is_judged_as_itself_by_the_host_port_as_by_the_address() {
    let (daemon, outside) = node();
    let mapping = json!([{"hostPort": 8126, "containerPort": 80, "protocol": "tcp"}]);
    let server = server(&daemon, &mapping);
    let client = Pod::named("client").attach(&daemon).unwrap();
    let _web = server.serve(80).unwrap();
    eventually("the host port answers outside", || {
        fetch(&outside, ip(NODE), 8126)
    });
    let by_either_way =
        || [(server.ip(), 80), (ip(NODE), 8126)].map(|(to, port)| client.fetch(to, port));
    for page in by_either_way() {
        assert_eq!(page.unwrap(), "server");
    }
    daemon
        .vsctl(&["label", "pod", "server", "app=server"])
        .unwrap();
    daemon.apply(FRIENDS).unwrap();
    for page in by_either_way() {
        let error = format!("{:#}", page.unwrap_err());
        assert!(error.contains("exit Some(28)"), "dropped: {error}");
    }
    daemon
        .vsctl(&["label", "pod", "client", "app=friend"])
        .unwrap();
    for page in by_either_way() {
        assert_eq!(page.unwrap(), "server");
    }
    // The host outside is seen with its own address; the node itself reaches its pods.
    for from in [&outside, daemon.node()] {
        assert_eq!(fetch(from, ip(NODE), 8126).unwrap(), "server");
    }
    let page = fetch(daemon.node(), IpAddr::V4(Ipv4Addr::LOCALHOST), 8126);
    assert_eq!(page.unwrap(), "server", "on the node's loopback address");
}

#[test]
fn a_pod_reaches_itself_by_its_host_port() {
    let (daemon, _outside) = node();
    let server = server(&daemon, &json!([{"hostPort": 8126, "containerPort": 80}]));
    let _web = server.serve(80).unwrap();
    assert_eq!(server.fetch(ip(NODE), 8126).unwrap(), "server");
}

#[test]
fn a_host_port_of_one_address_is_on_no_other() {
    let (daemon, outside) = node();
    let node = daemon.node();
    node.ip(&["address", "add", "192.0.2.9/24", "dev", "uplink0"])
        .unwrap();
    let mapping = json!([{"hostPort": 8126, "containerPort": 80, "hostIP": "192.0.2.9"}]);
    let server = server(&daemon, &mapping);
    let client = Pod::named("client").attach(&daemon).unwrap();
    let _web = server.serve(80).unwrap();
    for from in [&outside, node, &client.netns] {
        let page = eventually("the host port answers", || {
            fetch(from, ip("192.0.2.9"), 8126)
        });
        assert_eq!(page, "server");
        let error = format!("{:#}", fetch(from, ip(NODE), 8126).unwrap_err());
        assert!(error.contains("exit Some(7)"), "refused: {error}");
    }
}

#[test]
fn datagrams_take_the_host_port_and_it_goes_with_its_container() {
    let (daemon, outside) = node();
    let mapping = json!([{"hostPort": 5300, "containerPort": 5353, "protocol": "udp"}]);
    let server = server(&daemon, &mapping);
    let client = Pod::named("client").attach(&daemon).unwrap();
    let bind = || Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5353))?);
    let socket = join(inside(&server.netns, bind).unwrap()).unwrap();
    let answers = std::thread::spawn(move || {
        let mut question = [0; 16];
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        for _ in 0..3 {
            let (_, from) = socket.recv_from(&mut question).unwrap();
            socket.send_to(b"server", from).unwrap();
        }
    });
    let ask = |from: &Namespace| {
        let ask = || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect((NODE, 5300))?;
            socket.set_read_timeout(Some(Duration::from_secs(2)))?;
            let mut answer = [0; 16];
            socket.send(b"who")?;
            let length = socket.recv(&mut answer)?;
            Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
        };
        join(inside(from, ask).unwrap())
    };
    eventually("the host port is led on", || {
        let rules = run_in(daemon.node(), &["nft", "list", "ruleset"])?.success()?;
        anyhow::ensure!(rules.contains("udp dport 5300"), "{rules}");
        Ok(())
    });
    for from in [&outside, &client.netns, daemon.node()] {
        assert_eq!(ask(from).unwrap(), "server");
    }
    answers.join().unwrap();
    drop(server);
    assert!(
        !daemon.vsctl(&["dump-flows"]).unwrap().contains("hostPort"),
        "DEL takes the host port away"
    );
    eventually("the node no longer leads it on", || {
        let rules = run_in(daemon.node(), &["nft", "list", "ruleset"])?.success()?;
        anyhow::ensure!(!rules.contains("5300"), "{rules}");
        Ok(())
    });
}

/// What another program translates on the node comes back with an address that may be anybody's.
#[test]
fn a_foreign_translation_on_the_node_does_not_make_a_pod_the_node() {
    let (daemon, outside) = node();
    let node = daemon.node();
    let server = Pod::named("server").attach(&daemon).unwrap();
    let client = Pod::named("client").attach(&daemon).unwrap();
    let _web = server.serve(80).unwrap();
    // As portmap with `snat` does it for a container that claims its whole subnet.
    let ruleset = format!(
        "table ip foreign {{
         chain prerouting {{ type nat hook prerouting priority dstnat;
         fib daddr type local tcp dport 8126 dnat to {}:80
         }}
         chain postrouting {{ type nat hook postrouting priority srcnat - 1;
         ip saddr 10.244.0.0/24 ip daddr {} masquerade
         }}
         }}",
        server.ip(),
        server.ip()
    );
    run(node.command("nft").args(["-f", "-"]), &ruleset)
        .unwrap()
        .success()
        .unwrap();
    assert_eq!(fetch(&outside, ip(NODE), 8126).unwrap(), "server");
    daemon
        .vsctl(&["label", "pod", "server", "app=server"])
        .unwrap();
    daemon.apply(FRIENDS).unwrap();
    client.fetch(server.ip(), 80).unwrap_err();
    client.fetch(ip(NODE), 8126).unwrap_err();
    assert_eq!(fetch(&outside, ip(NODE), 8126).unwrap(), "server");
}

#[test]
fn a_restart_keeps_host_ports() {
    let (mut daemon, outside) = node();
    let server = server(&daemon, &json!([{"hostPort": 8126, "containerPort": 80}]));
    let client = Pod::named("client").attach(&daemon).unwrap();
    let _web = server.serve(80).unwrap();
    daemon.stop(Signal::SIGKILL).unwrap();
    daemon.spawn().unwrap();
    assert_eq!(client.fetch(ip(NODE), 8126).unwrap(), "server");
    let page = eventually("the host port answers", || fetch(&outside, ip(NODE), 8126));
    assert_eq!(page, "server");
}

/// The same names and numbers mean the node's own programs where no container has the port.
#[test]
fn the_nodes_own_servers_keep_their_ports() {
    let (daemon, _outside) = node();
    let server = server(&daemon, &json!([{"hostPort": 8126, "containerPort": 80}]));
    let _web = server.serve(80).unwrap();
    let _own = serve(daemon.node(), "node", 8127).unwrap();
    assert_eq!(server.fetch(ip(NODE), 8127).unwrap(), "node");
}
