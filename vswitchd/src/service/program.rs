//! Rules and groups of one Service.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use vswitch_api::Priority;
use vswitch_datapath::flow::{
    AddressMatch, CtState, CtStateMatch, Match, PortClass, SetName, ip_proto,
};
use vswitch_datapath::group::{Endpoint, Group, GroupId, LostEndpoint, ServiceAddress};
use vswitch_datapath::pipeline::{Origin, Rule, TableId};
use vswitch_datapath::{Action, DropReason};

use super::endpoints::Endpoints;
use super::entrance_match::to_port;
use super::node::ServiceNode;
use crate::policy::node_set;
use crate::rules::{RuleOwner, RuleSet, virtual_addresses};
use crate::state::{EndpointSliceRecord, ObjectKey, ServicePort, ServiceRecord};

/// Priorities inside the ServiceLb table; a higher one wins.
mod priority {
    use vswitch_api::Priority;

    /// The node's own connections, where others from outside go elsewhere.
    pub(super) const NODE: Priority = Priority(120);
    /// Connections from outside, where those from inside go elsewhere.
    pub(super) const OUTSIDE: Priority = Priority(110);
    pub(super) const ALL: Priority = Priority(100);
    /// What loadBalancerSourceRanges do not admit.
    pub(super) const DENIED: Priority = Priority(90);
    /// A ClusterIP's other ports.
    pub(super) const NO_PORT: Priority = Priority(10);
}

/// Above the datapath's own rule that drops what fits no connection.
const REFUSE: Priority = Priority(75);

/// What outside the switch has to lead to a Service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Surface {
    /// Addresses of the Service.
    pub addresses: BTreeSet<IpAddr>,
    /// NodePorts, by IP protocol and number.
    pub node_ports: BTreeSet<(u8, u16)>,
    /// Where a load balancer asks whether this node has endpoints.
    pub health_check: Option<HealthCheck>,
}

/// The answer of a health check NodePort.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// The Service.
    pub service: ObjectKey,
    /// The NodePort.
    pub port: u16,
    /// Ready endpoints of this node.
    pub local_endpoints: usize,
}

/// What a group is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct GroupKey {
    proto: u8,
    port: u16,
    is_ipv6: bool,
    is_local: bool,
}

/// What a Service is compiled to.
#[derive(Debug, Default)]
pub(super) struct Program {
    pub(super) rules: Vec<Rule>,
    pub(super) groups: BTreeMap<GroupKey, Group>,
    /// Connections that may go on.
    pub(super) kept: BTreeSet<LostEndpoint>,
    /// Where clients may connect to.
    pub(super) entrances: BTreeSet<ServiceAddress>,
    /// Members of the set of ClusterIPs.
    pub(super) cluster_ips: BTreeSet<IpAddr>,
    /// The set of admitted sources with its members.
    pub(super) sources: Option<(SetName, Vec<IpNet>)>,
    pub(super) surface: Surface,
}

/// Returns the name of the set that holds all ClusterIPs.
pub(super) fn cluster_ip_set() -> SetName {
    SetName("cluster-ips".into())
}

/// Returns the name of the set of addresses that have NodePorts.
pub(super) fn node_port_set() -> SetName {
    SetName("node-ports".into())
}

/// Returns the rules that no Service owns: what becomes of ports that a ClusterIP does not
/// have, and of TCP segments whose connection was ended with its endpoint.
pub(super) fn common_rules() -> Vec<Rule> {
    let mut rules = RuleSet::of(RuleOwner::Services);
    let origin = |part: &str| {
        Arc::new(Origin {
            kind: "Service",
            name: String::new(),
            part: part.to_owned(),
        })
    };
    let to_cluster_ip = Match {
        ip_dst: Some(AddressMatch::Set(cluster_ip_set())),
        ..Match::default()
    };
    rules.add(
        (TableId::ServiceLb, priority::NO_PORT),
        to_cluster_ip.clone(),
        vec![Action::Reject(DropReason::ServiceNoEndpoints)],
        &origin("no such port"),
    );
    let ended = Match {
        ct_state: Some(CtStateMatch {
            value: CtState::TRK | CtState::INV,
            mask: CtState::TRK | CtState::INV,
        }),
        ip_proto: Some(ip_proto::TCP),
        ..to_cluster_ip
    };
    rules.add(
        (TableId::Conntrack, REFUSE),
        ended,
        vec![Action::Reject(DropReason::CtInvalid)],
        &origin("of a connection that is no more"),
    );
    rules.into_list()
}

/// Gives groups their numbers.
pub(super) trait Numbers {
    fn number(&mut self, group: &GroupKey) -> GroupId;
}

