//! Netlink events of the host's links and addresses.
//!
//! A multicast socket reports changes; a second one answers the dumps that each report (or
//! a lost one) makes necessary. Must be used on a tokio runtime; the two connection tasks end with
//! the watcher. Read by the application, which tells ports about their links and the
//! policies about the node's addresses.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressScope;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use vswitch_api::IfName;

use super::NetlinkError;
use super::netlink::{self, Link, Session};
use crate::supervise::{Ended, Part, Supervisor, Task};

/// A link of the host, new, changed or gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkEvent {
    /// Its name.
    pub ifname: IfName,
    /// Its index.
    pub ifindex: u32,
    /// Whether it is up (IFF_UP).
    pub up: bool,
    /// Its MTU, bytes.
    pub mtu: u32,
    /// Whether it was deleted, renamed or moved to another namespace.
    pub gone: bool,
}

/// Something that changed in the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostEvent {
    /// A link.
    Link(LinkEvent),
    /// The addresses of the node, all of them, sorted.
    Addresses(Vec<IpAddr>),
}

/// Returns the addresses that are the node's own: those with global (or site) scope on any
/// interface, the gateway's included; sorted. Blocks.
///
/// # Errors
/// [`NetlinkError`].
pub fn node_addresses() -> Result<Vec<IpAddr>, NetlinkError> {
    netlink::in_host(async |host: Session| read_node_addresses(&host).await)
}

async fn read_node_addresses(host: &Session) -> Result<Vec<IpAddr>, NetlinkError> {
    let addresses = host.addresses(None).await?.into_iter();
    let own = addresses
        .filter(|(_, scope)| matches!(scope, AddressScope::Universe | AddressScope::Site))
        .map(|(address, _)| address.addr());
    Ok(own.collect::<BTreeSet<_>>().into_iter().collect())
}

/// Reports every change of the host's links and addresses, beginning with what is there.
pub struct HostWatcher {
    messages: Messages,
    session: Session,
    connections: Connections,
    supervisor: Supervisor,
    links: BTreeMap<u32, LinkEvent>,
    addresses: Option<Vec<IpAddr>>,
    pending: VecDeque<HostEvent>,
    /// What must be read again; stays set until it has been, so `next` can be cancelled.
    links_stale: bool,
    addresses_stale: bool,
}

impl std::fmt::Debug for HostWatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostWatcher")
            .field("links", &self.links)
            .finish_non_exhaustive()
    }
}

impl HostWatcher {
    /// Subscribes in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(supervisor: &Supervisor) -> Result<Self, NetlinkError> {
        let (messages, session, connections) = open(supervisor)?;
        Ok(Self {
            messages,
            session,
            connections,
            supervisor: supervisor.clone(),
            links: BTreeMap::new(),
            addresses: None,
            pending: VecDeque::new(),
            links_stale: true,
            addresses_stale: true,
        })
    }

    /// Subscribes anew, after [`Self::next`] has failed: a connection may have been closed. What
    /// changed meanwhile is found by comparing.
    ///
    /// # Errors
    /// [`NetlinkError::Open`]; the old subscription stays.
    pub fn reopen(&mut self) -> Result<(), NetlinkError> {
        (self.messages, self.session, self.connections) = open(&self.supervisor)?;
        self.links_stale = true;
        self.addresses_stale = true;
        Ok(())
    }

    /// Returns the next change; may be cancelled without losing one.
    ///
    /// # Errors
    /// [`NetlinkError`] if the kernel cannot be asked; calling again tries again.
    pub async fn next(&mut self) -> Result<HostEvent, NetlinkError> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(event);
            }
            self.refresh().await?;
            if self.pending.is_empty() {
                match self.messages.next().await {
                    Some(message) => self.note(message),
                    None => return Err(closed()),
                }
            }
        }
    }

    /// Reads again what is stale, and queues the differences.
    async fn refresh(&mut self) -> Result<(), NetlinkError> {
        if self.links_stale {
            let links = self.session.links().await?;
            self.links_stale = false;
            let present: BTreeSet<u32> = links.iter().map(|link| link.index).collect();
            let gone: Vec<u32> = self
                .links
                .keys()
                .copied()
                .filter(|index| !present.contains(index))
                .collect();
            gone.into_iter().for_each(|index| self.forget(index));
            links.iter().for_each(|link| self.observe(link));
        }
        if self.addresses_stale {
            let addresses = read_node_addresses(&self.session).await?;
            self.addresses_stale = false;
            if self.addresses.as_ref() != Some(&addresses) {
                self.addresses = Some(addresses.clone());
                self.pending.push_back(HostEvent::Addresses(addresses));
            }
        }
        Ok(())
    }

    fn note(&mut self, message: NetlinkMessage<RouteNetlinkMessage>) {
        match message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                if let Some(link) = netlink::read_link(&link) {
                    self.observe(&link);
                }
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
                self.forget(link.header.index);
                self.addresses_stale = true;
            }
            NetlinkPayload::InnerMessage(
                RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_),
            ) => self.addresses_stale = true,
            // The socket's buffer was full: reports are lost, so everything is read again.
            NetlinkPayload::Overrun(_) => {
                self.links_stale = true;
                self.addresses_stale = true;
            }
            _ => {}
        }
    }

    fn observe(&mut self, link: &Link) {
        let Ok(ifname) = link.ifname.parse() else {
            return;
        };
        let (ifindex, up, mtu) = (link.index, link.up, link.mtu);
        let event = LinkEvent {
            ifname,
            ifindex,
            up,
            mtu,
            gone: false,
        };
        match self.links.get(&ifindex) {
            Some(known) if *known == event => return,
            Some(known) if known.ifname != event.ifname => self.forget(ifindex),
            _ => {}
        }
        self.links.insert(ifindex, event.clone());
        self.pending.push_back(HostEvent::Link(event));
    }

    fn forget(&mut self, ifindex: u32) {
        if let Some(link) = self.links.remove(&ifindex) {
            self.pending.push_back(HostEvent::Link(LinkEvent {
                up: false,
                gone: true,
                ..link
            }));
        }
    }
}

