//! The datapath: published pipeline, connection table, and the engines that workers drive.
//!
//! Writers take turns behind one lock and publish a whole snapshot; readers never wait.
//! The epoch is part of the snapshot, so rules and epoch change in one step.

mod counters;
mod engine;
mod held;
mod in_hand;
mod kernel_path;
mod notices;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use vswitch_api::{Epoch, PortNo};

use crate::address_set::AddressSets;
use crate::cache::CacheStats;
use crate::conntrack::{
    ConnTable, Connection, ConnectionInfo, ConntrackConfig, ConntrackStats, Tuple,
};
use crate::drop_reason::DropReason;
use crate::flow::SetName;
use crate::flow::ip_proto;
use crate::group::{
    AffinityTable, Endpoint, ExpectedEndpoints, Group, LostEndpoint, ServiceAddress,
};
use crate::kernel_path::KernelPath;
use crate::packet::Frame;
use crate::pipeline::{
    Bandwidth, Memory, Port, PortSpec, PortUpdate, Ports, RuleStats, RuleStore, Snapshot, Trace,
    TraceInput, Transaction, builtin_rules, is_builtin, trace,
};
use crate::time::Timestamp;
use counters::{AllCounters, EngineCounters};
use held::HeldFragments;
use kernel_path::AttachedKernelPath;
use notices::Notices;

pub use engine::Engine;

/// Limits of a datapath.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DatapathConfig {
    /// Connection tracking limits and timeouts.
    pub conntrack: ConntrackConfig,
    /// Entries of each worker's FlowCache; 0 turns it off.
    pub flow_cache_entries: usize,
}

/// What is to become of a frame that was processed (and rewritten) in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Send it through this port.
    Forward(PortNo),
    /// Too large for its port, and forwarded in fragments: send [`Outputs::followers`].
    InFragments,
    /// The switch answered it itself: send [`Outputs::replies`].
    Answered,
    /// Drop it; already counted.
    Drop(DropReason),
    /// Forget it: a copy waits for the first fragment of its datagram.
    Held,
}

/// What processed frames caused besides their own verdicts, in order. [`Engine::process`]
/// adds to it; whoever sends it empties it.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Frames that the switch itself makes (ARP and ND answers, ICMP errors, TCP resets).
    pub replies: Vec<(PortNo, Frame)>,
    /// Copies for mirror ports.
    pub copies: Vec<(PortNo, Frame)>,
    /// Frames to forward behind the processed one: fragments of it, or that waited for it.
    pub followers: Vec<(PortNo, Frame)>,
}

/// The switch's packet engine; shared by all workers, changed by one writer at a time.
#[derive(Debug)]
pub struct Datapath {
    published: Arc<ArcSwap<Snapshot>>,
    /// Guards what the next snapshot is made from; held while one is made and published, so
    /// that epochs grow one by one. A mutex, because workers never take it.
    writer: Mutex<Writer>,
    conns: ConnTable,
    affinity: AffinityTable,
    expected: ExpectedEndpoints,
    counters: AllCounters,
    held: HeldFragments,
    notices: Notices,
    /// What is dropped while no engine has it in hand; one thread at a time counts.
    late_drops: Mutex<Arc<EngineCounters>>,
    flow_cache_entries: usize,
    kernel_path: Option<AttachedKernelPath>,
}

/// The writer's side of what is published.
#[derive(Debug, Default)]
struct Writer {
    rules: RuleStore,
    sets: AddressSets,
}

impl Datapath {
    /// Returns an empty datapath: every port unknown, everything dropped. It holds the
    /// [`builtin_rules`].
    #[must_use]
    pub fn new(config: DatapathConfig) -> Arc<Self> {
        Self::build(config, None)
    }

    /// Returns an empty datapath that hands connections which last to a path below.
    #[must_use]
    pub fn with_kernel_path(config: DatapathConfig, below: Arc<dyn KernelPath>) -> Arc<Self> {
        Self::build(config, Some(below))
    }

