//! A policy of the cluster read from its JSON, with what of it is not understood.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::direction::Direction;
use super::super::json::{self, PartError};
use super::super::tiers::{
    Case, Demand, Flaw, Position, SetPrefix, TieredPolicy, TieredRule, Traffic, Transport,
};
use super::form::{Form, Level};
use super::peer::{self, ClusterPeer};
use crate::state::{ClusterPolicyKey, ClusterPolicyKind, ClusterPolicyRecord, PolicyKey};

/// Returns what of the spec of a policy of this kind is not understood, and therefore fails closed.
#[must_use]
pub fn flaws(kind: ClusterPolicyKind, spec: &Value) -> Vec<Flaw> {
    let record = ClusterPolicyRecord {
        key: ClusterPolicyKey {
            kind,
            name: String::new(),
        },
        spec: spec.clone(),
        mode: None,
    };
    parse(&record).map_or_else(|flaws| flaws, |policy| policy.flaws)
}

/// Reads a policy.
///
/// # Errors
/// What makes that nobody knows whom it concerns, or when: such a policy does nothing.
pub(in super::super) fn parse(record: &ClusterPolicyRecord) -> Result<TieredPolicy, Vec<Flaw>> {
    let ClusterPolicyRecord { key, spec, .. } = record;
    let form = Form::of(key.kind);
    let mut flaws = Vec::new();
    let level = (form.level)(spec, &mut flaws);
    let subject = noted(peer::pods(&spec["subject"], form), "subject", &mut flaws);
    let (Some(level), Some(subject)) = (level, subject) else {
        return Err(flaws);
    };
    // What a field means that stands beside the rules is beyond guessing.
    if let Err(error) = json::object(spec, form.fields) {
        flaws.push(("spec".to_owned(), error.to_string()));
    }
    // Equal priorities: by name, then by kind. No name has a space.
    let text = format!("{} {}", key.name, key.kind.name());
    let key = PolicyKey::ClusterPolicy(key.clone());
    let mut rules = |direction: Direction| {
        let written = &spec[direction.name()];
        Some(rules(written, direction, (form, &key), &mut flaws))
    };
    let (ingress, egress) = (rules(Direction::Ingress), rules(Direction::Egress));
    let Level {
        tier,
        place,
        order,
        order_text,
    } = level;
    Ok(TieredPolicy {
        position: Position::new(place, order, text, None),
        tier: tier.to_owned(),
        order: order_text,
        accept: form.accept,
        tier_denies: false,
        subject: subject.into(),
        ingress,
        egress,
        flaws,
        key,
    })
}

/// Returns what was read, or notes why it was not understood.
pub(super) fn noted<T>(read: Result<T, PartError>, part: &str, flaws: &mut Vec<Flaw>) -> Option<T> {
    read.map_err(|error| flaws.push((part.to_owned(), error.to_string())))
        .ok()
}

fn rules(
    written: &Value,
    direction: Direction,
    (form, key): (&Form, &PolicyKey),
    flaws: &mut Vec<Flaw>,
) -> Vec<TieredRule> {
    TieredRule::listed(written, direction, flaws, |written, part, flaws| {
        rule(written, part, (direction, form, key), flaws)
    })
}

fn rule(
    written: &Value,
    part: &str,
    (direction, form, key): (Direction, &Form, &PolicyKey),
    flaws: &mut Vec<Flaw>,
) -> TieredRule {
    let action = match form.action(&written["action"]) {
        Ok(action) => action,
        Err(error) => {
            flaws.push((format!("{part}.action"), error.to_string()));
            return TieredRule::DENY_ALL;
        }
    };
    let before = flaws.len();
    let field = direction.peers_field();
    if let Err(error) = json::object(written, &["name", "action", field, form.transports]) {
        flaws.push((part.to_owned(), error.to_string()));
    }
    let peers = listed(
        &written[field],
        &format!("{part}.{field}"),
        flaws,
        |value| peer::peers(value, direction, form),
    );
    let transports = match &written[form.transports] {
        Value::Null => vec![(String::new(), Transport::ANY)],
        list => {
            let read = |value: &Value| (form.transport)(value).map(|transport| vec![transport]);
            let listed = listed(list, &format!("{part}.{}", form.transports), flaws, read);
            let below = listed.into_iter();
            below
                .map(|(of, transport)| (of.replacen(part, "", 1), transport))
                .collect()
        }
    };
    if flaws.len() > before {
        return TieredRule::closed(action);
    }
    let mut cases = Vec::new();
    let mut networks = BTreeSet::new();
    let mut case = |part: String, peer: Demand| {
        cases.push(Case {
            part,
            subject: Demand::Anyone,
            peer,
            transports: transports.clone(),
        });
    };
    for (of, peer) in peers {
        let below = of.replacen(part, "", 1);
        match peer {
            ClusterPeer::Pods(pods) => case(below, Demand::Members(pods.into())),
            ClusterPeer::Nodes(nodes) => case(below, Demand::Nodes(nodes)),
            ClusterPeer::Network(network) => {
                networks.insert(network);
            }
        }
    }
    if !networks.is_empty() {
        // One set for all: a list of 500 partners is one rule.
        let place = part.replace('[', "/").replace(']', "");
        let within = SetPrefix(key).networks(format_args!("{place}/{field}"), networks);
        case(format!(".{field}"), Demand::Networks(within));
    }
    TieredRule {
        action,
        traffic: Traffic::In(cases),
    }
}

/// Reads the items of a list, each into some values under its part of the policy.
fn listed<T>(
    list: &Value,
    part: &str,
    flaws: &mut Vec<Flaw>,
    read: impl Fn(&Value) -> Result<Vec<T>, PartError>,
) -> Vec<(String, T)> {
    let items = match json::items(list) {
        Ok(items) => items,
        Err(error) => {
            flaws.push((part.to_owned(), error.to_string()));
            return Vec::new();
        }
    };
    let mut found = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let part = format!("{part}[{index}]");
        match read(item) {
            Ok(values) => found.extend(values.into_iter().map(|value| (part.clone(), value))),
            Err(error) => flaws.push((part, error.to_string())),
        }
    }
    found
}
