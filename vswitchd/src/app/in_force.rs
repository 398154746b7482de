//! From an acknowledged object to rules in force: hands the registry's changes to the
//! reconciler, and lets others wait until a change has arrived.

use std::sync::Arc;

use tokio::sync::watch;

use crate::attach::WaitInForce;
use crate::clock;
use crate::metrics::InForceLatency;
use crate::objects::{Registry, feed};
use crate::reconcile::ReconcileHandle;
use crate::supervise::{Ended, Part, Supervisor, Task};

/// Lets a caller wait until what it wrote is enforced.
#[derive(Debug, Clone)]
pub(crate) struct InForce {
    delivered: watch::Receiver<u64>,
    reconcile: ReconcileHandle,
}

impl InForce {
    /// Returns the same as a function.
    pub(crate) fn waiter(self) -> WaitInForce {
        Arc::new(move |version| {
            let in_force = self.clone();
            Box::pin(async move { in_force.reached(version).await })
        })
    }

    /// Waits until the object version is in force; returns false when the daemon stops before.
    pub(crate) async fn reached(&self, version: u64) -> bool {
        let mut delivered = self.delivered.clone();
        let arrived = delivered
            .wait_for(|delivered| *delivered >= version)
            .await
            .is_ok();
        // An error means that the reconciler has ended: nothing to wait for.
        arrived && self.reconcile.wait_until_in_force().await.is_ok()
    }
}

/// Starts handing changes over, beginning with everything there is.
pub(crate) fn start(
    registry: &Arc<Registry>,
    reconcile: ReconcileHandle,
    latency: InForceLatency,
    supervisor: &Supervisor,
) -> (InForce, Task) {
    let mut feed = feed(registry);
    reconcile.cluster(std::mem::take(&mut feed.initial));
    let (sender, delivered) = watch::channel(feed.version());
    let in_force = InForce {
        delivered,
        reconcile: reconcile.clone(),
    };
    let task = supervisor.task(Part::ObjectFeed, "", move |beat| async move {
        while let Some(changes) = beat.wait(feed.next()).await {
            let heard = feed.heard().filter(|_| !changes.is_empty());
            reconcile.cluster(changes);
            // Nobody waiting is no failure.
            sender.send_replace(feed.version());
            // What changes meanwhile waits in the registry, where it is bounded.
            if beat.wait(reconcile.wait_until_in_force()).await.is_err() {
                break;
            }
            if let Some(heard) = heard {
                latency.observe(clock::instant().duration_since(heard));
            }
        }
        Ended::Early("the registry or the reconciler has ended")
    });
    (in_force, task)
}
