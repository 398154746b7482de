//! A datapath with pods on it, as the reconciler would set it up.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use vswitch_api::{Cookie, MacAddr, PortNo, Priority};
use vswitch_datapath::flow::{PortClass, SetName};
use vswitch_datapath::packet::Frame;
use vswitch_datapath::pipeline::{
    Origin, PortSpec, PortUpdate, Rule, RuleId, SetUpdate, TableId, Transaction,
};
use vswitch_datapath::{
    Datapath, DatapathConfig, DropReason, Engine, KernelPath, Outputs, Timestamp, Verdict,
    parse_actions,
};

use crate::packets::Host;

/// A pod and the port that it hangs on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pod {
    pub(crate) port: PortNo,
    pub(crate) host: Host,
}

/// MAC that pods see as their gateway's.
pub(crate) const GATEWAY_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xfe]);
/// Port of the gateway.
pub(crate) const GATEWAY: PortNo = PortNo(100);

/// The switch under test.
pub(crate) struct TestSwitch {
    pub(crate) dp: Arc<Datapath>,
    pub(crate) engine: Engine,
    pub(crate) out: Outputs,
    pub(crate) frame: Frame,
    pub(crate) now: Timestamp,
    next_id: u64,
}

/// Returns a rule from text; `origin` names the object that it came from.
pub(crate) fn rule(
    id: u64,
    table: TableId,
    priority: u16,
    matches: &str,
    actions: &str,
    origin: &str,
) -> Rule {
    Rule {
        id: RuleId(id),
        table,
        priority: Priority(priority),
        matches: matches.parse().unwrap(),
        actions: parse_actions(actions).unwrap(),
        cookie: Cookie(id),
        origin: Arc::new(Origin {
            kind: "Test",
            name: origin.to_owned(),
            part: String::new(),
        }),
    }
}

impl TestSwitch {
    /// Returns a switch with a gateway port and nothing else.
    pub(crate) fn new() -> Self {
        Self::with_cache(1_024)
    }

    pub(crate) fn with_cache(flow_cache_entries: usize) -> Self {
        let config = DatapathConfig {
            flow_cache_entries,
            ..DatapathConfig::default()
        };
        Self::on(Datapath::new(config))
    }

    pub(crate) fn with_kernel_path(below: Arc<dyn KernelPath>) -> Self {
        let config = DatapathConfig {
            flow_cache_entries: 1_024,
            ..DatapathConfig::default()
        };
        Self::on(Datapath::with_kernel_path(config, below))
    }

    fn on(dp: Arc<Datapath>) -> Self {
        let engine = dp.engine();
        let now = Timestamp::from_nanos(1_000_000_000_000);
        let mut switch = Self {
            dp,
            engine,
            out: Outputs::default(),
            frame: Frame::new(),
            now,
            next_id: 1,
        };
        switch.add_port(GATEWAY, PortClass::Gateway, GATEWAY_MAC, 1_500);
        let port = GATEWAY.0;
        switch.rules(&[
            (
                TableId::Classify,
                10,
                &format!("in_port={port}"),
                "set_class:gateway,goto_table:10",
            ),
            (
                TableId::SpoofGuard,
                10,
                &format!("in_port={port}"),
                "goto_table:20",
            ),
            (
                TableId::Forward,
                1,
                "ip",
                &format!("output:{port},goto_table:75"),
            ),
            (
                TableId::Forward,
                1,
                "ipv6",
                &format!("output:{port},goto_table:75"),
            ),
        ]);
        switch
    }

    pub(crate) fn add_port(&mut self, no: PortNo, class: PortClass, mac: MacAddr, mtu: u16) {
        let name = format!("port{no}");
        let spec = PortSpec {
            no,
            class,
            name,
            mac,
            mtu,
            midstream_pickup: false,
        };
        let ports = vec![PortUpdate::Upsert(spec)];
        self.dp.apply(Transaction {
            ports,
            ..Transaction::default()
        });
    }

    /// Adds the pod with this number: port N, MAC 02::N, 10.0.0.N or fd00::N.
    pub(crate) fn add_pod(&mut self, n: u8) -> Pod {
        self.add_pod_at(n, IpAddr::from([10, 0, 0, n]))
    }

    pub(crate) fn add_pod_at(&mut self, n: u8, ip: IpAddr) -> Pod {
        let host = Host {
            mac: MacAddr([2, 0, 0, 0, 0, n]),
            ip,
        };
        let (port, mac) = (PortNo(n.into()), host.mac);
        self.add_port(port, PortClass::Pod, mac, 1_500);
        let from = format!("in_port={port}");
        let l3 = if ip.is_ipv4() { "ip" } else { "ipv6" };
        self.rules(&[
            (TableId::Classify, 10, &from, "set_class:pod,goto_table:10"),
            (TableId::SpoofGuard, 10, &format!("{l3},{from},dl_src={mac},ip_src={ip}"), "goto_table:20"),
            (
                TableId::Forward,
                10,
                &format!("{l3},ip_dst={ip}"),
                &format!("set_field:{GATEWAY_MAC}->eth_src,set_field:{mac}->eth_dst,output:{port},goto_table:75"),
            ),
        ]);
        if ip.is_ipv4() {
            let own = format!("arp,{from},dl_src={mac},arp_sha={mac},arp_spa={ip}");
            self.rules(&[
                (TableId::SpoofGuard, 10, &own, "goto_table:20"),
                (
                    TableId::ArpResponder,
                    10,
                    &format!("arp,arp_op=1,arp_tpa={ip}"),
                    &format!("arp_reply({GATEWAY_MAC})"),
                ),
            ]);
        } else {
            let nd = format!("icmp6,icmp_type=135,nd_target={ip}");
            self.rules(&[(
                TableId::ArpResponder,
                10,
                &nd,
                &format!("nd_advertise({GATEWAY_MAC})"),
            )]);
        }
        Pod { port, host }
    }

