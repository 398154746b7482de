//! Live traces of real packets.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use vswitch_tests::{LiveTrace, eventually};

use crate::fast_path::{ask, connect, echo, flows, pods, returns_to_the_kernel, tracked, warm_up};
use crate::nodes::{dual_stack, serve_as_service};
use crate::{SECURE_POD, daemon};

/// Rules that a hop met, as kind and name of what they came from.
fn met(hop: &Value) -> Vec<(u64, String)> {
    let steps = hop["steps"].as_array().into_iter().flatten();
    let rules = steps.filter_map(|step| Some((step["table"].as_u64()?, step["flow"].as_object()?)));
    rules
        .map(|(table, flow)| (table, serde_json::to_string(flow).unwrap()))
        .collect()
}

fn has_met(hop: &Value, table: u64, named: &str) -> bool {
    let met = met(hop);
    met.iter()
        .any(|(of, rule)| *of == table && rule.contains(named))
}

#[test]
fn a_real_fetch_shows_the_rule_that_allows_it_in_both_directions() {
    let daemon = daemon();
    let [client, server] = &pods(&daemon);
    let _web = server.serve(80).unwrap();
    for (pod, label) in [
        ("server", "app=secure-pod"),
        ("client", "allow-access=true"),
    ] {
        daemon.vsctl(&["label", "pod", pod, label]).unwrap();
    }
    daemon.apply(SECURE_POD).unwrap();
    client.fetch(server.ip(), 80).unwrap();
    let trace = LiveTrace::begin(&daemon, &["client", "server:80", "--count", "4"]);
    client.fetch(server.ip(), 80).unwrap();
    let packets = trace.finish();
    assert_eq!(packets.len(), 4, "{packets:#?}");
    let hop = |at: usize| &packets[at]["hops"][0];
    let flags = |at: usize| hop(at)["packet"]["tcp_flags"].as_str().unwrap();
    assert_eq!((flags(0), flags(1), flags(2)), ("SYN", "SYN,ACK", "ACK"));
    let asks = hop(0);
    assert_eq!(asks["node"], daemon.node_name());
    assert_eq!(asks["in_port"], "default/client");
    assert_eq!(asks["way"], "default/server");
    assert_eq!(asks["verdict"], "forwarded");
    assert_eq!(asks["summary"], "allowed by default/secure-pod");
    assert!(has_met(asks, 80, "default/secure-pod"), "{asks}");
    assert!(asks["ct_state"].as_str().unwrap().contains("new"), "{asks}");
    let answers = hop(1);
    assert_eq!(answers["is_reply"], true);
    assert!(has_met(answers, 80, "default/secure-pod"), "{answers}");
    assert!(answers["ct_state"].as_str().unwrap().contains("rpl"));
}

#[test]
fn a_denied_fetch_shows_the_rule_that_denies_it() {
    let daemon = daemon();
    let [client, server] = &pods(&daemon);
    let _web = server.serve(80).unwrap();
    daemon
        .vsctl(&["label", "pod", "server", "app=secure-pod"])
        .unwrap();
    daemon.apply(SECURE_POD).unwrap();
    let trace = LiveTrace::begin(&daemon, &["client", "server:80", "--count", "1"]);
    client.fetch(server.ip(), 80).unwrap_err();
    let packets = trace.finish();
    let hop = &packets[0]["hops"][0];
    assert_eq!(hop["verdict"], "dropped");
    assert_eq!(hop["drop_reason"], "policy_ingress");
    assert!(
        hop["summary"]
            .as_str()
            .unwrap()
            .contains("default/secure-pod")
    );
    assert_eq!(hop["left_as"], Value::Null);
    assert!(has_met(hop, 81, "default/secure-pod"), "{hop}");
}

