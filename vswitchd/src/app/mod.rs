//! Start order, readiness, and the way down.
//!
//! 1. state: store, objects, leases;
//! 2. packet engine, workers, reconciler, gateway, masquerade;
//! 3. known objects and ports in force;
//! 4. the API opens, systemd is told.
//!
//! On SIGTERM or SIGINT: API closed, workers drained, store exported; ports and gateway stay.

mod cluster;
mod cluster_pods;
mod cni_world;
mod host_watch;
mod in_force;
mod nodes;
mod publish_node;
mod service_manager;
mod services;

use std::fs;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use vswitch_datapath::{Datapath, DatapathConfig};

use crate::clock::{self, MonotonicClock};
use crate::cni::{CniDeps, CniService, CniSettings, KernelNetns};
use crate::config::{ApiConfig, Config, FastPathSetting};
use crate::host::{
    self, GatewaySpec, HostWatcher, KubeProxy, Leftovers, MasqueradeSpec, NftTable, NodeNetwork,
    NodeNetworkStatus, NodePublication, NodesSpec, ServiceSteering, Shield, SysctlLedger, Underlay,
};
use crate::ipam::{Delegate, Ipam, IpamConfig};
use crate::objects::{Registry, RegistryConfig};
use crate::offload::{FastPath, PortKind};
use crate::port::{PortNotice, TapConfig, open_tap};
use crate::reconcile::{PortAttachMode, ReconcileConfig, Reconciler};
use crate::rest::tcp::{TcpOptions, TcpServer, listen_tcp};
use crate::rest::{self, CniHandler, RestState, serve};
use crate::store::{SharedStore, SledStore};
use crate::switch::{GATEWAY_PORT, Gateway, POD_PORTS, Switch, VmPorts};
use crate::worker::{WorkerConfig, WorkerPool};

use cluster::ClusterNode;
use cluster_pods::ClusterPods;
use cni_world::{KernelHost, PodObjects, RegistryPods, RunningPorts};
use host_watch::{HostTables, KeptMasquerade};
use in_force::InForce;

/// How long ports that were attached again take TCP connections in mid-stream: longer than a
/// stalled sender waits before it tries again (RFC 6298: 60 s at most is usual).
const MIDSTREAM_FOR: std::time::Duration = std::time::Duration::from_secs(120);

/// How long a delegated IPAM plugin may take.
const PLUGIN_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

type Cni = CniService<KernelHost, RunningPorts, PodObjects>;

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// What kept it from starting, or ended it.
pub async fn run(config: Config) -> Result<()> {
    let (stop, stopping) = watch::channel(false);
    let mut app = App::start(&config, stopping.clone()).await?;
    let mut servers = app.listen(&config, stopping).await?;
    app.announce();
    let watchdog = tokio::spawn(service_manager::watch_workers(Arc::clone(&app.switch)));

    let outcome = wait_for_end(&mut servers).await;
    service_manager::stopping();
    tracing::info!("stopping");
    watchdog.abort();
    stop.send_replace(true);
    drain(servers).await;
    app.shutdown().await;
    tracing::info!("stopped");
    outcome
}

/// How long requests under way may take to finish.
const DRAIN_FOR: std::time::Duration = std::time::Duration::from_secs(5);

async fn drain(mut servers: JoinSet<std::io::Result<()>>) {
    let finished = async { while servers.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_FOR, finished).await.is_err() {
        tracing::warn!("requests were cut off");
    }
}

async fn wait_for_end(servers: &mut JoinSet<std::io::Result<()>>) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        Some(ended) = servers.join_next() => {
            ended.context("API server")?.context("API server")?;
            anyhow::bail!("the API server ended by itself")
        }
    }
}

/// The parts that live as long as the daemon.
struct App {
    switch: Arc<Switch>,
    rest: RestState,
    /// In a cluster.
    node: Option<ClusterNode>,
    tasks: JoinSet<()>,
}

