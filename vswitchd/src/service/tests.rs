//! What Services come to, in groups and rules.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use vswitch_datapath::group::{Endpoint, Group, GroupUpdate};
use vswitch_datapath::pipeline::TableId;
use vswitch_datapath::{Action, ActionList};

use super::{HostPortMapping, ServiceCompiler, ServiceDelta};
use crate::state::{
    ClusterChange, ClusterState, EndpointPort, EndpointRecord, EndpointSliceRecord, HostPort,
    NodeRecord, ObjectKey, PodPhase, PodRecord, ServicePort, ServiceRecord,
};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// A compiler with what it was told and gave out.
struct World {
    state: ClusterState,
    compiler: ServiceCompiler,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            state: ClusterState::default(),
            compiler: ServiceCompiler::new("here".to_owned()),
        };
        world
            .compiler
            .set_node_addresses(&BTreeSet::from(["192.0.2.1".parse().unwrap()]));
        let _common = world.compiler.flush(&world.state);
        world
    }

    fn apply(&mut self, changes: impl IntoIterator<Item = ClusterChange>) -> ServiceDelta {
        for change in changes {
            if let Some(changed) = self.state.apply(change) {
                self.compiler.changed(&changed, &self.state);
            }
        }
        self.compiler.flush(&self.state)
    }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey {
        namespace: "ns".to_owned(),
        name: name.to_owned(),
    }
}

fn port(name: &str, proto: u8, port: u16) -> ServicePort {
    ServicePort {
        name: name.to_owned(),
        proto,
        port,
        node_port: None,
    }
}

fn service() -> ServiceRecord {
    ServiceRecord {
        key: key("web"),
        cluster_ips: vec!["10.96.0.1".parse().unwrap()],
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        source_ranges: Vec::new(),
        ports: vec![port("http", TCP, 80)],
        affinity: None,
        internal_local: false,
        external_local: false,
        health_check_node_port: None,
    }
}

fn endpoint(ip: &str, node: &str) -> EndpointRecord {
    EndpointRecord {
        ip: ip.parse().unwrap(),
        ready: true,
        serving: true,
        terminating: false,
        node_name: Some(node.to_owned()),
        zones: Vec::new(),
        nodes: Vec::new(),
    }
}

fn terminating(ip: &str, node: &str) -> EndpointRecord {
    EndpointRecord {
        ready: false,
        terminating: true,
        ..endpoint(ip, node)
    }
}

fn slice(name: &str, endpoints: Vec<EndpointRecord>) -> ClusterChange {
    let http = EndpointPort {
        name: "http".to_owned(),
        proto: TCP,
        port: 8080,
    };
    slice_with(name, endpoints, vec![http])
}

fn slice_with(
    name: &str,
    endpoints: Vec<EndpointRecord>,
    ports: Vec<EndpointPort>,
) -> ClusterChange {
    ClusterChange::EndpointSlice(EndpointSliceRecord {
        key: key(name),
        service: key("web"),
        endpoints,
        ports,
    })
}

fn groups(delta: &ServiceDelta) -> Vec<&Group> {
    let set = delta.groups.iter().filter_map(|update| match update {
        GroupUpdate::Set(group) => Some(group),
        GroupUpdate::Remove(_) => None,
    });
    set.collect()
}

fn ends(group: &Group) -> Vec<String> {
    group.endpoints.iter().map(Endpoint::to_string).collect()
}

/// Rules of a delta as text, without those of other tables.
fn rules(delta: &ServiceDelta) -> Vec<String> {
    let added = delta.rules.add_rules.iter();
    let mut lines: Vec<String> = added
        .filter(|rule| rule.table == TableId::ServiceLb)
        .map(|rule| {
            let actions = ActionList(&rule.actions);
            format!("{} {} -> {actions}", rule.priority.0, rule.matches)
        })
        .collect();
    lines.sort();
    lines
}

