//! Undoes everything that the daemon has changed in the host.
//!
//! For `vswitchd --cleanup` and package removal, never for an ordinary stop: across a
//! restart the pods keep their interfaces. Continues past failures; may be repeated, and
//! half of what it looks for may be missing. Blocks.

use std::path::PathBuf;

use netlink_packet_route::link::InfoKind;
use vswitch_api::IfName;

use super::netlink::{self, Session};
use super::{
    Masquerade, NetlinkError, NftError, NftTable, NodeNetwork, NodeNetworkError, ServiceSteering,
    Shield, SysctlError, SysctlLedger, VethError, delete_veth, list_host_veths,
};

/// Where the daemon's traces are.
#[derive(Debug, Clone)]
pub struct Leftovers {
    /// Name of its nft tables.
    pub table: NftTable,
    /// Its gateway TAP.
    pub gateway_ifname: IfName,
    /// Its tunnel device.
    pub tunnel_ifname: IfName,
    /// What host ends of veth pairs start with.
    pub veth_prefix: String,
    /// The ledger of sysctls.
    pub sysctl_ledger: PathBuf,
}

/// Something that could not be undone.
#[derive(Debug, thiserror::Error)]
pub enum CleanupProblem {
    /// Links could not be listed or deleted.
    #[error("remove links")]
    Links {
        /// Cause.
        #[from]
        source: NetlinkError,
    },
    /// A veth pair.
    #[error("remove veth pair")]
    Veth {
        /// Cause.
        #[from]
        source: VethError,
    },
    /// A link has the gateway's name, but was not made by the daemon.
    #[error("{ifname} is not a TAP device; left alone")]
    NotTap {
        /// Its name.
        ifname: IfName,
    },
    /// A table.
    #[error("remove nft table")]
    Nft {
        /// Cause.
        #[from]
        source: NftError,
    },
    /// The way to other nodes.
    #[error("remove the way to other nodes")]
    Nodes {
        /// Cause.
        #[from]
        source: NodeNetworkError,
    },
    /// A sysctl.
    #[error("restore sysctl")]
    Sysctl {
        /// Cause.
        #[from]
        source: SysctlError,
    },
}

/// Removes links and tables and restores sysctls; returns what went wrong. Blocks.
#[must_use = "problems need to be told"]
pub fn cleanup(leftovers: &Leftovers) -> Vec<CleanupProblem> {
    let mut problems = Vec::new();
    let shield = Shield::new(leftovers.table.clone());
    match list_host_veths(&leftovers.veth_prefix) {
        Ok(veths) => problems.extend(
            veths
                .iter()
                .filter_map(|veth| delete_veth(&veth.ifname, &shield).err())
                .map(Into::into),
        ),
        Err(error) => problems.push(error.into()),
    }
    problems.extend(delete_gateway(&leftovers.gateway_ifname).err());
    // After the links: a veth that could not be deleted keeps its shield's table.
    if problems.is_empty() {
        problems.extend(shield.remove_all().err().map(CleanupProblem::from));
    }
    let nodes = NodeNetwork::remove(&leftovers.tunnel_ifname, &leftovers.table);
    problems.extend(nodes.into_iter().map(CleanupProblem::from));
    let masquerade = Masquerade::new(leftovers.table.clone());
    problems.extend(masquerade.remove().err().map(CleanupProblem::from));
    let steering = ServiceSteering::remove(&leftovers.table);
    problems.extend(steering.err().map(CleanupProblem::from));
    match SysctlLedger::open(&leftovers.sysctl_ledger) {
        Ok(ledger) => problems.extend(ledger.restore().into_iter().map(CleanupProblem::from)),
        Err(error) => problems.push(error.into()),
    }
    problems
}

fn delete_gateway(ifname: &IfName) -> Result<(), CleanupProblem> {
    netlink::in_host(
        async |host: Session| match host.link(ifname.as_str()).await? {
            None => Ok(()),
            Some(link) if link.kind == Some(InfoKind::Tun) => Ok(host.delete_link(&link).await?),
            Some(_) => Err(CleanupProblem::NotTap {
                ifname: ifname.clone(),
            }),
        },
    )
}
