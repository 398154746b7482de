//! A policy that is tried out on live traffic before it is enforced.

use serde_json::{Value, json};
use vswitch_tests::{Daemon, Pod, eventually};

use crate::{SECURE_POD, daemon};

/// Client, friend with the label that the policy asks for, server with pages on 80 and 81.
fn pods(daemon: &Daemon) -> (Pod, Pod, Pod) {
    let pods = ["client", "friend", "server"].map(|name| Pod::named(name).attach(daemon).unwrap());
    let [client, friend, server] = pods;
    for (pod, label) in [
        ("client", "app=client"),
        ("friend", "allow-access=true"),
        ("server", "app=secure-pod"),
    ] {
        daemon.vsctl(&["label", "pods", pod, label]).unwrap();
    }
    (client, friend, server)
}

fn annotate(daemon: &Daemon, resource: &str, name: &str, mode: Option<&str>) {
    let mut object = daemon.vsctl_json(&["get", resource, name]).unwrap();
    object["metadata"]["annotations"] = match mode {
        Some(mode) => json!({ "policy.vswitch.io/mode": mode }),
        None => json!({}),
    };
    daemon.apply(&object.to_string()).unwrap();
}

/// Returns what would have been denied: peer's labels, protocol and port, connections.
fn would_deny(daemon: &Daemon, policy: &str) -> Vec<(Value, String, u64)> {
    let entries = daemon.vsctl_json(&["audit", policy]).unwrap();
    let entry = |of: &Value| {
        assert_eq!(of["verdict"], "would_deny");
        assert_eq!(of["direction"], "ingress");
        assert_eq!(of["subject"]["labels"]["app"], "secure-pod");
        let at = format!("{} {}", of["protocol"].as_str().unwrap(), of["port"]);
        (
            of["peer"]["pods"]["labels"].clone(),
            at,
            of["connections"].as_u64().unwrap(),
        )
    };
    entries.as_array().unwrap().iter().map(entry).collect()
}

fn mode_of(daemon: &Daemon, policy: &str) -> (Value, Value) {
    let policies = daemon.vsctl_json(&["get", "policies"]).unwrap();
    let policies = policies.as_array().unwrap();
    let found = policies.iter().find(|of| of["policy"] == policy).unwrap();
    (found["mode"].clone(), found["pods"].clone())
}

#[test]
fn from_the_first_annotation_to_enforced_nothing_is_lost_but_what_was_listed() {
    let daemon = daemon();
    let (client, friend, server) = pods(&daemon);
    let _pages = [80, 81].map(|port| server.serve(port).unwrap());
    let policy = "default/secure-pod";
    let audited = SECURE_POD.replacen(
        "metadata:\n",
        "metadata:\n  annotations: {policy.vswitch.io/mode: audit}\n",
        1,
    );
    daemon.apply(&audited).unwrap();
    assert_eq!(mode_of(&daemon, policy), (json!("audit"), json!(1)));

    for _ in 0..3 {
        for port in [80, 81] {
            client.fetch(server.ip(), port).unwrap();
            friend.fetch(server.ip(), port).unwrap();
        }
    }
    let mut listed = would_deny(&daemon, policy);
    listed.sort_by_key(|(labels, at, _)| (labels.to_string(), at.clone()));
    let (of_client, of_friend) = (json!({"app": "client"}), json!({"allow-access": "true"}));
    let expected = [
        (of_friend.clone(), "TCP 81".to_owned(), 3),
        (of_client.clone(), "TCP 80".to_owned(), 3),
        (of_client.clone(), "TCP 81".to_owned(), 3),
    ];
    assert_eq!(listed, expected);
    let metrics = daemon.text("/metrics").unwrap();
    let counted = r#"vswitch_would_deny_connections_total{policy="default/secure-pod",direction="ingress"} 9"#;
    assert!(metrics.contains(counted), "{metrics}");
    let count = "vswitch_change_in_force_seconds_count ";
    let count = metrics.lines().find_map(|line| line.strip_prefix(count));
    assert!(count.unwrap().parse::<u64>().unwrap() > 0, "{metrics}");
    let shown = daemon.vsctl(&["audit"]).unwrap();
    assert!(shown.contains("default[app=client]"), "{shown}");

    annotate(&daemon, "networkpolicies", "secure-pod", None);
    assert_eq!(mode_of(&daemon, policy), (json!("enforce"), json!(1)));
    client.fetch(server.ip(), 80).unwrap_err();
    client.fetch(server.ip(), 81).unwrap_err();
    friend.fetch(server.ip(), 81).unwrap_err();
    friend.fetch(server.ip(), 80).unwrap();
    assert!(
        would_deny(&daemon, policy).is_empty(),
        "it is in audit no longer"
    );
}

