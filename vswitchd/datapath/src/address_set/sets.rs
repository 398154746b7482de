//! The writer's side of address sets: names, members by set, and the index to publish.

use std::collections::{BTreeSet, HashMap};

use ipnet::IpNet;

use super::SetUpdate;
use super::{AddressIndex, SetId};
use crate::flow::SetName;

/// All sets. Owned by the one writer of a datapath.
#[derive(Debug, Default)]
pub(crate) struct AddressSets {
    sets: HashMap<SetName, Set>,
    free: Vec<SetId>,
    allocated: u32,
    index: AddressIndex,
}

#[derive(Debug)]
struct Set {
    id: SetId,
    /// Rules that name the set: it keeps its number as long as there are any.
    rules: usize,
    /// `None` until the set is created, and again once it is deleted.
    members: Option<BTreeSet<IpNet>>,
}

impl AddressSets {
    /// Returns the index as it stands, for publication.
    pub(crate) fn index(&self) -> AddressIndex {
        self.index.clone()
    }

    /// Returns how many sets exist.
    pub(crate) fn len(&self) -> usize {
        self.sets
            .values()
            .filter(|set| set.members.is_some())
            .count()
    }

    /// Returns every existing set with its members, by name.
    pub(crate) fn list(&self) -> Vec<(SetName, Vec<IpNet>)> {
        let members = |set: &Set| Some(set.members.as_ref()?.iter().copied().collect());
        let mut list: Vec<_> = self
            .sets
            .iter()
            .filter_map(|(name, set)| Some((name.clone(), members(set)?)))
            .collect();
        list.sort();
        list
    }

    /// Returns the members of a set; none if there is no such set.
    pub(crate) fn members(&self, name: &SetName) -> Vec<IpNet> {
        let members = self.sets.get(name).and_then(|set| set.members.as_ref());
        members.into_iter().flatten().copied().collect()
    }

    /// Returns the set's number for a rule that names it; pair it with [`AddressSets::release`].
    pub(crate) fn acquire(&mut self, name: &SetName) -> SetId {
        let set = self.entry(name);
        set.rules += 1;
        set.id
    }

    /// States that a rule no longer names the set.
    pub(crate) fn release(&mut self, name: &SetName) {
        if let Some(set) = self.sets.get_mut(name) {
            set.rules = set.rules.saturating_sub(1);
            self.forget_if_unused(name);
        }
    }

    /// Applies one change.
    pub(crate) fn update(&mut self, name: &SetName, update: &SetUpdate) {
        match update {
            SetUpdate::Replace(members) => {
                let after: BTreeSet<_> = members.iter().map(IpNet::trunc).collect();
                let before = self.entry(name).members.clone().unwrap_or_default();
                self.change(name, after.difference(&before), before.difference(&after));
            }
            SetUpdate::Add(members) => {
                let more: BTreeSet<_> = members.iter().map(IpNet::trunc).collect();
                self.change(name, more.iter(), [].iter());
            }
            SetUpdate::Remove(members) if self.exists(name) => {
                let less: BTreeSet<_> = members.iter().map(IpNet::trunc).collect();
                self.change(name, [].iter(), less.iter());
            }
            SetUpdate::Delete if self.exists(name) => {
                let before = self.entry(name).members.take().unwrap_or_default();
                let id = self.entry(name).id;
                before.iter().for_each(|net| self.index.remove(*net, id));
                self.forget_if_unused(name);
            }
            SetUpdate::Remove(_) | SetUpdate::Delete => {}
        }
    }