fn compiled(service: ServiceRecord, endpoints: Vec<EndpointRecord>) -> ServiceDelta {
    World::new().apply([ClusterChange::Service(service), slice("a", endpoints)])
}

#[test]
fn a_cluster_ip_leads_to_the_ready_endpoints_at_their_own_port() {
    let unready = EndpointRecord {
        ready: false,
        serving: false,
        ..endpoint("10.0.0.3", "there")
    };
    let both = vec![
        endpoint("10.0.0.1", "here"),
        endpoint("10.0.0.2", "there"),
        unready,
    ];
    let delta = compiled(service(), both);
    assert_eq!(ends(groups(&delta)[0]), ["10.0.0.1:8080", "10.0.0.2:8080"]);
    assert_eq!(&*groups(&delta)[0].name, "ns/web:80/TCP");
    let expected = "100 tcp,nw_dst=10.96.0.1,tp_dst=80 -> group:1,goto_table:55";
    assert_eq!(rules(&delta), [expected]);
}

#[test]
fn endpoints_that_terminate_serve_only_while_no_other_is_ready() {
    let old = terminating("10.0.0.1", "here");
    let delta = compiled(service(), vec![old.clone(), endpoint("10.0.0.2", "here")]);
    assert_eq!(ends(groups(&delta)[0]), ["10.0.0.2:8080"]);
    let gone = EndpointRecord {
        serving: false,
        ..terminating("10.0.0.3", "here")
    };
    let delta = compiled(service(), vec![old, gone]);
    assert_eq!(ends(groups(&delta)[0]), ["10.0.0.1:8080"]);
}

#[test]
fn an_internal_policy_of_local_keeps_to_this_node_and_drops_where_it_has_none() {
    let local = ServiceRecord {
        internal_local: true,
        ..service()
    };
    let both = vec![endpoint("10.0.0.1", "here"), endpoint("10.0.0.2", "there")];
    let delta = compiled(local.clone(), both);
    let group = groups(&delta)
        .into_iter()
        .find(|group| group.name.ends_with("local"));
    assert_eq!(ends(group.unwrap()), ["10.0.0.1:8080"]);
    let delta = compiled(local.clone(), vec![endpoint("10.0.0.2", "there")]);
    let expected = "100 tcp,nw_dst=10.96.0.1,tp_dst=80 -> drop(service_no_endpoints)";
    assert_eq!(rules(&delta), [expected]);
    // Where nobody serves at all, clients are told.
    let delta = compiled(local, Vec::new());
    assert!(rules(&delta)[0].contains("group:"), "{:?}", rules(&delta));
}

#[test]
fn an_external_policy_of_local_holds_for_what_comes_from_outside_only() {
    let outside = ServiceRecord {
        external_ips: vec!["198.51.100.1".parse().unwrap()],
        external_local: true,
        health_check_node_port: Some(30_999),
        ..service()
    };
    let mut world = World::new();
    let both = vec![endpoint("10.0.0.1", "here"), endpoint("10.0.0.2", "there")];
    let delta = world.apply([ClusterChange::Service(outside), slice("a", both)]);
    let to_external = |line: &&String| line.contains("198.51.100.1");
    let lines = rules(&delta);
    let lines: Vec<&String> = lines.iter().filter(to_external).collect();
    assert_eq!(lines.len(), 3, "{lines:#?}");
    let groups = groups(&delta);
    let number = |name: &str| {
        let group = groups.iter().find(|group| &*group.name == name).unwrap();
        format!("group:{}", group.id.0)
    };
    let (all, local) = (number("ns/web:80/TCP"), number("ns/web:80/TCP,local"));
    assert!(
        lines[0].starts_with("100 ") && lines[0].contains(&all),
        "{lines:#?}"
    );
    assert!(
        lines[1].starts_with("110 ") && lines[1].contains(&local),
        "{lines:#?}"
    );
    assert!(
        lines[2].contains("@node") && lines[2].contains(&all),
        "{lines:#?}"
    );
    let surface = world.compiler.surfaces().get(&key("web")).unwrap();
    let check = surface.health_check.as_ref().unwrap();
    assert_eq!((check.port, check.local_endpoints), (30_999, 1));
}

