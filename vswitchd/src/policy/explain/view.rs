//! Near misses and advice as `/v1` tells them.

use std::collections::BTreeMap;

use vswitch_api::v1::{ExplainAdvice, LabelAdvice, NearMiss, PolicyPart, PortAdvice};

use super::answer::{self, Advice, Labelled, Miss, Relabel, RulePart};
use super::labels::LabelChange;
use super::text::protocol_name;

/// Returns a part of a policy.
#[must_use]
pub fn part(rule: &RulePart) -> PolicyPart {
    PolicyPart {
        policy: rule.policy.to_string(),
        part: rule.part.clone(),
    }
}

/// Returns a rule that might have allowed a connection.
#[must_use]
pub fn near_miss(miss: &Miss) -> NearMiss {
    NearMiss {
        rule: part(&miss.rule),
        reason: miss.cause.to_string(),
        advice: miss.advice.as_ref().map(advice),
    }
}

fn advice(advice: &Advice) -> ExplainAdvice {
    let (labels, ports) = match advice {
        Advice::Labels(relabels) => (relabels.iter().map(labels).collect(), Vec::new()),
        Advice::Ports(choices) => (Vec::new(), choices.iter().map(ports).collect()),
    };
    ExplainAdvice {
        text: advice.to_string(),
        labels,
        ports,
    }
}

fn labels(relabel: &Relabel) -> LabelAdvice {
    let (kind, namespace, name) = match &relabel.object {
        Labelled::Pod(key) => ("Pod", Some(key.namespace.clone()), key.name.clone()),
        Labelled::Namespace(name) => ("Namespace", None, name.clone()),
    };
    let mut advice = LabelAdvice {
        kind: kind.to_owned(),
        namespace,
        name,
        set: BTreeMap::new(),
        remove: Vec::new(),
    };
    for change in &relabel.changes {
        match change {
            LabelChange::Set { key, value } => {
                advice.set.insert(key.clone(), value.clone());
            }
            LabelChange::Remove { key } => advice.remove.push(key.clone()),
        }
    }
    advice
}

fn ports(choice: &answer::PortAdvice) -> PortAdvice {
    let range = choice.ports;
    PortAdvice {
        protocol: protocol_name(choice.protocol).to_lowercase(),
        port: range.map(|range| range.first),
        end_port: range
            .filter(|range| range.first != range.last)
            .map(|range| range.last),
    }
}
