//! Devices in the kernel: veth pairs into containers by netlink, TAPs, shields.

use std::collections::BTreeSet;

use vswitch_api::{IfName, MacAddr};

use super::record::{Kind, Record};
use super::world::{Devices, Step, StepError, blocking};
use crate::host::{self, Shield, VethSpec};
use crate::port::remove_tap;

/// The kernel's devices.
#[derive(Debug, Clone)]
pub struct KernelDevices {
    /// Keeps the host's stack away from pod ports.
    pub shield: Shield,
}

/// A name that something else has.
#[derive(Debug, thiserror::Error)]
#[error("there is already an interface {ifname}, and it is no TAP")]
struct NotTap {
    ifname: IfName,
}

/// The veth pair of an attachment; its routes are complete, so that none is derived.
fn veth_spec(record: &Record) -> VethSpec {
    let attachment = &record.attachment;
    let routes = record.plan.routes.iter();
    VethSpec {
        host_ifname: attachment.host_ifname.clone(),
        netns: attachment.netns.clone(),
        ifname: attachment.ifname.clone(),
        mac: attachment.mac,
        mtu: attachment.mtu,
        addresses: attachment.addresses.clone(),
        gateways: Vec::new(),
        routes: routes.map(|route| (route.dst, route.gw)).collect(),
    }
}

impl Devices for KernelDevices {
    fn host_ifname(&self, container_id: &str, ifname: &IfName) -> IfName {
        host::host_ifname(container_id, ifname)
    }

    fn container_mac(&self, container_id: &str, ifname: &IfName) -> MacAddr {
        host::container_mac(container_id, ifname)
    }

    fn find_tap<'a>(&'a self, ifname: &'a IfName) -> Step<'a, bool> {
        let ifname = ifname.clone();
        Box::pin(async move {
            let wanted = ifname.clone();
            match blocking(move || host::is_tap(&wanted)).await? {
                Some(false) => Err(StepError::new(NotTap { ifname }).refused()),
                found => Ok(found.is_some()),
            }
        })
    }

    fn create<'a>(&'a self, record: &'a Record) -> Step<'a> {
        Box::pin(async move {
            if record.kind != Kind::Pod {
                return Ok(());
            }
            let (spec, shield) = (veth_spec(record), self.shield.clone());
            blocking(move || host::create_veth(&spec, &shield)).await
        })
    }

    fn remove<'a>(&'a self, record: &'a Record) -> Step<'a> {
        let (ifname, shield) = (record.host_ifname().clone(), self.shield.clone());
        Box::pin(async move {
            match record.kind {
                Kind::Pod => blocking(move || host::delete_veth(&ifname, &shield)).await,
                Kind::Vm => blocking(move || remove_tap(&ifname, None).map(drop)).await,
                // It goes with the descriptor of its port; the gateway is never removed.
                Kind::Mirror | Kind::Gateway => Ok(()),
            }
        })
    }

    fn check<'a>(&'a self, record: &'a Record) -> Step<'a> {
        let spec = veth_spec(record);
        Box::pin(blocking(move || host::check_veth(&spec)))
    }

    fn present(&self) -> Step<'_, BTreeSet<IfName>> {
        Box::pin(async {
            let veths = blocking(|| host::list_host_veths(host::HOST_VETH_PREFIX)).await?;
            Ok(veths.into_iter().map(|veth| veth.ifname).collect())
        })
    }

    fn shield_only<'a>(&'a self, ifnames: &'a [IfName]) -> Step<'a> {
        let (shield, ifnames) = (self.shield.clone(), ifnames.to_vec());
        Box::pin(blocking(move || shield.replace(&ifnames)))
    }

    fn shield_also<'a>(&'a self, ifnames: &'a [IfName]) -> Step<'a> {
        let (shield, ifnames) = (self.shield.clone(), ifnames.to_vec());
        Box::pin(blocking(move || shield.add_all(&ifnames)))
    }

    fn shielded(&self) -> Step<'_, BTreeSet<IfName>> {
        let shield = self.shield.clone();
        Box::pin(blocking(move || shield.shielded()))
    }
}
