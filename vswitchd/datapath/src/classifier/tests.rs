//! The classifier against a scan of all rules.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use proptest::prelude::*;
use vswitch_api::{MacAddr, PortNo, Priority};

use super::set_counts::SetCounts;
use super::*;
use crate::address_set::{SetId, SetIds};
use crate::flow::{
    AddressMatch, CtState, CtStateMatch, FlowKey, Match, PortClass, PortRange, SetName,
};

/// Sets 0 to 3 are 10.0.0.x with x a multiple of 2, 3, 4 or anything.
fn is_in_set(set: u32, address: IpAddr) -> bool {
    let IpAddr::V4(v4) = address else {
        return set == 3;
    };
    let last = v4.octets()[3];
    [last % 2 == 0, last % 3 == 0, last % 4 == 0, true][set as usize]
}

fn set_id(SetName(name): &SetName) -> SetId {
    SetId(name.parse().unwrap())
}

fn sets_of(address: Option<IpAddr>) -> SetIds<'static> {
    let Some(address) = address else {
        return SetIds::default();
    };
    let sets = (0..4).filter(|set| is_in_set(*set, address));
    SetIds::Merged(sets.map(SetId).collect())
}

/// The reference: what match.rs documents, field by field.
fn matches(m: &Match, key: &FlowKey) -> bool {
    fn is<T: PartialEq>(wanted: Option<T>, value: T) -> bool {
        wanted.is_none_or(|wanted| wanted == value)
    }
    let address = |wanted: &Option<AddressMatch>, value: Option<IpAddr>| match (wanted, value) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(AddressMatch::Net(net)), Some(value)) => net.contains(&value),
        (Some(AddressMatch::Set(name)), Some(value)) => is_in_set(set_id(name).0, value),
    };
    let range = |wanted: Option<PortRange>, value: u16| {
        wanted.is_none_or(|wanted| wanted.first <= value && value <= wanted.last)
    };
    is(m.in_port, key.in_port)
        && is(m.out_port, key.out_port)
        && is(m.class, key.class)
        && is(m.eth_src, key.eth_src)
        && is(m.eth_dst, key.eth_dst)
        && is(m.vlan_tci, key.vlan_tci)
        && is(m.is_tagged, key.vlan_tci & 0x1000 != 0)
        && is(m.eth_type, key.eth_type)
        && is(m.ip_proto, key.ip_proto)
        && is(m.is_later_fragment, key.is_later_fragment)
        && is(m.arp_sha, key.arp_sha)
        && m.nd_target
            .is_none_or(|target| key.nd_target == Some(target))
        && address(&m.ip_src, key.ip_src)
        && address(&m.ip_dst, key.ip_dst)
        && range(m.tp_src, key.tp_src)
        && range(m.tp_dst, key.tp_dst)
        && m.ct_state
            .is_none_or(|s| key.ct_state.0 & s.mask.0 == s.value.0 & s.mask.0)
}

fn build(prefer: PreferredAnchor, rules: &[(Priority, Match)]) -> Classifier<usize> {
    let mut classifier = Classifier::new(prefer);
    for (id, (priority, m)) in rules.iter().enumerate() {
        if let Some(compiled) = CompiledMatch::compile(m, set_id) {
            classifier.insert(Rank::new(*priority, id as u64), &compiled, Arc::new(id));
        }
    }
    classifier
}

fn scan(rules: &[(Priority, Match)], key: &FlowKey) -> Vec<usize> {
    let mut found: Vec<_> = rules
        .iter()
        .enumerate()
        .filter(|(_, (_, m))| matches(m, key))
        .collect();
    found.sort_by_key(|(id, (priority, _))| (Reverse(*priority), *id));
    found.into_iter().map(|(id, _)| id).collect()
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        4 => (0u8..13).prop_map(|last| IpAddr::from([10, 0, 0, last])),
        1 => (0u16..3).prop_map(|last| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last])),
    ]
}

fn any_address_match() -> impl Strategy<Value = AddressMatch> {
    prop_oneof![
        (any_address(), 0u8..=32)
            .prop_map(|(a, len)| AddressMatch::Net(IpNet::new(a, len).unwrap().trunc())),
        (any_address()).prop_map(|a| AddressMatch::Net(IpNet::from(a))),
        (0u32..4).prop_map(|set| AddressMatch::Set(SetName(set.to_string().as_str().into()))),
    ]
}

fn any_range() -> impl Strategy<Value = PortRange> {
    prop_oneof![
        (0u16..6).prop_map(|port| PortRange {
            first: port,
            last: port
        }),
        (0u16..6, 0u16..6).prop_map(|(first, last)| PortRange { first, last }),
        Just(PortRange {
            first: 0,
            last: u16::MAX
        }),
    ]
}

