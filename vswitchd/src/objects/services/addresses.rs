//! Families and ClusterIPs.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::super::causes::Causes;
use super::super::shelf::Shelf;
use super::super::{RegistryConfig, StatusError};
use super::{exhausted, family_of, is_headless, others, selector, start_of};

const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

/// Completes ipFamilyPolicy, ipFamilies, clusterIPs and clusterIP.
pub(super) fn allocate(
    config: &RegistryConfig,
    shelf: &Shelf,
    old: Option<&Value>,
    service: &mut Value,
    causes: &mut Causes,
) -> Result<(), StatusError> {
    if old.is_some_and(|old| addresses_stay(&old["spec"], &service["spec"])) {
        return Ok(());
    }
    let families = families(config, &service["spec"], causes);
    let spec = &mut service["spec"];
    if spec["ipFamilyPolicy"].is_null() {
        spec["ipFamilyPolicy"] = json!(default_policy(spec));
    }
    if !families.is_empty() {
        spec["ipFamilies"] = json!(families);
    }
    if is_headless(spec) {
        return Ok(());
    }
    let ips = cluster_ips(config, shelf, old, service, &families, causes)?;
    if let Some(first) = ips.first() {
        service["spec"]["clusterIP"] = json!(first);
        service["spec"]["clusterIPs"] = json!(ips);
    }
    Ok(())
}

/// A Service that has its addresses and asks for no others keeps them: one that prefers two
/// does not get the second because the configuration has it now.
fn addresses_stay(old: &Value, spec: &Value) -> bool {
    let fields = ["ipFamilyPolicy", "ipFamilies", "clusterIPs", "clusterIP"];
    old["clusterIPs"].is_array() && fields.iter().all(|field| old[field] == spec[field])
}

fn default_policy(spec: &Value) -> &'static str {
    // Nothing here knows the families of endpoints that somebody else writes.
    if is_headless(spec) && selector(spec).is_none() {
        "RequireDualStack"
    } else {
        "SingleStack"
    }
}

/// Returns the families of a Service: those it names, those of the addresses it names, and what
/// its policy adds. None if neither it nor the configuration says anything.
fn families(config: &RegistryConfig, spec: &Value, causes: &mut Causes) -> Vec<&'static str> {
    let configured = configured(config);
    let mut families: Vec<&'static str> = texts(&spec["ipFamilies"])
        .filter_map(|text| FAMILIES.into_iter().find(|family| *family == text))
        .collect();
    let given = texts(&spec["clusterIPs"]).filter_map(|text| text.parse().ok());
    families.extend(
        given
            .map(family_of)
            .skip(families.len())
            .collect::<Vec<_>>(),
    );
    if families.is_empty() {
        families.extend(configured.first());
    }
    let policy = spec["ipFamilyPolicy"].as_str();
    let policy = policy.unwrap_or_else(|| default_policy(spec));
    let has_any = is_headless(spec) && selector(spec).is_none();
    if policy != "SingleStack" {
        let pool = if has_any { &FAMILIES[..] } else { &configured };
        let more: Vec<&str> = pool
            .iter()
            .copied()
            .filter(|family| !families.contains(family))
            .collect();
        families.extend(more);
    }
    if policy == "RequireDualStack" && families.len() < 2 && !has_any {
        let why = "this cluster is not configured for dual-stack services";
        causes.invalid("spec.ipFamilyPolicy", &json!(policy), why);
    }
    families
}

/// The configuration's families; the first is the default.
fn configured(config: &RegistryConfig) -> Vec<&'static str> {
    let cidrs = config.service_cidrs.iter();
    cidrs.map(|cidr| family_of(cidr.addr())).collect()
}

fn cluster_ips(
    config: &RegistryConfig,
    shelf: &Shelf,
    old: Option<&Value>,
    service: &Value,
    families: &[&str],
    causes: &mut Causes,
) -> Result<Vec<String>, StatusError> {
    let used: BTreeSet<IpAddr> = others(shelf, service)
        .flat_map(|other| taken(other))
        .collect();
    let given: Vec<&str> = texts(&service["spec"]["clusterIPs"]).collect();
    let kept: Vec<&str> =
        old.map_or_else(Vec::new, |old| texts(&old["spec"]["clusterIPs"]).collect());
    let mut ips: Vec<String> = Vec::new();
    for (index, family) in families.iter().enumerate() {
        let cidr = |cidr: &&IpNet| family_of(cidr.addr()) == *family;
        let cidr = config.service_cidrs.iter().find(cidr);
        match (given.get(index), cidr) {
            (Some(ip), _) if kept.contains(ip) => ips.push((*ip).to_owned()),
            (Some(ip), cidr) => {
                check_given(index, ip, cidr, &used, causes);
                ips.push((*ip).to_owned());
            }
            (None, Some(cidr)) => {
                let start = start_of(service, family);
                let ip = first_free(cidr, start, &used).ok_or_else(|| exhausted("serviceIP"))?;
                ips.push(ip.to_string());
            }
            // Without any CIDR Services have only the addresses that they name.
            (None, None) if config.service_cidrs.is_empty() => {}
            (None, None) => {
                let field = format!("spec.ipFamilies[{index}]");
                causes.invalid(&field, &json!(family), "not configured on this cluster");
            }
        }
    }
    Ok(ips)
}

fn check_given(
    index: usize,
    ip: &str,
    cidr: Option<&IpNet>,
    used: &BTreeSet<IpAddr>,
    causes: &mut Causes,
) {
    let Ok(address) = ip.parse::<IpAddr>() else {
        return;
    };
    let field = format!("spec.clusterIPs[{index}]");
    if let Some(cidr) = cidr
        && !is_host_of(cidr, address)
    {
        let why =
            format!("provided IP is not in the valid range. The range of valid IPs is {cidr}");
        causes.invalid(&field, &json!(ip), why);
    } else if used.contains(&address) {
        causes.invalid(&field, &json!(ip), "provided IP is already allocated");
    }
}

/// Neither the address of the network nor the broadcast address is a host's.
fn is_host_of(cidr: &IpNet, ip: IpAddr) -> bool {
    cidr.contains(&ip) && ip != cidr.network() && ip != cidr.broadcast()
}

fn taken(service: &Value) -> Vec<IpAddr> {
    let spec = &service["spec"];
    let ips = texts(&spec["clusterIPs"]).chain(spec["clusterIP"].as_str());
    ips.filter_map(|text| text.parse().ok()).collect()
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// Bits of a CIDR's host part that are searched; nobody has more Services.
const SEARCHED_BITS: u8 = 32;

pub(super) fn first_free(cidr: &IpNet, start: u64, used: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let bits = (cidr.max_prefix_len() - cidr.prefix_len()).min(SEARCHED_BITS);
    let hosts = (1_u64 << bits).saturating_sub(2);
    (0..hosts)
        .map(|step| 1 + (start + step) % hosts)
        .map(|offset| at(cidr, offset))
        .find(|ip| !used.contains(ip))
}

fn at(cidr: &IpNet, offset: u64) -> IpAddr {
    match cidr.network() {
        IpAddr::V4(ip) => {
            let offset = u32::try_from(offset).unwrap_or(u32::MAX);
            IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() | offset))
        }
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() | u128::from(offset))),
    }
}
