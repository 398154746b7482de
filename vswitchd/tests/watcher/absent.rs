//! API servers that do not serve every kind, or serve it in an older version, or to others only.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use vswitchd::events::Regarding;
use vswitchd::objects::{Family, RESOURCES, Registry, Resource, Selection};
use vswitchd::store::MemoryStore;

use crate::kit::{Node, answering, api_at, soon};

/// What a path of lists is answered with: items, or a status of failure.
type Answers = Arc<Mutex<BTreeMap<&'static str, Result<Value, u16>>>>;

const V1: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const BETA: &str = "/apis/discovery.k8s.io/v1beta1/endpointslices";
const ENDPOINTS: &str = "/api/v1/endpoints";
const POLICIES: &str = "/apis/networking.k8s.io/v1/networkpolicies";

fn metadata(name: &str) -> Value {
    json!({"name": name, "namespace": "default", "uid": name, "resourceVersion": "5"})
}

/// Paths of what every API server serves, with one policy.
fn answers() -> Answers {
    let core = ["namespaces", "pods", "nodes", "serviceaccounts", "services"];
    let core = core.map(|plural| -> &'static str { format!("/api/v1/{plural}").leak() });
    let empty = core.into_iter().map(|path| (path, Ok(json!([]))));
    let mut answers: BTreeMap<_, _> = empty.collect();
    let policy = json!({"metadata": metadata("deny"), "spec": {"podSelector": {}}});
    answers.insert(POLICIES, Ok(json!([policy])));
    Arc::new(Mutex::new(answers))
}

/// An API server that serves what is there and discovers what it serves; another path, and one
/// with 404, is unknown to it.
async fn server(answers: &Answers) -> std::net::SocketAddr {
    let answers = Arc::clone(answers);
    answering(move |target| {
        let path = target.split('?').next().unwrap();
        let answers = answers.lock().unwrap();
        let served = answers.iter().filter(|(_, answer)| **answer != Err(404));
        let served: Vec<(&str, &str)> = served
            .map(|(path, _)| path.rsplit_once('/').unwrap())
            .collect();
        if path == "/apis" {
            let versions = served.iter().filter_map(|(at, _)| at.strip_prefix("/apis/"));
            let groups: Vec<Value> = versions
                .map(|at| {
                    let (name, version) = at.split_once('/').unwrap();
                    json!({"name": name, "versions": [{"groupVersion": at, "version": version}]})
                })
                .collect();
            return (200, json!({"kind": "APIGroupList", "groups": groups}));
        }
        let of_path: Vec<Value> = served
            .iter()
            .filter(|(at, _)| *at == path)
            .map(|(_, plural)| json!({"name": plural, "singularName": "", "namespaced": true, "kind": "X", "verbs": []}))
            .collect();
        if !of_path.is_empty() {
            let version = path.trim_start_matches("/apis/").trim_start_matches("/api/");
            return (200, json!({"kind": "APIResourceList", "groupVersion": version, "resources": of_path}));
        }
        match answers.get(path).cloned().unwrap_or(Err(404)) {
            Ok(_) if target.contains("watch=true") => {
                (200, json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}}))
            }
            Ok(items) => (200, json!({"metadata": {"resourceVersion": "9"}, "items": items})),
            Err(code) => {
                let reason = if code == 403 { "Forbidden" } else { "NotFound" };
                let message = format!("{path}: {reason}");
                (code, json!({"kind": "Status", "status": "Failure", "reason": reason, "message": message, "code": code}))
            }
        }
    })
    .await
}

async fn node(answers: &Answers) -> Node {
    let api = api_at(server(answers).await).await;
    Node::start(&api, &(Arc::new(MemoryStore::default()) as _))
}

/// Addresses and nodes of all endpoints, as the slices say.
fn endpoints(registry: &Registry) -> Vec<(String, String)> {
    let slices = registry.list(Resource::EndpointSlice, None, &Selection::default());
    let mut found = Vec::new();
    for slice in slices.unwrap().items {
        assert_eq!(
            slice["metadata"]["labels"]["kubernetes.io/service-name"],
            "web"
        );
        for endpoint in slice["endpoints"].as_array().unwrap() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            found.push((text(&endpoint["addresses"][0]), text(&endpoint["nodeName"])));
        }
    }
    found.sort();
    found
}

fn slice(name: &str, ip: &str, node: &Value) -> Value {
    let mut metadata = metadata(name);
    metadata["labels"] = json!({"kubernetes.io/service-name": "web"});
    let mut endpoint = json!({"addresses": [ip]});
    for (key, value) in node.as_object().unwrap() {
        endpoint[key] = value.clone();
    }
    json!({"metadata": metadata, "addressType": "IPv4", "endpoints": [endpoint],
        "ports": [{"port": 80, "protocol": "TCP"}]})
}

