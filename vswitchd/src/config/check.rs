//! Validation of the configuration: resolves the raw keys and collects every problem.

mod api;
mod cluster;
mod flows;

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use vswitch_api::IfName;
use vswitch_datapath::conntrack::ConntrackConfig;

use super::layers::Merged;
use super::{
    Config, ConfigError, DatapathSettings, Deny, FastPathSetting, LogConfig, LogFormat, Machine,
    MtuSetting, NetworkConfig, PolicyConfig, Problem, RawConfig, RawConntrack, RawMtu, RawNetwork,
    RecordedShare, ServiceConfig, VxlanConfig,
};
use crate::telemetry;

/// Above this many workers the shared tables cost more than another worker brings.
const MAX_AUTOMATIC_WORKERS: usize = 4;

/// Collects problems; each check answers a usable value in any case, so that all are made.
struct Checker {
    places: HashMap<String, String>,
    problems: Vec<Problem>,
}

pub(super) fn resolve(merged: Merged, machine: &Machine) -> Result<Config, ConfigError> {
    let Merged {
        raw,
        places,
        problems,
    } = merged;
    let mut checker = Checker { places, problems };
    let config = checker.config(raw, machine);
    match (config, checker.problems) {
        (Some(config), problems) if problems.is_empty() => Ok(config),
        (_, problems) => Err(ConfigError { problems }),
    }
}

impl Checker {
    fn config(&mut self, mut raw: RawConfig, machine: &Machine) -> Option<Config> {
        if raw.node_name.is_empty() {
            raw.node_name = machine.hostname.to_lowercase();
        }
        if raw.datapath.workers == 0 {
            let workers = (machine.cores / 2).clamp(1, MAX_AUTOMATIC_WORKERS);
            raw.datapath.workers = i64::try_from(workers).unwrap_or(1);
        }
        if raw.api.socket.is_empty() {
            raw.api.socket = format!("{}/api.sock", raw.run_dir.trim_end_matches('/'));
        }
        self.require(is_subdomain(&raw.node_name), "node_name", || {
            format!(
                "{:?} is not a node name (RFC 1123 subdomain, lower case)",
                raw.node_name
            )
        });
        let state_dir = self.directory("state_dir", &raw.state_dir);
        let run_dir = self.directory("run_dir", &raw.run_dir);
        let cluster = self.cluster(&raw.cluster);
        let network = self.network(&raw);
        let service = self.service(&raw);
        let datapath = self.datapath(&raw);
        let deny = self.parse("policy.deny", &raw.policy.deny);
        let flows = self.flows(&raw.flows);
        let flow_export = self.flow_export(&raw.flows);
        let api = self.api(&raw);
        let log = self.log(&raw);
        Some(Config {
            node_name: raw.node_name.clone(),
            state_dir,
            run_dir,
            cluster: cluster?,
            network: network?,
            service: service?,
            datapath,
            policy: PolicyConfig { deny: deny? },
            flows: flows?,
            flow_export,
            api,
            log: log?,
            ignored_environment: Vec::new(),
            effective: raw,
        })
    }

    fn network(&mut self, raw: &RawConfig) -> Option<NetworkConfig> {
        let network = &raw.network;
        let pod_cidrs = self.cidrs("network.pod_cidrs", &network.pod_cidrs);
        self.pod_cidrs(&pod_cidrs, network.pod_cidrs.is_empty());
        let cluster_cidrs = self.cidrs("network.cluster_cidrs", &network.cluster_cidrs);
        let mtu = self.mtu(
            &network.mtu,
            pod_cidrs.iter().any(|cidr| cidr.addr().is_ipv6()),
        );
        let gateway_ifname = self.ifname("network.gateway_ifname", &network.gateway_ifname);
        let backend = self.parse("network.backend", &network.backend);
        let iface =
            (!network.iface.is_empty()).then(|| self.ifname("network.iface", &network.iface));
        let vxlan = self.vxlan(network);
        let suffix = &network.nft_table_suffix;
        let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        let is_suffix = suffix.len() <= 16 && suffix.bytes().all(is_word);
        self.require(is_suffix, "network.nft_table_suffix", || {
            format!("{suffix:?} may only have 16 of a-z, 0-9 and _")
        });
        let namespace = &network.default_namespace;
        self.require(is_label(namespace), "network.default_namespace", || {
            format!("{namespace:?} is not a namespace (RFC 1123 label)")
        });
        let rest = self.range(
            "network.lease_rest_seconds",
            network.lease_rest_seconds,
            0,
            604_800,
        );
        Some(NetworkConfig {
            pod_cidrs,
            cluster_cidrs,
            mtu,
            backend: backend?,
            iface: iface.flatten(),
            vxlan: vxlan?,
            gateway_ifname: gateway_ifname?,
            masquerade: network.masquerade,
            nft_table_suffix: suffix.clone(),
            default_namespace: namespace.clone(),
            lease_rest: Duration::from_secs(rest),
        })
    }

