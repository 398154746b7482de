//! The tables, their order and names.

use crate::drop_reason::DropReason;

/// A table of the pipeline, in the order in which packets come to them.
///
/// Its place in that order is its value, so that a walk finds a table by one load; its number, which
/// `dump-flows` prints and flows name, leaves room for tables to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum TableId {
    /// What hangs on in_port.
    Classify,
    /// A pod port may use only its own MAC and IPs.
    SpoofGuard,
    /// Answers ARP and neighbour solicitations.
    ArpResponder,
    /// Flows of operators and orchestrators.
    Admin,
    /// Connection lookup.
    Conntrack,
    /// Service address to endpoint.
    ServiceLb,
    /// Cluster policies of tier Admin, for the sending pod.
    EgressAdminTier,
    /// NetworkPolicies of the sending pod: what they allow.
    EgressRule,
    /// NetworkPolicies of the sending pod: isolation.
    EgressDefault,
    /// Cluster policies of tier Baseline, for a sending pod that no NetworkPolicy isolates.
    EgressBaselineTier,
    /// Destination to out port.
    Forward,
    /// Cluster policies of tier Admin, for the receiving pod.
    IngressAdminTier,
    /// NetworkPolicies of the receiving pod: what they allow.
    IngressRule,
    /// NetworkPolicies of the receiving pod: isolation.
    IngressDefault,
    /// Cluster policies of tier Baseline, for a receiving pod that no NetworkPolicy isolates.
    IngressBaselineTier,
    /// Commit the connection, count, send.
    Output,
}

impl TableId {
    /// Every table in pipeline order.
    pub const ALL: [Self; 16] = [
        Self::Classify,
        Self::SpoofGuard,
        Self::ArpResponder,
        Self::Admin,
        Self::Conntrack,
        Self::ServiceLb,
        Self::EgressAdminTier,
        Self::EgressRule,
        Self::EgressDefault,
        Self::EgressBaselineTier,
        Self::Forward,
        Self::IngressAdminTier,
        Self::IngressRule,
        Self::IngressDefault,
        Self::IngressBaselineTier,
        Self::Output,
    ];

    /// Returns the table with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.number() == number)
    }

    /// Returns the number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Classify => 0,
            Self::SpoofGuard => 10,
            Self::ArpResponder => 20,
            Self::Admin => 30,
            Self::Conntrack => 40,
            Self::ServiceLb => 50,
            Self::EgressAdminTier => 55,
            Self::EgressRule => 60,
            Self::EgressDefault => 61,
            Self::EgressBaselineTier => 65,
            Self::Forward => 70,
            Self::IngressAdminTier => 75,
            Self::IngressRule => 80,
            Self::IngressDefault => 81,
            Self::IngressBaselineTier => 85,
            Self::Output => 90,
        }
    }

    /// Returns the name as `dump-flows` prints it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Classify => "Classify",
            Self::SpoofGuard => "SpoofGuard",
            Self::ArpResponder => "ArpResponder",
            Self::Admin => "Admin",
            Self::Conntrack => "Conntrack",
            Self::ServiceLb => "ServiceLb",
            Self::EgressAdminTier => "EgressAdminTier",
            Self::EgressRule => "EgressRule",
            Self::EgressDefault => "EgressDefault",
            Self::EgressBaselineTier => "EgressBaselineTier",
            Self::Forward => "Forward",
            Self::IngressAdminTier => "IngressAdminTier",
            Self::IngressRule => "IngressRule",
            Self::IngressDefault => "IngressDefault",
            Self::IngressBaselineTier => "IngressBaselineTier",
            Self::Output => "Output",
        }
    }

    /// Returns the position in [`TableId::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Returns the table that packets go on to where this one, of a tier of cluster policies, has
    /// no rules of policies: a cluster without such policies does not pay for them.
    #[must_use]
    pub(crate) const fn beyond_tier(self) -> Option<Self> {
        match self {
            Self::EgressAdminTier => Some(Self::EgressRule),
            Self::EgressBaselineTier => Some(Self::Forward),
            Self::IngressAdminTier => Some(Self::IngressRule),
            Self::IngressBaselineTier => Some(Self::Output),
            _ => None,
        }
    }

    /// Returns why a packet is dropped that no rule of the table decides on. Every table fails
    /// closed: what nobody decided on goes nowhere.
    #[must_use]
    pub const fn default_reason(self) -> DropReason {
        match self {
            Self::Classify => DropReason::UnknownPort,
            Self::SpoofGuard => DropReason::Spoofed,
            Self::ArpResponder => DropReason::ArpUnknown,
            Self::Admin => DropReason::AdminDrop,
            Self::Conntrack => DropReason::UnsupportedEtherType,
            Self::EgressAdminTier
            | Self::EgressRule
            | Self::EgressDefault
            | Self::EgressBaselineTier => DropReason::PolicyEgress,
            Self::ServiceLb | Self::Forward | Self::Output => DropReason::NoRoute,
            Self::IngressAdminTier
            | Self::IngressRule
            | Self::IngressDefault
            | Self::IngressBaselineTier => DropReason::PolicyIngress,
        }
    }
}

impl std::fmt::Display for TableId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
