//! Configuration: defaults < file < environment < flags, checked as a whole.
//!
//! [`RawConfig`] is what was written, [`Config`] what it means. Every layer is a tree of the
//! keys of `config/vswitchd.toml`; the layers are laid over each other, then everything is
//! checked, and all problems are reported at once, each with the place it was written at.
//! Nothing here reads more than the one file: what the machine contributes (host name,
//! cores, environment) is handed in. Used once at start by `app` and `--check-config`.

mod check;
mod layers;
mod raw;

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use vswitch_api::IfName;
use vswitch_datapath::conntrack::ConntrackConfig;

pub use crate::telemetry::{LogConfig, LogFormat};
pub use raw::{
    RawApi, RawCluster, RawConfig, RawConntrack, RawDatapath, RawFlows, RawLog, RawMtu, RawNetwork,
    RawPolicy, RawService,
};

/// What the machine contributes to the configuration.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// Its host name.
    pub hostname: String,
    /// Its processor cores.
    pub cores: usize,
    /// The environment; only names with `VSWITCHD_` count.
    pub environment: Vec<(String, String)>,
}

impl Machine {
    /// Reads host name, cores and environment of this process.
    #[must_use]
    pub fn read() -> Self {
        let hostname = nix::unistd::gethostname().ok();
        let text = |os: std::ffi::OsString| os.into_string().ok();
        Self {
            hostname: hostname.and_then(text).unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            environment: std::env::vars_os()
                .filter_map(|(name, value)| Some((text(name)?, text(value)?)))
                .collect(),
        }
    }
}

/// Values of command line flags, by the keys of the file (`network.mtu`).
#[derive(Debug, Clone, Default)]
pub struct Overrides(Vec<(String, String)>);

impl Overrides {
    /// Sets a key; lists are separated by commas.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.0.push((key.into(), value.into()));
    }
}

/// The checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Name of the Node object that this machine is.
    pub node_name: String,
    /// Where the store lives.
    pub state_dir: PathBuf,
    /// Where sockets live.
    pub run_dir: PathBuf,
    /// The cluster that this node belongs to; `None`: standalone.
    pub cluster: Option<ClusterConfig>,
    /// Pod network.
    pub network: NetworkConfig,
    /// Services.
    pub service: ServiceConfig,
    /// Packet engine.
    pub datapath: DatapathSettings,
    /// NetworkPolicies.
    pub policy: PolicyConfig,
    /// Flow records.
    pub flows: FlowsConfig,
    /// Where they go besides.
    pub flow_export: FlowExportConfig,
    /// Unix socket and TCP.
    pub api: ApiConfig,
    /// Logging.
    pub log: LogConfig,
    /// `VSWITCHD_…` variables that are no key, to be warned of: Kubernetes makes such names
    /// for a Service called vswitchd, so they are no error.
    pub ignored_environment: Vec<String>,
    effective: RawConfig,
}

/// The node's place in a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    /// How to reach the API server; `None`: as the service account of this pod.
    pub kubeconfig: Option<PathBuf>,
    /// Where the pod networks of this node come from.
    pub pod_cidrs_from: PodCidrsFrom,
    /// How long to wait for them.
    pub pod_cidrs_wait: Duration,
    /// How long CNI ADD waits for its pod.
    pub pod_wait: Duration,
    /// Where the CNI network configuration is installed, if it is.
    pub cni_conf_dir: Option<PathBuf>,
    /// Where runtimes look for CNI plugins.
    pub cni_bin_dir: PathBuf,
    /// The CNI plugin that is installed there, if one is.
    pub cni_plugin: Option<PathBuf>,
    /// Whether Events are written to the API server.
    pub events: bool,
    /// Whether the status of policies says whether they are in force on this node.
    pub policy_status: bool,
}

/// Where the pod networks of a node in a cluster come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodCidrsFrom {
    /// spec.podCIDRs of the Node.
    Node,
    /// spec.podCIDRs of the Node, `network.pod_cidrs` if it has none.
    NodeOrConfig,
}