#[test]
fn a_node_port_is_open_at_the_node_s_addresses() {
    let mut record = service();
    record.ports[0].node_port = Some(30_080);
    let mut world = World::new();
    let here = vec![endpoint("10.0.0.1", "here")];
    let delta = world.apply([ClusterChange::Service(record), slice("a", here)]);
    let expected = "100 tcp,ip_dst=@node-ports,tp_dst=30080 -> group:1,goto_table:55";
    assert!(
        rules(&delta).contains(&expected.to_owned()),
        "{:?}",
        rules(&delta)
    );
    let surface = world.compiler.surfaces().get(&key("web")).unwrap();
    assert_eq!(surface.node_ports, BTreeSet::from([(TCP, 30_080)]));
}

#[test]
fn a_load_balancer_address_admits_its_source_ranges_only() {
    let record = ServiceRecord {
        load_balancer_ips: vec!["203.0.113.1".parse().unwrap()],
        source_ranges: vec!["198.51.100.0/24".parse().unwrap()],
        ..service()
    };
    let delta = compiled(record, vec![endpoint("10.0.0.1", "here")]);
    let lines = rules(&delta);
    let denied = "90 tcp,nw_dst=203.0.113.1,tp_dst=80 -> drop(service_source_denied)";
    assert!(lines.contains(&denied.to_owned()), "{lines:#?}");
    let admitted = "ip_src=@service/ns/web/sources,nw_dst=203.0.113.1";
    assert!(
        lines.iter().any(|line| line.contains(admitted)),
        "{lines:#?}"
    );
}

#[test]
fn named_ports_lead_to_the_slices_that_have_them() {
    let mut record = service();
    record.ports.push(port("dns", UDP, 53));
    let numbered = |name: &str, proto, port| EndpointPort {
        name: name.to_owned(),
        proto,
        port,
    };
    let old = vec![numbered("http", TCP, 8080), numbered("dns", UDP, 5353)];
    let new = vec![numbered("http", TCP, 9090)];
    let delta = World::new().apply([
        ClusterChange::Service(record),
        slice_with("old", vec![endpoint("10.0.0.1", "here")], old),
        slice_with("new", vec![endpoint("10.0.0.2", "here")], new),
    ]);
    let groups = groups(&delta);
    assert_eq!(ends(groups[0]), ["10.0.0.1:8080", "10.0.0.2:9090"]);
    assert_eq!(ends(groups[1]), ["10.0.0.1:5353"]);
}

#[test]
fn a_dual_stack_service_has_a_group_of_each_family() {
    let mut record = service();
    record.cluster_ips.push("fd96::1".parse().unwrap());
    let both = vec![endpoint("10.0.0.1", "here"), endpoint("fd00::1", "here")];
    let delta = compiled(record, both);
    let groups = groups(&delta);
    assert_eq!(ends(groups[0]), ["10.0.0.1:8080"]);
    assert_eq!(ends(groups[1]), ["[fd00::1]:8080"]);
    let v6: IpAddr = groups[1].hairpin_source;
    assert!(v6.is_ipv6());
}

