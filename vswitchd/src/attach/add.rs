//! ADD: the pod is expected, then lease and record, pod and device, rules, port; undone in reverse
//! if a step fails.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use vswitch_api::{IfName, MacAddr, PortNo};

use super::error::{AttachError, of_problems};
use super::record::{DelegatedCall, Kind, Record, Said, State, without_pod};
use super::remove::Reached;
use super::service::{Attachments, Locked};
use super::wanted::{Delegation, Wanted, WantedAddresses};
use super::world::NetnsState;
use crate::ipam::{AddressPlan, PlannedIp, Route};
use crate::state::Attachment;

impl Attachments {
    /// Attaches; everything is in force and durable when this returns. Goes on if the caller
    /// goes away.
    ///
    /// # Errors
    /// [`AttachError`].
    pub async fn add(&self, wanted: Wanted) -> Result<Arc<Record>, AttachError> {
        let inner = Arc::clone(&self.inner);
        self.outlive(async move { inner.locked(&wanted.owner).await.add(&wanted).await })
            .await
    }
}

impl Locked {
    async fn add(&self, wanted: &Wanted) -> Result<Arc<Record>, AttachError> {
        let kept = self.inner.reserve.fill().await;
        kept.map_err(|source| AttachError::Descriptors { source })?;
        self.clear_the_way(wanted).await?;
        let is_found = self.find_device(wanted).await?;
        if let Some(pod) = &wanted.pod {
            let expected = self.inner.deps.pods.expect(pod).await;
            expected.map_err(|source| AttachError::Pod {
                doing: "wait for the pod",
                source,
            })?;
        }
        let record = self.lease_and_record(wanted, is_found).await?;
        match self.make(&record).await {
            Ok(attached) => Ok(attached),
            Err((reached, failed)) => {
                let problems = self.inner.teardown(&record, reached).await;
                Err(not_undone(failed, problems))
            }
        }
    }

    /// A second ADD is the caller's mistake, unless what the first one left is broken: an ADD
    /// that was cut short, or an interface that went with its namespace.
    async fn clear_the_way(&self, wanted: &Wanted) -> Result<(), AttachError> {
        let Some(old) = self.inner.ledger.get(&self.owner) else {
            return Ok(());
        };
        if old.state == State::Attached && self.is_still_there(&old).await {
            return Err(AttachError::Attached {
                owner: self.owner.clone(),
                netns: old.attachment.netns.clone(),
                network: old.attachment.network.clone(),
            });
        }
        tracing::warn!(
            container_id = self.owner.container_id, ifname = %self.owner.ifname,
            network = wanted.network, "undoing a broken attachment before ADD"
        );
        of_problems(
            "undoing a broken attachment",
            self.inner.teardown(&old, Reached::Port).await,
        )
    }

    async fn is_still_there(&self, old: &Record) -> bool {
        old.kind != Kind::Pod
            || (self.inner.probe(&old.attachment.netns) == NetnsState::Container
                && self.inner.deps.devices.check(old).await.is_ok())
    }

    /// Says whether the TAP of a VM or mirror is there already: then it is not ours to delete.
    async fn find_device(&self, wanted: &Wanted) -> Result<bool, AttachError> {
        if wanted.kind == Kind::Pod {
            return Ok(false);
        }
        let ifname = &wanted.owner.ifname;
        if self.inner.ledger.is_name_taken(&self.owner, ifname) {
            return Err(AttachError::NameTaken {
                ifname: ifname.clone(),
            });
        }
        let found = self.inner.deps.devices.find_tap(ifname).await;
        found.map_err(|source| AttachError::Device {
            doing: "look for the TAP",
            source,
        })
    }

    async fn lease_and_record(
        &self,
        wanted: &Wanted,
        is_found: bool,
    ) -> Result<Arc<Record>, AttachError> {
        let addresses = self.lease(&wanted.addresses).await?;
        match self.begin(wanted, addresses, is_found).await {
            Ok(record) => Ok(record),
            Err(failed) => {
                let undo = async || {
                    let undone = match &wanted.addresses {
                        WantedAddresses::None => Ok(()),
                        WantedAddresses::BuiltIn { .. } => {
                            self.inner.release_lease(&self.owner).await
                        }
                        WantedAddresses::Delegated(to) => self.inner.delegated_del(to).await,
                    };
                    undone.err().into_iter().collect()
                };
                Err(not_undone(failed, self.inner.reserve.undo(undo).await))
            }
        }
    }

    /// Gets the addresses. GC spares the lease of whoever holds the lock, which is this ADD.
    async fn lease(&self, wanted: &WantedAddresses) -> Result<AddressPlan, AttachError> {
        let (requested, routes, dns) = match wanted {
            WantedAddresses::None => return Ok(AddressPlan::default()),
            WantedAddresses::Delegated(Delegation { plugin, call }) => {
                let leased = self.inner.deps.delegate.add(plugin, call).await;
                return leased
                    .map(with_routes)
                    .map_err(|source| AttachError::Delegate {
                        owner: self.owner.clone(),
                        source,
                    });
            }
            WantedAddresses::BuiltIn {
                requested,
                routes,
                dns,
            } => (requested.clone(), routes.clone(), dns.clone()),
        };
        let owner = self.owner.clone();
        let addresses = self.inner.blocking(move |inner| {
            let leased = inner.deps.ipam.allocate(&owner, &requested, inner.now());
            leased.map_err(|source| AttachError::Lease { owner, source })
        });
        let gateways = self.inner.deps.ipam.gateways();
        // The address alone, without its subnet: pods reach each other through the switch, and
        // a chained plugin must not take the neighbours for this container (portmap with `snat`
        // masquerades connections from all of the subnet it sees here).
        let ips = addresses.await?.into_iter().map(|address| PlannedIp {
            address: IpNet::from(address.addr()),
            gateway: gateway_for(&gateways, address.addr().is_ipv4()),
        });
        Ok(with_routes(AddressPlan {
            ips: ips.collect(),
            routes,
            dns,
        }))
    }

