//! The groups of records, each with its own key space.

use serde::{Deserialize, Serialize};

/// A group of records with its own key space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bucket {
    /// Schema version, resource version counter, daemon identity.
    Meta,
    /// IPAM leases and resting addresses.
    Leases,
    /// CNI attachments.
    Attachments,
    /// Flows of operators and orchestrators.
    AdminFlows,
    /// Objects of the standalone API, key `resource/namespace/name`.
    Objects,
    /// VM and mirror ports made over REST.
    Ports,
    /// Objects of a cluster as last heard of, key as of [`Self::Objects`].
    Cluster,
}

impl Bucket {
    pub(super) const ALL: [Self; 7] = [
        Self::Meta,
        Self::Leases,
        Self::Attachments,
        Self::AdminFlows,
        Self::Objects,
        Self::Ports,
        Self::Cluster,
    ];

    /// Returns what one record of it is.
    pub(super) const fn noun(self) -> &'static str {
        match self {
            Self::Meta => "setting",
            Self::Leases => "address",
            Self::Attachments => "attachment",
            Self::AdminFlows => "operator flow",
            Self::Objects => "object",
            Self::Ports => "VM or mirror port",
            Self::Cluster => "last known object",
        }
    }

    /// First byte of every key; never changes, or old stores would be misread.
    pub(super) const fn byte(self) -> u8 {
        match self {
            Self::Meta => b'm',
            Self::Leases => b'l',
            Self::Attachments => b'a',
            Self::AdminFlows => b'f',
            Self::Objects => b'o',
            Self::Ports => b'p',
            Self::Cluster => b'k',
        }
    }
}
