//! ADD: makes the request to `attach` from the call, and the CNI result from the record.

use std::path::PathBuf;

use serde_json::Value;
use vswitch_api::cni::{CniCall, CniCode, CniFailure};

use super::netconf::NetConf;
use super::{failure, identity, result};
use crate::attach::{Attachments, Delegation, Kind, NetnsState, Wanted, WantedAddresses};
use crate::ipam::LeaseOwner;

pub(super) async fn add(
    attachments: &Attachments,
    default_namespace: &str,
    owner: LeaseOwner,
    call: &CniCall,
) -> Result<Value, CniFailure> {
    let args = identity::parse_args(call.args.as_deref())?;
    let conf = NetConf::parse(&call.config, &args)?;
    let namespace = conf
        .default_namespace
        .as_deref()
        .unwrap_or(default_namespace);
    let pod = identity::identify(call, &args, namespace)?;
    let addresses = match conf.delegated_ipam {
        Some(plugin) => WantedAddresses::Delegated(Delegation {
            plugin,
            call: call.clone(),
        }),
        None => WantedAddresses::BuiltIn {
            requested: conf.requested_ips,
            routes: conf.routes,
            dns: conf.dns,
        },
    };
    let wanted = Wanted {
        owner,
        kind: Kind::Pod,
        network: conf.network,
        netns: container_netns(attachments, call)?,
        mac: conf.requested_mac,
        mtu: conf.mtu,
        pod: Some(pod),
        addresses,
        host_ports: conf.host_ports,
    };
    let record = attachments.add(wanted).await.map_err(failure::of_attach)?;
    Ok(result::render(
        call.version(),
        &record,
        conf.prev_result.as_ref(),
    ))
}

fn container_netns(attachments: &Attachments, call: &CniCall) -> Result<PathBuf, CniFailure> {
    let netns = PathBuf::from(call.netns.clone().unwrap_or_default());
    let problem = match attachments.probe(&netns) {
        NetnsState::Container => return Ok(netns),
        NetnsState::Host => "is the network namespace of the host",
        NetnsState::NotNetns => "is not a network namespace",
        NetnsState::Missing => "does not exist",
    };
    let msg = format!(
        "environment variable CNI_NETNS: {} {problem}",
        netns.display()
    );
    Err(CniFailure::new(CniCode::InvalidEnvironment, msg))
}
