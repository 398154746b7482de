//! What a Node object says about the pod networks of its node.

use ipnet::IpNet;
use serde_json::Value;

/// A Node whose pod networks cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeCidrsError {
    /// A text that is none.
    #[error("spec.podCIDRs: {text:?} is not a CIDR like 10.244.0.0/24")]
    NotACidr {
        /// The text.
        text: String,
    },
    /// Too small, or not the addresses of pods.
    #[error("spec.podCIDRs: {cidr} cannot be the addresses of pods")]
    Unusable {
        /// The network.
        cidr: IpNet,
    },
    /// More than one of a family.
    #[error("spec.podCIDRs: {first} and {second} are of one family; a pod has one address of each")]
    OneFamily {
        /// The first.
        first: IpNet,
        /// The second.
        second: IpNet,
    },
}

/// Returns spec.podCIDRs (podCIDR if the list is absent); empty while it has none.
///
/// # Errors
/// [`NodeCidrsError`]: they cannot be used.
pub fn pod_cidrs(node: &Value) -> Result<Vec<IpNet>, NodeCidrsError> {
    let spec = &node["spec"];
    let list = spec["podCIDRs"].as_array().into_iter().flatten();
    let mut texts: Vec<&str> = list.filter_map(Value::as_str).collect();
    if texts.is_empty() {
        texts.extend(spec["podCIDR"].as_str().filter(|text| !text.is_empty()));
    }
    let mut cidrs: Vec<IpNet> = Vec::new();
    for text in texts {
        let cidr: IpNet = text.parse().map_err(|_| NodeCidrsError::NotACidr {
            text: text.to_owned(),
        })?;
        let cidr = cidr.trunc();
        if !is_usable(cidr) {
            return Err(NodeCidrsError::Unusable { cidr });
        }
        let is_v4 = cidr.addr().is_ipv4();
        if let Some(first) = cidrs.iter().find(|first| first.addr().is_ipv4() == is_v4) {
            let (first, second) = (*first, cidr);
            return Err(NodeCidrsError::OneFamily { first, second });
        }
        cidrs.push(cidr);
    }
    Ok(cidrs)
}

/// Returns whether there is room for a gateway and a pod, which may have such addresses.
fn is_usable(cidr: IpNet) -> bool {
    let ip = cidr.addr();
    let is_link_local = match ip {
        std::net::IpAddr::V4(ip) => ip.is_link_local(),
        std::net::IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let is_special = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || is_link_local;
    cidr.max_prefix_len() - cidr.prefix_len() >= 2 && !is_special
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(spec: Value) -> Result<String, String> {
        let cidrs = pod_cidrs(&json!({ "spec": spec })).map_err(|error| error.to_string())?;
        Ok(cidrs
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" "))
    }

    #[test]
    fn both_families_are_read_and_a_node_may_have_none_yet() {
        let both = json!({"podCIDR": "10.1.2.0/24", "podCIDRs": ["10.1.2.0/24", "fd00:1:2::/64"]});
        assert_eq!(read(both).unwrap(), "10.1.2.0/24 fd00:1:2::/64");
        assert_eq!(
            read(json!({"podCIDR": "10.1.2.0/24"})).unwrap(),
            "10.1.2.0/24"
        );
        assert_eq!(read(json!({})).unwrap(), "");
        assert_eq!(read(json!({"podCIDRs": "x", "podCIDR": ""})).unwrap(), "");
    }

    #[test]
    fn networks_that_pods_cannot_have_are_named() {
        for (list, part) in [
            (json!(["10.1.2.0"]), "\"10.1.2.0\""),
            (json!(["10.1.2.0/31"]), "10.1.2.0/31"),
            (json!(["127.0.0.0/8"]), "127.0.0.0/8"),
            (
                json!(["10.1.0.0/24", "10.2.0.0/24"]),
                "10.1.0.0/24 and 10.2.0.0/24",
            ),
        ] {
            let error = read(json!({ "podCIDRs": list })).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
