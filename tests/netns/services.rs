//! Services: pods, the node and the outside reach endpoints, and nobody else has to translate.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use serde_json::{Value, json};
use vswitch_tests::{Daemon, Namespace, Pod, eventually, fetch, inside, join, run_in, serve};

use crate::daemon;
use crate::fast_path::{ask, connect, decided, echo, tracked, warm_up};
use crate::nodes::{dual_stack, outside};

const CLUSTER_IP: &str = "10.96.0.10";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A Service `web`: TCP 80 to 8080 and UDP 53 to 5353; `extra` is merged into its spec.
fn service(daemon: &Daemon, extra: &Value) {
    let mut spec = json!({
        "clusterIP": CLUSTER_IP,
        "ports": [
            {"name": "http", "port": 80, "targetPort": 8080},
            {"name": "dns", "port": 53, "targetPort": 5353, "protocol": "UDP"},
        ],
    });
    for (key, value) in extra.as_object().unwrap() {
        spec[key] = value.clone();
    }
    let service =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec});
    daemon.apply(&service.to_string()).unwrap();
}

/// The Service's EndpointSlice: addresses, each with conditions and whether it is here.
fn slice(daemon: &Daemon, endpoints: &[Value]) {
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [
            {"name": "http", "port": 8080, "protocol": "TCP"},
            {"name": "dns", "port": 5353, "protocol": "UDP"},
        ],
    });
    daemon.apply(&slice.to_string()).unwrap();
}

fn ready(address: IpAddr) -> Value {
    json!({"addresses": [address], "conditions": {"ready": true}})
}

fn pods<const N: usize>(daemon: &Daemon, names: [&str; N]) -> [Pod; N] {
    names.map(|name| Pod::named(name).attach(daemon).unwrap())
}

/// Answers each UDP datagram on port 5353 with the name, as long as the test runs.
fn answer_udp(pod: &Pod, name: &'static str) {
    let bind = || Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5353))?);
    let socket = join(inside(&pod.netns, bind).unwrap()).unwrap();
    std::thread::spawn(move || {
        let mut question = [0; 16];
        while let Ok((_, from)) = socket.recv_from(&mut question) {
            let _ = socket.send_to(name.as_bytes(), from);
        }
    });
}

/// A UDP socket in a pod, connected to port 53 of the Service.
fn ask_udp(pod: &Pod) -> UdpSocket {
    let connect = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((CLUSTER_IP, 53))?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        Ok(socket)
    };
    join(inside(&pod.netns, connect).unwrap()).unwrap()
}

