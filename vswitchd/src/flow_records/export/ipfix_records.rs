//! Records as data records of IPFIX (RFC 7011 section 3.4.3), field by field.
//!
//! Fields are information elements of IANA's registry (<https://www.iana.org/assignments/ipfix>)
//! where that has one; what the answers carried stands in the reverse ones (RFC 5103). There are
//! none for names of pods and policies: those have numbers of our own, [`own`], under the enterprise
//! number of whoever runs the switch, since the project has none, and are left out without one. A
//! record has no field for what it does not know; what has other fields has another template.

use std::net::{IpAddr, SocketAddr};

use netflow_parser::variable_versions::ipfix::TemplateField;
use netflow_parser::variable_versions::ipfix::lookup::IPFixField;
use netflow_parser::{DataNumber, FieldValue};
use vswitch_api::v1::{FlowEnd, FlowOf, FlowRecord};
use vswitch_datapath::flow::ip_proto;

use crate::config::IpfixConfig;
use crate::flow_records::parse_time;
use crate::policy::explain::protocol_number;

/// Length of an element in a template whose values have lengths of their own (RFC 7011 section 7).
pub(super) const VARIABLE: u16 = 65_535;

/// Most bytes of a text: a message has room for all of them.
const MAX_TEXT: usize = 1_024;

/// Numbers of IANA's elements.
mod iana {
    pub(super) const OCTET_DELTA_COUNT: u16 = 1;
    pub(super) const PACKET_DELTA_COUNT: u16 = 2;
    pub(super) const DELTA_FLOW_COUNT: u16 = 3;
    pub(super) const PROTOCOL_IDENTIFIER: u16 = 4;
    pub(super) const SOURCE_IPV4_ADDRESS: u16 = 8;
    pub(super) const DESTINATION_TRANSPORT_PORT: u16 = 11;
    pub(super) const DESTINATION_IPV4_ADDRESS: u16 = 12;
    pub(super) const SOURCE_IPV6_ADDRESS: u16 = 27;
    pub(super) const DESTINATION_IPV6_ADDRESS: u16 = 28;
    pub(super) const DROPPED_PACKET_DELTA_COUNT: u16 = 133;
    pub(super) const FLOW_END_REASON: u16 = 136;
    pub(super) const FLOW_START_MILLISECONDS: u16 = 152;
    pub(super) const FLOW_END_MILLISECONDS: u16 = 153;
    pub(super) const ICMP_TYPE_IPV4: u16 = 176;
    pub(super) const ICMP_TYPE_IPV6: u16 = 178;
    pub(super) const POST_NAT_DESTINATION_IPV4_ADDRESS: u16 = 226;
    pub(super) const POST_NAPT_DESTINATION_TRANSPORT_PORT: u16 = 228;
    pub(super) const FIREWALL_EVENT: u16 = 233;
    pub(super) const POST_NAT_DESTINATION_IPV6_ADDRESS: u16 = 282;
    pub(super) const OBSERVATION_DOMAIN_NAME: u16 = 300;
}

/// Numbers of our own elements; docs/flows.md lists them. A number that was given keeps its meaning.
pub(super) mod own {
    pub(crate) const SOURCE_POD_NAMESPACE: u16 = 1;
    pub(crate) const SOURCE_POD_NAME: u16 = 2;
    pub(crate) const SOURCE_WORKLOAD: u16 = 3;
    pub(crate) const DESTINATION_POD_NAMESPACE: u16 = 4;
    pub(crate) const DESTINATION_POD_NAME: u16 = 5;
    pub(crate) const DESTINATION_WORKLOAD: u16 = 6;
    pub(crate) const VERDICT: u16 = 7;
    pub(crate) const REASON: u16 = 8;
    pub(crate) const DIRECTION: u16 = 9;
    pub(crate) const POLICY_NAME: u16 = 10;
    pub(crate) const POLICY_RULE: u16 = 11;
    pub(crate) const END: u16 = 12;
    pub(crate) const DURATION_MILLISECONDS: u16 = 13;
}

/// An information element, as a template describes it, and its value.
pub(super) type Field = (TemplateField, FieldValue);

