//! What operators see of policies: answers to what is denied, explanations, the matrix.

use serde_json::Value;
use vswitch_tests::{Daemon, DaemonOptions, Pod};

use crate::SECURE_POD;

fn labelled(daemon: &Daemon) -> (Pod, Pod) {
    let client = Pod::named("client").attach(daemon).unwrap();
    let server = Pod::named("server").attach(daemon).unwrap();
    let label = ["label", "pod", "server", "app=secure-pod"];
    daemon.vsctl(&label).unwrap();
    (client, server)
}

#[test]
fn what_is_denied_is_refused_at_once_if_the_configuration_says_reject() {
    let options = DaemonOptions {
        extra: "[policy]\ndeny = \"reject\"\n".to_owned(),
        ..DaemonOptions::default()
    };
    let daemon = Daemon::start(&options).unwrap();
    let (client, server) = labelled(&daemon);
    let _web = server.serve(80).unwrap();
    assert_eq!(client.fetch(server.ip(), 80).unwrap(), "server");
    daemon.apply(SECURE_POD).unwrap();
    let error = format!("{:#}", client.fetch(server.ip(), 80).unwrap_err());
    assert!(
        error.contains("exit Some(7)"),
        "refused, not silent: {error}"
    );
    let ping = ["ping", "-n", "-c", "1", "-W", "2", &server.ip().to_string()];
    let answer = client.run(&ping).unwrap().stdout;
    assert!(answer.contains("Packet filtered"), "{answer}");
}

#[test]
fn explain_says_what_isolates_and_what_label_would_help() {
    let daemon = Daemon::start(&DaemonOptions::default()).unwrap();
    let (client, server) = labelled(&daemon);
    daemon.apply(SECURE_POD).unwrap();
    let explain = |port: &str| {
        let mut vsctl = std::process::Command::new(vswitch_tests::binary("vsctl"));
        vsctl.arg("--socket").arg(daemon.socket());
        let to = format!("server:{port}");
        vswitch_tests::run(vsctl.args(["explain", "client", &to]), "").unwrap()
    };
    let denied = explain("80");
    assert_eq!(denied.code, Some(2), "{}", denied.stdout);
    for part in ["default/secure-pod", "allow-access=true"] {
        assert!(denied.stdout.contains(part), "{part}: {}", denied.stdout);
    }
    client.fetch(server.ip(), 80).unwrap_err();
    let label = ["label", "pod", "client", "allow-access=true"];
    daemon.vsctl(&label).unwrap();
    assert_eq!(explain("80").code, Some(0));
    assert_eq!(explain("81").code, Some(2));
}

#[test]
fn the_matrix_agrees_with_the_sockets() {
    let daemon = Daemon::start(&DaemonOptions::default()).unwrap();
    let (client, server) = labelled(&daemon);
    let _web = server.serve(80).unwrap();
    let mut pod = daemon.vsctl_json(&["get", "pods", "server"]).unwrap();
    pod["spec"]["containers"][0]["ports"] = serde_json::json!([{ "containerPort": 80 }]);
    daemon.apply(&pod.to_string()).unwrap();
    let allowed = || -> Vec<Value> {
        let matrix = daemon.vsctl_json(&["matrix", "-n", "default"]).unwrap();
        let verdicts = matrix.as_array().unwrap().iter();
        verdicts.map(|verdict| verdict["allowed"].clone()).collect()
    };
    assert_eq!(allowed(), [true], "client to server:80");
    daemon.apply(SECURE_POD).unwrap();
    assert_eq!(allowed(), [false]);
    client.fetch(server.ip(), 80).unwrap_err();
    let table = daemon.vsctl(&["matrix"]).unwrap();
    assert!(
        table.contains("default/server:80/TCP") && table.contains("0 of 1 allowed"),
        "{table}"
    );
}
