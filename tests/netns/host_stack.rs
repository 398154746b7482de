//! The host's own stack must not see or answer what pods send into their ports.

use vswitch_tests::Pod;

use crate::daemon;

#[test]
fn the_host_end_of_a_pod_port_has_no_address_and_answers_nothing() {
    let daemon = daemon();
    // An address of the node that is not the gateway's: only the node's own stack could answer.
    daemon
        .node()
        .ip(&["address", "add", "203.0.113.7/32", "dev", "lo"])
        .unwrap();
    let pod = Pod::named("client").attach(&daemon).unwrap();
    let host_if = pod.result["interfaces"]
        .as_array()
        .unwrap()
        .iter()
        .find(|interface| interface["sandbox"].as_str().unwrap_or_default().is_empty())
        .unwrap()["name"]
        .as_str()
        .unwrap()
        .to_owned();
    let addresses = daemon
        .node()
        .ip(&["-o", "address", "show", "dev", &host_if])
        .unwrap();
    assert_eq!(addresses, "", "the host end has no address");

    // Asked directly on the pod's link, as a spoofing pod would.
    pod.netns
        .ip(&[
            "route",
            "add",
            "203.0.113.7/32",
            "dev",
            "eth0",
            "scope",
            "link",
        ])
        .unwrap();
    let _ = pod
        .run(&["ping", "-n", "-c", "1", "-W", "1", "203.0.113.7"])
        .unwrap();
    let neighbour = pod.netns.ip(&["neigh", "show", "203.0.113.7"]).unwrap();
    assert!(
        !neighbour.contains("lladdr"),
        "nobody answers ARP for it: {neighbour}"
    );
    // The node's stack never learned of the pod on that link.
    let learned = daemon
        .node()
        .ip(&["neigh", "show", "dev", &host_if])
        .unwrap();
    assert_eq!(learned, "");
}

#[test]
fn a_pod_cannot_use_the_address_of_another() {
    let daemon = daemon();
    let honest = Pod::named("honest").attach(&daemon).unwrap();
    let server = Pod::named("server").attach(&daemon).unwrap();
    let thief = Pod::named("thief").attach(&daemon).unwrap();
    let stolen = honest.ip().to_string();
    thief
        .netns
        .ip(&["address", "add", &format!("{stolen}/32"), "dev", "eth0"])
        .unwrap();
    let ping = [
        "ping",
        "-n",
        "-c",
        "1",
        "-W",
        "1",
        "-I",
        &stolen,
        &server.ip().to_string(),
    ];
    assert_ne!(thief.run(&ping).unwrap().code, Some(0));
    let ports = daemon.vsctl_json(&["dump-ports"]).unwrap();
    let port = ports
        .as_array()
        .unwrap()
        .iter()
        .find(|port| port["pod"] == "default/thief")
        .unwrap();
    assert!(port["drops"]["spoofed"].as_u64().unwrap() >= 1, "{port}");
    assert!(
        honest.pings(server.ip()).unwrap(),
        "the owner is not disturbed"
    );
}
