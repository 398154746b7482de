use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use proptest::prelude::*;

use super::memory_store::MemoryStore;
use super::{Ipam, IpamConfig, IpamError, LeaseOwner};
use crate::store::{Bucket, Store, Write};

const REST: u64 = 60;

fn owner(name: &str) -> LeaseOwner {
    LeaseOwner {
        container_id: name.to_owned(),
        ifname: "eth0".parse().unwrap(),
    }
}

fn open(store: &Arc<MemoryStore>, cidrs: &[&str]) -> Ipam {
    try_open(store, cidrs).unwrap()
}

fn try_open(store: &Arc<MemoryStore>, cidrs: &[&str]) -> Result<Ipam, IpamError> {
    let pod_cidrs = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
    Ipam::new(
        store.clone(),
        &IpamConfig {
            pod_cidrs,
            rest: Duration::from_secs(REST),
        },
    )
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn dual_stack_owner_gets_one_address_per_family_after_the_gateway() {
    let ipam = open(&MemoryStore::shared(), &["10.1.2.0/24", "fd00:1::/64"]);
    assert_eq!(ipam.gateways(), [ip("10.1.2.1"), ip("fd00:1::1")]);
    let granted = ipam.allocate(&owner("a"), &[], 0).unwrap();
    assert_eq!(granted, nets(&["10.1.2.2/24", "fd00:1::2/64"]));
    assert_eq!(
        ipam.allocate(&owner("b"), &[], 0).unwrap(),
        nets(&["10.1.2.3/24", "fd00:1::3/64"])
    );
}

#[test]
fn same_owner_gets_the_same_addresses_again() {
    let store = MemoryStore::shared();
    let ipam = open(&store, &["10.1.2.0/24"]);
    let granted = ipam.allocate(&owner("a"), &[], 0).unwrap();
    assert_eq!(ipam.allocate(&owner("a"), &[], 9).unwrap(), granted);
    assert_eq!(
        open(&store, &["10.1.2.0/24"])
            .allocate(&owner("a"), &[], 99)
            .unwrap(),
        granted
    );
    let wider = open(&store, &["10.1.2.0/24", "fd00::/64"]);
    assert_eq!(
        wider.allocate(&owner("a"), &[], 99).unwrap(),
        nets(&["10.1.2.2/24", "fd00::2/64"])
    );
}

#[test]
fn released_address_is_used_again_last_also_after_a_restart() {
    let store = MemoryStore::shared();
    let ipam = open(&store, &["10.1.2.0/29"]);
    ipam.allocate(&owner("a"), &[], 0).unwrap();
    ipam.release(&owner("a"), 0).unwrap();
    let ipam = open(&store, &["10.1.2.0/29"]);
    let mut granted = Vec::new();
    for name in ["b", "c", "d", "e", "f"] {
        granted.extend(ipam.allocate(&owner(name), &[], REST + 1).unwrap());
    }
    let expected = [
        "10.1.2.3/29",
        "10.1.2.4/29",
        "10.1.2.5/29",
        "10.1.2.6/29",
        "10.1.2.2/29",
    ];
    assert_eq!(granted, nets(&expected));
    assert!(
        !store
            .keys(Bucket::Leases)
            .contains(&"rest/10.1.2.2".to_owned())
    );
}

#[test]
fn exhausted_pool_says_when_to_try_again() {
    let ipam = open(&MemoryStore::shared(), &["10.1.2.0/30"]);
    ipam.allocate(&owner("a"), &[], 100).unwrap();
    let full = ipam
        .allocate(&owner("b"), &[], 100)
        .unwrap_err()
        .to_string();
    assert_eq!(
        full,
        "pool 10.1.2.0/30 exhausted: 1 leased, no address is about to be released"
    );
    ipam.release(&owner("a"), 100).unwrap();
    let resting = ipam
        .allocate(&owner("b"), &[], 110)
        .unwrap_err()
        .to_string();
    assert_eq!(
        resting,
        "pool 10.1.2.0/30 exhausted: 0 leased, 1 resting, try again in 50 s"
    );
    assert!(ipam.check_room(159).is_err());
    ipam.check_room(160).unwrap();
    assert_eq!(
        ipam.allocate(&owner("b"), &[], 160).unwrap(),
        nets(&["10.1.2.2/30"])
    );
}

#[test]
fn clock_that_jumps_back_does_not_lose_resting_addresses() {
    let store = MemoryStore::shared();
    let ipam = open(&store, &["10.1.2.0/30"]);
    ipam.allocate(&owner("a"), &[], 2_000_000_000).unwrap();
    ipam.release(&owner("a"), 2_000_000_000).unwrap();
    let ipam = open(&store, &["10.1.2.0/30"]);
    assert!(ipam.allocate(&owner("b"), &[], 5).is_err());
    ipam.allocate(&owner("b"), &[], 5 + REST).unwrap();
}

#[test]
fn requested_address_is_given_or_refused_with_the_reason() {
    let ipam = open(&MemoryStore::shared(), &["10.1.2.0/24", "fd00::/64"]);
    let want = |name: &str, addresses: &[&str]| {
        let addresses: Vec<_> = addresses.iter().map(|text| ip(text)).collect();
        ipam.allocate(&owner(name), &addresses, 0)
    };
    assert_eq!(
        want("a", &["10.1.2.77"]).unwrap(),
        nets(&["10.1.2.77/24", "fd00::2/64"])
    );
    assert_eq!(
        want("a", &["10.1.2.77"]).unwrap(),
        nets(&["10.1.2.77/24", "fd00::2/64"])
    );
    assert!(matches!(
        want("a", &["10.1.2.78"]),
        Err(IpamError::Conflict { .. })
    ));
    assert!(matches!(
        want("b", &["10.1.2.77"]),
        Err(IpamError::InUse { .. })
    ));
    for unusable in [
        "10.1.2.0",
        "10.1.2.1",
        "10.1.2.255",
        "10.1.3.1",
        "fd00::",
        "fd00::1",
        "::1",
    ] {
        let refused = want("b", &[unusable]);
        assert!(
            matches!(refused, Err(IpamError::Unusable { .. })),
            "{unusable} {refused:?}"
        );
    }
    assert!(matches!(
        want("b", &["10.1.2.5", "10.1.2.6"]),
        Err(IpamError::Unusable { .. })
    ));
    assert_eq!(ipam.leases().len(), 2, "refusals lease nothing");
}

#[test]
fn requested_address_does_not_rest() {
    let ipam = open(&MemoryStore::shared(), &["10.1.2.0/24"]);
    ipam.allocate(&owner("a"), &[ip("10.1.2.9")], 0).unwrap();
    ipam.release(&owner("a"), 0).unwrap();
    ipam.allocate(&owner("b"), &[ip("10.1.2.9")], 1).unwrap();
    assert_eq!(ipam.held_by(&owner("b")), [ip("10.1.2.9")]);
}

#[test]
fn lease_that_could_not_be_written_was_never_given() {
    let store = MemoryStore::shared();
    let ipam = open(&store, &["10.1.2.0/24"]);
    store.set_failing(true);
    assert!(matches!(
        ipam.allocate(&owner("a"), &[], 0),
        Err(IpamError::Store { .. })
    ));
    assert!(ipam.leases().is_empty());
    store.set_failing(false);
    ipam.allocate(&owner("a"), &[], 0).unwrap();
    store.set_failing(true);
    assert!(ipam.release(&owner("a"), 0).is_err());
    assert_eq!(ipam.leases().len(), 1);
}

#[test]
fn retain_releases_all_others() {
    let ipam = open(&MemoryStore::shared(), &["10.1.2.0/24"]);
    for name in ["a", "b", "c"] {
        ipam.allocate(&owner(name), &[], 0).unwrap();
    }
    let released = ipam.retain(|known| *known == owner("b"), 0).unwrap();
    assert_eq!(released, [ip("10.1.2.2"), ip("10.1.2.4")]);
    assert_eq!(
        ipam.leases()
            .iter()
            .map(|l| l.owner.clone())
            .collect::<Vec<_>>(),
        [owner("b")]
    );
}

#[test]
fn damaged_records_are_reported_and_their_addresses_not_given_away() {
    let store = MemoryStore::shared();
    let put = |key: &str, value: &str| Write::Put(Bucket::Leases, key.into(), value.into());
    let records = vec![
        put("lease/10.1.2.2", "{\"container_id\""),
        put(
            "lease/10.1.2.3",
            r#"{"container_id":"a","ifname":"a/b","leased_at":1}"#,
        ),
        put("lease/nonsense", "{}"),
        put("rest/10.1.2.4", "7"),
        put("cursor/10.1.2.0/24", "{}"),
        put("what", "x"),
    ];
    store.commit(records).unwrap();
    let ipam = open(&store, &["10.1.2.0/24"]);
    assert_eq!(ipam.damaged().len(), 5, "{:?}", ipam.damaged());
    assert_eq!(
        ipam.allocate(&owner("b"), &[], 0).unwrap(),
        nets(&["10.1.2.5/24"])
    );
    assert!(ipam.allocate(&owner("c"), &[ip("10.1.2.2")], 0).is_err());
    ipam.adopt(&owner("c"), &[ip("10.1.2.2")], 0).unwrap();
    assert_eq!(ipam.held_by(&owner("c")), [ip("10.1.2.2")]);
    assert!(ipam.adopt(&owner("d"), &[ip("10.1.2.2")], 0).is_err());
    ipam.retain(|known| [owner("b"), owner("c")].contains(known), 0)
        .unwrap();
    ipam.allocate(&owner("d"), &[ip("10.1.2.3")], 0).unwrap();
}

#[test]
fn cidrs_without_room_for_pods_are_refused() {
    let unusable = [
        "10.0.0.0/31",
        "10.0.0.1/32",
        "fd00::/127",
        "0.0.0.0/0",
        "224.0.0.0/24",
        "::/0",
    ];
    for cidr in unusable {
        let refused = try_open(&MemoryStore::shared(), &[cidr]);
        assert!(matches!(refused, Err(IpamError::Config { .. })), "{cidr}");
    }
    let twice = try_open(&MemoryStore::shared(), &["10.0.0.0/24", "10.0.1.0/24"]);
    assert!(matches!(twice, Err(IpamError::Config { .. })));
}

#[derive(Debug, Clone)]
enum Step {
    Allocate(u8, Option<u8>),
    Release(u8),
    Retain(u8),
    Restart,
    Wait(u64),
    FailNextCommit(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..12u8, proptest::option::weighted(0.2, 0..16u8)).prop_map(|(o, a)| Step::Allocate(o, a)),
        4 => (0..12u8).prop_map(Step::Release),
        1 => (0..12u8).prop_map(Step::Retain),
        1 => Just(Step::Restart),
        2 => (0..REST * 2).prop_map(Step::Wait),
        1 => (0..12u8).prop_map(Step::FailNextCommit),
    ]
}

