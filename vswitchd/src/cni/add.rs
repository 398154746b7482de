//! ADD: the pod is expected, then lease, record, pod, interface, port; undone in reverse if a
//! step fails.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::Value;
use vswitch_api::cni::{CniCall, CniCode, CniFailure};

use super::netconf::NetConf;
use super::records::{AttachmentRecord, DelegatedCall};
use super::service::{Locked, gateway_for};
use super::teardown::Reached;
use super::world::{AttachHost, NetnsState, PodDirectory, PodIdentity, SwitchPorts};
use super::{failure, identity, records, result};
use crate::ipam::{AddressPlan, PlannedIp, Route};
use crate::state::Attachment;

/// What the call asks for, checked as far as that goes without changing anything.
struct Plan {
    conf: NetConf,
    identity: PodIdentity,
    netns: PathBuf,
    delegated: Option<DelegatedCall>,
}

impl<H: AttachHost, P: SwitchPorts, D: PodDirectory> Locked<H, P, D> {
    pub(super) async fn add(&self, call: &CniCall) -> Result<Value, CniFailure> {
        let plan = self.plan(call)?;
        self.clear_the_way(&plan).await?;
        let expected = self.inner.deps.pods.expect(&plan.identity).await;
        expected
            .map_err(|error| failure::of_step(CniCode::PodFailed, "wait for the pod", &error))?;
        let mut record = self.lease_and_record(call, &plan).await?;
        if let Err((reached, failed)) = self.attach(&mut record, &plan.identity).await {
            let problems = self.inner.teardown(&record, reached).await;
            return Err(with_rollback(failed, &problems));
        }
        Ok(result::render(
            call.version(),
            &record,
            plan.conf.prev_result.as_ref(),
        ))
    }

    fn plan(&self, call: &CniCall) -> Result<Plan, CniFailure> {
        let args = identity::parse_args(call.args.as_deref())?;
        let conf = NetConf::parse(&call.config, &args)?;
        let settings = &self.inner.settings;
        let namespace = conf
            .default_namespace
            .as_ref()
            .unwrap_or(&settings.default_namespace);
        let identity = identity::identify(call, &args, namespace)?;
        let netns = PathBuf::from(call.netns.clone().unwrap_or_default());
        let bad_netns = |problem: &str| {
            let msg = format!(
                "environment variable CNI_NETNS: {} {problem}",
                netns.display()
            );
            CniFailure::new(CniCode::InvalidEnvironment, msg)
        };
        match self.inner.probe(&netns) {
            NetnsState::Container => {}
            NetnsState::Host => return Err(bad_netns("is the network namespace of the host")),
            NetnsState::NotNetns => return Err(bad_netns("is not a network namespace")),
            NetnsState::Missing => return Err(bad_netns("does not exist")),
        }
        let delegated = conf.delegated_ipam.is_some().then(|| DelegatedCall {
            config: call.config.clone(),
            args: call.args.clone(),
            path: call.path.clone(),
        });
        Ok(Plan {
            conf,
            identity,
            netns,
            delegated,
        })
    }

    /// A second ADD is the runtime's mistake, unless what the first one left is broken: an
    /// ADD that a crash cut short, or an interface that went with its namespace.
    async fn clear_the_way(&self, plan: &Plan) -> Result<(), CniFailure> {
        let Some(old) = self.record().await? else {
            return Ok(());
        };
        if old.completed && self.is_still_there(&old).await {
            let msg = format!(
                "interface {} of container {} is attached already; DEL comes before another ADD",
                self.owner.ifname, self.owner.container_id
            );
            let details = format!(
                "attached in {} to {}",
                old.attachment.netns.display(),
                old.attachment.network
            );
            return Err(CniFailure::new(CniCode::AlreadyAttached, msg).with_details(details));
        }
        tracing::warn!(
            container_id = self.owner.container_id, ifname = %self.owner.ifname,
            network = plan.conf.network, "undoing a broken attachment before ADD"
        );
        failure::of_problems(
            "undoing a broken attachment",
            &self.inner.teardown(&old, Reached::Port).await,
        )
    }

