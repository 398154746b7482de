//! `vsctl matrix`: who can reach whom, by what a running switch knows.

use anyhow::Result;
use clap::Args;
use serde_json::Value;
use vswitchd::objects::{Family, RESOURCES, ResourceInfo};
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

/// Returns whether policies are of a kind, or depend on it.
fn is_judged_by(info: &&ResourceInfo) -> bool {
    match info.resource.family() {
        Family::Namespaces
        | Family::Pods
        | Family::Nodes
        | Family::ServiceAccounts
        | Family::NetworkPolicies
        | Family::ClusterPolicies(_)
        | Family::Calico => true,
        Family::Services | Family::EndpointSlices | Family::HostEndpoints | Family::Events => false,
    }
}

/// Reads the switch's objects and judges every pod against every declared port.
pub(crate) fn matrix(server: &Server, args: &MatrixArgs, format: Format) -> Result<()> {
    let mut cluster = Cluster::default();
    for info in RESOURCES.iter().filter(is_judged_by) {
        let list: Value = server.get(&info.path())?;
        for object in list["items"].as_array().into_iter().flatten() {
            cluster.add_served(info, object);
        }
    }
    let is_receiver = |namespace: &str| args.namespace.as_deref().is_none_or(|n| n == namespace);
    let verdicts = simulate::matrix(&mut Simulator::new(cluster), is_receiver);
    print(format, &verdicts, || grid::of_verdicts(&verdicts))
}
