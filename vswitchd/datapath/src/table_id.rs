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
    /// Tiers of policies that come before the NetworkPolicies of the sending pod.
    EgressAdminTier,
    /// Those behind a tier whose policies pass packets on to the next tier.
    EgressAdminTier2,
    /// Those behind a second such tier.
    EgressAdminTier3,
    /// Those behind a third.
    EgressAdminTier4,
    /// NetworkPolicies of the sending pod: what they allow.
    EgressRule,
    /// NetworkPolicies of the sending pod: isolation.
    EgressDefault,
    /// Tiers of policies for a sending pod that no NetworkPolicy isolates.
    EgressBaselineTier,
    /// Those behind a tier whose policies pass packets on to the next tier.
    EgressBaselineTier2,
    /// Destination to out port.
    Forward,
    /// Tiers of policies that come before the NetworkPolicies of the receiving pod.
    IngressAdminTier,
    /// Those behind a tier whose policies pass packets on to the next tier.
    IngressAdminTier2,
    /// Those behind a second such tier.
    IngressAdminTier3,
    /// Those behind a third.
    IngressAdminTier4,
    /// NetworkPolicies of the receiving pod: what they allow.
    IngressRule,
    /// NetworkPolicies of the receiving pod: isolation.
    IngressDefault,
    /// Tiers of policies for a receiving pod that no NetworkPolicy isolates.
    IngressBaselineTier,
    /// Those behind a tier whose policies pass packets on to the next tier.
    IngressBaselineTier2,
    /// Commit the connection, count, send.
    Output,
}

impl TableId {
    /// For how many tables a walk has room without asking for memory: with tiers of policies there
    /// may be more.
    pub(crate) const USUAL_WALK: usize = 16;

    /// Every table in pipeline order.
    pub const ALL: [Self; 24] = [
        Self::Classify,
        Self::SpoofGuard,
        Self::ArpResponder,
        Self::Admin,
        Self::Conntrack,
        Self::ServiceLb,
        Self::EgressAdminTier,
        Self::EgressAdminTier2,
        Self::EgressAdminTier3,
        Self::EgressAdminTier4,
        Self::EgressRule,
        Self::EgressDefault,
        Self::EgressBaselineTier,
        Self::EgressBaselineTier2,
        Self::Forward,
        Self::IngressAdminTier,
        Self::IngressAdminTier2,
        Self::IngressAdminTier3,
        Self::IngressAdminTier4,
        Self::IngressRule,
        Self::IngressDefault,
        Self::IngressBaselineTier,
        Self::IngressBaselineTier2,
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
            Self::EgressAdminTier2 => 56,
            Self::EgressAdminTier3 => 57,
            Self::EgressAdminTier4 => 58,
            Self::EgressRule => 60,
            Self::EgressDefault => 61,
            Self::EgressBaselineTier => 65,
            Self::EgressBaselineTier2 => 66,
            Self::Forward => 70,
            Self::IngressAdminTier => 75,
            Self::IngressAdminTier2 => 76,
            Self::IngressAdminTier3 => 77,
            Self::IngressAdminTier4 => 78,
            Self::IngressRule => 80,
            Self::IngressDefault => 81,
            Self::IngressBaselineTier => 85,
            Self::IngressBaselineTier2 => 86,
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
            Self::EgressAdminTier2 => "EgressAdminTier2",
            Self::EgressAdminTier3 => "EgressAdminTier3",
            Self::EgressAdminTier4 => "EgressAdminTier4",
            Self::EgressRule => "EgressRule",
            Self::EgressDefault => "EgressDefault",
            Self::EgressBaselineTier => "EgressBaselineTier",
            Self::EgressBaselineTier2 => "EgressBaselineTier2",
            Self::Forward => "Forward",
            Self::IngressAdminTier => "IngressAdminTier",
            Self::IngressAdminTier2 => "IngressAdminTier2",
            Self::IngressAdminTier3 => "IngressAdminTier3",
            Self::IngressAdminTier4 => "IngressAdminTier4",
            Self::IngressRule => "IngressRule",
            Self::IngressDefault => "IngressDefault",
            Self::IngressBaselineTier => "IngressBaselineTier",
            Self::IngressBaselineTier2 => "IngressBaselineTier2",
            Self::Output => "Output",
        }
    }

    /// Returns the position in [`TableId::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Returns whether policies decide there.
    #[must_use]
    pub fn is_of_policies(self) -> bool {
        let egress = Self::EgressAdminTier..=Self::EgressBaselineTier2;
        let ingress = Self::IngressAdminTier..=Self::IngressBaselineTier2;
        egress.contains(&self) || ingress.contains(&self)
    }

    /// Returns the table that packets go on to where this one, of tiers of policies, does not decide,
    /// and where it has no rules of policies: a cluster without such policies does not pay for them.
    #[must_use]
    pub const fn beyond_tier(self) -> Option<Self> {
        match self {
            Self::EgressAdminTier => Some(Self::EgressAdminTier2),
            Self::EgressAdminTier2 => Some(Self::EgressAdminTier3),
            Self::EgressAdminTier3 => Some(Self::EgressAdminTier4),
            Self::EgressAdminTier4 => Some(Self::EgressRule),
            Self::EgressBaselineTier => Some(Self::EgressBaselineTier2),
            Self::EgressBaselineTier2 => Some(Self::Forward),
            Self::IngressAdminTier => Some(Self::IngressAdminTier2),
            Self::IngressAdminTier2 => Some(Self::IngressAdminTier3),
            Self::IngressAdminTier3 => Some(Self::IngressAdminTier4),
            Self::IngressAdminTier4 => Some(Self::IngressRule),
            Self::IngressBaselineTier => Some(Self::IngressBaselineTier2),
            Self::IngressBaselineTier2 => Some(Self::Output),
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
            | Self::EgressAdminTier2
            | Self::EgressAdminTier3
            | Self::EgressAdminTier4
            | Self::EgressRule
            | Self::EgressDefault
            | Self::EgressBaselineTier
            | Self::EgressBaselineTier2 => DropReason::PolicyEgress,
            Self::ServiceLb | Self::Forward | Self::Output => DropReason::NoRoute,
            Self::IngressAdminTier
            | Self::IngressAdminTier2
            | Self::IngressAdminTier3
            | Self::IngressAdminTier4
            | Self::IngressRule
            | Self::IngressDefault
            | Self::IngressBaselineTier
            | Self::IngressBaselineTier2 => DropReason::PolicyIngress,
        }
    }
}

impl std::fmt::Display for TableId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
