//! Records as entries of the journal, in its native protocol
//! (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>): fields `NAME=value`, a line each. A value with
//! line breaks stands behind its name and its length.

use vswitch_api::v1::{FlowCount, FlowEnd, FlowRecord};

use super::sentence::sentence;

/// syslog(3) priorities.
const WARNING: &str = "4";
const INFO: &str = "6";

/// Policies that are fields of their own: journald refuses entries of more than 1,024 fields.
const MAX_POLICIES: usize = 64;

/// Returns a record as an entry.
pub(super) fn entry(record: &FlowRecord) -> Vec<u8> {
    let of = &record.of;
    let mut entry = Entry::default();
    entry.field("MESSAGE", &sentence(record));
    // What policies in audit would deny did pass.
    let priority = match of.verdict.as_str() {
        "would_deny" | "allowed" => INFO,
        _ => WARNING,
    };
    entry.field("PRIORITY", priority);
    entry.field("SYSLOG_IDENTIFIER", "vswitchd");
    entry.field("VSWITCH_NODE", &record.node);
    entry.field("VSWITCH_VERDICT", &of.verdict);
    entry.field("VSWITCH_REASON", &of.reason);
    entry.some("VSWITCH_DIRECTION", of.direction.as_deref());
    entry.end("SOURCE", of.source.as_ref());
    entry.end("DESTINATION", of.destination.as_ref());
    entry.some("VSWITCH_SERVICE", of.service.as_deref());
    entry.some("VSWITCH_PROTOCOL", of.protocol.as_deref());
    let port = of.port.map(|port| port.to_string());
    entry.some("VSWITCH_PORT", port.as_deref());
    for policy in of.policies.iter().take(MAX_POLICIES) {
        entry.field("VSWITCH_POLICY", policy);
    }
    for rule in of.rule.iter().chain(&of.allowed_by) {
        entry.field("VSWITCH_RULE_TABLE", &rule.table);
        entry.field("VSWITCH_RULE_KIND", &rule.kind);
        entry.field("VSWITCH_RULE_NAME", &rule.name);
        entry.field("VSWITCH_RULE_PART", &rule.part);
    }
    entry.some("VSWITCH_EVENT", of.event.as_deref());
    entry.some("VSWITCH_END", of.end.as_deref());
    entry.field("VSWITCH_PACKETS", &record.packets.to_string());
    entry.field("VSWITCH_CONNECTIONS", &record.connections.to_string());
    if let Some(traffic) = &record.traffic {
        entry.count("SENT", traffic.sent);
        entry.count("RECEIVED", traffic.received);
        entry.field("VSWITCH_DURATION_MS", &traffic.duration_ms.to_string());
    }
    entry.field("VSWITCH_FIRST", &record.first);
    entry.field("VSWITCH_LAST", &record.last);
    entry.bytes
}

#[derive(Debug, Default)]
struct Entry {
    bytes: Vec<u8>,
}

impl Entry {
    fn field(&mut self, name: &str, value: &str) {
        self.bytes.extend(name.bytes());
        if value.contains('\n') {
            let length = u64::try_from(value.len()).unwrap_or(u64::MAX);
            self.bytes.push(b'\n');
            self.bytes.extend(length.to_le_bytes());
        } else {
            self.bytes.push(b'=');
        }
        self.bytes.extend(value.bytes());
        self.bytes.push(b'\n');
    }

    fn some(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.field(name, value);
        }
    }

    fn count(&mut self, which: &str, count: FlowCount) {
        let name = |what| format!("VSWITCH_{which}_{what}");
        self.field(&name("PACKETS"), &count.packets.to_string());
        self.field(&name("BYTES"), &count.bytes.to_string());
    }

    fn end(&mut self, which: &str, end: Option<&FlowEnd>) {
        let Some(end) = end else { return };
        let name = |what| format!("VSWITCH_{which}_{what}");
        self.field(&name("ADDRESS"), &end.address.to_string());
        self.some(&name("POD"), end.pod.as_deref());
        self.some(&name("WORKLOAD"), end.workload.as_deref());
    }
}
