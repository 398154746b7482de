//! CHECK compares the attachment with the result of ADD; STATUS answers whether ADD would work.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ipnet::IpNet;
use serde_json::Value;
use vswitch_api::cni::{CniCall, CniCode, CniCommand, CniFailure};

use super::failure;
use super::netconf::NetConf;
use crate::attach::{AttachError, Attachments, Record};
use crate::errors::chain;
use crate::ipam::{DelegateError, LeaseOwner};

pub(super) async fn check(
    attachments: &Attachments,
    owner: &LeaseOwner,
    call: &CniCall,
) -> Result<(), CniFailure> {
    let conf = NetConf::parse(&call.config, &BTreeMap::new())?;
    let prev_result = conf.prev_result.as_ref().ok_or_else(|| {
        CniFailure::new(
            CniCode::InvalidConfig,
            "CHECK needs prevResult in the configuration",
        )
    })?;
    let Some(record) = attachments.attached(owner) else {
        let owner = owner.clone();
        return Err(failure::of_attach(AttachError::Unknown { owner }));
    };
    let differs = |what: String| Err(CniFailure::new(CniCode::CheckFailed, what));
    let attachment = &record.attachment;
    if attachment.network != conf.network {
        return differs(format!(
            "attached to network {}, not {}",
            attachment.network, conf.network
        ));
    }
    if call.netns.as_deref().map(Path::new) != Some(attachment.netns.as_path()) {
        return differs(format!(
            "attached in namespace {}",
            attachment.netns.display()
        ));
    }
    if let Some(difference) = difference(&record, prev_result) {
        return differs(difference);
    }
    let checked = attachments.check(owner).await;
    checked.map_err(failure::of_check)
}

/// Compares the record with prevResult: our interface, and its addresses.
fn difference(record: &Record, prev_result: &Value) -> Option<String> {
    let attachment = &record.attachment;
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let list = |key: &str| {
        prev_result
            .get(key)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let interfaces = list("interfaces");
    let is_ours = |interface: &Value| {
        text(interface, "name").as_deref() == Some(attachment.ifname.as_str())
            && text(interface, "sandbox").is_some_and(|sandbox| !sandbox.is_empty())
    };
    let Some(index) = interfaces.iter().position(is_ours) else {
        return Some(format!(
            "prevResult has no interface {} in the container",
            attachment.ifname
        ));
    };
    let interface = interfaces.get(index)?;
    if text(interface, "sandbox").as_deref().map(Path::new) != Some(attachment.netns.as_path()) {
        return Some(format!(
            "prevResult names another namespace for {}",
            attachment.ifname
        ));
    }
    // A later plugin of the chain (tuning) may change the MAC, the interface check decides.
    let of_ours = |ip: &&Value| {
        ip.get("interface")
            .is_none_or(|at| at.as_u64() == u64::try_from(index).ok())
    };
    let ips = list("ips");
    let expected: Option<BTreeSet<IpNet>> = ips
        .iter()
        .filter(of_ours)
        .map(|ip| text(ip, "address").and_then(|address| address.parse().ok()))
        .collect();
    let present: BTreeSet<IpNet> = attachment.addresses.iter().copied().collect();
    match expected {
        Some(expected) if expected == present => None,
        Some(expected) => Some(format!(
            "prevResult has addresses {expected:?}, the switch {present:?}"
        )),
        None => Some("prevResult has an address that is none".to_owned()),
    }
}

pub(super) async fn status(attachments: &Attachments, call: &CniCall) -> Result<(), CniFailure> {
    let conf = NetConf::parse(&call.config, &BTreeMap::new())?;
    let not_ready = |error| {
        let failure = failure::of_step(CniCode::NotAvailable, "switch is not ready", &error);
        // STATUS has one code for it, however long it lasts.
        CniFailure {
            code: CniCode::NotAvailable.number(),
            ..failure
        }
    };
    attachments.ready().await.map_err(not_ready)?;
    let unavailable = |error: &(dyn std::error::Error + 'static)| {
        CniFailure::new(CniCode::NotAvailable, chain(error))
    };
    let Some(plugin) = conf.delegated_ipam else {
        let room = attachments.ipam().check_room(attachments.now());
        return room.map_err(|error| unavailable(&error));
    };
    let delegate = attachments.delegate();
    match delegate.run(&plugin, CniCommand::Status, call).await {
        Ok(_) => Ok(()),
        // A plugin of an earlier specification does not know the command (code 4), which
        // says nothing about ADD.
        Err(DelegateError::Failed { source, .. })
            if source.code == CniCode::InvalidEnvironment.number() =>
        {
            Ok(())
        }
        Err(DelegateError::Failed { source, .. }) => Err(source),
        Err(error) => Err(unavailable(&error)),
    }
}