#[test]
fn topology_hints_count_if_all_endpoints_have_them_and_one_is_for_this_zone() {
    let in_zone = |ip: &str, zone: &str| EndpointRecord {
        zones: vec![zone.to_owned()],
        ..endpoint(ip, "there")
    };
    let zone = |zone: &str| {
        ClusterChange::Node(NodeRecord {
            name: "here".to_owned(),
            zone: Some(zone.to_owned()),
            ..NodeRecord::default()
        })
    };
    let mut world = World::new();
    let both = vec![in_zone("10.0.0.1", "a"), in_zone("10.0.0.2", "b")];
    let delta = world.apply([
        ClusterChange::Service(service()),
        slice("a", both),
        zone("a"),
    ]);
    assert_eq!(ends(groups(&delta)[0]), ["10.0.0.1:8080"]);
    let delta = world.apply([zone("b")]);
    assert_eq!(ends(groups(&delta)[0]), ["10.0.0.2:8080"]);
    let delta = world.apply([zone("c")]);
    assert_eq!(groups(&delta)[0].endpoints.len(), 2);
    let delta = world.apply([zone("a")]);
    assert_eq!(groups(&delta)[0].endpoints.len(), 1);
    let without = vec![in_zone("10.0.0.1", "a"), endpoint("10.0.0.2", "there")];
    let delta = world.apply([slice("a", without)]);
    assert_eq!(groups(&delta)[0].endpoints.len(), 2);
}

#[test]
fn hints_for_this_node_go_before_those_for_its_zone() {
    let hinted = |ip: &str, node: &str, zone: &str| EndpointRecord {
        zones: vec![zone.to_owned()],
        nodes: vec![node.to_owned()],
        ..endpoint(ip, node)
    };
    let zone = ClusterChange::Node(NodeRecord {
        name: "here".to_owned(),
        zone: Some("a".to_owned()),
        ..NodeRecord::default()
    });
    let mut world = World::new();
    let all = vec![
        hinted("10.0.0.1", "here", "a"),
        hinted("10.0.0.2", "there", "a"),
        hinted("10.0.0.3", "far", "b"),
    ];
    let delta = world.apply([
        ClusterChange::Service(service()),
        slice("a", all.clone()),
        zone,
    ]);
    assert_eq!(ends(groups(&delta)[0]), ["10.0.0.1:8080"]);
    // None here: those of the zone. None in the zone either: all.
    let delta = world.apply([slice("a", all[1..].to_vec())]);
    assert_eq!(ends(groups(&delta)[0]), ["10.0.0.2:8080"]);
    let delta = world.apply([slice("a", vec![all[2].clone()])]);
    assert_eq!(ends(groups(&delta)[0]), ["10.0.0.3:8080"]);
    // What is not ready has no hint, and that is no reason to ignore those of others.
    let unhinted = terminating("10.0.0.4", "far");
    let delta = world.apply([slice("a", vec![all[0].clone(), all[1].clone(), unhinted])]);
    assert_eq!(ends(groups(&delta)[0]), ["10.0.0.1:8080"]);
    // One ready endpoint without: hints are ignored.
    let delta = world.apply([slice(
        "a",
        vec![all[0].clone(), endpoint("10.0.0.5", "far")],
    )]);
    assert_eq!(groups(&delta)[0].endpoints.len(), 2);
}

#[test]
fn affinity_stands_in_the_group() {
    let sticky = ServiceRecord {
        affinity: Some(Duration::from_secs(30)),
        ..service()
    };
    let delta = compiled(sticky, vec![endpoint("10.0.0.1", "here")]);
    assert_eq!(groups(&delta)[0].affinity, Some(Duration::from_secs(30)));
}

