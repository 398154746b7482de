//! Network configuration of a CNI call: the fields that concern the switch, parsed and checked.
//!
//! Unknown keys are the business of other plugins of the chain and of later versions.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;
use vswitch_api::MacAddr;
use vswitch_api::cni::{CniCode, CniFailure};
use vswitch_datapath::flow::ip_proto;

use super::identity::bad_args;
use crate::ipam::Route;
use crate::state::HostPort;

/// `ipam.type` of the built-in address management; absent or empty means the same.
const BUILT_IN: &str = "vswitch";

/// A configuration as far as the switch understands it.
#[derive(Debug, Clone)]
pub(super) struct NetConf {
    pub(super) network: String,
    /// `ipam.type` unless it is the built-in one.
    pub(super) delegated_ipam: Option<String>,
    /// `ipam.routes`, for the built-in one.
    pub(super) routes: Vec<Route>,
    pub(super) mtu: Option<u16>,
    pub(super) default_namespace: Option<String>,
    pub(super) requested_ips: Vec<IpAddr>,
    pub(super) requested_mac: Option<MacAddr>,
    /// Capability `portMappings`.
    pub(super) host_ports: Vec<HostPort>,
    pub(super) dns: Option<Value>,
    pub(super) prev_result: Option<Value>,
}

impl NetConf {
    pub(super) fn parse(
        config: &Value,
        args: &BTreeMap<String, String>,
    ) -> Result<Self, CniFailure> {
        let text = |pointer: &str| text_at(config, pointer);
        let delegated_ipam =
            text("/ipam/type")?.filter(|plugin| !plugin.is_empty() && plugin != BUILT_IN);
        let routes = match config.pointer("/ipam/routes") {
            Some(routes) => serde_json::from_value(routes.clone())
                .map_err(|error| invalid("ipam.routes", &error.to_string()))?,
            None => Vec::new(),
        };
        Ok(Self {
            network: text("/name")?.unwrap_or_default(),
            delegated_ipam,
            routes,
            mtu: mtu_of(config)?,
            default_namespace: text("/defaultNamespace")?,
            requested_ips: requested_ips(config, args)?,
            requested_mac: requested_mac(config, args)?,
            host_ports: host_ports(config)?,
            dns: config.get("dns").filter(|dns| dns.is_object()).cloned(),
            prev_result: config
                .get("prevResult")
                .filter(|prev| !prev.is_null())
                .cloned(),
        })
    }
}

fn invalid(key: &str, problem: &str) -> CniFailure {
    CniFailure::new(
        CniCode::InvalidConfig,
        format!("configuration key {key}: {problem}"),
    )
}

fn text_at(config: &Value, pointer: &str) -> Result<Option<String>, CniFailure> {
    match config.pointer(pointer) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => {
            let key = pointer.trim_start_matches('/').replace('/', ".");
            Err(invalid(&key, &format!("{other} is not a string")))
        }
    }
}

fn mtu_of(config: &Value) -> Result<Option<u16>, CniFailure> {
    match config.get("mtu") {
        None | Some(Value::Null) => Ok(None),
        // The reference plugins write 0 for "by itself".
        Some(mtu) => match mtu.as_u64().and_then(|mtu| u16::try_from(mtu).ok()) {
            Some(0) => Ok(None),
            // RFC 8200 §5: no link of IPv6 goes below 1280; IPv4 alone may.
            Some(mtu) if mtu >= 576 => Ok(Some(mtu)),
            _ => Err(invalid(
                "mtu",
                &format!("{mtu} is not between 576 and 65535"),
            )),
        },
    }
}

/// Capability `ips`, then `args.cni.ips` (CNI conventions), then `IP=` of CNI_ARGS.
fn requested_ips(
    config: &Value,
    args: &BTreeMap<String, String>,
) -> Result<Vec<IpAddr>, CniFailure> {
    for (pointer, key) in [
        ("/runtimeConfig/ips", "runtimeConfig.ips"),
        ("/args/cni/ips", "args.cni.ips"),
    ] {
        match config.pointer(pointer) {
            None | Some(Value::Null) => {}
            Some(Value::Array(ips)) if ips.is_empty() => {}
            Some(Value::Array(ips)) => {
                let parse = |ip: &Value| {
                    let address = ip.as_str().and_then(parse_address);
                    address.ok_or_else(|| invalid(key, &format!("{ip} is not an address")))
                };
                return ips.iter().map(parse).collect();
            }
            Some(other) => return Err(invalid(key, &format!("{other} is not a list"))),
        }
    }
    let listed = args.get("IP").map(String::as_str).unwrap_or_default();
    let listed = listed.split(',').map(str::trim).filter(|ip| !ip.is_empty());
    listed
        .map(|ip| {
            parse_address(ip).ok_or_else(|| bad_args(&format!("IP {ip:?} is not an address")))
        })
        .collect()
}

