//! Objects reduced to the records that rules are compiled from. What an object holds that is
//! not understood is logged and left out: validation has let it in.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};
use vswitch_datapath::flow::ip_proto;
use vswitch_datapath::pipeline::Bandwidth;

use super::Resource;
use super::bandwidth::{EGRESS_BANDWIDTH, INGRESS_BANDWIDTH, bits_per_second};
use super::endpoints::{SERVICE_NAME, ZONE};
use super::shelf::ObjectId;
use super::validate::special;
use crate::state::{
    AnyPolicy, CalicoPolicyRecord, ClusterChange, ClusterPolicyKey, ClusterPolicyRecord,
    EndpointPort, EndpointRecord, EndpointSliceRecord, NETWORK_ANNOTATION, NamedPort,
    NamespaceRecord, NetworkSetRecord, NodeRecord, ObjectKey, PodPhase, PodRecord, PolicyKey,
    PolicyMode, PolicyRecord, ServiceAccountRecord, ServicePort, ServiceRecord, StagedRecord,
    TierRecord,
};

/// Annotation of policies and namespaces: `audit` or `enforce`.
pub(super) const POLICY_MODE: &str = "policy.vswitch.io/mode";

/// Labels of Services that another proxy serves, or that clients are to resolve to endpoints by
/// themselves; of their EndpointSlices too. Their value does not matter.
const NOT_PROXIED: [&str; 2] = [
    "service.kubernetes.io/service-proxy-name",
    "service.kubernetes.io/headless",
];

fn key((_, namespace, name): &ObjectId) -> ObjectKey {
    ObjectKey {
        namespace: namespace.clone(),
        name: name.clone(),
    }
}

fn cluster_policy(id: &ObjectId) -> Option<ClusterPolicyKey> {
    let name = id.2.clone();
    let kind = id.0.cluster_policy()?;
    Some(ClusterPolicyKey { kind, name })
}

/// Returns what the end of an object tells.
pub(super) fn gone(id: &ObjectId) -> Option<ClusterChange> {
    match id.0 {
        Resource::Namespace => Some(ClusterChange::NamespaceGone(id.2.clone())),
        Resource::Pod => Some(ClusterChange::PodGone(key(id))),
        Resource::NetworkPolicy => Some(ClusterChange::PolicyGone(key(id))),
        Resource::ClusterNetworkPolicy
        | Resource::AdminNetworkPolicy
        | Resource::BaselineAdminNetworkPolicy => {
            cluster_policy(id).map(ClusterChange::ClusterPolicyGone)
        }
        Resource::Service => Some(ClusterChange::ServiceGone(key(id))),
        Resource::EndpointSlice => Some(ClusterChange::EndpointSliceGone(key(id))),
        Resource::Node => Some(ClusterChange::NodeGone(id.2.clone())),
        Resource::GlobalNetworkPolicy | Resource::CalicoNetworkPolicy => {
            Some(ClusterChange::CalicoPolicyGone(key(id)))
        }
        Resource::GlobalNetworkSet | Resource::NetworkSet => {
            Some(ClusterChange::NetworkSetGone(key(id)))
        }
        Resource::StagedGlobalNetworkPolicy
        | Resource::StagedNetworkPolicy
        | Resource::StagedKubernetesNetworkPolicy => {
            Some(ClusterChange::StagedGone(staged_key(id)))
        }
        Resource::ServiceAccount => Some(ClusterChange::ServiceAccountGone(key(id))),
        Resource::CalicoTier => Some(ClusterChange::TierGone(id.2.clone())),
        Resource::HostEndpoint | Resource::Event => None,
    }
}

