//! Connections that a transaction ends: those of removed ports, of addresses and endpoints with
//! another owner.

use std::collections::HashSet;
use std::net::IpAddr;

use vswitch_api::PortNo;

use crate::conntrack::{Connection, Tuple};
use crate::flow::ip_proto;
use crate::group::{Endpoint, LostEndpoint, ServiceAddress};
use crate::pipeline::{PortUpdate, Transaction};

/// Ports, addresses and endpoints that are no longer whose they were: their connections go.
#[derive(Debug)]
pub(super) struct Forgotten {
    pub(super) ports: HashSet<PortNo>,
    addresses: HashSet<IpAddr>,
    endpoints: HashSet<LostEndpoint>,
    untranslated: HashSet<ServiceAddress>,
}

impl Forgotten {
    pub(super) fn of(changes: &mut Transaction) -> Self {
        Self {
            ports: removed_ports(&changes.ports).into_iter().collect(),
            addresses: changes.forget_addresses.drain(..).collect(),
            endpoints: changes.forget_endpoints.drain(..).collect(),
            untranslated: changes.forget_untranslated.drain(..).collect(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ports.is_empty()
            && self.addresses.is_empty()
            && self.endpoints.is_empty()
            && self.untranslated.is_empty()
    }

    /// Returns whether the connection has lost one of its ends.
    pub(super) fn ends(&self, conn: &Connection) -> bool {
        let (original, reply) = (conn.original(), conn.reply());
        self.ports.contains(&conn.in_port())
            || self.ports.contains(&conn.out_port())
            || [original.src, original.dst, reply.src, reply.dst]
                .iter()
                .any(|address| self.addresses.contains(address))
            || (original.proto != ip_proto::UDP && self.has_lost_endpoint(conn))
    }

    /// Returns whether its next packet is to be the first one of another connection, with another
    /// endpoint or the first.
    pub(super) fn moves(&self, conn: &Connection) -> bool {
        if conn.is_translated() {
            return self.has_lost_endpoint(conn);
        }
        // UDP has no end: its next datagram would go where the first one went, for as long as they
        // come. What was answered of other protocols is a conversation with somebody else.
        let original = conn.original();
        // The kernel may have seen an answer just now.
        conn.refresh();
        let may_go = original.proto == ip_proto::UDP || !conn.is_replied();
        may_go
            && !self.untranslated.is_empty()
            && self.untranslated.contains(&service_of(&original))
    }

    fn has_lost_endpoint(&self, conn: &Connection) -> bool {
        conn.is_translated()
            && !self.endpoints.is_empty()
            && self
                .endpoints
                .contains(&lost(&conn.original(), &conn.reply()))
    }
}

/// Returns where the connection's client sends to.
const fn service_of(original: &Tuple) -> ServiceAddress {
    ServiceAddress {
        proto: original.proto,
        service: Endpoint {
            ip: original.dst,
            port: original.tp_dst,
        },
    }
}

/// Returns what a connection loses with its endpoint.
const fn lost(original: &Tuple, reply: &Tuple) -> LostEndpoint {
    let ServiceAddress { proto, service } = service_of(original);
    LostEndpoint {
        proto,
        service,
        endpoint: Endpoint {
            ip: reply.src,
            port: reply.tp_src,
        },
    }
}

fn removed_ports(updates: &[PortUpdate]) -> Vec<PortNo> {
    let removed = updates.iter().filter_map(|update| match update {
        PortUpdate::Remove(port) => Some(*port),
        PortUpdate::Upsert(_) | PortUpdate::Limit(..) => None,
    });
    removed.collect()
}
