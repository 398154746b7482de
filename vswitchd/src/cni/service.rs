//! [`CniService`]: takes a call, runs it to its end, one at a time per interface.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use vswitch_api::IfName;
use vswitch_api::cni::{CniCall, CniCode, CniCommand, CniFailure};

use super::failure;
use super::keyed_lock::KeyedLocks;
use super::port_numbers::PortNumbers;
use super::records;
use super::world::{AttachHost, NetnsProbe, NetnsState, PodDirectory, SwitchPorts};
use crate::ipam::{Delegate, Ipam, LeaseOwner};
use crate::store::SharedStore;
use crate::supervise;

/// What the service needs; the traits are of [`super::world`].
pub struct CniDeps<H, P, D> {
    /// Interfaces.
    pub host: H,
    /// Switch ports.
    pub ports: P,
    /// Pod objects.
    pub pods: D,
    /// Looks at namespace paths; [`super::KernelNetns`].
    pub netns: Box<dyn NetnsProbe>,
    /// Attachment records and port numbers.
    pub store: SharedStore,
    /// Built-in address management.
    pub ipam: Arc<Ipam>,
    /// Runs IPAM plugins.
    pub delegate: Delegate,
    /// Unix seconds; `clock::unix_seconds`.
    pub unix_seconds: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl<H, P, D> fmt::Debug for CniDeps<H, P, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CniDeps")
            .field("ipam", &self.ipam)
            .finish_non_exhaustive()
    }
}

/// Settings of the daemon's configuration.
#[derive(Debug, Clone)]
pub struct CniSettings {
    /// Namespace of pods whose runtime names none.
    pub default_namespace: String,
    /// MTU of pods whose network configuration names none, bytes.
    pub default_mtu: u16,
    /// Port numbers for attachments; no other port may have one of them.
    pub port_numbers: RangeInclusive<u32>,
}

/// The CNI service. Cheap to clone; all clones are one service.
pub struct CniService<H, P, D> {
    inner: Arc<Inner<H, P, D>>,
}

impl<H, P, D> Clone for CniService<H, P, D> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
        }
    }
}

impl<H, P, D> fmt::Debug for CniService<H, P, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CniService")
            .field("settings", &self.inner.settings)
            .finish_non_exhaustive()
    }
}

pub(super) struct Inner<H, P, D> {
    pub(super) deps: CniDeps<H, P, D>,
    pub(super) settings: CniSettings,
    pub(super) numbers: PortNumbers,
    pub(super) locks: KeyedLocks<LeaseOwner>,
    /// Read from a lease to its record, written by GC while it looks for leases without one.
    pub(super) lease_gate: tokio::sync::RwLock<()>,
}

impl<H: AttachHost, P: SwitchPorts, D: PodDirectory> CniService<H, P, D> {
    /// Loads port numbers and attachments from the store. Blocks.
    ///
    /// # Errors
    /// Code 5 if the store cannot be read.
    pub fn new(deps: CniDeps<H, P, D>, settings: CniSettings) -> Result<Self, CniFailure> {
        let store = deps.store.clone();
        let (attached, _) = records::all(&store).map_err(|error| failure::of_store(&error))?;
        let used = attached.iter().map(|record| record.attachment.port_no);
        let numbers = PortNumbers::load(store, settings.port_numbers.clone(), used)
            .map_err(|error| failure::of_store(&error))?;
        let locks = KeyedLocks::default();
        let lease_gate = tokio::sync::RwLock::default();
        Ok(Self {
            inner: Arc::new(Inner {
                deps,
                settings,
                numbers,
                locks,
                lease_gate,
            }),
        })
    }

    /// Serves one call; the result is `None` where the command has none.
    ///
    /// Needs a tokio runtime. A call that began runs to its end even if the returned future
    /// is dropped: half an ADD is worse than one whose answer nobody reads.
    ///
    /// # Errors
    /// What the shim prints.
    pub async fn handle(&self, call: CniCall) -> Result<Option<Value>, CniFailure> {
        let command = call.check()?;
        let inner = self.inner.clone();
        self.detached(async move { inner.run(command, call).await })
            .await
    }

