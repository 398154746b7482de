//! The keys of the file with their defaults: plain text, numbers and lists, unchecked.

use serde::{Deserialize, Serialize};

/// Everything that can be written in the file. [`Default`] has the defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "config/vswitchd.toml describes each key")]
pub struct RawConfig {
    pub node_name: String,
    pub state_dir: String,
    pub run_dir: String,
    pub cluster: RawCluster,
    pub network: RawNetwork,
    pub service: RawService,
    pub datapath: RawDatapath,
    pub conntrack: RawConntrack,
    pub policy: RawPolicy,
    pub flows: RawFlows,
    pub api: RawApi,
    pub log: RawLog,
}

impl Default for RawConfig {
    fn default() -> Self {
        Self {
            node_name: String::new(),
            state_dir: "/var/lib/vswitchd".to_owned(),
            run_dir: "/run/vswitchd".to_owned(),
            cluster: RawCluster::default(),
            network: RawNetwork::default(),
            service: RawService::default(),
            datapath: RawDatapath::default(),
            conntrack: RawConntrack::default(),
            policy: RawPolicy::default(),
            flows: RawFlows::default(),
            api: RawApi::default(),
            log: RawLog::default(),
        }
    }
}

/// `[cluster]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "config/vswitchd.toml describes each key")]
pub struct RawCluster {
    pub mode: String,
    pub kubeconfig: String,
    pub pod_cidrs_from: String,
    pub pod_cidrs_wait_seconds: i64,
    pub pod_wait_seconds: i64,
    pub cni_conf_dir: String,
    pub cni_bin_dir: String,
    pub cni_plugin: String,
    pub events: bool,
    pub policy_status: bool,
}

impl Default for RawCluster {
    fn default() -> Self {
        Self {
            mode: "standalone".to_owned(),
            kubeconfig: String::new(),
            pod_cidrs_from: "node".to_owned(),
            pod_cidrs_wait_seconds: 60,
            pod_wait_seconds: 20,
            cni_conf_dir: "/etc/cni/net.d".to_owned(),
            cni_bin_dir: "/opt/cni/bin".to_owned(),
            cni_plugin: String::new(),
            events: true,
            policy_status: true,
        }
    }
}

/// `[network]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "config/vswitchd.toml describes each key")]
pub struct RawNetwork {
    pub pod_cidrs: Vec<String>,
    pub cluster_cidrs: Vec<String>,
    pub mtu: RawMtu,
    pub backend: String,
    pub iface: String,
    pub vxlan_vni: i64,
    pub vxlan_port: i64,
    pub vxlan_ifname: String,
    pub gateway_ifname: String,
    pub masquerade: bool,
    pub nft_table_suffix: String,
    pub default_namespace: String,
    pub lease_rest_seconds: i64,
}

impl Default for RawNetwork {
    fn default() -> Self {
        Self {
            pod_cidrs: vec!["10.244.0.0/24".to_owned()],
            cluster_cidrs: Vec::new(),
            mtu: RawMtu::Text("auto".to_owned()),
            backend: "vxlan".to_owned(),
            iface: String::new(),
            vxlan_vni: 1,
            vxlan_port: 8472,
            vxlan_ifname: "vsw-vxlan".to_owned(),
            gateway_ifname: "vsw0".to_owned(),
            masquerade: true,
            nft_table_suffix: String::new(),
            default_namespace: "default".to_owned(),
            lease_rest_seconds: 60,
        }
    }
}

/// `[service]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "config/vswitchd.toml describes each key")]
pub struct RawService {
    pub cidrs: Vec<String>,
    pub node_ports: String,
}

impl Default for RawService {
    fn default() -> Self {
        Self {
            cidrs: vec!["10.96.0.0/16".to_owned()],
            node_ports: "30000-32767".to_owned(),
        }
    }
}

/// `"auto"` or a number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "the names say it")]
pub enum RawMtu {
    Bytes(i64),
    Text(String),
}

/// `[datapath]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "config/vswitchd.toml describes each key")]
pub struct RawDatapath {
    pub workers: i64,
    pub flow_cache_entries: i64,
    pub idle_polls: i64,
    pub fast_path: String,
}

