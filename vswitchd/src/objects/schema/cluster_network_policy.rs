//! ClusterNetworkPolicy as its CRD has it (network-policy-api v0.2.0, experimental channel): which
//! fields there are and of what type. `validate` knows the rest.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, ObjectMeta};
use serde::{Deserialize, Serialize};

/// Defines objects of optional fields: what is not there is not written.
macro_rules! objects {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? })*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Default, Deserialize, Serialize)]
            #[serde(rename_all = "camelCase")]
            pub(super) struct $name {
                $(
                    #[serde(default, skip_serializing_if = "Option::is_none")]
                    $field: Option<$type>,
                )*
            }
        )*
    };
}

objects! {
    /// A ClusterNetworkPolicy.
    ClusterNetworkPolicy {
        api_version: String,
        kind: String,
        metadata: ObjectMeta,
        spec: Spec,
        status: Status,
    }
    Spec {
        tier: String,
        priority: i32,
        subject: Pods,
        ingress: Vec<IngressRule>,
        egress: Vec<EgressRule>,
    }
    Status { conditions: Vec<Condition> }
    /// A subject, and a peer of an ingress rule.
    Pods { namespaces: LabelSelector, pods: NamespacedPods }
    NamespacedPods { namespace_selector: LabelSelector, pod_selector: LabelSelector }
    IngressRule {
        name: String,
        action: String,
        from: Vec<Pods>,
        protocols: Vec<Protocol>,
    }
    EgressRule {
        name: String,
        action: String,
        to: Vec<EgressPeer>,
        protocols: Vec<Protocol>,
    }
    EgressPeer {
        namespaces: LabelSelector,
        pods: NamespacedPods,
        nodes: LabelSelector,
        networks: Vec<String>,
        domain_names: Vec<String>,
    }
    Protocol {
        tcp: OfProtocol,
        udp: OfProtocol,
        sctp: OfProtocol,
        destination_named_port: String,
    }
    OfProtocol { destination_port: Ports }
    Ports { number: i32, range: Range }
    Range { start: i32, end: i32 }
}
