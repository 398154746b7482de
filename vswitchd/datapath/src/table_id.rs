//! The tables, their order and names.

use crate::drop_reason::DropReason;

/// A table of the pipeline; the number is what `dump-flows` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum TableId {
    /// What hangs on in_port.
    Classify = 0,
    /// A pod port may use only its own MAC and IPs.
    SpoofGuard = 10,
    /// Answers ARP and neighbour solicitations.
    ArpResponder = 20,
    /// Flows of operators and orchestrators.
    Admin = 30,
    /// Connection lookup.
    Conntrack = 40,
    /// Service address to endpoint.
    ServiceLb = 50,
    /// Cluster policies of tier Admin, for the sending pod.
    EgressAdminTier = 55,
    /// NetworkPolicies of the sending pod: what they allow.
    EgressRule = 60,
    /// NetworkPolicies of the sending pod: isolation.
    EgressDefault = 61,
    /// Cluster policies of tier Baseline, for a sending pod that no NetworkPolicy isolates.
    EgressBaselineTier = 65,
    /// Destination to out port.
    Forward = 70,
    /// Cluster policies of tier Admin, for the receiving pod.
    IngressAdminTier = 75,
    /// NetworkPolicies of the receiving pod: what they allow.
    IngressRule = 80,
    /// NetworkPolicies of the receiving pod: isolation.
    IngressDefault = 81,
    /// Cluster policies of tier Baseline, for a receiving pod that no NetworkPolicy isolates.
    IngressBaselineTier = 85,
    /// Commit the connection, count, send.
    Output = 90,
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
        self as u8
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
        match self {
            Self::Classify => 0,
            Self::SpoofGuard => 1,
            Self::ArpResponder => 2,
            Self::Admin => 3,
            Self::Conntrack => 4,
            Self::ServiceLb => 5,
            Self::EgressAdminTier => 6,
            Self::EgressRule => 7,
            Self::EgressDefault => 8,
            Self::EgressBaselineTier => 9,
            Self::Forward => 10,
            Self::IngressAdminTier => 11,
            Self::IngressRule => 12,
            Self::IngressDefault => 13,
            Self::IngressBaselineTier => 14,
            Self::Output => 15,
        }
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
