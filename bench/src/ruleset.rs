//! The rules of one node in a large cluster, as the daemon's compilers write them, straight into
//! a datapath: what a packet meets, without the daemon.
//!
//! 110 pods of 100 namespaces are at this node. Policies come ten a namespace, in the mix of
//! `POLICIES`; a policy that selects no pod of this node has no rules here.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use anyhow::{Result, anyhow};
use ipnet::IpNet;
use vswitch_api::{Cookie, MacAddr, PortNo, Priority};
use vswitch_datapath::conntrack::ConntrackConfig;
use vswitch_datapath::flow::{PortClass, SetName};
use vswitch_datapath::group::{Endpoint, Group, GroupId, GroupUpdate};
use vswitch_datapath::pipeline::{
    Origin, PortSpec, PortUpdate, Rule, RuleId, SetUpdate, TableId, Transaction,
};
use vswitch_datapath::{Datapath, DatapathConfig, parse_actions};

/// Port of the gateway, behind which everything is that is not at this node.
pub const GATEWAY: PortNo = PortNo(1);
/// The gateway's MAC.
pub const GATEWAY_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
/// Address of the Service that [`Ruleset::serve`] puts up; its port is 80.
pub const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 1);
/// Port that pods listen on.
pub const HTTP: u16 = 8080;

const NAMESPACES: usize = 1_000;
const PODS_EACH: usize = 10;
const LOCAL_PODS: usize = 110;
const LOCAL_NAMESPACES: usize = 100;
const MTU: u16 = 1_450;

