//! API groups and versions that may serve a kind, and the conversion of their objects to the
//! version that the rest of the switch reads.
//!
//! EndpointSlices are served as `discovery.k8s.io/v1` from Kubernetes 1.21 on, as `v1beta1` from
//! 1.17 to 1.24; core `Endpoints` are older than both and hold the same for Services of one family.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use serde_json::{Value, json};

use crate::objects::{CALICO_CRD_GROUP, Family, Resource, ResourceInfo, of_stored_calico};

/// Label of an EndpointSlice that names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Key of `topology` in `v1beta1` that names the endpoint's node.
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Form of the objects that a source serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// That of the kind as it is known here.
    Current,
    /// EndpointSlices of `discovery.k8s.io/v1beta1`.
    SlicesV1Beta1,
    /// Core Endpoints, each of which is several EndpointSlices.
    Endpoints,
    /// Custom resources in which Calico stores its kinds.
    StoredCalico,
}

/// A resource of an API server that holds the objects of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Source {
    /// API group; empty for core.
    pub(super) group: &'static str,
    /// API version.
    pub(super) version: &'static str,
    /// Plural name, as in paths.
    pub(super) plural: &'static str,
    form: Form,
}

impl Source {
    /// Returns the resource of the version in which the objects are known here.
    pub(super) const fn of(info: &ResourceInfo) -> Self {
        Self {
            group: info.group,
            version: info.version,
            plural: info.plural,
            form: Form::Current,
        }
    }

    /// Returns `group/version`, or the version for core.
    pub(super) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Returns the path of the objects of all namespaces.
    pub(super) fn path(&self) -> String {
        let root = if self.group.is_empty() { "api" } else { "apis" };
        format!("/{root}/{}/{}", self.api_version(), self.plural)
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.plural, self.api_version())
    }
}

/// Returns the sources of a kind, the best first.
pub(super) fn sources(resource: Resource) -> Vec<Source> {
    let current = Source::of(resource.info());
    if matches!(resource.family(), Family::Calico | Family::HostEndpoints) {
        let stored = Source {
            group: CALICO_CRD_GROUP,
            version: "v1",
            form: Form::StoredCalico,
            ..current
        };
        return vec![current, stored];
    }
    if resource != Resource::EndpointSlice {
        return vec![current];
    }
    let beta = Source {
        version: "v1beta1",
        form: Form::SlicesV1Beta1,
        ..current
    };
    let endpoints = Source {
        group: "",
        version: "v1",
        plural: "endpoints",
        form: Form::Endpoints,
    };
    vec![current, beta, endpoints]
}

/// Brings objects of a source into the form in which they are known here.
#[derive(Debug, Default)]
pub(super) struct Conversion {
    /// How many slices each Endpoints object was last time, by namespace and name.
    slices: HashMap<(String, String), usize>,
}

/// What an object of a source means.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Converted {
    /// The objects it is.
    pub(super) present: Vec<Value>,
    /// Names of objects that it was before and is no longer.
    pub(super) gone: Vec<String>,
}

impl Conversion {
    /// Forgets what objects were before: all are told anew.
    pub(super) fn begin_anew(&mut self) {
        self.slices.clear();
    }

    /// Converts an object that is there.
    pub(super) fn present(&mut self, source: &Source, object: Value) -> Converted {
        let mut converted = Converted::default();
        match source.form {
            Form::Current => converted.present.push(object),
            Form::StoredCalico => {
                let mut object = object;
                let stored = json!({"apiVersion": source.api_version(),
                    "name": object["metadata"]["name"]});
                of_stored_calico(&mut object);
                object["stored"] = stored;
                converted.present.push(object);
            }
            Form::SlicesV1Beta1 => converted.present.push(of_beta(object)),
            Form::Endpoints => {
                let key = key_of(&object);
                converted.present = slices_of(&object);
                let count = converted.present.len();
                let before = self.slices.insert(key.clone(), count).unwrap_or(0);
                converted.gone = (count..before).map(|index| name(&key.1, index)).collect();
                if count == 0 {
                    self.slices.remove(&key);
                }
            }
        }
        converted
    }

