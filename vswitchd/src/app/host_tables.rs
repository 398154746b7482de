//! nftables tables of the host that stay as long as the daemon runs.

use std::sync::Arc;

use anyhow::{Context as _, Result};

use crate::config::Config;
use crate::host::{KeptMasquerade, MasqueradeSpec, NftTable, Shield};

/// What has to stay in the host's kernel as long as the daemon runs.
#[derive(Debug, Clone)]
pub(super) struct HostTables {
    /// Name of our tables.
    pub(super) table: NftTable,
    pub(super) shield: Shield,
    /// `None` where the configuration turns it off.
    pub(super) masquerade: Option<Arc<KeptMasquerade>>,
}

impl HostTables {
    pub(super) fn of(config: &Config) -> Result<Self> {
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
        Ok(Self {
            shield: Shield::new(table.clone()),
            masquerade,
            table,
        })
    }
}
