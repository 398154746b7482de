//! Ports that operators make over REST: TAPs for virtual machines and for mirrors.
//!
//! A VM port is an attachment like a pod's, over a TAP with offloads instead of a veth. Both
//! kinds are kept in the store and made again at start.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use serde::{Deserialize, Serialize};
use vswitch_api::{IfName, PortNo};

use super::{Switch, SwitchError};
use crate::port::{PortError, TapConfig, open_mirror, open_tap, remove_tap};
use crate::reconcile::PortAttachMode;
use crate::state::Attachment;
use crate::store::{Bucket, Store, StoreError, Write};

/// First number of VM and mirror ports, above those of pods.
const FIRST: u32 = 1_000_000;

/// A port made over REST.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum ExtraPort {
    /// A virtual machine's.
    Vm {
        /// As if CNI ADD had made it; `ifname` and `host_ifname` are the TAP.
        attachment: Box<Attachment>,
    },
    /// A mirror.
    Mirror {
        /// The TAP.
        ifname: IfName,
        /// Its number.
        port_no: PortNo,
    },
}

impl ExtraPort {
    /// Returns the TAP's name.
    #[must_use]
    pub const fn ifname(&self) -> &IfName {
        match self {
            Self::Vm { attachment } => &attachment.host_ifname,
            Self::Mirror { ifname, .. } => ifname,
        }
    }

    /// Returns the port's number.
    #[must_use]
    pub const fn port_no(&self) -> PortNo {
        match self {
            Self::Vm { attachment } => attachment.port_no,
            Self::Mirror { port_no, .. } => *port_no,
        }
    }
}

/// A port that could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum ExtraPortError {
    /// The name is taken by a port of the switch.
    #[error("there is already a port {ifname}")]
    Exists {
        /// The name.
        ifname: IfName,
    },
    /// No such port.
    #[error("there is no VM or mirror port {ifname:?}")]
    NotFound {
        /// As asked for.
        ifname: String,
    },
    /// It could not be attached or detached.
    #[error("port {ifname}")]
    Switch {
        /// The name.
        ifname: IfName,
        /// Cause.
        source: SwitchError,
    },
    /// The TAP could not be deleted.
    #[error("delete port {ifname}")]
    Delete {
        /// The name.
        ifname: IfName,
        /// Cause.
        source: PortError,
    },
    /// It could not be kept.
    #[error("store port {ifname}")]
    Store {
        /// The name.
        ifname: IfName,
        /// Cause.
        source: StoreError,
    },
}

/// The ports by the name of their TAP.
#[derive(Debug, Default)]
pub(super) struct ExtraPorts {
    ports: BTreeMap<IfName, ExtraPort>,
}

impl ExtraPorts {
    /// Reads the ports from the store; a record that is not understood is logged and left out.
    pub(super) fn load(store: &dyn Store) -> Result<Self, StoreError> {
        let mut ports = BTreeMap::new();
        for (key, value) in store.scan(Bucket::Ports, b"")? {
            match serde_json::from_slice::<ExtraPort>(&value) {
                Ok(port) => {
                    ports.insert(port.ifname().clone(), port);
                }
                Err(error) => {
                    let port = String::from_utf8_lossy(&key).into_owned();
                    tracing::error!(port, %error, "stored port is not understood");
                }
            }
        }
        Ok(Self { ports })
    }

    fn free_number(&self) -> PortNo {
        let highest = self.ports.values().map(|port| port.port_no().0).max();
        PortNo(highest.map_or(FIRST, |highest| highest + 1))
    }
}

impl Switch {
    /// Returns the VM and mirror ports.
    pub async fn extra_ports(&self) -> Vec<ExtraPort> {
        self.extra.lock().await.ports.values().cloned().collect()
    }

