//! Ports of virtual machines: an address, a Pod object that stands for the guest, a TAP.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use vswitch_api::{IfName, MacAddr};

use super::{ExtraPort, ExtraPortError, Switch};
use crate::ipam::{Ipam, IpamError, LeaseOwner};
use crate::objects::{Registry, StatusError};
use crate::state::{Attachment, ObjectKey};

/// A VM port to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmSpec {
    /// Its TAP.
    pub ifname: IfName,
    /// The Pod object that stands for the guest.
    pub pod: ObjectKey,
    /// The guest's MAC.
    pub mac: MacAddr,
    /// Labels of the Pod object.
    pub labels: BTreeMap<String, String>,
}

/// A VM port that could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum VmPortError {
    /// No address.
    #[error("lease an address for {ifname}")]
    Lease {
        /// The TAP.
        ifname: IfName,
        /// Cause.
        source: IpamError,
    },
    /// The Pod object was refused.
    #[error("declare pod {pod}")]
    Pod {
        /// The object.
        pod: ObjectKey,
        /// Cause.
        source: Box<StatusError>,
    },
    /// The port itself.
    #[error(transparent)]
    Port(#[from] ExtraPortError),
    /// A blocking task was cut off.
    #[error("the daemon is stopping")]
    Stopping,
}

/// Makes and removes VM ports, and removes mirror ports, with all that belongs to them.
#[derive(Debug)]
pub struct VmPorts {
    switch: Arc<Switch>,
    ipam: Arc<Ipam>,
    registry: Arc<Registry>,
}

impl VmPorts {
    /// Puts the parts together.
    #[must_use]
    pub const fn new(switch: Arc<Switch>, ipam: Arc<Ipam>, registry: Arc<Registry>) -> Self {
        Self {
            switch,
            ipam,
            registry,
        }
    }

    /// Makes a VM port; on failure nothing of it is left.
    ///
    /// # Errors
    /// [`VmPortError`].
    pub async fn add(
        self: &Arc<Self>,
        spec: VmSpec,
        now_unix: u64,
    ) -> Result<ExtraPort, VmPortError> {
        let addresses = self.prepare(&spec, now_unix).await?;
        let made = self
            .switch
            .add_extra_port(&spec.ifname, |port_no| ExtraPort::Vm {
                attachment: Box::new(attachment(
                    &spec,
                    port_no,
                    addresses,
                    self.switch.gateway().mtu,
                )),
            })
            .await;
        if made.is_err() {
            self.release(&spec.ifname, &spec.pod, now_unix).await?;
        }
        Ok(made?)
    }

    /// Removes a VM or mirror port.
    ///
    /// # Errors
    /// [`VmPortError`].
    pub async fn remove(self: &Arc<Self>, ifname: &str, now_unix: u64) -> Result<(), VmPortError> {
        let port = self.switch.remove_extra_port(ifname).await?;
        if let ExtraPort::Vm { attachment } = port {
            self.release(&attachment.ifname, &attachment.pod, now_unix)
                .await?;
        }
        Ok(())
    }

    /// Leases the addresses and declares the pod.
    async fn prepare(
        self: &Arc<Self>,
        spec: &VmSpec,
        now_unix: u64,
    ) -> Result<Vec<IpNet>, VmPortError> {
        let (this, spec) = (Arc::clone(self), spec.clone());
        let prepared = tokio::task::spawn_blocking(move || {
            let owner = owner(&spec.ifname);
            let ifname = spec.ifname.clone();
            let lease = this.ipam.allocate(&owner, &[], now_unix);
            let addresses = lease.map_err(|source| VmPortError::Lease { ifname, source })?;
            let ips: Vec<IpAddr> = addresses.iter().map(IpNet::addr).collect();
            let (namespace, name) = (&spec.pod.namespace, &spec.pod.name);
            let declared = this.registry.declare_pod(
                namespace,
                name,
                &owner.to_string(),
                None,
                &spec.labels,
                &ips,
            );
            if let Err(source) = declared {
                // The first failure is the one to report.
                let _ = this.ipam.release(&owner, now_unix);
                return Err(VmPortError::Pod {
                    pod: spec.pod,
                    source: Box::new(source),
                });
            }
            Ok(addresses)
        });
        prepared.await.map_err(|_| VmPortError::Stopping)?
    }

    async fn release(
        self: &Arc<Self>,
        ifname: &IfName,
        pod: &ObjectKey,
        now_unix: u64,
    ) -> Result<(), VmPortError> {
        let (this, ifname, pod) = (Arc::clone(self), ifname.clone(), pod.clone());
        let released = tokio::task::spawn_blocking(move || {
            let maker = owner(&ifname).to_string();
            let retracted = this.registry.retract_pod(&pod.namespace, &pod.name, &maker);
            let released = this.ipam.release(&owner(&ifname), now_unix);
            retracted.map_err(|source| VmPortError::Pod {
                pod,
                source: Box::new(source),
            })?;
            released
                .map(drop)
                .map_err(|source| VmPortError::Lease { ifname, source })
        });
        released.await.map_err(|_| VmPortError::Stopping)?
    }
}

fn owner(ifname: &IfName) -> LeaseOwner {
    LeaseOwner {
        container_id: container_id(ifname),
        ifname: ifname.clone(),
    }
}

/// What stands in a lease and an attachment for a container id; no runtime gives such a one,
/// because CNI container ids hold no colon.
fn container_id(ifname: &IfName) -> String {
    format!("vm:{ifname}")
}

fn attachment(
    spec: &VmSpec,
    port_no: vswitch_api::PortNo,
    addresses: Vec<IpNet>,
    mtu: u16,
) -> Attachment {
    Attachment {
        container_id: container_id(&spec.ifname),
        ifname: spec.ifname.clone(),
        network: String::new(),
        netns: PathBuf::new(),
        host_ifname: spec.ifname.clone(),
        port_no,
        mac: spec.mac,
        addresses,
        mtu,
        pod: spec.pod.clone(),
        delegated_ipam: None,
        host_ports: Vec::new(),
    }
}
