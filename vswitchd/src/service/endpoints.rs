//! Choice of the endpoints of a Service port, by kube-proxy's rules.

use std::collections::BTreeMap;
use std::sync::Arc;

use vswitch_datapath::group::Endpoint;

use super::node::ServiceNode;
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
        let near = self
            .hinted(|record| &record.nodes, Some(&node.name))
            .or_else(|| self.hinted(|record| &record.zones, node.zone.as_ref()));
        near.unwrap_or_else(|| self.usable(|_| true))
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

    /// Returns the ready endpoints that hints give to a place, this node or its zone; `None` if
    /// any ready endpoint has no such hint, or none has one for this place: then these hints must
    /// be ignored. Endpoints that are not ready have no say.
    fn hinted(
        &self,
        hints: impl Fn(&EndpointRecord) -> &Vec<String>,
        place: Option<&String>,
    ) -> Option<Vec<Endpoint>> {
        let place = place?;
        let ready = self.all.iter().filter(|(_, record)| record.ready);
        if !ready.clone().all(|(_, record)| !hints(record).is_empty()) {
            return None;
        }
        let near = ready.filter(|(_, record)| hints(record).contains(place));
        let near: Vec<Endpoint> = near.map(|(endpoint, _)| *endpoint).collect();
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
