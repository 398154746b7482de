//! The parts of the daemon in start order, and the way down.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::watch;

use super::cluster::ClusterNode;
use super::host_tables::HostTables;
use super::nodes::Nodes;
use super::policy_status::{self, PolicyStatus};
use super::publish_node::NodePlace;
use super::services::Services;
use super::unenforced::{self, Unenforced};
use super::{
    attachments, in_force, nodes, open, packet_path, publish_node, service_manager, services,
};
use crate::attach;
use crate::clock::MonotonicClock;
use crate::cni::{CniService, CniSettings};
use crate::config::{ApiConfig, Config};
use crate::events::{self, Destination};
use crate::flow_records::export::{self, Exports};
use crate::flow_records::{self, FlowLog, FlowLogOptions};
use crate::host::{HostWatcher, NodeNetworkStatus, NodePublication};
use crate::metrics::InForceLatency;
use crate::objects::Registry;
use crate::rest::tcp::{TcpOptions, TcpServer, listen_tcp};
use crate::rest::{self, Readers, RestState, serve};
use crate::supervise::{self, Part, Supervisor, Task};
use crate::switch::{self, Switch};

/// Within which time the nodes of a cluster note the same.
const NODES_NOTE_WITHIN: Duration = Duration::from_secs(10);

/// The parts that live as long as the daemon.
pub(super) struct Daemon {
    switch: Arc<Switch>,
    rest: RestState,
    /// In a cluster.
    node: Option<ClusterNode>,
    tasks: Vec<Task>,
    flow_exports: Exports,
    supervisor: Supervisor,
}

impl Daemon {
    pub(super) async fn start(
        config: &Config,
        stopping: watch::Receiver<bool>,
        supervisor: &Supervisor,
    ) -> Result<Self> {
        export::check(&config.flow_export)?;
        fs::create_dir_all(&config.run_dir)
            .with_context(|| format!("create {}", config.run_dir.display()))?;
        let store = open::store(config, supervisor).await?;
        let clock = MonotonicClock::start();
        let (node, config) = match &config.cluster {
            Some(settings) => {
                let joined =
                    ClusterNode::join(config, settings, &store, stopping.clone(), supervisor);
                let (node, config) = joined.await.context("join the cluster")?;
                (Some(node), config)
            }
            None => (None, config.clone()),
        };
        let config = &config;
        let registry = match &node {
            Some(node) => Arc::clone(&node.cluster.registry),
            None => open::registry(config, &store).await?,
        };
        let ipam = open::ipam(config, &store).await?;
        let tables = HostTables::of(config)?;

        let started = packet_path::start(config, &store, clock, &tables, supervisor);
        let (switch, notices) = started.await?;
        let reconcile = switch.reconcile().clone();
        let latency = InForceLatency::default();
        let (in_force, feed) =
            in_force::start(&registry, reconcile.clone(), latency.clone(), supervisor);
        let mut tasks = vec![feed];
        match &node {
            Some(node) => {
                let run = node.report_synced(in_force.clone(), reconcile.clone());
                tasks.push(supervisor.task(Part::ClusterSync, "", run));
            }
            None => reconcile.cluster_synced(),
        }
        let pods = attachments::pods(node.as_ref(), &registry, in_force.clone(), &switch);
        let attachments = attachments::open(config, &store, &ipam, &switch, pods, &tables).await?;
        let (publish, published) = watch::channel(NodePublication::default());
        let (status, node_network) = watch::channel(NodeNetworkStatus::default());
        let nodes = Nodes::new(config, &tables, switch.gateway().mtu, publish, status);
        tasks.push(supervisor.task(Part::NodeRoutes, "", {
            let reconcile = reconcile.clone();
            move |beat| nodes::follow(nodes, reconcile, beat)
        }));
        let place = match &node {
            Some(node) => NodePlace::ApiServer(node.api.clone()),
            None => NodePlace::Registry(Arc::clone(&registry)),
        };
        tasks.push(supervisor.task(Part::NodePublisher, "", {
            let node = config.node_name.clone();
            move |beat| publish_node::follow(place, node, published, beat)
        }));
        attachments::recover(&attachments, &ipam).await;
        let (recorder, noted) = events::channel();
        tasks.push(supervisor.task(Part::Unenforced, "", {
            let unenforced = Unenforced {
                reconcile: reconcile.clone(),
                registry: Arc::clone(&registry),
                recorder: recorder.clone(),
                node: config.node_name.clone(),
                spread: node.as_ref().map_or(Duration::ZERO, |_| NODES_NOTE_WITHIN),
            };
            move |beat| unenforced::follow(unenforced, beat)
        }));
        if let Some(node) = node.as_ref().filter(|node| node.settings.policy_status) {
            let status = PolicyStatus {
                api: node.api.clone(),
                reconcile: reconcile.clone(),
                node: config.node_name.clone(),
            };
            let run = |beat| policy_status::follow(status, beat);
            tasks.push(supervisor.task(Part::PolicyStatus, "", run));
        }
        let recorded = Registry::of_events();
        tasks.push(supervisor.task(Part::EventRecorder, "", {
            let destination = match &node {
                Some(node) if node.settings.events => Destination::ApiServer(node.api.clone()),
                Some(_) => Destination::Nowhere,
                None => Destination::Registry(Arc::clone(&recorded)),
            };
            let node = config.node_name.clone();
            move |beat| events::follow(noted, destination, node, beat)
        }));

        let watcher = HostWatcher::start(supervisor).context("watch the host")?;
        tasks.push(supervisor.task(Part::HostWatch, "", {
            let switch = Arc::clone(&switch);
            move |beat| switch::follow_host(switch, watcher, beat)
        }));
        let (seen, kube_proxy) = watch::channel(None);
        let services = Services::new(config, &tables, switch.gateway(), seen);
        tasks.push(supervisor.task(Part::ServiceSteering, "", {
            let supervisor = supervisor.clone();
            move |beat| services::follow(services, reconcile, supervisor, beat)
        }));
        tasks.push(supervisor.task(Part::HostTables, "shields", {
            let attachments = attachments.clone();
            move |beat| attach::keep_shields(attachments, beat)
        }));
        if let Some(masquerade) = tables.masquerade {
            let keep = |beat| masquerade.keep(beat);
            tasks.push(supervisor.task(Part::HostTables, "masquerade", keep));
        }
        let log = |beat| packet_path::log_notices(notices, beat);
        tasks.push(supervisor.task(Part::PortNotices, "", log));
        let flow_log = open_flow_log(config, &switch, clock).await?;
        tasks.push(supervisor.task(Part::FlowRecords, "", {
            let log = Arc::clone(&flow_log);
            move |beat| flow_records::follow(log, beat)
        }));
        let flow_exports = export::start(&config.flow_export, &flow_log, supervisor)?;
        let has_events = node.as_ref().is_none_or(|node| node.settings.events);
        if config.flows.events && has_events {
            let (denied, registry) = (flow_log.subscribe(), Arc::clone(&registry));
            let follow = |beat| events::follow_denied(denied, registry, recorder, beat);
            tasks.push(supervisor.task(Part::DeniedPods, "", follow));
        }
        tasks.push(supervisor.task(Part::MidstreamTimer, "", {
            let switch = Arc::clone(&switch);
            move |beat| switch.end_midstream(beat)
        }));
        let cni_settings = CniSettings {
            default_namespace: config.network.default_namespace.clone(),
        };
        let rest = RestState {
            node: config.node_name.clone(),
            kube_proxy,
            node_network,
            pod_cidrs: config.network.pod_cidrs.clone(),
            workers: config.datapath.workers,
            switch: Arc::clone(&switch),
            cni: CniService::new(attachments.clone(), cni_settings),
            attachments,
            cluster: node.as_ref().map(|node| Arc::clone(&node.cluster.health)),
            registry,
            ipam,
            in_force: in_force.waiter(),
            flow_log,
            flow_exports: flow_exports.destinations(),
            latency,
            events: recorded,
            readers: Readers::start(supervisor).context("start the threads of long reads")?,
            supervisor: supervisor.clone(),
            store,
            stopping,
        };
        Ok(Self {
            switch,
            rest,
            node,
            tasks,
            flow_exports,
            supervisor: supervisor.clone(),
        })
    }

