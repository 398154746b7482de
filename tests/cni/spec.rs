//! What the CNI specification demands of a plugin.

use serde_json::{Value, json};
use vswitch_tests::{Daemon, DaemonOptions, Output, Pod};

use super::{assert_nothing_is_left, links};

fn daemon() -> Daemon {
    Daemon::start(&DaemonOptions::default()).unwrap()
}

fn error_of(output: &Output) -> Value {
    assert_eq!(output.code, Some(1), "{output:?}");
    serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

#[test]
fn add_check_and_delete_work_in_every_version() {
    let daemon = daemon();
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let pod = Pod::named("client")
            .cni_version(version)
            .attach(&daemon)
            .unwrap();
        assert_eq!(pod.result["cniVersion"], version);
        let ip = &pod.result["ips"][0];
        let has_family = version.starts_with("0.");
        assert_eq!(ip.get("version").is_some(), has_family, "{version}: {ip}");
        assert_eq!(ip["gateway"], "10.244.0.1");
        let routes = pod.netns.ip(&["route"]).unwrap();
        assert!(routes.contains("default via 10.244.0.1"), "{routes}");
        if version != "0.3.0" && version != "0.3.1" {
            pod.cni("CHECK").unwrap().success().unwrap();
            pod.netns.ip(&["address", "flush", "dev", "eth0"]).unwrap();
            let error = error_of(&pod.cni("CHECK").unwrap());
            assert!(error["msg"].as_str().unwrap().contains("eth0"), "{error}");
        }
        for _ in 0..2 {
            let output = pod.cni("DEL").unwrap();
            assert_eq!(output.code, Some(0), "DEL is idempotent: {output:?}");
            assert_eq!(output.stdout, "");
        }
        assert!(!pod.netns.ip(&["-o", "link"]).unwrap().contains("eth0"));
    }
    assert_eq!(daemon.vsctl_json(&["dump-attachments"]).unwrap(), json!([]));
}

#[test]
fn a_second_add_of_the_same_interface_is_an_error_and_changes_nothing() {
    let daemon = daemon();
    let pod = Pod::named("client").attach(&daemon).unwrap();
    let error = error_of(&pod.cni("ADD").unwrap());
    assert!(error["msg"].as_str().unwrap().contains("eth0"), "{error}");
    pod.cni("CHECK").unwrap().success().unwrap();
    assert!(pod.pings("10.244.0.1".parse().unwrap()).unwrap());
}

#[test]
fn an_add_that_fails_leaves_nothing_behind() {
    let daemon = daemon();
    let before = links(&daemon);
    let other = Pod::named("other").attach(&daemon).unwrap();
    other.cni("DEL").unwrap().success().unwrap();
    // The name is taken inside the container, so the link cannot be made.
    other
        .netns
        .ip(&["link", "add", "eth0", "type", "bridge"])
        .unwrap();
    let error = error_of(&other.cni("ADD").unwrap());
    assert!(error["msg"].as_str().unwrap().contains("eth0"), "{error}");
    assert_nothing_is_left(&daemon, &before);
}

#[test]
fn twenty_containers_at_once_get_twenty_addresses() {
    let daemon = daemon();
    let pods: Vec<Pod> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..20)
            .map(|number| {
                let daemon = &daemon;
                scope.spawn(move || Pod::named(&format!("p{number}")).attach(daemon).unwrap())
            })
            .collect();
        handles
            .into_iter()
            .map(|handle| handle.join().unwrap())
            .collect()
    });
    let mut addresses: Vec<_> = pods.iter().map(Pod::ip).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 20);
    let (first, last) = (&pods[0], &pods[19]);
    assert!(first.pings(last.ip()).unwrap());
}

#[test]
fn gc_releases_what_the_runtime_no_longer_knows() {
    let daemon = daemon();
    let kept = Pod::named("kept")
        .cni_version("1.1.0")
        .attach(&daemon)
        .unwrap();
    let lost = Pod::named("lost")
        .cni_version("1.1.0")
        .attach(&daemon)
        .unwrap();
    let config = json!({
        "cniVersion": "1.1.0", "name": "vswitch", "type": "vswitch-cni", "socket": daemon.socket(),
        "cni.dev/valid-attachments": [{"containerID": kept.container_id, "ifname": "eth0"}],
    });
    kept.cni_with("GC", &config).unwrap().success().unwrap();
    let attachments = daemon.vsctl_json(&["dump-attachments"]).unwrap();
    assert_eq!(attachments.as_array().unwrap().len(), 1, "{attachments}");
    assert_eq!(attachments[0]["container_id"], kept.container_id.as_str());
    assert!(!lost.netns.ip(&["-o", "link"]).unwrap().contains("eth0"));
    kept.cni("CHECK").unwrap().success().unwrap();
}