    /// Installs rules, returns their ids.
    pub(crate) fn rules(&mut self, lines: &[(TableId, u16, &str, &str)]) -> Vec<RuleId> {
        let named: Vec<_> = lines
            .iter()
            .map(|(t, p, m, a)| (*t, *p, *m, *a, ""))
            .collect();
        self.named_rules(&named)
    }

    pub(crate) fn named_rules(
        &mut self,
        lines: &[(TableId, u16, &str, &str, &str)],
    ) -> Vec<RuleId> {
        let first = self.next_id;
        self.next_id += lines.len() as u64;
        let add_rules: Vec<_> = (first..)
            .zip(lines)
            .map(|(id, (table, priority, m, a, origin))| rule(id, *table, *priority, m, a, origin))
            .collect();
        let ids = add_rules.iter().map(|rule| rule.id).collect();
        self.dp.apply(Transaction {
            add_rules,
            ..Transaction::default()
        });
        ids
    }

    pub(crate) fn remove_rules(&mut self, remove_rules: Vec<RuleId>) {
        self.dp.apply(Transaction {
            remove_rules,
            ..Transaction::default()
        });
    }

    /// Makes these pods the members of a set.
    pub(crate) fn set(&mut self, name: &str, members: &[Pod]) {
        let nets = members.iter().map(|pod| pod.host.ip.into()).collect();
        let sets = vec![(SetName(name.into()), SetUpdate::Replace(nets))];
        self.dp.apply(Transaction {
            sets,
            ..Transaction::default()
        });
    }

    /// Isolates the pods of `@NAME/pods` for ingress but from `@NAME/from` to a UDP and TCP port.
    pub(crate) fn ingress_policy(&mut self, name: &str, port: u16) -> Vec<RuleId> {
        let from = |l4| format!("{l4},ip_src=@{name}/from,ip_dst=@{name}/pods,tp_dst={port}");
        self.named_rules(&[
            (
                TableId::IngressRule,
                100,
                &from("udp"),
                "goto_table:90",
                name,
            ),
            (
                TableId::IngressRule,
                100,
                &from("tcp"),
                "goto_table:90",
                name,
            ),
            (
                TableId::IngressDefault,
                0,
                &format!("ip_dst=@{name}/pods"),
                "drop(policy_ingress)",
                name,
            ),
        ])
    }

    /// Isolates the pods of `@NAME/pods` for egress but to `@NAME/to`.
    pub(crate) fn egress_policy(&mut self, name: &str) -> Vec<RuleId> {
        let to = format!("ip_src=@{name}/pods,ip_dst=@{name}/to");
        self.named_rules(&[
            (TableId::EgressRule, 100, &to, "goto_table:70", name),
            (
                TableId::EgressDefault,
                0,
                &format!("ip_src=@{name}/pods"),
                "drop(policy_egress)",
                name,
            ),
        ])
    }

    /// Sends the bytes into the port; `out` then holds what they caused.
    pub(crate) fn send(&mut self, port: PortNo, bytes: &[u8]) -> Verdict {
        self.frame = Frame::from_bytes(bytes);
        self.out.replies.clear();
        self.out.copies.clear();
        self.out.followers.clear();
        self.engine
            .process(port, &mut self.frame, self.now, &mut self.out)
    }

    pub(crate) fn tick(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    /// Returns the drops that are not zero.
    pub(crate) fn drops(&self) -> BTreeMap<DropReason, u64> {
        self.dp
            .drop_counters()
            .into_iter()
            .filter(|(_, count)| *count != 0)
            .collect()
    }

    /// Returns packets and bytes of a rule.
    pub(crate) fn count_of(&self, id: RuleId) -> (u64, u64) {
        let rules = self.dp.rules();
        let stats = rules.iter().find(|stats| stats.rule.id == id).unwrap();
        (stats.packets, stats.bytes)
    }

    /// Returns the connections that a rule of policies has decided about.
    pub(crate) fn connections_of(&self, id: RuleId) -> u64 {
        let rules = self.dp.rules();
        let stats = rules.iter().find(|stats| stats.rule.id == id).unwrap();
        stats.connections
    }

    /// Returns the packets of the built-in rule with this text.
    pub(crate) fn builtin_count(&self, table: TableId, matches: &str) -> u64 {
        let wanted = matches.parse().unwrap();
        let rules = self.dp.rules();
        let is_it = |rule: &Rule| {
            rule.table == table && rule.matches == wanted && rule.origin.kind == "Builtin"
        };
        rules
            .iter()
            .find(|stats| is_it(&stats.rule))
            .unwrap()
            .packets
    }
}
