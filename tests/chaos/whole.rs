//! That nothing is half there: every list names the same things, and no address is there twice.

use std::collections::BTreeSet;

use serde_json::Value;
use vswitch_tests::Daemon;

use crate::get;

fn texts(items: &[Value], key: &str) -> BTreeSet<String> {
    let texts = items.iter().map(|item| item[key].as_str());
    texts.map(|text| text.unwrap().to_owned()).collect()
}

pub(crate) fn check(daemon: &Daemon) {
    let attachments = get(daemon, "/v1/attachments");
    let ports = get(daemon, "/v1/ports");
    let of_kinds = |kinds: &[&str]| -> Vec<Value> {
        let ports = ports.iter();
        let of_kinds = ports.filter(|port| kinds.contains(&port["kind"].as_str().unwrap()));
        of_kinds.cloned().collect()
    };
    let with_pod = of_kinds(&["pod", "vm"]);
    assert_eq!(
        texts(&attachments, "host_ifname"),
        texts(&with_pod, "ifname"),
        "attachments and ports"
    );

    let links: Value =
        serde_json::from_str(&daemon.node().ip(&["-json", "link"]).unwrap()).unwrap();
    let mut links = texts(links.as_array().unwrap(), "ifname");
    // Loopback, and a bridge of others on the host, are not the switch's.
    links.retain(|name| name != "lo" && !name.starts_with("br-"));
    assert_eq!(links, texts(&ports, "ifname"), "links and ports");
    let down = ports.iter().filter(|port| port["link"] == "gone");
    assert_eq!(down.count(), 0, "{ports:?}");

    let mut leases = get(daemon, "/v1/leases");
    leases.retain(|lease| lease["container_id"].is_string());
    let leased = texts(&leases, "address");
    assert_eq!(leased.len(), leases.len(), "an address twice: {leases:?}");
    let addresses = |items: &[Value]| -> Vec<String> {
        let all = items.iter().flat_map(|item| item["addresses"].as_array());
        let all = all.flatten().map(|address| address.as_str().unwrap());
        all.map(|address| address.split('/').next().unwrap().to_owned())
            .collect()
    };
    let attached = addresses(&attachments);
    assert_eq!(attached.len(), attachments.len(), "{attachments:?}");
    assert_eq!(attached.into_iter().collect::<BTreeSet<_>>(), leased);
    assert_eq!(
        addresses(&with_pod).into_iter().collect::<BTreeSet<_>>(),
        leased
    );

    // Those that a client made have no address.
    let pods = get(daemon, "/api/v1/pods");
    let pods = pods
        .iter()
        .filter_map(|pod| pod["status"]["podIP"].as_str());
    let pods: Vec<String> = pods.map(str::to_owned).collect();
    assert_eq!(pods.len(), leased.len(), "{pods:?}");
    assert_eq!(pods.into_iter().collect::<BTreeSet<_>>(), leased);

    let services = get(daemon, "/api/v1/services");
    let cluster_ips: Vec<&str> = services
        .iter()
        .filter_map(|service| service["spec"]["clusterIP"].as_str())
        .collect();
    let distinct: BTreeSet<&str> = cluster_ips.iter().copied().collect();
    assert_eq!(distinct.len(), cluster_ips.len(), "{services:?}");

    let stored = get(daemon, "/v1/admin-flows").len();
    let in_force = get(daemon, "/v1/flows?table=30");
    let in_force = in_force.iter().filter(|flow| flow["priority"] == 9);
    assert_eq!(stored, in_force.count(), "flows stored and in force");
}