    fn change<'a>(
        &mut self,
        name: &SetName,
        add: impl Iterator<Item = &'a IpNet>,
        remove: impl Iterator<Item = &'a IpNet>,
    ) {
        let mut index = std::mem::take(&mut self.index);
        let set = self.entry(name);
        let members = set.members.get_or_insert_default();
        for net in remove {
            if members.remove(net) {
                index.remove(*net, set.id);
            }
        }
        for net in add {
            if members.insert(*net) {
                index.insert(*net, set.id);
            }
        }
        self.index = index;
    }

    fn exists(&self, name: &SetName) -> bool {
        self.sets.get(name).is_some_and(|set| set.members.is_some())
    }

    fn entry(&mut self, name: &SetName) -> &mut Set {
        let Self {
            sets,
            free,
            allocated,
            ..
        } = self;
        sets.entry(name.clone()).or_insert_with(|| {
            let id = free.pop().unwrap_or_else(|| {
                *allocated += 1;
                SetId(*allocated - 1)
            });
            Set {
                id,
                rules: 0,
                members: None,
            }
        })
    }

    fn forget_if_unused(&mut self, name: &SetName) {
        if let Some(set) = self.sets.get(name)
            && set.rules == 0
            && set.members.is_none()
        {
            self.free.push(set.id);
            self.sets.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::super::SetIds;
    use super::*;

    fn name(text: &str) -> SetName {
        SetName(text.into())
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// Names of the sets that the published index finds for the address.
    fn sets_of(sets: &AddressSets, address: &str) -> Vec<String> {
        let (index, mut ids) = (sets.index(), SetIds::default());
        index.lookup(Some(address.parse().unwrap()), &mut ids);
        let mut names: Vec<_> = sets
            .sets
            .iter()
            .filter(|(_, set)| ids.contains(&set.id))
            .map(|(name, _)| name.0.to_string())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn an_address_is_in_every_set_that_holds_it_or_a_network_around_it() {
        let mut sets = AddressSets::default();
        sets.update(
            &name("host"),
            &SetUpdate::Add(nets(&["10.0.0.1/32", "fd00::1/128"])),
        );
        sets.update(&name("all"), &SetUpdate::Add(nets(&["0.0.0.0/0", "::/0"])));
        sets.update(
            &name("net"),
            &SetUpdate::Add(nets(&["10.0.0.0/8", "fd00::/16"])),
        );
        sets.update(
            &name("half"),
            &SetUpdate::Add(nets(&["10.0.0.0/9", "10.128.0.0/9"])),
        );
        assert_eq!(sets_of(&sets, "10.0.0.1"), ["all", "half", "host", "net"]);
        assert_eq!(sets_of(&sets, "10.200.0.1"), ["all", "half", "net"]);
        assert_eq!(sets_of(&sets, "11.0.0.1"), ["all"]);
        assert_eq!(sets_of(&sets, "fd00::1"), ["all", "host", "net"]);
        assert_eq!(sets_of(&sets, "fe80::1"), ["all"]);
    }

    #[test]
    fn a_deleted_set_has_no_members_and_its_number_is_reused_once_no_rule_names_it() {
        let mut sets = AddressSets::default();
        let id = sets.acquire(&name("a"));
        sets.update(&name("a"), &SetUpdate::Replace(nets(&["10.0.0.0/8"])));
        sets.update(&name("a"), &SetUpdate::Delete);
        assert_eq!(sets_of(&sets, "10.0.0.1"), Vec::<String>::new());
        assert_ne!(sets.acquire(&name("b")), id);
        sets.release(&name("a"));
        assert_eq!(sets.acquire(&name("c")), id);
        assert!(sets.list().is_empty());
    }

    #[test]
    fn a_published_index_does_not_see_later_changes() {
        let mut sets = AddressSets::default();
        sets.update(
            &name("a"),
            &SetUpdate::Add(nets(&["10.0.0.1/32", "10.0.0.0/8"])),
        );
        let published = sets.index();
        sets.update(&name("a"), &SetUpdate::Delete);
        let mut ids = SetIds::default();
        published.lookup(Some("10.0.0.1".parse().unwrap()), &mut ids);
        assert_eq!(*ids, [SetId(0)]);
        let now = sets.index();
        now.lookup(Some("10.0.0.1".parse().unwrap()), &mut ids);
        assert!(ids.is_empty());
    }

    #[test]
    fn members_count_once_whatever_their_host_bits() {
        let mut sets = AddressSets::default();
        sets.update(
            &name("a"),
            &SetUpdate::Add(nets(&["10.0.0.1/8", "10.0.0.2/8"])),
        );
        assert_eq!(sets.list(), [(name("a"), nets(&["10.0.0.0/8"]))]);
        sets.update(&name("a"), &SetUpdate::Remove(nets(&["10.9.9.9/8"])));
        assert_eq!(sets_of(&sets, "10.0.0.1"), Vec::<String>::new());
    }

    /// Networks of a narrow space, so that they nest and collide.
    fn any_net() -> impl Strategy<Value = IpNet> + Clone {
        let v4 = (0u8..4, 0u8..4, 0u8..=32)
            .prop_map(|(a, d, len)| IpNet::new(IpAddr::from([a << 6, 0, 0, d]), len).unwrap());
        let v6 = (0u16..4, 0u16..4, 0u8..=128).prop_map(|(a, h, len)| {
            IpNet::new(IpAddr::from([a << 14, 0, 0, 0, 0, 0, 0, h]), len).unwrap()
        });
        prop_oneof![v4, v6]
    }

    fn any_update() -> impl Strategy<Value = SetUpdate> {
        let members = proptest::collection::vec(any_net(), 0..4);
        prop_oneof![
            members.clone().prop_map(SetUpdate::Replace),
            members.clone().prop_map(SetUpdate::Add),
            members.prop_map(SetUpdate::Remove),
            Just(SetUpdate::Delete),
        ]
    }

    proptest! {
        #[test]
        fn the_index_agrees_with_a_scan_of_all_members(
            updates in proptest::collection::vec((0u8..4, any_update()), 0..24),
            probes in proptest::collection::vec(any_net(), 1..8),
        ) {
            let mut sets = AddressSets::default();
            let mut model = BTreeMap::<u8, BTreeSet<IpNet>>::new();
            for (set, update) in &updates {
                sets.update(&name(&set.to_string()), update);
                let members = model.entry(*set).or_default();
                match update {
                    SetUpdate::Replace(nets) => *members = nets.iter().map(IpNet::trunc).collect(),
                    SetUpdate::Add(nets) => members.extend(nets.iter().map(IpNet::trunc)),
                    SetUpdate::Remove(nets) => nets.iter().for_each(|net| {
                        members.remove(&net.trunc());
                    }),
                    SetUpdate::Delete => members.clear(),
                }
            }
            for probe in probes {
                let address = probe.addr();
                let expected: Vec<_> = model
                    .iter()
                    .filter(|(_, nets)| nets.iter().any(|net| net.contains(&address)))
                    .map(|(set, _)| set.to_string())
                    .collect();
                prop_assert_eq!(sets_of(&sets, &address.to_string()), expected);
            }
        }
    }
}
