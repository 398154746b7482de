//! HostEndpoints of Calico's: interfaces of nodes. Policies are enforced on pods alone, so that
//! they have no effect here, which has to be said of whatever somebody may rely on.

use std::sync::Arc;

use serde_json::Value;

use super::{Registry, Resource, Selection};

/// So many are named; a cluster may have one for each interface of each node.
const MAX_NAMED: usize = 10;

impl Registry {
    /// Returns all HostEndpoints.
    #[must_use]
    pub fn host_endpoints(&self) -> Vec<Arc<Value>> {
        let all = self.list(Resource::HostEndpoint, None, &Selection::default());
        all.map_or_else(|_| Vec::new(), |list| list.items)
    }
}

/// Says how many HostEndpoints there are and names them; `None` if there are none.
#[must_use]
pub fn without_effect(host_endpoints: &[Arc<Value>]) -> Option<String> {
    let names = host_endpoints.iter().take(MAX_NAMED);
    let names = names.filter_map(|of| of["metadata"]["name"].as_str());
    let mut names: Vec<&str> = names.collect();
    let more = host_endpoints.len().saturating_sub(MAX_NAMED);
    let more = format!("{more} more");
    if host_endpoints.len() > MAX_NAMED {
        names.push(&more);
    }
    let (count, names) = (host_endpoints.len(), names.join(", "));
    (count > 0).then(|| {
        format!(
            "HostEndpoints: {count} without effect, policies are enforced on pods alone: {names}"
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn they_are_counted_and_the_first_ones_are_named() {
        let of = |count: usize| -> Vec<Arc<Value>> {
            let name = |number| json!({"metadata": {"name": format!("h{number}")}});
            (1..=count).map(|number| Arc::new(name(number))).collect()
        };
        assert_eq!(without_effect(&of(0)), None);
        let text = |count| without_effect(&of(count)).unwrap();
        let all = "HostEndpoints: 2 without effect, policies are enforced on pods alone: h1, h2";
        assert_eq!(text(2), all);
        assert!(text(10).ends_with("alone: h1, h2, h3, h4, h5, h6, h7, h8, h9, h10"));
        assert!(text(12).starts_with("HostEndpoints: 12 without"));
        assert!(text(12).ends_with("h9, h10, 2 more"), "{}", text(12));
    }
}
