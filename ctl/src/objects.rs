//! Kubernetes objects of the standalone API: apply, get, label, delete.
//!
//! What a person without kubectl needs, no more; kubectl works against the same API.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::files::read_manifests;
use crate::output::{Format, columns, print, write_out};
use crate::server::{Server, encode, is_not_found};

/// `apply`.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// Manifest file; `-` is standard input; may be repeated.
    #[arg(short, long = "filename", required = true)]
    filename: Vec<PathBuf>,
    /// Namespace of objects that name none.
    #[arg(short, long, default_value = "default")]
    namespace: String,
}

/// `get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// pods, namespaces, networkpolicies, clusternetworkpolicies, adminnetworkpolicies,
    /// baselineadminnetworkpolicies, nodes, services or endpointslices (short forms work); policies: those of all kinds in the order of evaluation, with the pods
    /// of this node that each selects.
    kind: String,
    /// One object instead of a list.
    name: Option<String>,
    /// Namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// All namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only objects that this label selector matches.
    #[arg(short = 'l', long)]
    selector: Option<String>,
}

impl GetArgs {
    /// Whether it asks for the policies of all kinds.
    pub(crate) fn is_of_all_policies(&self) -> bool {
        self.kind == "policies" && self.name.is_none()
    }
}

/// `label`.
#[derive(Debug, Args)]
pub(crate) struct LabelArgs {
    /// Kind, e.g. pod.
    kind: String,
    /// Name.
    name: String,
    /// KEY=VALUE to set, KEY- to remove.
    #[arg(required = true)]
    labels: Vec<String>,
    /// Namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
}

/// `delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Kind, e.g. networkpolicy.
    #[arg(required_unless_present = "filename")]
    kind: Option<String>,
    /// Name.
    #[arg(requires = "kind", required_unless_present = "filename")]
    name: Option<String>,
    /// Delete what a manifest names.
    #[arg(short, long, conflicts_with = "kind")]
    filename: Vec<PathBuf>,
    /// Namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
}

/// A resource that the switch serves.
#[derive(Debug)]
struct Resource {
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    api: &'static str,
    namespaced: bool,
}

const RESOURCES: [Resource; 19] = [
    Resource {
        kind: "Pod",
        plural: "pods",
        short: &["pod", "po"],
        api: "/api/v1",
        namespaced: true,
    },
    Resource {
        kind: "Namespace",
        plural: "namespaces",
        short: &["namespace", "ns"],
        api: "/api/v1",
        namespaced: false,
    },
    Resource {
        kind: "Node",
        plural: "nodes",
        short: &["node", "no"],
        api: "/api/v1",
        namespaced: false,
    },
    Resource {
        kind: "Service",
        plural: "services",
        short: &["service", "svc"],
        api: "/api/v1",
        namespaced: true,
    },
    Resource {
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        short: &["serviceaccount", "sa"],
        api: "/api/v1",
        namespaced: true,
    },
    Resource {
        kind: "EndpointSlice",
        plural: "endpointslices",
        short: &["endpointslice"],
        api: "/apis/discovery.k8s.io/v1",
        namespaced: true,
    },
    Resource {
        kind: "NetworkPolicy",
        plural: "networkpolicies",
        short: &["networkpolicy", "netpol"],
        api: "/apis/networking.k8s.io/v1",
        namespaced: true,
    },
    Resource {
        kind: "ClusterNetworkPolicy",
        plural: "clusternetworkpolicies",
        short: &["clusternetworkpolicy", "cnp"],
        api: "/apis/policy.networking.k8s.io/v1alpha2",
        namespaced: false,
    },
    Resource {
        kind: "AdminNetworkPolicy",
        plural: "adminnetworkpolicies",
        short: &["adminnetworkpolicy", "anp"],
        api: ADMINS,
        namespaced: false,
    },
    Resource {
        kind: "BaselineAdminNetworkPolicy",
        plural: "baselineadminnetworkpolicies",
        short: &["baselineadminnetworkpolicy", "banp"],
        api: ADMINS,
        namespaced: false,
    },
    Resource {
        kind: "Tier",
        plural: "tiers",
        short: &["tier"],
        api: CALICO,
        namespaced: false,
    },
    Resource {
        kind: "GlobalNetworkPolicy",
        plural: "globalnetworkpolicies",
        short: &["globalnetworkpolicy", "gnp"],
        api: CALICO,
        namespaced: false,
    },
    Resource {
        kind: "NetworkPolicy",
        plural: "networkpolicies",
        short: &["networkpolicies.projectcalico.org", "caliconetworkpolicy"],
        api: CALICO,
        namespaced: true,
    },
    Resource {
        kind: "GlobalNetworkSet",
        plural: "globalnetworksets",
        short: &["globalnetworkset"],
        api: CALICO,
        namespaced: false,
    },
    Resource {
        kind: "NetworkSet",
        plural: "networksets",
        short: &["networkset"],
        api: CALICO,
        namespaced: true,
    },
    Resource {
        kind: "StagedGlobalNetworkPolicy",
        plural: "stagedglobalnetworkpolicies",
        short: &["stagedglobalnetworkpolicy", "sgnp"],
        api: CALICO,
        namespaced: false,
    },
    Resource {
        kind: "StagedNetworkPolicy",
        plural: "stagednetworkpolicies",
        short: &["stagednetworkpolicy", "snp"],
        api: CALICO,
        namespaced: true,
    },
    Resource {
        kind: "StagedKubernetesNetworkPolicy",
        plural: "stagedkubernetesnetworkpolicies",
        short: &["stagedkubernetesnetworkpolicy", "sknp"],
        api: CALICO,
        namespaced: true,
    },
    Resource {
        kind: "HostEndpoint",
        plural: "hostendpoints",
        short: &["hostendpoint", "hep", "heps"],
        api: CALICO,
        namespaced: false,
    },
];