type Messages = BoxStream<'static, NetlinkMessage<RouteNetlinkMessage>>;

/// Cancelled when they are dropped.
type Connections = [Task; 2];

/// Opens the connection that reports and the one that answers.
fn open(supervisor: &Supervisor) -> Result<(Messages, Session, Connections), NetlinkError> {
    let open = |source| NetlinkError::Open { source };
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
    ];
    let (reports, _, messages) = rtnetlink::new_multicast_connection(&groups).map_err(open)?;
    let (dumps, handle, _) = rtnetlink::new_connection().map_err(open)?;
    let connections = [
        serve(supervisor, Part::NetlinkReports, reports),
        serve(supervisor, Part::NetlinkDumps, dumps),
    ];
    let messages = messages.map(|(message, _)| message).boxed();
    Ok((messages, Session::new(handle), connections))
}

/// Serves a connection. Whoever uses one that was closed hears of it, and opens another.
fn serve(
    supervisor: &Supervisor,
    part: Part,
    connection: impl Future<Output = ()> + Send + 'static,
) -> Task {
    supervisor.task(part, "", |beat| async move {
        beat.wait(connection).await;
        Ended::AsTold
    })
}

fn closed() -> NetlinkError {
    let source = std::io::Error::from(std::io::ErrorKind::ConnectionAborted);
    NetlinkError::Request {
        operation: "receive",
        object: "link reports".to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::{in_new_netns, run};
    use super::*;

    /// Waits for the first event that `wanted` takes; the kernel reports much else besides.
    async fn wait_for<T>(watcher: &mut HostWatcher, wanted: impl Fn(&HostEvent) -> Option<T>) -> T {
        let found = tokio::time::timeout(Duration::from_secs(5), async {
            loop {
                if let Some(found) = wanted(&watcher.next().await.unwrap()) {
                    return found;
                }
            }
        });
        found.await.expect("the change is reported")
    }

    fn link<'a>(event: &'a HostEvent, name: &str) -> Option<&'a LinkEvent> {
        match event {
            HostEvent::Link(link) if link.ifname.as_str() == name => Some(link),
            _ => None,
        }
    }

    fn in_host_runtime(body: impl AsyncFnOnce() + Send) {
        in_new_netns(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(body());
        });
    }

    #[test]
    fn links_are_reported_up_with_their_mtu_down_renamed_and_gone() {
        in_host_runtime(async || {
            run("ip tuntap add d0 mode tap; ip link set d0 mtu 1300").unwrap();
            let mut watcher = HostWatcher::start(&Supervisor::default()).unwrap();
            let first = wait_for(&mut watcher, |e| link(e, "d0").cloned()).await;
            assert_eq!((first.up, first.mtu, first.gone), (false, 1300, false));
            run("ip link set d0 up").unwrap();
            wait_for(&mut watcher, |e| link(e, "d0").filter(|l| l.up).cloned()).await;
            run("ip link set d0 mtu 1200").unwrap();
            wait_for(&mut watcher, |e| {
                link(e, "d0").filter(|l| l.mtu == 1200).cloned()
            })
            .await;
            run("ip link set d0 down; ip link set d0 name d1").unwrap();
            wait_for(&mut watcher, |e| link(e, "d0").filter(|l| l.gone).cloned()).await;
            wait_for(&mut watcher, |e| link(e, "d1").filter(|l| !l.gone).cloned()).await;
            run("ip link del d1").unwrap();
            let last = wait_for(&mut watcher, |e| link(e, "d1").cloned()).await;
            assert_eq!(
                (last.up, last.gone, last.ifindex),
                (false, true, first.ifindex)
            );
        });
    }

    #[test]
    fn node_addresses_are_those_of_global_scope_and_are_followed() {
        in_host_runtime(async || {
            run(
                "ip tuntap add d0 mode tap; ip link set d0 up; ip addr add 192.0.2.7/24 dev d0
                 ip addr add 169.254.7.7/16 scope link dev d0",
            )
            .unwrap();
            let addresses = |event: &HostEvent| match event {
                HostEvent::Addresses(addresses) => Some(addresses.clone()),
                HostEvent::Link(_) => None,
            };
            let one: Vec<IpAddr> = vec!["192.0.2.7".parse().unwrap()];
            assert_eq!(node_addresses().unwrap(), one);
            let mut watcher = HostWatcher::start(&Supervisor::default()).unwrap();
            assert_eq!(wait_for(&mut watcher, addresses).await, one);
            run("ip addr add fd00::7/64 dev d0 nodad").unwrap();
            let two = [one.clone(), vec!["fd00::7".parse().unwrap()]].concat();
            assert_eq!(wait_for(&mut watcher, addresses).await, two);
            run("ip link del d0").unwrap();
            let left = wait_for(&mut watcher, |e| addresses(e).filter(Vec::is_empty)).await;
            assert!(left.is_empty());
        });
    }

    #[test]
    fn closed_connection_is_opened_again_and_what_changed_meanwhile_is_reported() {
        in_host_runtime(async || {
            run("ip tuntap add d0 mode tap; ip tuntap add d1 mode tap").unwrap();
            let mut watcher = HostWatcher::start(&Supervisor::default()).unwrap();
            for name in ["d0", "d1"] {
                wait_for(&mut watcher, |e| link(e, name).cloned()).await;
            }
            // As if both had ended: what there is of them is dropped.
            let (_, _, others) = open(&Supervisor::default()).unwrap();
            drop(std::mem::replace(&mut watcher.connections, others));
            let closed = async {
                loop {
                    if let Err(error) = watcher.next().await {
                        return error;
                    }
                }
            };
            tokio::time::timeout(Duration::from_secs(5), closed)
                .await
                .expect("a closed connection is an error");
            run("ip link del d0; ip link set d1 mtu 1200").unwrap();
            watcher.reopen().unwrap();
            wait_for(&mut watcher, |e| link(e, "d0").filter(|l| l.gone).cloned()).await;
            run("ip link set d1 up").unwrap();
            wait_for(&mut watcher, |e| {
                link(e, "d1").filter(|l| l.up && l.mtu == 1200).cloned()
            })
            .await;
        });
    }

    #[test]
    fn link_that_vanished_unreported_is_found_gone_when_reports_are_lost() {
        in_host_runtime(async || {
            let mut watcher = HostWatcher::start(&Supervisor::default()).unwrap();
            let ghost = LinkEvent {
                ifname: "ghost".parse().unwrap(),
                ifindex: 4711,
                up: true,
                mtu: 1500,
                gone: false,
            };
            watcher.links.insert(4711, ghost);
            let overrun = NetlinkPayload::Overrun(Vec::new());
            watcher.note(NetlinkMessage::new(Default::default(), overrun));
            wait_for(&mut watcher, |e| {
                link(e, "ghost").filter(|l| l.gone).cloned()
            })
            .await;
        });
    }
}
