//! A pod's address comes from its own node, or it does not come.

use vswitch_tests::{Cluster, Namespace, Pod, eventually, run_in};

use crate::{HOST_GW, VXLAN, cluster, pings};

const POLICY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-client, namespace: default}
spec:
  podSelector: {}
  ingress: [{from: [{podSelector: {matchLabels: {role: client}}}]}]
";

fn dropped(cluster: &Cluster, reason: &str) -> u64 {
    let status = cluster.node(0).vsctl_json(&["status"]).unwrap();
    status["drops"][reason].as_u64().unwrap_or(0)
}

fn counted(cluster: &Cluster, reason: &str, least: u64) {
    eventually(reason, || {
        let count = dropped(cluster, reason);
        if count >= least { Ok(()) } else { Err(count) }
    });
    let metrics = cluster
        .node(0)
        .node()
        .command("curl")
        .args(["-s", "--noproxy", "*", "http://127.0.0.1:7441/metrics"])
        .output()
        .unwrap();
    let metrics = String::from_utf8(metrics.stdout).unwrap();
    let line = format!("vswitch_drops_total{{reason=\"{reason}\"}} ");
    assert!(metrics.contains(&line), "{reason} in {metrics}");
}

/// Client on node 1, server on node 0 that admits it alone.
fn guarded(cluster: &Cluster) -> (Pod, Pod) {
    let server = cluster.pod(0, "server").unwrap();
    let client = cluster.pod(1, "client").unwrap();
    let label = ["label", "pod", "client", "role=client"];
    cluster.api().kubectl(&label).unwrap();
    cluster.apply(POLICY).unwrap();
    eventually("the policy blocks all others", || {
        let to = server.ip().to_string();
        let ping = ["ping", "-n", "-c", "1", "-W", "1", &to];
        let ping = run_in(cluster.node(2).node(), &ping)?;
        anyhow::ensure!(ping.code == Some(1), "{ping:?}");
        Ok(())
    });
    eventually("the client itself may", || pings(&client, server.ip()));
    (client, server)
}

/// A machine on the link that is no node, with the client's address.
fn impostor(cluster: &Cluster, client: &Pod) -> Namespace {
    let machine = Namespace::new("impostor").unwrap();
    cluster.plug(&machine, 66).unwrap();
    let address = format!("{}/32", client.ip());
    machine
        .ip(&["address", "add", &address, "dev", "lo"])
        .unwrap();
    machine
}

fn knock(from: &Namespace, client: &Pod, server: &Pod) {
    let (source, to) = (client.ip().to_string(), server.ip().to_string());
    let mut ping = from.command("ping");
    let ping = ping.args(["-n", "-c", "3", "-i", "0.2", "-W", "1", "-I", &source, &to]);
    let answered = ping.output().unwrap().status.success();
    assert!(!answered, "nothing answers an impostor");
}

fn received(server: &Pod) -> u64 {
    let link = server.netns.link("eth0").unwrap();
    link["stats64"]["rx"]["packets"].as_u64().unwrap()
}

fn from_the_link(backend: &'static str) {
    let cluster = cluster(backend);
    let (client, server) = guarded(&cluster);
    let machine = impostor(&cluster, &client);
    // A kernel that checks reverse paths strictly drops it first, and counts nothing.
    let node = cluster.node(0).node();
    node.set_sysctl("ipv4/conf/all/rp_filter", "0").unwrap();
    machine
        .ip(&["route", "add", "10.244.0.0/24", "via", "192.0.2.1"])
        .unwrap();
    let before = received(&server);
    knock(&machine, &client, &server);
    assert_eq!(received(&server), before, "not one packet came through");
    counted(&cluster, "uplink_spoofed", 3);
    assert!(client.pings(server.ip()).unwrap(), "the client still may");
}

#[test]
fn a_pod_s_address_from_the_link_is_dropped_and_counted_by_vxlan() {
    from_the_link(VXLAN);
}

#[test]
fn a_pod_s_address_from_another_mac_is_dropped_and_counted_by_host_gw() {
    from_the_link(HOST_GW);
}

/// Lets a machine send into the tunnel of node 0, as the VTEP with this MAC.
fn tunnel_into_node_0(cluster: &Cluster, machine: &Namespace, mac: &str) {
    let node = cluster.api().get("/api/v1/nodes/node-0").unwrap();
    let data = &node["metadata"]["annotations"]["flannel.alpha.coreos.com/backend-data"];
    let data: serde_json::Value = serde_json::from_str(data.as_str().unwrap()).unwrap();
    let gateway = data["VtepMAC"].as_str().unwrap();
    let commands = format!(
        "link add t0 address {mac} type vxlan id 1 dstport 8472 nolearning remote 192.0.2.1
         link set t0 up
         route add 10.244.0.0/24 via 10.244.0.0 dev t0 onlink
         neigh add 10.244.0.0 lladdr {gateway} dev t0 nud permanent"
    );
    for command in commands.lines() {
        let arguments: Vec<&str> = command.split_whitespace().collect();
        machine.ip(&arguments).unwrap();
    }
}

#[test]
fn a_machine_that_is_no_node_gets_nothing_into_a_tunnel() {
    let cluster = cluster(VXLAN);
    let (client, server) = guarded(&cluster);
    let machine = impostor(&cluster, &client);
    tunnel_into_node_0(&cluster, &machine, "02:00:00:00:00:66");
    let before = received(&server);
    knock(&machine, &client, &server);
    assert_eq!(received(&server), before, "not one packet came through");
    counted(&cluster, "tunnel_from_stranger", 3);
}

#[test]
fn a_node_cannot_send_as_a_pod_of_another_node() {
    let cluster = cluster(VXLAN);
    let (client, server) = guarded(&cluster);
    let other = cluster.node(2).node();
    let address = format!("{}/32", client.ip());
    other
        .ip(&["address", "add", &address, "dev", "lo"])
        .unwrap();
    let before = received(&server);
    knock(other, &client, &server);
    assert_eq!(received(&server), before, "not one packet came through");
    counted(&cluster, "tunnel_spoofed", 3);
    assert!(client.pings(server.ip()).unwrap(), "the client still may");
}
