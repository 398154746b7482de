//! Handles events of the host: changed addresses, removed devices.

use std::sync::Arc;
use std::time::Duration;

use super::Switch;
use crate::errors;
use crate::host::{HostEvent, HostWatcher, LinkEvent};
use crate::supervise::{Beats, Ended};

/// Pause before a failed netlink read is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Tells the reconciler what changes in the host, until the daemon ends.
pub async fn follow_host(switch: Arc<Switch>, mut watcher: HostWatcher, beat: Beats) -> Ended {
    loop {
        match beat.wait(watcher.next()).await {
            Ok(event) => {
                match event {
                    HostEvent::Addresses(addresses) => {
                        switch.reconcile().set_node_addresses(addresses);
                    }
                    HostEvent::Link(link) => note_link(&switch, &link),
                }
                // One at a time: what changes meanwhile waits with the kernel. An error means
                // that the reconciler has ended, and with it the process.
                let _ended = beat.wait(switch.reconcile().wait_until_in_force()).await;
            }
            Err(error) => {
                let error = errors::chain(&error);
                tracing::warn!(error, "reading host events failed; subscribing anew");
                beat.wait(tokio::time::sleep(RETRY)).await;
                if let Err(error) = watcher.reopen() {
                    let error = errors::chain(&error);
                    tracing::warn!(error, "subscribing to host events failed");
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
