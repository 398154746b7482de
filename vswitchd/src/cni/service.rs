//! [`CniService`]: what the CNI calls ask of the attachments.

use serde_json::Value;
use vswitch_api::IfName;
use vswitch_api::cni::{CniCall, CniCode, CniCommand, CniFailure};

use super::netconf::NetConf;
use super::{add, check, failure, gc};
use crate::attach::{Attachments, Delegation};
use crate::ipam::LeaseOwner;

/// Settings of the daemon's configuration.
#[derive(Debug, Clone)]
pub struct CniSettings {
    /// Namespace of pods whose runtime names none.
    pub default_namespace: String,
}

/// The CNI service. Cheap to clone; all clones are one service.
#[derive(Debug, Clone)]
pub struct CniService {
    attachments: Attachments,
    settings: CniSettings,
}

impl CniService {
    /// Returns the service of these attachments.
    #[must_use]
    pub const fn new(attachments: Attachments, settings: CniSettings) -> Self {
        Self {
            attachments,
            settings,
        }
    }

    /// Serves one call; the result is `None` where the command has none. A change that began
    /// runs to its end even if the returned future is dropped.
    ///
    /// # Errors
    /// What the shim prints.
    pub async fn handle(&self, call: CniCall) -> Result<Option<Value>, CniFailure> {
        let command = call.check()?;
        let outcome = self.run(command, &call).await;
        let (container_id, ifname) = (call.container_id.as_deref(), call.ifname.as_deref());
        match &outcome {
            Ok(_) => tracing::info!(
                command = command.as_str(),
                container_id,
                ifname,
                "CNI call done"
            ),
            Err(error) => tracing::warn!(
                command = command.as_str(), container_id, ifname, %error, "CNI call failed"
            ),
        }
        outcome
    }

    async fn run(&self, command: CniCommand, call: &CniCall) -> Result<Option<Value>, CniFailure> {
        let attachments = &self.attachments;
        match command {
            CniCommand::Add => {
                let namespace = &self.settings.default_namespace;
                return add::add(attachments, namespace, owner_of(call)?, call)
                    .await
                    .map(Some);
            }
            CniCommand::Del => del(attachments, &owner_of(call)?, call).await?,
            CniCommand::Check => check::check(attachments, &owner_of(call)?, call).await?,
            CniCommand::Gc => gc::gc(attachments, call).await?,
            CniCommand::Status => check::status(attachments, call).await?,
        }
        Ok(None)
    }
}

async fn del(
    attachments: &Attachments,
    owner: &LeaseOwner,
    call: &CniCall,
) -> Result<(), CniFailure> {
    // DEL of what is gone is success, and a configuration that cannot be read names no plugin.
    let conf = NetConf::parse(&call.config, &std::collections::BTreeMap::new());
    let plugin = conf.ok().and_then(|conf| conf.delegated_ipam);
    let delegation = plugin.map(|plugin| Delegation {
        plugin,
        call: call.clone(),
    });
    let removed = attachments.remove(owner, delegation).await;
    removed.map_err(failure::of_attach)
}

/// `CniCall::check` has seen both; this turns them into types.
fn owner_of(call: &CniCall) -> Result<LeaseOwner, CniFailure> {
    let missing = || CniFailure::new(CniCode::InvalidEnvironment, "CNI_CONTAINERID or CNI_IFNAME");
    let container_id = call.container_id.clone().ok_or_else(missing)?;
    let ifname: Option<IfName> = call.ifname.as_ref().and_then(|name| name.parse().ok());
    Ok(LeaseOwner {
        container_id,
        ifname: ifname.ok_or_else(missing)?,
    })
}
