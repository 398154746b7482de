//! The shares of all ports in the connection table.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use foldhash::fast::FixedState;
use vswitch_api::PortNo;

use crate::fairness::PortShare;

/// Numbers come from the control plane, as those of `Ports` in the snapshot.
type Known = HashMap<PortNo, Arc<PortShare>, FixedState>;

/// What is counted for each port. Read for each new connection, changed when a port opens its
/// first one and when it goes.
#[derive(Debug, Default)]
pub(super) struct PortShares(ArcSwap<Known>);

impl PortShares {
    /// Returns the share of a port, a new one if it has none yet.
    pub(super) fn of(&self, port: PortNo) -> Arc<PortShare> {
        if let Some(share) = self.0.load().get(&port) {
            return Arc::clone(share);
        }
        let fresh = Arc::new(PortShare::new(port));
        self.change(|known| {
            known.entry(port).or_insert_with(|| Arc::clone(&fresh));
        });
        // Another thread may have been first.
        self.0.load().get(&port).map_or(fresh, Arc::clone)
    }

    /// Forgets ports that are gone.
    pub(super) fn forget(&self, ports: &HashSet<PortNo>) {
        if !ports.is_empty() {
            self.change(|known| known.retain(|port, _| !ports.contains(port)));
        }
    }

    /// Returns whether `is_it` is so of any.
    pub(super) fn any(&self, is_it: impl Fn(&PortShare) -> bool) -> bool {
        self.0.load().values().any(|share| is_it(share))
    }

    fn change(&self, change: impl Fn(&mut Known)) {
        self.0.rcu(|known| {
            let mut known = Known::clone(known);
            change(&mut known);
            known
        });
    }
}
