//! Flows of operators and orchestrators: table 30, kept in the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use vswitch_api::{Cookie, Priority, v1};
use vswitch_datapath::action::{ActionSyntaxError, parse_actions};
use vswitch_datapath::flow::MatchSyntaxError;

use super::Switch;
use crate::reconcile::AdminFlow;
use crate::store::{Bucket, Store, StoreError, Write};
use crate::supervise;

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
    flows: BTreeMap<String, (v1::AdminFlow, AdminFlow)>,
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
                Err(error) => tracing::error!(flow = name, error, "stored flow is not understood"),
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

impl Switch {
    /// Returns the flows that operators have put there.
    pub async fn admin_flows(&self) -> Vec<v1::AdminFlow> {
        self.admin
            .lock()
            .await
            .flows
            .values()
            .map(|(flow, _)| flow.clone())
            .collect()
    }

    /// Adds or replaces a flow; durable and in force when this returns. Goes on if the caller
    /// goes away: what is stored and what is in force are the same at any time.
    ///
    /// # Errors
    /// [`AdminFlowError`].
    pub async fn put_admin_flow(
        self: &Arc<Self>,
        flow: v1::AdminFlow,
    ) -> Result<(), AdminFlowError> {
        let compiled = compile(&flow)?;
        let switch = Arc::clone(self);
        let put = supervise::request(async move { switch.keep_flow(flow, compiled).await });
        put.await.map_err(|_| AdminFlowError::Stopping)?
    }

    async fn keep_flow(
        &self,
        flow: v1::AdminFlow,
        compiled: AdminFlow,
    ) -> Result<(), AdminFlowError> {
        let name = flow.name.clone();
        let record = serde_json::to_vec(&flow).expect("a flow is strings and a number");
        let mut admin = self.admin.lock().await;
        let write = Write::Put(Bucket::AdminFlows, name.clone().into_bytes(), record);
        self.commit_flow(&name, write).await?;
        admin.flows.insert(name, (flow, compiled));
        self.publish(&admin).await
    }

    /// Deletes a flow; durable and out of force when this returns. Goes on if the caller goes
    /// away.
    ///
    /// # Errors
    /// [`AdminFlowError::NotFound`] and others.
    pub async fn delete_admin_flow(self: &Arc<Self>, name: &str) -> Result<(), AdminFlowError> {
        let (switch, name) = (Arc::clone(self), name.to_owned());
        let deleted = supervise::request(async move { switch.forget_flow(name).await });
        deleted.await.map_err(|_| AdminFlowError::Stopping)?
    }

    async fn forget_flow(&self, name: String) -> Result<(), AdminFlowError> {
        let mut admin = self.admin.lock().await;
        if !admin.flows.contains_key(&name) {
            return Err(AdminFlowError::NotFound { name });
        }
        let write = Write::Delete(Bucket::AdminFlows, name.as_bytes().to_vec());
        self.commit_flow(&name, write).await?;
        admin.flows.remove(&name);
        self.publish(&admin).await
    }

    async fn commit_flow(&self, name: &str, write: Write) -> Result<(), AdminFlowError> {
        let store = Arc::clone(&self.store);
        let commit = tokio::task::spawn_blocking(move || store.commit(vec![write]));
        let committed = commit.await.map_err(|_| AdminFlowError::Stopping)?;
        committed.map_err(|source| AdminFlowError::Store {
            name: name.to_owned(),
            source,
        })
    }

    async fn publish(&self, admin: &AdminFlows) -> Result<(), AdminFlowError> {
        self.reconcile.set_admin_flows(admin.compiled());
        self.reconcile
            .wait_until_in_force()
            .await
            .map(drop)
            .map_err(|_| AdminFlowError::Stopping)
    }
}

fn compile(flow: &v1::AdminFlow) -> Result<AdminFlow, AdminFlowError> {
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