fn pair(ip: &str, node: &str) -> (String, String) {
    (ip.to_owned(), node.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoint_slices_are_read_from_the_best_source_that_is_served_and_a_better_one_is_found() {
    let answers = answers();
    let object = json!({"metadata": metadata("web"), "subsets": [{
        "addresses": [{"ip": "10.0.0.1", "nodeName": "node-a"}],
        "notReadyAddresses": [{"ip": "10.0.0.2"}], "ports": [{"port": 80}]}]});
    answers
        .lock()
        .unwrap()
        .insert(ENDPOINTS, Ok(json!([object])));
    let mut node = node(&answers).await;
    node.synced().await;
    let registry = Arc::clone(&node.cluster.registry);
    assert_eq!(
        endpoints(&registry),
        [pair("10.0.0.1", "node-a"), pair("10.0.0.2", "")]
    );
    soon("everything is heard", || node.cluster.health.is_live()).await;
    assert!(node.cluster.health.absences().is_empty());

    let topology = json!({"topology": {"kubernetes.io/hostname": "node-b"}});
    let beta = json!([slice("web-x", "10.0.0.3", &topology)]);
    answers.lock().unwrap().insert(BETA, Ok(beta));
    soon("v1beta1 is read", || {
        endpoints(&registry) == [pair("10.0.0.3", "node-b")]
    })
    .await;

    // A server of another version, which no longer serves the older one.
    let v1 = json!([slice("web-x", "10.0.0.4", &json!({"nodeName": "node-c"}))]);
    {
        let mut answers = answers.lock().unwrap();
        answers.insert(V1, Ok(v1));
        answers.insert(BETA, Err(404));
    }
    soon("v1 is read", || {
        endpoints(&registry) == [pair("10.0.0.4", "node-c")]
    })
    .await;
    assert!(node.cluster.health.absences().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_go_on_without_services_which_are_picked_up_when_they_are_served() {
    let answers = answers();
    answers.lock().unwrap().insert("/api/v1/services", Err(403));
    let mut node = node(&answers).await;
    node.synced().await;
    let (registry, health) = (
        Arc::clone(&node.cluster.registry),
        Arc::clone(&node.cluster.health),
    );
    assert!(
        registry
            .get(Resource::NetworkPolicy, "default", "deny")
            .is_ok()
    );
    soon("both are missed", || health.absences().len() == 2).await;
    soon("all else is heard", || health.is_live()).await;
    assert!(health.errors().is_empty());
    assert_eq!(
        health.absences(),
        [
            "services: this node's switch serves no Services \
             (list services: /api/v1/services: Forbidden)",
            "endpointslices: Services have no endpoints, connections to them are refused \
             (the API server does not serve endpointslices of discovery.k8s.io/v1, endpointslices \
             of discovery.k8s.io/v1beta1, endpoints of v1)"
        ]
    );

    let service = json!({"metadata": metadata("web"), "spec": {"clusterIP": "10.96.0.9"}});
    {
        let mut answers = answers.lock().unwrap();
        answers.insert("/api/v1/services", Ok(json!([service])));
        answers.insert(V1, Ok(json!([slice("web-x", "10.0.0.4", &json!({}))])));
    }
    soon("both are heard", || health.absences().is_empty()).await;
    soon("the Service is there", || {
        registry.get(Resource::Service, "default", "web").is_ok()
            && endpoints(&registry) == [pair("10.0.0.4", "")]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_must_not_read_policies_waits_for_them() {
    let answers = answers();
    {
        let mut answers = answers.lock().unwrap();
        answers.insert(ENDPOINTS, Ok(json!([])));
        answers.insert(POLICIES, Err(403));
    }
    let mut node = node(&answers).await;
    let health = Arc::clone(&node.cluster.health);
    let of_calico = RESOURCES.iter().map(|info| info.resource.family());
    let calico = of_calico.filter(|family| *family == Family::Calico).count();
    soon("all else is heard", || {
        let figures = health.figures();
        // Nobody serves policies of the cluster here, of Kubernetes' or Calico's, or HostEndpoints.
        let heard = figures.iter().filter(|watch| watch.is_synced).count();
        heard == figures.len() - 5 - calico
    })
    .await;
    assert!(!health.is_synced() && node.cluster.synced.borrow().is_none());
    let told = health.absences();
    let expected = "networkpolicies: policies cannot be judged, the node does not become ready";
    assert!(told[0].starts_with(expected), "{told:?}");
    // An API server that says it does not serve them has none.
    answers.lock().unwrap().insert(POLICIES, Err(404));
    node.synced().await;
    let told = health.absences();
    let expected = "networkpolicies: there are no NetworkPolicies to enforce";
    assert!(told[0].starts_with(expected), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_of_the_cluster_are_read_once_their_crds_are_there() {
    let answers = answers();
    answers.lock().unwrap().insert(ENDPOINTS, Ok(json!([])));
    let mut node = node(&answers).await;
    node.synced().await;
    let health = Arc::clone(&node.cluster.health);
    soon("a cluster without the CRD is whole", || health.is_live()).await;
    assert!(health.absences().is_empty(), "{:?}", health.absences());

    let spec = json!({"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}});
    let kinds = [
        (
            Resource::ClusterNetworkPolicy,
            "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies",
        ),
        (
            Resource::AdminNetworkPolicy,
            "/apis/policy.networking.k8s.io/v1alpha1/adminnetworkpolicies",
        ),
        (
            Resource::BaselineAdminNetworkPolicy,
            "/apis/policy.networking.k8s.io/v1alpha1/baselineadminnetworkpolicies",
        ),
    ];
    let registry = Arc::clone(&node.cluster.registry);
    for (resource, path) in kinds {
        let guard = json!({"metadata": {"name": "guard", "uid": "g", "resourceVersion": "5"},
            "spec": spec});
        answers.lock().unwrap().insert(path, Ok(json!([guard])));
        soon("the policy is there", || {
            let found = registry.get(resource, "", "guard");
            found.is_ok_and(|policy| policy["spec"] == spec)
        })
        .await;
    }
    assert!(health.is_live());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_endpoints_that_must_not_be_read_are_said_to_be_and_hold_up_nothing() {
    const HOST_ENDPOINTS: &str = "/apis/crd.projectcalico.org/v1/hostendpoints";
    const STORED: &str = "/apis/crd.projectcalico.org/v1/globalnetworkpolicies";
    let answers = answers();
    {
        let mut answers = answers.lock().unwrap();
        answers.insert(ENDPOINTS, Ok(json!([])));
        answers.insert(HOST_ENDPOINTS, Err(403));
    }
    let mut node = node(&answers).await;
    node.synced().await;
    let health = Arc::clone(&node.cluster.health);
    soon("all else is heard", || health.is_live()).await;
    let expected = "hostendpoints: HostEndpoints have no effect here, and which there are is not \
                    said (list hostendpoints: ";
    let told = health.absences();
    assert!(told.len() == 1 && told[0].starts_with(expected), "{told:?}");

    let stored = |kind: &str, name: &str, spec: Value| {
        json!([{"apiVersion": "crd.projectcalico.org/v1", "kind": kind, "spec": spec,
            "metadata": {"name": name, "uid": "u", "resourceVersion": "5"}}])
    };
    let endpoint = json!({"node": "node-a", "interfaceName": "eth0"});
    {
        let mut answers = answers.lock().unwrap();
        let endpoints = stored("HostEndpoint", "eth0", endpoint);
        answers.insert(HOST_ENDPOINTS, Ok(endpoints));
        let policies = stored("GlobalNetworkPolicy", "default.guard", json!({}));
        answers.insert(STORED, Ok(policies));
    }
    let registry = Arc::clone(&node.cluster.registry);
    let get = |resource, name| registry.get(resource, "", name).ok();
    soon("both are read", || {
        let policy = get(Resource::GlobalNetworkPolicy, "guard");
        policy.is_some() && get(Resource::HostEndpoint, "eth0").is_some()
    })
    .await;
    assert!(health.absences().is_empty());
    let endpoint = get(Resource::HostEndpoint, "eth0").unwrap();
    assert_eq!(
        endpoint["spec"],
        json!({"node": "node-a"}),
        "what is not read is not kept"
    );
    let policy = get(Resource::GlobalNetworkPolicy, "guard").unwrap();
    let regarding = Regarding::object(&policy);
    let of_event = (regarding.api_version.as_str(), regarding.name.as_str());
    assert_eq!(
        of_event,
        ("crd.projectcalico.org/v1", "default.guard"),
        "as it is stored"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_that_is_lost_on_the_way_is_a_failure_and_no_absence() {
    let answers = answers();
    answers.lock().unwrap().insert(ENDPOINTS, Ok(json!([])));
    // Discovery says that it is there, the list that it is not: a proxy in between.
    let behind = Arc::clone(&answers);
    let address = server(&behind).await;
    let node = {
        let api = api_at(proxied(address).await).await;
        Node::start(&api, &(Arc::new(MemoryStore::default()) as _))
    };
    let health = Arc::clone(&node.cluster.health);
    soon("the failure is told", || !health.errors().is_empty()).await;
    assert!(!health.is_synced() && health.absences().is_empty());
}

/// Answers every request for policies with 404 and passes on what the other server says.
async fn proxied(upstream: std::net::SocketAddr) -> std::net::SocketAddr {
    answering(move |target| {
        if target.starts_with(POLICIES) {
            let status = json!({"kind": "Status", "status": "Failure", "reason": "NotFound",
                "message": "lost", "code": 404});
            return (404, status);
        }
        // Blocking: the server behind is a task of the same runtime.
        tokio::task::block_in_place(|| fetch(upstream, target))
    })
    .await
}

fn fetch(upstream: std::net::SocketAddr, target: &str) -> (u16, Value) {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(upstream).unwrap();
    stream
        .write_all(format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let code = answer[9..12].parse().unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    (code, serde_json::from_str(body).unwrap())
}
