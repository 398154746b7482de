//! What nodes and their hub tell each other, and a hub that is away.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use vswitch_tests::{Cluster, eventually, inside, join, wait_for_state};

use crate::{HOST_GW, VXLAN, cluster, hangs, reaches};

const SECURE_POD: &str = include_str!("../../config/samples/secure-pod.yaml");
const PODS: &str = include_str!("../../config/samples/client-and-server.yaml");

fn publishes_its_network(cluster: &Cluster, number: usize, backend: &str) {
    let path = format!("/api/v1/nodes/node-{number}");
    eventually("a node publishes its network", || {
        let node = cluster.api().get(&path)?;
        let annotation = |key: &str| {
            let key = format!("flannel.alpha.coreos.com/{key}");
            node["metadata"]["annotations"][key].clone()
        };
        let address = format!("192.0.2.{}", number + 1);
        anyhow::ensure!(annotation("public-ip") == *address, "{node}");
        anyhow::ensure!(annotation("backend-type") == *backend, "{node}");
        let conditions = node["status"]["conditions"].as_array();
        let is_available = conditions.into_iter().flatten().any(|condition| {
            condition["type"] == "NetworkUnavailable" && condition["status"] == "False"
        });
        anyhow::ensure!(is_available, "{node}");
        Ok(())
    });
}

fn publish_by(backend: &'static str) {
    let cluster = cluster(backend);
    for number in 0..3 {
        publishes_its_network(&cluster, number, backend);
        let status = cluster.node(number).vsctl_json(&["status"]).unwrap();
        let of_the_node = format!("10.244.{number}.0/24");
        assert_eq!(status["pod_cidrs"][0], *of_the_node, "{status}");
    }
}

#[test]
fn every_node_takes_its_networks_from_the_hub_and_tells_it_the_rest_by_vxlan() {
    publish_by(VXLAN);
}

#[test]
fn every_node_takes_its_networks_from_the_hub_and_tells_it_the_rest_by_host_gw() {
    publish_by(HOST_GW);
}

#[test]
fn pods_talk_while_the_hub_is_away_and_a_policy_counts_when_it_is_back() {
    let mut cluster = cluster(VXLAN);
    cluster.apply(PODS).unwrap();
    let run = |cluster: &Cluster, node, name| {
        let pod = cluster.api().run_pod(cluster.node(node), "default", name);
        pod.unwrap()
    };
    let server = run(&cluster, 0, "server");
    let client = run(&cluster, 1, "client");
    let _web = server.serve(80).unwrap();
    eventually("pods of different nodes talk", || reaches(&client, &server));
    let address = SocketAddr::new(server.ip(), 5000);
    let (listening, is_listening) = std::sync::mpsc::channel();
    let _echo = inside(&server.netns, move || {
        let listener = TcpListener::bind(address)?;
        listening.send(())?;
        let (mut stream, _) = listener.accept()?;
        std::io::copy(&mut stream.try_clone()?, &mut stream)?;
        Ok(())
    })
    .unwrap();
    is_listening.recv().unwrap();
    let connect = move || {
        Ok(TcpStream::connect_timeout(
            &address,
            Duration::from_secs(5),
        )?)
    };
    let mut stream = join(inside(&client.netns, connect).unwrap()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let mut answered = |text: &[u8; 4]| -> std::io::Result<bool> {
        let mut answer = [0; 4];
        stream.write_all(text)?;
        stream.read_exact(&mut answer)?;
        Ok(answer == *text)
    };
    assert!(answered(b"with").unwrap(), "while the hub is there");

    cluster.api_mut().kill().unwrap();
    for number in 0..3 {
        wait_for_state(cluster.node(number), "stale");
    }
    assert!(answered(b"away").unwrap(), "the connection goes on");
    reaches(&client, &server).unwrap();

    cluster.api_mut().revive().unwrap();
    cluster.apply(SECURE_POD).unwrap();
    for number in 0..3 {
        wait_for_state(cluster.node(number), "live");
    }
    eventually("the policy blocks", || hangs(&client, &server));
    let cut = answered(b"back").unwrap_err();
    assert_eq!(cut.kind(), std::io::ErrorKind::WouldBlock, "{cut}");
    let label = ["label", "pod", "client", "allow-access=true"];
    cluster.api().kubectl(&label).unwrap();
    eventually("the label admits", || reaches(&client, &server));
}
