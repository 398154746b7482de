//! What of the cluster's objects is not enforced, as status, log, Events and explanations have it.

use serde_json::{Value, json};
use vswitch_tests::{Daemon, DaemonOptions, Pod, eventually, run};

use super::{Kubectl, daemon, with_each_kubectl};

fn of_calico(kind: &str, name: &str, spec: &Value) -> String {
    json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name},
        "spec": spec})
    .to_string()
}

/// A HostEndpoint of this node and one of another, a policy for hosts, one of which a part is not
/// served and that selects a pod here.
fn unenforced() -> Vec<String> {
    let endpoint = |node: &str| json!({"node": node, "interfaceName": "eth0"});
    let hosts = json!({"selector": "all()", "doNotTrack": true, "applyOnForward": true});
    let methods = json!({"methods": ["GET"]});
    let web = json!({"selector": "app == 'web'",
        "ingress": [{"action": "Allow", "http": methods}, {"action": "Log"}]});
    vec![
        of_calico("HostEndpoint", "node-a-eth0", &endpoint("node-a")),
        of_calico("HostEndpoint", "node-b-eth0", &endpoint("node-b")),
        of_calico("GlobalNetworkPolicy", "hosts", &hosts),
        of_calico("GlobalNetworkPolicy", "web", &web),
    ]
}

fn apply_all(daemon: &Daemon) -> Pod {
    let pod = Pod::named("web").attach(daemon).unwrap();
    daemon.vsctl(&["label", "pods", "web", "app=web"]).unwrap();
    for object in unenforced() {
        daemon.apply(&object).unwrap();
    }
    pod
}

/// Reason, kind and name of the object, message, of all Events.
fn events(daemon: &Daemon) -> Vec<(Value, String, Value)> {
    let list = daemon.api("GET", "/api/v1/events", None).unwrap().unwrap();
    let event = |of: &Value| {
        let object = &of["involvedObject"];
        let (kind, name) = (&object["kind"], &object["name"]);
        let object = [kind, name].map(|text| text.as_str().unwrap());
        (
            of["reason"].clone(),
            object.join(" "),
            of["message"].clone(),
        )
    };
    let mut events: Vec<_> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(event)
        .collect();
    events.sort_by_key(|(_, object, _)| object.clone());
    events
}

#[test]
fn what_of_calicos_has_no_effect_is_counted_and_named() {
    let mut daemon = daemon();
    let _web = apply_all(&daemon);
    let status = daemon.vsctl(&["status"]).unwrap();
    for problem in [
        "HostEndpoints: 2 without effect, policies are enforced on pods alone: node-a-eth0, node-b-eth0",
        "policy calico:hosts doNotTrack: has no effect here",
        "policy calico:web ingress[0].http:",
        "policy calico:web ingress[1].action: Log has no effect here",
    ] {
        let named = format!("PROBLEM       {problem}");
        assert!(status.contains(&named), "{problem}: {status}");
    }
    let shown = daemon.vsctl(&["get", "hostendpoints"]).unwrap();
    assert!(
        shown.contains("node-a-eth0") && shown.contains("eth0"),
        "{shown}"
    );

    daemon.stop(nix::sys::signal::Signal::SIGTERM).unwrap();
    let before = daemon.log().len();
    daemon.spawn().unwrap();
    eventually("the log counts it", || {
        let log = daemon.log().split_off(before);
        let is_summary = |line: &&str| line.contains("parts of Calico's objects have no effect");
        let summaries: Vec<&str> = log.lines().filter(is_summary).collect();
        anyhow::ensure!(summaries.len() == 1, "{log}");
        for count in ["host_endpoints=2", "action 1, doNotTrack 1, http 1"] {
            anyhow::ensure!(summaries[0].contains(count), "{log}");
        }
        anyhow::ensure!(log.contains("node-a-eth0, node-b-eth0"), "{log}");
        Ok(())
    });
}

