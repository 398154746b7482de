//! Checks of whole objects, by kind.

use serde_json::Value;

use super::super::causes::Causes;
use super::super::{Resource, ResourceInfo};
use super::{
    admin_network_policy, calico, cluster_network_policy, endpoint_slice, meta, network_policy,
    service, workload,
};

/// Validates a canonical object with its defaults set.
pub(in super::super) fn object(info: &ResourceInfo, object: &Value, causes: &mut Causes) {
    meta::metadata(info, &object["metadata"], causes);
    match info.resource {
        Resource::Namespace | Resource::Node | Resource::ServiceAccount | Resource::Event => {}
        Resource::Pod => workload::pod(object, causes),
        Resource::Service => service::service(object, causes),
        Resource::EndpointSlice => endpoint_slice::slice(object, causes),
        Resource::NetworkPolicy => network_policy::spec(&object["spec"], causes),
        Resource::ClusterNetworkPolicy => cluster_network_policy::policy(object, causes),
        Resource::AdminNetworkPolicy => admin_network_policy::admin(object, causes),
        Resource::BaselineAdminNetworkPolicy => admin_network_policy::baseline(object, causes),
        Resource::CalicoTier => calico::tier(object, causes),
        Resource::GlobalNetworkPolicy | Resource::CalicoNetworkPolicy => {
            calico::policy(&object["spec"], causes);
        }
        Resource::StagedGlobalNetworkPolicy | Resource::StagedNetworkPolicy => {
            calico::staged(&object["spec"], causes);
            calico::policy(&object["spec"], causes);
        }
        Resource::StagedKubernetesNetworkPolicy => {
            calico::staged(&object["spec"], causes);
            network_policy::spec(&object["spec"], causes);
        }
        Resource::GlobalNetworkSet | Resource::NetworkSet => {
            calico::network_set(&object["spec"], causes);
        }
        Resource::HostEndpoint => calico::host_endpoint(&object["spec"], causes),
    }
}

/// Validates what a write may not change of the object that it changes.
pub(in super::super) fn change(
    info: &ResourceInfo,
    old: &Value,
    object: &Value,
    causes: &mut Causes,
) {
    match info.resource {
        Resource::Service => service::change(old, object, causes),
        Resource::EndpointSlice => endpoint_slice::change(old, object, causes),
        _ => {}
    }
}