fn asked(socket: &UdpSocket) -> std::io::Result<String> {
    let mut answer = [0; 16];
    socket.send(b"who")?;
    let length = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

#[test]
fn pods_and_the_node_reach_every_endpoint_of_a_cluster_ip_by_tcp() {
    let daemon = daemon();
    let [client, one, two] = &pods(&daemon, ["client", "one", "two"]);
    let _webs = (one.serve(8080).unwrap(), two.serve(8080).unwrap());
    service(&daemon, &json!({}));
    slice(&daemon, &[ready(one.ip()), ready(two.ip())]);
    for from in [&client.netns, daemon.node(), &one.netns] {
        let mut seen = [0, 0];
        for _ in 0..24 {
            match fetch(from, ip(CLUSTER_IP), 80).unwrap().as_str() {
                "one" => seen[0] += 1,
                "two" => seen[1] += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    }
}

#[test]
fn udp_clients_keep_their_endpoint_and_move_at_once_when_it_goes() {
    let daemon = daemon();
    let [client, one, two] = &pods(&daemon, ["client", "one", "two"]);
    answer_udp(one, "one");
    answer_udp(two, "two");
    service(&daemon, &json!({}));
    slice(&daemon, &[ready(one.ip()), ready(two.ip())]);
    let socket = ask_udp(client);
    let first = asked(&socket).unwrap();
    for _ in 0..3 {
        assert_eq!(asked(&socket).unwrap(), first);
    }
    let (left, name) = match first.as_str() {
        "one" => (two, "two"),
        "two" => (one, "one"),
        other => panic!("{other:?}"),
    };
    slice(&daemon, &[ready(left.ip())]);
    assert_eq!(asked(&socket).unwrap(), name);
}

#[test]
fn a_service_without_endpoints_refuses_at_once() {
    let daemon = daemon();
    let client = Pod::named("client").attach(&daemon).unwrap();
    service(&daemon, &json!({}));
    for from in [&client.netns, daemon.node()] {
        for port in [80, 81] {
            let error = format!("{:#}", fetch(from, ip(CLUSTER_IP), port).unwrap_err());
            assert!(
                error.contains("exit Some(7)"),
                "refused, no time-out: {error}"
            );
        }
    }
    let error = asked(&ask_udp(&client)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_pod_reaches_itself_through_its_service_and_is_never_its_own_peer_there() {
    let daemon = daemon();
    let pod = Pod::named("server").attach(&daemon).unwrap();
    let _web = pod.serve(8080).unwrap();
    service(&daemon, &json!({}));
    slice(&daemon, &[ready(pod.ip())]);
    assert_eq!(pod.fetch(ip(CLUSTER_IP), 80).unwrap(), "server");
    daemon
        .apply(
            &json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "closed"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}})
            .to_string(),
        )
        .unwrap();
    assert_eq!(pod.fetch(ip(CLUSTER_IP), 80).unwrap(), "server");
}

#[test]
fn egress_policies_see_the_endpoint_and_its_port_and_ingress_policies_the_client() {
    let daemon = daemon();
    let [client, one, two] = &pods(&daemon, ["client", "one", "two"]);
    daemon
        .vsctl(&["label", "pod", "client", "app=client"])
        .unwrap();
    daemon.vsctl(&["label", "pod", "one", "app=one"]).unwrap();
    let _webs = (one.serve(8080).unwrap(), two.serve(8080).unwrap());
    service(&daemon, &json!({}));
    slice(&daemon, &[ready(one.ip())]);
    let policy = |spec: Value| {
        let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "policy"}, "spec": spec});
        daemon.apply(&policy.to_string()).unwrap();
    };
    let egress = |port: u16, app: &str| {
        policy(
            json!({"podSelector": {"matchLabels": {"app": "client"}}, "policyTypes": ["Egress"],
            "egress": [{"to": [{"podSelector": {"matchLabels": {"app": app}}}],
                "ports": [{"port": port}]}]}),
        );
    };
    egress(8080, "one");
    assert_eq!(client.fetch(ip(CLUSTER_IP), 80).unwrap(), "one");
    egress(80, "one");
    client.fetch(ip(CLUSTER_IP), 80).unwrap_err();
    egress(8080, "other");
    client.fetch(ip(CLUSTER_IP), 80).unwrap_err();
    let ingress = |app: &str| {
        policy(
            json!({"podSelector": {"matchLabels": {"app": "one"}}, "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": app}}}]}]}),
        );
    };
    ingress("client");
    assert_eq!(client.fetch(ip(CLUSTER_IP), 80).unwrap(), "one");
    ingress("other");
    client.fetch(ip(CLUSTER_IP), 80).unwrap_err();
}

