//! What the CNI service acts on: the host's links, the switch's ports, the Pod objects.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use vswitch_api::{IfName, MacAddr};

use super::cluster::ClusterNode;
use super::cluster_pods::ClusterPods;
use super::in_force::InForce;
use crate::cni::{AttachHost, PodDirectory, PodIdentity, StepError, SwitchPorts};
use crate::host::{self, Shield, VethSpec};
use crate::ipam::Route;
use crate::objects::Registry;
use crate::reconcile::PortAttachMode;
use crate::state::Attachment;
use crate::switch::{GATEWAY_PORT, Switch};

/// Interfaces in containers, by netlink.
#[derive(Debug, Clone)]
pub(crate) struct KernelHost {
    /// Keeps the host's stack away from pod ports.
    pub(crate) shield: Shield,
}

/// Runs a blocking step; a step that was cut off means that the daemon is stopping.
async fn blocking<T, E>(
    step: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, StepError>
where
    T: Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    match tokio::task::spawn_blocking(step).await {
        Ok(result) => result.map_err(StepError::new),
        Err(error) => Err(StepError::new(error).retry_later()),
    }
}

/// The veth pair of an attachment; `routes` are complete, so that none is derived.
fn veth_spec(attachment: &Attachment, routes: &[Route]) -> VethSpec {
    VethSpec {
        host_ifname: attachment.host_ifname.clone(),
        netns: attachment.netns.clone(),
        ifname: attachment.ifname.clone(),
        mac: attachment.mac,
        mtu: attachment.mtu,
        addresses: attachment.addresses.clone(),
        gateways: Vec::new(),
        routes: routes.iter().map(|route| (route.dst, route.gw)).collect(),
    }
}

impl AttachHost for KernelHost {
    fn host_ifname(&self, container_id: &str, ifname: &IfName) -> IfName {
        host::host_ifname(container_id, ifname)
    }

    fn container_mac(&self, container_id: &str, ifname: &IfName) -> MacAddr {
        host::container_mac(container_id, ifname)
    }

    async fn create_interface(
        &self,
        attachment: &Attachment,
        _gateways: &[IpAddr],
        routes: &[Route],
    ) -> Result<(), StepError> {
        let (spec, shield) = (veth_spec(attachment, routes), self.shield.clone());
        blocking(move || host::create_veth(&spec, &shield)).await
    }

    async fn remove_interface(&self, attachment: &Attachment) -> Result<(), StepError> {
        let (ifname, shield) = (attachment.host_ifname.clone(), self.shield.clone());
        blocking(move || host::delete_veth(&ifname, &shield)).await
    }

    async fn check_interface(
        &self,
        attachment: &Attachment,
        _gateways: &[IpAddr],
        routes: &[Route],
    ) -> Result<(), StepError> {
        let spec = veth_spec(attachment, routes);
        blocking(move || host::check_veth(&spec)).await
    }
}

/// Ports of the running switch.
#[derive(Debug, Clone)]
pub(crate) struct RunningPorts {
    pub(crate) switch: Arc<Switch>,
}

/// A port that should forward and does not.
#[derive(Debug, thiserror::Error)]
enum NotForwarding {
    #[error("port {port} of {ifname} does not forward")]
    Pod { port: u32, ifname: IfName },
    #[error("the gateway port does not forward")]
    Gateway,
    #[error("the policies of the cluster are not known yet")]
    NotSynced,
}

impl SwitchPorts for RunningPorts {
    async fn attach(&self, attachment: &Attachment) -> Result<(), StepError> {
        let attached = self
            .switch
            .attach_pod(attachment, PortAttachMode::default())
            .await;
        attached.map_err(StepError::new)
    }

    async fn detach(&self, attachment: &Attachment) -> Result<(), StepError> {
        self.switch
            .detach(attachment.port_no)
            .await
            .map_err(StepError::new)
    }

    async fn check(&self, attachment: &Attachment) -> Result<(), StepError> {
        if self.switch.is_forwarding(attachment.port_no) {
            return Ok(());
        }
        let ifname = attachment.host_ifname.clone();
        Err(StepError::new(NotForwarding::Pod {
            port: attachment.port_no.0,
            ifname,
        }))
    }