#[test]
fn what_is_suggested_admits_what_would_have_been_denied() {
    let daemon = daemon();
    let (client, _friend, server) = pods(&daemon);
    let _pages = [80, 81].map(|port| server.serve(port).unwrap());
    annotate(&daemon, "namespaces", "default", Some("audit"));
    daemon.apply(SECURE_POD).unwrap();
    let policy = "default/secure-pod";
    assert_eq!(mode_of(&daemon, policy).0, "audit", "as its namespace says");
    client.fetch(server.ip(), 81).unwrap();
    let suggested = daemon.vsctl_json(&["audit", policy, "--suggest"]).unwrap();
    let rules = &suggested[0]["ingress"];
    assert_eq!(suggested[0]["policy"], policy);
    assert_eq!(rules.as_array().unwrap().len(), 1, "{suggested}");

    let mut object = daemon
        .vsctl_json(&["get", "networkpolicies", "secure-pod"])
        .unwrap();
    let all = object["spec"]["ingress"].as_array_mut().unwrap();
    all.push(rules[0].clone());
    object["metadata"]["annotations"] = json!({"policy.vswitch.io/mode": "enforce"});
    daemon.apply(&object.to_string()).unwrap();
    assert_eq!(mode_of(&daemon, policy).0, "enforce", "as it says itself");
    client.fetch(server.ip(), 81).unwrap();
    client.fetch(server.ip(), 80).unwrap_err();
}

#[test]
fn a_staged_policy_of_calico_changes_only_what_would_be() {
    let daemon = daemon();
    let (client, _friend, server) = pods(&daemon);
    let _page = server.serve(80).unwrap();
    let staged = json!({
        "apiVersion": "projectcalico.org/v3", "kind": "StagedGlobalNetworkPolicy",
        "metadata": {"name": "guard"},
        "spec": {"selector": "app == 'secure-pod'", "types": ["Ingress"],
            "ingress": [{"action": "Deny", "source": {"selector": "app == 'client'"}}]},
    });
    daemon.apply(&staged.to_string()).unwrap();
    client.fetch(server.ip(), 80).unwrap();
    let listed = would_deny(&daemon, "calico:guard");
    assert_eq!(listed, [(json!({"app": "client"}), "TCP 80".to_owned(), 1)]);
    assert_eq!(mode_of(&daemon, "calico:guard").0, "audit");

    let mut enforced = staged.clone();
    enforced["kind"] = json!("GlobalNetworkPolicy");
    daemon.apply(&enforced.to_string()).unwrap();
    client.fetch(server.ip(), 80).unwrap_err();
    let mut deleted = staged;
    deleted["spec"] = json!({"stagedAction": "Delete"});
    daemon
        .vsctl(&["delete", "stagedglobalnetworkpolicies", "guard"])
        .unwrap();
    daemon.apply(&deleted.to_string()).unwrap();
    assert_eq!(mode_of(&daemon, "calico:guard").0, "staged");
    client.fetch(server.ip(), 80).unwrap_err();
}

#[test]
fn connections_from_before_the_audit_are_listed_too() {
    let daemon = daemon();
    let (client, _friend, server) = pods(&daemon);
    let mut pings = client.netns.command("ping");
    let ip = server.ip().to_string();
    pings.args(["-q", "-i", "0.2", "-w", "20", &ip]);
    let mut pings = pings.stdout(std::process::Stdio::null()).spawn().unwrap();
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "deny", "annotations": {"policy.vswitch.io/mode": "audit"}},
        "spec": {"podSelector": {"matchLabels": {"app": "secure-pod"}}},
    });
    daemon.apply(&policy.to_string()).unwrap();
    let listed = eventually("the pings are listed", || {
        let listed = would_deny(&daemon, "default/deny");
        anyhow::ensure!(!listed.is_empty(), "nothing yet");
        Ok(listed)
    });
    pings.kill().unwrap();
    pings.wait().unwrap();
    assert_eq!(listed, [(json!({"app": "client"}), "ICMP 8".to_owned(), 1)]);
}
