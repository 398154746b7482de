//! `vswitchd --cleanup`: undoes what the daemon changed in the kernel.

use anyhow::{Context as _, Result};

use super::open::stopped_store;
use super::{cluster, packet_path};
use crate::attach;
use crate::config::Config;
use crate::errors::chain;
use crate::host::{self, Leftovers};
use crate::store::StoreError;

/// Undoes what the daemon changed in the kernel. What was attached stays on record: the next
/// start makes it again or releases it. Blocks.
///
/// # Errors
/// A daemon is running; otherwise what could not be undone, all of it.
pub fn cleanup(config: &Config) -> Result<()> {
    let mut problems: Vec<String> = Vec::new();
    // Held to the end, so that no daemon starts meanwhile.
    let store = match stopped_store(config) {
        Ok(store) => store,
        Err(error @ StoreError::Locked { .. }) => {
            let message = "vswitchd is running: stop it first; nothing was removed";
            return Err(anyhow::Error::from(error).context(message));
        }
        Err(error) => {
            problems.push(chain(&error));
            None
        }
    };
    if let Some(store) = &store {
        match attach::made_taps(store) {
            Ok(taps) => problems.extend(taps.iter().filter_map(|tap| {
                let removed = crate::port::remove_tap(tap, None);
                removed.err().map(|error| chain(&error))
            })),
            Err(error) => problems.push(chain(&error)),
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
        problems.extend(files.remove().iter().map(|error| chain(error)));
    }
    let left = host::cleanup(&leftovers);
    problems.extend(left.iter().map(|error| chain(error)));
    anyhow::ensure!(
        problems.is_empty(),
        "could not undo everything:\n{}",
        problems.join("\n")
    );
    Ok(())
}
