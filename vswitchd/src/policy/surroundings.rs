//! What is around the members of a roster: the addresses of some networks that none of them has,
//! as the fewest networks that cover them.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use vswitch_datapath::flow::SetName;

use super::cidr::subtract;
use super::pods::Pod;
use crate::rules::Ledger;

/// The cover of one set.
#[derive(Debug)]
pub(super) struct Surroundings {
    /// As few as there can be.
    networks: Vec<IpNet>,
    /// Networks of members, with how many have each.
    taken: BTreeMap<IpNet, usize>,
    /// The members of the set. As few as there can be: so they do not depend on the way here.
    cover: BTreeSet<IpNet>,
}

impl Surroundings {
    /// Makes the set.
    pub(super) fn new(name: &SetName, networks: &BTreeSet<IpNet>, ledger: &mut Ledger) -> Self {
        let networks = IpNet::aggregate(&networks.iter().copied().collect());
        ledger.create_set(name);
        for net in &networks {
            ledger.add_member(name, *net);
        }
        Self {
            cover: networks.iter().copied().collect(),
            networks,
            taken: BTreeMap::new(),
        }
    }

    /// A member comes.
    pub(super) fn join(&mut self, name: &SetName, pod: &Pod, ledger: &mut Ledger) {
        for net in pod.nets() {
            let count = self.taken.entry(net).or_default();
            *count += 1;
            if *count == 1 {
                self.exclude(name, net, ledger);
            }
        }
    }

    /// A member goes.
    pub(super) fn leave(&mut self, name: &SetName, pod: &Pod, ledger: &mut Ledger) {
        for net in pod.nets() {
            let Some(count) = self.taken.get_mut(&net) else {
                continue;
            };
            *count -= 1;
            if *count == 0 {
                self.taken.remove(&net);
                self.include(name, net, ledger);
            }
        }
    }

    fn exclude(&mut self, name: &SetName, net: IpNet, ledger: &mut Ledger) {
        let inside: Vec<IpNet> = self.inside(net).collect();
        for part in inside {
            self.remove(name, part, ledger);
        }
        if let Some(whole) = self.around(net) {
            self.remove(name, whole, ledger);
            let mut left = Vec::new();
            subtract(whole, &[net], &mut left);
            for part in left {
                self.add(name, part, ledger);
            }
        }
    }

    fn include(&mut self, name: &SetName, net: IpNet, ledger: &mut Ledger) {
        if self.taken.keys().any(|other| other.contains(&net)) {
            return;
        }
        let taken: Vec<IpNet> = self
            .taken
            .keys()
            .copied()
            .filter(|t| net.contains(t))
            .collect();
        let mut free = Vec::new();
        for of in &self.networks {
            let both = if of.contains(&net) {
                net
            } else if net.contains(of) {
                *of
            } else {
                continue;
            };
            subtract(both, &taken, &mut free);
        }
        for part in free {
            self.merge(name, part, ledger);
        }
    }

    /// Adds a network, with its other half as their whole if that is there.
    fn merge(&mut self, name: &SetName, mut net: IpNet, ledger: &mut Ledger) {
        while let Some(whole) = net.supernet() {
            let halves = whole.subnets(net.prefix_len());
            let other = halves.into_iter().flatten().find(|half| *half != net);
            let Some(other) = other.filter(|other| self.cover.contains(other)) else {
                break;
            };
            self.remove(name, other, ledger);
            net = whole;
        }
        self.add(name, net, ledger);
    }

    /// Returns the networks of the cover that lie in one.
    fn inside(&self, net: IpNet) -> impl Iterator<Item = IpNet> {
        let from_it = self.cover.range(net..).copied();
        from_it.take_while(move |other| net.contains(other))
    }

    /// Returns the network of the cover that one lies in.
    fn around(&self, net: IpNet) -> Option<IpNet> {
        let mut at = Some(net);
        while let Some(whole) = at {
            if self.cover.contains(&whole) {
                return Some(whole);
            }
            at = whole.supernet();
        }
        None
    }

    fn add(&mut self, name: &SetName, net: IpNet, ledger: &mut Ledger) {
        if self.cover.insert(net) {
            ledger.add_member(name, net);
        }
    }

    fn remove(&mut self, name: &SetName, net: IpNet, ledger: &mut Ledger) {
        if self.cover.remove(&net) {
            ledger.remove_member(name, net);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn net() -> impl Strategy<Value = IpNet> {
        prop::sample::select(vec![
            "10.0.0.0/30",
            "10.0.0.1/32",
            "10.0.0.2/32",
            "10.0.0.2/31",
            "10.0.0.9/32",
            "10.0.0.8/29",
            "0.0.0.0/0",
            "fd00::1/128",
            "fd00::/126",
        ])
        .prop_map(|text| text.parse().unwrap())
    }

    fn pod(net: IpNet) -> Pod {
        Pod::network_set(Arc::default(), vec![net])
    }

    proptest! {
        #[test]
        fn what_members_have_is_out_and_the_rest_is_in_by_the_fewest_networks(
            base in prop::collection::btree_set(net(), 1..3),
            members in prop::collection::vec((net(), any::<bool>()), 0..8),
        ) {
            let (name, mut ledger) = (SetName("set".into()), Ledger::default());
            let mut around = Surroundings::new(&name, &base, &mut ledger);
            members.iter().for_each(|(net, _)| around.join(&name, &pod(*net), &mut ledger));
            for (net, _) in members.iter().filter(|(_, goes)| *goes) {
                around.leave(&name, &pod(*net), &mut ledger);
            }
            let there: Vec<IpNet> =
                members.iter().filter(|(_, goes)| !goes).map(|(net, _)| *net).collect();
            let mut left = Vec::new();
            for net in IpNet::aggregate(&base.iter().copied().collect()) {
                subtract(net, &there, &mut left);
            }
            let fewest: BTreeSet<IpNet> = IpNet::aggregate(&left).into_iter().collect();
            prop_assert_eq!(around.cover, fewest);
        }
    }
}
