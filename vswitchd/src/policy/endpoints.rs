//! Rules of local ports rather than of policies: isolation of what is not known yet, the
//! node's way in, and a pod's way to itself.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use vswitch_api::PortNo;
use vswitch_datapath::flow::{AddressMatch, Match, PortClass};
use vswitch_datapath::pipeline::{Origin, Rule, TableId};
use vswitch_datapath::{Action, DropReason};

use super::direction::Direction;
use super::program::{node_set, priority};
use crate::rules::virtual_addresses;
use crate::rules::{RuleOwner, RuleSet};
use crate::state::LocalEndpoint;

/// Returns the rules that let the node itself (kubelet's probes) reach its pods, whatever
/// their policies. What merely passes through the gateway has another source and is judged.
/// `has_tiers`: the tables of tier Admin are in use.
pub(super) fn node_rules(has_tiers: bool) -> Vec<Rule> {
    let mut rules = RuleSet::of(RuleOwner::Policies);
    let origin = Origin {
        kind: "Gateway",
        name: "node".to_owned(),
        part: String::new(),
    };
    let matches = Match {
        class: Some(PortClass::Gateway),
        ip_src: Some(AddressMatch::Set(node_set())),
        ..Match::default()
    };
    let origin = Arc::new(origin);
    let before = has_tiers.then_some(TableId::IngressAdminTier);
    for table in [TableId::IngressRule].into_iter().chain(before) {
        let allow = vec![Direction::Ingress.allow()];
        rules.add((table, priority::NODE), matches.clone(), allow, &origin);
    }
    rules.into_list()
}

/// Returns the rules of a port: it is isolated while its pod, or its policies, are not known,
/// and the pod reaches itself.
pub(super) fn port_rules(endpoint: &LocalEndpoint, is_known: bool, is_synced: bool) -> Vec<Rule> {
    let mut rules = RuleSet::of(RuleOwner::Policies);
    if !is_known || !is_synced {
        let tables = (TableId::EgressDefault, TableId::IngressDefault);
        isolate(&mut rules, endpoint, tables);
    }
    if !is_synced {
        // A policy of the cluster that is not heard of may deny what those allow that are.
        let tables = (TableId::EgressAdminTier, TableId::IngressAdminTier);
        isolate(&mut rules, endpoint, tables);
    }
    // Through its Service: policies speak of peers, and it is none.
    let origin = Arc::new(pod_origin(endpoint, "to itself"));
    for ip in &endpoint.addresses {
        allow_own_address(&mut rules, endpoint.port_no, *ip, &origin);
    }
    rules.into_list()
}

fn isolate(rules: &mut RuleSet, endpoint: &LocalEndpoint, (egress, ingress): (TableId, TableId)) {
    let origin = Arc::new(pod_origin(endpoint, "isolated until known"));
    let drop = || vec![Action::Drop(DropReason::PodUnknown)];
    let port = Some(endpoint.port_no);
    let from = Match {
        in_port: port,
        ..Match::default()
    };
    rules.add((egress, priority::UNKNOWN), from, drop(), &origin);
    let to = Match {
        out_port: port,
        ..Match::default()
    };
    rules.add((ingress, priority::UNKNOWN), to, drop(), &origin);
}

fn allow_own_address(rules: &mut RuleSet, port: PortNo, ip: IpAddr, origin: &Arc<Origin>) {
    let own = Some(AddressMatch::Net(IpNet::from(ip)));
    let out = Match {
        in_port: Some(port),
        ip_dst: own.clone(),
        ..Match::default()
    };
    let allow = vec![Direction::Egress.allow()];
    rules.add((TableId::EgressRule, priority::OWN), out, allow, origin);
    // Directly, or through a Service, which gives it another source.
    let hairpin = AddressMatch::Net(IpNet::from(virtual_addresses(ip).hairpin));
    for ip_src in [own, Some(hairpin)] {
        let back = Match {
            in_port: Some(port),
            out_port: Some(port),
            ip_src,
            ..Match::default()
        };
        let allow = vec![Direction::Ingress.allow()];
        rules.add((TableId::IngressRule, priority::OWN), back, allow, origin);
    }
}

fn pod_origin(endpoint: &LocalEndpoint, part: &str) -> Origin {
    Origin {
        kind: "Pod",
        name: endpoint.pod.to_string(),
        part: part.to_owned(),
    }
}