#[test]
fn a_lost_endpoint_is_told_once_for_each_address_of_its_service() {
    let mut record = service();
    record.ports.push(port("dns", UDP, 53));
    record.external_ips.push("198.51.100.1".parse().unwrap());
    let ports = vec![
        EndpointPort {
            name: "http".to_owned(),
            proto: TCP,
            port: 8080,
        },
        EndpointPort {
            name: "dns".to_owned(),
            proto: UDP,
            port: 53,
        },
    ];
    let mut world = World::new();
    let first = endpoint("10.0.0.1", "here");
    let both = vec![first.clone(), endpoint("10.0.0.2", "here")];
    let delta = world.apply([
        ClusterChange::Service(record),
        slice_with("a", both, ports.clone()),
    ]);
    assert_eq!(delta.lost, []);
    let lost = |delta: &ServiceDelta| -> Vec<String> {
        let lines = delta.lost.iter();
        lines
            .map(|lost| format!("{} {} {}", lost.proto, lost.service, lost.endpoint))
            .collect()
    };
    // Terminating, it keeps what it has; when it no longer serves, UDP moves on.
    let slow = terminating("10.0.0.2", "here");
    let delta = world.apply([slice_with(
        "a",
        vec![first.clone(), slow.clone()],
        ports.clone(),
    )]);
    assert_eq!(lost(&delta), Vec::<String>::new());
    let deaf = EndpointRecord {
        serving: false,
        ..slow
    };
    let delta = world.apply([slice_with("a", vec![first.clone(), deaf], ports.clone())]);
    let udp = [
        "17 10.96.0.1:53 10.0.0.2:53",
        "17 198.51.100.1:53 10.0.0.2:53",
    ];
    assert_eq!(lost(&delta), udp);
    let delta = world.apply([slice_with("a", vec![first], ports)]);
    let tcp = [
        "6 10.96.0.1:80 10.0.0.2:8080",
        "6 198.51.100.1:80 10.0.0.2:8080",
    ];
    assert_eq!(lost(&delta), tcp);
    let delta = world.apply([ClusterChange::ServiceGone(key("web"))]);
    assert_eq!(delta.lost.len(), 4);
}

fn pod(name: &str, ip: &str, phase: PodPhase) -> ClusterChange {
    ClusterChange::Pod(PodRecord {
        service_account: "default".to_owned(),
        key: key(name),
        uid: name.to_owned(),
        ips: vec![ip.parse().unwrap()],
        phase,
        ..PodRecord::default()
    })
}

/// As kube-proxy has it: what is open goes on, whatever a selector says meanwhile.
#[test]
fn an_endpoint_that_leaves_keeps_its_connections_until_its_pod_is_gone() {
    let both = || vec![endpoint("10.0.0.1", "here"), endpoint("10.0.0.2", "here")];
    let one = || slice("a", vec![endpoint("10.0.0.2", "here")]);
    let lost = "6 10.96.0.1:80 10.0.0.1:8080";
    for end in [
        ClusterChange::PodGone(key("one")),
        pod("one", "10.0.0.1", PodPhase::Succeeded),
        pod("one", "10.0.0.9", PodPhase::Running),
    ] {
        let mut world = World::new();
        world.apply([
            pod("one", "10.0.0.1", PodPhase::Running),
            ClusterChange::Service(service()),
            slice("a", both()),
        ]);
        assert_eq!(world.apply([one()]).lost, []);
        // It comes back and leaves again.
        assert_eq!(world.apply([slice("a", both())]).lost, []);
        assert_eq!(world.apply([one()]).lost, []);
        let delta = world.apply([end]);
        let lines: Vec<String> = delta
            .lost
            .iter()
            .map(|lost| format!("{} {} {}", lost.proto, lost.service, lost.endpoint))
            .collect();
        assert_eq!(lines, [lost]);
        assert_eq!(world.apply([ClusterChange::PodGone(key("one"))]).lost, []);
    }
}

#[test]
fn connections_of_a_service_that_is_deleted_go_on_too() {
    let mut world = World::new();
    world.apply([
        pod("one", "10.0.0.1", PodPhase::Running),
        ClusterChange::Service(service()),
        slice("a", vec![endpoint("10.0.0.1", "here")]),
    ]);
    assert_eq!(
        world.apply([ClusterChange::ServiceGone(key("web"))]).lost,
        []
    );
    assert_eq!(
        world.apply([ClusterChange::PodGone(key("one"))]).lost.len(),
        1
    );
}

