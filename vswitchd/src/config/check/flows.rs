//! `[flows]`.

use std::time::Duration;

use super::Checker;
use crate::config::{FlowExportConfig, FlowFileConfig, FlowsConfig, OtlpConfig, RawFlows};

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
