//! The difference between what ought to be installed and what is, as one transaction.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use vswitch_datapath::flow::SetName;
use vswitch_datapath::pipeline::{PortUpdate, SetUpdate, Transaction};

use super::desired::Desired;

/// Returns what turns `installed` into `desired`; empty if they are the same.
#[must_use]
pub fn plan(desired: &Desired, installed: &Desired) -> Transaction {
    let gone = installed
        .rules
        .keys()
        .filter(|id| !desired.rules.contains_key(id));
    let differing = desired
        .rules
        .iter()
        .filter(|(id, rule)| installed.rules.get(id) != Some(rule));
    Transaction {
        remove_rules: gone.copied().collect(),
        add_rules: differing.map(|(_, rule)| rule.clone()).collect(),
        sets: set_updates(desired, installed),
        ports: port_updates(desired, installed),
        forget_addresses: changed_hands(desired, installed),
    }
}

/// Returns whether the transaction changes nothing.
pub(super) fn is_empty(changes: &Transaction) -> bool {
    *changes == Transaction::default()
}

fn set_updates(desired: &Desired, installed: &Desired) -> Vec<(SetName, SetUpdate)> {
    let mut updates = Vec::new();
    for (name, members) in &desired.sets {
        match installed.sets.get(name) {
            None => {
                let all = members.iter().copied().collect();
                updates.push((name.clone(), SetUpdate::Replace(all)));
            }
            Some(before) => member_updates(name, members, before, &mut updates),
        }
    }
    let gone = installed
        .sets
        .keys()
        .filter(|name| !desired.sets.contains_key(name));
    updates.extend(gone.map(|name| (name.clone(), SetUpdate::Delete)));
    updates
}

fn member_updates(
    name: &SetName,
    members: &BTreeSet<IpNet>,
    before: &BTreeSet<IpNet>,
    updates: &mut Vec<(SetName, SetUpdate)>,
) {
    let removed: Vec<IpNet> = before.difference(members).copied().collect();
    if !removed.is_empty() {
        updates.push((name.clone(), SetUpdate::Remove(removed)));
    }
    let added: Vec<IpNet> = members.difference(before).copied().collect();
    if !added.is_empty() {
        updates.push((name.clone(), SetUpdate::Add(added)));
    }
}

fn port_updates(desired: &Desired, installed: &Desired) -> Vec<PortUpdate> {
    let is_kept = |no, container_id: &str| {
        desired
            .ports
            .get(no)
            .is_some_and(|port| port.container_id == container_id)
    };
    let gone = installed
        .ports
        .iter()
        .filter(|(no, port)| !is_kept(no, &port.container_id));
    let differing = desired
        .ports
        .iter()
        .filter(|(no, port)| installed.ports.get(no) != Some(port));
    // A number that passes to another container is removed first, with its connections.
    let removals = gone.map(|(no, _)| PortUpdate::Remove(*no));
    removals
        .chain(differing.map(|(_, port)| PortUpdate::Upsert(port.spec.clone())))
        .collect()
}

/// Addresses that had an owner and have none or another now.
fn changed_hands(desired: &Desired, installed: &Desired) -> Vec<IpAddr> {
    let changed = installed
        .owners
        .iter()
        .filter(|(ip, owner)| desired.owners.get(ip) != Some(owner));
    changed.map(|(ip, _)| *ip).collect()
}
