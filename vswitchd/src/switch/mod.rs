//! The switch as its users see it: ports that come and go, flows of operators, explanations.
//!
//! Ties the datapath, the workers and the reconciler together; `cni`, `rest` and `app` drive it.
//! Invariant: a port forwards only after its rules are in force, and is out of the workers'
//! hands before its rules go.

mod admin_flows;
mod explain;
mod extra_ports;
mod vm;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};

use tokio::sync::Mutex;
use vswitch_api::{IfName, MacAddr, PortNo};
use vswitch_datapath::Datapath;

use crate::clock::MonotonicClock;
use crate::kernel_path::{FastPath, PortKind};
use crate::port::{LinkState, Port, PortError, TapOffloads, open_veth};
use crate::reconcile::{PortAttachMode, ReconcileHandle, ReconcileStopped};
use crate::state::Attachment;
use crate::store::{SharedStore, StoreError};
use crate::worker::{WorkerError, WorkerPool};

pub use admin_flows::AdminFlowError;
pub use explain::ExplainError;
pub use extra_ports::{ExtraPort, ExtraPortError};
pub use vm::{VmPortError, VmPorts, VmSpec};

/// The gateway's port number.
pub const GATEWAY_PORT: PortNo = PortNo(1);

/// Port numbers of pods; those of VM and mirror ports lie above.
pub const POD_PORTS: std::ops::RangeInclusive<u32> = 2..=999_999;

/// A port could not be attached or detached.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// The device could not be opened.
    #[error("open port {port}")]
    OpenPort {
        /// Its number.
        port: PortNo,
        /// Cause.
        source: PortError,
    },
    /// The workers refused.
    #[error("hand port {port} to the workers")]
    Worker {
        /// Its number.
        port: PortNo,
        /// Cause.
        source: WorkerError,
    },
    /// The reconciler has ended; the daemon is stopping.
    #[error("bring the rules of port {port} into force")]
    Reconcile {
        /// Its number.
        port: PortNo,
        /// Cause.
        source: ReconcileStopped,
    },
    /// A blocking task was cut off; the daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
}

/// The gateway as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Its interface.
    pub ifname: IfName,
    /// Its MAC.
    pub mac: MacAddr,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its MTU, bytes.
    pub mtu: u16,
    /// What its TAP can take.
    pub offloads: TapOffloads,
}

/// The running switch.
#[derive(Debug)]
pub struct Switch {
    datapath: Arc<Datapath>,
    workers: WorkerPool,
    reconcile: ReconcileHandle,
    clock: MonotonicClock,
    store: SharedStore,
    gateway: Gateway,
    fast_path: Option<Arc<FastPath>>,
    /// VM and mirror ports; held while one is made or removed.
    extra: Mutex<extra_ports::ExtraPorts>,
    /// What the TAPs of VM ports can take, found out when they were opened.
    tap_offloads: std::sync::Mutex<BTreeMap<PortNo, TapOffloads>>,
    /// Flows of operators; held while one is stored and published.
    admin: Mutex<admin_flows::AdminFlows>,
}