/// Where the kinds before ClusterNetworkPolicy are served.
const ADMINS: &str = "/apis/policy.networking.k8s.io/v1alpha1";

/// Where Calico's kinds are served.
const CALICO: &str = "/apis/projectcalico.org/v3";

impl Resource {
    fn named(text: &str) -> Result<&'static Self> {
        let wanted = text.to_ascii_lowercase();
        RESOURCES
            .iter()
            .find(|r| r.plural == wanted || r.short.contains(&wanted.as_str()))
            .with_context(|| {
                let known: Vec<&str> = RESOURCES.iter().map(|r| r.plural).collect();
                format!("unknown kind {text:?}; known are {}", known.join(", "))
            })
    }

    fn of_object(object: &Value) -> Result<&'static Self> {
        let kind = object["kind"]
            .as_str()
            .context("the manifest names no kind")?;
        let version = object["apiVersion"].as_str().unwrap_or_default();
        let of_kind = || RESOURCES.iter().filter(|resource| resource.kind == kind);
        let served: Vec<&str> = of_kind().map(Self::version).collect();
        if served.is_empty() {
            bail!("kind {kind:?} is not one that the switch serves");
        }
        of_kind()
            .find(|resource| resource.version() == version)
            .with_context(|| {
                let served = served.join(", ");
                format!("apiVersion {version:?} of {kind} is not served; {served} is")
            })
    }

    fn version(&self) -> &'static str {
        self.api
            .trim_start_matches("/apis/")
            .trim_start_matches("/api/")
    }

    fn collection(&self, namespace: &str) -> String {
        if self.namespaced {
            format!(
                "{}/namespaces/{}/{}",
                self.api,
                encode(namespace),
                self.plural
            )
        } else {
            format!("{}/{}", self.api, self.plural)
        }
    }

    fn object(&self, namespace: &str, name: &str) -> String {
        format!("{}/{}", self.collection(namespace), encode(name))
    }

    fn label(&self, name: &str) -> String {
        format!("{}/{name}", self.kind.to_ascii_lowercase())
    }
}

/// Applies manifests: creates what is missing, merges into what is there.
pub(crate) fn apply(server: &Server, args: &ApplyArgs) -> Result<()> {
    for file in &args.filename {
        for object in read_manifests(file)? {
            let resource = Resource::of_object(&object)?;
            let (namespace, name) = identity(&object, &args.namespace)?;
            let done = apply_one(server, resource, &namespace, &name, &object)
                .with_context(|| format!("apply {}", resource.label(&name)))?;
            write_out(&format!("{} {done}\n", resource.label(&name)))?;
        }
    }
    Ok(())
}

/// The last applied manifest decides what a later apply takes away, as kubectl does it.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

