//! Ports that change under the switch's feet, and ports made over REST.

use vswitch_tests::{Pod, eventually};

use crate::daemon;

fn host_ifname(pod: &Pod) -> String {
    let interfaces = pod.result["interfaces"].as_array().unwrap();
    let host = interfaces
        .iter()
        .find(|i| i["sandbox"].as_str().unwrap_or_default().is_empty());
    host.unwrap()["name"].as_str().unwrap().to_owned()
}

#[test]
fn a_link_that_goes_down_and_up_carries_traffic_again() {
    let daemon = daemon();
    let a = Pod::named("a").attach(&daemon).unwrap();
    let b = Pod::named("b").attach(&daemon).unwrap();
    assert!(a.pings(b.ip()).unwrap());
    let host = host_ifname(&b);
    daemon.node().ip(&["link", "set", &host, "down"]).unwrap();
    assert!(!a.pings(b.ip()).unwrap());
    eventually("the port is shown as down", || {
        let ports = daemon.vsctl_json(&["show"])?;
        let port = ports
            .as_array()
            .unwrap()
            .iter()
            .find(|p| p["ifname"] == host.as_str())
            .unwrap();
        anyhow::ensure!(port["link"] == "down", "{port}");
        Ok(())
    });
    daemon.node().ip(&["link", "set", &host, "up"]).unwrap();
    eventually("traffic flows again", || {
        anyhow::ensure!(a.pings(b.ip())?);
        Ok(())
    });
}

#[test]
fn a_device_removed_under_our_feet_disturbs_nobody_else() {
    let daemon = daemon();
    let a = Pod::named("a").attach(&daemon).unwrap();
    let b = Pod::named("b").attach(&daemon).unwrap();
    let c = Pod::named("c").attach(&daemon).unwrap();
    daemon
        .node()
        .ip(&["link", "del", &host_ifname(&c)])
        .unwrap();
    assert!(a.pings(b.ip()).unwrap());
    eventually("the port is shown as gone", || {
        let ports = daemon.vsctl_json(&["show"])?;
        let port = ports
            .as_array()
            .unwrap()
            .iter()
            .find(|p| p["pod"] == "default/c")
            .cloned();
        anyhow::ensure!(port.is_some_and(|port| port["link"] == "gone"), "{ports}");
        Ok(())
    });
    assert_eq!(
        c.cni("DEL").unwrap().code,
        Some(0),
        "DEL of what is gone is success"
    );
    let ports = daemon.vsctl(&["show"]).unwrap();
    assert!(!ports.contains("default/c"), "{ports}");
}

#[test]
fn a_mirror_port_receives_whole_frames_of_a_redirected_flow() {
    let daemon = daemon();
    let a = Pod::named("a").attach(&daemon).unwrap();
    let b = Pod::named("b").attach(&daemon).unwrap();
    let port = daemon.vsctl_json(&["add-port", "mirror", "span0"]).unwrap();
    daemon.node().ip(&["link", "set", "span0", "up"]).unwrap();
    let actions = format!("mirror:{},goto_table:40", port["no"]);
    daemon
        .vsctl(&[
            "add-flow",
            "watch-a",
            "--match",
            "icmp",
            "--actions",
            &actions,
        ])
        .unwrap();
    assert!(a.pings(b.ip()).unwrap());
    eventually("the mirror has received the request and the reply", || {
        let stats = daemon.node().ip(&["-s", "-j", "link", "show", "span0"])?;
        let stats: serde_json::Value = serde_json::from_str(&stats)?;
        let packets = stats[0]["stats64"]["rx"]["packets"].as_u64().unwrap_or(0);
        anyhow::ensure!(packets >= 2, "{stats}");
        Ok::<(), anyhow::Error>(())
    });
    daemon.vsctl(&["del-flow", "watch-a"]).unwrap();
    daemon.vsctl(&["del-port", "span0"]).unwrap();
    assert!(!daemon.node().ip(&["-o", "link"]).unwrap().contains("span0"));
}

#[test]
fn an_admin_flow_drops_and_its_removal_lets_through() {
    let daemon = daemon();
    let a = Pod::named("a").attach(&daemon).unwrap();
    let b = Pod::named("b").attach(&daemon).unwrap();
    let matches = format!("icmp,nw_dst={}", b.ip());
    daemon
        .vsctl(&[
            "add-flow",
            "no-ping",
            "--match",
            &matches,
            "--actions",
            "drop",
        ])
        .unwrap();
    assert!(!a.pings(b.ip()).unwrap());
    let status = daemon.vsctl_json(&["status"]).unwrap();
    assert!(
        status["drops"]["admin_drop"].as_u64().unwrap() >= 1,
        "{status}"
    );
    daemon.vsctl(&["del-flow", "no-ping"]).unwrap();
    assert!(a.pings(b.ip()).unwrap());
    let error = daemon.vsctl(&[
        "add-flow",
        "bad",
        "--match",
        "nw_dst=elephant",
        "--actions",
        "drop",
    ]);
    assert!(format!("{:#}", error.unwrap_err()).contains("elephant"));
}

#[test]
fn a_vm_port_has_an_address_and_stands_under_policy() {
    let daemon = daemon();
    let pod = Pod::named("client").attach(&daemon).unwrap();
    let port = daemon
        .vsctl_json(&[
            "add-port",
            "vm",
            "vmtap0",
            "--label",
            "app=secure-pod",
            "--mac",
            "02:00:00:00:00:77",
        ])
        .unwrap();
    assert_eq!(port["kind"], "vm");
    let address = port["addresses"][0].as_str().unwrap().to_owned();
    let pods = daemon.vsctl_json(&["get", "pod", "vmtap0"]).unwrap();
    assert_eq!(pods["status"]["podIP"], address.as_str());
    // No guest runs behind the TAP; what the switch decides is shown by trace.
    let to = format!("{address}:80");
    assert_eq!(
        daemon.vsctl_json(&["trace", "client", &to]).unwrap()["allowed"],
        true
    );
    daemon.apply(crate::SECURE_POD).unwrap();
    let error = format!(
        "{:#}",
        daemon.vsctl_json(&["trace", "client", &to]).unwrap_err()
    );
    assert!(error.contains("policy_ingress"), "{error}");
    daemon.vsctl(&["del-port", "vmtap0"]).unwrap();
    daemon.vsctl(&["get", "pod", "vmtap0"]).unwrap_err();
    drop(pod);
}
