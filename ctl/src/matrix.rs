//! `vsctl matrix`: who can reach whom, by what a running switch knows.

use anyhow::Result;
use clap::Args;
use serde_json::Value;
use vswitchd::simulate::{Cluster, Simulator};

use crate::grid;
use crate::output::{Format, print};
use crate::server::Server;
use crate::simulate;

/// `matrix`.
#[derive(Debug, Args)]
pub(crate) struct MatrixArgs {
    /// Only receivers in this namespace; senders are all pods.
    #[arg(short, long)]
    namespace: Option<String>,
}

/// What policies depend on.
const OBJECTS: [&str; 3] = [
    "/api/v1/namespaces",
    "/api/v1/pods",
    "/apis/networking.k8s.io/v1/networkpolicies",
];

/// Reads the switch's objects and judges every pod against every declared port.
pub(crate) fn matrix(server: &Server, args: &MatrixArgs, format: Format) -> Result<()> {
    let mut cluster = Cluster::default();
    for path in OBJECTS {
        let list: Value = server.get(path)?;
        cluster.add(&list)?;
    }
    let is_receiver = |namespace: &str| args.namespace.as_deref().is_none_or(|n| n == namespace);
    let verdicts = simulate::matrix(&mut Simulator::new(cluster), is_receiver);
    print(format, &verdicts, || grid::of_verdicts(&verdicts))
}
