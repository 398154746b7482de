//! Nodes that are replaced, daemons that restart, and what is left when they go.

use nix::sys::signal::Signal;
use vswitch_tests::{Cluster, Pod, eventually, run_in};

use crate::{HOST_GW, VXLAN, cluster, start};

fn replaced(backend: &'static str) {
    let mut cluster = cluster(backend);
    let near = Pod::named("near").attach(cluster.node(0)).unwrap();
    let old = Pod::named("old").attach(cluster.node(2)).unwrap();
    assert!(near.pings(old.ip()).unwrap());
    drop(old);
    cluster.replace(2, 7).unwrap();
    let new = Pod::named("new").attach(cluster.node(2)).unwrap();
    assert_eq!(new.ip().to_string()[..9], *"10.244.7.");
    assert!(near.pings(new.ip()).unwrap(), "its new address and network");
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
    let near = Pod::named("near").attach(cluster.node(0)).unwrap();
    let far = Pod::named("far").attach(cluster.node(1)).unwrap();
    assert!(near.pings(far.ip()).unwrap());
    let before = traces(&cluster);
    assert!(before.contains("10.244.1.0/24"), "{before}");

    cluster.node_mut(0).stop(Signal::SIGKILL).unwrap();
    assert_eq!(traces(&cluster), before, "kept while the daemon is away");
    cluster.node_mut(0).spawn().unwrap();
    cluster.wait_for_ways();
    assert_eq!(traces(&cluster), before, "and found again");
    eventually("the pods talk again", || {
        let pings = near.pings(far.ip())?;
        anyhow::ensure!(pings);
        Ok(())
    });

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
    let near = Pod::named("near").attach(cluster.node(0)).unwrap();
    let far = Pod::named("far").attach(cluster.node(1)).unwrap();
    assert!(near.pings(far.ip()).unwrap());
    let path = "/api/v1/nodes/node-1";
    cluster.node(0).api("DELETE", path, None).unwrap().unwrap();
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
