//! Errors of adding, checking and removing attachments.

use std::path::PathBuf;

use vswitch_api::IfName;

use super::world::StepError;
use crate::ipam::{DelegateError, IpamError, LeaseOwner};
use crate::store::StoreError;

/// A failure; unless it is [`Self::Incomplete`], nothing is left of what was tried.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum AttachError {
    /// A second ADD, while what the first one made stands.
    #[error(
        "interface {} of container {} is attached already; DEL comes before another ADD",
        owner.ifname, owner.container_id
    )]
    Attached {
        owner: LeaseOwner,
        netns: PathBuf,
        network: String,
    },
    /// Another port has the name.
    #[error("there is already a port {ifname}")]
    NameTaken { ifname: IfName },
    /// No such attachment.
    #[error("interface {} of container {} is not attached", owner.ifname, owner.container_id)]
    Unknown { owner: LeaseOwner },
    /// No address of the built-in management.
    #[error("lease addresses for {owner}")]
    Lease {
        owner: LeaseOwner,
        source: IpamError,
    },
    /// Leases without an attachment.
    #[error("release leases that no attachment has")]
    LostLeases { source: IpamError },
    /// An address has gone.
    #[error("address {address} is not leased to {owner}")]
    NotLeased {
        owner: LeaseOwner,
        address: std::net::IpAddr,
    },
    /// The delegated plugin failed.
    #[error("delegated IPAM of {owner}")]
    Delegate {
        owner: LeaseOwner,
        source: DelegateError,
    },
    /// Nothing is begun that could not be undone.
    #[error("keep descriptors back to undo it with")]
    Descriptors { source: std::io::Error },
    /// Every number has a port.
    #[error("all port numbers of the switch are in use")]
    NoNumber,
    /// RFC 8200 section 5: the kernel would refuse the address without saying why.
    #[error("mtu {mtu} is below 1280, which IPv6 needs")]
    Mtu { mtu: u16 },
    /// The pod is not there to be attached, or its object could not be written.
    #[error("{doing}")]
    Pod {
        doing: &'static str,
        source: StepError,
    },
    /// The interface.
    #[error("{doing}")]
    Device {
        doing: &'static str,
        source: StepError,
    },
    /// The port of the switch.
    #[error("{doing}")]
    Port {
        doing: &'static str,
        source: StepError,
    },
    /// The record could not be kept.
    #[error("keep the record of {owner}")]
    Store {
        owner: LeaseOwner,
        source: StoreError,
    },
    /// Something is left, and stays on record: the next DEL tries again.
    #[error("{doing} left something behind: {}", problems.join("; "))]
    Incomplete {
        doing: &'static str,
        problems: Vec<String>,
    },
    /// An ADD that failed, and whose undoing failed too.
    #[error("undoing it failed too: {}", problems.join("; "))]
    NotUndone {
        source: Box<AttachError>,
        problems: Vec<String>,
    },
    /// A panic, or the daemon is stopping.
    #[error("the work broke off; see the log of vswitchd")]
    BrokenOff { source: tokio::task::JoinError },
}

/// Makes an error of what could not be undone.
pub(super) fn of_problems(doing: &'static str, problems: Vec<String>) -> Result<(), AttachError> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(AttachError::Incomplete { doing, problems })
}