    /// The name also stands in firewall rules, whose syntax takes no others.
    fn ifname(&mut self, key: &str, name: &str) -> Option<IfName> {
        let is_plain = name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-@".contains(&b));
        self.require(is_plain, key, || {
            format!("{name:?} may only have letters, digits and _ . - @")
        });
        self.parse(key, name)
    }

    fn vxlan(&mut self, network: &RawNetwork) -> Option<VxlanConfig> {
        let vni = self.range("network.vxlan_vni", network.vxlan_vni, 1, 0xff_ffff);
        let port = self.range("network.vxlan_port", network.vxlan_port, 1, 65_535);
        let key = "network.vxlan_ifname";
        let name = &network.vxlan_ifname;
        // One byte is left for the name of the tunnel over IPv6.
        self.require(name.len() <= 14, key, || {
            format!("{name:?} is longer than 14 bytes")
        });
        self.require(*name != network.gateway_ifname, key, || {
            format!("{name:?} is network.gateway_ifname as well")
        });
        Some(VxlanConfig {
            vni: u32::try_from(vni).unwrap_or(1),
            port: u16::try_from(port).unwrap_or(1),
            ifname: self.ifname(key, name)?,
        })
    }

    fn pod_cidrs(&mut self, cidrs: &[IpNet], is_empty: bool) {
        let key = "network.pod_cidrs";
        self.require(!is_empty, key, || "must have at least one CIDR".to_owned());
        self.assignable(key, cidrs, "pod", "a gateway and a pod");
    }

    fn service(&mut self, raw: &RawConfig) -> Option<ServiceConfig> {
        let key = "service.cidrs";
        let cidrs = self.cidrs(key, &raw.service.cidrs);
        self.assignable(key, &cidrs, "Service", "a Service");
        let pods = raw.network.pod_cidrs.iter();
        for pods in pods.filter_map(|text| text.parse::<IpNet>().ok()) {
            for cidr in &cidrs {
                let overlaps = cidr.contains(&pods) || pods.contains(cidr);
                self.require(!overlaps, key, || {
                    format!("{cidr} overlaps {pods} of network.pod_cidrs")
                });
            }
        }
        Some(ServiceConfig {
            cidrs,
            node_ports: self.ports("service.node_ports", &raw.service.node_ports)?,
        })
    }

    /// Addresses of `whose` are given out from these.
    fn assignable(&mut self, key: &str, cidrs: &[IpNet], whose: &str, room_for: &str) {
        for family_is_v4 in [true, false] {
            let count = cidrs
                .iter()
                .filter(|c| c.addr().is_ipv4() == family_is_v4)
                .count();
            self.require(count <= 1, key, || {
                let family = if family_is_v4 { "IPv4" } else { "IPv6" };
                format!("has {count} {family} CIDRs; a {whose} has one address per family")
            });
        }
        for cidr in cidrs {
            let room = cidr.max_prefix_len() - cidr.prefix_len();
            self.require(room >= 2, key, || {
                format!("{cidr} has no room for {room_for}")
            });
            let ip = cidr.addr();
            let is_special = ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_multicast()
                || match ip {
                    IpAddr::V4(ip) => ip.is_link_local(),
                    IpAddr::V6(ip) => ip.is_unicast_link_local(),
                };
            self.require(!is_special, key, || {
                format!("{cidr} cannot be the addresses of {whose}s")
            });
        }
    }

