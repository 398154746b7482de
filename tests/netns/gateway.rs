//! The node and the world behind it.

use vswitch_tests::{Daemon, DaemonOptions, Namespace, Pod};

use crate::nodes::outside;
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
    let _outside = outside(&daemon);
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

/// What of a node outlives a daemon that does not clean up: links, rules, routes, tables and
/// sysctls.
fn traces(node: &Namespace) -> String {
    let show = "ip -o link | cut -d: -f2; ip rule; ip route show table all type unicast; nft list ruleset; \
        grep -H . /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/*/rp_filter \
        /proc/sys/net/ipv4/conf/*/forwarding /proc/sys/net/ipv6/conf/*/forwarding \
        /proc/sys/net/ipv6/conf/*/disable_ipv6";
    let shown = vswitch_tests::run_in(node, &["sh", "-c", show]).unwrap();
    shown.success().unwrap()
}

#[test]
fn cleanup_leaves_the_node_as_it_was() {
    for forwards in ["0", "1"] {
        let node = Namespace::of_host("node").unwrap();
        node.set_sysctl("ipv4/ip_forward", forwards).unwrap();
        node.ip(&["link", "add", "br-else", "type", "bridge"])
            .unwrap();
        node.ip(&["address", "add", "172.18.0.1/16", "dev", "br-else"])
            .unwrap();
        let rules =
            "table ip foreign {\nchain forward {\ntype filter hook forward priority 0\n}\n}\n";
        let rules = vswitch_tests::run(node.command("nft").args(["-f", "-"]), rules).unwrap();
        rules.success().unwrap();
        let before = traces(&node);
        assert!(
            before.contains(&format!("ip_forward:{forwards}")),
            "{before}"
        );

        let mut daemon = Daemon::start_in(node, &DaemonOptions::default()).unwrap();
        let pod = Pod::named("client").attach(&daemon).unwrap();
        daemon.stop(nix::sys::signal::Signal::SIGTERM).unwrap();
        let links = daemon.node().ip(&["-o", "link"]).unwrap();
        assert!(
            links.contains("vsw0"),
            "an ordinary stop keeps the gateway: {links}"
        );
        daemon.cleanup().unwrap();
        assert_eq!(traces(daemon.node()), before);
        drop(pod);
    }
}
