//! Walks a program rule by rule, without any classifier: the plainest reading of the tables.

use std::net::IpAddr;

use ipnet::IpNet;
use vswitch_api::PortNo;
use vswitch_datapath::flow::{AddressMatch, Match, PortClass, PortRange, ether_type, ip_proto};
use vswitch_datapath::pipeline::TableId;
use vswitch_datapath::{Action, DropReason};

use super::program::Program;
use super::world::GATEWAY;

#[derive(Debug, Clone, Copy)]
pub(super) struct Flow {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) proto: u8,
    pub(super) port: u16,
    pub(super) in_port: PortNo,
    pub(super) out_port: PortNo,
}

impl Flow {
    /// Returns the ports of source and destination, or type and code of ICMP: the digits of the
    /// port's number, so that port 80 is an echo request.
    pub(super) fn transport(&self) -> (u16, u16) {
        match self.proto {
            ip_proto::ICMP | ip_proto::ICMPV6 => (self.port / 10, self.port % 10),
            _ => (40_000, self.port),
        }
    }
}

/// Judges the flow in both directions, each only where the pod is local.
pub(super) fn verdict(program: &Program, flow: &Flow) -> Result<(), DropReason> {
    egress(program, flow)?;
    ingress(program, flow)
}

pub(super) fn egress(program: &Program, flow: &Flow) -> Result<(), DropReason> {
    if flow.in_port == GATEWAY {
        return Ok(());
    }
    let tables = [
        TableId::EgressAdminTier,
        TableId::EgressAdminTier2,
        TableId::EgressAdminTier3,
        TableId::EgressAdminTier4,
        TableId::EgressRule,
        TableId::EgressDefault,
        TableId::EgressBaselineTier,
        TableId::EgressBaselineTier2,
    ];
    walk(program, flow, tables, TableId::Forward)
}

pub(super) fn ingress(program: &Program, flow: &Flow) -> Result<(), DropReason> {
    if flow.out_port == GATEWAY {
        return Ok(());
    }
    let tables = [
        TableId::IngressAdminTier,
        TableId::IngressAdminTier2,
        TableId::IngressAdminTier3,
        TableId::IngressAdminTier4,
        TableId::IngressRule,
        TableId::IngressDefault,
        TableId::IngressBaselineTier,
        TableId::IngressBaselineTier2,
    ];
    walk(program, flow, tables, TableId::Output)
}

fn walk(
    program: &Program,
    flow: &Flow,
    tables: [TableId; 8],
    passed: TableId,
) -> Result<(), DropReason> {
    let mut at = tables[0];
    for table in tables {
        if table < at {
            continue;
        }
        match best(program, flow, table) {
            None => {}
            Some([Action::Goto(next)]) if *next == passed => return Ok(()),
            Some([Action::Goto(next)]) if tables.contains(next) => at = *next,
            Some([Action::Drop(reason)]) => return Err(*reason),
            Some(other) => panic!("{table:?} does {other:?}"),
        }
    }
    Ok(())
}

fn best<'a>(program: &'a Program, flow: &Flow, table: TableId) -> Option<&'a [Action]> {
    let in_table = program.rules.values().filter(|rule| rule.table == table);
    let matching = in_table.filter(|rule| matches(program, &rule.matches, flow));
    let best = matching.max_by_key(|rule| (rule.priority, std::cmp::Reverse(rule.id)));
    best.map(|rule| rule.actions.as_slice())
}

fn matches(program: &Program, m: &Match, flow: &Flow) -> bool {
    let class = if flow.in_port == GATEWAY {
        PortClass::Gateway
    } else {
        PortClass::Pod
    };
    let known = Match {
        in_port: m.in_port,
        out_port: m.out_port,
        class: m.class,
        eth_type: m.eth_type,
        ip_proto: m.ip_proto,
        ip_src: m.ip_src.clone(),
        ip_dst: m.ip_dst.clone(),
        tp_src: m.tp_src,
        tp_dst: m.tp_dst,
        ..Match::default()
    };
    assert_eq!(
        *m, known,
        "a policy rule demands a field that this walker does not know"
    );
    m.in_port.is_none_or(|port| port == flow.in_port)
        && m.out_port.is_none_or(|port| port == flow.out_port)
        && m.class.is_none_or(|wanted| wanted == class)
        && m.ip_proto.is_none_or(|proto| proto == flow.proto)
        && m.eth_type
            .is_none_or(|eth_type| eth_type == ether_type::of_ip(flow.src.is_ipv6()))
        && is_in(m.tp_src, flow.transport().0)
        && is_in(m.tp_dst, flow.transport().1)
        && address_matches(program, m.ip_src.as_ref(), flow.src)
        && address_matches(program, m.ip_dst.as_ref(), flow.dst)
}

fn is_in(range: Option<PortRange>, port: u16) -> bool {
    range.is_none_or(|PortRange { first, last }| (first..=last).contains(&port))
}

fn address_matches(program: &Program, demand: Option<&AddressMatch>, ip: IpAddr) -> bool {
    match demand {
        None => true,
        Some(AddressMatch::Net(net)) => net.contains(&ip),
        Some(AddressMatch::Set(name)) => program.sets[name]
            .iter()
            .any(|net: &IpNet| net.contains(&ip)),
    }
}