    fn cidrs(&mut self, key: &str, texts: &[String]) -> Vec<IpNet> {
        let mut cidrs: Vec<IpNet> = Vec::new();
        for text in texts {
            let Ok(cidr) = text.parse::<IpNet>() else {
                self.report(key, format!("{text:?} is not a CIDR like 10.244.0.0/24"));
                continue;
            };
            self.require(cidr.trunc() == cidr, key, || {
                format!("{cidr} has host bits set; {} is meant?", cidr.trunc())
            });
            self.require(!cidrs.contains(&cidr), key, || {
                format!("{cidr} is there twice")
            });
            cidrs.push(cidr);
        }
        cidrs
    }

    fn ports(&mut self, key: &str, text: &str) -> Option<RangeInclusive<u16>> {
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
        let range = text.split_once('-').and_then(|(first, last)| {
            let (first, last) = (port(first)?, port(last)?);
            (first <= last).then_some(first..=last)
        });
        self.require(range.is_some(), key, || {
            format!("{text:?} is not a range of ports like 30000-32767")
        });
        range
    }

    fn mtu(&mut self, mtu: &RawMtu, has_v6: bool) -> MtuSetting {
        let bytes = match mtu {
            RawMtu::Bytes(bytes) => *bytes,
            RawMtu::Text(text) if text == "auto" => return MtuSetting::Auto,
            // Environment and flags are texts, numbers among them.
            RawMtu::Text(text) => text.parse().unwrap_or(-1),
        };
        // RFC 791: every IPv4 link carries 68 bytes; RFC 8200 §5: every IPv6 link 1280.
        let least = if has_v6 { 1280 } else { 68 };
        let bytes = u16::try_from(bytes).ok().filter(|bytes| *bytes >= least);
        self.require(bytes.is_some(), "network.mtu", || {
            format!("must be \"auto\" or {least} to 65535 bytes")
        });
        bytes.map_or(MtuSetting::Auto, MtuSetting::Bytes)
    }

    fn datapath(&mut self, raw: &RawConfig) -> DatapathSettings {
        let datapath = &raw.datapath;
        let cache = self.range(
            "datapath.flow_cache_entries",
            datapath.flow_cache_entries,
            0,
            16_777_216,
        );
        let poll = self.range("datapath.idle_polls", datapath.idle_polls, 0, 1_000_000);
        let workers = self.range("datapath.workers", datapath.workers, 0, 256);
        DatapathSettings {
            workers: usize::try_from(workers).unwrap_or(1),
            flow_cache_entries: usize::try_from(cache).unwrap_or(0),
            idle_polls: u32::try_from(poll).unwrap_or(0),
            fast_path: self
                .parse("datapath.fast_path", &datapath.fast_path)
                .unwrap_or_default(),
            conntrack: self.conntrack(&raw.conntrack),
        }
    }

    fn conntrack(&mut self, raw: &RawConntrack) -> ConntrackConfig {
        let mut conntrack = ConntrackConfig::default();
        let entries = self.range("conntrack.max_entries", raw.max_entries, 1024, 67_108_864);
        conntrack.max_entries = usize::try_from(entries).unwrap_or(conntrack.max_entries);
        let c = &mut conntrack;
        let timeouts = [
            (
                &mut c.tcp_syn_sent,
                "tcp_timeout_syn_sent",
                raw.tcp_timeout_syn_sent,
            ),
            (
                &mut c.tcp_syn_recv,
                "tcp_timeout_syn_recv",
                raw.tcp_timeout_syn_recv,
            ),
            (
                &mut c.tcp_established,
                "tcp_timeout_established",
                raw.tcp_timeout_established,
            ),
            (
                &mut c.tcp_fin_wait,
                "tcp_timeout_fin_wait",
                raw.tcp_timeout_fin_wait,
            ),
            (
                &mut c.tcp_close_wait,
                "tcp_timeout_close_wait",
                raw.tcp_timeout_close_wait,
            ),
            (
                &mut c.tcp_last_ack,
                "tcp_timeout_last_ack",
                raw.tcp_timeout_last_ack,
            ),
            (
                &mut c.tcp_time_wait,
                "tcp_timeout_time_wait",
                raw.tcp_timeout_time_wait,
            ),
            (&mut c.tcp_close, "tcp_timeout_close", raw.tcp_timeout_close),
            (
                &mut c.tcp_unacknowledged,
                "tcp_timeout_unacknowledged",
                raw.tcp_timeout_unacknowledged,
            ),
            (&mut c.udp, "udp_timeout", raw.udp_timeout),
            (
                &mut c.udp_stream,
                "udp_timeout_stream",
                raw.udp_timeout_stream,
            ),
            (&mut c.icmp, "icmp_timeout", raw.icmp_timeout),
            (&mut c.sctp_init, "sctp_timeout_init", raw.sctp_timeout_init),
            (
                &mut c.sctp_established,
                "sctp_timeout_established",
                raw.sctp_timeout_established,
            ),
            (
                &mut c.sctp_shutdown,
                "sctp_timeout_shutdown",
                raw.sctp_timeout_shutdown,
            ),
            (&mut c.generic, "generic_timeout", raw.generic_timeout),
            (&mut c.fragment, "frag_timeout", raw.frag_timeout),
        ];
        for (timeout, name, seconds) in timeouts {
            let seconds = self.range(&format!("conntrack.{name}"), seconds, 1, 2_592_000);
            *timeout = Duration::from_secs(seconds);
        }
        conntrack
    }

