//! The records of one minute, which are still counted up.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};
use vswitch_api::v1::{FlowCount, FlowExplanation, FlowOf, FlowTraffic};

use super::record::of_any_end;

/// So many records of denials a minute are told apart; what is beyond counts in one of its rule. A
/// record takes some 700 bytes.
pub(super) const MAX_RECORDS: usize = 16_384;

/// So many of allowed connections, which have no part in the room of denials.
pub(super) const MAX_ALLOWED: usize = 4_096;

/// Seconds of a minute: what a record of an earlier time can be told from.
pub(super) const SECONDS: u64 = 60;

/// What was counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counted {
    pub(super) packets: u64,
    pub(super) connections: u64,
    /// Seconds since 1970.
    pub(super) first: u64,
    pub(super) last: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) explanation: Option<FlowExplanation>,
    /// Of allowed connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) traffic: Option<FlowTraffic>,
}

impl Counted {
    /// Adds what was counted later, or by another worker.
    pub(super) fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.connections += other.connections;
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        if other.explanation.is_some() {
            self.explanation.clone_from(&other.explanation);
        }
        if let Some(more) = &other.traffic {
            add(self.traffic.get_or_insert_default(), more);
        }
    }
}

fn add(traffic: &mut FlowTraffic, more: &FlowTraffic) {
    let count = |sum: &mut FlowCount, more: FlowCount| {
        sum.packets += more.packets;
        sum.bytes += more.bytes;
    };
    count(&mut traffic.sent, more.sent);
    count(&mut traffic.received, more.received);
    traffic.duration_ms = traffic.duration_ms.max(more.duration_ms);
}

/// A record whose explanation is to be found out.
#[derive(Debug)]
pub(super) struct Unexplained {
    pub(super) of: FlowOf,
    pub(super) proto: u8,
    pub(super) port: u16,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Minute {
    /// Minutes since 1970.
    pub(super) number: u64,
    pub(super) records: HashMap<FlowOf, Counted>,
    pub(super) unexplained: VecDeque<Unexplained>,
    /// So many records are told apart.
    most: usize,
    /// Whether there is something that was not written yet.
    pub(super) is_changed: bool,
}

impl Minute {
    /// Returns a minute without records, which tells so many apart.
    pub(super) fn new(number: u64, most: usize) -> Self {
        Self {
            number,
            most,
            ..Self::default()
        }
    }

    /// Counts; returns the record that it counted in, and whether that is a new one.
    pub(super) fn add(&mut self, of: FlowOf, counted: &Counted) -> (FlowOf, bool) {
        self.is_changed = true;
        let is_told = of.source.is_some();
        let is_full = self.records.len() >= self.most && is_told;
        let of = if is_full && !self.records.contains_key(&of) {
            of_any_end(&of)
        } else {
            of
        };
        if let Some(record) = self.records.get_mut(&of) {
            record.add(counted);
            return (of, false);
        }
        self.records.insert(of.clone(), counted.clone());
        (of, true)
    }
}