/// Returns the fields of a record, at `now`, seconds since 1970; our own ones under the enterprise
/// number that is given.
pub(super) fn fields(record: &FlowRecord, enterprise: Option<u32>, now: u64) -> Vec<Field> {
    let of = &record.of;
    let mut all = Fields {
        enterprise,
        fields: Vec::new(),
    };
    let milliseconds = |time: &str| parse_time(time, now).unwrap_or(now) * 1_000;
    all.number(iana::FLOW_START_MILLISECONDS, milliseconds(&record.first));
    all.number(iana::FLOW_END_MILLISECONDS, milliseconds(&record.last));
    all.text(iana::OBSERVATION_DOMAIN_NAME, None, &record.node);
    all.ends(of);
    if let Some(event) = firewall_event(of) {
        all.octet(iana::FIREWALL_EVENT, event);
    }
    all.counts(record);
    if let Some(enterprise) = enterprise {
        all.names(record, enterprise);
    }
    all.fields
}

/// Returns the value of firewallEvent.
fn firewall_event(of: &FlowOf) -> Option<u8> {
    match (of.verdict.as_str(), of.event.as_deref()) {
        ("allowed", Some("begin")) => Some(1),
        ("allowed", Some("end")) => Some(2),
        ("denied" | "cut", _) => Some(3),
        // An alert: it did pass.
        ("would_deny", _) => Some(4),
        _ => None,
    }
}

/// Returns the value of flowEndReason.
fn end_reason(end: &str) -> u8 {
    match end {
        "timeout" => 1,
        "fin" | "rst" => 3,
        "evicted" => 5,
        // Forced: by a change of policies, of Services or of ports.
        _ => 4,
    }
}

#[derive(Debug)]
struct Fields {
    enterprise: Option<u32>,
    fields: Vec<Field>,
}

impl Fields {
    fn add(&mut self, number: u16, enterprise: Option<u32>, length: u16, value: FieldValue) {
        let element = TemplateField {
            field_type_number: number,
            field_length: length,
            enterprise_number: enterprise,
            field_type: IPFixField::new(number, enterprise),
        };
        self.fields.push((element, value));
    }

    fn octet(&mut self, number: u16, value: u8) {
        let value = FieldValue::DataNumber(DataNumber::U8(value));
        self.add(number, None, 1, value);
    }

    fn port(&mut self, number: u16, value: u16) {
        let value = FieldValue::DataNumber(DataNumber::U16(value));
        self.add(number, None, 2, value);
    }

    fn number(&mut self, number: u16, value: u64) {
        self.number_of(number, None, value);
    }

    fn number_of(&mut self, number: u16, enterprise: Option<u32>, value: u64) {
        let value = FieldValue::DataNumber(DataNumber::U64(value));
        self.add(number, enterprise, 8, value);
    }

