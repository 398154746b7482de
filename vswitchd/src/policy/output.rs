//! What a policy is compiled from, besides itself, and to.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use vswitch_datapath::flow::SetName;
use vswitch_datapath::pipeline::Rule;

use super::groups::{Facts, Groups};
use super::ids::RosterId;
use super::nodes::NodeGroups;
use super::program::PolicyProblem;
use super::roster::Facet;
use crate::state::Selector;

/// What one policy came to, and what it holds of others.
#[derive(Debug, Default)]
pub(super) struct CompiledPolicy {
    pub(super) rules: Vec<Rule>,
    /// Groups it uses, each as often as it does.
    pub(super) groups: Vec<RosterId>,
    /// Parts of rosters that it follows.
    pub(super) watches: Vec<(RosterId, Facet)>,
    /// Sets of what is around the members of groups, by name.
    pub(super) outsides: Vec<(RosterId, SetName)>,
    /// Nodes that it names, each selector as often as it does.
    pub(super) nodes: Vec<Selector>,
    /// Its own sets: the networks of its peers.
    pub(super) networks: BTreeMap<SetName, BTreeSet<IpNet>>,
    pub(super) problems: Vec<PolicyProblem>,
}

/// What peers are found in.
#[derive(Debug)]
pub(super) struct Sources<'a, 'f> {
    pub(super) groups: &'a mut Groups,
    pub(super) nodes: &'a mut NodeGroups,
    pub(super) facts: &'a mut Facts<'f>,
}