/// A policy: directions that it isolates, rules that it allows: table, match.
type Policy = (&'static [TableId], &'static [(TableId, &'static str)]);

/// Those of a namespace's ten policies that select pods of this node; the sets that a name
/// stands for are the namespace's own.
const POLICIES: [Policy; 5] = [
    (&[TableId::IngressDefault, TableId::EgressDefault], &[]),
    (
        &[TableId::EgressDefault],
        &[
            (
                TableId::EgressRule,
                "udp,ip_src=@selected,ip_dst=@dns,tp_dst=53",
            ),
            (
                TableId::EgressRule,
                "tcp,ip_src=@selected,ip_dst=@dns,tp_dst=53",
            ),
        ],
    ),
    (
        &[TableId::IngressDefault],
        &[(TableId::IngressRule, "ip_src=@team,ip_dst=@selected")],
    ),
    (
        &[TableId::IngressDefault],
        &[
            (
                TableId::IngressRule,
                "tcp,ip_src=@app-1,ip_dst=@selected,tp_dst=8080",
            ),
            (
                TableId::IngressRule,
                "tcp,ip_src=@front,ip_dst=@selected,tp_dst=8080",
            ),
        ],
    ),
    (
        &[TableId::EgressDefault],
        &[
            (
                TableId::EgressRule,
                "tcp,ip_src=@selected,ip_dst=@app-1,tp_dst=8080",
            ),
            (
                TableId::EgressRule,
                "tcp,ip_src=@selected,ip_dst=@app-3,tp_dst=8080",
            ),
            (
                TableId::EgressRule,
                "tcp,ip_src=@selected,ip_dst=@app-1,tp_dst=9000-9010",
            ),
            (
                TableId::EgressRule,
                "tcp,ip_src=@selected,ip_dst=@app-3,tp_dst=9000-9010",
            ),
        ],
    ),
];

/// A datapath and what was put into it.
#[derive(Debug)]
pub struct Ruleset {
    /// The datapath.
    pub datapath: Arc<Datapath>,
    rules: Vec<Rule>,
    sets: Vec<(SetName, SetUpdate)>,
    ports: Vec<PortUpdate>,
}

/// Address of a pod of the cluster.
#[must_use]
pub fn address(pod: usize) -> Ipv4Addr {
    let [_, high, middle, low] = u32::try_from(pod).unwrap_or_default().to_be_bytes();
    Ipv4Addr::new(10, 1 + high, middle, low)
}

/// The pods of this node: the first of 100 namespaces, and the second of the first ten.
#[must_use]
pub fn local_pod(index: usize) -> usize {
    let (namespace, place) = (index % LOCAL_NAMESPACES, index / LOCAL_NAMESPACES);
    namespace * PODS_EACH + place
}

/// Port of a pod of this node.
#[must_use]
pub fn port_of(local: usize) -> PortNo {
    PortNo(u32::try_from(local).unwrap_or_default() + GATEWAY.0 + 1)
}

/// MAC of a port.
#[must_use]
pub fn mac_of(PortNo(port): PortNo) -> MacAddr {
    let [a, b, c, d] = port.to_be_bytes();
    MacAddr([2, 0, a, b, c, d])
}

impl Ruleset {
    /// Brings the rules of so many policies into force, for engines with so large a FlowCache.
    ///
    /// # Errors
    /// Fails if a rule is not one.
    pub fn install(policies: usize, flow_cache_entries: usize) -> Result<Self> {
        let datapath = Datapath::new(DatapathConfig {
            conntrack: ConntrackConfig {
                max_entries: 1_048_576,
                ..ConntrackConfig::default()
            },
            flow_cache_entries,
        });
        let mut ruleset = Self {
            datapath,
            rules: Vec::new(),
            sets: Vec::new(),
            ports: Vec::new(),
        };
        ruleset.gateway()?;
        ruleset.shared_sets();
        (0..LOCAL_PODS).try_for_each(|local| ruleset.pod(local))?;
        for number in 0..policies {
            ruleset.policy(number)?;
        }
        let changes = Transaction {
            add_rules: ruleset.rules.clone(),
            sets: std::mem::take(&mut ruleset.sets),
            ports: std::mem::take(&mut ruleset.ports),
            ..Transaction::default()
        };
        ruleset.datapath.apply(changes);
        Ok(ruleset)
    }

    /// Puts [`SERVICE`] before one pod.
    ///
    /// # Errors
    /// Fails if a rule is not one.
    pub fn serve(&mut self, pod: usize) -> Result<()> {
        let first = self.rules.len();
        let service = format!("tcp,ip_dst={SERVICE},tp_dst=80");
        self.rule(TableId::ServiceLb, 100, &service, "group:1,goto_table:55")?;
        let endpoint = Endpoint {
            ip: address(pod).into(),
            port: HTTP,
        };
        let group = Group {
            id: GroupId(1),
            name: "ns-0000/svc:80/TCP".into(),
            endpoints: [endpoint].into(),
            affinity: None,
            entrances: [].into(),
            hairpin_source: Ipv4Addr::new(169, 254, 86, 1).into(),
        };
        self.datapath.apply(Transaction {
            add_rules: self.rules.split_off(first),
            groups: vec![GroupUpdate::Set(group)],
            ..Transaction::default()
        });
        Ok(())
    }

    fn rule(&mut self, table: TableId, priority: u16, matches: &str, actions: &str) -> Result<()> {
        let name = String::new();
        let part = name.clone();
        self.rules.push(Rule {
            id: RuleId(u64::try_from(self.rules.len())? + 1),
            table,
            priority: Priority(priority),
            matches: matches
                .parse()
                .map_err(|error| anyhow!("{matches}: {error}"))?,
            actions: parse_actions(actions)?,
            cookie: Cookie(0),
            origin: Arc::new(Origin {
                kind: "Benchmark",
                name,
                part,
            }),
        });
        Ok(())
    }

    fn port(&mut self, no: PortNo, class: PortClass, mac: MacAddr) {
        self.ports.push(PortUpdate::Upsert(PortSpec {
            no,
            class,
            name: format!("port{no}"),
            mac,
            mtu: MTU,
            midstream_pickup: false,
        }));
    }

    fn set(&mut self, name: String, pods: impl Iterator<Item = usize>) {
        let members = pods.map(|pod| IpNet::from(IpAddr::from(address(pod))));
        self.sets
            .push((SetName(name.into()), SetUpdate::Add(members.collect())));
    }

    fn gateway(&mut self) -> Result<()> {
        self.port(GATEWAY, PortClass::Gateway, GATEWAY_MAC);
        let (from, leave) = (
            format!("in_port={GATEWAY}"),
            format!("set_field:{GATEWAY_MAC}->eth_dst,output:{GATEWAY},goto_table:90"),
        );
        let in_class = "set_class:gateway,goto_table:10";
        self.rule(TableId::Classify, 100, &from, in_class)?;
        self.rule(TableId::SpoofGuard, 100, &from, "goto_table:20")?;
        let spoofed = format!("{from},ip,ip_src=10.0.0.0/24");
        self.rule(TableId::SpoofGuard, 150, &spoofed, "drop(spoofed)")?;
        self.rule(TableId::Forward, 200, "ip,ip_dst=10.0.0.1", &leave)?;
        self.rule(TableId::Forward, 10, "class=pod", &leave)?;
        let nowhere = "drop(no_route)";
        self.rule(TableId::Forward, 100, "ip,ip_dst=10.0.0.0/24", nowhere)?;
        self.rule(TableId::Forward, 100, "ipv6,ip_dst=fe80::/10", nowhere)?;
        let service = "class=gateway,ct_state=+dnat";
        self.rule(TableId::Forward, 60, service, &leave)?;
        self.rule(TableId::Forward, 50, "class=gateway", nowhere)?;
        let own = "ip_src=@node";
        self.rule(TableId::IngressRule, 200, own, "goto_table:90")
    }

    /// Sets that policies of many namespaces have as peers.
    fn shared_sets(&mut self) {
        let pods = || 0..NAMESPACES * PODS_EACH;
        self.set("dns".to_owned(), 0..PODS_EACH);
        for team in 0..20 {
            let is_in = |pod: &usize| pod / PODS_EACH % 20 == team;
            self.set(format!("team-{team}"), pods().filter(is_in));
        }
        let is_front = |pod: &usize| (pod / PODS_EACH).is_multiple_of(3) && pod % PODS_EACH == 2;
        self.set("front".to_owned(), pods().filter(is_front));
    }

    fn pod(&mut self, local: usize) -> Result<()> {
        let (port, ip) = (port_of(local), address(local_pod(local)));
        let mac = mac_of(port);
        self.port(port, PortClass::Pod, mac);
        let classify = "set_class:pod,goto_table:10";
        let (from, pass) = (format!("in_port={port}"), "goto_table:20");
        self.rule(TableId::Classify, 100, &from, classify)?;
        let guard = format!("{from},dl_src={mac}");
        for (priority, rest, actions) in [
            (100, format!("ip,ip_src={ip}"), pass),
            (100, format!("arp,arp_sha={mac},arp_spa={ip}"), pass),
            (
                100,
                format!("arp,arp_op=1,arp_sha={mac},arp_spa=0.0.0.0"),
                pass,
            ),
            (
                200,
                format!("icmp6,icmp_type=135,ip_src=fe80::/10,arp_sha={mac}"),
                pass,
            ),
            (150, "icmp6,icmp_type=133-137".to_owned(), "drop(spoofed)"),
        ] {
            self.rule(
                TableId::SpoofGuard,
                priority,
                &format!("{guard},{rest}"),
                actions,
            )?;
        }
        let asked = format!("arp,arp_op=1,arp_tpa={ip}");
        let answer = format!("arp_reply({mac})");
        self.rule(TableId::ArpResponder, 100, &asked, &answer)?;
        let by_owner = format!("{from},{asked}");
        self.rule(TableId::ArpResponder, 200, &by_owner, "drop(arp_unknown)")?;
        let deliver = format!("set_field:{mac}->eth_dst,output:{port},goto_table:75");
        self.rule(TableId::Forward, 200, &format!("ip,ip_dst={ip}"), &deliver)
    }

    fn policy(&mut self, number: usize) -> Result<()> {
        let (namespace, place) = (number / 10, number % 10);
        let (true, Some((isolates, allows))) = (namespace < LOCAL_NAMESPACES, POLICIES.get(place))
        else {
            return Ok(());
        };
        let own = |name: &str| format!("ns-{namespace}/{name}");
        let pods = namespace * PODS_EACH..(namespace + 1) * PODS_EACH;
        if place == 0 {
            for app in [1, 3] {
                let is_it = |pod: &usize| pod % PODS_EACH == app;
                self.set(own(&format!("app-{app}")), pods.clone().filter(is_it));
            }
        }
        // The first three select every pod, the others those of one application.
        let is_selected = |pod: &usize| place < 3 || pod.is_multiple_of(PODS_EACH);
        let selected = own(&format!("policy-{place}/selected"));
        self.set(selected.clone(), pods.filter(is_selected));
        let named = |text: &str| {
            text.replace("@selected", &format!("@{selected}"))
                .replace("@app-", &format!("@{}", own("app-")))
                .replace("@team", &format!("@team-{}", namespace % 20))
        };
        for table in *isolates {
            let (side, deny) = match table {
                TableId::EgressDefault => ("ip_src", "drop(policy_egress)"),
                _ => ("ip_dst", "drop(policy_ingress)"),
            };
            self.rule(*table, 100, &format!("{side}=@{selected}"), deny)?;
        }
        for (table, text) in *allows {
            let on = match table {
                TableId::EgressRule => "goto_table:70",
                _ => "goto_table:90",
            };
            self.rule(*table, 100, &named(text), on)?;
        }
        Ok(())
    }
}
