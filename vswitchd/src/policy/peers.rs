//! The `from` and `to` of a policy rule.

use std::fmt;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use vswitch_datapath::flow::SetName;

use super::cidr::{self, IpBlockError};
use super::expression::Expression;
use crate::state::{Selector, SelectorError};

/// Which pods a peer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// Every pod of the cluster.
    Everywhere,
    /// Those of one namespace.
    Namespace(String),
    /// Those of the namespaces that a selector finds.
    Namespaces(Selector),
}

/// A peer that means something.
#[derive(Debug)]
pub(super) enum Peer {
    /// Pods found by selectors.
    Pods(PodPeer),
    /// Networks.
    Networks(Vec<IpNet>),
}

/// Pods found by selectors; its text is canonical and names its address set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PodPeer {
    pub(super) scope: Scope,
    pub(super) selector: Selector,
}

/// Whom a selector finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Members {
    /// By Kubernetes' selectors: pods.
    Pods(PodPeer),
    /// By one of Calico's: pods and network sets.
    Selected {
        /// On all their labels, those that Calico adds included.
        expression: Expression,
        /// Only pods of this node.
        is_here: bool,
    },
}

impl From<PodPeer> for Members {
    fn from(pods: PodPeer) -> Self {
        Self::Pods(pods)
    }
}

impl Members {
    /// Returns the name of the set of all of them.
    pub(super) fn set_name(&self) -> SetName {
        SetName(match self {
            Self::Pods(pods) => pods.to_string().into(),
            Self::Selected {
                expression,
                is_here: false,
            } => format!("selected:{expression}").into(),
            Self::Selected {
                expression,
                is_here: true,
            } => format!("selected-here:{expression}").into(),
        })
    }
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
