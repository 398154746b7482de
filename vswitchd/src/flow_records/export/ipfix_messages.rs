//! Messages of one transport session with a collector of IPFIX (RFC 7011 section 3): what they
//! number, and which templates they have told.
//!
//! Built and written with `netflow_parser`. A template is told in the message of its first record;
//! its number holds in this session alone (RFC 7011 section 8). There are as many as there are
//! combinations of what records know, some dozens.

use netflow_parser::FieldValue;
use netflow_parser::variable_versions::ipfix::{
    Data, FlowSet, FlowSetBody, FlowSetHeader, Header, IPFix, IPFixFlowRecord, Template,
    TemplateField,
};
use vswitch_api::v1::FlowRecord;

use super::ipfix_records::{VARIABLE, fields};

/// Most bytes of a message with more than one record: with its headers it passes where the least MTU
/// of IPv6 is all there is (RFC 8200 section 5), since the path is not known (RFC 7011 section 10.3.3).
const MAX_MESSAGE: usize = 1_280 - 48;

/// Set ID of templates, and the first Template ID (RFC 7011 sections 3.3.2 and 3.4.1).
const TEMPLATES: u16 = 2;
const FIRST_TEMPLATE: u16 = 256;

/// Bytes of the headers of a message, of a set and of a template.
const MESSAGE_HEADER: usize = 16;
const SET_HEADER: usize = 4;
const TEMPLATE_HEADER: usize = 4;

/// Sets begin at multiples of so many bytes.
const ALIGNED: usize = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Messages {
    enterprise: Option<u32>,
    /// Of this node, whatever address its messages come from.
    domain: u32,
    /// Data records of all messages so far (RFC 7011 section 3.1), which wraps.
    sequence: u32,
    /// Fields of the templates that were told; the first one is [`FIRST_TEMPLATE`].
    templates: Vec<Vec<TemplateField>>,
}

/// A set of a message that is being built.
#[derive(Debug)]
enum Set {
    Template(Template),
    Data {
        template: u16,
        lengths: Vec<u16>,
        records: Vec<IPFixFlowRecord>,
    },
}

impl Messages {
    /// Begins a session; our own elements are under the enterprise number that is given.
    pub(super) const fn new(enterprise: Option<u32>) -> Self {
        Self {
            enterprise,
            domain: 0,
            sequence: 0,
            templates: Vec::new(),
        }
    }

    /// Returns a message with as many of the records as it has room for, one at least, and how many
    /// those are. `now` is seconds since 1970.
    pub(super) fn next(&mut self, records: &[FlowRecord], now: u64) -> (Vec<u8>, usize) {
        if let Some(first) = records.first() {
            self.domain = crc32fast::hash(first.node.as_bytes());
        }
        let (mut sets, mut length, mut taken) = (Vec::new(), MESSAGE_HEADER, 0);
        for record in records {
            let fields = fields(record, self.enterprise, now);
            let (layout, values): (Vec<TemplateField>, Vec<FieldValue>) =
                fields.into_iter().unzip();
            let known = self.templates.iter().position(|told| *told == layout);
            let template = number(known.unwrap_or(self.templates.len()));
            let goes_on =
                matches!(sets.last(), Some(Set::Data { template: last, .. }) if *last == template);
            let headers = match (known, goes_on) {
                (_, true) => 0,
                (Some(_), false) => SET_HEADER + ALIGNED,
                (None, false) => 2 * SET_HEADER + ALIGNED + template_length(&layout),
            };
            let more = headers + record_length(&layout, &values);
            if taken > 0 && length + more > MAX_MESSAGE {
                break;
            }
            length += more;
            taken += 1;
            if known.is_none() {
                self.templates.push(layout.clone());
                sets.push(Set::Template(described(template, layout.clone())));
            }
            let names = layout.iter().map(|element| element.field_type);
            let record: IPFixFlowRecord = names.zip(values).collect();
            match sets.last_mut() {
                Some(Set::Data { records, .. }) if goes_on => records.push(record),
                _ => sets.push(Set::Data {
                    template,
                    lengths: layout.iter().map(|element| element.field_length).collect(),
                    records: vec![record],
                }),
            }
        }
        let message = self.message(sets, now);
        self.sequence = self
            .sequence
            .wrapping_add(u32::try_from(taken).unwrap_or(0));
        (message, taken)
    }

    /// Returns messages with all templates that were told, for a collector that may have missed them
    /// (RFC 7011 section 8.4).
    pub(super) fn templates(&self, now: u64) -> Vec<Vec<u8>> {
        let (mut messages, mut sets, mut length) = (Vec::new(), Vec::new(), MESSAGE_HEADER);
        for (place, layout) in self.templates.iter().enumerate() {
            let more = SET_HEADER + template_length(layout);
            if length + more > MAX_MESSAGE && !sets.is_empty() {
                messages.push(self.message(std::mem::take(&mut sets), now));
                length = MESSAGE_HEADER;
            }
            length += more;
            sets.push(Set::Template(described(number(place), layout.clone())));
        }
        if !sets.is_empty() {
            messages.push(self.message(sets, now));
        }
        messages
    }

    fn message(&self, sets: Vec<Set>, now: u64) -> Vec<u8> {
        let message = IPFix {
            header: Header {
                version: 10,
                // Found out when it is written, as those of the sets are.
                length: 0,
                // Of 32 bits, in the protocol, until 2106.
                export_time: u32::try_from(now).unwrap_or(u32::MAX),
                sequence_number: self.sequence,
                observation_domain_id: self.domain,
            },
            flowsets: sets.into_iter().map(Set::into_flow_set).collect(),
        };
        message
            .to_be_bytes()
            .expect("texts are bounded, and no message is longer than 65,535 bytes")
    }
}

impl Set {
    fn into_flow_set(self) -> FlowSet {
        let (header_id, body) = match self {
            Self::Template(template) => (TEMPLATES, FlowSetBody::Template(template)),
            Self::Data {
                template,
                lengths,
                records,
            } => {
                let data = Data::with_template_field_lengths(records, lengths)
                    .expect("a record has a value for each element of its template");
                (template, FlowSetBody::Data(data))
            }
        };
        FlowSet {
            header: FlowSetHeader {
                header_id,
                length: 0,
            },
            body,
        }
    }
}

/// Returns the Template ID at a place of the list.
fn number(place: usize) -> u16 {
    let place = u16::try_from(place).expect("there are fewer combinations of fields");
    FIRST_TEMPLATE + place
}

fn described(template_id: u16, fields: Vec<TemplateField>) -> Template {
    Template {
        template_id,
        field_count: u16::try_from(fields.len()).expect("a record has some dozen fields"),
        fields,
    }
}

/// Returns the bytes of a template.
fn template_length(layout: &[TemplateField]) -> usize {
    let of = |element: &TemplateField| {
        if element.enterprise_number.is_some() {
            8
        } else {
            4
        }
    };
    TEMPLATE_HEADER + layout.iter().map(of).sum::<usize>()
}

/// Returns the bytes of a record.
fn record_length(layout: &[TemplateField], values: &[FieldValue]) -> usize {
    let prefix = |element: &TemplateField, length| match (element.field_length, length) {
        (VARIABLE, 0..255) => 1,
        (VARIABLE, _) => 3,
        _ => 0,
    };
    let lengths = values.iter().map(FieldValue::byte_len);
    let with_prefix = |(element, length)| prefix(element, length) + length;
    layout.iter().zip(lengths).map(with_prefix).sum()
}