/// The pod network of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Addresses of this node's pods, at most one CIDR per family, the first usable address
    /// of each is the gateway's.
    pub pod_cidrs: Vec<IpNet>,
    /// Destinations that see pods' own addresses (besides `pod_cidrs`).
    pub cluster_cidrs: Vec<IpNet>,
    /// MTU of pods.
    pub mtu: MtuSetting,
    /// How packets get to pods of other nodes.
    pub backend: Backend,
    /// The interface towards other nodes; `None` for that of the default route.
    pub iface: Option<IfName>,
    /// The tunnels of backend vxlan.
    pub vxlan: VxlanConfig,
    /// Name of the gateway TAP.
    pub gateway_ifname: IfName,
    /// Whether to masquerade what leaves the cluster.
    pub masquerade: bool,
    /// Suffix of our nft tables; empty for none.
    pub nft_table_suffix: String,
    /// Namespace of pods whose runtime names none.
    pub default_namespace: String,
    /// How long a released address rests before it is assigned again.
    pub lease_rest: Duration,
}

/// What Services are given when they do not say it themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceConfig {
    /// ClusterIPs, at most one CIDR per family; the family of the first is the default one.
    /// Empty: Services get none.
    pub cidrs: Vec<IpNet>,
    /// NodePorts.
    pub node_ports: RangeInclusive<u16>,
}

/// How packets get to pods of other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backend {
    /// In VXLAN tunnels of the kernel; nodes need only IP between them.
    #[default]
    Vxlan,
    /// Routed by the nodes' addresses; nodes are on one link.
    HostGw,
    /// Somebody else sees to it.
    None,
}

impl Backend {
    /// Returns the name in the configuration, which is flannel's as well.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::HostGw => "host-gw",
            Self::None => "none",
        }
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::Vxlan, Self::HostGw, Self::None];
        let named = all.into_iter().find(|backend| backend.name() == text);
        named.ok_or_else(|| format!("{text:?} is none of vxlan, host-gw, none"))
    }
}

/// The tunnels of backend vxlan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VxlanConfig {
    /// VXLAN network identifier, 24 bits.
    pub vni: u32,
    /// UDP port.
    pub port: u16,
    /// Device of the tunnel over IPv4; that over IPv6 has a `6` behind it.
    pub ifname: IfName,
}

/// Where the MTU of pods comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MtuSetting {
    /// From the interface towards other nodes.
    Auto,
    /// Bytes.
    Bytes(u16),
}

impl MtuSetting {
    /// Returns the MTU, given that of the interface towards other nodes, if there is one
    /// (without it 1500, Ethernet's), and the bytes that a tunnel adds to each packet.
    #[must_use]
    pub fn resolve(self, uplink_mtu: Option<u32>, overhead: u16) -> u16 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Auto => {
                let mtu = uplink_mtu.map_or(1500, |mtu| u16::try_from(mtu).unwrap_or(u16::MAX));
                mtu.saturating_sub(overhead)
            }
        }
    }
}

/// The packet engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatapathSettings {
    /// Worker threads, at least 1.
    pub workers: usize,
    /// Entries of each worker's FlowCache; 0 turns it off.
    pub flow_cache_entries: usize,
    /// How often a worker without frames polls before it sleeps.
    pub idle_polls: u32,
    /// Whether established connections may be forwarded inside the kernel.
    pub fast_path: FastPathSetting,
    /// Connection tracking.
    pub conntrack: ConntrackConfig,
}

/// Whether established connections are forwarded inside the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FastPathSetting {
    /// Where the kernel can.
    #[default]
    Auto,
    /// Never: every packet goes through the workers.
    Off,
}

/// How NetworkPolicies are enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PolicyConfig {
    /// What becomes of a packet that a NetworkPolicy denies.
    pub deny: Deny,
}

/// What becomes of a packet that a NetworkPolicy denies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Deny {
    /// Nobody is told; the sender runs into its timeout.
    #[default]
    Drop,
    /// The sender is told: TCP by a reset, all else by ICMP administratively prohibited.
    Reject,
}

/// The records of what was denied, and of connections that were allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowsConfig {
    /// How long they are kept.
    pub keep: Duration,
    /// Most bytes of the disk that they take.
    pub max_bytes: u64,
    /// Whether pods get Events about what policies denied them.
    pub events: bool,
    /// Which allowed connections are recorded when they end.
    pub connections: RecordedShare,
    /// Whether those are recorded when they begin as well.
    pub connection_starts: bool,
}

/// Which part of the allowed connections is recorded: one in so many, 0 for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordedShare(u32);

