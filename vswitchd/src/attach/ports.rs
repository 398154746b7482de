//! Ports of the running switch.

use std::sync::Arc;

use vswitch_api::{IfName, PortNo};

use super::record::{Kind, Record};
use super::world::{Ports, Step, StepError};
use crate::port::TapOffloads;
use crate::reconcile::PortAttachMode;
use crate::switch::{Device, GATEWAY_PORT, Switch};

/// The running switch.
#[derive(Debug, Clone)]
pub struct SwitchPorts {
    /// It.
    pub switch: Arc<Switch>,
}

/// A port that should forward and does not.
#[derive(Debug, thiserror::Error)]
enum NotForwarding {
    #[error("port {port} of {ifname} does not forward")]
    Pod { port: u32, ifname: IfName },
    #[error("the gateway port does not forward")]
    Gateway,
    #[error("the policies of the cluster are not known yet")]
    NotSynced,
}

impl Ports for SwitchPorts {
    fn enforce<'a>(&'a self, record: &'a Record, is_again: bool) -> Step<'a> {
        let mode = PortAttachMode {
            midstream: is_again,
        };
        Box::pin(async move {
            // A mirror receives what rules send it, and has none of its own.
            if !matches!(record.kind, Kind::Pod | Kind::Vm) {
                return Ok(());
            }
            let enforced = self.switch.enforce(&record.attachment, mode).await;
            enforced.map_err(StepError::new)
        })
    }

    fn forward<'a>(&'a self, record: &'a Record) -> Step<'a, Option<TapOffloads>> {
        let ifname = record.host_ifname().clone();
        let device = match record.kind {
            Kind::Pod => Device::Veth(ifname),
            Kind::Mirror => Device::Mirror(ifname),
            Kind::Vm | Kind::Gateway => Device::Tap(ifname),
        };
        Box::pin(async move {
            let opened = self.switch.forward(record.port_no(), device).await;
            opened.map_err(StepError::new)
        })
    }

    fn detach<'a>(&'a self, record: &'a Record) -> Step<'a> {
        Box::pin(async move {
            let detached = self.switch.detach(record.port_no()).await;
            detached.map_err(StepError::new)
        })
    }

    fn check<'a>(&'a self, record: &'a Record) -> Step<'a> {
        Box::pin(async move {
            if self.switch.is_forwarding(record.port_no()) {
                return Ok(());
            }
            Err(StepError::new(NotForwarding::Pod {
                port: record.port_no().0,
                ifname: record.host_ifname().clone(),
            }))
        })
    }

    fn ready(&self) -> Step<'_> {
        Box::pin(async {
            if !self.switch.reconcile().snapshot().is_synced {
                return Err(StepError::new(NotForwarding::NotSynced).retry_later());
            }
            if self.switch.is_forwarding(GATEWAY_PORT) {
                return Ok(());
            }
            Err(StepError::new(NotForwarding::Gateway).retry_later())
        })
    }

    fn is_live(&self, no: PortNo) -> bool {
        self.switch.workers().has_port(no)
    }
}
