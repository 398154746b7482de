//! Nodes that are replaced, daemons that restart, and what is left when they go.

use nix::sys::signal::Signal;
use vswitch_tests::{Cluster, eventually, run_in};

use crate::{HOST_GW, VXLAN, cluster, pings, start};

fn replaced(backend: &'static str) {
    let mut cluster = cluster(backend);
    let near = cluster.pod(0, "near").unwrap();
    let old = cluster.pod(2, "old").unwrap();
    eventually("the pods talk", || pings(&near, old.ip()));
    drop(old);
    cluster.api().kubectl(&["delete", "pod", "old"]).unwrap();
    cluster.replace(2, 7).unwrap();
    let new = cluster.pod(2, "new").unwrap();
    assert_eq!(new.ip().to_string()[..9], *"10.244.7.");
    eventually("its new address and network", || pings(&near, new.ip()));
    let routes = cluster.node(0).node().ip(&["route"]).unwrap();
    assert!(
        !routes.contains("10.244.2.0"),
        "the old is forgotten: {routes}"
    );
}

#[test]
fn a_replaced_node_is_found_at_its_new_address_by_vxlan() {
    replaced(VXLAN);
}

#[test]
fn a_replaced_node_is_found_at_its_new_address_by_host_gw() {
    replaced(HOST_GW);
}

fn traces(cluster: &Cluster) -> String {
    let node = cluster.node(0).node();
    let script = "ip -o link show type vxlan; ip route show proto 86; ip -6 route show proto 86
        bridge fdb show | grep permanent | grep dst; nft list tables | grep nodes";
    run_in(node, &["sh", "-c", script]).unwrap().stdout
}

fn restarted_and_removed(backend: &'static str) {
    let mut cluster = start(backend, 2, true);
    let near = cluster.pod(0, "near").unwrap();
    let far = cluster.pod(1, "far").unwrap();
    eventually("the pods talk", || pings(&near, far.ip()));
    let before = traces(&cluster);
    assert!(before.contains("10.244.1.0/24"), "{before}");

    cluster.node_mut(0).stop(Signal::SIGKILL).unwrap();
    assert_eq!(traces(&cluster), before, "kept while the daemon is away");
    cluster.node_mut(0).spawn().unwrap();
    cluster.wait_for_ways();
    assert_eq!(traces(&cluster), before, "and found again");
    eventually("the pods talk again", || pings(&near, far.ip()));

    let script = "ip route flush proto 86; nft flush ruleset";
    run_in(cluster.node(0).node(), &["sh", "-c", script]).unwrap();
    eventually("what somebody removed is back", || {
        let now = traces(&cluster);
        if now == before { Ok(()) } else { Err(now) }
    });

    cluster.node_mut(0).stop(Signal::SIGTERM).unwrap();
    assert_eq!(traces(&cluster), before, "kept over a stop");
    cluster.node(0).cleanup().unwrap();
    assert_eq!(traces(&cluster), "", "nothing is left");
}

#[test]
fn ways_survive_a_restart_and_go_with_cleanup_by_vxlan() {
    restarted_and_removed(VXLAN);
}

#[test]
fn ways_survive_a_restart_and_go_with_cleanup_by_host_gw() {
    restarted_and_removed(HOST_GW);
}

#[test]
fn a_node_that_is_deleted_is_not_reached_any_more() {
    let cluster = cluster(VXLAN);
    let near = cluster.pod(0, "near").unwrap();
    let far = cluster.pod(1, "far").unwrap();
    eventually("the pods talk", || pings(&near, far.ip()));
    cluster
        .api()
        .kubectl(&["delete", "node", "node-1"])
        .unwrap();
    eventually("the way is gone", || {
        let now = traces(&cluster);
        if now.contains("10.244.1.0/24") {
            Err(now)
        } else {
            Ok(())
        }
    });
    assert!(!near.pings(far.ip()).unwrap());
}