impl RecordedShare {
    /// None.
    pub const OFF: Self = Self(0);
    /// All.
    pub const ALL: Self = Self(1);

    /// Returns of how many connections one is recorded; 0 if none is.
    #[must_use]
    pub const fn one_in(self) -> u32 {
        self.0
    }
}

impl fmt::Display for RecordedShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("off"),
            1 => f.write_str("all"),
            of => write!(f, "1/{of}"),
        }
    }
}

/// Where records of what was denied go besides the store of the node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FlowExportConfig {
    /// A file of JSON lines.
    pub file: Option<FlowFileConfig>,
    /// Whether they go to the journal.
    pub journald: bool,
    /// A collector of OpenTelemetry.
    pub otlp: Option<OtlpConfig>,
    /// A collector of IPFIX.
    pub ipfix: Option<IpfixConfig>,
}

/// A collector that speaks OTLP over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpConfig {
    /// Its base address, `http://…` or `https://…`.
    pub endpoint: String,
    /// Certificate authorities that its certificate may be from, PEM; `None`: those of the machine.
    pub ca_file: Option<PathBuf>,
}

/// A collector that takes IPFIX (RFC 7011).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpfixConfig {
    /// By what messages go there.
    pub transport: IpfixTransport,
    /// Its `host:port`.
    pub address: String,
    /// Whose number the elements are under that IANA has none for; `None`: they are left out.
    pub enterprise: Option<u32>,
    /// How often templates are told again over UDP.
    pub template_refresh: Duration,
}

impl IpfixConfig {
    /// Enterprise number of the elements that tell of answers (RFC 5103 section 6.1), among which
    /// others would be taken for those.
    pub const REVERSE: u32 = 29_305;
}

/// A transport of IPFIX.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpfixTransport {
    /// Datagrams, which may be lost.
    Udp,
    /// A connection.
    Tcp,
}

impl fmt::Display for IpfixTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        })
    }
}

/// A file that begins anew when it is full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowFileConfig {
    /// The file.
    pub path: PathBuf,
    /// Most bytes that it has.
    pub max_bytes: u64,
    /// How many of the files before it are kept.
    pub keep: usize,
}

/// The daemon's interfaces to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiConfig {
    /// The unix socket.
    pub socket: PathBuf,
    /// Its permissions.
    pub socket_mode: u32,
    /// TCP addresses to listen on; none by default.
    pub tcp_listen: Vec<SocketAddr>,
    /// File with the bearer token that may do all.
    pub token_file: Option<PathBuf>,
    /// File with the bearer tokens of member nodes.
    pub member_token_file: Option<PathBuf>,
    /// Files of certificate chain and key of TCP addresses, both PEM; `None`: plain HTTP.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Most connections of a TCP address at a time.
    pub max_connections: usize,
}

/// One thing wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it was written: file, variable, flag or default.
    pub place: String,
    /// The key, empty if it is about the file as a whole.
    pub key: String,
    /// What is wrong.
    pub problem: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            place,
            key,
            problem,
        } = self;
        if key.is_empty() {
            write!(f, "{place}: {problem}")
        } else {
            write!(f, "{place}: {key}: {problem}")
        }
    }
}

/// Everything that is wrong with the configuration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("configuration is not usable:{}", self.list())]
pub struct ConfigError {
    /// The problems, in the order of the file's keys.
    pub problems: Vec<Problem>,
}

impl ConfigError {
    fn list(&self) -> String {
        self.problems
            .iter()
            .map(|problem| format!("\n  {problem}"))
            .collect()
    }
}

impl Config {
    /// Reads `file` (`None`: none) and lays environment and flags over it.
    ///
    /// # Errors
    /// [`ConfigError`] with all problems.
    pub fn load(
        file: Option<&Path>,
        machine: &Machine,
        overrides: &Overrides,
    ) -> Result<Self, ConfigError> {
        let mut layers = layers::Layers::new();
        if let Some(path) = file {
            layers.add_file(path);
        }
        let ignored = layers.add_environment(&machine.environment);
        layers.add_overrides(&overrides.0);
        let merged = layers.merge();
        let mut config = check::resolve(merged, machine)?;
        config.ignored_environment = ignored;
        Ok(config)
    }

    /// Returns the configuration in force in the format of the file.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(&self.effective).expect("text, numbers and lists are always TOML")
    }
}

#[cfg(test)]
mod tests;