    async fn ready(&self) -> Result<(), StepError> {
        if !self.switch.reconcile().snapshot().is_synced {
            return Err(StepError::new(NotForwarding::NotSynced).retry_later());
        }
        if self.switch.is_forwarding(GATEWAY_PORT) {
            return Ok(());
        }
        Err(StepError::new(NotForwarding::Gateway).retry_later())
    }
}

/// Pod objects of the standalone registry.
#[derive(Debug, Clone)]
pub(crate) struct RegistryPods {
    pub(crate) registry: Arc<Registry>,
    pub(crate) in_force: InForce,
}

impl PodDirectory for RegistryPods {
    /// Whatever comes gets a Pod object.
    async fn expect(&self, _identity: &PodIdentity) -> Result<(), StepError> {
        Ok(())
    }

    async fn declare(
        &self,
        attachment: &Attachment,
        identity: &PodIdentity,
    ) -> Result<(), StepError> {
        let (registry, identity) = (Arc::clone(&self.registry), identity.clone());
        let ips: Vec<IpAddr> = attachment
            .addresses
            .iter()
            .map(ipnet::IpNet::addr)
            .collect();
        let maker = maker(attachment);
        blocking(move || {
            let (namespace, name) = (&identity.key.namespace, &identity.key.name);
            registry.declare_pod(
                namespace,
                name,
                &maker,
                identity.uid.as_deref(),
                &identity.labels,
                &ips,
            )
        })
        .await?;
        self.in_force.reached(self.registry.current_version()).await;
        Ok(())
    }

    async fn retract(&self, attachment: &Attachment) -> Result<(), StepError> {
        let (registry, pod) = (Arc::clone(&self.registry), attachment.pod.clone());
        let maker = maker(attachment);
        blocking(move || registry.retract_pod(&pod.namespace, &pod.name, &maker)).await?;
        self.in_force.reached(self.registry.current_version()).await;
        Ok(())
    }
}

/// Pod objects, wherever they are.
#[derive(Debug, Clone)]
pub(crate) enum PodObjects {
    Own(RegistryPods),
    Cluster(ClusterPods),
}

impl PodObjects {
    /// Those of the cluster, or the standalone ones.
    pub(crate) fn new(
        node: Option<&ClusterNode>,
        registry: &Arc<Registry>,
        in_force: &InForce,
        switch: &Switch,
    ) -> Self {
        let (registry, in_force) = (Arc::clone(registry), in_force.clone());
        match node {
            None => Self::Own(RegistryPods { registry, in_force }),
            Some(node) => Self::Cluster(ClusterPods {
                registry,
                health: Arc::clone(&node.cluster.health),
                in_force,
                reconcile: switch.reconcile().clone(),
                node_name: node.name.clone(),
                wait: node.settings.pod_wait,
            }),
        }
    }
}

impl PodDirectory for PodObjects {
    async fn expect(&self, identity: &PodIdentity) -> Result<(), StepError> {
        match self {
            Self::Own(pods) => pods.expect(identity).await,
            Self::Cluster(pods) => pods.expect(identity).await,
        }
    }

    async fn declare(
        &self,
        attachment: &Attachment,
        identity: &PodIdentity,
    ) -> Result<(), StepError> {
        match self {
            Self::Own(pods) => pods.declare(attachment, identity).await,
            // The kubelet writes the status; rules go by the attachment until then and after.
            Self::Cluster(_) => Ok(()),
        }
    }

    async fn retract(&self, attachment: &Attachment) -> Result<(), StepError> {
        match self {
            Self::Own(pods) => pods.retract(attachment).await,
            Self::Cluster(_) => Ok(()),
        }
    }
}

/// Names an attachment in the Pod object that was made for it: known before anything is
/// recorded, so that the object of an ADD that was cut short is found as well.
fn maker(attachment: &Attachment) -> String {
    format!("{}/{}", attachment.container_id, attachment.ifname)
}

/// Where delegated IPAM plugins may be found: nothing else is ever run, whatever CNI_PATH says.
pub(crate) fn plugin_dirs() -> Vec<std::path::PathBuf> {
    ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"]
        .map(Path::new)
        .map(Into::into)
        .into()
}