    pub(super) async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, CniFailure>> + Send + 'static,
    ) -> Result<T, CniFailure> {
        supervise::request(work)
            .await
            .unwrap_or_else(|error| Err(broken_task(&error)))
    }

    pub(super) fn inner(&self) -> Arc<Inner<H, P, D>> {
        self.inner.clone()
    }
}

fn broken_task(error: &tokio::task::JoinError) -> CniFailure {
    CniFailure::new(
        CniCode::Internal,
        "the call broke off; see the log of vswitchd",
    )
    .with_details(error.to_string())
}

impl<H: AttachHost, P: SwitchPorts, D: PodDirectory> Inner<H, P, D> {
    async fn run(
        self: Arc<Self>,
        command: CniCommand,
        call: CniCall,
    ) -> Result<Option<Value>, CniFailure> {
        let outcome = match command {
            CniCommand::Add => self.locked(&call).await?.add(&call).await.map(Some),
            CniCommand::Del => self.locked(&call).await?.del(&call).await.map(|()| None),
            CniCommand::Check => self.locked(&call).await?.check(&call).await.map(|()| None),
            CniCommand::Gc => self.gc(&call).await.map(|()| None),
            CniCommand::Status => self.status(&call).await.map(|()| None),
        };
        let (container_id, ifname) = (call.container_id.as_deref(), call.ifname.as_deref());
        match &outcome {
            Ok(_) => tracing::info!(
                command = command.as_str(),
                container_id,
                ifname,
                "cni call done"
            ),
            Err(error) => tracing::warn!(
                command = command.as_str(), container_id, ifname, %error, "cni call failed"
            ),
        }
        outcome
    }

    async fn locked(self: &Arc<Self>, call: &CniCall) -> Result<Locked<H, P, D>, CniFailure> {
        let owner = owner_of(call)?;
        let guard = self.locks.lock(owner.clone()).await;
        Ok(Locked {
            inner: self.clone(),
            owner,
            _guard: guard,
        })
    }

    /// Runs what blocks on the disk where it may block.
    pub(super) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, CniFailure> + Send + 'static,
    ) -> Result<T, CniFailure> {
        let inner = self.clone();
        tokio::task::spawn_blocking(move || work(&inner))
            .await
            .unwrap_or_else(|error| Err(broken_task(&error)))
    }

    pub(super) fn now(&self) -> u64 {
        (self.deps.unix_seconds)()
    }

    pub(super) fn probe(&self, netns: &Path) -> NetnsState {
        self.deps.netns.probe(netns)
    }
}

/// An interface of a container whose lock is held.
pub(super) struct Locked<H, P, D> {
    pub(super) inner: Arc<Inner<H, P, D>>,
    pub(super) owner: LeaseOwner,
    pub(super) _guard: tokio::sync::OwnedMutexGuard<()>,
}

/// `CniCall::check` has seen both; this turns them into types.
fn owner_of(call: &CniCall) -> Result<LeaseOwner, CniFailure> {
    let missing = || CniFailure::new(CniCode::InvalidEnvironment, "CNI_CONTAINERID or CNI_IFNAME");
    let container_id = call.container_id.clone().ok_or_else(missing)?;
    let ifname: Option<IfName> = call.ifname.as_ref().and_then(|name| name.parse().ok());
    Ok(LeaseOwner {
        container_id,
        ifname: ifname.ok_or_else(missing)?,
    })
}

/// Default gateway of a family among `gateways`.
pub(super) fn gateway_for(gateways: &[IpAddr], is_ipv4: bool) -> Option<IpAddr> {
    gateways
        .iter()
        .copied()
        .find(|gateway| gateway.is_ipv4() == is_ipv4)
}
