//! Which policies decided, by the rules that a packet met.

use std::sync::Arc;

use vswitch_datapath::pipeline::{Origin, Rule};

use super::model::END_OF_TIER;
use crate::state::PolicyKey;

/// Returns the names of the policies among the rules that led to a verdict, each once, in their
/// order. What passes a packet on to those behind it has not decided.
#[must_use]
pub fn deciding_policies<'a>(rules: impl IntoIterator<Item = &'a Arc<Rule>>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for Origin { kind, name, part } in rules.into_iter().map(|rule| &*rule.origin) {
        let is_of_tier = PolicyKey::TIERED_KINDS.contains(kind);
        if !PolicyKey::is_kind(kind) || (is_of_tier && part.contains(" Pass ")) {
            continue;
        }
        let name = PolicyKey::text(kind, name);
        if !names.contains(&name) {
            names.push(name);
        }
        // Others that would deny as well come too late; what isolates does so together.
        if is_of_tier && part.contains(" Deny ") && !part.contains(END_OF_TIER) {
            break;
        }
    }
    names
}

/// Says how policies with these names denied something at one end: by isolating, or one by a rule.
#[must_use]
pub fn denial(end: &str, policies: &[String]) -> String {
    match policies {
        [one] if one.starts_with(PolicyKey::CALICO) => format!("Calico's policy {one} denies it"),
        // Kind and name.
        [one] if one.contains(' ') => format!("{one} denies it"),
        [one] if !one.contains('/') => format!("ClusterNetworkPolicy {one} denies it"),
        many => format!(
            "the {end} is isolated by {}, and no rule allows it",
            many.join(", ")
        ),
    }
}
