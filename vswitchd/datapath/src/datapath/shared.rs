//! The datapath as all workers share it: the published snapshot, its one writer, the tables that
//! packets leave something behind in.
//!
//! Writers take turns behind one lock and publish a whole snapshot; readers never wait.
//! The epoch is part of the snapshot, so rules and epoch change in one step.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Release;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use vswitch_api::{Epoch, PortNo};

use super::attached_path::AttachedKernelPath;
use super::config::DatapathConfig;
use super::counters::{AllCounters, EngineCounters};
use super::denial::Denials;
use super::denials::DenialLogs;
use super::forgotten::Forgotten;
use super::held::HeldFragments;
use super::notices::Notices;
use super::versions::Versions;
use super::watchers::Watchers;
use super::writer::{Writer, update_ports};
use crate::conntrack::{ConnTable, Connection, ConnectionEnd};
use crate::drop_reason::DropReason;
use crate::group::{AffinityTable, ExpectedEndpoints};
use crate::kernel_path::KernelPath;
use crate::pipeline::{Memory, Snapshot, Trace, TraceInput, Transaction, trace};
use crate::time::Timestamp;

/// The switch's packet engine; shared by all workers, changed by one writer at a time.
#[derive(Debug)]
pub struct Datapath {
    pub(super) published: Arc<ArcSwap<Snapshot>>,
    /// Guards what the next snapshot is made from; held while one is made and published, so
    /// that epochs grow one by one. A mutex, because workers never take it.
    pub(super) writer: Mutex<Writer>,
    /// The last generation that forgot ports, addresses or endpoints.
    pub(super) forgot_at: AtomicU64,
    pub(super) conns: ConnTable,
    pub(super) affinity: AffinityTable,
    pub(super) expected: ExpectedEndpoints,
    pub(super) counters: AllCounters,
    pub(super) held: HeldFragments,
    pub(super) notices: Notices,
    pub(super) denials: DenialLogs,
    /// Who watches packets, as the published snapshot names their ports.
    pub(super) watchers: ArcSwap<Watchers>,
    pub(super) versions: Versions,
    /// What is dropped while no engine has it in hand; one thread at a time counts.
    pub(super) late_drops: Mutex<Arc<EngineCounters>>,
    pub(super) flow_cache_entries: usize,
    pub(super) kernel_path: Option<AttachedKernelPath>,
}

impl Datapath {
    /// Returns an empty datapath: every port unknown, everything dropped. It holds the
    /// [built-in rules](crate::pipeline::builtin_rules).
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
        let counters = AllCounters::default();
        let writer = Writer::new(&counters);
        let mut snapshot = Snapshot::empty();
        snapshot.tables = writer.program.rules.tables();
        let kernel_path = below.map(|below| AttachedKernelPath::new(below, counters.register()));
        Arc::new(Self {
            kernel_path,
            published: Arc::new(ArcSwap::from_pointee(snapshot)),
            writer: Mutex::new(writer),
            forgot_at: AtomicU64::new(0),
            conns: ConnTable::new(config.conntrack),
            affinity: AffinityTable::default(),
            expected: ExpectedEndpoints::default(),
            held: HeldFragments::default(),
            notices: Notices::default(),
            denials: DenialLogs::default(),
            watchers: ArcSwap::default(),
            versions: Versions::default(),
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
        next.epoch = Epoch(next.epoch.0 + 1);
        let of_audit = std::mem::take(&mut changes.audit);
        next.audit = writer.change_audit(of_audit, next.audit, next.epoch);
        writer.change(changes, &self.counters);
        next.tables = writer.program.rules.tables();
        next.addresses = writer.program.sets.index();
        next.derive();
        let epoch = next.epoch;
        let next = Arc::new(next);
        self.keep_version(&next);
        self.published.store(next);
        if !forgotten.is_empty() {
            // Before connections are looked through: who makes one behind that reads it.
            self.forgot_at.store(epoch.0, Release);
            self.forget(&forgotten);
        }
        self.revoke();
        epoch
    }

    /// Removes connections, and has both ends of those know that it ends which end with an address.
    fn forget(&self, forgotten: &Forgotten) {
        let mut ended = Vec::new();
        self.conns.flush(|conn| {
            if forgotten.ends(conn) {
                ended.push(Arc::clone(conn));
                return Some(ConnectionEnd::Detached);
            }
            forgotten.moves(conn).then_some(ConnectionEnd::Replaced)
        });
        self.conns.forget_ports(&forgotten.ports);
        for conn in &ended {
            self.notices.add(conn);
        }
    }

    /// Returns what packets leave behind for later ones.
    pub(super) fn memory(&self) -> Memory<'_> {
        Memory {
            conns: &self.conns,
            affinity: &self.affinity,
            expected: &self.expected,
        }
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
    pub(super) fn count_late(&self, reason: DropReason, ports: &[PortNo]) {
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

    /// Returns what was denied, cut or would have been denied since the last call.
    #[must_use]
    pub fn fetch_denials(&self) -> Denials {
        self.denials.fetch(&self.published.load())
    }

    /// Returns the generation of the published rules.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.published.load().epoch
    }

    /// Removes the connections that `is_unwanted` names; returns how many.
    pub fn flush_connections(&self, mut is_unwanted: impl FnMut(&Connection) -> bool) -> usize {
        let end = |conn: &Arc<Connection>| is_unwanted(conn).then_some(ConnectionEnd::Cut);
        let flushed = self.conns.flush(end);
        self.revoke();
        flushed
    }

    /// Explains what would become of a packet; changes no state and no counter.
    #[must_use]
    pub fn trace(&self, input: &TraceInput, now: Timestamp) -> Trace {
        trace(&self.published.load(), self.memory(), input, now)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Writer> {
        // A writer that panicked published nothing; what it left half done is installed anew
        // by the next reconciliation, which compares against `rules`.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use vswitch_api::{Cookie, Priority};

    use super::*;
    use crate::action::Action;
    use crate::flow::SetName;
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
