//! Probes on behalf of pods: what each says, and that nobody notices and nothing is left.

use std::net::{Ipv6Addr, UdpSocket};

use serde_json::{Value, json};
use vswitch_tests::{Daemon, Output, Pod, RawSocket, binary, eventually, inside, join, run};

use crate::fast_path::pods;
use crate::nodes::{dual_stack, outside, serve_as_service};
use crate::{SECURE_POD, daemon};

fn ping(daemon: &Daemon, arguments: &[&str]) -> Output {
    let mut vsctl = daemon.node().command(binary("vsctl"));
    vsctl.arg("--socket").arg(daemon.socket()).arg("ping");
    run(vsctl.args(arguments), "").unwrap()
}

/// Returns what one probe came to, and the exit code.
fn probe(daemon: &Daemon, from: &str, to: &str, flags: &[&str]) -> (Value, i32) {
    let output = ping(daemon, &[&[from, to, "-o", "json"], flags].concat());
    let results: Value =
        serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{from} {to}: {output:?}"));
    (results[0].clone(), output.code.unwrap())
}

#[track_caller]
fn ends(result: &(Value, i32), outcome: &str, code: i32) {
    assert_eq!(
        (result.0["outcome"].as_str(), result.1),
        (Some(outcome), code),
        "{}",
        result.0
    );
}

fn connections(daemon: &Daemon) -> Value {
    daemon.vsctl_json(&["dump-conntrack"]).unwrap()
}

/// Sockets of a pod, all but listening ones.
fn sockets(pod: &Pod) -> String {
    let list = ["ss", "--no-header", "--tcp", "--udp", "--numeric"];
    pod.run(&list).unwrap().success().unwrap()
}

/// An open UDP socket that answers with this, if with anything.
fn udp(pod: &Pod, port: u16, answer: Option<&'static [u8]>) {
    let bind = move || Ok(UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?);
    let socket = join(inside(&pod.netns, bind).unwrap()).unwrap();
    std::thread::spawn(move || {
        let mut question = [0; 16];
        while let Ok((_, from)) = socket.recv_from(&mut question) {
            if let Some(answer) = answer {
                socket.send_to(answer, from).unwrap();
            }
        }
    });
}

#[test]
fn the_pod_hears_nothing_of_a_probe_and_no_connection_is_left_anywhere() {
    let daemon = daemon();
    let [client, server] = &pods(&daemon);
    // Neighbour discovery comes at any time.
    client
        .netns
        .set_sysctl("net.ipv6.conf.all.disable_ipv6", "1")
        .unwrap();
    let _web = server.serve(80).unwrap();
    udp(server, 53, Some(b"yes"));
    let raw = RawSocket::open(&client.netns, "eth0").unwrap();
    raw.drain().unwrap();
    for (to, flags, outcome, code, kind) in [
        ("server:80", &[][..], "answered", 0, "syn_ack"),
        ("server:81", &[], "refused", 3, "reset"),
        ("server:53", &["--udp"], "answered", 0, "datagram"),
        ("server:54", &["--udp"], "refused", 3, "icmp_error"),
        ("server", &[], "answered", 0, "echo_reply"),
    ] {
        let result = probe(&daemon, "client", to, flags);
        ends(&result, outcome, code);
        let answer = &result.0["answer"];
        assert_eq!(answer["kind"], kind, "{answer}");
        assert_eq!(answer["from"], server.ip().to_string());
        assert_eq!(result.0["way"], "default/server");
        assert_eq!(connections(&daemon), json!([]), "after {to}");
    }
    assert_eq!(raw.drain().unwrap(), 0, "no frame came in or went out");
    assert_eq!(sockets(client), "");
    assert_eq!(sockets(server), "", "nothing half-open");
}