    fn log(&mut self, raw: &RawConfig) -> Option<LogConfig> {
        let level = &raw.log.level;
        if let Err(problem) = telemetry::check_level(level) {
            self.report("log.level", problem.to_string());
        }
        let format = self.parse("log.format", &raw.log.format);
        Some(LogConfig {
            level: level.clone(),
            format: format?,
        })
    }

    /// A path that may be left out.
    fn file(&mut self, key: &str, text: &str) -> Option<PathBuf> {
        (!text.is_empty()).then(|| self.directory(key, text))
    }

    /// Paths must not depend on the directory that the daemon is started in.
    fn directory(&mut self, key: &str, text: &str) -> PathBuf {
        self.require(Path::new(text).is_absolute(), key, || {
            format!("{text:?} is not an absolute path")
        });
        PathBuf::from(text)
    }

    fn range(&mut self, key: &str, value: i64, least: u64, most: u64) -> u64 {
        let fitting = u64::try_from(value)
            .ok()
            .filter(|value| (least..=most).contains(value));
        self.require(fitting.is_some(), key, || {
            format!("{value} is not in {least} to {most}")
        });
        fitting.unwrap_or(least)
    }

    fn parse<T: FromStr<Err: std::fmt::Display>>(&mut self, key: &str, text: &str) -> Option<T> {
        text.parse()
            .map_err(|error: T::Err| self.report(key, error.to_string()))
            .ok()
    }

    fn require(&mut self, holds: bool, key: &str, problem: impl FnOnce() -> String) {
        if !holds {
            self.report(key, problem());
        }
    }

    fn report(&mut self, key: &str, problem: String) {
        let place = self
            .places
            .get(key)
            .map_or("default", String::as_str)
            .to_owned();
        self.problems.push(Problem {
            place,
            key: key.to_owned(),
            problem,
        });
    }
}

impl FromStr for Deny {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "drop" => Ok(Self::Drop),
            "reject" => Ok(Self::Reject),
            _ => Err(format!("{text:?} is none of drop, reject")),
        }
    }
}

impl FromStr for FastPathSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            _ => Err(format!("{text:?} is none of auto, off")),
        }
    }
}

impl FromStr for RecordedShare {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let one_in = || text.strip_prefix("1/")?.parse().ok();
        match text {
            "off" => Ok(Self::OFF),
            "all" => Ok(Self::ALL),
            _ => match one_in() {
                Some(of) if (1..=1_000_000).contains(&of) => Ok(Self(of)),
                _ => Err(format!(
                    "{text:?} is none of off, all, 1/N with N from 1 to 1000000"
                )),
            },
        }
    }
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "journald" => Ok(Self::Journald),
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err(format!("{text:?} is none of auto, journald, json, text")),
        }
    }
}

/// RFC 1123 label as Kubernetes takes it.
fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// RFC 1123 subdomain as Kubernetes takes it for the names of nodes.
fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}
