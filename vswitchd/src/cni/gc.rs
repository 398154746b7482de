//! GC: removes the attachments of this network that the runtime does not list.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use vswitch_api::cni::{CniCall, CniCode, CniCommand, CniFailure};

use super::failure;
use super::netconf::NetConf;
use crate::attach::Attachments;
use crate::ipam::DelegateError;

pub(super) async fn gc(attachments: &Attachments, call: &CniCall) -> Result<(), CniFailure> {
    let conf = NetConf::parse(&call.config, &BTreeMap::new())?;
    let valid = valid_attachments(&call.config)?;
    let released = attachments.gc(conf.network, valid).await;
    if let Some(plugin) = conf.delegated_ipam {
        match attachments
            .delegate()
            .run(&plugin, CniCommand::Gc, call)
            .await
        {
            Ok(_) => {}
            // Plugins of earlier specifications do not know the command.
            Err(DelegateError::Failed { source, .. })
                if source.code == CniCode::InvalidEnvironment.number() => {}
            Err(error) => {
                released.map_err(failure::of_attach)?;
                return Err(failure::of_delegate(error));
            }
        }
    }
    released.map_err(failure::of_attach)
}

/// Pairs of container id and interface name. Its absence is an error and not an empty list,
/// which would release everything.
fn valid_attachments(config: &Value) -> Result<BTreeSet<(String, String)>, CniFailure> {
    let bad = || {
        let msg =
            "configuration key cni.dev/valid-attachments is not a list of containerID and ifname";
        CniFailure::new(CniCode::InvalidConfig, msg)
    };
    // libcni writes the second name too, that of the drafts of 1.1.0.
    let listed = config
        .get("cni.dev/valid-attachments")
        .or_else(|| config.get("cni.dev/attachments"));
    let pair = |entry: &Value| {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
        Ok((
            text("containerID").ok_or_else(bad)?,
            text("ifname").ok_or_else(bad)?,
        ))
    };
    listed
        .and_then(Value::as_array)
        .ok_or_else(bad)?
        .iter()
        .map(pair)
        .collect()
}