    async fn is_still_there(&self, old: &AttachmentRecord) -> bool {
        let host = &self.inner.deps.host;
        self.inner.probe(&old.attachment.netns) == NetnsState::Container
            && host
                .check_interface(&old.attachment, &old.gateways(), &old.plan.routes)
                .await
                .is_ok()
    }

    async fn lease_and_record(
        &self,
        call: &CniCall,
        plan: &Plan,
    ) -> Result<AttachmentRecord, CniFailure> {
        match &plan.conf.delegated_ipam {
            Some(plugin) => {
                let addresses = self.inner.deps.delegate.add(plugin, call).await;
                let addresses = with_routes(addresses.map_err(failure::of_delegate)?);
                match self.write_record(plan, addresses).await {
                    Ok(record) => Ok(record),
                    Err(failed) => {
                        let undone = self.inner.delegated_del(plugin, call).await;
                        Err(with_rollback(
                            failed,
                            &undone.err().into_iter().collect::<Vec<_>>(),
                        ))
                    }
                }
            }
            None => {
                // GC must not take a lease for a lost one before its record is written.
                let _gate = self.inner.lease_gate.read().await;
                let addresses = self.built_in_lease(&plan.conf).await?;
                match self.write_record(plan, addresses).await {
                    Ok(record) => Ok(record),
                    Err(failed) => {
                        let undone = self.inner.release_lease(&self.owner).await;
                        Err(with_rollback(
                            failed,
                            &undone.err().into_iter().collect::<Vec<_>>(),
                        ))
                    }
                }
            }
        }
    }

    async fn built_in_lease(&self, conf: &NetConf) -> Result<AddressPlan, CniFailure> {
        let (owner, requested) = (self.owner.clone(), conf.requested_ips.clone());
        let addresses = self.inner.blocking(move |inner| {
            let leased = inner.deps.ipam.allocate(&owner, &requested, inner.now());
            leased.map_err(|error| failure::of_ipam(&error))
        });
        let gateways = self.inner.deps.ipam.gateways();
        // The address alone, without its subnet: pods reach each other through the switch, and
        // a chained plugin must not take the neighbours for this container (portmap with `snat`
        // masquerades connections from all of the subnet it sees here).
        let ips = addresses.await?.into_iter().map(|address| PlannedIp {
            address: IpNet::from(address.addr()),
            gateway: gateway_for(&gateways, address.addr().is_ipv4()),
        });
        let plan = AddressPlan {
            ips: ips.collect(),
            routes: conf.routes.clone(),
            dns: conf.dns.clone(),
        };
        Ok(with_routes(plan))
    }

    async fn write_record(
        &self,
        plan: &Plan,
        addresses: AddressPlan,
    ) -> Result<AttachmentRecord, CniFailure> {
        let mtu = plan.conf.mtu.unwrap_or(self.inner.settings.default_mtu);
        check_mtu(mtu, &addresses)?;
        let host = &self.inner.deps.host;
        let own_mac = || host.container_mac(&self.owner.container_id, &self.owner.ifname);
        let port_no = self.inner.blocking(|inner| {
            inner
                .numbers
                .allocate()
                .map_err(|error| failure::of_store(&error))
        });
        let port_no = port_no.await?.ok_or_else(|| {
            CniFailure::new(
                CniCode::TryAgainLater,
                "all port numbers of the switch are in use",
            )
        })?;
        let attachment = Attachment {
            container_id: self.owner.container_id.clone(),
            ifname: self.owner.ifname.clone(),
            network: plan.conf.network.clone(),
            netns: plan.netns.clone(),
            host_ifname: host.host_ifname(&self.owner.container_id, &self.owner.ifname),
            port_no,
            mac: plan.conf.requested_mac.unwrap_or_else(own_mac),
            addresses: addresses.ips.iter().map(|ip| ip.address).collect(),
            mtu,
            pod: plan.identity.key.clone(),
            delegated_ipam: plan.conf.delegated_ipam.clone(),
            host_ports: plan.conf.host_ports.clone(),
        };
        let delegated = plan.delegated.clone();
        let record = AttachmentRecord {
            attachment,
            completed: false,
            plan: addresses,
            delegated,
        };
        let written = self.put_record(&record).await;
        if written.is_err() {
            self.inner.numbers.release(port_no);
        }
        written.map(|()| record)
    }