/// Few distinct values, mostly wildcards: rules have to collide with keys and each other.
fn sometimes<T: std::fmt::Debug + Clone + 'static>(
    values: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<Option<T>> {
    proptest::option::weighted(0.25, values).boxed()
}

fn any_mac() -> impl Strategy<Value = MacAddr> + Clone {
    (0u8..2).prop_map(|last| MacAddr([2, 0, 0, 0, 0, last]))
}

fn any_match() -> impl Strategy<Value = Match> {
    let port = || sometimes((0u32..2).prop_map(PortNo));
    let state = sometimes((any::<u8>(), any::<u8>())).prop_map(|state| {
        state.map(|(value, mask)| CtStateMatch {
            value: CtState(value),
            mask: CtState(mask & 0x29),
        })
    });
    (
        (
            port(),
            port(),
            sometimes(proptest::sample::select(&PortClass::ALL[..2])),
        ),
        (
            sometimes(any_mac()),
            sometimes(any_mac()),
            sometimes(any_mac()),
        ),
        (
            sometimes(Just(0x1001u16)),
            sometimes(any::<bool>()),
            sometimes(any::<bool>()),
        ),
        (sometimes(Just(0x0800u16)), sometimes(0u8..2)),
        (
            sometimes(any_address_match()),
            sometimes(any_address_match()),
        ),
        (sometimes(any_range()), sometimes(any_range())),
        state,
        sometimes((0u16..2).prop_map(|last| [0xfd00, 0, 0, 0, 0, 0, 0, last].into())),
    )
        .prop_map(
            |(ports, macs, flags, types, addresses, ranges, ct_state, nd_target)| Match {
                in_port: ports.0,
                out_port: ports.1,
                class: ports.2,
                eth_src: macs.0,
                eth_dst: macs.1,
                arp_sha: macs.2,
                vlan_tci: flags.0,
                is_tagged: flags.1,
                is_later_fragment: flags.2,
                eth_type: types.0,
                ip_proto: types.1,
                ip_src: addresses.0,
                ip_dst: addresses.1,
                tp_src: ranges.0,
                tp_dst: ranges.1,
                ct_state,
                nd_target,
            },
        )
}

