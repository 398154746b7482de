//! Nodes that several tests play on, and what is behind them.

use serde_json::{Value, json};
use vswitch_tests::{Daemon, DaemonOptions, Namespace, Pod};

/// A node whose pods and Services have addresses of both families.
pub(crate) fn dual_stack() -> Daemon {
    let options = DaemonOptions {
        pod_cidrs: vec!["10.244.0.0/24".to_owned(), "fd00:244::/64".to_owned()],
        extra: "[service]\ncidrs = [\"10.96.0.0/16\", \"fd96::/112\"]\n".to_owned(),
        ..DaemonOptions::default()
    };
    Daemon::start(&options).unwrap()
}

/// A host behind the node's uplink that knows no pod network: 192.0.2.2, the node is 192.0.2.1.
pub(crate) fn outside(daemon: &Daemon) -> Namespace {
    let outside = Namespace::new("outside").unwrap();
    let node = daemon.node();
    node.connect("uplink0", "192.0.2.1/24", &outside, "eth0", "192.0.2.2/24")
        .unwrap();
    outside
}

/// Makes a Service of both families whose endpoint is the pod. `ports` are the Service's;
/// `endpoint_ports` the pod's.
pub(crate) fn serve_as_service(
    daemon: &Daemon,
    server: &Pod,
    (name, cluster_ips): (&str, [&str; 2]),
    (ports, endpoint_ports): (&Value, &Value),
) {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"],
            "clusterIP": cluster_ips[0], "clusterIPs": cluster_ips, "ports": ports}});
    daemon.apply(&service.to_string()).unwrap();
    for (family, address) in ["IPv4", "IPv6"].iter().zip(&server.addresses) {
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": format!("{name}-{}", family.to_lowercase()),
                "labels": {"kubernetes.io/service-name": name}},
            "addressType": family, "endpoints": [{"addresses": [address]}],
            "ports": endpoint_ports});
        daemon.apply(&slice.to_string()).unwrap();
    }
}
