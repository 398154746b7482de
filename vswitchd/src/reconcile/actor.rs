//! The reconciler's thread and the handle that others tell it things through.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use vswitch_api::{Epoch, PortNo};
use vswitch_datapath::Datapath;
use vswitch_datapath::pipeline::Transaction;

use super::desired::{Desired, build};
use super::intent::{AdminFlow, Intent, PortAttachMode, ReconcileConfig};
use super::plan::{is_empty, plan};
use crate::policy::{PolicyProblem, PolicyProgram};
use crate::state::{Attachment, ClusterChange, ClusterState};

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
pub struct Snapshot {
    /// Objects of the cluster.
    pub cluster: Arc<ClusterState>,
    /// Attachments of this node.
    pub attachments: BTreeMap<PortNo, Arc<Attachment>>,
    /// What the policies compiled to, and what of them was not understood.
    pub program: Arc<PolicyProgram>,
    /// Every rule, set and port that is installed.
    pub installed: Arc<Desired>,
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

/// What was told, and how often.
#[derive(Debug)]
struct Inbox {
    intent: Intent,
    generation: u64,
    is_stopped: bool,
}

#[derive(Debug)]
struct Shared {
    /// A plain mutex: held for a few map insertions, never across a compilation or an await.
    inbox: Mutex<Inbox>,
    told: Condvar,
    snapshot: ArcSwap<Snapshot>,
}

impl Shared {
    /// The inbox stays whole if a thread panics with it: every entry is set in one step.
    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the reconciler what changed. Calls return at once; see [`ReconcileHandle::settled`].
#[derive(Debug, Clone)]
pub struct ReconcileHandle {
    shared: Arc<Shared>,
    progress: watch::Receiver<Progress>,
}

impl ReconcileHandle {
    /// Changes what is wanted; `change` returns whether it did.
    fn tell(&self, change: impl FnOnce(&mut Intent) -> bool) {
        let mut inbox = self.shared.lock();
        if change(&mut inbox.intent) {
            inbox.generation += 1;
            self.shared.told.notify_one();
        }
    }

    /// Takes in changes of the cluster's objects, in order.
    pub fn cluster(&self, changes: Vec<ClusterChange>) {
        self.tell(|intent| {
            let cluster = Arc::make_mut(&mut intent.cluster);
            changes
                .into_iter()
                .fold(false, |changed, change| cluster.apply(change) | changed)
        });
    }

    /// States that everything of the cluster has been told once.
    pub fn cluster_synced(&self) {
        self.tell(|intent| !std::mem::replace(&mut intent.is_synced, true));
    }

    /// Attaches a port, or replaces what is known of it.
    pub fn attach(&self, attachment: Attachment, mode: PortAttachMode) {
        self.tell(|intent| {
            intent.attach(attachment, mode);
            true
        });
    }

    /// Takes a port away; an unknown one is no error.
    pub fn detach(&self, port: PortNo) {
        self.tell(|intent| intent.detach(port));
    }

    /// Sets whether a port accepts TCP connections in the middle of their stream.
    pub fn set_midstream(&self, port: PortNo, midstream: bool) {
        self.tell(|intent| intent.set_midstream(port, midstream));
    }

    /// Sets a port's MTU, in place of the attachment's or the gateway's.
    pub fn set_port_mtu(&self, port: PortNo, mtu: u16) {
        self.tell(|intent| intent.mtus.insert(port, mtu) != Some(mtu));
    }

    /// Sets all flows of operators and orchestrators.
    pub fn set_admin_flows(&self, flows: Vec<AdminFlow>) {
        self.tell(|intent| {
            let changed = *intent.admin_flows != flows;
            intent.admin_flows = Arc::new(flows);
            changed
        });
    }

    /// Sets the node's own addresses; the gateway's need not be among them.
    pub fn set_node_addresses(&self, addresses: Vec<IpAddr>) {
        let addresses: BTreeSet<IpAddr> = addresses.into_iter().collect();
        self.tell(|intent| {
            let changed = intent.node_addresses != addresses;
            intent.node_addresses = addresses;
            changed
        });
    }

    /// Waits until everything told before is in force.
    ///
    /// # Errors
    /// The reconciler ended before that.
    pub async fn settled(&self) -> Result<Epoch, ReconcileStopped> {
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
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }

    /// Ends the reconciler once everything told before is in force; what is installed stays.
    pub fn stop(&self) {
        self.shared.lock().is_stopped = true;
        self.shared.told.notify_one();
    }
}

/// The thread that reconciles.
#[derive(Debug)]
pub struct Reconciler<P> {
    publish: Arc<P>,
    shared: Arc<Shared>,
    progress: watch::Sender<Progress>,
}

impl<P: Publish> Reconciler<P> {
    /// Starts the thread. It installs the base rules and the gateway port at once.
    #[must_use]
    pub fn start(publish: Arc<P>, config: ReconcileConfig) -> (ReconcileHandle, JoinHandle<()>) {
        let inbox = Inbox {
            intent: Intent::new(config),
            generation: 1,
            is_stopped: false,
        };
        let shared = Arc::new(Shared {
            inbox: Mutex::new(inbox),
            told: Condvar::new(),
            snapshot: ArcSwap::default(),
        });
        let (sender, progress) = watch::channel(Progress::default());
        let reconciler = Self {
            publish,
            shared: Arc::clone(&shared),
            progress: sender,
        };
        let thread = std::thread::spawn(move || reconciler.run());
        (ReconcileHandle { shared, progress }, thread)
    }

    fn run(self) {
        let mut done = Progress::default();
        let mut installed = Arc::<Desired>::default();
        let mut problems = Vec::new();
        while let Some((intent, generation)) = self.next(done.generation) {
            let (desired, program) = build(&intent);
            let changes = plan(&desired, &installed);
            if !is_empty(&changes) {
                done.epoch = self.publish.publish(changes);
            }
            installed = Arc::new(desired);
            warn_of_new(&program.problems, &problems);
            problems.clone_from(&program.problems);
            done.generation = generation;
            self.shared
                .snapshot
                .store(snapshot(intent, program, &installed, done.epoch));
            tracing::debug!(generation, epoch = done.epoch.0, "reconciled");
            self.progress.send_replace(done);
        }
    }

    /// Waits for something that is not yet in force; `None` when stopped and nothing is left.
    fn next(&self, done: u64) -> Option<(Intent, u64)> {
        let inbox = self.shared.lock();
        let waiting = |inbox: &mut Inbox| inbox.generation == done && !inbox.is_stopped;
        let inbox = self
            .shared
            .told
            .wait_while(inbox, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        let is_left = inbox.generation != done;
        is_left.then(|| (inbox.intent.clone(), inbox.generation))
    }
}

fn snapshot(
    intent: Intent,
    program: PolicyProgram,
    installed: &Arc<Desired>,
    epoch: Epoch,
) -> Arc<Snapshot> {
    let attached = intent.attached.into_iter();
    Arc::new(Snapshot {
        cluster: intent.cluster,
        attachments: attached
            .map(|(no, attached)| (no, attached.attachment))
            .collect(),
        program: Arc::new(program),
        installed: Arc::clone(installed),
        epoch,
        is_synced: intent.is_synced,
    })
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