impl App {
    async fn start(config: &Config, stopping: watch::Receiver<bool>) -> Result<Self> {
        for folder in [&config.state_dir, &config.run_dir] {
            fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        let store = open_store(config).await?;
        let clock = MonotonicClock::start();
        let (node, config) = match &config.cluster {
            Some(settings) => {
                let joined = ClusterNode::join(config, settings, &store, stopping.clone());
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

        let (switch, notices) = start_switch(config, &store, clock, &tables).await?;
        let in_force = in_force::start(&registry, switch.reconcile().clone());
        let mut tasks = JoinSet::new();
        match &node {
            Some(node) => {
                let reconcile = switch.reconcile().clone();
                tasks.spawn(node.tell_synced(in_force.clone(), reconcile));
            }
            None => switch.reconcile().cluster_synced(),
        }
        let pods = pod_objects(node.as_ref(), &registry, &in_force, &switch);
        let cni = cni_service(config, &store, &ipam, &switch, pods, &tables).await?;
        recover(&cni, &switch, &ipam).await?;

        let watcher = HostWatcher::start().context("watch the host")?;
        tasks.spawn(host_watch::follow_host(Arc::clone(&switch), watcher));
        let (seen, kube_proxy) = watch::channel(None);
        let services = service_steering(config, &tables, switch.gateway(), seen);
        tasks.spawn(services::follow(services, switch.reconcile().clone()));
        let (publish, published) = watch::channel(NodePublication::default());
        let (status, node_network) = watch::channel(NodeNetworkStatus::default());
        let nodes = node_network_of(config, &tables, switch.gateway().mtu, publish, status);
        tasks.spawn(nodes::follow(nodes, switch.reconcile().clone()));
        tasks.spawn(publish_node::follow(
            Arc::clone(&registry),
            config.node_name.clone(),
            published,
        ));
        tasks.spawn(host_watch::keep_tables(Arc::clone(&switch), tables));
        tasks.spawn(log_notices(notices));
        tasks.spawn(end_midstream(Arc::clone(&switch)));
        let vms = VmPorts::new(
            Arc::clone(&switch),
            Arc::clone(&ipam),
            Arc::clone(&registry),
        );
        let handler: CniHandler = Arc::new(move |call| {
            let cni = cni.clone();
            Box::pin(async move { cni.handle(call).await })
        });
        let rest = RestState {
            node: config.node_name.clone(),
            kube_proxy,
            node_network,
            pod_cidrs: config.network.pod_cidrs.clone(),
            workers: config.datapath.workers,
            switch: Arc::clone(&switch),
            vms: Arc::new(vms),
            cluster: node.as_ref().map(|node| Arc::clone(&node.cluster.health)),
            registry,
            ipam,
            cni: handler,
            in_force: Arc::new(move |version| {
                let in_force = in_force.clone();
                Box::pin(async move { in_force.reached(version).await })
            }),
            stopping,
        };
        Ok(Self {
            switch,
            rest,
            node,
            tasks,
        })
    }

    /// Says that the switch is ready: at once, or when the cluster's policies are known.
    fn announce(&mut self) {
        match &self.node {
            Some(node) => {
                let announce = node.announce(self.switch.reconcile());
                self.tasks.spawn(announce);
            }
            None => {
                service_manager::ready();
                tracing::info!(node = self.rest.node, "ready");
            }
        }
    }

    async fn listen(
        &self,
        config: &Config,
        stopping: watch::Receiver<bool>,
    ) -> Result<JoinSet<std::io::Result<()>>> {
        let mut servers = JoinSet::new();
        let router = rest::router(self.rest.clone());
        let unix = serve::listen_unix(&config.api.socket, config.api.socket_mode)?;
        servers.spawn(serve::serve_unix(unix, router.clone(), stopping.clone()));
        if config.api.tcp_listen.is_empty() {
            return Ok(servers);
        }
        let tcp = Arc::new(TcpServer::open(tcp_options(&config.api))?);
        for address in &config.api.tcp_listen {
            let listener = listen_tcp(*address).await?;
            let server = Arc::clone(&tcp);
            servers.spawn(server.serve(listener, router.clone(), stopping.clone()));
        }
        Ok(servers)
    }

    async fn shutdown(mut self) {
        self.tasks.shutdown().await;
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

async fn open_store(config: &Config) -> Result<SharedStore> {
    let folder = config.state_dir.join("store");
    let store = tokio::task::spawn_blocking(move || SledStore::open(&folder)).await??;
    Ok(Arc::new(store))
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

/// Brings up engine, workers, reconciler and gateway; no pod port is attached yet.
async fn start_switch(
    config: &Config,
    store: &SharedStore,
    clock: MonotonicClock,
    tables: &HostTables,
) -> Result<(Arc<Switch>, mpsc::Receiver<PortNotice>)> {
    let (config, store, tables) = (config.clone(), Arc::clone(store), tables.clone());
    tokio::task::spawn_blocking(move || start_switch_blocking(&config, store, clock, &tables))
        .await?
}

fn start_switch_blocking(
    config: &Config,
    store: SharedStore,
    clock: MonotonicClock,
    tables: &HostTables,
) -> Result<(Arc<Switch>, mpsc::Receiver<PortNotice>)> {
    let (gateway, port) = open_gateway(config)?;
    if let Some(masquerade) = &tables.masquerade {
        masquerade.install().context("install masquerade")?;
    }
    let fast_path = fast_path(config);
    let datapath = open_datapath(config, fast_path.clone());
    let (notify, notices) = mpsc::channel(64);
    let workers = WorkerPool::start(&datapath, worker_config(config, clock), notify)
        .context("start workers")?;
    let reconcile_config = ReconcileConfig {
        node_name: config.node_name.clone(),
        gateway: crate::reconcile::GatewaySpec {
            port_no: GATEWAY_PORT,
            name: gateway.ifname.to_string(),
            mac: gateway.mac,
            addresses: gateway.addresses.clone(),
            mtu: gateway.mtu,
        },
        pod_cidrs: config.network.pod_cidrs.clone(),
        deny: config.policy.deny,
    };
    // The thread ends with `ReconcileHandle::stop`; what it has installed stays.
    let (reconcile, _) = Reconciler::start(Arc::clone(&datapath), reconcile_config);
    reconcile.set_node_addresses(host::node_addresses().context("read the node's addresses")?);
    reconcile.set_midstream(GATEWAY_PORT, true);
    if let Some(fast_path) = &fast_path {
        fast_path.offer_to(&port, PortKind::Gateway);
    }
    workers.attach(port).context("attach the gateway port")?;
    let switch = Switch::new(
        datapath, workers, reconcile, clock, store, gateway, fast_path,
    )
    .context("read stored ports and flows")?;
    Ok((Arc::new(switch), notices))
}

/// Returns the fast path where the kernel has what it takes and the configuration wants it.
fn fast_path(config: &Config) -> Option<Arc<FastPath>> {
    if config.datapath.fast_path == FastPathSetting::Off {
        return None;
    }
    match FastPath::open() {
        Ok(fast_path) => Some(fast_path),
        Err(error) => {
            let error = format!("{:#}", anyhow::Error::from(error));
            tracing::warn!(error, "no fast path, every packet goes through the workers");
            None
        }
    }
}

fn open_datapath(config: &Config, fast_path: Option<Arc<FastPath>>) -> Arc<Datapath> {
    let settings = DatapathConfig {
        conntrack: config.datapath.conntrack.clone(),
        flow_cache_entries: config.datapath.flow_cache_entries,
    };
    match fast_path {
        Some(fast_path) => Datapath::offloading_to(settings, fast_path),
        None => Datapath::new(settings),
    }
}

fn worker_config(config: &Config, clock: MonotonicClock) -> WorkerConfig {
    WorkerConfig {
        workers: config.datapath.workers,
        spin_polls: config.datapath.idle_polls,
        ..WorkerConfig::new(clock)
    }
}

/// Makes or finds the gateway's TAP and configures it.
fn open_gateway(config: &Config) -> Result<(Gateway, crate::port::Port)> {
    let network = &config.network;
    let ifname = network.gateway_ifname.clone();
    let uplink = host::uplink(network.iface.as_ref()).context("find the uplink")?;
    let addresses = uplink.iter().flat_map(|uplink| uplink.addresses.iter());
    let own = Underlay::first_of(addresses.copied());
    let overhead = host::tunnel_overhead(network.backend, &network.pod_cidrs, own);
    let mtu = network
        .mtu
        .resolve(uplink.map(|uplink| uplink.mtu), overhead);
    // The same MAC in every run: pods keep it in their neighbour tables over a restart.
    let mac = host::container_mac(&config.node_name, &ifname);
    let tap = TapConfig {
        ifname: ifname.clone(),
        mac: Some(mac),
        persistent: true,
    };
    let tap = open_tap(GATEWAY_PORT, &tap, None).context("open the gateway")?;
    tracing::info!(ifname = %ifname, offloads = ?tap.offloads, reattached = tap.reattached, "gateway");
    let spec = GatewaySpec {
        ifname: ifname.clone(),
        mac,
        mtu,
        pod_cidrs: network.pod_cidrs.clone(),
    };
    let mut ledger = SysctlLedger::open(&sysctl_ledger(config)).context("open sysctl ledger")?;
    host::configure_gateway(&spec, &mut ledger).context("configure the gateway")?;
    let addresses = host::gateway_addresses(&network.pod_cidrs)?;
    let addresses = addresses.iter().map(ipnet::IpNet::addr).collect();
    Ok((
        Gateway {
            ifname,
            mac,
            addresses,
            mtu,
            offloads: tap.offloads,
        },
        tap.port,
    ))
}

fn sysctl_ledger(config: &Config) -> std::path::PathBuf {
    config.state_dir.join("sysctls.json")
}

fn pod_objects(
    node: Option<&ClusterNode>,
    registry: &Arc<Registry>,
    in_force: &InForce,
    switch: &Switch,
) -> PodObjects {
    let (registry, in_force) = (Arc::clone(registry), in_force.clone());
    match node {
        None => PodObjects::Own(RegistryPods { registry, in_force }),
        Some(node) => PodObjects::Cluster(ClusterPods {
            registry,
            health: Arc::clone(&node.cluster.health),
            in_force,
            reconcile: switch.reconcile().clone(),
            node_name: node.name.clone(),
            wait: node.settings.pod_wait,
        }),
    }
}

async fn cni_service(
    config: &Config,
    store: &SharedStore,
    ipam: &Arc<Ipam>,
    switch: &Arc<Switch>,
    pods: PodObjects,
    tables: &HostTables,
) -> Result<Cni> {
    let deps = CniDeps {
        host: KernelHost {
            shield: tables.shield.clone(),
        },
        ports: RunningPorts {
            switch: Arc::clone(switch),
        },
        pods,
        netns: Box::new(KernelNetns),
        store: Arc::clone(store),
        ipam: Arc::clone(ipam),
        delegate: Delegate {
            plugin_dirs: cni_world::plugin_dirs(),
            timeout: PLUGIN_TIMEOUT,
        },
        unix_seconds: Box::new(clock::unix_seconds),
    };
    let settings = CniSettings {
        default_namespace: config.network.default_namespace.clone(),
        default_mtu: switch.gateway().mtu,
        port_numbers: POD_PORTS,
    };
    let service = tokio::task::spawn_blocking(move || CniService::new(deps, settings)).await?;
    service.context("read attachments")
}

/// Attaches again what was attached before the daemon went away.
async fn recover(cni: &Cni, switch: &Arc<Switch>, ipam: &Arc<Ipam>) -> Result<()> {
    let recovered = cni.recover().await.context("recover attachments")?;
    for problem in &recovered.problems {
        tracing::error!(problem, "recover attachments");
    }
    for attachment in &recovered.attachments {
        let mode = PortAttachMode { midstream: true };
        if let Err(error) = switch.attach_pod(attachment, mode).await {
            let error = format!("{:#}", anyhow::Error::from(error));
            tracing::error!(pod = %attachment.pod, error, "attach port again");
        }
    }
    for problem in switch.reopen_extra_ports().await {
        let error = format!("{:#}", anyhow::Error::from(problem));
        tracing::error!(error, "attach port again");
    }
    let released = recovered.released.len();
    let attached = recovered.attachments.len();
    let leases = ipam.leases().len();
    tracing::info!(attached, released, leases, "attachments recovered");
    Ok(())
}

async fn log_notices(mut notices: mpsc::Receiver<PortNotice>) {
    while let Some(notice) = notices.recv().await {
        tracing::warn!(port = notice.port.0, event = ?notice.event, "link of a port changed");
    }
}

/// Ends the time in which ports take connections in mid-stream.
async fn end_midstream(switch: Arc<Switch>) {
    tokio::time::sleep(MIDSTREAM_FOR).await;
    switch.reconcile().set_midstream(GATEWAY_PORT, false);
    for port in switch.reconcile().snapshot().attachments.keys() {
        switch.reconcile().set_midstream(*port, false);
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

/// Undoes what the daemon changed in the kernel. Blocks.
///
/// # Errors
/// What could not be undone, all of it.
pub fn cleanup(config: &Config) -> Result<()> {
    let leftovers = Leftovers {
        table: config
            .network
            .nft_table_suffix
            .parse()
            .context("nft table suffix")?,
        gateway_ifname: config.network.gateway_ifname.clone(),
        tunnel_ifname: config.network.vxlan.ifname.clone(),
        veth_prefix: host::HOST_VETH_PREFIX.to_owned(),
        sysctl_ledger: sysctl_ledger(config),
    };
    let mut problems: Vec<anyhow::Error> = Vec::new();
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
