//! `[flows]`.

use std::net::SocketAddrV6;
use std::num::NonZero;
use std::time::Duration;

use super::Checker;
use crate::config::{
    FlowExportConfig, FlowFileConfig, FlowsConfig, IpfixConfig, IpfixTransport, OtlpConfig,
    RawFlows,
};

impl Checker {
    pub(super) fn flows(&mut self, raw: &RawFlows) -> Option<FlowsConfig> {
        let hours = self.range("flows.keep_hours", raw.keep_hours, 1, 8_760);
        let megabytes = self.range("flows.max_megabytes", raw.max_megabytes, 1, 1_048_576);
        let connections = self.parse("flows.connections", &raw.connections);
        Some(FlowsConfig {
            keep: Duration::from_secs(hours * 3_600),
            max_bytes: megabytes << 20,
            events: raw.events,
            connections: connections?,
            connection_starts: raw.connection_starts,
        })
    }

    pub(super) fn flow_export(&mut self, raw: &RawFlows) -> FlowExportConfig {
        FlowExportConfig {
            file: self.flow_file(raw),
            journald: raw.journald,
            otlp: self.otlp(raw),
            ipfix: self.ipfix(raw),
        }
    }

    fn otlp(&mut self, raw: &RawFlows) -> Option<OtlpConfig> {
        let (key, endpoint) = ("flows.otlp_endpoint", &raw.otlp_endpoint);
        let ca_file = self.file("flows.otlp_ca_file", &raw.otlp_ca_file);
        if endpoint.is_empty() {
            return None;
        }
        let schemes = ["http://", "https://"];
        let address = schemes.iter().find_map(|of| endpoint.strip_prefix(of));
        let is_address = |rest: &str| {
            let is_plain = |c: char| c.is_ascii_graphic() && !"?#@".contains(c);
            !rest.is_empty() && !rest.starts_with('/') && rest.chars().all(is_plain)
        };
        self.require(address.is_some_and(is_address), key, || {
            format!("{endpoint:?} is not an address like http://collector:4318")
        });
        Some(OtlpConfig {
            endpoint: endpoint.clone(),
            ca_file,
        })
    }

    /// As with a file, the numbers are checked in any case.
    fn ipfix(&mut self, raw: &RawFlows) -> Option<IpfixConfig> {
        let (key, collector) = ("flows.ipfix_collector", &raw.ipfix_collector);
        let number = raw.ipfix_enterprise;
        let enterprise = self.range("flows.ipfix_enterprise", number, 0, u32::MAX.into());
        let reverse = IpfixConfig::REVERSE;
        self.require(
            number != i64::from(reverse),
            "flows.ipfix_enterprise",
            || format!("{reverse} is the number of RFC 5103"),
        );
        let seconds = raw.ipfix_template_seconds;
        let seconds = self.range("flows.ipfix_template_seconds", seconds, 1, 86_400);
        if collector.is_empty() {
            return None;
        }
        let schemes = [
            ("udp://", IpfixTransport::Udp),
            ("tcp://", IpfixTransport::Tcp),
        ];
        let mut schemes = schemes.into_iter();
        let parts = schemes.find_map(|(scheme, of)| Some((of, collector.strip_prefix(scheme)?)));
        let parts = parts.filter(|(_, address)| is_host_and_port(address));
        self.require(parts.is_some(), key, || {
            format!("{collector:?} is not an address like udp://collector:4739")
        });
        let (transport, address) = parts?;
        Some(IpfixConfig {
            transport,
            address: address.to_owned(),
            enterprise: u32::try_from(enterprise).ok().filter(|of| *of != 0),
            template_refresh: Duration::from_secs(seconds),
        })
    }

    /// The numbers are checked without a file as well, so that one finds no surprise.
    fn flow_file(&mut self, raw: &RawFlows) -> Option<FlowFileConfig> {
        let path = self.file("flows.file", &raw.file);
        let is_file = !raw.file.ends_with('/');
        self.require(is_file, "flows.file", || {
            format!("{:?} is a folder's path, not a file's", raw.file)
        });
        let megabytes = raw.file_max_megabytes;
        let megabytes = self.range("flows.file_max_megabytes", megabytes, 1, 1_048_576);
        let keep = self.range("flows.file_keep", raw.file_keep, 0, 1_000);
        Some(FlowFileConfig {
            path: path?,
            max_bytes: megabytes << 20,
            keep: usize::try_from(keep).unwrap_or(0),
        })
    }
}

/// Returns whether that is a name or an address, an IPv6 address in brackets, and a port.
fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let is_host = !host.is_empty() && host.chars().all(is_of_name);
    let is_v6 = || text.parse::<SocketAddrV6>().is_ok();
    (is_host || is_v6()) && port.parse::<NonZero<u16>>().is_ok()
}