    fn build(config: DatapathConfig, below: Option<Arc<dyn KernelPath>>) -> Arc<Self> {
        let (mut writer, counters) = (Writer::default(), AllCounters::default());
        for rule in builtin_rules() {
            writer
                .rules
                .add(rule, &mut writer.sets, counters.of_rules());
        }
        let mut snapshot = Snapshot::empty();
        snapshot.tables = writer.rules.tables();
        let kernel_path = below.map(|below| AttachedKernelPath::new(below, counters.register()));
        Arc::new(Self {
            kernel_path,
            published: Arc::new(ArcSwap::from_pointee(snapshot)),
            writer: Mutex::new(writer),
            conns: ConnTable::new(config.conntrack),
            affinity: AffinityTable::default(),
            expected: ExpectedEndpoints::default(),
            held: HeldFragments::default(),
            notices: Notices::default(),
            late_drops: Mutex::new(counters.register()),
            counters,
            flow_cache_entries: config.flow_cache_entries,
        })
    }

    /// Publishes changes; they are in force for the next packet when this returns. Changes to
    /// built-in rules are ignored. A transaction without changes publishes nothing.
    pub fn apply(&self, mut changes: Transaction) -> Epoch {
        let mut writer = self.lock();
        let mut next = Snapshot::clone(&self.published.load());
        if changes == Transaction::default() {
            return next.epoch;
        }
        let forgotten = Forgotten::of(&mut changes);
        next.ports = update_ports(next.ports, std::mem::take(&mut changes.ports));
        next.groups.update(std::mem::take(&mut changes.groups));
        writer.change(changes, &self.counters);
        next.tables = writer.rules.tables();
        next.addresses = writer.sets.index();
        next.derive();
        next.epoch = Epoch(next.epoch.0 + 1);
        if !forgotten.is_empty() {
            next.forgot_at = next.epoch;
        }
        let epoch = next.epoch;
        self.published.store(Arc::new(next));
        if !forgotten.is_empty() {
            self.forget(&forgotten);
        }
        self.revoke();
        epoch
    }

    /// Removes connections, and has both ends of those know that it ends which end with an address.
    fn forget(&self, forgotten: &Forgotten) {
        let mut ended = Vec::new();
        self.conns.flush(|conn| {
            let is_ended = forgotten.ends(conn);
            if is_ended {
                ended.push(Arc::clone(conn));
            }
            is_ended || forgotten.moves(conn)
        });
        self.conns.forget_ports(&forgotten.ports);
        for conn in &ended {
            self.catch_up(conn);
            self.notices.add(conn);
        }
    }

