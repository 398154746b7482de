//! Identity of the container: pod namespace, name and labels from the runtime's arguments.

use std::collections::BTreeMap;

use serde_json::Value;
use vswitch_api::cni::{CniCall, CniCode, CniFailure};

use crate::attach::PodIdentity;
use crate::state::ObjectKey;

/// Longest namespace (DNS-1123 label), and as long as a made-up name may be.
const MAX_LABEL: usize = 63;
/// Longest Pod name (DNS-1123 subdomain).
const MAX_NAME: usize = 253;
/// Runtimes show so many digits of a hexadecimal id.
const SHORT_ID: usize = 12;

/// Parses CNI_ARGS: `KEY=VALUE` joined by `;`.
pub(super) fn parse_args(args: Option<&str>) -> Result<BTreeMap<String, String>, CniFailure> {
    let pairs = args
        .unwrap_or_default()
        .split(';')
        .filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| bad_args(&format!("{pair:?} has no value")))?;
            Ok((key.to_owned(), value.to_owned()))
        })
        .collect()
}

pub(super) fn bad_args(problem: &str) -> CniFailure {
    CniFailure::new(
        CniCode::InvalidEnvironment,
        format!("environment variable CNI_ARGS: {problem}"),
    )
}

/// Returns the pod of a call; `default_namespace` where the runtime names none.
pub(super) fn identify(
    call: &CniCall,
    args: &BTreeMap<String, String>,
    default_namespace: &str,
) -> Result<PodIdentity, CniFailure> {
    let arg = |key: &str| {
        args.get(key)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    };
    let namespace = arg("K8S_POD_NAMESPACE").unwrap_or(default_namespace);
    if namespace.len() > MAX_LABEL || namespace.contains('.') || !is_dns_name(namespace) {
        return Err(bad_args(&format!(
            "K8S_POD_NAMESPACE {namespace:?} is not a namespace"
        )));
    }
    let container_id = call.container_id.as_deref().unwrap_or_default();
    let name = match arg("K8S_POD_NAME") {
        Some(name) if name.len() <= MAX_NAME && is_dns_name(name) => name.to_owned(),
        // Runtimes without Kubernetes let users name containers more freely.
        Some(name) => made_name(name).unwrap_or_else(|| name_of_id(container_id)),
        None => name_of_id(container_id),
    };
    Ok(PodIdentity {
        key: ObjectKey {
            namespace: namespace.to_owned(),
            name,
        },
        uid: arg("K8S_POD_UID").map(str::to_owned),
        labels: Some(labels_of(&call.config)?),
    })
}

/// Hexadecimal ids of runtimes are random: their beginning tells them apart.
fn name_of_id(container_id: &str) -> String {
    let is_hex = container_id.bytes().all(|b| b.is_ascii_hexdigit());
    match container_id.get(..SHORT_ID) {
        Some(short) if is_hex => short.to_ascii_lowercase(),
        _ => made_name(container_id).unwrap_or_else(|| "container".to_owned()),
    }
}

/// Makes a Pod name of any text: lower case, other characters as hyphens, alphanumeric at both
/// ends. What that changes ends with a checksum of the text, because `my_app` and `my-app` are
/// two containers, and the name decides which policies hold.
fn made_name(text: &str) -> Option<String> {
    if text.len() <= MAX_LABEL && is_dns_name(text) {
        return Some(text.to_owned());
    }
    let plain = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_alphanumeric() || c == '-' => c,
        _ => '-',
    };
    let checksum = format!("-{:08x}", crc32fast::hash(text.as_bytes()));
    let name: String = text
        .chars()
        .map(plain)
        .skip_while(|c| *c == '-')
        .take(MAX_LABEL - checksum.len())
        .collect();
    let name = name.trim_end_matches('-');
    (!name.is_empty()).then(|| format!("{name}{checksum}"))
}

/// DNS-1123 subdomain: labels of lower-case alphanumerics and inner hyphens.
fn is_dns_name(text: &str) -> bool {
    let is_alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.split('.').all(|label| {
        let bytes = label.as_bytes();
        bytes.first().is_some_and(|b| is_alnum(*b))
            && bytes.last().is_some_and(|b| is_alnum(*b))
            && bytes.iter().all(|b| is_alnum(*b) || *b == b'-')
    })
}

/// `args.cni.labels`: a list of `{key, value}` (CNI conventions).
fn labels_of(config: &Value) -> Result<BTreeMap<String, String>, CniFailure> {
    let Some(labels) = config.pointer("/args/cni/labels") else {
        return Ok(BTreeMap::new());
    };
    let bad = || {
        CniFailure::new(
            CniCode::InvalidConfig,
            "args.cni.labels is not a list of {key, value}",
        )
    };
    labels
        .as_array()
        .ok_or_else(bad)?
        .iter()
        .map(|label| {
            let text = |key: &str| label.get(key).and_then(Value::as_str).map(str::to_owned);
            Ok((text("key").ok_or_else(bad)?, text("value").ok_or_else(bad)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn identity(args: &str, container_id: &str) -> Result<PodIdentity, CniFailure> {
        let call = CniCall {
            command: "ADD".to_owned(),
            container_id: Some(container_id.to_owned()),
            netns: None,
            ifname: None,
            args: None,
            path: None,
            config: json!({"args": {"cni": {"labels": [{"key": "app", "value": "web"}]}}}),
        };
        identify(&call, &parse_args(Some(args))?, "default")
    }

    #[test]
    fn pod_is_named_by_the_runtime_or_by_the_container() {
        let hex = "0123456789abcdef".repeat(4);
        for (args, id, pod) in [
            (
                "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0",
                "x",
                "shop/web-0",
            ),
            ("IgnoreUnknown=1;K8S_POD_NAME=my-app", "x", "default/my-app"),
            (
                "IgnoreUnknown=1;K8S_POD_NAME=my_app",
                "x",
                "default/my-app-542b89b0",
            ),
            ("", hex.as_str(), "default/0123456789ab"),
            ("", "Run_1.test-", "default/run-1-test-28b19d99"),
            ("K8S_POD_NAME=__", "c1", "default/c1"),
        ] {
            assert_eq!(
                identity(args, id).unwrap().key.to_string(),
                pod,
                "{args} {id}"
            );
        }
        assert_eq!(
            identity("K8S_POD_UID=7", "x").unwrap().uid.as_deref(),
            Some("7")
        );
        assert_eq!(identity("", "x").unwrap().labels.unwrap()["app"], "web");
    }

    #[test]
    fn arguments_that_make_no_sense_are_code_4() {
        for args in [
            "K8S_POD_NAME",
            "K8S_POD_NAMESPACE=a.b",
            "K8S_POD_NAMESPACE=../x",
        ] {
            let failure = identity(args, "x").unwrap_err();
            assert_eq!(failure.code, 4);
            assert!(failure.msg.contains("CNI_ARGS"), "{failure}");
        }
    }
}
