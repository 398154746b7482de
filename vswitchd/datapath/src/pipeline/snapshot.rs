//! Snapshot: one immutable, published version of everything that packets are processed by.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use foldhash::fast::FixedState;
use vswitch_api::{Epoch, MacAddr, PortNo};

use super::table::Table;
use super::{PortLimits, PortSpec, TableId};
use crate::address_set::AddressIndex;
use crate::drop_reason::DropReason;
use crate::flow::PortClass;
use crate::group::Groups;

/// A port as the datapath knows it, with the drops of what came in there.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) spec: PortSpec,
    pub(crate) drops: Arc<DropCounters>,
    pub(crate) limits: PortLimits,
}

/// Ports by number. Numbers come from the control plane: no packet can choose one that
/// collides, so a fixed seed is enough.
pub(crate) type Ports = HashMap<PortNo, Arc<Port>, FixedState>;

/// One counter for each reason. The numbers are only summed up, nothing is ordered by them:
/// relaxed.
#[derive(Debug)]
pub(crate) struct DropCounters([AtomicU64; DropReason::ALL.len()]);

impl Default for DropCounters {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; DropReason::ALL.len()])
    }
}

impl DropCounters {
    /// Counts one drop.
    pub(crate) fn count(&self, reason: DropReason) {
        self.add(reason, 1);
    }

    /// Counts several drops.
    pub(crate) fn add(&self, reason: DropReason, drops: u64) {
        if let Some(counter) = self.0.get(reason as usize) {
            counter.fetch_add(drops, Relaxed);
        }
    }

    /// Returns the drops for each reason, in the order of [`DropReason::ALL`].
    pub(crate) fn read(&self) -> Vec<(DropReason, u64)> {
        let counts = self.0.iter().map(|counter| counter.load(Relaxed));
        DropReason::ALL.iter().copied().zip(counts).collect()
    }
}

/// One version. Unchanged parts are shared with the version before.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) epoch: Epoch,
    pub(crate) tables: [Arc<Table>; TableId::ALL.len()],
    pub(crate) addresses: AddressIndex,
    pub(crate) groups: Groups,
    pub(crate) ports: Arc<Ports>,
    /// Some rule tells a connection's first packet from its later ones, so that what is found
    /// out for the first does not hold for the others.
    pub(crate) is_state_dependent: bool,
    /// The table that a packet comes to which is sent to another, by [`TableId::index`]: tables
    /// of tiers without a policy are passed over. Asked at each step of a walk.
    entered: [TableId; TableId::ALL.len()],
    /// Some port is limited: what is forwarded has to ask.
    pub(crate) has_limits: bool,
    /// Somebody watches: what happens to a packet is to be told.
    pub(crate) has_watchers: bool,
    /// The ports of which every packet is watched.
    pub(crate) watched: Arc<[PortNo]>,
    /// What would be in force with the policies in audit, if any is.
    pub(crate) audit: Option<Arc<AuditedProgram>>,
}

impl Snapshot {
    /// Returns the version that knows nothing.
    pub(crate) fn empty() -> Self {
        Self {
            epoch: Epoch(0),
            tables: TableId::ALL.map(|table| Arc::new(Table::empty(table))),
            addresses: AddressIndex::default(),
            groups: Groups::default(),
            ports: Arc::default(),
            is_state_dependent: false,
            entered: entered(|_| false),
            has_limits: false,
            has_watchers: false,
            watched: Arc::default(),
            audit: None,
        }
    }

    /// Returns the rules of a table.
    pub(crate) fn table(&self, table: TableId) -> Option<&Table> {
        self.tables.get(table.index()).map(Arc::as_ref)
    }

    /// Returns the table that a packet comes to which is sent to `table`.
    #[inline]
    pub(crate) fn entered(&self, table: TableId) -> TableId {
        self.entered.get(table.index()).copied().unwrap_or(table)
    }

    /// Returns the port if it exists.
    pub(crate) fn port(&self, no: PortNo) -> Option<&Arc<Port>> {
        self.ports.get(&no)
    }

    /// Returns what hangs on a port.
    pub(crate) fn class_of(&self, no: PortNo) -> PortClass {
        self.port(no)
            .map_or(PortClass::Unknown, |port| port.spec.class)
    }

    /// Returns the MAC that pods know their gateway by; zeros if there is none yet.
    pub(crate) fn gateway_mac(&self) -> MacAddr {
        let mut ports = self.ports.values();
        let gateway = ports.find(|port| port.spec.class == PortClass::Gateway);
        gateway.map(|port| port.spec.mac).unwrap_or_default()
    }

    /// Returns whether the port has a limit.
    pub(crate) fn is_limited(&self, no: PortNo) -> bool {
        self.has_limits && self.port(no).is_some_and(|port| !port.limits.is_none())
    }

    /// Returns whether every packet of the port is watched.
    pub(crate) fn is_watched(&self, no: PortNo) -> bool {
        self.has_watchers && self.watched.contains(&no)
    }

    /// Computes what follows from tables and ports, after they changed.
    pub(crate) fn derive(&mut self) {
        self.is_state_dependent = self
            .tables
            .iter()
            .any(|table| table.tells_new_from_established());
        self.entered = entered(|table| {
            let rules = self.table(table).map_or(0, Table::len);
            super::builtin::is_tier_in_use(table, rules)
        });
        self.has_limits = self.ports.values().any(|port| !port.limits.is_none());
    }
}

/// One version of the policy tables as they would be with the policies in audit.
#[derive(Debug)]
pub(crate) struct AuditedProgram {
    pub(crate) tables: Snapshot,
    /// The publication that brought it.
    pub(crate) since: Epoch,
    /// The one since which there has been a policy in audit.
    pub(crate) began: Epoch,
}

impl AuditedProgram {
    pub(crate) fn new(
        tables: [Arc<Table>; TableId::ALL.len()],
        addresses: AddressIndex,
        (since, began): (Epoch, Epoch),
    ) -> Self {
        let mut snapshot = Snapshot::empty();
        (snapshot.tables, snapshot.addresses) = (tables, addresses);
        snapshot.derive();
        Self {
            tables: snapshot,
            since,
            began,
        }
    }
}

/// Returns the table that packets come to which are sent to each, past those of tiers that are not
/// in use.
fn entered(is_used: impl Fn(TableId) -> bool) -> [TableId; TableId::ALL.len()] {
    TableId::ALL.map(|table| {
        let mut entered = table;
        while let Some(beyond) = entered.beyond_tier()
            && !is_used(entered)
        {
            entered = beyond;
        }
        entered
    })
}
