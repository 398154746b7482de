//! The node and the world behind it.

use vswitch_tests::{Daemon, DaemonOptions, Namespace, Pod};

use crate::{SECURE_POD, daemon};

#[test]
fn the_node_reaches_its_pods_and_pods_reach_the_node() {
    let daemon = daemon();
    let pod = Pod::named("server").attach(&daemon).unwrap();
    let _web = pod.serve(80).unwrap();
    let url = format!("http://{}/", pod.ip());
    let fetch = [
        "curl",
        "-sS",
        "--noproxy",
        "*",
        "--connect-timeout",
        "2",
        &url,
    ];
    let page = vswitch_tests::run_in(daemon.node(), &fetch)
        .unwrap()
        .success()
        .unwrap();
    assert_eq!(page, "server");
    assert!(
        pod.pings("10.244.0.1".parse().unwrap()).unwrap(),
        "the gateway answers"
    );

    // Probes of the node's own agents pass policies that isolate the pod.
    daemon
        .vsctl(&["label", "pod", "server", "app=secure-pod"])
        .unwrap();
    daemon.apply(SECURE_POD).unwrap();
    let page = vswitch_tests::run_in(daemon.node(), &fetch)
        .unwrap()
        .success()
        .unwrap();
    assert_eq!(page, "server");
}

#[test]
fn traffic_that_leaves_the_pod_network_is_masqueraded_and_pod_to_pod_is_not() {
    let daemon = daemon();
    let outside = Namespace::new("outside").unwrap();
    daemon
        .node()
        .connect("uplink0", "192.0.2.1/24", &outside, "eth0", "192.0.2.2/24")
        .unwrap();
    let pod = Pod::named("client").attach(&daemon).unwrap();
    // The outside has no route back to the pod network: an answer proves the masquerade.
    assert!(pod.pings("192.0.2.2".parse().unwrap()).unwrap());
    let rules = daemon
        .node()
        .command("nft")
        .args(["list", "ruleset"])
        .output()
        .unwrap();
    let rules = String::from_utf8(rules.stdout).unwrap();
    assert!(rules.contains("masquerade"), "{rules}");
}

#[test]
fn cleanup_leaves_the_node_as_it_was() {
    let mut daemon = Daemon::start(&DaemonOptions::default()).unwrap();
    let pod = Pod::named("client").attach(&daemon).unwrap();
    daemon.stop(nix::sys::signal::Signal::SIGTERM).unwrap();
    let links = daemon.node().ip(&["-o", "link"]).unwrap();
    assert!(
        links.contains("vsw0"),
        "an ordinary stop keeps the gateway: {links}"
    );

    daemon.cleanup().unwrap();
    let links = daemon.node().ip(&["-o", "link"]).unwrap();
    assert!(!links.contains("vsw"), "{links}");
    let rules = daemon
        .node()
        .command("nft")
        .args(["list", "ruleset"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(rules.stdout).unwrap(), "");
    let forward = daemon
        .node()
        .command("cat")
        .arg("/proc/sys/net/ipv4/ip_forward")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(forward.stdout).unwrap().trim(), "0");
    drop(pod);
}