fn any_key() -> impl Strategy<Value = FlowKey> {
    (
        (
            0u32..2,
            0u32..2,
            proptest::sample::select(&PortClass::ALL[..2]),
        ),
        (any_mac(), any_mac(), any_mac()),
        (
            proptest::sample::select(vec![0u16, 0x1001, 0x1002]),
            any::<bool>(),
        ),
        (proptest::sample::select(vec![0x0800u16, 0x0806]), 0u8..2),
        (
            proptest::option::of(any_address()),
            proptest::option::of(any_address()),
        ),
        (0u16..6, 0u16..6, any::<u8>()),
        proptest::option::of(0u16..2),
    )
        .prop_map(|(ports, macs, vlan, types, ips, tp, nd)| FlowKey {
            in_port: PortNo(ports.0),
            out_port: PortNo(ports.1),
            class: ports.2,
            eth_src: macs.0,
            eth_dst: macs.1,
            arp_sha: macs.2,
            vlan_tci: vlan.0,
            is_later_fragment: vlan.1,
            eth_type: types.0,
            ip_proto: types.1,
            ip_src: ips.0,
            ip_dst: ips.1,
            tp_src: tp.0,
            tp_dst: tp.1,
            ct_state: CtState(tp.2),
            nd_target: nd.map(|last| [0xfd00, 0, 0, 0, 0, 0, 0, last].into()),
            ..FlowKey::default()
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn lookup_finds_what_a_scan_of_all_rules_finds(
        rules in proptest::collection::vec(((0u16..4).prop_map(Priority), any_match()), 0..24),
        keys in proptest::collection::vec(any_key(), 1..6),
        prefer in proptest::sample::select(
            vec![PreferredAnchor::Source, PreferredAnchor::Destination]
        ),
    ) {
        let classifier = build(prefer, &rules);
        for key in keys {
            let member_of = Membership { src: sets_of(key.ip_src), dst: sets_of(key.ip_dst) };
            let packed = PackedKey::of(&key);
            let expected = scan(&rules, &key);
            let found = classifier.lookup(&packed, &member_of);
            prop_assert_eq!(found.map(|id| **id), expected.first().copied(), "{}", key);
            let all = classifier.lookup_all(&packed, &member_of);
            prop_assert_eq!(all.iter().map(|id| **id).collect::<Vec<_>>(), expected);
        }
    }

    /// What tables change of a key reaches its packed form.
    #[test]
    fn a_refreshed_key_is_packed_as_one_packed_anew(before in any_key(), after in any_key()) {
        let after = FlowKey {
            eth_type: before.eth_type,
            ip_src: before.ip_src,
            ip_dst: before.ip_dst,
            arp_sha: before.arp_sha,
            nd_target: before.nd_target,
            is_later_fragment: before.is_later_fragment,
            ..after
        };
        let mut packed = PackedKey::of(&before);
        packed.refresh(&after);
        prop_assert_eq!(packed, PackedKey::of(&after));
    }

    /// Rules come and go; the version in between still answers as it did.
    #[test]
    fn what_comes_and_goes_leaves_what_a_scan_of_the_rest_finds(
        rules in proptest::collection::vec(((0u16..4).prop_map(Priority), any_match()), 1..24),
        steps in proptest::collection::vec((any::<proptest::sample::Index>(), any::<bool>()), 1..60),
        keys in proptest::collection::vec(any_key(), 1..6),
        middle in any::<proptest::sample::Index>(),
    ) {
        let mut classifier = Classifier::new(PreferredAnchor::Destination);
        let mut present = vec![false; rules.len()];
        let mut kept = None;
        for (number, (index, is_there)) in steps.iter().enumerate() {
            let id = index.index(rules.len());
            let (priority, m) = &rules[id];
            let rank = Rank::new(*priority, id as u64);
            if let Some(compiled) = CompiledMatch::compile(m, set_id) {
                match (present[id], *is_there) {
                    (false, true) => classifier.insert(rank, &compiled, Arc::new(id)),
                    (_, false) => classifier.remove(rank, &compiled),
                    (true, true) => {}
                }
            }
            present[id] = *is_there;
            if number == middle.index(steps.len()) {
                kept = Some((classifier.clone(), present.clone()));
            }
        }
        for (classifier, present) in [(classifier, present)].into_iter().chain(kept) {
            for key in &keys {
                let member_of = Membership { src: sets_of(key.ip_src), dst: sets_of(key.ip_dst) };
                let packed = PackedKey::of(key);
                let expected: Vec<_> =
                    scan(&rules, key).into_iter().filter(|id| present[*id]).collect();
                let found = classifier.lookup(&packed, &member_of);
                prop_assert_eq!(found.map(|id| **id), expected.first().copied(), "{}", key);
                let all = classifier.lookup_all(&packed, &member_of);
                prop_assert_eq!(all.iter().map(|id| **id).collect::<Vec<_>>(), expected);
            }
        }
    }
}

fn compiled(text: &str) -> CompiledMatch {
    CompiledMatch::compile(&text.parse().unwrap(), set_id).unwrap()
}

#[test]
fn a_change_of_one_rule_among_thousands_copies_one_shard() {
    let mut classifier = Classifier::new(PreferredAnchor::Destination);
    let add = |classifier: &mut Classifier<u64>, id: u64| {
        let matches = compiled(&format!("nw_proto=6,ip_dst=@{id},tp_dst=80"));
        classifier.insert(Rank::new(Priority(1), id), &matches, Arc::new(id));
    };
    (0..10_000).for_each(|id| add(&mut classifier, id));
    let published = classifier.clone();
    add(&mut classifier, 10_000);
    let pairs = classifier.lanes.iter().zip(&published.lanes);
    let unlike = pairs.map(|(new, old)| new.subtable().shards_unlike(old.subtable()));
    assert_eq!(unlike.sum::<usize>(), 1);
}

#[test]
fn nothing_is_left_of_rules_that_went() {
    let texts = [
        "nw_proto=6,ip_dst=@1",
        "ip_src=@2",
        "ct_state=+new",
        "tp_dst=80",
    ];
    let mut classifier = Classifier::new(PreferredAnchor::Source);
    for (id, text) in texts.into_iter().enumerate() {
        let rank = Rank::new(Priority(1), id as u64);
        classifier.insert(rank, &compiled(text), Arc::new(()));
    }
    for (id, text) in texts.into_iter().enumerate() {
        classifier.remove(Rank::new(Priority(1), id as u64), &compiled(text));
    }
    assert!(classifier.lanes.is_empty());
    assert!(!classifier.tells_new_from_established());
}

#[test]
fn a_set_counts_as_long_as_a_rule_is_filed_under_it() {
    let mut counts = SetCounts::default();
    let (near, far) = (SetId(3), SetId(1_000));
    for set in [near, near, far] {
        counts.add(set);
    }
    counts.remove(near);
    assert!(counts.contains(near) && counts.contains(far) && !counts.contains(SetId(4)));
    counts.remove(near);
    counts.remove(far);
    assert!(!counts.contains(near) && !counts.contains(far));
}

#[test]
fn only_a_match_on_new_or_established_tells_packets_of_one_flow_apart() {
    let tells = |text: &str| {
        let rules = [(Priority(1), text.parse::<Match>().unwrap())];
        build(PreferredAnchor::Source, &rules).tells_new_from_established()
    };
    assert!(tells("ct_state=+trk+new"));
    assert!(tells("ct_state=-est"));
    assert!(!tells(
        "ct_state=+trk+rpl-inv,dl_src=02:00:00:00:00:ff,class=gateway"
    ));
}