#[test]
fn an_address_that_becomes_a_service_s_is_told_once() {
    let mut world = World::new();
    let served = |delta: &ServiceDelta| -> Vec<String> {
        let lines = delta.served.iter();
        lines
            .map(|s| format!("{} {}", s.proto, s.service))
            .collect()
    };
    let mut record = service();
    record.ports.push(port("dns", UDP, 53));
    let change = |record: &ServiceRecord| ClusterChange::Service(record.clone());
    let both = ["6 10.96.0.1:80", "17 10.96.0.1:53"];
    assert_eq!(served(&world.apply([change(&record)])), both);
    let here = slice("a", vec![endpoint("10.0.0.1", "here")]);
    assert_eq!(world.apply([here]).served, []);
    record.external_ips.push("198.51.100.1".parse().unwrap());
    let outer = ["6 198.51.100.1:80", "17 198.51.100.1:53"];
    assert_eq!(served(&world.apply([change(&record)])), outer);
    record.external_ips.clear();
    assert_eq!(world.apply([change(&record)]).served, []);
    world.apply([ClusterChange::ServiceGone(key("web"))]);
    assert_eq!(served(&world.apply([change(&record)])), both);
}

#[test]
fn a_change_of_one_service_changes_no_other_and_a_removed_one_leaves_nothing() {
    let mut world = World::new();
    let mut other = service();
    other.key = key("other");
    other.cluster_ips = vec!["10.96.0.2".parse().unwrap()];
    let here = |ip| slice("a", vec![endpoint(ip, "here")]);
    world.apply([
        ClusterChange::Service(service()),
        ClusterChange::Service(other),
        here("10.0.0.1"),
    ]);
    let delta = world.apply([here("10.0.0.2")]);
    assert_eq!(delta.rules.add_rules, []);
    assert_eq!(groups(&delta).len(), 1);
    let delta = world.apply([here("10.0.0.2")]);
    assert_eq!(delta, ServiceDelta::default());
    let delta = world.apply([
        ClusterChange::ServiceGone(key("web")),
        ClusterChange::ServiceGone(key("other")),
        ClusterChange::EndpointSliceGone(key("a")),
    ]);
    assert_eq!(delta.rules.remove_rules.len(), 2);
    assert_eq!(delta.groups.len(), 2);
    assert!(world.compiler.surfaces().is_empty());
}

#[test]
fn slices_may_come_before_their_service_and_move_to_another() {
    let mut world = World::new();
    let here = vec![endpoint("10.0.0.1", "here")];
    world.apply([slice("a", here.clone())]);
    let delta = world.apply([ClusterChange::Service(service())]);
    assert_eq!(groups(&delta)[0].endpoints.len(), 1);
    let ClusterChange::EndpointSlice(mut moved) = slice("a", here) else {
        unreachable!()
    };
    moved.service = key("other");
    let delta = world.apply([ClusterChange::EndpointSlice(moved)]);
    assert_eq!(groups(&delta)[0].endpoints.len(), 0);
    assert_eq!(delta.lost.len(), 1);
}

fn host_port(port: u16, only_on: Option<&str>, pod: &str, addresses: &[&str]) -> HostPortMapping {
    HostPortMapping {
        port: HostPort {
            proto: TCP,
            port,
            ip: only_on.map(|ip| ip.parse().unwrap()),
            container_port: 80,
        },
        pod: key(pod),
        addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
    }
}

/// What a host port's rules match, and where their groups lead.
fn led(delta: &ServiceDelta) -> BTreeSet<(String, String)> {
    let targets = delta.groups.iter().filter_map(|update| match update {
        GroupUpdate::Set(group) => Some((group.id, group.endpoints.first()?.to_string())),
        GroupUpdate::Remove(_) => None,
    });
    let targets: BTreeMap<_, _> = targets.collect();
    let rules = delta.rules.add_rules.iter().map(|rule| {
        let id = rule.actions.iter().find_map(|action| match action {
            Action::Group(id) => Some(*id),
            _ => None,
        });
        (
            rule.matches.to_string(),
            targets[&id.expect("a rule of a host port names a group")].clone(),
        )
    });
    rules.collect()
}

