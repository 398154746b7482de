//! Takes a key through all tables, rule by rule, the datapath's own included.

use std::net::IpAddr;

use ipnet::IpNet;
use vswitch_api::{MacAddr, PortNo};
use vswitch_datapath::flow::{AddressMatch, CtState, FlowKey, Match, PortRange};
use vswitch_datapath::pipeline::{Rule, TableId, builtin_rules};
use vswitch_datapath::{Action, DropReason};

use crate::policy::tests::program::Program;

/// What became of the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Left through a port, to this MAC.
    Sent(PortNo, MacAddr),
    /// Answered with this MAC.
    Answered(MacAddr),
    Dropped(DropReason),
}

pub(super) fn walk(desired: &Program, mut key: FlowKey) -> Outcome {
    let mut rules = builtin_rules();
    rules.extend(desired.rules.values().cloned());
    let mut table = TableId::Classify;
    loop {
        if table == TableId::Conntrack && key.ct_state == CtState::default() {
            key.ct_state = CtState::TRK | CtState::NEW;
        }
        let rule =
            best(desired, &rules, table, &key).unwrap_or_else(|| panic!("{table:?} has no rule"));
        let mut next = None;
        for action in &rule.actions {
            match *action {
                Action::Goto(to) => next = Some(to),
                Action::SetClass(class) => key.class = class,
                Action::SetEthDst(mac) => key.eth_dst = mac,
                Action::SetOutPort(port) => key.out_port = port,
                Action::CtLookup | Action::CtCommit | Action::Mirror(_) => {}
                Action::Drop(reason) => return Outcome::Dropped(reason),
                Action::ArpReply(mac) | Action::NdAdvertise(mac) => return Outcome::Answered(mac),
                Action::Output => return Outcome::Sent(key.out_port, key.eth_dst),
                other => panic!("{table:?} does {other:?}"),
            }
        }
        let next = next.expect("a rule leads on or ends");
        assert!(next > table, "tables only go up");
        table = next;
    }
}

fn best<'a>(
    desired: &Program,
    rules: &'a [Rule],
    table: TableId,
    key: &FlowKey,
) -> Option<&'a Rule> {
    let in_table = rules.iter().filter(|rule| rule.table == table);
    let matching = in_table.filter(|rule| matches(desired, &rule.matches, key));
    matching.max_by_key(|rule| (rule.priority, std::cmp::Reverse(rule.id)))
}

fn matches(desired: &Program, m: &Match, key: &FlowKey) -> bool {
    fn is<T: PartialEq>(demand: Option<T>, value: T) -> bool {
        demand.is_none_or(|demand| demand == value)
    }
    let range =
        |demand: Option<PortRange>, v| demand.is_none_or(|r| (r.first..=r.last).contains(&v));
    is(m.in_port, key.in_port)
        && is(m.out_port, key.out_port)
        && is(m.class, key.class)
        && is(m.eth_src, key.eth_src)
        && is(m.eth_dst, key.eth_dst)
        && is(m.vlan_tci, key.vlan_tci)
        && is(m.is_tagged, key.vlan_tci != 0)
        && is(m.eth_type, key.eth_type)
        && is(m.ip_proto, key.ip_proto)
        && is(m.is_later_fragment, key.is_later_fragment)
        && is(m.arp_sha, key.arp_sha)
        && m.nd_target
            .is_none_or(|target| key.nd_target == Some(target))
        && range(m.tp_src, key.tp_src)
        && range(m.tp_dst, key.tp_dst)
        && m.ct_state
            .is_none_or(|ct| key.ct_state.0 & ct.mask.0 == ct.value.0)
        && address(desired, m.ip_src.as_ref(), key.ip_src)
        && address(desired, m.ip_dst.as_ref(), key.ip_dst)
}

fn address(desired: &Program, demand: Option<&AddressMatch>, ip: Option<IpAddr>) -> bool {
    let inside = |net: &IpNet| ip.is_some_and(|ip| net.contains(&ip));
    match demand {
        None => true,
        Some(AddressMatch::Net(net)) => inside(net),
        Some(AddressMatch::Set(name)) => desired.sets[name].iter().any(inside),
    }
}