#[test]
fn a_tcp_connection_goes_on_while_its_endpoint_s_pod_runs_and_is_reset_then() {
    let daemon = daemon();
    let [client, server] = pods(&daemon, ["client", "server"]);
    let listen = || Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080))?);
    let listener = join(inside(&server.netns, listen).unwrap()).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut byte = [0];
            while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
        }
    });
    service(&daemon, &json!({}));
    slice(&daemon, &[ready(server.ip())]);
    let connect = || {
        let stream = TcpStream::connect((CLUSTER_IP, 80))?;
        stream.set_read_timeout(Some(Duration::from_secs(4)))?;
        Ok(stream)
    };
    let mut stream = join(inside(&client.netns, connect).unwrap()).unwrap();
    let mut echo = || {
        let mut byte = [0];
        stream.write_all(b"x")?;
        stream.read_exact(&mut byte)
    };
    echo().unwrap();
    // Terminating, it may finish what it has begun.
    let ends = json!({"addresses": [server.ip()],
        "conditions": {"ready": false, "serving": true, "terminating": true}});
    slice(&daemon, &[ends]);
    echo().unwrap();
    // It left the Service, but it runs.
    slice(&daemon, &[]);
    echo().unwrap();
    drop(server);
    assert_eq!(echo().unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_udp_client_that_sends_before_its_service_exists_is_served_by_its_next_datagram() {
    let daemon = daemon();
    let [client, server] = &pods(&daemon, ["client", "server"]);
    answer_udp(server, "server");
    let socket = ask_udp(client);
    socket
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    // More than a flow needs that is handed to the kernel.
    let before = || (0..20).filter(|_| asked(&socket).is_ok()).count();
    for _ in ["made", "made again"] {
        assert_eq!(before(), 0);
        service(&daemon, &json!({}));
        slice(&daemon, &[ready(server.ip())]);
        let answer = eventually("the client is served", || asked(&socket));
        assert_eq!(answer, "server");
        daemon.vsctl(&["delete", "service", "web"]).unwrap();
    }
}

#[test]
fn super_frames_are_translated_whole() {
    let daemon = daemon();
    let [client, server] = &pods(&daemon, ["client", "server"]);
    let page = "0123456789".repeat(1_000_000);
    let _web = serve(&server.netns, &page, 8080).unwrap();
    service(&daemon, &json!({}));
    slice(&daemon, &[ready(server.ip())]);
    for from in [&client.netns, daemon.node(), &server.netns] {
        assert!(fetch(from, ip(CLUSTER_IP), 80).unwrap() == page);
    }
    let status = daemon.vsctl_json(&["status"]).unwrap();
    assert!(status["drops"]["ct_invalid"].is_null(), "{status}");
}

#[test]
fn a_node_port_is_reached_from_outside_from_the_node_and_from_pods() {
    let daemon = daemon();
    let outside = outside(&daemon);
    let [client, server] = &pods(&daemon, ["client", "server"]);
    let _web = server.serve(8080).unwrap();
    service(
        &daemon,
        &json!({"type": "NodePort", "ports": [{"name": "http", "port": 80, "nodePort": 30080}]}),
    );
    slice(&daemon, &[ready(server.ip())]);
    eventually("the NodePort answers", || {
        fetch(&outside, ip("192.0.2.1"), 30080)
    });
    for from in [&outside, daemon.node(), &client.netns, &server.netns] {
        assert_eq!(fetch(from, ip("192.0.2.1"), 30080).unwrap(), "server");
    }
    // The pod sees who it is that asks.
    let seen = daemon.vsctl(&["dump-conntrack"]).unwrap();
    assert!(seen.contains("192.0.2.2"), "{seen}");
    daemon.vsctl(&["delete", "service", "web"]).unwrap();
    eventually("the NodePort is closed", || {
        match fetch(&outside, ip("192.0.2.1"), 30080) {
            Err(_) => Ok(()),
            Ok(page) => Err(page),
        }
    });
}

#[test]
fn a_process_of_the_node_serves_pods_and_the_node_through_a_service() {
    let daemon = daemon();
    let _outside = outside(&daemon);
    let client = Pod::named("client").attach(&daemon).unwrap();
    let _web = serve(daemon.node(), "node", 8080).unwrap();
    service(&daemon, &json!({}));
    slice(&daemon, &[ready(ip("192.0.2.1"))]);
    assert_eq!(client.fetch(ip(CLUSTER_IP), 80).unwrap(), "node");
    assert_eq!(fetch(daemon.node(), ip(CLUSTER_IP), 80).unwrap(), "node");
}

#[test]
fn an_endpoint_outside_serves_pods_the_node_and_node_port_clients() {
    let daemon = daemon();
    let outside = outside(&daemon);
    let far = Namespace::new("far").unwrap();
    let node = daemon.node();
    node.connect(
        "uplink1",
        "198.51.100.1/24",
        &far,
        "eth0",
        "198.51.100.2/24",
    )
    .unwrap();
    let client = Pod::named("client").attach(&daemon).unwrap();
    let _web = serve(&far, "far", 8080).unwrap();
    service(
        &daemon,
        &json!({"type": "NodePort", "ports": [{"name": "http", "port": 80, "nodePort": 30080}]}),
    );
    slice(&daemon, &[ready(ip("198.51.100.2"))]);
    assert_eq!(client.fetch(ip(CLUSTER_IP), 80).unwrap(), "far");
    assert_eq!(fetch(node, ip(CLUSTER_IP), 80).unwrap(), "far");
    let page = eventually("the NodePort answers", || {
        fetch(&outside, ip("192.0.2.1"), 30080)
    });
    assert_eq!(page, "far");
}

#[test]
fn external_and_load_balancer_addresses_lead_in_and_source_ranges_hold() {
    let daemon = daemon();
    let outside = outside(&daemon);
    outside
        .ip(&["route", "add", "203.0.113.0/24", "via", "192.0.2.1"])
        .unwrap();
    let [client, server] = &pods(&daemon, ["client", "server"]);
    let _web = server.serve(8080).unwrap();
    let balanced = |ranges: Value| {
        service(
            &daemon,
            &json!({"type": "LoadBalancer", "externalIPs": ["203.0.113.7"],
                "loadBalancerSourceRanges": ranges}),
        );
        let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.8"}]}}});
        let url = format!(
            "{}/api/v1/namespaces/default/services/web/status",
            daemon.api_url()
        );
        let patch = [
            "curl",
            "-sSf",
            "--noproxy",
            "*",
            "-X",
            "PATCH",
            "-H",
            "Content-Type: application/merge-patch+json",
            "-d",
            &status.to_string(),
            &url,
        ];
        run_in(daemon.node(), &patch).unwrap().success().unwrap();
    };
    balanced(json!([]));
    slice(&daemon, &[ready(server.ip())]);
    for address in ["203.0.113.7", "203.0.113.8"] {
        eventually("the address answers", || fetch(&outside, ip(address), 80));
        assert_eq!(client.fetch(ip(address), 80).unwrap(), "server");
    }
    balanced(json!(["192.0.2.0/30"]));
    assert_eq!(fetch(&outside, ip("203.0.113.8"), 80).unwrap(), "server");
    balanced(json!(["192.0.2.128/25"]));
    fetch(&outside, ip("203.0.113.8"), 80).unwrap_err();
    assert_eq!(fetch(&outside, ip("203.0.113.7"), 80).unwrap(), "server");
    let status = daemon.vsctl_json(&["status"]).unwrap();
    assert!(
        status["drops"]["service_source_denied"].as_u64() > Some(0),
        "{status}"
    );
}

#[test]
fn a_local_external_policy_keeps_to_this_node_and_tells_load_balancers() {
    let daemon = daemon();
    let outside = outside(&daemon);
    outside
        .ip(&["route", "add", "203.0.113.0/24", "via", "192.0.2.1"])
        .unwrap();
    let server = Pod::named("server").attach(&daemon).unwrap();
    let _web = server.serve(8080).unwrap();
    let node = daemon.vsctl_json(&["status"]).unwrap()["node"].clone();
    service(
        &daemon,
        &json!({"type": "LoadBalancer", "externalIPs": ["203.0.113.7"],
            "externalTrafficPolicy": "Local", "healthCheckNodePort": 32000}),
    );
    let at = |node: &Value| json!({"addresses": [server.ip()], "nodeName": node});
    slice(&daemon, &[at(&node)]);
    eventually("the address answers", || {
        fetch(&outside, ip("203.0.113.7"), 80)
    });
    let health = |code: &str| {
        let curl = [
            "curl",
            "-sS",
            "--noproxy",
            "*",
            "-w",
            "%{http_code}",
            "http://192.0.2.1:32000/",
        ];
        let answer = run_in(&outside, &curl)?.success()?;
        anyhow::ensure!(answer.ends_with(code), "{answer}");
        Ok(answer)
    };
    let answer = eventually("the health check is good", || health("200"));
    assert!(answer.contains("\"localEndpoints\":1"), "{answer}");
    slice(&daemon, &[at(&json!("elsewhere"))]);
    fetch(&outside, ip("203.0.113.7"), 80).unwrap_err();
    eventually("the health check is bad", || health("503"));
    // From inside the cluster an external address is as good as the ClusterIP.
    assert_eq!(
        fetch(daemon.node(), ip("203.0.113.7"), 80).unwrap(),
        "server"
    );
}

#[test]
fn a_client_with_affinity_meets_one_endpoint() {
    let daemon = daemon();
    let [client, servers @ ..] = &pods(&daemon, ["client", "one", "two", "three"]);
    let _webs: Vec<_> = servers.iter().map(|pod| pod.serve(8080).unwrap()).collect();
    service(&daemon, &json!({"sessionAffinity": "ClientIP"}));
    let all: Vec<Value> = servers.iter().map(|pod| ready(pod.ip())).collect();
    slice(&daemon, &all);
    let first = client.fetch(ip(CLUSTER_IP), 80).unwrap();
    for _ in 0..12 {
        assert_eq!(client.fetch(ip(CLUSTER_IP), 80).unwrap(), first);
    }
}

#[test]
fn both_families_of_a_dual_stack_service_lead_to_their_endpoints() {
    let daemon = dual_stack();
    let [client, server] = &pods(&daemon, ["client", "server"]);
    let _web = server.serve(8080).unwrap();
    service(
        &daemon,
        &json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"],
            "clusterIPs": [CLUSTER_IP, "fd96::10"]}),
    );
    slice(&daemon, &[ready(server.ip())]);
    let v6 = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "web-6", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv6",
        "endpoints": [{"addresses": [server.addresses[1]]}],
        "ports": [{"name": "http", "port": 8080}],
    });
    daemon.apply(&v6.to_string()).unwrap();
    for address in [CLUSTER_IP, "fd96::10"] {
        for from in [&client.netns, daemon.node(), &server.netns] {
            assert_eq!(fetch(from, ip(address), 80).unwrap(), "server", "{address}");
        }
    }
}

