//! The one request that `vswitch-cni` makes of the daemon: `POST /v1/cni`.
//!
//! The daemon answers 200 with the CNI result (an empty body where the command has none),
//! or a 4xx/5xx status with a [`CniFailure`], which the shim prints as it is.

use serde::{Deserialize, Serialize};

/// A CNI invocation as the runtime made it (CNI spec 1.1.0, "Parameters").
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CniCall {
    /// CNI_COMMAND: ADD, DEL, CHECK, GC, STATUS (VERSION never leaves the shim).
    pub command: String,
    /// CNI_CONTAINERID.
    #[serde(default)]
    pub container_id: Option<String>,
    /// CNI_NETNS: path of the network namespace.
    #[serde(default)]
    pub netns: Option<String>,
    /// CNI_IFNAME: interface to create inside the namespace.
    #[serde(default)]
    pub ifname: Option<String>,
    /// CNI_ARGS: `KEY=VALUE;…`.
    #[serde(default)]
    pub args: Option<String>,
    /// CNI_PATH: where delegated plugins (IPAM) are found, colon-separated.
    #[serde(default)]
    pub path: Option<String>,
    /// Network configuration from standard input.
    pub config: serde_json::Value,
}

/// A CNI error (CNI spec 1.1.0, "Error"), without `cniVersion`, which the shim adds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CniFailure {
    /// 1–7, 11, 50, 51 of the spec; the switch's own from 100.
    pub code: u32,
    /// One line.
    pub msg: String,
    /// What led to it; may be empty.
    #[serde(default)]
    pub details: String,
}
