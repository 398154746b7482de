//! Nodes found by selectors: their addresses as sets that rules name as peers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use vswitch_datapath::flow::SetName;

use crate::rules::Ledger;
use crate::state::{ClusterState, NodeRecord, Selector};

/// The nodes of one selector.
#[derive(Debug, Default)]
struct NodeGroup {
    /// How many rules name them.
    users: usize,
    /// Their addresses, with how many of them have each: nothing keeps two nodes from saying the
    /// same.
    members: BTreeMap<IpNet, usize>,
}

/// The selectors in use.
#[derive(Debug, Default)]
pub(super) struct NodeGroups {
    groups: BTreeMap<Selector, NodeGroup>,
}

impl NodeGroups {
    /// Takes the nodes of a selector into use; returns the name of their set.
    pub(super) fn acquire(
        &mut self,
        selector: &Selector,
        state: &ClusterState,
        ledger: &mut Ledger,
    ) -> SetName {
        let name = set_name(selector);
        let group = self.groups.entry(selector.clone()).or_default();
        group.users += 1;
        if group.users == 1 {
            ledger.create_set(&name);
            let found = state.nodes();
            for node in found.filter(|node| selector.matches(&node.labels)) {
                group.join(node, &name, ledger);
            }
        }
        name
    }

    /// Gives them back; their set goes when no rule names it any more.
    pub(super) fn release(&mut self, selector: &Selector, ledger: &mut Ledger) {
        let Some(group) = self.groups.get_mut(selector) else {
            return;
        };
        group.users -= 1;
        if group.users == 0 {
            self.groups.remove(selector);
            ledger.drop_set(&set_name(selector));
        }
    }

    /// A node came, went or changed.
    pub(super) fn changed(
        &mut self,
        before: Option<&NodeRecord>,
        after: Option<&NodeRecord>,
        ledger: &mut Ledger,
    ) {
        for (selector, group) in &mut self.groups {
            let name = set_name(selector);
            let is_in = |node: &&NodeRecord| selector.matches(&node.labels);
            if let Some(node) = before.filter(is_in) {
                group.leave(node, &name, ledger);
            }
            if let Some(node) = after.filter(is_in) {
                group.join(node, &name, ledger);
            }
        }
    }
}

impl NodeGroup {
    fn join(&mut self, node: &NodeRecord, set: &SetName, ledger: &mut Ledger) {
        for net in nets(node) {
            let count = self.members.entry(net).or_default();
            *count += 1;
            if *count == 1 {
                ledger.add_member(set, net);
            }
        }
    }

    fn leave(&mut self, node: &NodeRecord, set: &SetName, ledger: &mut Ledger) {
        for net in nets(node) {
            let Some(count) = self.members.get_mut(&net) else {
                continue;
            };
            *count -= 1;
            if *count == 0 {
                self.members.remove(&net);
                ledger.remove_member(set, net);
            }
        }
    }
}

fn set_name(selector: &Selector) -> SetName {
    SetName(format!("nodes:{selector}").into())
}

/// The addresses of a node, each once.
fn nets(node: &NodeRecord) -> impl Iterator<Item = IpNet> {
    let addresses: BTreeSet<IpAddr> = node.ips.iter().copied().collect();
    addresses.into_iter().map(IpNet::from)
}
