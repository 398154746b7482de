//! Ingress and egress, from the pod's side: the same compiler, other tables and fields.

use vswitch_datapath::flow::{AddressMatch, Match, SetName};
use vswitch_datapath::pipeline::TableId;
use vswitch_datapath::{Action, DropReason};

use crate::config::Deny;

/// Which way the traffic goes, seen from the pod that a policy selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    pub(super) const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    /// What policyTypes calls it.
    pub(super) const fn policy_type(self) -> &'static str {
        match self {
            Self::Ingress => "Ingress",
            Self::Egress => "Egress",
        }
    }

    /// The field that lists the peers of a rule.
    pub(super) const fn peers_field(self) -> &'static str {
        match self {
            Self::Ingress => "from",
            Self::Egress => "to",
        }
    }

    pub(super) const fn rule_table(self) -> TableId {
        match self {
            Self::Ingress => TableId::IngressRule,
            Self::Egress => TableId::EgressRule,
        }
    }

    pub(super) const fn default_table(self) -> TableId {
        match self {
            Self::Ingress => TableId::IngressDefault,
            Self::Egress => TableId::EgressDefault,
        }
    }

    /// Past all tables of the direction.
    pub(super) const fn allow(self) -> Action {
        match self {
            Self::Ingress => Action::Goto(TableId::Output),
            Self::Egress => Action::Goto(TableId::Forward),
        }
    }

    pub(super) const fn deny(self, deny: Deny) -> Action {
        let reason = match self {
            Self::Ingress => DropReason::PolicyIngress,
            Self::Egress => DropReason::PolicyEgress,
        };
        match deny {
            Deny::Drop => Action::Drop(reason),
            Deny::Reject => Action::Reject(reason),
        }
    }

    /// Demands the addresses of the selected pod and of its peer.
    pub(super) fn addresses(self, subject: Option<&SetName>, peer: Option<&SetName>) -> Match {
        let set = |name: &SetName| AddressMatch::Set(name.clone());
        let (ip_src, ip_dst) = match self {
            Self::Ingress => (peer, subject),
            Self::Egress => (subject, peer),
        };
        Match {
            ip_src: ip_src.map(set),
            ip_dst: ip_dst.map(set),
            ..Match::default()
        }
    }
}