#[test]
fn a_selector_is_enough_in_standalone_mode() {
    let daemon = daemon();
    let [client, one, two] = pods(&daemon, ["client", "one", "two"]);
    let _webs = (one.serve(8080).unwrap(), two.serve(8080).unwrap());
    let spec = json!({"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]});
    let service =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec});
    daemon.apply(&service.to_string()).unwrap();
    let made = daemon.vsctl_json(&["get", "service", "web"]).unwrap();
    let address = ip(made["spec"]["clusterIP"].as_str().unwrap());
    let refused = format!("{:#}", client.fetch(address, 80).unwrap_err());
    assert!(refused.contains("exit Some(7)"), "{refused}");
    for name in ["one", "two"] {
        daemon.vsctl(&["label", "pod", name, "app=web"]).unwrap();
        assert!(["one", "two"].contains(&client.fetch(address, 80).unwrap().as_str()));
    }
    drop(one);
    for _ in 0..8 {
        assert_eq!(client.fetch(address, 80).unwrap(), "two");
    }
    daemon.vsctl(&["delete", "service", "web"]).unwrap();
    let groups = daemon.vsctl_json(&["dump-groups"]).unwrap();
    assert_eq!(groups, json!([]));
}

#[test]
fn operators_see_what_a_service_does_and_why_it_does_not() {
    let daemon = daemon();
    let [client, one, two] = &pods(&daemon, ["client", "one", "two"]);
    daemon
        .vsctl(&["label", "pod", "one", "app=secure-pod"])
        .unwrap();
    let _webs = (one.serve(8080).unwrap(), two.serve(8080).unwrap());
    service(&daemon, &json!({}));
    slice(&daemon, &[ready(one.ip()), ready(two.ip())]);
    client.fetch(ip(CLUSTER_IP), 80).unwrap();
    let groups = daemon.vsctl(&["dump-groups"]).unwrap();
    let bucket = format!("bucket={}:8080", one.ip());
    assert!(
        groups.contains("name=default/web:80/TCP") && groups.contains(&bucket),
        "{groups}"
    );
    let connections = daemon.vsctl(&["dump-conntrack"]).unwrap();
    assert!(
        connections.contains("10.96.0.10:80 (to 10.244.0."),
        "{connections}"
    );
    let status = daemon.vsctl(&["status"]).unwrap();
    assert!(
        status.contains("1 services") && status.contains("the node and NodePorts"),
        "{status}"
    );

    for to in ["svc/web:80", "svc/default/web:80", "10.96.0.10:80"] {
        let trace = daemon.vsctl(&["trace", "client", to]).unwrap();
        assert!(
            trace.contains("through service default/web:80/TCP to 10.244.0."),
            "{trace}"
        );
    }
    let explain = |to: &str| {
        let mut vsctl = std::process::Command::new(vswitch_tests::binary("vsctl"));
        vsctl.arg("--socket").arg(daemon.socket());
        vswitch_tests::run(vsctl.args(["explain", "client", to]), "").unwrap()
    };
    let free = explain("svc/web:80");
    assert!(free.stdout.contains("2 of 2 endpoints"), "{}", free.stdout);
    assert_eq!(free.code, Some(0));
    daemon.apply(crate::SECURE_POD).unwrap();
    let denied = explain("svc/web:80");
    assert_eq!(denied.code, Some(2));
    for part in ["1 of 2 endpoints", "default/one", "default/secure-pod"] {
        assert!(denied.stdout.contains(part), "{part}: {}", denied.stdout);
    }
    assert!(explain("svc/none:80").stderr.contains("default/none"));
    slice(&daemon, &[]);
    let empty = explain("svc/web:80");
    assert_eq!(empty.code, Some(2));
    assert!(
        empty.stdout.contains("service_no_endpoints"),
        "{}",
        empty.stdout
    );
}