/// Returns what an object tells.
pub(super) fn present(id: &ObjectId, object: &Value) -> Option<ClusterChange> {
    match id.0 {
        Resource::Namespace => {
            let labels = labels(object);
            Some(ClusterChange::Namespace(NamespaceRecord {
                name: id.2.clone(),
                labels,
                mode: mode(&id.2, object),
            }))
        }
        Resource::Pod => Some(ClusterChange::Pod(pod_record(key(id), object))),
        Resource::NetworkPolicy => policy_record(key(id), object).map(ClusterChange::Policy),
        Resource::ClusterNetworkPolicy
        | Resource::AdminNetworkPolicy
        | Resource::BaselineAdminNetworkPolicy => {
            Some(ClusterChange::ClusterPolicy(ClusterPolicyRecord {
                key: cluster_policy(id)?,
                spec: object["spec"].clone(),
                mode: mode(&id.2, object),
            }))
        }
        Resource::Service => Some(service(key(id), object)),
        Resource::EndpointSlice => Some(endpoint_slice(key(id), object)),
        Resource::Node => Some(ClusterChange::Node(node(id.2.clone(), object))),
        Resource::GlobalNetworkPolicy | Resource::CalicoNetworkPolicy => {
            Some(ClusterChange::CalicoPolicy(CalicoPolicyRecord {
                key: key(id),
                spec: object["spec"].clone(),
                mode: mode(&key(id), object),
            }))
        }
        Resource::GlobalNetworkSet | Resource::NetworkSet => {
            Some(ClusterChange::NetworkSet(network_set(key(id), object)))
        }
        Resource::StagedGlobalNetworkPolicy
        | Resource::StagedNetworkPolicy
        | Resource::StagedKubernetesNetworkPolicy => staged(id, object),
        Resource::ServiceAccount => Some(ClusterChange::ServiceAccount(ServiceAccountRecord {
            key: key(id),
            labels: labels(object),
        })),
        Resource::CalicoTier => Some(ClusterChange::Tier(TierRecord {
            name: id.2.clone(),
            order: object["spec"]["order"].as_f64(),
            passes: object["spec"]["defaultAction"] == "Pass",
        })),
        Resource::HostEndpoint | Resource::Event => None,
    }
}

/// Returns what an object says of its policies. What is not understood leaves them in force.
fn mode(of: &dyn Display, object: &Value) -> Option<PolicyMode> {
    let text = object["metadata"]["annotations"][POLICY_MODE].as_str()?;
    match text {
        "audit" => Some(PolicyMode::Audit),
        "enforce" => Some(PolicyMode::Enforce),
        _ => {
            tracing::warn!(%of, annotation = POLICY_MODE, value = text, "annotation is neither audit nor enforce; the policies are in force");
            Some(PolicyMode::Enforce)
        }
    }
}

/// Returns the policy that a staged one is a change of.
fn staged_key(id: &ObjectId) -> PolicyKey {
    match id.0 {
        Resource::StagedKubernetesNetworkPolicy => PolicyKey::NetworkPolicy(key(id)),
        _ => PolicyKey::of_calico(&key(id)),
    }
}

/// Of the actions that there are, `Learn` and `Ignore` ask for nothing.
fn staged(id: &ObjectId, object: &Value) -> Option<ClusterChange> {
    let policy = staged_key(id);
    let becomes = match object["spec"]["stagedAction"].as_str().unwrap_or("Set") {
        "Set" => {
            let mut spec = object["spec"].clone();
            if let Some(fields) = spec.as_object_mut() {
                fields.remove("stagedAction");
            }
            Some(match &policy {
                PolicyKey::NetworkPolicy(key) => {
                    let object = json!({ "spec": spec });
                    AnyPolicy::Network(Arc::new(policy_record(key.clone(), &object)?))
                }
                _ => AnyPolicy::Calico(Arc::new(CalicoPolicyRecord {
                    key: key(id),
                    spec,
                    mode: None,
                })),
            })
        }
        "Delete" => None,
        _ => return Some(ClusterChange::StagedGone(policy)),
    };
    Some(ClusterChange::Staged(policy, StagedRecord { becomes }))
}

/// Host bits are cut off, as Calico does.
fn network_set(key: ObjectKey, set: &Value) -> NetworkSetRecord {
    let nets = items(&set["spec"]["nets"]).filter_map(Value::as_str);
    let nets = nets.map(|text| match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address).to_string(),
        Err(_) => text.to_owned(),
    });
    let nets: Vec<String> = nets.collect();
    let nets = parsed::<IpNet>(nets.iter().map(String::as_str).collect(), &key, "nets");
    NetworkSetRecord {
        labels: labels(set),
        nets: nets.iter().map(IpNet::trunc).collect(),
        key,
    }
}