#[test]
fn a_host_port_leads_to_its_pod_in_each_family() {
    let mut world = World::new();
    let pod = ["10.244.0.2", "fd00::2"];
    world
        .compiler
        .set_host_ports(vec![host_port(8126, None, "web", &pod)]);
    let delta = world.apply([]);
    let wanted = [
        ("tcp,ip_dst=@node-ports,tp_dst=8126", "10.244.0.2:80"),
        ("tcp6,ip_dst=@node-ports,tp_dst=8126", "[fd00::2]:80"),
    ];
    let wanted = wanted.map(|(matches, to)| (matches.to_owned(), to.to_owned()));
    assert_eq!(led(&delta), BTreeSet::from(wanted));
    let forwards = world.compiler.host_port_forwards();
    let to: Vec<String> = forwards
        .iter()
        .map(|forward| forward.to.to_string())
        .collect();
    assert_eq!(to, ["10.244.0.2:80", "[fd00::2]:80"]);

    // What is told again changes nothing; what goes takes its connections along.
    world
        .compiler
        .set_host_ports(vec![host_port(8126, None, "web", &pod)]);
    assert_eq!(world.apply([]), ServiceDelta::default());
    world.compiler.set_host_ports(Vec::new());
    let delta = world.apply([]);
    assert_eq!(delta.rules.remove_rules.len(), 2);
    assert_eq!(delta.groups.len(), 2);
    let lost = delta.lost.iter().find(|lost| {
        lost.service.to_string() == "192.0.2.1:8126" && lost.endpoint.to_string() == "10.244.0.2:80"
    });
    assert!(lost.is_some(), "{:?}", delta.lost);
    assert!(world.compiler.host_port_forwards().is_empty());
}

#[test]
fn the_first_of_two_pods_with_a_host_port_has_it_and_the_other_inherits_it() {
    let mut world = World::new();
    let new = host_port(8126, None, "web", &["10.244.0.3"]);
    let old = host_port(8126, None, "web", &["10.244.0.2"]);
    let to = |world: &World| -> Vec<String> {
        let forwards = world.compiler.host_port_forwards();
        forwards
            .iter()
            .map(|forward| forward.to.to_string())
            .collect()
    };
    world.compiler.set_host_ports(vec![old.clone()]);
    let _first = world.apply([]);
    world.compiler.set_host_ports(vec![new, old.clone()]);
    let delta = world.apply([]);
    assert_eq!(to(&world), ["10.244.0.3:80"]);
    assert_eq!(
        delta.groups.len(),
        1,
        "the rule stays, its group leads elsewhere"
    );
    assert_eq!(delta.rules, crate::rules::RuleDelta::default());
    world.compiler.set_host_ports(vec![old]);
    let _third = world.apply([]);
    assert_eq!(to(&world), ["10.244.0.2:80"]);
}

#[test]
fn a_host_port_of_one_address_is_there_while_the_node_has_the_address() {
    let mut world = World::new();
    let mapping = host_port(8126, Some("192.0.2.9"), "web", &["10.244.0.2", "fd00::2"]);
    world.compiler.set_host_ports(vec![mapping]);
    assert!(
        led(&world.apply([])).is_empty(),
        "the node has no such address"
    );
    let both = ["192.0.2.1", "192.0.2.9"].map(|ip| ip.parse().unwrap());
    world.compiler.set_node_addresses(&BTreeSet::from(both));
    let wanted = ("tcp,nw_dst=192.0.2.9,tp_dst=8126", "10.244.0.2:80");
    let wanted = (wanted.0.to_owned(), wanted.1.to_owned());
    assert_eq!(led(&world.apply([])), BTreeSet::from([wanted]));
    world
        .compiler
        .set_node_addresses(&BTreeSet::from(["192.0.2.1".parse().unwrap()]));
    let delta = world.apply([]);
    assert_eq!(delta.rules.remove_rules.len(), 1);
}
