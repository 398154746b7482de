//! Flows of operators and orchestrators: table 30, kept in the store.

use std::collections::BTreeMap;

use vswitch_api::{Cookie, Priority, v1};
use vswitch_datapath::action::{ActionSyntaxError, parse_actions};
use vswitch_datapath::flow::MatchSyntaxError;

use crate::reconcile::AdminFlow;
use crate::store::{Bucket, Store, StoreError};

/// A flow that cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum AdminFlowError {
    /// Its name.
    #[error("flow name {name:?} is not 1 to 63 letters, digits, dots, dashes or underscores")]
    Name {
        /// As given.
        name: String,
    },
    /// Its priority.
    #[error("priority 0 of flow {name} is taken by the table's own rule; use 1 to 65535")]
    Priority {
        /// Its name.
        name: String,
    },
    /// Its match.
    #[error("match of flow {name}")]
    Match {
        /// Its name.
        name: String,
        /// Cause.
        source: MatchSyntaxError,
    },
    /// Its actions.
    #[error("actions of flow {name}")]
    Actions {
        /// Its name.
        name: String,
        /// Cause.
        source: ActionSyntaxError,
    },
    /// No flow has this name.
    #[error("there is no flow {name:?}")]
    NotFound {
        /// As asked for.
        name: String,
    },
    /// It could not be kept.
    #[error("store flow {name}")]
    Store {
        /// Its name.
        name: String,
        /// Cause.
        source: StoreError,
    },
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
}

/// The flows by name, as given and as compiled.
#[derive(Debug, Default)]
pub(super) struct AdminFlows {
    pub(super) flows: BTreeMap<String, (v1::AdminFlow, AdminFlow)>,
}

impl AdminFlows {
    /// Reads the flows from the store; one that is no longer understood is logged and left out.
    pub(super) fn load(store: &dyn Store) -> Result<Self, StoreError> {
        let mut flows = Self::default();
        for (key, value) in store.scan(Bucket::AdminFlows, b"")? {
            let name = String::from_utf8_lossy(&key).into_owned();
            let flow = serde_json::from_slice::<v1::AdminFlow>(&value).map_err(|e| e.to_string());
            match flow.and_then(|flow| Ok((compile(&flow).map_err(|e| e.to_string())?, flow))) {
                Ok((compiled, flow)) => {
                    flows.flows.insert(name, (flow, compiled));
                }
                Err(error) => tracing::error!(
                    flow = name,
                    error,
                    "parsing a stored flow failed; it is left out"
                ),
            }
        }
        Ok(flows)
    }

    pub(super) fn compiled(&self) -> Vec<AdminFlow> {
        self.flows
            .values()
            .map(|(_, compiled)| compiled.clone())
            .collect()
    }
}

pub(super) fn compile(flow: &v1::AdminFlow) -> Result<AdminFlow, AdminFlowError> {
    let name = flow.name.clone();
    let is_name = (1..=63).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    if !is_name {
        return Err(AdminFlowError::Name { name });
    }
    if flow.priority == 0 {
        return Err(AdminFlowError::Priority { name });
    }
    let matches = flow
        .matches
        .parse()
        .map_err(|source| AdminFlowError::Match {
            name: name.clone(),
            source,
        })?;
    let actions = parse_actions(&flow.actions).map_err(|source| AdminFlowError::Actions {
        name: name.clone(),
        source,
    })?;
    let cookie = Cookie(u64::from(crc32fast::hash(name.as_bytes())));
    Ok(AdminFlow {
        name,
        priority: Priority(flow.priority),
        matches,
        actions,
        cookie,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(name: &str, priority: u16, matches: &str, actions: &str) -> v1::AdminFlow {
        v1::AdminFlow {
            name: name.to_owned(),
            priority,
            matches: matches.to_owned(),
            actions: actions.to_owned(),
        }
    }

    #[test]
    fn what_cannot_be_taken_is_named() {
        assert!(compile(&flow("web", 1, "tcp,tp_dst=80", "drop")).is_ok());
        let refused = [
            (flow("a/b", 1, "", "drop"), "a/b"),
            (flow("web", 0, "", "drop"), "priority 0"),
            (
                flow("web", 1, "tcp,tp_dst=http", "drop"),
                "match of flow web",
            ),
            (flow("web", 1, "", "explode"), "actions of flow web"),
        ];
        for (flow, named) in refused {
            let error = compile(&flow).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