/// Compiles one Service.
pub(super) fn compile(
    service: &ServiceRecord,
    slices: &[Arc<EndpointSliceRecord>],
    node: &ServiceNode,
    numbers: &mut impl Numbers,
) -> Program {
    let sources = (!service.source_ranges.is_empty()).then(|| {
        let name = format!("service/{}/sources", service.key);
        (SetName(name.as_str().into()), service.source_ranges.clone())
    });
    let mut builder = Builder {
        service,
        node,
        rules: RuleSet::of(RuleOwner::Services),
        program: Program {
            cluster_ips: service.cluster_ips.iter().copied().collect(),
            sources,
            ..Program::default()
        },
    };
    let ready_here: Vec<usize> = service
        .ports
        .iter()
        .map(|port| builder.add_port(port, slices, numbers))
        .collect();
    let Builder {
        rules, mut program, ..
    } = builder;
    program.rules = rules.into_list();
    program.surface.addresses = addresses(service).collect();
    program.surface.health_check = service.health_check_node_port.map(|port| HealthCheck {
        service: service.key.clone(),
        port,
        local_endpoints: ready_here.into_iter().max().unwrap_or(0),
    });
    program
}

fn addresses(service: &ServiceRecord) -> impl Iterator<Item = IpAddr> {
    let outer = service
        .external_ips
        .iter()
        .chain(&service.load_balancer_ips);
    service.cluster_ips.iter().chain(outer).copied()
}

/// How a Service may be addressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entrance {
    ClusterIp,
    ExternalIp,
    LoadBalancer,
    NodePort,
}

impl Entrance {
    const fn name(self) -> &'static str {
        match self {
            Self::ClusterIp => "clusterIP",
            Self::ExternalIp => "externalIP",
            Self::LoadBalancer => "loadBalancer",
            Self::NodePort => "nodePort",
        }
    }
}

/// Where the connections of one port and family go.
struct Targets {
    /// From inside the cluster.
    inside: Vec<Action>,
    /// To a ClusterIP.
    internal: Vec<Action>,
    /// From outside.
    outside: Vec<Action>,
}

struct Builder<'a> {
    service: &'a ServiceRecord,
    node: &'a ServiceNode,
    rules: RuleSet,
    program: Program,
}