fn apply_one(
    server: &Server,
    resource: &Resource,
    namespace: &str,
    name: &str,
    manifest: &Value,
) -> Result<&'static str> {
    let mut wanted = manifest.clone();
    if resource.namespaced {
        wanted["metadata"]["namespace"] = json!(namespace);
    }
    let record = serde_json::to_string(&wanted)?;
    wanted["metadata"]["annotations"][LAST_APPLIED] = json!(record);
    let path = resource.object(namespace, name);
    let current: Value = match server.get(&path) {
        Ok(current) => current,
        Err(error) if is_not_found(&error) => {
            let _: Value = server.post(&resource.collection(namespace), &wanted)?;
            return Ok("created");
        }
        Err(error) => return Err(error),
    };
    let last = current["metadata"]["annotations"][LAST_APPLIED]
        .as_str()
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or(Value::Null);
    let mut patch = wanted;
    mark_removed(&mut patch, &last);
    let body = serde_json::to_vec(&patch)?;
    let changed: Value = server.send("PATCH", &path, "application/merge-patch+json", &body)?;
    let same = changed["metadata"]["resourceVersion"] == current["metadata"]["resourceVersion"];
    Ok(if same { "unchanged" } else { "configured" })
}

/// Sets to null what the last manifest had and this one has not.
fn mark_removed(patch: &mut Value, last: &Value) {
    let (Some(patch), Some(last)) = (patch.as_object_mut(), last.as_object()) else {
        return;
    };
    for (key, value) in last {
        match patch.get_mut(key) {
            Some(inner) => mark_removed(inner, value),
            None => {
                patch.insert(key.clone(), Value::Null);
            }
        }
    }
}

fn identity(object: &Value, default_namespace: &str) -> Result<(String, String)> {
    let name = object["metadata"]["name"]
        .as_str()
        .context("the manifest has no metadata.name")?;
    let namespace = object["metadata"]["namespace"]
        .as_str()
        .unwrap_or(default_namespace);
    Ok((namespace.to_owned(), name.to_owned()))
}

/// Shows one object or a list.
pub(crate) fn get(server: &Server, args: &GetArgs, format: Format) -> Result<()> {
    let resource = Resource::named(&args.kind)?;
    let value: Value = match &args.name {
        Some(name) => server.get(&resource.object(&args.namespace, name))?,
        None => {
            let mut path = if args.all_namespaces {
                format!("{}/{}", resource.api, resource.plural)
            } else {
                resource.collection(&args.namespace)
            };
            if let Some(selector) = &args.selector {
                path = format!("{path}?labelSelector={}", encode(selector));
            }
            server.get(&path)?
        }
    };
    print(format, &value, || {
        let items = value["items"]
            .as_array()
            .map_or_else(|| vec![value.clone()], Clone::clone);
        object_table(resource, &items, args.all_namespaces)
    })
}

fn object_table(resource: &Resource, items: &[Value], with_namespace: bool) -> String {
    let mut header = Vec::new();
    if with_namespace && resource.namespaced {
        header.push("NAMESPACE");
    }
    header.push("NAME");
    match resource.kind {
        "NetworkPolicy" | "GlobalNetworkPolicy" if resource.api == CALICO => {
            header.extend(["TIER", "ORDER", "SELECTOR"]);
        }
        "Pod" => header.extend(["STATUS", "IP", "NODE"]),
        "NetworkPolicy" => header.extend(["POD-SELECTOR", "TYPES"]),
        "ClusterNetworkPolicy" => header.extend(["TIER", "PRIORITY"]),
        "AdminNetworkPolicy" => header.push("PRIORITY"),
        _ => {}
    }
    header.push("LABELS");
    columns(
        &header,
        items.iter().map(|item| {
            let mut row = Vec::new();
            if with_namespace && resource.namespaced {
                row.push(text_of(&item["metadata"]["namespace"]));
            }
            row.push(text_of(&item["metadata"]["name"]));
            match resource.kind {
                "NetworkPolicy" | "GlobalNetworkPolicy" if resource.api == CALICO => row.extend([
                    text_of(&item["spec"]["tier"]),
                    order_of(&item["spec"]["order"]),
                    text_of(&item["spec"]["selector"]),
                ]),
                "Pod" => row.extend([
                    text_of(&item["status"]["phase"]),
                    text_of(&item["status"]["podIP"]),
                    text_of(&item["spec"]["nodeName"]),
                ]),
                "NetworkPolicy" => row.extend([
                    selector_of(&item["spec"]["podSelector"]),
                    item["spec"]["policyTypes"]
                        .as_array()
                        .map_or_else(String::new, |types| {
                            types.iter().map(text_of).collect::<Vec<_>>().join(",")
                        }),
                ]),
                "ClusterNetworkPolicy" => row.extend([
                    text_of(&item["spec"]["tier"]),
                    item["spec"]["priority"].to_string(),
                ]),
                "AdminNetworkPolicy" => row.push(item["spec"]["priority"].to_string()),
                _ => {}
            }
            row.push(pairs_of(&item["metadata"]["labels"]));
            row
        }),
    )
}