#[test]
fn a_count_is_sent_and_summed_up() {
    let daemon = daemon();
    let [_client, server] = &pods(&daemon);
    let _web = server.serve(80).unwrap();
    let said = ping(&daemon, &["client", "server:80", "-c", "2"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let lines: Vec<&str> = said.stdout.lines().collect();
    let [first, second, "", figures] = lines[..] else {
        panic!("{said:?}");
    };
    let answered = format!("answered by {}: SYN-ACK, after ", server.ip());
    assert!(first.starts_with(&format!("1: {answered}")), "{first}");
    assert!(second.starts_with(&format!("2: {answered}")), "{second}");
    assert!(figures.starts_with("2 sent, 2 answered, "), "{figures}");
}

#[test]
fn a_denied_probe_names_the_policy_and_the_cure_and_is_recorded() {
    let daemon = daemon();
    let [client, server] = &pods(&daemon);
    let _web = server.serve(80).unwrap();
    daemon
        .vsctl(&["label", "pod", "server", "app=secure-pod"])
        .unwrap();
    daemon.apply(SECURE_POD).unwrap();
    client.fetch(server.ip(), 80).unwrap_err();

    let result = probe(&daemon, "client", "server:80", &[]);
    ends(&result, "denied", 2);
    let result = &result.0;
    assert_eq!(result["drop_reason"], "policy_ingress");
    assert_eq!(result["policies"], json!(["default/secure-pod"]));
    let miss = &result["explanation"]["ingress"]["near_misses"][0];
    assert_eq!(miss["rule"]["policy"], "default/secure-pod");
    let cure = "would pass with label allow-access=true on pod default/client";
    assert_eq!(miss["advice"]["text"], cure);
    let said = ping(&daemon, &["client", "server:80"]);
    assert!(said.stdout.contains(cure), "{said:?}");
    eventually("the denial of the probe is recorded as the pod's", || {
        let records = daemon.vsctl_json(&["flows", "--denied", "--to", "default/server"])?;
        let packets = &records["records"][0]["packets"];
        // Besides what was tried before: curl's SYN, repeated as long as that waited.
        anyhow::ensure!(packets.as_u64() >= Some(3), "{records}");
        Ok(())
    });

    daemon
        .vsctl(&["label", "pod", "client", "allow-access=true"])
        .unwrap();
    ends(&probe(&daemon, "client", "server:80", &[]), "answered", 0);
    // Policies admit port 80 alone.
    ends(&probe(&daemon, "client", "server:81", &[]), "denied", 2);
}

#[test]
fn a_probe_that_nobody_answers_waits_as_long_as_it_is_told() {
    let daemon = daemon();
    let [_client, server] = &pods(&daemon);
    udp(server, 53, None);
    let result = probe(&daemon, "client", "server:53/udp", &["--timeout", "200"]);
    ends(&result, "no_answer", 4);
    assert_eq!(
        result.0["summary"],
        "no answer within 200 ms; it was sent to default/server"
    );
    assert_eq!(connections(&daemon), json!([]));
}

#[test]
fn ipv6_is_probed_as_ipv4_is() {
    let daemon = dual_stack();
    let [_client, server] = &pods(&daemon);
    let _web = server.serve(80).unwrap();
    let v6 = server.addresses[1].to_string();
    for (to, flags, outcome, code) in [
        (format!("[{v6}]:80"), &[][..], "answered", 0),
        (format!("[{v6}]:81"), &[], "refused", 3),
        (format!("[{v6}]:53"), &["--udp"], "refused", 3),
        (v6.clone(), &[], "answered", 0),
    ] {
        let result = probe(&daemon, "client", &to, flags);
        ends(&result, outcome, code);
        assert_eq!(result.0["answer"]["from"], v6);
    }
    assert_eq!(connections(&daemon), json!([]));
}

#[test]
fn a_service_answers_by_an_endpoint_and_keeps_no_affinity_of_a_probe() {
    let daemon = dual_stack();
    let [_client, server] = &pods(&daemon);
    let _web = server.serve(8080).unwrap();
    let ports = json!([{"name": "http", "port": 80, "targetPort": 8080}]);
    let endpoint_ports = json!([{"name": "http", "port": 8080}]);
    serve_as_service(
        &daemon,
        server,
        ("web", ["10.96.0.7", "fd96::7"]),
        (&ports, &endpoint_ports),
    );
    let result = eventually("the Service answers", || {
        let result = probe(&daemon, "client", "svc/web:80", &[]);
        anyhow::ensure!(result.1 == 0, "{}", result.0);
        Ok(result)
    });
    assert_eq!(result.0["answer"]["from"], "10.96.0.7");
    let endpoint = format!("{}:8080", server.ip());
    assert_eq!(result.0["endpoint"], endpoint);
    assert_eq!(connections(&daemon), json!([]));
}

#[test]
fn what_is_outside_answers_through_the_gateway() {
    let daemon = daemon();
    let [_client, _server] = &pods(&daemon);
    let outside = outside(&daemon);
    let _web = vswitch_tests::serve(&outside, "outside", 80).unwrap();
    let result = probe(&daemon, "client", "192.0.2.2:80", &[]);
    ends(&result, "answered", 0);
    let way = "outside of the cluster, by vsw0 and the uplink";
    assert_eq!(result.0["way"], way);
    let of_node = probe(&daemon, "client", "192.0.2.1:80", &[]);
    ends(&of_node, "refused", 3);
}

#[test]
fn what_cannot_be_probed_is_named() {
    let daemon = daemon();
    let [_client, _server] = &pods(&daemon);
    for (arguments, code, named) in [
        (&["nobody", "server:80"][..], 2, "\"nobody\" is neither"),
        (&["client", "svc/nobody:80"], 2, "no service default/nobody"),
        (&["node", "server:80"], 2, "\"node\" is no pod on node"),
        (&["192.0.2.9", "server:80"], 2, "\"192.0.2.9\" is no pod"),
        (&["client", "server:80/sctp"], 1, "there is no probe of"),
        (
            &["client", "server", "--udp"],
            1,
            "udp needs a destination port",
        ),
        (&["client", "server:80", "--timeout", "0"], 64, "--timeout"),
        (&["client", "server:80", "-c", "0"], 64, "--count"),
    ] {
        let said = ping(&daemon, arguments);
        assert_eq!(said.code, Some(code), "{arguments:?}: {said:?}");
        assert!(said.stderr.contains(named), "{arguments:?}: {said:?}");
    }
}