#[test]
fn of_a_service_packets_of_both_families_show_the_endpoint() {
    let daemon = dual_stack();
    let [client, server] = &pods(&daemon);
    let _web = server.serve(8080).unwrap();
    let ports = json!([{"name": "http", "port": 80, "targetPort": 8080}]);
    let endpoint_ports = json!([{"name": "http", "port": 8080}]);
    let addresses = ["10.96.0.7", "fd96::7"];
    serve_as_service(
        &daemon,
        server,
        ("web", addresses),
        (&ports, &endpoint_ports),
    );
    for (address, endpoint) in addresses.iter().zip(&server.addresses) {
        let service = address.parse().unwrap();
        eventually("the Service serves", || client.fetch(service, 80));
        let trace = LiveTrace::begin(&daemon, &["client", "svc/web:80", "--count", "2"]);
        client.fetch(service, 80).unwrap();
        let packets = trace.finish();
        let [asks, answers] = [0, 1].map(|at| &packets[at]["hops"][0]);
        let of = |address, port| std::net::SocketAddr::new(address, port).to_string();
        assert_eq!(asks["packet"]["destination"], of(service, 80));
        assert_eq!(asks["left_as"]["destination"], of(*endpoint, 8080));
        assert_eq!(asks["translation"]["endpoint"], of(*endpoint, 8080));
        assert_eq!(answers["is_reply"], true);
        assert_eq!(answers["packet"]["source"], of(*endpoint, 8080));
        assert_eq!(answers["left_as"]["source"], of(service, 80));
    }
}

#[test]
fn a_connection_that_the_kernel_forwards_is_traced_and_returns_there() {
    let daemon = daemon();
    let [client, server] = &pods(&daemon);
    echo(&server.netns, 80);
    let stream = connect(&client.netns, server.ip(), 80);
    warm_up(&stream);
    assert_eq!(flows(&daemon), 2);
    let endless = ["client", "server:80", "--count", "1000", "--for", "1h"];
    let trace = LiveTrace::begin(&daemon, &endless);
    for _ in 0..20 {
        ask(&stream, 100).unwrap();
    }
    let packets = eventually("packets are told of", || {
        let packets = trace.packets()?;
        ensure!(packets.len() >= 40, "{} of 40", packets.len());
        Ok(packets)
    });
    let hop = &packets[0]["hops"][0];
    assert_eq!(hop["was_in_kernel"], true, "{hop}");
    let last = packets.last().context("none").unwrap();
    assert_eq!(last["hops"][0]["was_in_kernel"], false);
    assert_eq!(tracked(&daemon, &stream)["offloaded"], false);
    // Whoever hangs up releases it.
    drop(trace);
    returns_to_the_kernel(&daemon, &stream);
}

#[test]
fn what_cannot_be_traced_is_named_and_a_peer_that_is_away_is_missing() {
    let daemon = daemon();
    let [client, server] = &pods(&daemon);
    let refused = |arguments: &[&str]| {
        let all = [&["trace", "--live"], arguments].concat();
        format!("{:#}", daemon.vsctl(&all).unwrap_err())
    };
    for (arguments, named) in [
        (&["nobody", "server:80"][..], "\"nobody\" is neither"),
        (&["client", "server"], "tcp needs a destination port"),
        (
            &["client", "server:80", "-c", "0"],
            "count: 0 is not within 1",
        ),
        (
            &["client", "server:80", "--for", "2h"],
            "seconds: 7200 is not",
        ),
        (
            &["client", "server:80", "--for", "soon"],
            "\"soon\" is no time",
        ),
        (
            &["client", "server:80", "--peer", "ftp://x"],
            "unknown scheme",
        ),
    ] {
        let refused = refused(arguments);
        assert!(refused.contains(named), "{arguments:?}: {refused}");
    }
    let away = "unix:///nowhere/api.sock";
    let trace = LiveTrace::begin(
        &daemon,
        &[
            "client", "server", "-p", "icmp", "--count", "2", "--peer", away,
        ],
    );
    assert!(client.pings(server.ip()).unwrap());
    let said = trace.said().unwrap();
    assert!(said.contains(away) && said.contains("missing"), "{said}");
    assert_eq!(trace.finish().len(), 2);
}