/// What the model knows: who holds what, and when each address was released.
#[derive(Default)]
struct Model {
    held: BTreeMap<IpAddr, LeaseOwner>,
    released_at: BTreeMap<IpAddr, u64>,
}

impl Model {
    fn grant(&mut self, who: &LeaseOwner, granted: &[IpNet], requested: Option<IpAddr>, now: u64) {
        for net in granted {
            let address = net.addr();
            let is_broadcast = address.is_ipv4() && net.broadcast() == address;
            assert!(
                net.network() != address && !is_broadcast,
                "{address} reserved"
            );
            let holder = self.held.insert(address, who.clone());
            assert!(
                holder.is_none() || holder.as_ref() == Some(who),
                "{address} assigned twice"
            );
            if holder.is_none() && requested != Some(address) {
                let rested = self
                    .released_at
                    .get(&address)
                    .is_none_or(|at| at + REST <= now);
                assert!(rested, "{address} did not rest");
            }
        }
    }

    fn release(&mut self, is_released: impl Fn(&LeaseOwner) -> bool, now: u64) {
        let gone: Vec<_> = self
            .held
            .iter()
            .filter(|(_, o)| is_released(o))
            .map(|(a, _)| *a)
            .collect();
        for address in gone {
            self.held.remove(&address);
            self.released_at.insert(address, now);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_address_is_ever_assigned_twice_or_before_it_rested(steps in prop::collection::vec(step(), 1..120)) {
        let cidrs = ["10.9.0.0/28", "fd09::/124"];
        let store = MemoryStore::shared();
        let mut ipam = open(&store, &cidrs);
        let mut model = Model::default();
        let mut now = 1_000;
        for step in steps {
            match step {
                Step::Allocate(who, wanted) => {
                    let who = owner(&who.to_string());
                    let wanted = wanted.map(|host| ip(&format!("10.9.0.{host}")));
                    if let Ok(granted) = ipam.allocate(&who, wanted.as_slice(), now) {
                        prop_assert_eq!(granted.len(), 2);
                        model.grant(&who, &granted, wanted, now);
                    }
                }
                Step::Release(who) => {
                    let who = owner(&who.to_string());
                    ipam.release(&who, now).unwrap();
                    model.release(|holder| *holder == who, now);
                }
                Step::Retain(who) => {
                    let who = owner(&who.to_string());
                    ipam.retain(|known| *known == who, now).unwrap();
                    model.release(|holder| *holder != who, now);
                }
                Step::Restart => ipam = open(&store, &cidrs),
                Step::Wait(seconds) => now += seconds,
                Step::FailNextCommit(who) => {
                    store.set_failing(true);
                    let who = owner(&who.to_string());
                    if let Ok(granted) = ipam.allocate(&who, &[], now) {
                        model.grant(&who, &granted, None, now);
                    }
                    store.set_failing(false);
                }
            }
            let leases: BTreeMap<_, _> =
                ipam.leases().into_iter().map(|lease| (lease.address, lease.owner)).collect();
            prop_assert_eq!(&leases, &model.held);
        }
    }
}
