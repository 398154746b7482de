//! The `from` and `to` of a policy rule.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use vswitch_datapath::flow::SetName;

use super::cidr::{self, IpBlockError};
use super::members::{Member, Members, Scope, single};
use crate::state::{Selector, SelectorError};

/// A peer that means something.
#[derive(Debug)]
pub(super) enum Peer {
    /// Pods found by selectors.
    Pods(PodPeer),
    /// Networks.
    Networks(Vec<IpNet>),
}

/// Pods found by selectors; its text is canonical and names its address set.
#[derive(Debug)]
pub(super) struct PodPeer {
    pub(super) scope: Scope,
    pub(super) selector: Selector,
}

/// Why a peer means nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum PeerError {
    #[error("peer has neither selectors nor an ipBlock")]
    Empty,
    #[error("peer has both selectors and an ipBlock")]
    Both,
    #[error("podSelector: {0}")]
    PodSelector(SelectorError),
    #[error("namespaceSelector: {0}")]
    NamespaceSelector(SelectorError),
    #[error("ipBlock: {0}")]
    IpBlock(IpBlockError),
}

impl Peer {
    pub(super) fn parse(written: &NetworkPolicyPeer, own: &str) -> Result<Self, PeerError> {
        let has_selector = written.pod_selector.is_some() || written.namespace_selector.is_some();
        match (&written.ip_block, has_selector) {
            (None, false) => Err(PeerError::Empty),
            (Some(_), true) => Err(PeerError::Both),
            (Some(block), false) => cidr::networks(block)
                .map(Self::Networks)
                .map_err(PeerError::IpBlock),
            (None, true) => PodPeer::parse(written, own).map(Self::Pods),
        }
    }
}

impl PodPeer {
    fn parse(written: &NetworkPolicyPeer, own: &str) -> Result<Self, PeerError> {
        let scope = match &written.namespace_selector {
            None => Scope::Namespace(own.to_owned()),
            Some(selector) => {
                Scope::Namespaces(Selector::parse(selector).map_err(PeerError::NamespaceSelector)?)
            }
        };
        let selector = match &written.pod_selector {
            None => Selector::default(),
            Some(selector) => Selector::parse(selector).map_err(PeerError::PodSelector)?,
        };
        Ok(Self { scope, selector })
    }

    /// The peer of a rule that names a port but no peer: any pod has it.
    pub(super) fn any() -> Self {
        Self {
            scope: Scope::Everywhere,
            selector: Selector::default(),
        }
    }

    /// Returns the name of the set of all its pods.
    pub(super) fn set_name(&self) -> SetName {
        SetName(self.to_string().into())
    }

    /// Returns the addresses of all its pods.
    pub(super) fn addresses(&self, members: &Members<'_>) -> BTreeSet<IpNet> {
        self.members(members)
            .flat_map(|member| single(&member.addresses))
            .collect()
    }

    /// Returns the addresses of its pods by the number that a named port has there.
    pub(super) fn by_number(
        &self,
        members: &Members<'_>,
        proto: u8,
        name: &str,
    ) -> BTreeMap<u16, BTreeSet<IpNet>> {
        by_number(self.members(members), proto, name)
    }

    fn members<'s, 'a>(&'s self, members: &'s Members<'a>) -> impl Iterator<Item = &'s Member<'a>> {
        members.select(&self.scope, &self.selector)
    }
}

/// Groups pods by the number that a named port has there.
pub(super) fn by_number<'s, 'a: 's>(
    members: impl Iterator<Item = &'s Member<'a>>,
    proto: u8,
    name: &str,
) -> BTreeMap<u16, BTreeSet<IpNet>> {
    let mut numbers: BTreeMap<u16, BTreeSet<IpNet>> = BTreeMap::new();
    for member in members {
        for number in member.resolve(proto, name) {
            numbers
                .entry(number)
                .or_default()
                .extend(single(&member.addresses));
        }
    }
    numbers
}

impl fmt::Display for PodPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scope {
            Scope::Everywhere => f.write_str("pods:all:")?,
            Scope::Namespace(name) => write!(f, "pods:ns/{name}:")?,
            Scope::Namespaces(selector) => write!(f, "pods:namespaces/{selector}:")?,
        }
        self.selector.fmt(f)
    }
}
