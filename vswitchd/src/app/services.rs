//! Keeps the node's routes, NodePorts, host ports and health checks of Services, which lead their
//! traffic into the switch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use ipnet::IpNet;
use tokio::sync::watch;

use super::followed::{Followed, Look};
use super::host_tables::HostTables;
use crate::config::Config;
use crate::errors;
use crate::host::{self, KubeProxy, ServiceSteering, Steered};
use crate::reconcile::ReconcileHandle;
use crate::rest::HealthChecks;
use crate::service::{HealthCheck, HostPortForward, Surface};
use crate::state::ObjectKey;
use crate::supervise::{self, Beats, Ended, Supervisor};
use crate::switch::Gateway;

/// How often it is looked at whether routes and rules are still there.
const CHECK_EVERY: Duration = Duration::from_secs(15);

/// Pause before what failed is tried again.
const RETRY: Duration = Duration::from_secs(2);

type Surfaces = OrdMap<ObjectKey, Surface>;

/// What is led where.
pub(super) struct Services {
    steering: ServiceSteering,
    /// Networks that Services have their addresses from; others are led one by one.
    cidrs: Vec<IpNet>,
    /// Where a kube-proxy beside the switch is told of.
    kube_proxy: watch::Sender<Option<KubeProxy>>,
}

/// Follows the Services until the daemon ends.
pub(super) async fn follow(
    services: Services,
    reconcile: ReconcileHandle,
    supervisor: Supervisor,
    beat: Beats,
) -> Ended {
    let services = Arc::new(services);
    let mut followed = Followed::new(reconcile, CHECK_EVERY);
    let mut health = HealthChecks::new(supervisor);
    let mut surfaces = Surfaces::new();
    let mut host_ports = Arc::default();
    // What is in the kernel; `None` if that is not known, or not what was wanted.
    let mut applied: Option<Steered> = None;
    // What was there last, as far as it is known.
    let mut last: Option<Steered> = None;
    loop {
        let Some(Look { state, is_tick }) = followed.next(&beat).await else {
            return Ended::Early("the reconciler has ended");
        };
        let is_same =
            state.surfaces.ptr_eq(&surfaces) && Arc::ptr_eq(&state.host_ports, &host_ports);
        if !is_tick && applied.is_some() && is_same {
            continue;
        }
        surfaces = state.surfaces.clone();
        host_ports = Arc::clone(&state.host_ports);
        health.serve(health_checks(&surfaces));
        let wanted = services.steered(&surfaces, &host_ports);
        let is_applied = applied.as_ref() == Some(&wanted);
        if is_applied && (!is_tick || is_in_place(&services, wanted.clone()).await) {
            continue;
        }
        let is_done = apply(&services, last.clone(), wanted.clone()).await;
        applied = is_done.then_some(wanted);
        if is_done {
            last.clone_from(&applied);
        } else {
            followed.again_after(RETRY);
        }
    }
}

impl Services {
    /// Makes it as the configuration has it.
    pub(super) fn new(
        config: &Config,
        tables: &HostTables,
        gateway: &Gateway,
        kube_proxy: watch::Sender<Option<KubeProxy>>,
    ) -> Self {
        let (ifname, addresses) = (gateway.ifname.clone(), &gateway.addresses);
        let pod_cidrs = &config.network.pod_cidrs;
        Self {
            steering: ServiceSteering::new(&tables.table, ifname, addresses, pod_cidrs),
            cidrs: config.service.cidrs.clone(),
            kube_proxy,
        }
    }

    /// Notes whether kube-proxy works here; blocks.
    fn look_for_kube_proxy(&self) {
        let Ok(seen) = host::kube_proxy() else {
            return;
        };
        let is_new = self.kube_proxy.send_if_modified(|known| {
            let is_new = *known != seen;
            *known = seen;
            is_new
        });
        if let Some(mode) = seen.filter(|_| is_new) {
            tracing::info!(
                mode = mode.name(),
                "kube-proxy serves the node's own connections and NodePorts; pods' are the switch's"
            );
        }
    }

    fn steered(&self, surfaces: &Surfaces, host_ports: &BTreeSet<HostPortForward>) -> Steered {
        let mut steered = Steered {
            routes: self.cidrs.iter().copied().collect(),
            host_ports: host_ports.clone(),
            ..Steered::default()
        };
        for surface in surfaces.values() {
            let is_led = |net: &IpNet| self.cidrs.iter().any(|cidr| cidr.contains(net));
            let alone = surface.addresses.iter().map(|ip| IpNet::from(*ip));
            steered.routes.extend(alone.filter(|net| !is_led(net)));
            steered.node_ports.extend(&surface.node_ports);
        }
        steered
    }
}

fn health_checks(surfaces: &Surfaces) -> BTreeMap<u16, HealthCheck> {
    let checks = surfaces
        .values()
        .filter_map(|surface| surface.health_check.clone());
    checks.map(|check| (check.port, check)).collect()
}

/// Returns whether all of it was done; what failed is logged and tried again.
async fn apply(services: &Arc<Services>, last: Option<Steered>, wanted: Steered) -> bool {
    let services = Arc::clone(services);
    let apply = move || {
        services.look_for_kube_proxy();
        services.steering.apply(last.as_ref(), &wanted)
    };
    let failed = supervise::blocking(apply).await;
    for error in &failed {
        let error = errors::chain(error);
        tracing::error!(error, "leading Services into the switch failed in part");
    }
    failed.is_empty()
}

async fn is_in_place(services: &Arc<Services>, wanted: Steered) -> bool {
    let services = Arc::clone(services);
    let check = move || {
        services.look_for_kube_proxy();
        services.steering.is_installed(&wanted)
    };
    matches!(supervise::blocking(check).await, Ok(true))
}
