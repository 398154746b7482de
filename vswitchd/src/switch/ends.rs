//! Who is at an end of a connection.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use vswitch_api::PortNo;
use vswitch_datapath::Datapath;

use crate::policy::explain::End;
use crate::policy::node_set;
use crate::reconcile::ReconciledState;
use crate::state::{Attachment, ClusterState, ObjectKey};

/// Everybody who may be at an end.
#[derive(Debug)]
pub struct Ends<'a> {
    /// Objects of the cluster.
    pub cluster: &'a ClusterState,
    /// Attachments of this node.
    pub attachments: &'a BTreeMap<PortNo, Arc<Attachment>>,
    /// The node's addresses, as the policy rules in force have them.
    pub node: Vec<IpNet>,
}

impl<'a> Ends<'a> {
    /// Returns those that are known of now.
    #[must_use]
    pub fn of(state: &'a ReconciledState, datapath: &Datapath) -> Self {
        Self {
            cluster: &state.cluster,
            attachments: &state.attachments,
            node: datapath.address_set(&node_set()),
        }
    }

    /// Returns whether it is an address of the node.
    #[must_use]
    pub fn is_node(&self, address: IpAddr) -> bool {
        self.node.iter().any(|net| net.contains(&address))
    }

    /// Finds out who has an address: the node, a port of this node, or a pod by its own word.
    /// What the address was asked for by counts last: the tables know addresses only.
    #[must_use]
    pub fn end(&self, asked: &str, address: Option<IpAddr>) -> End {
        let is_node = address.is_some_and(|address| self.is_node(address));
        let found = address.filter(|_| !is_node);
        let attached = found.and_then(|address| self.attached(address));
        let owner = || found.and_then(|address| self.cluster.owner_of(address));
        End {
            pod: attached
                .cloned()
                .or_else(|| owner().map(|pod| pod.key.clone()))
                .or_else(|| named(asked)),
            address,
            is_node,
            is_local: attached.is_some(),
        }
    }

    fn attached(&self, address: IpAddr) -> Option<&ObjectKey> {
        let has = |attachment: &&Arc<Attachment>| {
            attachment.addresses.iter().any(|net| net.addr() == address)
        };
        let attachment = self.attachments.values().find(has)?;
        Some(&attachment.pod)
    }
}

/// The pod that is asked for by name.
fn named(asked: &str) -> Option<ObjectKey> {
    if asked == "node" || asked.parse::<IpAddr>().is_ok() {
        return None;
    }
    let (namespace, name) = asked.split_once('/').unwrap_or(("default", asked));
    Some(ObjectKey {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}