#[test]
fn status_and_version_answer_and_a_missing_daemon_is_told() {
    let mut daemon = daemon();
    let pod = Pod::named("client")
        .cni_version("1.1.0")
        .attach(&daemon)
        .unwrap();
    pod.cni("STATUS").unwrap().success().unwrap();
    let version: Value =
        serde_json::from_str(&pod.cni("VERSION").unwrap().success().unwrap()).unwrap();
    assert_eq!(
        version["supportedVersions"],
        json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
    );
    daemon.stop(nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(error_of(&pod.cni("STATUS").unwrap())["code"], 50);
    let error = error_of(&pod.cni("ADD").unwrap());
    assert_eq!(error["code"], 11, "{error}");
    daemon.spawn().unwrap();
    pod.cni("CHECK").unwrap().success().unwrap();
}

#[test]
fn bad_input_is_answered_with_the_codes_of_the_specification() {
    let daemon = daemon();
    let pod = Pod::named("client").attach(&daemon).unwrap();
    let with = |key: &str, value: Value| {
        let mut config = json!({"cniVersion": "1.0.0", "name": "vswitch", "type": "vswitch-cni",
            "socket": daemon.socket()});
        config[key] = value;
        config
    };
    let version = error_of(
        &pod.cni_with("ADD", &with("cniVersion", json!("9.0.0")))
            .unwrap(),
    );
    assert_eq!(version["code"], 1, "{version}");
    let command = error_of(
        &pod.cni_with("JUMP", &with("name", json!("vswitch")))
            .unwrap(),
    );
    assert_eq!(command["code"], 4, "{command}");
    let name = error_of(
        &pod.cni_with("ADD", &with("name", json!("no/slash")))
            .unwrap(),
    );
    assert_eq!(name["code"], 7, "{name}");
    let garbage = error_of(&pod.cni_with("ADD", &json!("not an object")).unwrap());
    assert_eq!(garbage["code"], 6, "{garbage}");
}

#[test]
fn host_local_allocates_where_the_configuration_says_so() {
    let daemon = daemon();
    let state = tempfile::tempdir().unwrap();
    let ipam = json!({"type": "host-local", "dataDir": state.path(),
        "ranges": [[{"subnet": "10.244.0.0/24", "rangeStart": "10.244.0.200",
            "rangeEnd": "10.244.0.210", "gateway": "10.244.0.1"}]]});
    let a = Pod::named("a")
        .config("ipam", ipam.clone())
        .attach(&daemon)
        .unwrap();
    let b = Pod::named("b")
        .config("ipam", ipam)
        .attach(&daemon)
        .unwrap();
    assert_eq!(a.ip().to_string(), "10.244.0.200");
    assert!(a.pings(b.ip()).unwrap());
    assert_eq!(
        std::fs::read_dir(state.path().join("vswitch"))
            .unwrap()
            .count(),
        4
    );
    for pod in [&a, &b] {
        pod.cni("DEL").unwrap().success().unwrap();
    }
    assert!(!state.path().join("vswitch/10.244.0.200").exists());
}

#[test]
fn a_released_address_rests_before_it_is_given_out_again() {
    let daemon = daemon();
    let first = Pod::named("a").attach(&daemon).unwrap();
    let address = first.ip();
    drop(first);
    let second = Pod::named("b").attach(&daemon).unwrap();
    assert_ne!(second.ip(), address);
    let leases = daemon.vsctl_json(&["dump-leases"]).unwrap();
    let resting = leases
        .as_array()
        .unwrap()
        .iter()
        .find(|l| l["address"] == address.to_string());
    assert!(
        resting.unwrap()["rests_seconds"].as_u64().unwrap() > 0,
        "{leases}"
    );
}
