//! The reconciler's thread, and the handle through which others send it inputs.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use imbl::OrdMap;
use tokio::sync::watch;
use vswitch_api::{Epoch, PortNo};
use vswitch_datapath::Datapath;
use vswitch_datapath::pipeline::Transaction;

use super::intent::{AdminFlow, PortAttachMode, ReconcileConfig};
use super::model::{Model, ModelInput};
use super::since::PolicySince;
use crate::clock;
use crate::policy::PolicyProblem;
use crate::service::{HostPortForward, Surface};
use crate::state::{Attachment, ClusterChange, ClusterState, ObjectKey, PolicyKey};
use crate::supervise::{Beat, Depth, Ended, Part, Queue, Supervisor};

/// Whatever takes transactions: the datapath, or a test.
pub trait Publish: Send + Sync + 'static {
    /// Publishes changes; they are in force when this returns.
    fn publish(&self, changes: Transaction) -> Epoch;
}

impl Publish for Datapath {
    fn publish(&self, changes: Transaction) -> Epoch {
        self.apply(changes)
    }
}

/// What is in force, for those who explain it.
#[derive(Debug, Clone, Default)]
pub struct ReconciledState {
    /// Objects of the cluster.
    pub cluster: ClusterState,
    /// Attachments of this node.
    pub attachments: Arc<BTreeMap<PortNo, Arc<Attachment>>>,
    /// What outside the switch has to lead to Services.
    pub surfaces: OrdMap<ObjectKey, Surface>,
    /// Host ports that the node's kernel has to translate.
    pub host_ports: Arc<BTreeSet<HostPortForward>>,
    /// Since when each policy is as it is, in force or in audit.
    pub policy_times: OrdMap<PolicyKey, PolicySince>,
    /// What was not understood of policies.
    pub problems: Arc<Vec<PolicyProblem>>,
    /// The publication that brought it into force.
    pub epoch: Epoch,
    /// Whether everything of the cluster was heard of.
    pub is_synced: bool,
}

/// The reconciler has ended: nothing that was told it after that takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the reconciler has stopped")]
pub struct ReconcileStopped;

/// How far the reconciler has come.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    generation: u64,
    epoch: Epoch,
}

/// What was told and not yet taken in, and how much ever was.
#[derive(Debug, Default)]
struct Inbox {
    told: Vec<ModelInput>,
    generation: u64,
    /// How much was ever taken in.
    taken: u64,
    is_stopped: bool,
}

#[derive(Debug)]
struct Shared {
    /// A plain mutex: held for one push, never across a compilation or an await.
    inbox: Mutex<Inbox>,
    told: Condvar,
    snapshot: ArcSwap<ReconciledState>,
}

impl Shared {
    /// The inbox stays whole if a thread panics with it: every entry is set in one step.
    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn depth(&self) -> Depth {
        let inbox = self.lock();
        Depth {
            waiting: inbox.generation - inbox.taken,
            taken: inbox.taken,
        }
    }
}

/// Tells the reconciler what changed. Calls return at once; see [`ReconcileHandle::wait_until_in_force`].
#[derive(Debug, Clone)]
pub struct ReconcileHandle {
    shared: Arc<Shared>,
    progress: watch::Receiver<Progress>,
}

impl ReconcileHandle {
    fn send(&self, told: ModelInput) {
        let mut inbox = self.shared.lock();
        inbox.told.push(told);
        inbox.generation += 1;
        self.shared.told.notify_one();
    }

    /// Takes in changes of the cluster's objects, in order.
    pub fn cluster(&self, changes: Vec<ClusterChange>) {
        self.send(ModelInput::Cluster(changes));
    }

    /// States that everything of the cluster has been told once.
    pub fn cluster_synced(&self) {
        self.send(ModelInput::Synced);
    }

    /// Attaches a port, or replaces what is known of it.
    pub fn attach(&self, attachment: Attachment, mode: PortAttachMode) {
        self.send(ModelInput::Attach(Box::new(attachment), mode));
    }

    /// Takes a port away; an unknown one is no error.
    pub fn detach(&self, port: PortNo) {
        self.send(ModelInput::Detach(port));
    }

    /// Sets whether a port accepts TCP connections in the middle of their stream.
    pub fn set_midstream(&self, port: PortNo, midstream: bool) {
        self.send(ModelInput::Midstream(port, midstream));
    }

    /// Sets a port's MTU, in place of the attachment's or the gateway's.
    pub fn set_port_mtu(&self, port: PortNo, mtu: u16) {
        self.send(ModelInput::Mtu(port, mtu));
    }

    /// Sets all flows of operators and orchestrators.
    pub fn set_admin_flows(&self, flows: Vec<AdminFlow>) {
        self.send(ModelInput::AdminFlows(flows));
    }

    /// Sets the node's own addresses; the gateway's need not be among them.
    pub fn set_node_addresses(&self, addresses: Vec<IpAddr>) {
        self.send(ModelInput::NodeAddresses(addresses.into_iter().collect()));
    }

    /// Waits until everything told before is in force.
    ///
    /// # Errors
    /// The reconciler ended before that.
    pub async fn wait_until_in_force(&self) -> Result<Epoch, ReconcileStopped> {
        let wanted = self.shared.lock().generation;
        let mut progress = self.progress.clone();
        let reached = progress
            .wait_for(|progress| progress.generation >= wanted)
            .await;
        reached
            .map(|progress| progress.epoch)
            .map_err(|_| ReconcileStopped)
    }