    /// Returns the names of the objects that end with an object of the source.
    pub(super) fn gone(&mut self, source: &Source, object: &Value) -> Vec<String> {
        let key = key_of(object);
        if source.form == Form::Endpoints {
            let count = self.slices.remove(&key).unwrap_or(0);
            return (0..count).map(|index| name(&key.1, index)).collect();
        }
        if source.form == Form::StoredCalico {
            let mut object = object.clone();
            of_stored_calico(&mut object);
            return vec![text(&object, "name").to_owned()];
        }
        vec![key.1]
    }
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

fn key_of(object: &Value) -> (String, String) {
    (
        text(object, "namespace").to_owned(),
        text(object, "name").to_owned(),
    )
}

/// Names a slice of an Endpoints object; no object of an API server has a colon in its name.
fn name(endpoints: &str, index: usize) -> String {
    format!("{endpoints}:{index}")
}

/// `v1beta1` has had `nodeName` since 1.20, and behind a feature gate; `topology` names it too.
fn of_beta(mut slice: Value) -> Value {
    let endpoints = slice["endpoints"].as_array_mut().into_iter().flatten();
    for endpoint in endpoints.filter(|endpoint| endpoint["nodeName"].is_null()) {
        if let Some(node) = endpoint["topology"][HOSTNAME].as_str().map(str::to_owned) {
            endpoint["nodeName"] = json!(node);
        }
    }
    slice
}

/// A slice for each subset and family: its ports are those of all its addresses.
fn slices_of(endpoints: &Value) -> Vec<Value> {
    let items = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let mut slices = Vec::new();
    for subset in items(&endpoints["subsets"]) {
        let mut by_family: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for (field, ready) in [("addresses", true), ("notReadyAddresses", false)] {
            for address in items(&subset[field]) {
                let Some(ip) = address["ip"].as_str() else {
                    continue;
                };
                let is_ipv6 = ip.parse().is_ok_and(|ip: IpAddr| ip.is_ipv6());
                let family = if is_ipv6 { "IPv6" } else { "IPv4" };
                let mut endpoint = json!({"addresses": [ip], "conditions": {"ready": ready}});
                if let Some(node) = address["nodeName"].as_str() {
                    endpoint["nodeName"] = json!(node);
                }
                by_family.entry(family).or_default().push(endpoint);
            }
        }
        for (family, list) in by_family {
            let mut metadata = endpoints["metadata"].clone();
            let service = text(endpoints, "name");
            metadata["name"] = json!(name(service, slices.len()));
            if !metadata["labels"].is_object() {
                metadata["labels"] = json!({});
            }
            metadata["labels"][SERVICE_NAME] = json!(service);
            slices.push(
                json!({"metadata": metadata, "addressType": family, "endpoints": list,
                "ports": subset["ports"]}),
            );
        }
    }
    slices
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(version: &str, plural: &str) -> Source {
        let all = sources(Resource::EndpointSlice);
        let is_it = |source: &&Source| source.version == version && source.plural == plural;
        *all.iter().find(is_it).unwrap()
    }

    #[test]
    fn endpoint_slices_may_be_read_from_three_resources() {
        let paths: Vec<String> = sources(Resource::EndpointSlice)
            .iter()
            .map(Source::path)
            .collect();
        assert_eq!(
            paths,
            [
                "/apis/discovery.k8s.io/v1/endpointslices",
                "/apis/discovery.k8s.io/v1beta1/endpointslices",
                "/api/v1/endpoints"
            ]
        );
        assert_eq!(sources(Resource::Service)[0].path(), "/api/v1/services");
    }

    #[test]
    fn a_beta_slice_names_nodes_by_its_topology() {
        let slice = json!({"metadata": {"name": "web-x", "namespace": "shop"}, "endpoints": [
            {"addresses": ["10.0.0.1"], "topology": {"kubernetes.io/hostname": "node-a"}},
            {"addresses": ["10.0.0.2"], "nodeName": "node-b",
                "topology": {"kubernetes.io/hostname": "other"}},
            {"addresses": ["10.0.0.3"]},
        ]});
        let beta = source("v1beta1", "endpointslices");
        let converted = Conversion::default().present(&beta, slice);
        let nodes: Vec<&Value> = converted.present[0]["endpoints"]
            .as_array()
            .unwrap()
            .iter()
            .map(|endpoint| &endpoint["nodeName"])
            .collect();
        assert_eq!(nodes, [&json!("node-a"), &json!("node-b"), &Value::Null]);
    }

    #[test]
    fn endpoints_are_a_slice_for_each_subset_and_family() {
        let endpoints = source("v1", "endpoints");
        let mut conversion = Conversion::default();
        let object = |subsets: Value| {
            json!({"metadata": {"name": "web", "namespace": "shop", "uid": "u1",
                "resourceVersion": "7", "labels": {"a": "b"}}, "subsets": subsets})
        };
        let subsets = json!([
            {"addresses": [{"ip": "10.0.0.1", "nodeName": "node-a"}, {"ip": "fd00::1"}],
             "notReadyAddresses": [{"ip": "10.0.0.2"}],
             "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]},
            {"addresses": [{"ip": "10.0.0.3"}], "ports": [{"port": 81}]},
        ]);
        let converted = conversion.present(&endpoints, object(subsets));
        assert!(converted.gone.is_empty());
        let [v4, v6, second] = &converted.present[..] else {
            panic!("three slices: {converted:?}");
        };
        assert_eq!(
            v4["endpoints"],
            json!([
                {"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "nodeName": "node-a"},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
            ])
        );
        assert_eq!(
            v4["ports"],
            json!([{"name": "http", "port": 8080, "protocol": "TCP"}])
        );
        assert_eq!(
            (&v4["addressType"], &v6["addressType"]),
            (&json!("IPv4"), &json!("IPv6"))
        );
        assert_eq!(second["ports"], json!([{"port": 81}]));
        assert_eq!(second["metadata"]["name"], "web:2");
        assert_eq!(
            second["metadata"]["labels"],
            json!({"a": "b", SERVICE_NAME: "web"})
        );
        assert_eq!(second["metadata"]["resourceVersion"], "7");

        let fewer = json!([{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 81}]}]);
        let converted = conversion.present(&endpoints, object(fewer));
        assert_eq!(converted.present.len(), 1);
        assert_eq!(converted.gone, ["web:1", "web:2"]);
        let gone = conversion.gone(&endpoints, &object(json!([])));
        assert_eq!(gone, ["web:0"]);
    }

    #[test]
    fn endpoints_that_say_nothing_are_no_slices() {
        let endpoints = source("v1", "endpoints");
        let lock = json!({"metadata": {"name": "scheduler", "namespace": "kube-system"}});
        for odd in [json!(null), json!([{"addresses": 7}]), json!({"a": 1})] {
            let mut object = lock.clone();
            object["subsets"] = odd;
            let converted = Conversion::default().present(&endpoints, object);
            assert_eq!(converted, Converted::default());
        }
    }
}
