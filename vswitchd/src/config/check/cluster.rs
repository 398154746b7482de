//! `[cluster]`.

use std::str::FromStr;
use std::time::Duration;

use super::Checker;
use crate::config::{ClusterConfig, PodCidrsFrom, RawCluster};

impl Checker {
    /// Everything is checked in either mode, so that a change of the mode finds no surprise.
    pub(super) fn cluster(&mut self, raw: &RawCluster) -> Option<Option<ClusterConfig>> {
        let pod_cidrs_from = self.parse("cluster.pod_cidrs_from", &raw.pod_cidrs_from);
        let seconds = raw.pod_cidrs_wait_seconds;
        let pod_cidrs_wait = self.range("cluster.pod_cidrs_wait_seconds", seconds, 1, 3600);
        // The kubelet gives up on a sandbox after two minutes.
        let pod_wait = self.range("cluster.pod_wait_seconds", raw.pod_wait_seconds, 1, 100);
        let kubeconfig = self.file("cluster.kubeconfig", &raw.kubeconfig);
        let cni_conf_dir = self.file("cluster.cni_conf_dir", &raw.cni_conf_dir);
        let cni_bin_dir = self.directory("cluster.cni_bin_dir", &raw.cni_bin_dir);
        let cni_plugin = self.file("cluster.cni_plugin", &raw.cni_plugin);
        let is_cluster = raw.mode == "cluster";
        self.require(
            is_cluster || raw.mode == "standalone",
            "cluster.mode",
            || format!("{:?} is none of standalone, cluster", raw.mode),
        );
        let cluster = ClusterConfig {
            kubeconfig,
            pod_cidrs_from: pod_cidrs_from?,
            pod_cidrs_wait: Duration::from_secs(pod_cidrs_wait),
            pod_wait: Duration::from_secs(pod_wait),
            cni_conf_dir,
            cni_bin_dir,
            cni_plugin,
            events: raw.events,
            policy_status: raw.policy_status,
        };
        Some(is_cluster.then_some(cluster))
    }
}

impl FromStr for PodCidrsFrom {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "node" => Ok(Self::Node),
            "node-or-config" => Ok(Self::NodeOrConfig),
            _ => Err(format!("{text:?} is none of node, node-or-config")),
        }
    }
}