    /// Says that the switch is ready: at once, or when the cluster's policies are known.
    pub(super) fn announce(&mut self) {
        match &self.node {
            Some(node) => {
                let announce = node.announce(self.switch.reconcile());
                let announce = self.supervisor.task(Part::NodeAnnouncement, "", announce);
                self.tasks.push(announce);
            }
            None => {
                service_manager::ready();
                tracing::info!(node = self.rest.node, "ready");
            }
        }
    }

    pub(super) async fn listen(
        &self,
        config: &Config,
        stopping: watch::Receiver<bool>,
    ) -> Result<Vec<Task>> {
        let mut servers = Vec::new();
        let router = rest::router(self.rest.clone());
        let unix = serve::listen_unix(&config.api.socket, config.api.socket_mode)?;
        servers.push(self.supervisor.task(Part::UnixListener, "", {
            let (router, limit) = (router.clone(), config.api.max_connections);
            let stopping = stopping.clone();
            move |beat| serve::serve_unix(unix, router, limit, stopping, beat)
        }));
        if config.api.tcp_listen.is_empty() {
            return Ok(servers);
        }
        let tcp = Arc::new(TcpServer::open(tcp_options(&config.api))?);
        for address in &config.api.tcp_listen {
            let listener = listen_tcp(*address).await?;
            let server = Arc::clone(&tcp);
            let (router, stopping) = (router.clone(), stopping.clone());
            let serve = |beat| server.serve(listener, router, stopping, beat);
            let instance = address.to_string();
            servers.push(self.supervisor.task(Part::TcpListener, &instance, serve));
        }
        Ok(servers)
    }

    pub(super) async fn shutdown(self) {
        for task in self.tasks {
            task.cancel().await;
        }
        let flow_log = Arc::clone(&self.rest.flow_log);
        supervise::blocking(move || flow_log.keep()).await;
        self.flow_exports.finish().await;
        if let Some(node) = self.node {
            node.cluster.stored().await;
        }
        self.switch.reconcile().stop();
        drop(self.rest);
        // Whoever else still holds the switch is a request that was cut off.
        if let Ok(switch) = Arc::try_unwrap(self.switch) {
            let ended = tokio::task::spawn_blocking(move || switch.shutdown()).await;
            if let Err(error) = ended {
                tracing::error!(%error, "ending the workers failed");
            }
        }
    }
}

async fn open_flow_log(
    config: &Config,
    switch: &Switch,
    clock: MonotonicClock,
) -> Result<Arc<FlowLog>> {
    let options = FlowLogOptions {
        node: config.node_name.clone(),
        folder: config.state_dir.join("flows"),
        keep: config.flows,
    };
    let (datapath, reconcile) = (Arc::clone(switch.datapath()), switch.reconcile().clone());
    let open = move || FlowLog::open(options, datapath, reconcile, clock);
    Ok(Arc::new(tokio::task::spawn_blocking(open).await?))
}

fn tcp_options(api: &ApiConfig) -> TcpOptions {
    TcpOptions {
        certificate: api.certificate.clone(),
        token_file: api.token_file.clone(),
        member_token_file: api.member_token_file.clone(),
        max_connections: api.max_connections,
    }
}