impl Switch {
    /// Puts the parts together and reads what operators had configured from the store. Blocks.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn new(
        datapath: Arc<Datapath>,
        workers: WorkerPool,
        reconcile: ReconcileHandle,
        clock: MonotonicClock,
        store: SharedStore,
        gateway: Gateway,
        fast_path: Option<Arc<FastPath>>,
    ) -> Result<Self, StoreError> {
        let admin = admin_flows::AdminFlows::load(store.as_ref())?;
        reconcile.set_admin_flows(admin.compiled());
        let extra = extra_ports::ExtraPorts::load(store.as_ref())?;
        Ok(Self {
            datapath,
            workers,
            reconcile,
            clock,
            store,
            gateway,
            fast_path,
            extra: Mutex::new(extra),
            tap_offloads: std::sync::Mutex::default(),
            admin: Mutex::new(admin),
        })
    }

    /// Returns the packet engine.
    #[must_use]
    pub fn datapath(&self) -> &Arc<Datapath> {
        &self.datapath
    }

    /// Returns the workers.
    #[must_use]
    pub fn workers(&self) -> &WorkerPool {
        &self.workers
    }

    /// Returns the reconciler.
    #[must_use]
    pub fn reconcile(&self) -> &ReconcileHandle {
        &self.reconcile
    }

    /// Has counters, connections and rules know what the kernel forwarded until now.
    pub fn sync_kernel_counters(&self) {
        self.datapath.sync_kernel_path(self.clock.now());
    }

    /// Returns the clock of the packet path.
    #[must_use]
    pub fn clock(&self) -> MonotonicClock {
        self.clock
    }

    /// Returns the gateway.
    #[must_use]
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Attaches a pod's veth; returns when its rules are in force and it forwards.
    ///
    /// # Errors
    /// [`SwitchError`]; nothing of the port is left then.
    pub async fn attach_pod(
        self: &Arc<Self>,
        attachment: &Attachment,
        mode: PortAttachMode,
    ) -> Result<(), SwitchError> {
        let (no, host_ifname) = (attachment.port_no, attachment.host_ifname.clone());
        let fast_path = self.fast_path.clone();
        let open = move || {
            let port = open_veth(no, &host_ifname, None)?;
            if let (Some(fast_path), Some(rx)) = (&fast_path, &port.rx) {
                fast_path.offer_to(&port, PortKind::Pod { socket: rx.fd() });
            }
            Ok(port)
        };
        self.attach(attachment, mode, open).await
    }

    /// Detaches a port; success if there is none.
    ///
    /// # Errors
    /// [`SwitchError`]; the rules of the port stay until it is in nobody's hands.
    pub async fn detach(self: &Arc<Self>, no: PortNo) -> Result<(), SwitchError> {
        let switch = Arc::clone(self);
        let detached = tokio::task::spawn_blocking(move || switch.workers.detach(no)).await;
        match detached.map_err(|_| SwitchError::Stopping)? {
            Ok(()) | Err(WorkerError::NoSuchPort { .. }) => {}
            Err(source) => return Err(SwitchError::Worker { port: no, source }),
        }
        if let Some(fast_path) = &self.fast_path {
            fast_path.detach(no);
        }
        self.reconcile.detach(no);
        self.wait_until_in_force(no).await
    }

    /// Returns whether a port is attached and its device can move frames.
    #[must_use]
    pub fn is_forwarding(&self, no: PortNo) -> bool {
        let stats = self.workers.port_stats();
        stats
            .iter()
            .any(|port| port.port == no && port.link == LinkState::Up)
    }

    /// Returns all ports whose devices can move frames.
    #[must_use]
    pub fn forwarding(&self) -> BTreeSet<PortNo> {
        let stats = self.workers.port_stats().into_iter();
        let up = stats.filter(|port| port.link == LinkState::Up);
        up.map(|port| port.port).collect()
    }

    /// Returns what the TAP of the gateway or a VM port can take; `None` for other ports.
    #[must_use]
    pub fn tap_offloads(&self, no: PortNo) -> Option<TapOffloads> {
        if no == GATEWAY_PORT {
            return Some(self.gateway.offloads);
        }
        self.tap_offloads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&no)
            .copied()
    }

    /// Lets the workers hand on what their ports have queued, and ends them.
    pub fn shutdown(self) {
        self.reconcile.stop();
        self.workers.shutdown();
    }

    /// Rules first, then frames.
    async fn attach(
        self: &Arc<Self>,
        attachment: &Attachment,
        mode: PortAttachMode,
        open: impl FnOnce() -> Result<Port, PortError> + Send + 'static,
    ) -> Result<(), SwitchError> {
        let no = attachment.port_no;
        self.reconcile.attach(attachment.clone(), mode);
        let attached = match self.wait_until_in_force(no).await {
            Ok(()) => self.hand_over(no, open).await,
            Err(error) => Err(error),
        };
        if attached.is_err() {
            self.reconcile.detach(no);
        }
        attached
    }

    /// Opens a device and gives it to the workers.
    async fn hand_over(
        self: &Arc<Self>,
        no: PortNo,
        open: impl FnOnce() -> Result<Port, PortError> + Send + 'static,
    ) -> Result<(), SwitchError> {
        let switch = Arc::clone(self);
        let handed = tokio::task::spawn_blocking(move || {
            let port = open().map_err(|source| SwitchError::OpenPort { port: no, source })?;
            switch
                .workers
                .attach(port)
                .map_err(|source| SwitchError::Worker { port: no, source })
        });
        handed.await.map_err(|_| SwitchError::Stopping)?
    }

    async fn wait_until_in_force(&self, port: PortNo) -> Result<(), SwitchError> {
        let epoch = self.reconcile.wait_until_in_force().await;
        epoch
            .map(drop)
            .map_err(|source| SwitchError::Reconcile { port, source })
    }
}
