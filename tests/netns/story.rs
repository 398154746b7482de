//! Two pods and one policy.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use vswitch_tests::{Daemon, Pod, eventually};

use crate::{SECURE_POD, daemon};

fn story_pods(daemon: &Daemon) -> (Pod, Pod) {
    let client = Pod::named("client").attach(daemon).unwrap();
    let server = Pod::named("server").attach(daemon).unwrap();
    daemon
        .vsctl(&["label", "pod", "server", "app=secure-pod"])
        .unwrap();
    (client, server)
}

#[test]
fn a_policy_blocks_the_fetch_and_a_label_admits_it_again() {
    let daemon = daemon();
    let (client, server) = story_pods(&daemon);
    let _web = server.serve(80).unwrap();
    assert_eq!(client.fetch(server.ip(), 80).unwrap(), "server");

    daemon.apply(SECURE_POD).unwrap();
    let error = format!("{:#}", client.fetch(server.ip(), 80).unwrap_err());
    assert!(
        error.contains("exit Some(28)"),
        "the fetch hangs until its time is over: {error}"
    );

    daemon
        .vsctl(&["label", "pod", "client", "allow-access=true"])
        .unwrap();
    assert_eq!(client.fetch(server.ip(), 80).unwrap(), "server");

    daemon
        .vsctl(&["label", "pod", "client", "allow-access-"])
        .unwrap();
    client.fetch(server.ip(), 80).unwrap_err();
    daemon
        .vsctl(&["delete", "networkpolicy", "secure-pod"])
        .unwrap();
    assert_eq!(client.fetch(server.ip(), 80).unwrap(), "server");
}

#[test]
fn a_new_policy_cuts_an_established_connection_at_once() {
    let daemon = daemon();
    let (client, server) = story_pods(&daemon);
    let mut listener = server
        .netns
        .command("busybox")
        .args(["nc", "-l", "-p", "80", "-e", "/bin/cat"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the echo server listens", || {
        let listening = server.run(&["ss", "-Hltn", "sport = :80"])?.success()?;
        anyhow::ensure!(!listening.trim().is_empty());
        Ok(())
    });
    let mut talk = client
        .netns
        .command("busybox")
        .args(["nc", &server.ip().to_string(), "80"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut to_server = talk.stdin.take().unwrap();
    let (sender, answers) = std::sync::mpsc::channel();
    let from_server = BufReader::new(talk.stdout.take().unwrap());
    std::thread::spawn(move || {
        for line in from_server.lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let wait = std::time::Duration::from_secs(2);
    let mut say = |line: &str| std::io::Write::write_all(&mut to_server, line.as_bytes()).unwrap();

    say("before\n");
    assert_eq!(answers.recv_timeout(wait * 3).unwrap(), "before");

    daemon.apply(SECURE_POD).unwrap();
    say("during\n");
    answers
        .recv_timeout(wait)
        .expect_err("a cut connection carries nothing");

    let trace = daemon
        .vsctl(&["trace", "default/client", "default/server:80"])
        .unwrap_err();
    assert!(
        format!("{trace:#}").contains("default/secure-pod"),
        "{trace:#}"
    );

    let connections = daemon.vsctl_json(&["dump-conntrack"]).unwrap();
    let connections = connections.as_array().unwrap();
    assert!(
        connections.iter().all(|c| c["dst_port"] != 80),
        "it is forgotten: {connections:?}"
    );

    talk.kill().unwrap();
    talk.wait().unwrap();
    listener.kill().unwrap();
    listener.wait().unwrap();
}

#[test]
fn trace_agrees_with_what_happens_and_names_the_policy() {
    let daemon = daemon();
    let (client, server) = story_pods(&daemon);
    let _web = server.serve(80).unwrap();
    daemon.apply(SECURE_POD).unwrap();
    client.fetch(server.ip(), 80).unwrap_err();

    let blocked = daemon
        .vsctl(&["trace", "client", "server:80", "-o", "json"])
        .unwrap_err();
    let text = format!("{blocked:#}");
    assert!(
        text.contains("\"policy_ingress\"") && text.contains("default/secure-pod"),
        "{text}"
    );

    daemon
        .vsctl(&["label", "pod", "client", "allow-access=true"])
        .unwrap();
    let trace = daemon
        .vsctl_json(&["trace", "client", "server:80"])
        .unwrap();
    assert_eq!(trace["allowed"], true);
    assert_eq!(trace["policies"][0], "default/secure-pod");
    client.fetch(server.ip(), 80).unwrap();

    let flows = daemon.vsctl_json(&["dump-flows", "80"]).unwrap();
    let hit = flows
        .as_array()
        .unwrap()
        .iter()
        .find(|flow| flow["origin"]["name"] == "default/secure-pod");
    assert!(hit.unwrap()["packets"].as_u64().unwrap() > 0, "{flows}");
}

#[test]
fn a_pod_to_its_neighbour_answers_ping_udp_and_tcp_and_counts_them() {
    let daemon = daemon();
    let client = Pod::named("a").attach(&daemon).unwrap();
    let server = Pod::named("b").attach(&daemon).unwrap();
    assert!(client.pings(server.ip()).unwrap());
    let ports = daemon.vsctl_json(&["show"]).unwrap();
    let port = |name: &str| {
        ports
            .as_array()
            .unwrap()
            .iter()
            .find(|port| port["pod"] == name)
            .unwrap()
            .clone()
    };
    for name in ["default/a", "default/b"] {
        assert!(
            port(name)["counters"]["rx_packets"].as_u64().unwrap() >= 1,
            "{ports}"
        );
        assert!(
            port(name)["counters"]["tx_packets"].as_u64().unwrap() >= 1,
            "{ports}"
        );
    }
    let connections = daemon.vsctl_json(&["dump-conntrack"]).unwrap();
    assert_eq!(connections[0]["protocol"], "icmp", "{connections}");
}