#[test]
fn with_kube_proxy_left_on_nothing_breaks_and_status_says_who_serves_what() {
    let daemon = daemon();
    let outside = outside(&daemon);
    let [client, server] = &pods(&daemon, ["client", "server"]);
    let _web = server.serve(8080).unwrap();
    // What kube-proxy's nftables mode comes to for one Service with one endpoint.
    let rules = format!(
        "table ip kube-proxy {{
           chain services {{
             ip daddr {CLUSTER_IP} tcp dport 80 counter dnat to {endpoint}:8080
             fib daddr type local tcp dport 30080 counter dnat to {endpoint}:8080
           }}
           chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump services; }}
           chain nat-output {{ type nat hook output priority -100; jump services; }}
         }}",
        endpoint = server.ip()
    );
    vswitch_tests::run(daemon.node().command("nft").args(["-f", "-"]), &rules)
        .unwrap()
        .success()
        .unwrap();
    service(
        &daemon,
        &json!({"type": "NodePort", "ports": [{"name": "http", "port": 80, "nodePort": 30080}]}),
    );
    slice(&daemon, &[ready(server.ip())]);
    for (from, to, port) in [
        (&client.netns, CLUSTER_IP, 80),
        (daemon.node(), CLUSTER_IP, 80),
        (daemon.node(), "192.0.2.1", 30080),
        (&outside, "192.0.2.1", 30080),
        (&server.netns, CLUSTER_IP, 80),
    ] {
        assert_eq!(fetch(from, ip(to), port).unwrap(), "server", "{to}:{port}");
    }
    // Pods were served by the switch, the others by kube-proxy.
    let counters = daemon
        .node()
        .command("nft")
        .args(["list", "table", "ip", "kube-proxy"])
        .output();
    let counters = String::from_utf8(counters.unwrap().stdout).unwrap();
    assert_eq!(counters.matches("packets 1 ").count(), 1, "{counters}");
    assert_eq!(counters.matches("packets 2 ").count(), 1, "{counters}");
    eventually("status says who serves what", || {
        let status = daemon.vsctl(&["status"])?;
        anyhow::ensure!(
            status.contains("kube-proxy (nftables) serves the node"),
            "{status}"
        );
        Ok(())
    });
}

