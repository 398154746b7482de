//! One of Calico's policies read from its JSON, with what of it is not understood or not served.

use serde_json::Value;

use super::ends::{Ends, Owner, optional_selector};
use super::transports::transports;
use crate::policy::direction::Direction;
use crate::policy::expression::{Expression, NAMESPACE, OF_ACCOUNT, OF_NAMESPACE, SERVICE_ACCOUNT};
use crate::policy::json::{self, PartError};
use crate::policy::peers::Members;
use crate::policy::tiers::{
    ADMIN, BASELINE, Case, DEFAULT, Flaw, Order, Position, RuleAction, TierPlace, TieredPolicy,
    TieredRule, Traffic,
};
use crate::state::{CalicoPolicyRecord, PolicyKey, TierRecord};

const FIELDS: [&str; 11] = [
    "tier",
    "order",
    "selector",
    "serviceAccountSelector",
    "types",
    "ingress",
    "egress",
    "performanceHints",
    "applyOnForward",
    "doNotTrack",
    "preDNAT",
];
const RULE_FIELDS: [&str; 9] = [
    "action",
    "ipVersion",
    "protocol",
    "notProtocol",
    "icmp",
    "notICMP",
    "source",
    "destination",
    // Annotations.
    "metadata",
];

/// Reads a policy; `tier` finds the tier of a name.
///
/// # Errors
/// What makes that nobody knows whom it concerns, or when, or that it concerns no pod: such a policy
/// does nothing.
pub(in super::super) fn parse<'t>(
    record: &CalicoPolicyRecord,
    tier: impl Fn(&str) -> Option<&'t TierRecord>,
) -> Result<TieredPolicy, Vec<Flaw>> {
    let (spec, key) = (&record.spec, PolicyKey::of_calico(&record.key));
    let namespace = Some(&record.key.namespace).filter(|namespace| !namespace.is_empty());
    let mut flaws = Vec::new();
    for field in ["doNotTrack", "preDNAT"] {
        if spec[field] == true {
            let text = "has no effect here: such a policy concerns the host's own interfaces only";
            return Err(vec![(field.to_owned(), text.to_owned())]);
        }
    }
    let mut noted = |part: &str, problem: String| flaws.push((part.to_owned(), problem));
    let order = match &spec["order"] {
        Value::Null => Some((Order::LAST, "-".to_owned())),
        value => value
            .as_f64()
            .map(|order| (Order::new(order), order.to_string())),
    };
    if order.is_none() {
        noted("order", format!("{} is not a number", spec["order"]));
    }
    let tier_name = match &spec["tier"] {
        Value::Null => Some(DEFAULT.0),
        Value::String(name) if name.is_empty() => Some(DEFAULT.0),
        value => value.as_str(),
    };
    if tier_name.is_none() {
        noted("tier", format!("{} is not a text", spec["tier"]));
    }
    let subject = match subject(spec, namespace.map(String::as_str)) {
        Ok(subject) => Some(subject),
        Err((part, error)) => {
            noted(part, error.to_string());
            None
        }
    };
    let (Some((order, order_text)), Some(tier_name), Some(subject)) = (order, tier_name, subject)
    else {
        return Err(flaws);
    };
    let (place, tier_denies) = place(tier_name, &tier);
    let mut known = FIELDS.to_vec();
    known.extend(namespace.is_none().then_some("namespaceSelector"));
    // What a field means that stands beside the rules is beyond guessing.
    if let Err(error) = json::object(spec, &known) {
        flaws.push(("spec".to_owned(), error.to_string()));
    }
    let directions = directions(spec, &mut flaws);
    let owner = Owner {
        key: &key,
        namespace: namespace.map(String::as_str),
        subject: &subject,
    };
    let mut rules = |direction: Direction| {
        let concerns = directions.contains(&direction);
        concerns.then(|| rules(&spec[direction.name()], direction, owner, &mut flaws))
    };
    let (ingress, egress) = (rules(Direction::Ingress), rules(Direction::Egress));
    let text = format!(
        "{}/{}/{}",
        record.key.name,
        record.key.namespace,
        key.kind()
    );
    Ok(TieredPolicy {
        position: Position::new(place, order, text, namespace.cloned()),
        tier: tier_name.to_owned(),
        order: order_text,
        accept: "Allow",
        tier_denies,
        subject: Members::Selected {
            expression: subject,
            is_here: true,
        },
        ingress,
        egress,
        flaws,
        key,
    })
}

/// Returns where a tier stands, and whether it denies at its end. Those that are always there have
/// their orders and actions whatever is written; of one that is not there nothing is known.
fn place<'t>(name: &str, tier: &impl Fn(&str) -> Option<&'t TierRecord>) -> (TierPlace, bool) {
    if name == DEFAULT.0 {
        return (TierPlace::built_in(DEFAULT), true);
    }
    if let Some(built_in) = [ADMIN, BASELINE]
        .into_iter()
        .find(|(known, _)| name == *known)
    {
        return (TierPlace::built_in(built_in), false);
    }
    let found = tier(name);
    let place = TierPlace {
        is_missing: found.is_none(),
        order: found
            .and_then(|tier| tier.order)
            .map_or(Order::LAST, Order::new),
        name: name.to_owned(),
    };
    (place, found.is_none_or(|tier| !tier.passes))
}

