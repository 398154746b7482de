//! The running switch: ports that come and go.
//!
//! Invariant: a port forwards only after its rules are in force, and is out of the workers'
//! hands before its rules go.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use vswitch_api::PortNo;
use vswitch_datapath::Datapath;

use super::admin_flows::AdminFlows;
use super::device::{Device, DeviceOpener};
use super::error::SwitchError;
use super::gateway::{GATEWAY_PORT, Gateway};
use crate::clock::MonotonicClock;
use crate::port::{LinkState, TapOffloads};
use crate::reconcile::{PortAttachMode, ReconcileHandle};
use crate::state::Attachment;
use crate::store::{SharedStore, StoreError};
use crate::supervise::{Beats, Ended};
use crate::worker::{WorkerError, WorkerPool};

/// How long ports that were attached again take TCP connections in mid-stream: longer than a
/// stalled sender waits before it tries again (RFC 6298: 60 s at most is usual).
const MIDSTREAM_FOR: Duration = Duration::from_secs(120);

/// The running switch.
#[derive(Debug)]
pub struct Switch {
    pub(super) datapath: Arc<Datapath>,
    pub(super) workers: WorkerPool,
    pub(super) reconcile: ReconcileHandle,
    pub(super) clock: MonotonicClock,
    pub(super) store: SharedStore,
    pub(super) gateway: Gateway,
    pub(super) devices: DeviceOpener,
    /// Flows of operators; held while one is stored and published.
    pub(super) admin: Mutex<AdminFlows>,
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
        devices: DeviceOpener,
    ) -> Result<Self, StoreError> {
        let admin = AdminFlows::load(store.as_ref())?;
        reconcile.set_admin_flows(admin.compiled());
        Ok(Self {
            datapath,
            workers,
            reconcile,
            clock,
            store,
            gateway,
            devices,
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

    /// Brings the rules of a pod or VM into force; its port does not forward yet.
    ///
    /// # Errors
    /// [`SwitchError`]; no rules are left then.
    pub async fn enforce(
        &self,
        attachment: &Attachment,
        mode: PortAttachMode,
    ) -> Result<(), SwitchError> {
        let no = attachment.port_no;
        self.reconcile.attach(attachment.clone(), mode);
        let enforced = self.wait_until_in_force(no).await;
        if enforced.is_err() {
            self.reconcile.detach(no);
        }
        enforced
    }

    /// Opens a device and gives it to the workers: it forwards when this returns. Its rules are
    /// in force, if it has any. Returns what a TAP can take.
    ///
    /// # Errors
    /// [`SwitchError`]; the device is closed then, and off the fast path.
    pub async fn forward(
        self: &Arc<Self>,
        no: PortNo,
        device: Device,
    ) -> Result<Option<TapOffloads>, SwitchError> {
        let switch = Arc::clone(self);
        let handed = tokio::task::spawn_blocking(move || {
            switch.devices.open_for(&switch.workers, no, &device)
        });
        handed.await.map_err(|_| SwitchError::Stopping)?
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
        self.devices.close(no);
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

    /// Ends the time in which ports take TCP connections in mid-stream, when it is over.
    pub async fn end_midstream(self: Arc<Self>, beat: Beats) -> Ended {
        beat.wait(tokio::time::sleep(MIDSTREAM_FOR)).await;
        self.reconcile.set_midstream(GATEWAY_PORT, false);
        for port in self.reconcile.snapshot().attachments.keys() {
            self.reconcile.set_midstream(*port, false);
        }
        Ended::AsTold
    }

    /// Lets the workers hand on what their ports have queued, and ends them.
    pub fn shutdown(self) {
        self.devices.end();
        self.reconcile.stop();
        self.workers.shutdown();
    }

    async fn wait_until_in_force(&self, port: PortNo) -> Result<(), SwitchError> {
        let epoch = self.reconcile.wait_until_in_force().await;
        epoch
            .map(drop)
            .map_err(|source| SwitchError::Reconcile { port, source })
    }
}