    /// Returns what packets leave behind for later ones.
    fn memory(&self) -> Memory<'_> {
        Memory {
            conns: &self.conns,
            affinity: &self.affinity,
            expected: &self.expected,
        }
    }

    /// Returns a new engine for one worker thread.
    #[must_use]
    pub fn engine(self: &Arc<Self>) -> Engine {
        Engine::new(Arc::clone(self))
    }

    /// Removes connections that are past their time; returns how many.
    pub fn expire(&self, now: Timestamp) -> usize {
        self.sync_kernel_path(now);
        self.affinity.expire(now);
        self.expected.expire(now);
        let too_late = self.held.expire(now);
        self.count_late(DropReason::FragmentUnknown, &too_late);
        self.conns.expire(now)
    }

    /// Counts frames that had come in through these ports, were kept, and are dropped.
    fn count_late(&self, reason: DropReason, ports: &[PortNo]) {
        if ports.is_empty() {
            return;
        }
        let counters = self
            .late_drops
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let published = self.published.load();
        for port in ports {
            counters.drops.count(reason);
            if let Some(port) = published.port(*port) {
                port.drops.count(reason);
            }
        }
    }

    /// Returns the generation of the published rules.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.published.load().epoch
    }

    /// Returns every rule with its counters, in pipeline order, best first.
    #[must_use]
    pub fn rules(&self) -> Vec<RuleStats> {
        self.lock().rules.list(self.counters.of_rules())
    }

    /// Returns how many rules there are.
    #[must_use]
    pub fn rule_count(&self) -> usize {
        self.lock().rules.len()
    }

    /// Returns how many address sets there are.
    #[must_use]
    pub fn address_set_count(&self) -> usize {
        self.lock().sets.len()
    }

    /// Returns every address set with its members, by name.
    #[must_use]
    pub fn address_sets(&self) -> Vec<(SetName, Vec<IpNet>)> {
        self.lock().sets.list()
    }

    /// Returns every load-balancing group, by number.
    #[must_use]
    pub fn groups(&self) -> Vec<Group> {
        self.published.load().groups.list()
    }

    /// Returns every port, by number.
    #[must_use]
    pub fn ports(&self) -> Vec<PortSpec> {
        let mut ports: Vec<_> = self
            .published
            .load()
            .ports
            .values()
            .map(|port| port.spec.clone())
            .collect();
        ports.sort_by_key(|port| port.no);
        ports
    }

    /// Returns the drops for each reason, of all engines that ever were.
    #[must_use]
    pub fn drop_counters(&self) -> Vec<(DropReason, u64)> {
        self.counters.drops()
    }

    /// Returns the drops for each reason of what came in through a port, since it was added;
    /// nothing if there is no such port.
    #[must_use]
    pub fn port_drops(&self, port: PortNo) -> Vec<(DropReason, u64)> {
        self.published
            .load()
            .port(port)
            .map_or_else(Vec::new, |port| port.drops.read())
    }

    /// Returns the ports that are, or were until a few seconds ago, over their share of new flows.
    #[must_use]
    pub fn ports_over_share(&self, now: Timestamp) -> Vec<PortSpec> {
        let mut ports = self.ports();
        ports.retain(|port| self.conns.port_share(port.no).is_over(now));
        ports
    }

    /// Returns the limits of a port; none if there is no such port.
    #[must_use]
    pub fn port_bandwidth(&self, port: PortNo) -> Bandwidth {
        let published = self.published.load();
        let port = published.port(port);
        port.map(|port| port.limits.bandwidth).unwrap_or_default()
    }

    /// Returns the figures of all FlowCaches together.
    #[must_use]
    pub fn cache_stats(&self) -> CacheStats {
        self.counters.cache()
    }

    /// Returns all about every connection.
    #[must_use]
    pub fn connections(&self, now: Timestamp) -> Vec<ConnectionInfo> {
        self.conns.snapshot(now)
    }

    /// Returns the figures of the connection table.
    #[must_use]
    pub fn conntrack_stats(&self) -> ConntrackStats {
        self.conns.stats()
    }

    /// Removes the connections that `is_unwanted` names; returns how many.
    pub fn flush_connections(&self, mut is_unwanted: impl FnMut(&Connection) -> bool) -> usize {
        let flushed = self.conns.flush(|conn| is_unwanted(conn));
        self.revoke();
        flushed
    }

    /// Explains what would become of a packet; changes no state and no counter.
    #[must_use]
    pub fn trace(&self, input: &TraceInput, now: Timestamp) -> Trace {
        trace(&self.published.load(), self.memory(), input, now)
    }

    fn lock(&self) -> MutexGuard<'_, Writer> {
        // A writer that panicked published nothing; what it left half done is installed anew
        // by the next reconciliation, which compares against `rules`.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    fn change(&mut self, changes: Transaction, counters: &AllCounters) {
        for (name, update) in &changes.sets {
            self.sets.update(name, update);
        }
        let (remove, add) = (changes.remove_rules, changes.add_rules);
        for id in remove.into_iter().filter(|id| !is_builtin(*id)) {
            self.rules.remove(id, &mut self.sets);
        }
        let counts = counters.of_rules();
        for rule in add.into_iter().filter(|rule| !is_builtin(rule.id)) {
            self.rules.add(rule, &mut self.sets, &counts);
        }
    }
}

/// Ports, addresses and endpoints that are no longer whose they were: their connections go.
#[derive(Debug)]
struct Forgotten {
    ports: HashSet<PortNo>,
    addresses: HashSet<IpAddr>,
    endpoints: HashSet<LostEndpoint>,
    untranslated: HashSet<ServiceAddress>,
}