    /// The steps behind the record; an error says how far they came.
    async fn attach(
        &self,
        record: &mut AttachmentRecord,
        identity: &PodIdentity,
    ) -> Result<(), (Reached, CniFailure)> {
        let deps = &self.inner.deps;
        let failed =
            |reached, code, doing| move |error| (reached, failure::of_step(code, doing, &error));
        deps.pods
            .declare(&record.attachment, identity)
            .await
            .map_err(failed(Reached::Pod, CniCode::PodFailed, "declare the pod"))?;
        deps.host
            .create_interface(&record.attachment, &record.gateways(), &record.plan.routes)
            .await
            .map_err(failed(
                Reached::Interface,
                CniCode::InterfaceFailed,
                "create the interface",
            ))?;
        deps.ports.attach(&record.attachment).await.map_err(failed(
            Reached::Port,
            CniCode::PortFailed,
            "attach the port",
        ))?;
        record.completed = true;
        self.put_record(record)
            .await
            .map_err(|error| (Reached::Port, error))
    }

    async fn put_record(&self, record: &AttachmentRecord) -> Result<(), CniFailure> {
        let record = record.clone();
        let put = move |inner: &super::service::Inner<H, P, D>| {
            records::put(&inner.deps.store, &record).map_err(|error| failure::of_store(&error))
        };
        self.inner.blocking(put).await
    }

    pub(super) async fn record(&self) -> Result<Option<AttachmentRecord>, CniFailure> {
        let owner = self.owner.clone();
        let get = move |inner: &super::service::Inner<H, P, D>| {
            records::get(&inner.deps.store, &owner).map_err(|error| failure::of_store(&error))
        };
        self.inner.blocking(get).await
    }
}

fn with_rollback(mut failed: CniFailure, problems: &[String]) -> CniFailure {
    if !problems.is_empty() {
        let joint = if failed.details.is_empty() { "" } else { "; " };
        failed.details.push_str(&format!(
            "{joint}undoing it failed too: {}",
            problems.join("; ")
        ));
    }
    failed
}

/// Completes the routes. Without any, an interface gets the default route of each family
/// that has a gateway: the switch is the way to everything. A route without a next hop goes
/// over the gateway of its family.
fn with_routes(mut plan: AddressPlan) -> AddressPlan {
    let gateways: Vec<IpAddr> = plan.ips.iter().filter_map(|ip| ip.gateway).collect();
    if plan.routes.is_empty() {
        plan.routes = gateways.iter().copied().map(default_route).collect();
    }
    for route in &mut plan.routes {
        route.gw = route
            .gw
            .or_else(|| gateway_for(&gateways, route.dst.addr().is_ipv4()));
    }
    plan
}

/// RFC 8200 §5: IPv6 needs links of 1280 bytes; the kernel would refuse the address without
/// saying why.
fn check_mtu(mtu: u16, addresses: &AddressPlan) -> Result<(), CniFailure> {
    let has_v6 = addresses.ips.iter().any(|ip| ip.address.addr().is_ipv6());
    if has_v6 && mtu < 1280 {
        let msg = format!("configuration key mtu: {mtu} is below 1280, which IPv6 needs");
        return Err(CniFailure::new(CniCode::InvalidConfig, msg));
    }
    Ok(())
}

fn default_route(gateway: IpAddr) -> Route {
    let dst = match gateway {
        IpAddr::V4(_) => IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
        IpAddr::V6(_) => IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
    };
    Route {
        dst,
        gw: Some(gateway),
        mtu: None,
        priority: None,
    }
}