    /// Makes a port: `describe` gets its number; it is durable and forwards when this returns.
    ///
    /// # Errors
    /// [`ExtraPortError`]; nothing of the port is left then.
    pub async fn add_extra_port(
        self: &Arc<Self>,
        ifname: &IfName,
        describe: impl FnOnce(PortNo) -> ExtraPort,
    ) -> Result<ExtraPort, ExtraPortError> {
        let mut extra = self.extra.lock().await;
        let is_taken = extra.ports.contains_key(ifname)
            || self
                .workers
                .port_stats()
                .iter()
                .any(|port| port.ifname == *ifname);
        if is_taken {
            return Err(ExtraPortError::Exists {
                ifname: ifname.clone(),
            });
        }
        let port = describe(extra.free_number());
        let record = serde_json::to_vec(&port).expect("a port is plain data");
        let put = Write::Put(Bucket::Ports, ifname.as_str().into(), record);
        self.commit_port(ifname, put).await?;
        if let Err(error) = self.open_extra_port(&port, PortAttachMode::default()).await {
            let undo = Write::Delete(Bucket::Ports, ifname.as_str().into());
            self.commit_port(ifname, undo).await?;
            return Err(error);
        }
        extra.ports.insert(ifname.clone(), port.clone());
        Ok(port)
    }

    /// Removes a port and its TAP; returns what it was.
    ///
    /// # Errors
    /// [`ExtraPortError`].
    pub async fn remove_extra_port(
        self: &Arc<Self>,
        ifname: &str,
    ) -> Result<ExtraPort, ExtraPortError> {
        let not_found = || ExtraPortError::NotFound {
            ifname: ifname.to_owned(),
        };
        let name: IfName = ifname.parse().map_err(|_| not_found())?;
        let mut extra = self.extra.lock().await;
        let port = extra.ports.get(&name).cloned().ok_or_else(not_found)?;
        self.detach(port.port_no())
            .await
            .map_err(|source| ExtraPortError::Switch {
                ifname: name.clone(),
                source,
            })?;
        if matches!(port, ExtraPort::Vm { .. }) {
            remove_tap(&name, None).map_err(|source| ExtraPortError::Delete {
                ifname: name.clone(),
                source,
            })?;
        }
        self.commit_port(&name, Write::Delete(Bucket::Ports, name.as_str().into()))
            .await?;
        extra.ports.remove(&name);
        Ok(port)
    }

    /// Makes the stored ports again after a start; returns what went wrong with some of them.
    pub async fn reopen_extra_ports(self: &Arc<Self>) -> Vec<ExtraPortError> {
        let mut problems = Vec::new();
        for port in self.extra_ports().await {
            let mode = PortAttachMode { midstream: true };
            problems.extend(self.open_extra_port(&port, mode).await.err());
        }
        problems
    }

    async fn open_extra_port(
        self: &Arc<Self>,
        port: &ExtraPort,
        mode: PortAttachMode,
    ) -> Result<(), ExtraPortError> {
        let ifname = port.ifname().clone();
        let opened = match port {
            ExtraPort::Vm { attachment } => {
                let no = attachment.port_no;
                // The guest has the attachment's MAC; the host's end must have another.
                let tap = TapConfig {
                    ifname: ifname.clone(),
                    mac: None,
                    persistent: true,
                };
                let switch = Arc::clone(self);
                let open = move || {
                    let tap = open_tap(no, &tap, None)?;
                    let mut offloads = switch
                        .tap_offloads
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner);
                    offloads.insert(no, tap.offloads);
                    Ok(tap.port)
                };
                self.attach(attachment, mode, open).await
            }
            ExtraPort::Mirror { port_no, .. } => {
                let (no, ifname) = (*port_no, ifname.clone());
                self.hand_over(no, move || open_mirror(no, &ifname, None))
                    .await
            }
        };
        opened.map_err(|source| ExtraPortError::Switch { ifname, source })
    }

    async fn commit_port(&self, ifname: &IfName, write: Write) -> Result<(), ExtraPortError> {
        let store = Arc::clone(&self.store);
        let commit = tokio::task::spawn_blocking(move || store.commit(vec![write]));
        let stopping = |_| ExtraPortError::Switch {
            ifname: ifname.clone(),
            source: SwitchError::Stopping,
        };
        let committed = commit.await.map_err(stopping)?;
        committed.map_err(|source| ExtraPortError::Store {
            ifname: ifname.clone(),
            source,
        })
    }
}
