//! Which endpoints of a Service port connections may use, as kube-proxy chooses them.

use std::collections::BTreeMap;
use std::sync::Arc;

use vswitch_datapath::group::Endpoint;

use super::program::ServiceNode;
use crate::state::{EndpointRecord, EndpointSliceRecord, ServicePort};

/// Endpoints of one family that serve one port, by address.
#[derive(Debug, Default)]
pub(super) struct Endpoints<'a> {
    all: BTreeMap<Endpoint, &'a EndpointRecord>,
}

impl<'a> Endpoints<'a> {
    /// Collects the endpoints of a port: slices name it as the Service does.
    pub(super) fn of(
        slices: &'a [Arc<EndpointSliceRecord>],
        port: &ServicePort,
        is_ipv6: bool,
    ) -> Self {
        let mut all: BTreeMap<Endpoint, &EndpointRecord> = BTreeMap::new();
        for slice in slices {
            let numbers = slice.ports.iter();
            let numbers = numbers.filter(|p| p.name == port.name && p.proto == port.proto);
            for number in numbers {
                for record in slice.endpoints.iter().filter(|e| e.ip.is_ipv6() == is_ipv6) {
                    let endpoint = Endpoint {
                        ip: record.ip,
                        port: number.port,
                    };
                    // While an endpoint moves between slices it may be in both: the one that
                    // is further along counts.
                    let known = all.entry(endpoint).or_insert(record);
                    if record.ready && !known.ready {
                        *known = record;
                    }
                }
            }
        }
        Self { all }
    }

    /// Returns where new connections of the whole cluster go.
    pub(super) fn cluster(&self, node: &ServiceNode) -> Vec<Endpoint> {
        let usable = self.usable(|_| true);
        let near = self.near(node, &usable);
        near.unwrap_or(usable)
    }

    /// Returns where new connections go that must not leave this node.
    pub(super) fn local(&self, node: &ServiceNode) -> Vec<Endpoint> {
        self.usable(|record| node.is_local(record))
    }

    /// Returns how many endpoints of this node are ready.
    pub(super) fn ready_here(&self, node: &ServiceNode) -> usize {
        let all = self.all.values();
        all.filter(|record| record.ready && node.is_local(record))
            .count()
    }

    /// Ready endpoints; while there are none, those that terminate and still serve.
    fn usable(&self, is_eligible: impl Fn(&EndpointRecord) -> bool) -> Vec<Endpoint> {
        let those = |wanted: fn(&EndpointRecord) -> bool| -> Vec<Endpoint> {
            let all = self.all.iter();
            let all = all.filter(|(_, record)| wanted(record) && is_eligible(record));
            all.map(|(endpoint, _)| *endpoint).collect()
        };
        let ready = those(|record| record.ready);
        if ready.is_empty() {
            those(|record| record.serving && record.terminating)
        } else {
            ready
        }
    }

    /// Returns those that topology hints give to this node's zone; `None` if any endpoint has
    /// no hint, or none has one for this zone: then hints must be ignored.
    fn near(&self, node: &ServiceNode, usable: &[Endpoint]) -> Option<Vec<Endpoint>> {
        let zone = node.zone.as_ref()?;
        let records = usable.iter().map(|endpoint| self.all.get(endpoint));
        if !records.flatten().all(|record| !record.zones.is_empty()) {
            return None;
        }
        let is_near = |endpoint: &&Endpoint| {
            let record = self.all.get(*endpoint);
            record.is_some_and(|record| record.zones.contains(zone))
        };
        let near: Vec<Endpoint> = usable.iter().filter(is_near).copied().collect();
        (!near.is_empty()).then_some(near)
    }

    /// Returns the endpoints that may keep the connections they have: all that are there for
    /// protocols whose connections end; for UDP, which has no end, those that still serve.
    pub(super) fn keeping(&self, is_udp: bool) -> impl Iterator<Item = Endpoint> {
        let all = self.all.iter();
        let all = all.filter(move |(_, record)| !is_udp || record.ready || record.serving);
        all.map(|(endpoint, _)| *endpoint)
    }
}
