//! Changes of admin flows (table 30): durable and in force when they are answered.

use std::sync::Arc;

use vswitch_api::v1;

use super::admin_flows::{AdminFlowError, AdminFlows, compile};
use super::running::Switch;
use crate::reconcile::AdminFlow;
use crate::store::{Bucket, Write};
use crate::supervise;

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
