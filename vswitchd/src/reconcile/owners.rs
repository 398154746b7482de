//! Owners of addresses. When an address gets another owner, the connections of the one before
//! end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use vswitch_api::PortNo;

use super::intent::Intent;
use crate::state::{ClusterState, LocalEndpoint, ObjectKey};

/// Who has an address.
#[derive(Debug, Clone, PartialEq, Eq)]
enum AddressOwner {
    /// The node, at the gateway port.
    Gateway,
    /// A container of this node.
    Attachment {
        port_no: PortNo,
        container_id: String,
    },
    /// A pod by its own word.
    Pod { key: ObjectKey, uid: String },
}

/// Owners of all known addresses.
#[derive(Debug, Default)]
pub(super) struct Owners {
    owners: HashMap<IpAddr, AddressOwner>,
    local: HashMap<IpAddr, PortNo>,
    /// Addresses that may have another owner now.
    dirty: BTreeSet<IpAddr>,
}

impl Owners {
    pub(super) fn touch<'a>(&mut self, ips: impl IntoIterator<Item = &'a IpAddr>) {
        self.dirty.extend(ips);
    }

    /// Sets which addresses are at the ports of this node.
    pub(super) fn set_local(&mut self, endpoints: &BTreeMap<PortNo, LocalEndpoint>) {
        self.dirty.extend(self.local.keys());
        self.local = endpoints
            .values()
            .flat_map(|endpoint| endpoint.addresses.iter().map(|ip| (*ip, endpoint.port_no)))
            .collect();
        self.dirty.extend(self.local.keys());
    }

    /// Returns the addresses that had an owner and have none or another now.
    pub(super) fn changed_hands(&mut self, intent: &Intent, cluster: &ClusterState) -> Vec<IpAddr> {
        let mut changed = Vec::new();
        for ip in std::mem::take(&mut self.dirty) {
            let now = self.owner_of(ip, intent, cluster);
            let before = match now.clone() {
                Some(owner) => self.owners.insert(ip, owner),
                None => self.owners.remove(&ip),
            };
            if before.is_some() && before != now {
                changed.push(ip);
            }
        }
        changed
    }

    fn owner_of(
        &self,
        ip: IpAddr,
        intent: &Intent,
        cluster: &ClusterState,
    ) -> Option<AddressOwner> {
        if intent.config.gateway.addresses.contains(&ip) {
            return Some(AddressOwner::Gateway);
        }
        if let Some(port_no) = self.local.get(&ip)
            && let Some(attached) = intent.attached.get(port_no)
        {
            let container_id = attached.attachment.container_id.clone();
            return Some(AddressOwner::Attachment {
                port_no: *port_no,
                container_id,
            });
        }
        cluster.owner_of(ip).map(|pod| AddressOwner::Pod {
            key: pod.key.clone(),
            uid: pod.uid.clone(),
        })
    }
}
