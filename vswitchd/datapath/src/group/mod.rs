//! Load-balancing groups: the endpoints that a Service's connections are spread over.
//!
//! A rule of the ServiceLb table names a group by its number; a walk asks it for an endpoint
//! once for each new connection, which keeps it from there on. Choosing costs the same
//! whatever the number of endpoints, and the same connection always chooses the same one as
//! long as the group has the same endpoints: workers need not agree on anything.

mod affinity;
mod expected;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;
use smallvec::SmallVec;

use crate::fixed_hash::mix;
use crate::flow::FlowKey;

pub(crate) use affinity::AffinityTable;
pub(crate) use expected::ExpectedEndpoints;

/// Number of a group, as in `group:7`; never used again for another group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u32);

/// Where a connection may go: one bucket of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// Its address.
    pub ip: IpAddr,
    /// Its port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::net::SocketAddr::new(self.ip, self.port).fmt(f)
    }
}

/// A group of endpoints. A clone shares them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its number.
    pub id: GroupId,
    /// What it is for, for people: `namespace/service:port/protocol`.
    pub name: Arc<str>,
    /// Where new connections go; each as likely as the others.
    pub endpoints: Arc<[Endpoint]>,
    /// Addresses and ports that lead here.
    pub entrances: Arc<[ServiceAddress]>,
    /// How long a client keeps its endpoint after its last new connection; `None`: not at all.
    pub affinity: Option<Duration>,
    /// The source that connections get which would go back to where they came from: a pod
    /// must not see packets from itself, nor the node from its own addresses.
    pub hairpin_source: IpAddr,
}

impl Group {
    /// Returns the endpoint for a new connection; `None` if there are none.
    pub(crate) fn select(&self, key: &FlowKey) -> Option<Endpoint> {
        let hash = flow_hash(key);
        let count = u64::try_from(self.endpoints.len()).ok()?;
        // Scales the hash to the count instead of dividing: as even, and cheaper.
        let at = (u128::from(hash) * u128::from(count)) >> 64;
        self.endpoints.get(usize::try_from(at).ok()?).copied()
    }

    /// Returns whether new connections may go there.
    pub(crate) fn has(&self, endpoint: Endpoint) -> bool {
        self.endpoints.contains(&endpoint)
    }
}

/// Hashes what tells connections apart. Without a seed: a client that picks its ports so that
/// all its connections meet at one endpoint gains nothing over connecting there.
fn flow_hash(key: &FlowKey) -> u64 {
    let address = |hash: u64, ip: Option<IpAddr>| match ip {
        Some(IpAddr::V4(ip)) => mix(hash, u64::from(ip.to_bits())),
        Some(IpAddr::V6(ip)) => {
            let bits = ip.to_bits();
            #[expect(clippy::cast_possible_truncation, reason = "takes the halves apart")]
            let (high, low) = ((bits >> 64) as u64, bits as u64);
            mix(mix(hash, high), low)
        }
        None => hash,
    };
    let ports = u64::from(key.tp_src) << 32 | u64::from(key.tp_dst) << 16;
    let hash = mix(
        address(address(0, key.ip_src), key.ip_dst),
        ports | u64::from(key.ip_proto),
    );
    // Once more: clients take one port after the other, and one round leaves the topmost bits,
    // which choose, nearly alike for neighbours.
    mix(hash, 0)
}

/// A change to one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupUpdate {
    /// Add it or replace what is known of it.
    Set(Group),
    /// Forget it; rules that still name it drop.
    Remove(GroupId),
}

/// A Service's endpoint that its connections may no longer use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LostEndpoint {
    /// IP protocol.
    pub proto: u8,
    /// Address and port that clients connect to.
    pub service: Endpoint,
    /// Where they were sent.
    pub endpoint: Endpoint,
}

/// An address and port that Services have: connections to it are translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceAddress {
    /// IP protocol.
    pub proto: u8,
    /// Address and port that clients connect to.
    pub service: Endpoint,
}

/// Addresses and ports that lead to one endpoint.
pub(crate) type Entrances = SmallVec<[Endpoint; 4]>;

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
    use super::*;

    fn endpoint(number: usize) -> Endpoint {
        let host = u8::try_from(number).unwrap();
        Endpoint {
            ip: IpAddr::from([10, 0, 0, host]),
            port: 8080,
        }
    }

    fn group(endpoints: usize) -> Group {
        Group {
            id: GroupId(7),
            name: "default/web:80/TCP".into(),
            endpoints: (0..endpoints).map(endpoint).collect(),
            entrances: [].into(),
            affinity: None,
            hairpin_source: IpAddr::from([169, 254, 86, 1]),
        }
    }

    fn key(client: u8, port: u16) -> FlowKey {
        FlowKey {
            ip_proto: 6,
            ip_src: Some(IpAddr::from([10, 1, 0, client])),
            ip_dst: Some(IpAddr::from([10, 96, 0, 1])),
            tp_src: port,
            tp_dst: 80,
            ..FlowKey::default()
        }
    }

    /// 100,000 connections as clients make them: few clients, ports in sequence.
    #[test]
    fn connections_spread_evenly_over_the_endpoints() {
        for endpoints in [2, 3, 20, 100] {
            let group = group(endpoints);
            let mut counts = vec![0_u32; endpoints];
            for (client, port) in (0..4).flat_map(|client| (0..25_000).map(move |p| (client, p))) {
                let chosen = group.select(&key(client, 32_768 + port)).unwrap();
                let at = group.endpoints.iter().position(|e| *e == chosen).unwrap();
                counts[at] += 1;
            }
            let mean = 100_000.0 / f64::from(u32::try_from(endpoints).unwrap());
            // Six standard deviations of a fair choice.
            let bound = 6.0 * mean.sqrt();
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            println!("{endpoints} endpoints: mean {mean}, {least} to {most}");
            assert!(
                (f64::from(*least) - mean).abs() < bound,
                "{least} of {mean}"
            );
            assert!((f64::from(*most) - mean).abs() < bound, "{most} of {mean}");
        }
    }

    /// Kernels hand out every port, or every other one.
    #[test]
    fn a_few_connections_in_a_row_spread_as_well() {
        let group = group(2);
        for (client, step) in (0..20).flat_map(|client| [(client, 1), (client, 2)]) {
            let ports = (0..32).map(|nth| 40_000 + nth * step);
            let first = ports.filter(|port| {
                let chosen = group.select(&key(client, *port));
                chosen == group.endpoints.first().copied()
            });
            let first = first.count();
            assert!(
                (5..=27).contains(&first),
                "{first} of 32 from {client} by {step}"
            );
        }
    }

    #[test]
    fn a_group_without_endpoints_chooses_none() {
        assert_eq!(group(0).select(&key(0, 1)), None);
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
                id: GroupId(id),
                entrances: entrances.into(),
                ..group(endpoints)
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
        let set = |id| {
            GroupUpdate::Set(Group {
                id: GroupId(id),
                ..group(1)
            })
        };
        groups.update(vec![set(1), set(2)]);
        let before = groups.clone();
        groups.update(vec![GroupUpdate::Remove(GroupId(1)), set(3)]);
        assert!(groups.get(GroupId(1)).is_none() && before.get(GroupId(1)).is_some());
        assert!(Arc::ptr_eq(&groups.0[2], &before.0[2]));
        let ids: Vec<u32> = groups.list().iter().map(|group| group.id.0).collect();
        assert_eq!(ids, [2, 3]);
    }
}
