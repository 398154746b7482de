//! `GET /v1/traffic`: tracked connections, added up by who is connected with whom.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use vswitch_api::PortNo;
use vswitch_api::v1::{Traffic, TrafficEdge};
use vswitch_datapath::conntrack::ConnectionInfo;
use vswitch_datapath::flow::ip_proto;

use super::super::RestState;
use super::read::read;
use crate::flow_records::end;
use crate::policy::explain::protocol_name;
use crate::switch::Ends;

/// Most edges of an answer.
const MAX_EDGES: usize = 2_000;

/// Most that are told apart: a pod that tries a network address by address makes many.
const MAX_KINDS: usize = 65_536;

/// Lists who is connected with whom.
#[utoipa::path(get, path = "/v1/traffic", responses((status = 200, body = Traffic)))]
pub(super) async fn list(State(state): State<RestState>) -> Response {
    read(state, traffic).await
}

fn traffic(state: &RestState) -> Traffic {
    state.switch.sync_kernel_counters();
    let (datapath, now) = (state.switch.datapath(), state.switch.clock().now());
    let mut kinds = Kinds::default();
    datapath.visit_connections(now, |connection| kinds.add(&connection));
    let (most_recent, more) = kinds.most_recent(MAX_EDGES);
    let reconciled = state.switch.reconcile().snapshot();
    let ends = Ends::of(&reconciled, datapath);
    let end = |(port, address)| end(&reconciled, &ends, port, address);
    let edges = most_recent.into_iter().map(|(kind, sum)| TrafficEdge {
        source: end(kind.source),
        destination: end(kind.destination),
        service: kind.service.map(|service| service.to_string()),
        protocol: protocol_name(kind.proto),
        port: ip_proto::has_ports(kind.proto).then_some(kind.port),
        connections: sum.connections,
        packets: sum.packets,
        bytes: sum.bytes,
        age_seconds: sum.age.as_secs(),
        idle_seconds: sum.idle.as_secs(),
    });
    Traffic {
        node: state.node.clone(),
        edges: edges.collect(),
        more,
    }
}

/// What connections of an edge have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    source: (PortNo, IpAddr),
    destination: (PortNo, IpAddr),
    service: Option<SocketAddr>,
    proto: u8,
    port: u16,
}

impl Kind {
    fn of(connection: &ConnectionInfo) -> Self {
        let (asked, answers) = (&connection.original, &connection.reply);
        let is_translated = (answers.src, answers.tp_src) != (asked.dst, asked.tp_dst);
        let has_ports = ip_proto::has_ports(asked.proto);
        Self {
            source: (connection.in_port, asked.src),
            destination: (connection.out_port, answers.src),
            service: (has_ports && is_translated).then(|| SocketAddr::new(asked.dst, asked.tp_dst)),
            proto: asked.proto,
            port: if has_ports { answers.tp_src } else { 0 },
        }
    }
}

/// What they add up to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sum {
    connections: u64,
    packets: u64,
    bytes: u64,
    age: Duration,
    idle: Duration,
}

impl Sum {
    fn of(connection: &ConnectionInfo) -> Self {
        Self {
            connections: 1,
            packets: connection.packets_original + connection.packets_reply,
            bytes: connection.bytes_original + connection.bytes_reply,
            age: connection.age,
            idle: connection.idle,
        }
    }

    fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.age = self.age.max(other.age);
        self.idle = self.idle.min(other.idle);
    }
}

#[derive(Debug, Default)]
struct Kinds {
    sums: BTreeMap<Kind, Sum>,
    /// Connections of kinds that had no room.
    beyond: usize,
}

impl Kinds {
    fn add(&mut self, connection: &ConnectionInfo) {
        let is_full = self.sums.len() >= MAX_KINDS;
        let sum = Sum::of(connection);
        match self.sums.entry(Kind::of(connection)) {
            Entry::Occupied(mut known) => known.get_mut().add(&sum),
            Entry::Vacant(_) if is_full => self.beyond += 1,
            Entry::Vacant(free) => {
                free.insert(sum);
            }
        }
    }

    /// Returns those that were active last, and how many there are beyond.
    fn most_recent(self, most: usize) -> (Vec<(Kind, Sum)>, usize) {
        let mut all: Vec<(Kind, Sum)> = self.sums.into_iter().collect();
        all.sort_by_key(|(_, sum)| sum.idle);
        let more = all.len().saturating_sub(most) + self.beyond;
        all.truncate(most);
        (all, more)
    }
}

#[cfg(test)]
mod tests {
    use vswitch_api::Epoch;
    use vswitch_datapath::conntrack::Tuple;

    use super::*;

    fn connection(src_port: u16, asked: &str, answers: &str, idle: u64) -> ConnectionInfo {
        let (asked, answers): (SocketAddr, SocketAddr) =
            (asked.parse().unwrap(), answers.parse().unwrap());
        let original = Tuple {
            src: "10.0.0.1".parse().unwrap(),
            dst: asked.ip(),
            proto: ip_proto::TCP,
            icmp_type: 0,
            tp_src: src_port,
            tp_dst: asked.port(),
        };
        let reply = Tuple {
            src: answers.ip(),
            dst: original.src,
            proto: ip_proto::TCP,
            icmp_type: 0,
            tp_src: answers.port(),
            tp_dst: src_port,
        };
        ConnectionInfo {
            original,
            reply,
            zone: 0,
            state: "ESTABLISHED",
            assured: true,
            in_kernel: false,
            remaining: Duration::ZERO,
            idle: Duration::from_secs(idle),
            age: Duration::from_secs(idle + 10),
            packets_original: 3,
            bytes_original: 300,
            packets_reply: 2,
            bytes_reply: 200,
            in_port: PortNo(2),
            out_port: PortNo(3),
            judged: Epoch::default(),
        }
    }

    #[test]
    fn connections_alike_are_one_edge_and_those_to_a_service_name_it() {
        let mut kinds = Kinds::default();
        kinds.add(&connection(1000, "10.0.0.2:80", "10.0.0.2:80", 7));
        kinds.add(&connection(1001, "10.0.0.2:80", "10.0.0.2:80", 3));
        kinds.add(&connection(1002, "10.96.0.1:443", "10.0.0.2:80", 5));
        let (all, more) = kinds.most_recent(10);
        assert_eq!(more, 0);
        let [(direct, sum), (through, other)] = all.as_slice() else {
            panic!("two kinds: {all:?}");
        };
        assert_eq!((direct.service, direct.port), (None, 80));
        let expected = Sum {
            connections: 2,
            packets: 10,
            bytes: 1000,
            age: Duration::from_secs(17),
            idle: Duration::from_secs(3),
        };
        assert_eq!(*sum, expected);
        assert_eq!(through.service, Some("10.96.0.1:443".parse().unwrap()));
        assert_eq!(through.destination, direct.destination);
        assert_eq!((through.port, other.connections), (80, 1));
    }

    #[test]
    fn what_was_active_last_comes_first_and_the_others_are_counted() {
        let mut kinds = Kinds::default();
        for port in 1..=5_u16 {
            let to = format!("10.0.0.2:{port}");
            kinds.add(&connection(1000, &to, &to, u64::from(10 - port)));
        }
        let (shown, more) = kinds.most_recent(2);
        let ports: Vec<u16> = shown.iter().map(|(kind, _)| kind.port).collect();
        assert_eq!((ports, more), (vec![5, 4], 3));
    }
}