/// Returns which pods a policy selects.
fn subject(spec: &Value, namespace: Option<&str>) -> Result<Expression, (&'static str, PartError)> {
    let read =
        |field: &'static str| optional_selector(&spec[field]).map_err(|error| (field, error));
    let mut parts: Vec<Expression> = read("selector")?.into_iter().collect();
    match namespace {
        Some(namespace) => parts.push(Expression::in_namespace(namespace)),
        None => {
            let of_namespaces = read("namespaceSelector")?;
            let renamed = of_namespaces.map(|of| of.renamed(OF_NAMESPACE, NAMESPACE));
            parts.extend(renamed);
        }
    }
    let accounts = read("serviceAccountSelector")?;
    parts.extend(accounts.map(|of| of.renamed(OF_ACCOUNT, SERVICE_ACCOUNT)));
    Ok(Expression::all_of(parts))
}

/// Returns what a policy concerns. Without types that are its rules' directions, without rules
/// ingress; an unknown type means both.
fn directions(spec: &Value, flaws: &mut Vec<Flaw>) -> Vec<Direction> {
    let types: Vec<&Value> = spec["types"].as_array().into_iter().flatten().collect();
    if types.is_empty() {
        let has = |direction: Direction| {
            let rules = spec[direction.name()].as_array();
            rules.is_some_and(|rules| !rules.is_empty())
        };
        return match (has(Direction::Ingress), has(Direction::Egress)) {
            (true, true) => Direction::BOTH.to_vec(),
            (false, true) => vec![Direction::Egress],
            (_, false) => vec![Direction::Ingress],
        };
    }
    let is_type = |value: &Value, direction: &Direction| value == direction.policy_type();
    let is_known = |value: &&Value| Direction::BOTH.iter().any(|of| is_type(value, of));
    if let Some(unknown) = types.iter().find(|value| !is_known(value)) {
        let text = format!("{unknown} is neither Ingress nor Egress");
        flaws.push(("types".to_owned(), text));
        return Direction::BOTH.to_vec();
    }
    let named = |direction: &Direction| types.iter().any(|value| is_type(value, direction));
    Direction::BOTH.into_iter().filter(named).collect()
}

fn rules(
    written: &Value,
    direction: Direction,
    owner: Owner<'_>,
    flaws: &mut Vec<Flaw>,
) -> Vec<TieredRule> {
    TieredRule::listed(written, direction, flaws, |written, part, flaws| {
        rule(written, part, direction, owner, flaws)
    })
}

fn rule(
    written: &Value,
    part: &str,
    direction: Direction,
    owner: Owner<'_>,
    flaws: &mut Vec<Flaw>,
) -> TieredRule {
    let action = match written["action"].as_str() {
        Some("Allow") => RuleAction::Accept,
        Some("Deny") => RuleAction::Deny,
        Some("Pass") => RuleAction::Pass,
        Some("Log") => {
            let text = "Log has no effect here: nothing is logged, and the next rule is asked";
            flaws.push((format!("{part}.action"), text.to_owned()));
            return TieredRule {
                action: RuleAction::Accept,
                traffic: Traffic::Nothing,
            };
        }
        _ => {
            let text = format!("{} is none of Allow, Deny, Log, Pass", written["action"]);
            flaws.push((format!("{part}.action"), text));
            return TieredRule::DENY_ALL;
        }
    };
    match cases(written, part, direction, owner) {
        Ok(cases) => TieredRule {
            action,
            traffic: Traffic::In(cases),
        },
        Err((below, error)) => {
            flaws.push((format!("{part}{below}"), error.to_string()));
            TieredRule::closed(action)
        }
    }
}

/// Returns the cases in which a rule matches.
fn cases(
    written: &Value,
    part: &str,
    direction: Direction,
    owner: Owner<'_>,
) -> Result<Vec<Case>, (String, PartError)> {
    if !written["http"].is_null() {
        return Err((".http".to_owned(), PartError::Http));
    }
    json::object(written, &RULE_FIELDS).map_err(|error| (String::new(), error))?;
    let place = part.replace('[', "/").replace(']', "");
    let ends = Ends::parse(written, &place, direction, owner)?;
    let (numbers, names) = transports(written)?;
    let mut cases = Vec::new();
    for (transports, is_named) in [(numbers, false), (names, true)] {
        if transports.is_empty() {
            continue;
        }
        let Some((subject, peer)) = ends.demands(is_named && direction == Direction::Egress) else {
            continue;
        };
        let transports = transports.into_iter();
        cases.push(Case {
            part: String::new(),
            subject,
            peer,
            transports: transports.map(|one| (String::new(), one)).collect(),
        });
    }
    Ok(cases)
}