    /// Adds an address, as one of IPv4 or of IPv6.
    fn address(&mut self, (v4, v6): (u16, u16), address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.add(v4, None, 4, FieldValue::Ip4Addr(address)),
            IpAddr::V6(address) => self.add(v6, None, 16, FieldValue::Ip6Addr(address)),
        }
    }

    /// Adds a text that is none if it is empty.
    fn text(&mut self, number: u16, enterprise: Option<u32>, text: &str) {
        let text = &text[..text.floor_char_boundary(MAX_TEXT)];
        if !text.is_empty() {
            let value = FieldValue::Vec(text.as_bytes().to_vec());
            self.add(number, enterprise, VARIABLE, value);
        }
    }

    /// Adds who spoke with whom, and about what: what was asked for, and behind a Service what that
    /// became.
    fn ends(&mut self, of: &FlowOf) {
        if let Some(source) = &of.source {
            let elements = (iana::SOURCE_IPV4_ADDRESS, iana::SOURCE_IPV6_ADDRESS);
            self.address(elements, source.address);
        }
        let behind = of.destination.as_ref().map(|of| of.address);
        let service = of.service.as_ref();
        let service = service.and_then(|service| service.parse::<SocketAddr>().ok());
        if let Some(asked) = service.map(|service| service.ip()).or(behind) {
            let elements = (
                iana::DESTINATION_IPV4_ADDRESS,
                iana::DESTINATION_IPV6_ADDRESS,
            );
            self.address(elements, asked);
        }
        let protocol = of.protocol.as_deref().and_then(protocol_number);
        if let Some(protocol) = protocol {
            self.octet(iana::PROTOCOL_IDENTIFIER, protocol);
        }
        match (protocol, of.port) {
            (_, None) => {}
            (Some(ip_proto::ICMP), Some(kind)) => {
                self.octet(iana::ICMP_TYPE_IPV4, u8::try_from(kind).unwrap_or(0));
            }
            (Some(ip_proto::ICMPV6), Some(kind)) => {
                self.octet(iana::ICMP_TYPE_IPV6, u8::try_from(kind).unwrap_or(0));
            }
            (_, Some(port)) => {
                let asked = service.map_or(port, |service| service.port());
                self.port(iana::DESTINATION_TRANSPORT_PORT, asked);
            }
        }
        if let (Some(_), Some(address), Some(port)) = (service, behind, of.port) {
            let v4 = iana::POST_NAT_DESTINATION_IPV4_ADDRESS;
            let v6 = iana::POST_NAT_DESTINATION_IPV6_ADDRESS;
            self.address((v4, v6), address);
            self.port(iana::POST_NAPT_DESTINATION_TRANSPORT_PORT, port);
        }
    }

    /// Adds how many, and what they carried.
    fn counts(&mut self, record: &FlowRecord) {
        self.number(iana::DELTA_FLOW_COUNT, record.connections);
        if record.of.verdict != "allowed" {
            self.number(iana::DROPPED_PACKET_DELTA_COUNT, record.packets);
        }
        if let Some(end) = &record.of.end {
            self.octet(iana::FLOW_END_REASON, end_reason(end));
        }
        if let Some(traffic) = &record.traffic {
            let reverse = Some(IpfixConfig::REVERSE);
            for (count, enterprise) in [(traffic.sent, None), (traffic.received, reverse)] {
                self.number_of(iana::PACKET_DELTA_COUNT, enterprise, count.packets);
                self.number_of(iana::OCTET_DELTA_COUNT, enterprise, count.bytes);
            }
        }
    }

    /// Adds what has no element of IANA's.
    fn names(&mut self, record: &FlowRecord, enterprise: u32) {
        let of = &record.of;
        let source = [
            own::SOURCE_POD_NAMESPACE,
            own::SOURCE_POD_NAME,
            own::SOURCE_WORKLOAD,
        ];
        let destination = [
            own::DESTINATION_POD_NAMESPACE,
            own::DESTINATION_POD_NAME,
            own::DESTINATION_WORKLOAD,
        ];
        self.end(source, of.source.as_ref());
        self.end(destination, of.destination.as_ref());
        let rules: Vec<String> = of
            .rule
            .iter()
            .chain(&of.allowed_by)
            .map(ToString::to_string)
            .collect();
        for (number, text) in [
            (own::VERDICT, of.verdict.as_str()),
            (own::REASON, &of.reason),
            (own::DIRECTION, of.direction.as_deref().unwrap_or_default()),
            (own::POLICY_NAME, &of.policies.join(",")),
            (own::POLICY_RULE, &rules.join("; ")),
            (own::END, of.end.as_deref().unwrap_or_default()),
        ] {
            self.text(number, Some(enterprise), text);
        }
        if let Some(traffic) = &record.traffic {
            let duration = traffic.duration_ms;
            self.number_of(own::DURATION_MILLISECONDS, Some(enterprise), duration);
        }
    }

    fn end(&mut self, [namespace, name, workload]: [u16; 3], end: Option<&FlowEnd>) {
        let pod = end.and_then(|end| end.pod.as_ref()?.split_once('/'));
        let (of, pod) = pod.unwrap_or_default();
        let belongs_to = end.and_then(|end| end.workload.as_deref());
        for (number, text) in [
            (namespace, of),
            (name, pod),
            (workload, belongs_to.unwrap_or_default()),
        ] {
            self.text(number, self.enterprise, text);
        }
    }
}