#[test]
fn a_connection_to_a_service_goes_past_the_workers_after_its_first_packet() {
    let daemon = daemon();
    let [client, server] = &pods(&daemon, ["client", "server"]);
    echo(&server.netns, 8080);
    service(&daemon, &json!({}));
    slice(&daemon, &[ready(server.ip())]);
    // From a pod, from the node through the gateway, and from the endpoint to itself.
    for from in [&client.netns, daemon.node(), &server.netns] {
        warm_up(&connect(from, ip(CLUSTER_IP), 80));
        let before = decided(&daemon);
        let stream = connect(from, ip(CLUSTER_IP), 80);
        for _ in 0..20 {
            ask(&stream, 100).unwrap();
            ask(&stream, 200_000).unwrap();
        }
        let took = decided(&daemon) - before;
        assert!((1..=5).contains(&took), "{took} packets");
        assert_eq!(tracked(&daemon, &stream)["offloaded"], true);
        let port = stream.local_addr().unwrap().port();
        drop(stream);
        eventually("it is closed", || {
            let connections = daemon.vsctl_json(&["dump-conntrack"]).unwrap();
            let all = connections.as_array().unwrap().iter();
            let own = all.filter(|one| one["src_port"] == port);
            let states: Vec<_> = own.map(|one| one["state"].clone()).collect();
            if states == ["TIME_WAIT"] {
                Ok(())
            } else {
                Err(states)
            }
        });
    }
    let drops = daemon.vsctl_json(&["status"]).unwrap()["drops"].clone();
    assert_eq!(drops["ct_invalid"], Value::Null, "{drops}");
}