impl Default for RawDatapath {
    fn default() -> Self {
        Self {
            workers: 0,
            flow_cache_entries: 16_384,
            idle_polls: 16,
            fast_path: "auto".to_owned(),
        }
    }
}

/// `[conntrack]`; timeouts are named as the sysctls of nf_conntrack and in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "config/vswitchd.toml describes each key")]
pub struct RawConntrack {
    pub max_entries: i64,
    pub tcp_timeout_syn_sent: i64,
    pub tcp_timeout_syn_recv: i64,
    pub tcp_timeout_established: i64,
    pub tcp_timeout_fin_wait: i64,
    pub tcp_timeout_close_wait: i64,
    pub tcp_timeout_last_ack: i64,
    pub tcp_timeout_time_wait: i64,
    pub tcp_timeout_close: i64,
    pub tcp_timeout_unacknowledged: i64,
    pub udp_timeout: i64,
    pub udp_timeout_stream: i64,
    pub icmp_timeout: i64,
    pub sctp_timeout_init: i64,
    pub sctp_timeout_established: i64,
    pub sctp_timeout_shutdown: i64,
    pub generic_timeout: i64,
    pub frag_timeout: i64,
}

impl Default for RawConntrack {
    fn default() -> Self {
        Self {
            max_entries: 262_144,
            tcp_timeout_syn_sent: 120,
            tcp_timeout_syn_recv: 60,
            tcp_timeout_established: 432_000,
            tcp_timeout_fin_wait: 240,
            tcp_timeout_close_wait: 7_440,
            tcp_timeout_last_ack: 240,
            tcp_timeout_time_wait: 120,
            tcp_timeout_close: 10,
            tcp_timeout_unacknowledged: 300,
            udp_timeout: 30,
            udp_timeout_stream: 120,
            icmp_timeout: 30,
            sctp_timeout_init: 60,
            sctp_timeout_established: 432_000,
            sctp_timeout_shutdown: 10,
            generic_timeout: 600,
            frag_timeout: 30,
        }
    }
}

/// `[policy]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "config/vswitchd.toml describes each key")]
pub struct RawPolicy {
    pub deny: String,
}

impl Default for RawPolicy {
    fn default() -> Self {
        Self {
            deny: "drop".to_owned(),
        }
    }
}

/// `[flows]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "config/vswitchd.toml describes each key")]
pub struct RawFlows {
    pub keep_hours: i64,
    pub max_megabytes: i64,
    pub connections: String,
    pub connection_starts: bool,
    pub events: bool,
    pub file: String,
    pub file_max_megabytes: i64,
    pub file_keep: i64,
    pub journald: bool,
    pub otlp_endpoint: String,
    pub otlp_ca_file: String,
    pub ipfix_collector: String,
    pub ipfix_enterprise: i64,
    pub ipfix_template_seconds: i64,
}

impl Default for RawFlows {
    fn default() -> Self {
        Self {
            keep_hours: 24,
            max_megabytes: 64,
            connections: "off".to_owned(),
            connection_starts: false,
            events: true,
            file: String::new(),
            file_max_megabytes: 100,
            file_keep: 5,
            journald: false,
            otlp_endpoint: String::new(),
            otlp_ca_file: String::new(),
            ipfix_collector: String::new(),
            ipfix_enterprise: 0,
            ipfix_template_seconds: 60,
        }
    }
}

/// `[api]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "config/vswitchd.toml describes each key")]
pub struct RawApi {
    pub socket: String,
    pub socket_mode: String,
    pub tcp_listen: Vec<String>,
    pub token_file: String,
    pub member_token_file: String,
    pub tls_cert_file: String,
    pub tls_key_file: String,
    pub allow_plaintext: bool,
    pub max_connections: i64,
}

impl Default for RawApi {
    fn default() -> Self {
        Self {
            socket: String::new(),
            socket_mode: "0660".to_owned(),
            tcp_listen: Vec::new(),
            token_file: String::new(),
            member_token_file: String::new(),
            tls_cert_file: String::new(),
            tls_key_file: String::new(),
            allow_plaintext: false,
            max_connections: 1024,
        }
    }
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "config/vswitchd.toml describes each key")]
pub struct RawLog {
    pub level: String,
    pub format: String,
}

impl Default for RawLog {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: "auto".to_owned(),
        }
    }
}