    /// Gives it a number, and puts it on record.
    async fn begin(
        &self,
        wanted: &Wanted,
        addresses: AddressPlan,
        is_found: bool,
    ) -> Result<Arc<Record>, AttachError> {
        let mtu = wanted.mtu.unwrap_or(self.inner.settings.default_mtu);
        check_mtu(mtu, &addresses)?;
        let (owner, wanted) = (self.owner.clone(), wanted.clone());
        self.inner
            .blocking(move |inner| {
                let failed = |source| AttachError::Store {
                    owner: owner.clone(),
                    source,
                };
                let is_live = |no| inner.deps.ports.is_live(no);
                let number = inner.ledger.allocate_number(is_live).map_err(failed)?;
                let port_no = number.ok_or(AttachError::NoNumber)?;
                let devices = &inner.deps.devices;
                let device_of = || devices.host_ifname(&owner.container_id, &owner.ifname);
                let mac_of = || devices.container_mac(&owner.container_id, &owner.ifname);
                let made = Made {
                    port_no,
                    mtu,
                    device: match wanted.kind {
                        Kind::Pod => device_of(),
                        _ => owner.ifname.clone(),
                    },
                    mac: wanted.mac.unwrap_or_else(mac_of),
                };
                let begun = inner
                    .ledger
                    .begin(record(wanted, made, addresses, is_found));
                let begun = begun.map_err(failed).and_then(|begun| {
                    begun.ok_or_else(|| AttachError::NameTaken {
                        ifname: owner.ifname.clone(),
                    })
                });
                if begun.is_err() {
                    inner.ledger.release_number(port_no);
                }
                begun
            })
            .await
    }

    /// The steps behind the record; an error says how far they came.
    async fn make(&self, record: &Arc<Record>) -> Result<Arc<Record>, (Reached, AttachError)> {
        let inner = &self.inner;
        let deps = &inner.deps;
        let at_pod = |source| {
            let doing = "declare the pod";
            (Reached::Device, AttachError::Pod { doing, source })
        };
        let at_device = |source| {
            let doing = "create the interface";
            (Reached::Device, AttachError::Device { doing, source })
        };
        let at_port = |source| {
            let doing = "attach the port";
            (Reached::Port, AttachError::Port { doing, source })
        };
        // Side by side: one waits for the disk and the rules, the other for the kernel.
        let (published, created) =
            tokio::join!(inner.publish_pod(record), deps.devices.create(record));
        published.map_err(at_pod)?;
        created.map_err(at_device)?;
        let made = inner.ledger.note(record, State::Made);
        deps.ports.enforce(&made, false).await.map_err(at_port)?;
        let in_force = inner.ledger.note(&made, State::InForce);
        let offloads = deps.ports.forward(&in_force).await.map_err(at_port)?;
        inner.ledger.note_offloads(record.port_no(), offloads);
        let attached = inner.reach(&in_force, State::Attached).await;
        attached.map_err(|error| (Reached::Port, error))
    }
}

/// What an attachment gets here.
struct Made {
    port_no: PortNo,
    mtu: u16,
    device: IfName,
    mac: MacAddr,
}

fn record(wanted: Wanted, made: Made, plan: AddressPlan, is_found: bool) -> Record {
    let base = without_pod(wanted.kind, made.device, made.port_no);
    let delegation = match wanted.addresses {
        WantedAddresses::Delegated(delegation) => Some(delegation),
        _ => None,
    };
    let said = wanted.pod.as_ref().map(|pod| Said {
        uid: pod.uid.clone(),
        labels: pod.labels.clone().unwrap_or_default(),
    });
    let attachment = Attachment {
        container_id: wanted.owner.container_id,
        ifname: wanted.owner.ifname,
        network: wanted.network,
        netns: wanted.netns,
        mac: made.mac,
        addresses: plan.ips.iter().map(|ip| ip.address).collect(),
        mtu: made.mtu,
        pod: wanted.pod.map_or(base.pod, |pod| pod.key),
        host_ports: wanted.host_ports,
        delegated_ipam: delegation.as_ref().map(|to| to.plugin.clone()),
        ..base
    };
    let delegated = delegation.map(|delegation| DelegatedCall {
        config: delegation.call.config,
        args: delegation.call.args,
        path: delegation.call.path,
    });
    Record {
        state: State::Leased,
        plan,
        delegated,
        said,
        is_found,
        ..Record::new(wanted.kind, attachment)
    }
}

fn not_undone(failed: AttachError, problems: Vec<String>) -> AttachError {
    if problems.is_empty() {
        return failed;
    }
    AttachError::NotUndone {
        source: Box::new(failed),
        problems,
    }
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

/// Default gateway of a family among `gateways`.
fn gateway_for(gateways: &[IpAddr], is_ipv4: bool) -> Option<IpAddr> {
    let mut gateways = gateways.iter().copied();
    gateways.find(|gateway| gateway.is_ipv4() == is_ipv4)
}

fn check_mtu(mtu: u16, addresses: &AddressPlan) -> Result<(), AttachError> {
    let has_v6 = addresses.ips.iter().any(|ip| ip.address.addr().is_ipv6());
    if has_v6 && mtu < 1280 {
        return Err(AttachError::Mtu { mtu });
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