#[test]
fn an_event_on_each_object_says_what_of_it_is_not_enforced() {
    let daemon = daemon();
    let _web = apply_all(&daemon);
    let reason = || json!("NotEnforced");
    eventually("all are noted", || {
        let events = events(&daemon);
        let [hosts, web, endpoint] = &events[..] else {
            anyhow::bail!("{events:?}");
        };
        anyhow::ensure!((&hosts.0, &web.0, &endpoint.0) == (&reason(), &reason(), &reason()));
        let objects = [&hosts.1, &web.1, &endpoint.1];
        anyhow::ensure!(
            objects
                == [
                    "GlobalNetworkPolicy hosts",
                    "GlobalNetworkPolicy web",
                    "HostEndpoint node-a-eth0"
                ],
            "that of another node is noted there: {events:?}"
        );
        let message = web.2.as_str().unwrap();
        anyhow::ensure!(
            message.starts_with("not enforced as it is written: ingress[0].http: "),
            "{message}"
        );
        anyhow::ensure!(
            message.contains("; ingress[1].action: Log has no effect"),
            "{message}"
        );
        Ok(())
    });
}

#[test]
fn kubectl_shows_events_of_objects_and_writes_none() {
    with_each_kubectl(|kubectl, daemon| {
        let _web = apply_all(daemon);
        eventually("all are noted", || {
            anyhow::ensure!(events(daemon).len() == 3);
            Ok(())
        });
        let shown = kubectl.run(&["get", "events"]);
        for part in [
            "LAST SEEN",
            "Warning",
            "NotEnforced",
            "globalnetworkpolicy/hosts",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        let of_web = [
            "get",
            "events",
            "--field-selector=involvedObject.name=web",
            "-o",
            "name",
        ];
        let shown = kubectl.run(&of_web);
        assert!(
            shown.starts_with("event/web.") && shown.lines().count() == 1,
            "{shown}"
        );
        let described = kubectl.run(&["describe", "globalnetworkpolicy", "hosts"]);
        for part in [
            "Events:",
            "NotEnforced",
            "doNotTrack: has no effect here",
            "vswitchd",
        ] {
            assert!(described.contains(part), "{part}: {described}");
        }
        let event = shown.trim();
        let told = kubectl.fails(&["delete", event], "");
        assert!(
            told.contains("not allow") || told.contains("MethodNotAllowed"),
            "{told}"
        );
    });
}

#[test]
fn events_are_served_in_both_groups_in_the_form_of_each() {
    let daemon = daemon();
    let hosts = unenforced().remove(2);
    let watch = "/api/v1/namespaces/default/events?watch=1&timeoutSeconds=5";
    let watched = std::thread::scope(|scope| {
        let watched = scope.spawn(|| daemon.text(watch).unwrap());
        daemon.apply(&hosts).unwrap();
        watched.join().unwrap()
    });
    let event: Value = serde_json::from_str(watched.lines().next().unwrap()).unwrap();
    assert_eq!(event["type"], "ADDED", "{watched}");
    let name = event["object"]["metadata"]["name"].as_str().unwrap();
    let get = |root: &str| {
        let path = format!("{root}/namespaces/default/events/{name}");
        daemon.api("GET", &path, None).unwrap().unwrap()
    };
    let (core, group) = (get("/api/v1"), get("/apis/events.k8s.io/v1"));
    assert_eq!(core, event["object"]);
    assert_eq!(
        (&core["apiVersion"], &core["count"]),
        (&json!("v1"), &json!(1))
    );
    assert_eq!(group["apiVersion"], "events.k8s.io/v1");
    assert_eq!(core["involvedObject"], group["regarding"]);
    assert_eq!(core["message"], group["note"]);
    assert_eq!(core["count"], group["deprecatedCount"]);
    assert_eq!(group["message"], Value::Null);
    let policy = "/apis/projectcalico.org/v3/globalnetworkpolicies/hosts";
    let policy = daemon.api("GET", policy, None).unwrap().unwrap();
    assert_eq!(core["involvedObject"]["uid"], policy["metadata"]["uid"]);
    let other = "/api/v1/namespaces/other/events";
    let other = daemon.api("GET", other, None).unwrap().unwrap();
    assert_eq!(other["items"], json!([]));
}

/// kubectl's own command for events is newer than 1.20.
#[test]
fn the_newer_command_for_events_shows_them() {
    let daemon = Daemon::start(&DaemonOptions::default()).unwrap();
    daemon.apply(&unenforced()[2]).unwrap();
    eventually("it is noted", || {
        anyhow::ensure!(events(&daemon).len() == 1);
        Ok(())
    });
    let kubectl = Kubectl::new(&daemon, "kubectl-1.35");
    let output = run(&mut kubectl.command(&["events"]), "").unwrap();
    assert!(
        output.stdout.contains("GlobalNetworkPolicy/hosts"),
        "{output:?}"
    );
}
