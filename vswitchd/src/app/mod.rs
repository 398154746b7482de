//! Start order, readiness, and the way down.
//!
//! 1. state: store, objects, leases;
//! 2. packet engine, workers, reconciler, gateway, masquerade;
//! 3. known objects and ports in force;
//! 4. the API opens, systemd is told.
//!
//! On SIGTERM or SIGINT: API closed, workers drained, store exported; ports and gateway stay.

mod attachments;
mod cluster;
mod in_force;
mod nodes;
mod packet_path;
mod publish_node;
mod service_manager;
mod services;

use std::fs;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::attach;
use crate::clock::MonotonicClock;
use crate::cni::{CniService, CniSettings};
use crate::config::{ApiConfig, Config};
use crate::host::{
    self, HostWatcher, KeptMasquerade, KubeProxy, Leftovers, MasqueradeSpec, NftTable, NodeNetwork,
    NodeNetworkStatus, NodePublication, NodesSpec, ServiceSteering, Shield,
};
use crate::ipam::{Ipam, IpamConfig};
use crate::objects::{Registry, RegistryConfig};
use crate::rest::tcp::{TcpOptions, TcpServer, listen_tcp};
use crate::rest::{self, RestState, serve};
use crate::store::{LogStore, SharedStore, StoreError, SupervisedStore, make_private};
use crate::supervise::{Faults, Part, Supervisor, Task, watchdog};
use crate::switch::{self, Gateway, Switch};

use cluster::ClusterNode;
use publish_node::NodePlace;

/// Runs the daemon until it is told to stop. Nothing fails but what fails by itself, unless a test
/// puts `faults` into its parts.
///
/// # Errors
/// What kept it from starting.
pub async fn run(config: Config, faults: Faults) -> Result<()> {
    let supervisor = Supervisor::new(faults);
    let watchdog = watchdog::start(&supervisor, service_manager::alive);
    let watchdog = watchdog.context("start the watchdog")?;
    let (stop, stopping) = watch::channel(false);
    let mut app = App::start(&config, stopping.clone(), &supervisor).await?;
    let servers = app.listen(&config, stopping).await?;
    app.announce();

    tokio::select! {
        signal = wait_for_signal() => signal?,
        never = watchdog::guard(&supervisor) => match never {},
    }
    service_manager::stopping();
    tracing::info!("stopping");
    supervisor.stop();
    stop.send_replace(true);
    drain(servers).await;
    app.shutdown().await;
    drop(watchdog);
    tracing::info!("stopped");
    Ok(())
}

/// How long requests under way may take to finish.
const DRAIN_FOR: std::time::Duration = std::time::Duration::from_secs(5);

async fn drain(servers: Vec<Task>) {
    let finished = async {
        for server in servers {
            server.ended().await;
        }
    };
    if tokio::time::timeout(DRAIN_FOR, finished).await.is_err() {
        tracing::warn!("requests were cut off");
    }
}

async fn wait_for_signal() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// What has to stay in the host's kernel as long as the daemon runs.
#[derive(Debug, Clone)]
struct HostTables {
    /// Name of our tables.
    table: NftTable,
    shield: Shield,
    /// `None` where the configuration turns it off.
    masquerade: Option<Arc<KeptMasquerade>>,
}

/// The parts that live as long as the daemon.
struct App {
    switch: Arc<Switch>,
    rest: RestState,
    /// In a cluster.
    node: Option<ClusterNode>,
    tasks: Vec<Task>,
    supervisor: Supervisor,
}

impl App {
    async fn start(
        config: &Config,
        stopping: watch::Receiver<bool>,
        supervisor: &Supervisor,
    ) -> Result<Self> {
        fs::create_dir_all(&config.run_dir)
            .with_context(|| format!("create {}", config.run_dir.display()))?;
        let store = open_store(config, supervisor).await?;
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
            None => open_registry(config, &store).await?,
        };
        let ipam = open_ipam(config, &store).await?;
        let tables = host_tables(config)?;