impl Forgotten {
    fn of(changes: &mut Transaction) -> Self {
        Self {
            ports: removed_ports(&changes.ports).into_iter().collect(),
            addresses: changes.forget_addresses.drain(..).collect(),
            endpoints: changes.forget_endpoints.drain(..).collect(),
            untranslated: changes.forget_untranslated.drain(..).collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.ports.is_empty()
            && self.addresses.is_empty()
            && self.endpoints.is_empty()
            && self.untranslated.is_empty()
    }

    /// Returns whether the connection has lost one of its ends.
    fn ends(&self, conn: &Connection) -> bool {
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
    fn moves(&self, conn: &Connection) -> bool {
        if conn.is_translated() {
            return self.has_lost_endpoint(conn);
        }
        // UDP has no end: its next datagram would go where the first one went, for as long as they
        // come. What was answered of other protocols is a conversation with somebody else.
        let original = conn.original();
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

fn update_ports(ports: Arc<Ports>, updates: Vec<PortUpdate>) -> Arc<Ports> {
    if updates.is_empty() {
        return ports;
    }
    let mut ports = Ports::clone(&ports);
    for update in updates {
        match update {
            PortUpdate::Remove(no) => {
                ports.remove(&no);
            }
            PortUpdate::Upsert(spec) => {
                let old = ports.get(&spec.no);
                let drops = old.map_or_else(Arc::default, |port| Arc::clone(&port.drops));
                let limits = old.map(|port| port.limits.clone()).unwrap_or_default();
                let (no, port) = (
                    spec.no,
                    Port {
                        spec,
                        drops,
                        limits,
                    },
                );
                ports.insert(no, Arc::new(port));
            }
            PortUpdate::Limit(no, bandwidth) => {
                if let Some(port) = ports.get_mut(&no) {
                    *port = Arc::new(Port {
                        spec: port.spec.clone(),
                        drops: Arc::clone(&port.drops),
                        limits: port.limits.set_to(bandwidth),
                    });
                }
            }
        }
    }
    Arc::new(ports)
}

#[cfg(test)]
mod tests {
    use vswitch_api::{Cookie, Priority};

    use super::*;
    use crate::action::Action;
    use crate::pipeline::{Origin, Rule, RuleId, SetUpdate, TableId};

    /// Returns the tables that differ between the versions before and after the change.
    fn changed_tables(datapath: &Datapath, changes: Transaction) -> Vec<TableId> {
        let before = datapath.published.load_full();
        datapath.apply(changes);
        let after = datapath.published.load_full();
        let pairs = before.tables.iter().zip(&after.tables);
        let changed = TableId::ALL
            .into_iter()
            .zip(pairs)
            .filter(|(_, (b, a))| !Arc::ptr_eq(b, a));
        changed.map(|(table, _)| table).collect()
    }

    #[test]
    fn a_publication_builds_the_tables_again_whose_rules_changed_and_no_others() {
        let datapath = Datapath::new(DatapathConfig::default());
        let name = SetName("web".into());
        let rule = Rule {
            id: RuleId(1),
            table: TableId::IngressRule,
            priority: Priority(1),
            matches: "ip_dst=@web".parse().unwrap(),
            actions: vec![Action::Goto(TableId::Output)],
            cookie: Cookie(0),
            origin: Arc::new(Origin {
                kind: "Test",
                name: String::new(),
                part: String::new(),
            }),
        };
        let add_rules = vec![rule.clone()];
        let install = Transaction {
            add_rules,
            ..Transaction::default()
        };
        assert_eq!(changed_tables(&datapath, install), [TableId::IngressRule]);

        let members = SetUpdate::Add(vec!["10.0.0.0/8".parse().unwrap()]);
        let sets = vec![(name, members)];
        assert_eq!(
            changed_tables(
                &datapath,
                Transaction {
                    sets,
                    ..Transaction::default()
                }
            ),
            []
        );

        let add_rules = vec![Rule {
            table: TableId::Admin,
            ..rule
        }];
        let moved = Transaction {
            add_rules,
            ..Transaction::default()
        };
        assert_eq!(
            changed_tables(&datapath, moved),
            [TableId::Admin, TableId::IngressRule]
        );
        assert_eq!(
            datapath
                .rules()
                .iter()
                .filter(|s| s.rule.id == RuleId(1))
                .count(),
            1
        );
    }

    #[test]
    fn an_empty_transaction_publishes_nothing() {
        let datapath = Datapath::new(DatapathConfig::default());
        let epoch = datapath.epoch();
        assert_eq!(datapath.apply(Transaction::default()), epoch);
        assert_eq!(datapath.epoch(), epoch);
    }
}
