//! Calico's kinds on a running daemon: sockets, and what `vsctl` and REST say of them.

use serde_json::{Value, json};
use vswitch_tests::{Daemon, Pod, binary, run};

use crate::daemon;

fn of_calico(
    kind: &str,
    name: &str,
    namespace: Option<&str>,
    labels: Value,
    spec: Value,
) -> String {
    let mut metadata = json!({"name": name, "labels": labels});
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec})
        .to_string()
}

/// Client, friend and server; the server declares port 80.
fn pods(daemon: &Daemon) -> [Pod; 3] {
    let pods = ["client", "friend", "server"].map(|name| Pod::named(name).attach(daemon).unwrap());
    for (name, ports) in [
        ("client", json!([])),
        ("friend", json!([])),
        ("server", json!([{"containerPort": 80}])),
    ] {
        let mut pod = daemon.vsctl_json(&["get", "pods", name]).unwrap();
        pod["spec"]["containers"][0]["ports"] = ports;
        pod["metadata"]["labels"] = json!({"app": name});
        daemon.apply(&pod.to_string()).unwrap();
    }
    pods
}

/// A tier in which a policy of the cluster denies a network set and passes on the others, of which
/// a NetworkPolicy of Calico's admits one.
fn policies(blocked: &Pod) -> [String; 4] {
    let none = || json!({});
    let guard = json!({"tier": "security", "order": 10, "selector": "app == 'server'",
        "types": ["Ingress"], "ingress": [
            {"action": "Deny", "source": {"selector": "role == 'blocked'"}},
            {"action": "Pass"}]});
    let admit = json!({"order": 5, "selector": "app == 'server'", "types": ["Ingress"],
        "ingress": [{"action": "Allow", "protocol": "TCP",
            "source": {"selector": "app == 'client' || app == 'friend'"},
            "destination": {"ports": [80]}}]});
    let nets = json!({"nets": [format!("{}/32", blocked.ip())]});
    let blocked = json!({"role": "blocked"});
    [
        of_calico("Tier", "security", None, none(), json!({"order": 10})),
        of_calico("NetworkSet", "bad", Some("default"), blocked, nets),
        of_calico("GlobalNetworkPolicy", "guard", None, none(), guard),
        of_calico("NetworkPolicy", "admit", Some("default"), none(), admit),
    ]
}

/// Runs vsctl, whose exit code says whether something passes.
fn vsctl(daemon: &Daemon, arguments: &[&str]) -> (Option<i32>, String) {
    let mut vsctl = std::process::Command::new(binary("vsctl"));
    vsctl.arg("--socket").arg(daemon.socket());
    let output = run(vsctl.args(arguments), "").unwrap();
    (output.code, output.stdout)
}

fn post(daemon: &Daemon, path: &str, from: &str) -> Value {
    let question = json!({"from": from, "to": "server", "port": 80});
    daemon.api("POST", path, Some(&question)).unwrap().unwrap()
}

