//! What `kubectl describe pod` says of a fetch that hangs.

use std::time::Duration;

use serde_json::{Value, json};
use vswitch_tests::{Daemon, DaemonOptions, Pod, WebServer, eventually, eventually_within};

use super::{SECURE_POD, client_and_server, with_each_kubectl};

const CURE: &str = "pod default/client lacks label allow-access=true; would pass with label \
    allow-access=true on pod default/client";

/// Client, and a server that the policy of these tests selects.
fn pods(daemon: &Daemon) -> (Pod, Pod, WebServer) {
    let pods = client_and_server(daemon, 80);
    daemon
        .vsctl(&["label", "pod", "server", "app=secure-pod"])
        .unwrap();
    pods
}

/// The Events that `kubectl describe` asks for, of a Pod.
fn events_of(daemon: &Daemon, name: &str) -> Vec<Value> {
    let path = format!("/api/v1/namespaces/default/pods/{name}");
    let pod = daemon.api("GET", &path, None).unwrap().unwrap();
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let selector = format!(
        "involvedObject.uid={uid},involvedObject.name={name},involvedObject.namespace=default,\
         involvedObject.kind=Pod"
    );
    let selector = selector.replace('=', "%3D").replace(',', "%2C");
    let path = format!("/api/v1/namespaces/default/events?fieldSelector={selector}");
    let list = daemon.api("GET", &path, None).unwrap().unwrap();
    list["items"].as_array().unwrap().clone()
}

fn the_one_event(daemon: &Daemon, name: &str) -> anyhow::Result<Value> {
    let mut events = events_of(daemon, name);
    anyhow::ensure!(events.len() == 1, "{events:?}");
    Ok(events.remove(0))
}

#[test]
fn describe_says_which_policy_denied_the_fetch_and_which_label_would_help() {
    with_each_kubectl(|kubectl, daemon| {
        let (client, server, _web) = pods(daemon);
        kubectl
            .with_input(&["apply", "-f", "-"], SECURE_POD)
            .unwrap();
        client.fetch(server.ip(), 80).unwrap_err();
        let [client, server] = ["client", "server"]
            .map(|name| eventually("it is noted", || the_one_event(daemon, name)));
        let message = |event: &Value| event["message"].as_str().unwrap().to_owned();
        let of_client = message(&client);
        let denied = "TCP 80 to default/server denied by default/secure-pod (ingress): ";
        assert!(of_client.starts_with(denied), "{of_client}");
        assert!(of_client.ends_with(CURE), "{of_client}");
        let of_server = message(&server);
        let denied = "TCP 80 from default/client denied by default/secure-pod (ingress): ";
        assert!(of_server.starts_with(denied), "{of_server}");
        assert_eq!(client["type"], "Warning");
        assert_eq!(client["reason"], "PolicyDenied");
        assert!(client["count"].as_u64() > Some(0), "{client}");
        let described = kubectl.run(&["describe", "pod", "client"]);
        for told in ["PolicyDenied", "vswitchd", &of_client] {
            assert!(described.contains(told), "{told:?} in {described}");
        }
    });
}

#[test]
fn the_event_counts_up_while_it_goes_on() {
    let daemon = super::daemon();
    let (client, server, _web) = pods(&daemon);
    daemon.apply(SECURE_POD).unwrap();
    let fetch = || client.fetch(server.ip(), 80).unwrap_err();
    fetch();
    let first = eventually("it is noted", || the_one_event(&daemon, "client"));
    // After the first pause, with what was denied meanwhile.
    eventually_within(Duration::from_secs(120), "it counts up", || {
        fetch();
        let event = the_one_event(&daemon, "client")?;
        let counts = [&event, &first].map(|of| of["count"].as_u64());
        anyhow::ensure!(counts[0] > counts[1], "{event}");
        assert_eq!(event["metadata"]["name"], first["metadata"]["name"]);
        Ok(())
    });
}

#[test]
fn the_configuration_switches_events_about_denials_off_and_no_others() {
    let mut daemon = Daemon::prepare(&DaemonOptions::default()).unwrap();
    daemon.set("flows.events", "false");
    daemon.spawn().unwrap();
    let (client, server, _web) = pods(&daemon);
    daemon.apply(SECURE_POD).unwrap();
    client.fetch(server.ip(), 80).unwrap_err();
    let why = daemon.vsctl(&["why", "client"]).unwrap();
    assert!(why.contains("denied by default/secure-pod"), "{why}");
    // Is noted after it, and written behind it.
    let part = json!({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "hosts"}, "spec": {"selector": "all()", "doNotTrack": true,
        "applyOnForward": true}});
    daemon.apply(&part.to_string()).unwrap();
    eventually("another Event is there", || {
        let list = daemon.api("GET", "/api/v1/events", None)?.unwrap();
        let mut all = list["items"].as_array().unwrap().iter();
        anyhow::ensure!(all.any(|event| event["reason"] == "NotEnforced"), "{list}");
        Ok(())
    });
    for pod in ["client", "server"] {
        assert_eq!(events_of(&daemon, pod), [] as [Value; 0]);
    }
}
