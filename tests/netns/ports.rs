//! Ports that change under the switch's feet, and ports made over REST.

use serde_json::json;
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

/// Names that the kernel takes and that mean something to a shell, to nft or to JSON.
const ODD_NAMES: [&str; 7] = [
    "A.b-c_d",
    "qu\"ote",
    "br{ace",
    "st*r",
    "$(id)",
    "\u{fc}mlaut",
    "back\\slash",
];

/// Says whether an error, in JSON, names an interface as Rust quotes it.
fn names(error: &str, ifname: &str) -> bool {
    let quoted = serde_json::to_string(&format!("{ifname:?}")).unwrap();
    error.contains(quoted.trim_matches('"'))
}

#[test]
fn a_port_is_made_under_any_name_that_the_kernel_takes_and_others_are_bad_requests() {
    let daemon = daemon();
    let make = |kind: &str, ifname: &str| {
        let port = json!({"kind": kind, "ifname": ifname});
        daemon.api("POST", "/v1/ports", Some(&port))
    };
    for ifname in [
        "",
        ".",
        "a/b",
        "a:1",
        "tap%d",
        "two words",
        "tab\t",
        "line\n",
        "null\u{0}",
        "sixteen-bytes-16",
        "voil\u{e0}",
        "all",
        "default",
    ] {
        for kind in ["vm", "mirror"] {
            let refused = format!("{:#}", make(kind, ifname).unwrap_err());
            assert!(refused.contains("400"), "{kind} {ifname:?}: {refused}");
            assert!(names(&refused, ifname), "{kind}: {refused}");
        }
    }
    for ifname in ODD_NAMES {
        let made = make("mirror", ifname).unwrap().unwrap();
        assert_eq!(made["ifname"], ifname);
        daemon.node().ip(&["link", "show", ifname]).unwrap();
        // A virtual machine is a Pod object, whose name is a DNS subdomain.
        let vm = format!("v{ifname}");
        let refused = format!("{:#}", make("vm", &vm).unwrap_err());
        assert!(refused.contains("400"), "{vm:?}: {refused}");
        let port = json!({"kind": "vm", "ifname": vm, "name": "guest"});
        let made = daemon.api("POST", "/v1/ports", Some(&port)).unwrap();
        assert_eq!(made.unwrap()["pod"], "default/guest");
        daemon.vsctl(&["del-port", &vm]).unwrap();
        daemon.vsctl(&["del-port", ifname]).unwrap();
        daemon.node().ip(&["link", "show", ifname]).unwrap_err();
        daemon.node().ip(&["link", "show", &vm]).unwrap_err();
    }
}

#[test]
fn a_container_s_interface_has_any_name_that_the_kernel_takes_and_others_are_invalid() {
    let daemon = daemon();
    let mut pod = Pod::named("odd").prepare(&daemon).unwrap();
    for ifname in ["a/b", "two words", "voil\u{e0}", "all", "tap%d"] {
        pod.ifname = ifname.to_owned();
        let refused = pod.cni("ADD").unwrap();
        let error: serde_json::Value = serde_json::from_str(&refused.stdout).unwrap();
        // Code 4 of the CNI specification: an invalid environment variable.
        assert_eq!(error["code"], 4, "{ifname:?}: {error}");
        let text = error.to_string();
        assert!(names(&text, ifname), "{text}");
    }
    for ifname in ODD_NAMES {
        pod.ifname = ifname.to_owned();
        pod.add().unwrap();
        let shown = pod.run(&["ip", "link", "show", ifname]).unwrap();
        shown.success().unwrap();
        pod.cni("CHECK").unwrap().success().unwrap();
        pod.cni("DEL").unwrap().success().unwrap();
    }
}