        let started = packet_path::start(config, &store, clock, &tables, supervisor);
        let (switch, notices) = started.await?;
        let reconcile = switch.reconcile().clone();
        let (in_force, feed) = in_force::start(&registry, reconcile.clone(), supervisor);
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
        let nodes = node_network_of(config, &tables, switch.gateway().mtu, publish, status);
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

        let watcher = HostWatcher::start(supervisor).context("watch the host")?;
        tasks.push(supervisor.task(Part::HostWatch, "", {
            let switch = Arc::clone(&switch);
            move |beat| switch::follow_host(switch, watcher, beat)
        }));
        let (seen, kube_proxy) = watch::channel(None);
        let services = service_steering(config, &tables, switch.gateway(), seen);
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
            supervisor: supervisor.clone(),
            store,
            stopping,
        };
        Ok(Self {
            switch,
            rest,
            node,
            tasks,
            supervisor: supervisor.clone(),
        })
    }

    /// Says that the switch is ready: at once, or when the cluster's policies are known.
    fn announce(&mut self) {
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

    async fn listen(&self, config: &Config, stopping: watch::Receiver<bool>) -> Result<Vec<Task>> {
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

    async fn shutdown(self) {
        for task in self.tasks {
            task.cancel().await;
        }
        if let Some(node) = self.node {
            node.cluster.stored().await;
        }
        self.switch.reconcile().stop();
        drop(self.rest);
        // Whoever else still holds the switch is a request that was cut off.
        if let Ok(switch) = Arc::try_unwrap(self.switch) {
            let ended = tokio::task::spawn_blocking(move || switch.shutdown()).await;
            if let Err(error) = ended {
                tracing::error!(%error, "drain workers");
            }
        }
    }
}

async fn open_store(config: &Config, supervisor: &Supervisor) -> Result<SharedStore> {
    let state_dir = config.state_dir.clone();
    let open = move || {
        // A full disk may refuse; what can be read is enough to go on with.
        if let Err(error) = make_private(&state_dir) {
            let state_dir = state_dir.display();
            tracing::error!(%state_dir, %error, "making the state directory private failed");
        }
        LogStore::open(&state_dir.join("store"))
    };
    let mut opening = tokio::task::spawn_blocking(open);
    loop {
        // Another process may be ending still.
        let opened = tokio::time::timeout(service_manager::EXTEND_EVERY, &mut opening);
        match opened.await {
            Ok(store) => return Ok(Arc::new(SupervisedStore::new(store??, supervisor))),
            Err(_) => service_manager::extend_start(),
        }
    }
}

async fn open_registry(config: &Config, store: &SharedStore) -> Result<Arc<Registry>> {
    let store = Arc::clone(store);
    let settings = RegistryConfig {
        node_name: config.node_name.clone(),
        service_cidrs: config.service.cidrs.clone(),
        node_ports: config.service.node_ports.clone(),
    };
    let open = move || Registry::open(store, settings);
    tokio::task::spawn_blocking(open)
        .await?
        .context("read stored objects")
}

async fn open_ipam(config: &Config, store: &SharedStore) -> Result<Arc<Ipam>> {
    let store = Arc::clone(store);
    let settings = IpamConfig {
        pod_cidrs: config.network.pod_cidrs.clone(),
        rest: config.network.lease_rest,
    };
    let open = move || Ipam::new(store, &settings);
    let ipam = tokio::task::spawn_blocking(open)
        .await?
        .context("read leases")?;
    for problem in ipam.damaged() {
        tracing::error!(problem, "lease record");
    }
    Ok(Arc::new(ipam))
}

fn host_tables(config: &Config) -> Result<HostTables> {
    let table: NftTable = config
        .network
        .nft_table_suffix
        .parse()
        .context("nft table suffix")?;
    let masquerade = config.network.masquerade.then(|| {
        let spec = MasqueradeSpec {
            pod_cidrs: config.network.pod_cidrs.clone(),
            cluster_cidrs: config.network.cluster_cidrs.clone(),
            gateway_ifname: config.network.gateway_ifname.clone(),
        };
        Arc::new(KeptMasquerade::new(table.clone(), spec))
    });
    Ok(HostTables {
        shield: Shield::new(table.clone()),
        masquerade,
        table,
    })
}

fn service_steering(
    config: &Config,
    tables: &HostTables,
    gateway: &Gateway,
    kube_proxy: watch::Sender<Option<KubeProxy>>,
) -> services::Services {
    let (ifname, addresses) = (gateway.ifname.clone(), &gateway.addresses);
    services::Services {
        steering: ServiceSteering::new(&tables.table, ifname, addresses),
        cidrs: config.service.cidrs.clone(),
        kube_proxy,
    }
}

fn node_network_of(
    config: &Config,
    tables: &HostTables,
    mtu: u16,
    publish: watch::Sender<NodePublication>,
    status: watch::Sender<NodeNetworkStatus>,
) -> nodes::Nodes {
    let network = &config.network;
    let spec = NodesSpec {
        node_name: config.node_name.clone(),
        backend: network.backend,
        vxlan: network.vxlan.clone(),
        pod_cidrs: network.pod_cidrs.clone(),
        gateway_ifname: network.gateway_ifname.clone(),
        mtu,
    };
    nodes::Nodes {
        network: NodeNetwork::new(spec.clone(), &tables.table),
        spec,
        iface: network.iface.clone(),
        masquerade: tables.masquerade.clone(),
        publish,
        status,
    }
}

fn tcp_options(api: &ApiConfig) -> TcpOptions {
    TcpOptions {
        certificate: api.certificate.clone(),
        token_file: api.token_file.clone(),
        member_token_file: api.member_token_file.clone(),
        max_connections: api.max_connections,
    }
}

/// Undoes what the daemon changed in the kernel. What was attached stays on record: the next
/// start makes it again or releases it. Blocks.
///
/// # Errors
/// A daemon is running; otherwise what could not be undone, all of it.
pub fn cleanup(config: &Config) -> Result<()> {
    let mut problems: Vec<anyhow::Error> = Vec::new();
    // Held to the end, so that no daemon starts meanwhile.
    let store = match stopped_store(config) {
        Ok(store) => store,
        Err(error @ StoreError::Locked { .. }) => {
            let message = "vswitchd is running: stop it first; nothing was removed";
            return Err(anyhow::Error::from(error).context(message));
        }
        Err(error) => {
            problems.push(error.into());
            None
        }
    };
    if let Some(store) = &store {
        match attach::made_taps(store) {
            Ok(taps) => problems.extend(taps.iter().filter_map(|tap| {
                let removed = crate::port::remove_tap(tap, None);
                removed.err().map(anyhow::Error::from)
            })),
            Err(error) => problems.push(error.into()),
        }
    }
    let leftovers = Leftovers {
        table: config
            .network
            .nft_table_suffix
            .parse()
            .context("nft table suffix")?,
        gateway_ifname: config.network.gateway_ifname.clone(),
        tunnel_ifname: config.network.vxlan.ifname.clone(),
        veth_prefix: host::HOST_VETH_PREFIX.to_owned(),
        sysctl_ledger: packet_path::sysctl_ledger(config),
    };
    if let Some(settings) = &config.cluster {
        // First: runtimes must not bring further pods.
        let files = cluster::cni_files(config, settings);
        problems.extend(files.remove().into_iter().map(anyhow::Error::from));
    }
    problems.extend(
        host::cleanup(&leftovers)
            .into_iter()
            .map(anyhow::Error::from),
    );
    let problems: Vec<String> = problems
        .iter()
        .map(|problem| format!("{problem:#}"))
        .collect();
    anyhow::ensure!(
        problems.is_empty(),
        "could not undo everything:\n{}",
        problems.join("\n")
    );
    Ok(())
}

/// Opens the store of a daemon that does not run; `None` if none ever ran.
fn stopped_store(config: &Config) -> Result<Option<SharedStore>, StoreError> {
    let folder = config.state_dir.join("store");
    if !folder.exists() {
        return Ok(None);
    }
    let store = LogStore::open(&folder)?;
    Ok(Some(Arc::new(store)))
}
