//! Records as log records of OpenTelemetry, in the messages that it publishes.
//!
//! Attributes have the names of its semantic conventions where those have one; what concerns one of
//! the two pods has theirs behind `source.` or `destination.`.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use vswitch_api::v1::{FlowCount, FlowEnd, FlowRecord, FlowRule};

use super::sentence::sentence;
use crate::flow_records::parse_time;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Returns a request with records of this node, at `now`, seconds since 1970.
pub(super) fn request(records: &[FlowRecord], now: u64) -> ExportLogsServiceRequest {
    let node = records.first().map(|record| record.node.as_str());
    let mut of_daemon = Attributes::default();
    of_daemon.text("service.name", "vswitchd");
    of_daemon.text("service.version", VERSION);
    of_daemon.some("k8s.node.name", node);
    let logs = ScopeLogs {
        scope: Some(InstrumentationScope {
            name: "vswitchd.flow_records".to_owned(),
            version: VERSION.to_owned(),
            ..InstrumentationScope::default()
        }),
        log_records: records.iter().map(|of| log_record(of, now)).collect(),
        ..ScopeLogs::default()
    };
    let logs = ResourceLogs {
        resource: Some(Resource {
            attributes: of_daemon.0,
            ..Resource::default()
        }),
        scope_logs: vec![logs],
        ..ResourceLogs::default()
    };
    ExportLogsServiceRequest {
        resource_logs: vec![logs],
    }
}

fn log_record(record: &FlowRecord, now: u64) -> LogRecord {
    // What policies in audit would deny did pass.
    let (severity, text) = match record.of.verdict.as_str() {
        "would_deny" | "allowed" => (SeverityNumber::Info, "INFO"),
        _ => (SeverityNumber::Warn, "WARN"),
    };
    let time = parse_time(&record.last, now).unwrap_or(now);
    LogRecord {
        time_unix_nano: nanoseconds(time),
        observed_time_unix_nano: nanoseconds(now),
        severity_number: severity.into(),
        severity_text: text.to_owned(),
        body: Some(value(Value::StringValue(sentence(record)))),
        attributes: attributes(record).0,
        event_name: "vswitch.flow_record".to_owned(),
        ..LogRecord::default()
    }
}

const fn nanoseconds(seconds: u64) -> u64 {
    seconds.saturating_mul(1_000_000_000)
}

fn attributes(record: &FlowRecord) -> Attributes {
    let of = &record.of;
    let mut all = Attributes::default();
    all.end("source", of.source.as_ref());
    all.end("destination", of.destination.as_ref());
    let transport = of.protocol.as_ref().map(|name| name.to_lowercase());
    let is_icmp = transport.as_ref().is_some_and(|of| of.starts_with("icmp"));
    all.some("network.transport", transport.as_deref());
    if let Some(end) = of.destination.as_ref() {
        let family = if end.address.is_ipv4() {
            "ipv4"
        } else {
            "ipv6"
        };
        all.text("network.type", family);
    }
    if let Some(number) = of.port {
        let name = if is_icmp {
            "vswitch.icmp.type"
        } else {
            "destination.port"
        };
        all.number(name, number.into());
    }
    all.text("vswitch.verdict", &of.verdict);
    all.text("vswitch.reason", &of.reason);
    all.some("vswitch.direction", of.direction.as_deref());
    all.some("vswitch.service", of.service.as_deref());
    all.texts("vswitch.policies", &of.policies);
    if let Some(rule) = &of.rule {
        all.text("vswitch.rule.table", &rule.table);
        all.text("vswitch.rule.kind", &rule.kind);
        all.text("vswitch.rule.name", &rule.name);
        all.text("vswitch.rule.part", &rule.part);
    }
    let rules = of
        .allowed_by
        .iter()
        .map(FlowRule::to_string)
        .collect::<Vec<_>>();
    if !rules.is_empty() {
        all.texts("vswitch.allowed_by", &rules);
    }
    all.some("vswitch.event", of.event.as_deref());
    all.some("vswitch.end", of.end.as_deref());
    if let Some(traffic) = &record.traffic {
        all.count("sent", traffic.sent);
        all.count("received", traffic.received);
        all.number("vswitch.duration_ms", traffic.duration_ms);
    }
    all.number("vswitch.packets", record.packets);
    all.number("vswitch.connections", record.connections);
    all.text("vswitch.first", &record.first);
    all
}

fn value(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

#[derive(Debug, Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn add(&mut self, name: &str, of: Value) {
        self.0.push(KeyValue {
            key: name.to_owned(),
            value: Some(value(of)),
            ..KeyValue::default()
        });
    }

    fn text(&mut self, name: &str, text: &str) {
        self.add(name, Value::StringValue(text.to_owned()));
    }

    fn some(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    fn number(&mut self, name: &str, number: u64) {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        self.add(name, Value::IntValue(number));
    }

    fn texts(&mut self, name: &str, texts: &[String]) {
        let texts = texts.iter().cloned().map(Value::StringValue);
        let values = texts.map(value).collect();
        self.add(name, Value::ArrayValue(ArrayValue { values }));
    }

    fn count(&mut self, which: &str, count: FlowCount) {
        self.number(&format!("vswitch.{which}.packets"), count.packets);
        self.number(&format!("vswitch.{which}.bytes"), count.bytes);
    }

    fn end(&mut self, which: &str, end: Option<&FlowEnd>) {
        let Some(end) = end else { return };
        let name = |of: &str| format!("{which}.{of}");
        self.text(&name("address"), &end.address.to_string());
        if let Some((namespace, pod)) = end.pod.as_ref().and_then(|pod| pod.split_once('/')) {
            self.text(&name("k8s.namespace.name"), namespace);
            self.text(&name("k8s.pod.name"), pod);
        }
        self.some(&name("vswitch.workload"), end.workload.as_deref());
    }
}