    /// Returns what is in force.
    #[must_use]
    pub fn snapshot(&self) -> Arc<ReconciledState> {
        self.shared.snapshot.load_full()
    }

    /// Returns what tells of every change that comes into force from now on.
    #[must_use]
    pub fn changes(&self) -> Changes {
        Changes {
            shared: Arc::clone(&self.shared),
            progress: self.progress.clone(),
        }
    }

    /// Ends the reconciler once everything told before is in force; what is installed stays.
    pub fn stop(&self) {
        self.shared.lock().is_stopped = true;
        self.shared.told.notify_one();
    }
}

/// What comes into force, as it does.
#[derive(Debug)]
pub struct Changes {
    shared: Arc<Shared>,
    progress: watch::Receiver<Progress>,
}

impl Changes {
    /// Waits for the next change and returns what is in force then; several that came
    /// meanwhile are one. `None` when the reconciler has ended. Cancel safe.
    pub async fn next(&mut self) -> Option<Arc<ReconciledState>> {
        self.progress.changed().await.ok()?;
        Some(self.shared.snapshot.load_full())
    }
}

/// The thread that reconciles.
#[derive(Debug)]
pub struct Reconciler<P> {
    publish: Arc<P>,
    model: Model,
    shared: Arc<Shared>,
    progress: watch::Sender<Progress>,
    _inbox: Queue,
}

impl<P: Publish> Reconciler<P> {
    /// Starts the thread. It installs the base rules and the gateway port at once.
    ///
    /// # Errors
    /// The thread cannot be had.
    pub fn start(
        publish: Arc<P>,
        config: ReconcileConfig,
        supervisor: &Supervisor,
    ) -> io::Result<(ReconcileHandle, JoinHandle<()>)> {
        // The base rules wait to be published.
        let inbox = Inbox {
            generation: 1,
            ..Inbox::default()
        };
        let shared = Arc::new(Shared {
            inbox: Mutex::new(inbox),
            told: Condvar::new(),
            snapshot: ArcSwap::default(),
        });
        let (sender, progress) = watch::channel(Progress::default());
        let inbox = supervisor.queue(Part::ReconcilerInbox, {
            let shared = Arc::clone(&shared);
            move || shared.depth()
        });
        let reconciler = Self {
            publish,
            model: Model::new(config),
            shared: Arc::clone(&shared),
            progress: sender,
            _inbox: inbox,
        };
        let name = "vsw-reconcile";
        let thread = supervisor.thread(Part::Reconciler, "", name, |beat| reconciler.run(beat))?;
        Ok((ReconcileHandle { shared, progress }, thread))
    }

    fn run(mut self, beat: &Beat) -> Ended {
        let mut done = Progress::default();
        let mut snapshot = ReconciledState::default();
        while let Some((told, generation)) = self.next(done.generation, beat) {
            for told in told {
                beat.beat();
                self.model.take(told);
            }
            let changes = self.model.flush();
            if changes != Transaction::default() {
                done.epoch = self.publish.publish(changes);
            }
            self.model.published(PolicySince {
                time: clock::unix_seconds(),
                epoch: done.epoch,
            });
            done.generation = generation;
            snapshot = self.look(&snapshot, done.epoch);
            self.shared.snapshot.store(Arc::new(snapshot.clone()));
            tracing::debug!(generation, epoch = done.epoch.0, "publication in force");
            self.progress.send_replace(done);
        }
        Ended::AsTold
    }

    /// Waits for something that is not yet in force; `None` when stopped and nothing is left.
    fn next(&self, done: u64, beat: &Beat) -> Option<(Vec<ModelInput>, u64)> {
        loop {
            // Without the lock: who hangs here must not hold up those who tell it things, nor the
            // watchdog, which looks at the inbox.
            beat.beat();
            let mut inbox = self.shared.lock();
            if inbox.generation == done && !inbox.is_stopped {
                let waited = self.shared.told.wait_timeout(inbox, beat.period());
                inbox = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            if inbox.generation != done {
                inbox.taken = inbox.generation;
                return Some((std::mem::take(&mut inbox.told), inbox.generation));
            }
            if inbox.is_stopped {
                return None;
            }
        }
    }

    /// Returns what is in force now; what did not change is shared with the one before.
    fn look(&self, before: &ReconciledState, epoch: Epoch) -> ReconciledState {
        let problems = self.model.problems();
        warn_of_new(&problems, &before.problems);
        ReconciledState {
            cluster: self.model.cluster_state().clone(),
            attachments: shared(&before.attachments, self.model.attachments()),
            surfaces: self.model.surfaces().clone(),
            host_ports: shared(&before.host_ports, self.model.host_port_forwards()),
            policy_times: self.model.policy_times().clone(),
            problems: shared(&before.problems, problems),
            epoch,
            is_synced: self.model.is_synced(),
        }
    }
}

fn shared<T: PartialEq>(before: &Arc<T>, now: T) -> Arc<T> {
    if **before == now {
        Arc::clone(before)
    } else {
        Arc::new(now)
    }
}

fn warn_of_new(problems: &[PolicyProblem], known: &[PolicyProblem]) {
    for problem in problems.iter().filter(|problem| !known.contains(problem)) {
        tracing::warn!(
            policy = %problem.policy,
            part = problem.part,
            problem = problem.problem,
            "policy not understood in part; that part allows nothing"
        );
    }
}