fn parse_address(text: &str) -> Option<IpAddr> {
    text.parse()
        .ok()
        .or_else(|| text.parse::<IpNet>().ok().map(|net| net.addr()))
}

/// Capability `mac`, then `args.cni.mac`, then `MAC=` of CNI_ARGS.
fn requested_mac(
    config: &Value,
    args: &BTreeMap<String, String>,
) -> Result<Option<MacAddr>, CniFailure> {
    let configured = match text_at(config, "/runtimeConfig/mac")? {
        Some(mac) => Some(mac),
        None => text_at(config, "/args/cni/mac")?,
    };
    let (mac, fail): (_, fn(&str) -> CniFailure) = match configured {
        Some(mac) => (mac, |problem| invalid("runtimeConfig.mac", problem)),
        None => (args.get("MAC").cloned().unwrap_or_default(), bad_args),
    };
    if mac.is_empty() {
        return Ok(None);
    }
    let parsed: MacAddr = mac.parse().map_err(|error| fail(&format!("MAC {error}")))?;
    if parsed.is_multicast() || parsed == MacAddr::default() {
        return Err(fail(&format!("MAC {parsed} cannot be an interface's")));
    }
    Ok(Some(parsed))
}

/// One entry of `runtimeConfig.portMappings` as runtimes write it (CNI conventions).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortMapping {
    host_port: u16,
    container_port: u16,
    #[serde(default)]
    protocol: String,
    /// Newer runtimes write `hostIP`, with both letters large.
    #[serde(default, rename = "hostIP", alias = "hostIp")]
    host_ip: String,
}

/// Capability `portMappings`. As for the reference plugin, a mapping without a host port
/// asks for nothing.
fn host_ports(config: &Value) -> Result<Vec<HostPort>, CniFailure> {
    const KEY: &str = "runtimeConfig.portMappings";
    let listed = match config.pointer("/runtimeConfig/portMappings") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(listed)) => listed,
        Some(other) => return Err(invalid(KEY, &format!("{other} is not a list"))),
    };
    let mut host_ports: Vec<HostPort> = Vec::new();
    for (index, entry) in listed.iter().enumerate() {
        let key = format!("{KEY}[{index}]");
        let mapping: PortMapping = serde_json::from_value(entry.clone())
            .map_err(|error| invalid(&key, &error.to_string()))?;
        if mapping.host_port == 0 {
            continue;
        }
        if mapping.container_port == 0 {
            return Err(invalid(&key, "containerPort is not between 1 and 65535"));
        }
        let host_port = HostPort {
            proto: protocol(&mapping.protocol).ok_or_else(|| {
                let problem = format!("protocol {:?} is none of tcp, udp, sctp", mapping.protocol);
                invalid(&key, &problem)
            })?,
            port: mapping.host_port,
            ip: match mapping.host_ip.as_str() {
                "" => None,
                text => {
                    Some(text.parse().map_err(|_| {
                        invalid(&key, &format!("hostIP {text:?} is not an address"))
                    })?)
                }
            },
            container_port: mapping.container_port,
        };
        let is_same = |other: &&HostPort| other.key() == host_port.key();
        match host_ports.iter().find(is_same) {
            None => host_ports.push(host_port),
            Some(other) if *other == host_port => {}
            Some(other) => {
                let (port, to) = (other.port, other.container_port);
                let problem = format!("hostPort {port} leads to containerPort {to} already");
                return Err(invalid(&key, &problem));
            }
        }
    }
    Ok(host_ports)
}

fn protocol(name: &str) -> Option<u8> {
    match name.to_ascii_lowercase().as_str() {
        "" | "tcp" => Some(ip_proto::TCP),
        "udp" => Some(ip_proto::UDP),
        "sctp" => Some(ip_proto::SCTP),
        _ => None,
    }
}
