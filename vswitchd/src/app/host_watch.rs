//! Follows the host: its addresses, the MTU of ports, and whether our tables are still there.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use vswitch_api::IfName;

use crate::host::{
    HostEvent, HostWatcher, LinkEvent, Masquerade, MasqueradeSpec, NftError, NftTable, Shield,
};
use crate::supervise::{self, Beats, Ended};
use crate::switch::{GATEWAY_PORT, Switch};

/// How often the nftables tables are looked at: a `flush ruleset` of somebody else removes them.
const TABLES_EVERY: Duration = Duration::from_secs(15);

/// Pause before a failed netlink read is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What has to stay in the host's kernel as long as the daemon runs.
#[derive(Debug, Clone)]
pub(crate) struct HostTables {
    /// Name of our tables.
    pub(crate) table: NftTable,
    pub(crate) shield: Shield,
    /// `None` where the configuration turns it off.
    pub(crate) masquerade: Option<Arc<KeptMasquerade>>,
}

/// The masquerade with what it has to be.
#[derive(Debug)]
pub(crate) struct KeptMasquerade {
    masquerade: Masquerade,
    configured: MasqueradeSpec,
    /// Held over an installation, so that the rules are always those of the latest
    /// specification.
    spec: Mutex<MasqueradeSpec>,
}

impl KeptMasquerade {
    pub(crate) fn new(table: NftTable, spec: MasqueradeSpec) -> Self {
        Self {
            masquerade: Masquerade::new(table),
            configured: spec.clone(),
            spec: Mutex::new(spec),
        }
    }

    /// Installs the rules. Blocks.
    pub(crate) fn install(&self) -> Result<(), NftError> {
        self.masquerade.install(&self.spec())
    }

    /// Leaves alone what goes to these networks as well as to the configured ones. Blocks.
    pub(crate) fn learn(&self, networks: impl Iterator<Item = IpNet>) {
        let mut wanted = self.configured.clone();
        wanted.cluster_cidrs.extend(networks);
        let mut spec = self.spec();
        if *spec == wanted {
            return;
        }
        match self.masquerade.install(&wanted) {
            Ok(()) => *spec = wanted,
            Err(error) => tracing::error!(error = %error, "masquerade"),
        }
    }

    /// Installs the rules if they are gone. Blocks.
    fn repair(&self) -> Result<(), NftError> {
        let spec = self.spec();
        if self.masquerade.is_installed()? {
            return Ok(());
        }
        tracing::warn!("masquerade was gone; put back");
        self.masquerade.install(&spec)
    }

    /// The specification is replaced as a whole: a panic elsewhere leaves it whole.
    fn spec(&self) -> MutexGuard<'_, MasqueradeSpec> {
        self.spec.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the reconciler what changes in the host, until the daemon ends.
pub(crate) async fn follow_host(
    switch: Arc<Switch>,
    mut watcher: HostWatcher,
    beat: Beats,
) -> Ended {
    loop {
        match beat.wait(watcher.next()).await {
            Ok(HostEvent::Addresses(addresses)) => {
                switch.reconcile().set_node_addresses(addresses);
            }
            Ok(HostEvent::Link(link)) => note_link(&switch, &link),
            Err(error) => {
                tracing::warn!(error = %error, "reading host events failed; subscribing anew");
                tokio::time::sleep(RETRY).await;
                if let Err(error) = watcher.reopen() {
                    tracing::warn!(error = %error, "subscribing to host events failed");
                }
            }
        }
    }
}

fn note_link(switch: &Switch, link: &LinkEvent) {
    let ports = switch.workers().port_stats();
    let Some(port) = ports.iter().find(|port| port.ifname == link.ifname) else {
        return;
    };
    if link.gone {
        tracing::warn!(ifname = %link.ifname, port = port.port.0, "device of a port is gone");
        return;
    }
    let mtu = u16::try_from(link.mtu).unwrap_or(u16::MAX);
    switch.reconcile().set_port_mtu(port.port, mtu);
}

/// Puts our nftables tables back when somebody removed them, until the daemon ends.
pub(crate) async fn keep_tables(switch: Arc<Switch>, tables: HostTables, beat: Beats) -> Ended {
    let mut tick = tokio::time::interval(TABLES_EVERY);
    loop {
        beat.wait(tick.tick()).await;
        let (switch, tables) = (Arc::clone(&switch), tables.clone());
        supervise::blocking(move || repair_tables(&switch, &tables)).await;
    }
}

/// Installs what is missing. Blocks.
pub(crate) fn repair_tables(switch: &Switch, tables: &HostTables) {
    let wanted = shielded_ports(switch);
    let repaired = tables.shield.shielded().and_then(|present| {
        if present.is_superset(&wanted) {
            return Ok(());
        }
        tracing::warn!("shield of pod ports was gone; put back");
        tables
            .shield
            .replace(&wanted.iter().cloned().collect::<Vec<_>>())
    });
    if let Err(error) = repaired {
        tracing::error!(error = %error, "shield pod ports");
    }
    if let Some(masquerade) = &tables.masquerade
        && let Err(error) = masquerade.repair()
    {
        tracing::error!(error = %error, "masquerade");
    }
}

/// Host ends of pods: every port of theirs whose device is there.
fn shielded_ports(switch: &Switch) -> BTreeSet<IfName> {
    let snapshot = switch.reconcile().snapshot();
    let stats = switch.workers().port_stats();
    let present = stats.iter().filter(|port| port.port != GATEWAY_PORT);
    present
        .filter(|port| port.link != crate::port::LinkState::Gone)
        .filter(|port| {
            let attachment = snapshot.attachments.get(&port.port);
            attachment.is_some_and(|attachment| attachment.ifname != attachment.host_ifname)
        })
        .map(|port| port.ifname.clone())
        .collect()
}