fn node(name: String, node: &Value) -> NodeRecord {
    let spec = &node["spec"];
    let mut cidrs: Vec<&str> = items(&spec["podCIDRs"]).filter_map(Value::as_str).collect();
    if cidrs.is_empty() {
        cidrs.extend(spec["podCIDR"].as_str().filter(|cidr| !cidr.is_empty()));
    }
    let cidrs = parsed::<IpNet>(cidrs, &name, "podCIDRs");
    let addresses = items(&node["status"]["addresses"]);
    let internal = addresses.filter(|address| address["type"] == "InternalIP");
    let internal = internal.filter_map(|address| address["address"].as_str());
    // Names are among them.
    let ips = items(&node["status"]["addresses"])
        .filter_map(|address| address["address"].as_str()?.parse().ok());
    let annotations = node["metadata"]["annotations"].as_object().into_iter();
    let annotations = annotations
        .flatten()
        .filter(|(key, _)| key.starts_with(NETWORK_ANNOTATION))
        .filter_map(|(key, value)| Some((key.clone(), text(value)?)));
    NodeRecord {
        labels: labels(node),
        zone: text(&node["metadata"]["labels"][ZONE]),
        pod_cidrs: cidrs.iter().map(IpNet::trunc).collect(),
        internal_ips: parsed(internal.collect(), &name, "status.addresses"),
        ips: ips.collect(),
        annotations: annotations.collect(),
        name,
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// Parses what parses; the rest is logged.
fn parsed<T: std::str::FromStr>(texts: Vec<&str>, key: &impl Display, what: &str) -> Vec<T> {
    let parse = |text: &str| {
        let parsed = text.parse().ok();
        if parsed.is_none() {
            tracing::warn!(object = %key, value = text, what, "value of an object is not understood and left out");
        }
        parsed
    };
    texts.into_iter().filter_map(parse).collect()
}

/// Returns whether labels say that proxies are to leave an object alone.
fn is_not_proxied(object: &Value) -> bool {
    let labels = object["metadata"]["labels"].as_object();
    labels.is_some_and(|labels| NOT_PROXIED.iter().any(|label| labels.contains_key(*label)))
}

/// A headless Service has nothing to balance, an `ExternalName` is a matter of the DNS.
fn service(key: ObjectKey, service: &Value) -> ClusterChange {
    let spec = &service["spec"];
    if is_not_proxied(service) || spec["type"] == "ExternalName" || spec["clusterIP"] == "None" {
        return ClusterChange::ServiceGone(key);
    }
    let mut cluster_ips: Vec<&str> = items(&spec["clusterIPs"])
        .filter_map(Value::as_str)
        .collect();
    if cluster_ips.is_empty() {
        cluster_ips.extend(spec["clusterIP"].as_str().filter(|ip| !ip.is_empty()));
    }
    let ingress = items(&service["status"]["loadBalancer"]["ingress"]);
    let ingress = ingress.filter(|ingress| ingress["ipMode"] != "Proxy");
    let load_balancer_ips = ingress.filter_map(|ingress| ingress["ip"].as_str());
    let mut load_balancer_ips = parsed(load_balancer_ips.collect(), &key, "loadBalancer.ingress");
    // Whoever assigns them is not checked as those are who write a spec.
    load_balancer_ips.retain(|ip| special(*ip).is_none());
    let external_ips = items(&spec["externalIPs"]).filter_map(Value::as_str);
    let ranges = items(&spec["loadBalancerSourceRanges"]).filter_map(Value::as_str);
    let timeout = &spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"];
    // The API's default: three hours.
    let affinity = (spec["sessionAffinity"] == "ClientIP")
        .then(|| Duration::from_secs(timeout.as_u64().unwrap_or(10_800)));
    ClusterChange::Service(ServiceRecord {
        cluster_ips: parsed(cluster_ips, &key, "clusterIPs"),
        external_ips: parsed(external_ips.collect(), &key, "externalIPs"),
        load_balancer_ips,
        source_ranges: parsed::<IpNet>(
            ranges.map(str::trim).collect(),
            &key,
            "loadBalancerSourceRanges",
        ),
        ports: items(&spec["ports"]).filter_map(service_port).collect(),
        affinity,
        internal_local: spec["internalTrafficPolicy"] == "Local",
        external_local: spec["externalTrafficPolicy"] == "Local",
        health_check_node_port: number(&spec["healthCheckNodePort"]),
        key,
    })
}

fn service_port(port: &Value) -> Option<ServicePort> {
    Some(ServicePort {
        name: text(&port["name"]).unwrap_or_default(),
        proto: protocol(port)?,
        port: number(&port["port"])?,
        node_port: number(&port["nodePort"]),
    })
}

/// A slice without a Service, or of names instead of addresses, concerns nobody here.
fn endpoint_slice(key: ObjectKey, slice: &Value) -> ClusterChange {
    let service = slice["metadata"]["labels"][SERVICE_NAME].as_str();
    let is_proxied = slice["addressType"] != "FQDN" && !is_not_proxied(slice);
    let Some(service) = service.filter(|_| is_proxied) else {
        return ClusterChange::EndpointSliceGone(key);
    };
    let service = ObjectKey {
        namespace: key.namespace.clone(),
        name: service.to_owned(),
    };
    ClusterChange::EndpointSlice(EndpointSliceRecord {
        service,
        endpoints: items(&slice["endpoints"])
            .filter_map(|one| endpoint(one, &key))
            .collect(),
        ports: items(&slice["ports"]).filter_map(endpoint_port).collect(),
        key,
    })
}

/// Conditions that are not told count as the API says: an endpoint is ready and not
/// terminating, and serves if it is ready.
fn endpoint(endpoint: &Value, key: &ObjectKey) -> Option<EndpointRecord> {
    let first = endpoint["addresses"][0].as_str().into_iter().collect();
    let conditions = &endpoint["conditions"];
    let ready = conditions["ready"].as_bool().unwrap_or(true);
    let hints = |field: &str| -> Vec<String> {
        let names = items(&endpoint["hints"][field]);
        names.filter_map(|hint| text(&hint["name"])).collect()
    };
    Some(EndpointRecord {
        ip: parsed::<IpAddr>(first, key, "endpoints[].addresses").pop()?,
        ready,
        serving: conditions["serving"].as_bool().unwrap_or(ready),
        terminating: conditions["terminating"].as_bool().unwrap_or(false),
        node_name: text(&endpoint["nodeName"]),
        zones: hints("forZones"),
        nodes: hints("forNodes"),
    })
}

/// A port without a number means all ports, which no Service port can be mapped to.
fn endpoint_port(port: &Value) -> Option<EndpointPort> {
    Some(EndpointPort {
        name: text(&port["name"]).unwrap_or_default(),
        proto: protocol(port)?,
        port: number(&port["port"])?,
    })
}

fn labels(object: &Value) -> BTreeMap<String, String> {
    let labels = object["metadata"]["labels"].as_object();
    let pairs = labels.into_iter().flatten();
    pairs
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// A limit that cannot be read is none: the pod keeps its network.
fn bandwidth(key: &ObjectKey, pod: &Value) -> Bandwidth {
    let rate = |annotation| {
        let text = pod["metadata"]["annotations"][annotation].as_str()?;
        let rate = bits_per_second(text);
        if let Err(problem) = &rate {
            tracing::warn!(pod = %key, annotation, value = text, problem, "bandwidth limit of a pod is not understood; there is none");
        }
        rate.ok()
    };
    Bandwidth {
        ingress_bps: rate(INGRESS_BANDWIDTH),
        egress_bps: rate(EGRESS_BANDWIDTH),
    }
}

/// Reduces a Pod; an address that is none is logged and left out.
fn pod_record(key: ObjectKey, pod: &Value) -> PodRecord {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let list = status["podIPs"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let mut texts: Vec<&str> = list.iter().filter_map(|ip| ip["ip"].as_str()).collect();
    if texts.is_empty() {
        texts.extend(status["podIP"].as_str());
    }
    let ips = texts.into_iter().filter_map(|text| {
        let ip = text.parse::<IpAddr>();
        if ip.is_err() {
            tracing::warn!(pod = %key, address = text, "address of a pod is not understood and left out");
        }
        ip.ok()
    });
    PodRecord {
        ips: ips.collect(),
        uid: pod["metadata"]["uid"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        labels: labels(pod),
        host_network: spec["hostNetwork"] == true,
        phase: phase(status["phase"].as_str()),
        node_name: spec["nodeName"].as_str().map(str::to_owned),
        service_account: spec["serviceAccountName"]
            .as_str()
            .unwrap_or("default")
            .to_owned(),
        named_ports: named_ports(spec),
        bandwidth: bandwidth(&key, pod),
        key,
    }
}

fn phase(text: Option<&str>) -> PodPhase {
    match text {
        Some("Running") => PodPhase::Running,
        Some("Succeeded") => PodPhase::Succeeded,
        Some("Failed") => PodPhase::Failed,
        Some("Unknown") => PodPhase::Unknown,
        _ => PodPhase::Pending,
    }
}

/// Ports of containers, and of init containers that go on running (sidecars).
fn named_ports(spec: &Value) -> Vec<NamedPort> {
    let containers = spec["containers"].as_array().into_iter().flatten();
    let sidecars = spec["initContainers"].as_array().into_iter().flatten();
    let sidecars = sidecars.filter(|container| container["restartPolicy"] == "Always");
    let ports = containers
        .chain(sidecars)
        .filter_map(|c| c["ports"].as_array())
        .flatten();
    ports.filter_map(named_port).collect()
}

fn named_port(port: &Value) -> Option<NamedPort> {
    Some(NamedPort {
        name: port["name"].as_str()?.to_owned(),
        port: number(&port["containerPort"])?,
        proto: protocol(port)?,
    })
}

/// Returns the IP protocol number of a port; TCP where it names none.
fn protocol(port: &Value) -> Option<u8> {
    match port["protocol"].as_str().unwrap_or("TCP") {
        "TCP" => Some(ip_proto::TCP),
        "UDP" => Some(ip_proto::UDP),
        "SCTP" => Some(ip_proto::SCTP),
        _ => None,
    }
}

fn number(value: &Value) -> Option<u16> {
    u16::try_from(value.as_u64()?)
        .ok()
        .filter(|number| *number != 0)
}

fn policy_record(key: ObjectKey, policy: &Value) -> Option<PolicyRecord> {
    match serde_json::from_value::<NetworkPolicy>(policy.clone()) {
        Ok(parsed) => Some(PolicyRecord {
            mode: mode(&key, policy),
            key,
            spec: parsed.spec.unwrap_or_default(),
        }),
        Err(error) => {
            // Validation has let it in, so this is a defect; what was in force stays so.
            tracing::error!(policy = %key, %error, "parsing a policy failed; what was in force of it stays");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key() -> ObjectKey {
        ObjectKey {
            namespace: "ns".to_owned(),
            name: "web".to_owned(),
        }
    }

    #[test]
    fn a_load_balancer_s_addresses_are_those_that_lead_here() {
        let ingress = json!([
            {"ip": "203.0.113.7"}, {"ip": "203.0.113.8", "ipMode": "Proxy"}, {"hostname": "x"},
            {"ip": "127.0.0.1"}, {"ip": "169.254.86.1"}, {"ip": "nonsense"},
        ]);
        let object = json!({
            "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.1", "ports": [{"port": 80}]},
            "status": {"loadBalancer": {"ingress": ingress}},
        });
        let ClusterChange::Service(record) = service(key(), &object) else {
            panic!("it has something to balance");
        };
        assert_eq!(
            record.load_balancer_ips,
            ["203.0.113.7".parse::<IpAddr>().unwrap()]
        );
        assert_eq!(record.cluster_ips, ["10.96.0.1".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn a_node_tells_where_its_pods_are_and_how_to_reach_them() {
        let object = json!({
            "metadata": {"annotations": {"flannel.alpha.coreos.com/public-ip": "192.0.2.7", "a/b": "c"}},
            "spec": {"podCIDR": "10.244.7.0/24", "podCIDRs": ["10.244.7.9/24", "x", "fd00:7::/64"]},
            "status": {"addresses": [{"type": "Hostname", "address": "n"},
                {"type": "InternalIP", "address": "192.0.2.7"}, {"type": "InternalIP", "address": "y"}]},
        });
        let record = node("n".to_owned(), &object);
        let cidrs: Vec<String> = record.pod_cidrs.iter().map(IpNet::to_string).collect();
        assert_eq!(cidrs, ["10.244.7.0/24", "fd00:7::/64"]);
        assert_eq!(
            record.internal_ips,
            ["192.0.2.7".parse::<IpAddr>().unwrap()]
        );
        assert_eq!(record.annotations.len(), 1, "only those of the network");
        let old = node(
            "n".to_owned(),
            &json!({"spec": {"podCIDR": "10.244.8.0/24"}}),
        );
        assert_eq!(old.pod_cidrs, ["10.244.8.0/24".parse::<IpNet>().unwrap()]);
    }

    #[test]
    fn services_of_other_proxies_are_left_to_them_whatever_the_label_s_value() {
        for label in [
            "service.kubernetes.io/service-proxy-name",
            "service.kubernetes.io/headless",
        ] {
            for value in ["", "vswitch"] {
                let mut labels = json!({SERVICE_NAME: "web", "app": "web"});
                let object = |labels: &Value| {
                    json!({"metadata": {"labels": labels}, "addressType": "IPv4",
                        "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}})
                };
                let both = |labels: &Value| {
                    let object = object(labels);
                    (service(key(), &object), endpoint_slice(key(), &object))
                };
                let (served, slice) = both(&labels);
                assert!(matches!(served, ClusterChange::Service(_)));
                assert!(matches!(slice, ClusterChange::EndpointSlice(_)));
                labels[label] = json!(value);
                let gone = ClusterChange::ServiceGone(key());
                assert_eq!(
                    both(&labels),
                    (gone, ClusterChange::EndpointSliceGone(key()))
                );
            }
        }
    }

    #[test]
    fn hints_name_zones_and_nodes() {
        let object = json!({"addresses": ["10.0.0.1"], "hints": {
            "forZones": [{"name": "a"}, {"name": "b"}], "forNodes": [{"name": "n"}]}});
        let record = endpoint(&object, &key()).unwrap();
        assert_eq!(record.zones, ["a", "b"]);
        assert_eq!(record.nodes, ["n"]);
    }

    #[test]
    fn headless_services_and_external_names_have_nothing_to_balance() {
        for spec in [
            json!({"clusterIP": "None"}),
            json!({"type": "ExternalName"}),
        ] {
            let gone = ClusterChange::ServiceGone(key());
            assert_eq!(service(key(), &json!({ "spec": spec })), gone);
        }
    }

    #[test]
    fn conditions_that_are_not_told_count_as_the_api_says() {
        let read = |conditions: Value| {
            let object = json!({"addresses": ["10.0.0.1", "10.0.0.2"], "conditions": conditions});
            let record = endpoint(&object, &key()).unwrap();
            assert_eq!(record.ip, "10.0.0.1".parse::<IpAddr>().unwrap());
            (record.ready, record.serving, record.terminating)
        };
        assert_eq!(read(Value::Null), (true, true, false));
        assert_eq!(read(json!({"ready": false})), (false, false, false));
        let ends = json!({"ready": false, "serving": true, "terminating": true});
        assert_eq!(read(ends), (false, true, true));
    }

    #[test]
    fn a_slice_of_names_or_of_no_service_concerns_nobody() {
        let gone = ClusterChange::EndpointSliceGone(key());
        let labels = json!({SERVICE_NAME: "web"});
        let named = json!({"metadata": {"labels": labels}, "addressType": "FQDN"});
        assert_eq!(endpoint_slice(key(), &named), gone);
        assert_eq!(endpoint_slice(key(), &json!({"addressType": "IPv4"})), gone);
    }
}