#[test]
fn every_command_and_rest_judge_by_a_tier_a_network_set_and_calicos_policies() {
    let daemon = daemon();
    let [client, friend, server] = pods(&daemon);
    let _web = server.serve(80).unwrap();
    for object in policies(&client) {
        daemon.apply(&object).unwrap();
    }
    // The sockets.
    client.fetch(server.ip(), 80).unwrap_err();
    friend.fetch(server.ip(), 80).unwrap();

    // trace and explain, by vsctl and REST.
    let guard = "calico:guard";
    let admit = "calico:default/admit";
    for command in ["trace", "explain"] {
        let (code, told) = vsctl(&daemon, &[command, "client", "server:80"]);
        assert_eq!(code, Some(2), "{command}: {told}");
        assert!(
            told.contains(guard) && !told.contains(admit),
            "{command}: {told}"
        );
        let (code, told) = vsctl(&daemon, &[command, "friend", "server:80"]);
        assert_eq!(code, Some(0), "{command}: {told}");
        assert!(told.contains(admit), "{command}: {told}");
        let path = format!("/v1/{command}");
        let (denied, allowed) = (
            post(&daemon, &path, "client"),
            post(&daemon, &path, "friend"),
        );
        assert_eq!(
            (&denied["allowed"], &allowed["allowed"]),
            (&json!(false), &json!(true))
        );
        assert!(denied.to_string().contains(guard), "{denied}");
        assert!(allowed.to_string().contains(admit), "{allowed}");
    }
    let (_, told) = vsctl(&daemon, &["explain", "client", "server:80"]);
    let ground = "denied by GlobalNetworkPolicy calico:guard security 10 Deny ingress[0]";
    assert!(told.contains(ground), "{told}");

    // The matrix.
    let matrix = daemon.vsctl_json(&["matrix"]).unwrap();
    let of_matrix = |from: &str| {
        let mut verdicts = matrix.as_array().unwrap().iter();
        let is_it = |verdict: &&Value| verdict["from"]["name"] == from;
        let found = verdicts.find(is_it).unwrap_or_else(|| panic!("{matrix}"));
        (found["allowed"].clone(), found["policies"].clone())
    };
    assert_eq!(of_matrix("client"), (json!(false), json!([guard])));
    assert_eq!(of_matrix("friend"), (json!(true), json!([admit])));

    // The same objects without a daemon.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cluster.json");
    let mut items = Vec::new();
    for (plural, kind) in [("namespaces", "Namespace"), ("pods", "Pod")] {
        let list = daemon.vsctl_json(&["get", plural, "-A"]).unwrap();
        for item in list["items"].as_array().unwrap() {
            let mut item = item.clone();
            item["apiVersion"] = json!("v1");
            item["kind"] = json!(kind);
            items.push(item);
        }
    }
    for object in policies(&client) {
        items.push(serde_json::from_str(&object).unwrap());
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    std::fs::write(&file, list.to_string()).unwrap();
    let file = file.display().to_string();
    let simulated = daemon.vsctl_json(&["simulate", "-f", &file]).unwrap();
    assert_eq!(simulated, matrix);

    // All of them in order.
    let listed = daemon.vsctl_json(&["get", "policies"]).unwrap();
    let names: Vec<&Value> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|of| &of["policy"])
        .collect();
    assert_eq!(names, [guard, admit]);
}

#[test]
fn a_pass_without_a_table_left_denies_on_the_wire_and_is_explained() {
    let daemon = daemon();
    let [client, _friend, server] = pods(&daemon);
    let _web = server.serve(80).unwrap();
    for number in 1..=5 {
        let tier = format!("t{number}");
        let spec = json!({"order": number});
        daemon
            .apply(&of_calico("Tier", &tier, None, json!({}), spec))
            .unwrap();
        let spec = json!({"tier": tier, "order": 1, "selector": "app == 'server'",
            "types": ["Ingress"], "ingress": [{"action": "Pass"}]});
        let name = format!("p{number}");
        let policy = of_calico("GlobalNetworkPolicy", &name, None, json!({}), spec);
        if number == 5 {
            client.fetch(server.ip(), 80).unwrap();
        }
        daemon.apply(&policy).unwrap();
    }
    client.fetch(server.ip(), 80).unwrap_err();
    let (code, told) = vsctl(&daemon, &["explain", "client", "server:80"]);
    assert_eq!(code, Some(2), "{told}");
    let ground = "denied by GlobalNetworkPolicy calico:p4 t4 1 Deny ingress[0], a Pass for which no \
                  table is left: too many tiers pass on";
    assert!(told.contains(ground), "{told}");
    let answer = post(&daemon, "/v1/explain", "client");
    assert_eq!(answer["tables"]["allowed"], false, "{answer}");
    assert_eq!(
        answer["ingress"]["denied_by"]["policy"], "calico:p4",
        "{answer}"
    );
}