fn text_of(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| "<none>".to_owned(), str::to_owned)
}

fn order_of(value: &Value) -> String {
    if value.is_null() {
        "<none>".to_owned()
    } else {
        value.to_string()
    }
}

fn pairs_of(value: &Value) -> String {
    match value.as_object() {
        Some(map) if !map.is_empty() => {
            let pairs: Vec<String> = map
                .iter()
                .map(|(k, v)| format!("{k}={}", text_of(v)))
                .collect();
            pairs.join(",")
        }
        _ => "<none>".to_owned(),
    }
}

fn selector_of(selector: &Value) -> String {
    match selector.as_object() {
        Some(fields) if !fields.is_empty() => match fields.get("matchExpressions") {
            Some(expressions) => expressions.to_string(),
            None => pairs_of(&selector["matchLabels"]),
        },
        _ => "<all pods>".to_owned(),
    }
}

/// Sets or removes labels.
pub(crate) fn label(server: &Server, args: &LabelArgs) -> Result<()> {
    let resource = Resource::named(&args.kind)?;
    let mut labels = serde_json::Map::new();
    for argument in &args.labels {
        match argument.split_once('=') {
            Some((key, value)) => labels.insert(key.to_owned(), json!(value)),
            None => match argument.strip_suffix('-') {
                Some(key) => labels.insert(key.to_owned(), Value::Null),
                None => bail!("label {argument:?} is neither KEY=VALUE nor KEY-"),
            },
        };
    }
    let body = serde_json::to_vec(&json!({"metadata": {"labels": labels}}))?;
    let path = resource.object(&args.namespace, &args.name);
    let _: Value = server.send("PATCH", &path, "application/merge-patch+json", &body)?;
    write_out(&format!("{} labeled\n", resource.label(&args.name)))
}

/// Deletes objects.
pub(crate) fn delete(server: &Server, args: &DeleteArgs) -> Result<()> {
    if let (Some(kind), Some(name)) = (&args.kind, &args.name) {
        return delete_one(server, Resource::named(kind)?, &args.namespace, name);
    }
    for file in &args.filename {
        for object in read_manifests(file)? {
            let (namespace, name) = identity(&object, &args.namespace)?;
            delete_one(server, Resource::of_object(&object)?, &namespace, &name)?;
        }
    }
    Ok(())
}

fn delete_one(server: &Server, resource: &Resource, namespace: &str, name: &str) -> Result<()> {
    let _: Value = server.delete(&resource.object(namespace, name))?;
    write_out(&format!("{} deleted\n", resource.label(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_the_new_manifest_lacks_are_nulled() {
        let mut patch = json!({"spec": {"a": 1}});
        mark_removed(&mut patch, &json!({"spec": {"a": 1, "b": 2}, "data": {}}));
        assert_eq!(patch, json!({"spec": {"a": 1, "b": null}, "data": null}));
    }

    #[test]
    fn a_kind_is_found_by_every_usual_name_and_others_are_named() {
        for text in ["netpol", "NetworkPolicy", "networkpolicies"] {
            assert_eq!(Resource::named(text).unwrap().kind, "NetworkPolicy");
        }
        for (text, kind) in [
            ("cnp", "ClusterNetworkPolicy"),
            ("anp", "AdminNetworkPolicy"),
            ("banp", "BaselineAdminNetworkPolicy"),
        ] {
            assert_eq!(Resource::named(text).unwrap().kind, kind);
        }
        let error = Resource::named("deployment").unwrap_err().to_string();
        assert!(
            error.contains("deployment") && error.contains("pods"),
            "{error}"
        );
    }
}
