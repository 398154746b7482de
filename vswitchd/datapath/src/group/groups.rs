//! All groups, as a snapshot holds them.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::FixedState;

use super::endpoint::{Endpoint, Entrances, GroupId};
use super::spread::Group;

/// A change to one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupUpdate {
    /// Add it or replace what is known of it.
    Set(Group),
    /// Forget it; rules that still name it drop.
    Remove(GroupId),
}

/// Parts that are copied together when a group in one of them changes.
const PARTS: usize = 64;

/// Groups stand in the map itself: a walk that comes by for the first time waits for memory at
/// every step.
type Part = HashMap<GroupId, Group, FixedState>;

/// All groups. A clone shares everything with its original; a change copies one part.
#[derive(Debug, Clone)]
pub(crate) struct Groups(Arc<[Arc<Part>; PARTS]>);

impl Default for Groups {
    fn default() -> Self {
        Self(Arc::new(std::array::from_fn(|_| Arc::default())))
    }
}

impl Groups {
    fn part_of(id: GroupId) -> usize {
        usize::try_from(id.0).unwrap_or(0) % PARTS
    }

    /// Returns a group.
    #[inline]
    pub(crate) fn get(&self, id: GroupId) -> Option<&Group> {
        let part = self.0.get(Self::part_of(id))?;
        part.get(&id)
    }

    /// Returns the addresses and ports by which clients may have come to an endpoint. Looks at
    /// every group.
    pub(crate) fn entrances_to(&self, endpoint: Endpoint, proto: u8) -> Entrances {
        let mut found = Entrances::new();
        let groups = self.0.iter().flat_map(|part| part.values());
        let leading = groups.filter(|group| group.has(endpoint));
        for entrance in leading.flat_map(|group| group.entrances.iter()) {
            if entrance.proto == proto && !found.contains(&entrance.service) {
                found.push(entrance.service);
            }
        }
        found
    }

    /// Takes in changes, in order.
    pub(crate) fn update(&mut self, updates: Vec<GroupUpdate>) {
        if updates.is_empty() {
            return;
        }
        let parts = Arc::make_mut(&mut self.0);
        for update in updates {
            let id = match &update {
                GroupUpdate::Set(group) => group.id,
                GroupUpdate::Remove(id) => *id,
            };
            let Some(part) = parts.get_mut(Self::part_of(id)) else {
                continue;
            };
            let part = Arc::make_mut(part);
            match update {
                GroupUpdate::Set(group) => {
                    part.insert(id, group);
                }
                GroupUpdate::Remove(id) => {
                    part.remove(&id);
                }
            }
        }
    }

    /// Returns every group, by number.
    pub(crate) fn list(&self) -> Vec<Group> {
        let mut all: Vec<_> = self
            .0
            .iter()
            .flat_map(|part| part.values())
            .cloned()
            .collect();
        all.sort_by_key(|group| group.id);
        all
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::super::ServiceAddress;
    use super::*;

    fn endpoint(host: u8) -> Endpoint {
        Endpoint {
            ip: IpAddr::from([10, 0, 0, host]),
            port: 8080,
        }
    }

    fn group(id: u32, endpoints: u8) -> Group {
        Group {
            id: GroupId(id),
            name: "default/web:80/TCP".into(),
            endpoints: (0..endpoints).map(endpoint).collect(),
            entrances: [].into(),
            affinity: None,
            hairpin_source: IpAddr::from([169, 254, 86, 1]),
        }
    }

    #[test]
    fn entrances_are_those_of_every_group_that_has_the_endpoint() {
        let entrance = |port, proto| ServiceAddress {
            proto,
            service: Endpoint {
                ip: [10, 96, 0, 1].into(),
                port,
            },
        };
        let mut groups = Groups::default();
        let leading = |id, endpoints, entrances: &[ServiceAddress]| {
            GroupUpdate::Set(Group {
                entrances: entrances.into(),
                ..group(id, endpoints)
            })
        };
        groups.update(vec![
            leading(1, 1, &[entrance(80, 6), entrance(53, 17)]),
            leading(2, 2, &[entrance(80, 6), entrance(81, 6)]),
        ]);
        let ports = |of, proto| {
            let found = groups.entrances_to(endpoint(of), proto);
            let mut ports: Vec<u16> = found.iter().map(|found| found.port).collect();
            ports.sort_unstable();
            ports
        };
        assert_eq!(ports(0, 6), [80, 81]);
        assert_eq!(ports(0, 17), [53]);
        assert_eq!(ports(1, 6), [80, 81]);
        assert_eq!(ports(2, 6), [0_u16; 0]);
    }

    #[test]
    fn a_change_to_one_group_leaves_the_others_shared() {
        let mut groups = Groups::default();
        let set = |id| GroupUpdate::Set(group(id, 1));
        groups.update(vec![set(1), set(2)]);
        let before = groups.clone();
        groups.update(vec![GroupUpdate::Remove(GroupId(1)), set(3)]);
        assert!(groups.get(GroupId(1)).is_none() && before.get(GroupId(1)).is_some());
        assert!(Arc::ptr_eq(&groups.0[2], &before.0[2]));
        let ids: Vec<u32> = groups.list().iter().map(|group| group.id.0).collect();
        assert_eq!(ids, [2, 3]);
    }
}
