//! Pods and containers: one name of a pod, several containers, and the reverse.

use vswitch_tests::{Daemon, DaemonOptions, Pod};

fn daemon() -> Daemon {
    Daemon::start(&DaemonOptions::default()).unwrap()
}

const DECLARED: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: own}\n\
                        spec: {containers: [{name: c, image: i}]}\n";

#[test]
fn a_late_del_leaves_the_pod_to_the_container_that_came_after() {
    let daemon = daemon();
    daemon.apply(DECLARED).unwrap();
    let peer = Pod::named("peer").attach(&daemon).unwrap();
    for name in ["web-0", "own"] {
        let old = Pod::named(name).attach(&daemon).unwrap();
        let new = Pod::named(name).attach(&daemon).unwrap();
        assert_eq!(old.cni("CHECK").unwrap().code, Some(1), "{name} is another");
        old.cni("DEL").unwrap().success().unwrap();
        let pod = daemon.vsctl_json(&["get", "pod", name]).unwrap();
        assert_eq!(pod["status"]["podIP"], new.ip().to_string().as_str());
        assert!(peer.pings(new.ip()).unwrap(), "{name}");
        new.cni("CHECK").unwrap().success().unwrap();

        daemon.vsctl(&["delete", "pod", name]).unwrap();
        let missing = new.cni("CHECK").unwrap();
        assert!(missing.stdout.contains(name), "{missing:?}");
        new.cni("DEL").unwrap().success().unwrap();
    }
}

#[test]
fn containers_whose_names_differ_are_two_pods() {
    let daemon = daemon();
    let hyphen = Pod::named("my-app").attach(&daemon).unwrap();
    let underscore = Pod::named("my_app").attach(&daemon).unwrap();
    let pods = daemon.vsctl_json(&["get", "pods"]).unwrap();
    assert_eq!(pods["items"].as_array().unwrap().len(), 2, "{pods}");
    hyphen.cni("DEL").unwrap().success().unwrap();
    underscore.cni("CHECK").unwrap().success().unwrap();
    let pods = daemon.vsctl_json(&["get", "pods"]).unwrap();
    let left = pods["items"].as_array().unwrap();
    assert_eq!(left.len(), 1, "{pods}");
    assert_eq!(
        left[0]["status"]["podIP"],
        underscore.ip().to_string().as_str()
    );
}
