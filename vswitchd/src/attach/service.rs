//! [`Attachments`]: changes of one attachment run to their end, one after the other.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use vswitch_api::PortNo;

use super::error::AttachError;
use super::keyed_lock::KeyedLocks;
use super::ledger::Ledger;
use super::record::{Kind, Record, State};
use super::reserve::Reserve;
use super::world::{Devices, NetnsProbe, NetnsState, PodDirectory, Ports, StepError};
use crate::ipam::{Delegate, Ipam, LeaseOwner};
use crate::port::TapOffloads;
use crate::state::{Attachment, ObjectKey};
use crate::store::{SharedStore, StoreError};
use crate::supervise;

/// What attachments are made of and kept in; the traits are of [`super::world`].
pub struct AttachDeps {
    /// Interfaces.
    pub devices: Box<dyn Devices>,
    /// Switch ports.
    pub ports: Box<dyn Ports>,
    /// Pod objects.
    pub pods: Box<dyn PodDirectory>,
    /// Looks at namespace paths; [`super::KernelNetns`].
    pub netns: Box<dyn NetnsProbe>,
    /// Records and the mark of port numbers.
    pub store: SharedStore,
    /// Built-in address management.
    pub ipam: Arc<Ipam>,
    /// Runs IPAM plugins.
    pub delegate: Delegate,
    /// Unix seconds; `clock::unix_seconds`.
    pub unix_seconds: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl fmt::Debug for AttachDeps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttachDeps")
            .field("ipam", &self.ipam)
            .finish_non_exhaustive()
    }
}

/// Settings of the daemon's configuration.
#[derive(Debug, Clone)]
pub struct AttachSettings {
    /// MTU of ports for which nobody asks for another, bytes.
    pub default_mtu: u16,
    /// Numbers for new ports.
    pub port_numbers: RangeInclusive<u32>,
}

/// The attachments of this switch. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Attachments {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) deps: AttachDeps,
    pub(super) settings: AttachSettings,
    pub(super) ledger: Ledger,
    /// Held over every change of an attachment, from before its lease to after its release.
    pub(super) locks: KeyedLocks<LeaseOwner>,
    /// Held while a Pod object is brought in line with the attachments that have its name.
    pub(super) pod_locks: KeyedLocks<ObjectKey>,
    pub(super) reserve: Reserve,
}

impl Attachments {
    /// Reads the records. Blocks.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn open(deps: AttachDeps, settings: AttachSettings) -> Result<Self, StoreError> {
        let ledger = Ledger::open(deps.store.clone(), settings.port_numbers.clone())?;
        Ok(Self {
            inner: Arc::new(Inner {
                deps,
                settings,
                ledger,
                locks: KeyedLocks::default(),
                pod_locks: KeyedLocks::default(),
                reserve: Reserve::default(),
            }),
        })
    }

    /// Makes the gateway known, whose port was attached before anything else.
    pub fn note_gateway(&self, gateway: Attachment, offloads: TapOffloads) {
        let no = gateway.port_no;
        let ledger = &self.inner.ledger;
        ledger.note_gateway(Record::new(Kind::Gateway, gateway));
        ledger.note_offloads(no, Some(offloads));
    }

    /// Returns everything that hangs on the switch, whatever its state.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Record>> {
        self.inner.ledger.all()
    }

    /// Returns the same by port number.
    #[must_use]
    pub fn by_port(&self) -> BTreeMap<PortNo, Arc<Record>> {
        let all = self.all().into_iter();
        all.map(|record| (record.port_no(), record)).collect()
    }

    /// Returns what is attached under this owner and acknowledged.
    #[must_use]
    pub fn attached(&self, owner: &LeaseOwner) -> Option<Arc<Record>> {
        let record = self.inner.ledger.get(owner)?;
        (record.state == State::Attached).then_some(record)
    }

    /// Returns the VM or mirror port with this TAP.
    #[must_use]
    pub fn rest_port(&self, ifname: &str) -> Option<Arc<Record>> {
        let mut all = self.all().into_iter();
        all.find(|record| {
            matches!(record.kind, Kind::Vm | Kind::Mirror)
                && record.host_ifname().as_str() == ifname
        })
    }

    /// Returns what the TAPs can take: the gateway's and those of VM ports.
    #[must_use]
    pub fn offloads(&self) -> BTreeMap<PortNo, TapOffloads> {
        self.inner.ledger.offloads()
    }

    /// Says whether an attachment with addresses of the built-in management could be made now.
    ///
    /// # Errors
    /// What is missing.
    pub async fn ready(&self) -> Result<(), StepError> {
        self.inner.deps.ports.ready().await
    }

    /// Returns the built-in address management.
    #[must_use]
    pub fn ipam(&self) -> &Ipam {
        &self.inner.deps.ipam
    }

    /// Returns what runs IPAM plugins.
    #[must_use]
    pub fn delegate(&self) -> &Delegate {
        &self.inner.deps.delegate
    }

    /// Says what a namespace path leads to.
    #[must_use]
    pub fn probe(&self, netns: &Path) -> NetnsState {
        self.inner.probe(netns)
    }

    /// Returns the time, Unix seconds.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.inner.now()
    }

    /// Runs work that goes on if its caller goes away: half an attachment is worse than one
    /// whose answer nobody reads.
    pub(super) async fn outlive<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, AttachError>> + Send + 'static,
    ) -> Result<T, AttachError> {
        match supervise::request(work).await {
            Ok(outcome) => outcome,
            Err(source) => Err(AttachError::BrokenOff { source }),
        }
    }
}

impl Inner {
    pub(super) async fn locked(self: &Arc<Self>, owner: &LeaseOwner) -> Locked {
        let guard = self.locks.lock(owner.clone()).await;
        Locked {
            inner: Arc::clone(self),
            owner: owner.clone(),
            _guard: guard,
        }
    }

    /// Runs what blocks on the disk where it may block.
    pub(super) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, AttachError> + Send + 'static,
    ) -> Result<T, AttachError> {
        let inner = Arc::clone(self);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(outcome) => outcome,
            Err(source) => Err(AttachError::BrokenOff { source }),
        }
    }

    /// Makes a state of an attachment durable.
    pub(super) async fn reach(
        self: &Arc<Self>,
        record: &Arc<Record>,
        state: State,
    ) -> Result<Arc<Record>, AttachError> {
        let record = Arc::clone(record);
        self.blocking(move |inner| {
            let reached = inner.ledger.reach(&record, state);
            reached.map_err(|source| AttachError::Store {
                owner: record.owner(),
                source,
            })
        })
        .await
    }

    pub(super) fn now(&self) -> u64 {
        (self.deps.unix_seconds)()
    }

    pub(super) fn probe(&self, netns: &Path) -> NetnsState {
        self.deps.netns.probe(netns)
    }
}

/// An attachment whose lock is held.
pub(super) struct Locked {
    pub(super) inner: Arc<Inner>,
    pub(super) owner: LeaseOwner,
    pub(super) _guard: tokio::sync::OwnedMutexGuard<()>,
}