impl Builder<'_> {
    /// Adds a port; returns how many endpoints of this node are ready for it.
    fn add_port(
        &mut self,
        port: &ServicePort,
        slices: &[Arc<EndpointSliceRecord>],
        numbers: &mut impl Numbers,
    ) -> usize {
        let mut ready_here = 0;
        for is_ipv6 in [false, true] {
            let endpoints = Endpoints::of(slices, port, is_ipv6);
            ready_here += endpoints.ready_here(self.node);
            let entrances: Vec<(Entrance, AddressMatch, u16)> =
                self.entrances(port, is_ipv6).collect();
            if entrances.is_empty() {
                continue;
            }
            let served = self.served(port, is_ipv6);
            self.keep(port, &served, &endpoints);
            let targets = self.targets(port, (is_ipv6, &served), &endpoints, numbers);
            for (entrance, to, number) in entrances {
                let matches = to_port(is_ipv6, port.proto, to, number);
                self.add_entrance(entrance, port, &matches, &targets);
            }
        }
        if let Some(number) = port.node_port {
            self.program.surface.node_ports.insert((port.proto, number));
        }
        ready_here
    }

    fn entrances(
        &self,
        port: &ServicePort,
        is_ipv6: bool,
    ) -> impl Iterator<Item = (Entrance, AddressMatch, u16)> {
        let service = self.service;
        let number = port.port;
        let lists = [
            (Entrance::ClusterIp, &service.cluster_ips),
            (Entrance::ExternalIp, &service.external_ips),
            (Entrance::LoadBalancer, &service.load_balancer_ips),
        ];
        let addressed = lists.into_iter().flat_map(move |(entrance, list)| {
            let of_family = list.iter().filter(move |ip| ip.is_ipv6() == is_ipv6);
            of_family.map(move |ip| (entrance, AddressMatch::Net(IpNet::from(*ip)), number))
        });
        // A Service has NodePorts of the families of its ClusterIPs.
        let has_family = service.cluster_ips.iter().any(|ip| ip.is_ipv6() == is_ipv6);
        let node_port = port.node_port.filter(|_| has_family);
        addressed.chain(node_port.map(|number| {
            let to = AddressMatch::Set(node_port_set());
            (Entrance::NodePort, to, number)
        }))
    }

    /// Returns where clients of the port may connect to.
    fn served(&self, port: &ServicePort, is_ipv6: bool) -> Arc<[ServiceAddress]> {
        let vips = addresses(self.service).map(|ip| (ip, port.port));
        let node_ports = port.node_port.into_iter().flat_map(|number| {
            let addresses = self.node.node_port_addresses().into_iter();
            addresses.map(move |ip| (ip, number))
        });
        let proto = port.proto;
        vips.chain(node_ports)
            .filter(|(ip, _)| ip.is_ipv6() == is_ipv6)
            .map(|(ip, port)| ServiceAddress {
                proto,
                service: Endpoint { ip, port },
            })
            .collect()
    }

    /// Notes which connections of the port may go on.
    fn keep(&mut self, port: &ServicePort, served: &[ServiceAddress], endpoints: &Endpoints<'_>) {
        self.program.entrances.extend(served);
        for endpoint in endpoints.keeping(port.proto == ip_proto::UDP) {
            let kept = served.iter().map(|entrance| LostEndpoint {
                proto: entrance.proto,
                service: entrance.service,
                endpoint,
            });
            self.program.kept.extend(kept);
        }
    }

    fn targets(
        &mut self,
        port: &ServicePort,
        (is_ipv6, served): (bool, &Arc<[ServiceAddress]>),
        endpoints: &Endpoints<'_>,
        numbers: &mut impl Numbers,
    ) -> Targets {
        let all = endpoints.cluster(self.node);
        let here = endpoints.local(self.node);
        let is_served = !all.is_empty();
        let needs_local = self.service.internal_local || self.service.external_local;
        let mut group = |endpoints, is_local| {
            let key = GroupKey {
                proto: port.proto,
                port: port.port,
                is_ipv6,
                is_local,
            };
            let id = numbers.number(&key);
            let group = self.group((id, &key), endpoints, served);
            self.program.groups.insert(key, group);
            vec![Action::Group(id), Action::Goto(TableId::EgressAdminTier)]
        };
        let inside = group(all, false);
        let local = match needs_local {
            false => inside.clone(),
            // Elsewhere there are endpoints: a load balancer finds them, a refusal would
            // tell clients that there are none.
            true if here.is_empty() && is_served => {
                vec![Action::Drop(DropReason::ServiceNoEndpoints)]
            }
            true => group(here, true),
        };
        let choose = |is_local: bool| if is_local { &local } else { &inside }.clone();
        Targets {
            internal: choose(self.service.internal_local),
            outside: choose(self.service.external_local),
            inside,
        }
    }

    fn group(
        &self,
        (id, key): (GroupId, &GroupKey),
        endpoints: Vec<Endpoint>,
        served: &Arc<[ServiceAddress]>,
    ) -> Group {
        let family: IpAddr = if key.is_ipv6 {
            std::net::Ipv6Addr::UNSPECIFIED.into()
        } else {
            std::net::Ipv4Addr::UNSPECIFIED.into()
        };
        let (service, port) = (&self.service.key, key.port);
        let local = if key.is_local { ",local" } else { "" };
        Group {
            id,
            name: format!("{service}:{port}/{}{local}", protocol_name(key.proto)).into(),
            endpoints: endpoints.into(),
            entrances: Arc::clone(served),
            affinity: self.service.affinity,
            hairpin_source: virtual_addresses(family).hairpin,
        }
    }

    fn add_entrance(
        &mut self,
        entrance: Entrance,
        port: &ServicePort,
        matches: &Match,
        targets: &Targets,
    ) {
        let origin = Arc::new(Origin {
            kind: "Service",
            name: self.service.key.to_string(),
            part: part(entrance, port),
        });
        let mut matches = matches.clone();
        if let Some((set, _)) = &self.program.sources
            && entrance == Entrance::LoadBalancer
        {
            let denied = vec![Action::Drop(DropReason::ServiceSourceDenied)];
            let at = (TableId::ServiceLb, priority::DENIED);
            self.rules.add(at, matches.clone(), denied, &origin);
            matches.ip_src = Some(AddressMatch::Set(set.clone()));
        }
        let mut add = |priority, matches: Match, actions: &Vec<Action>| {
            let at = (TableId::ServiceLb, priority);
            self.rules.add(at, matches, actions.clone(), &origin);
        };
        if entrance == Entrance::ClusterIp {
            return add(priority::ALL, matches, &targets.internal);
        }
        if targets.outside != targets.inside {
            let from_gateway = Match {
                class: Some(PortClass::Gateway),
                ..matches.clone()
            };
            if matches.ip_src.is_none() {
                let own = Match {
                    ip_src: Some(AddressMatch::Set(node_set())),
                    ..from_gateway.clone()
                };
                add(priority::NODE, own, &targets.inside);
            }
            add(priority::OUTSIDE, from_gateway, &targets.outside);
        }
        add(priority::ALL, matches, &targets.inside);
    }
}

fn part(entrance: Entrance, port: &ServicePort) -> String {
    let number = match entrance {
        Entrance::NodePort => port.node_port.unwrap_or(port.port),
        _ => port.port,
    };
    let name = if port.name.is_empty() {
        String::new()
    } else {
        format!(" {}", port.name)
    };
    format!(
        "{} {number}/{}{name}",
        entrance.name(),
        protocol_name(port.proto)
    )
}

/// Returns the name of a protocol that Services know.
#[must_use]
pub const fn protocol_name(proto: u8) -> &'static str {
    match proto {
        ip_proto::UDP => "UDP",
        ip_proto::SCTP => "SCTP",
        _ => "TCP",
    }
}
