//! The parts of the daemon that policies and Services pass through, and what each takes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use vswitch_api::{MacAddr, PortNo};
use vswitch_datapath::conntrack::ConntrackConfig;
use vswitch_datapath::packet::Frame;
use vswitch_datapath::{Datapath, DatapathConfig, Outputs, Timestamp, Verdict};
use vswitchd::config::Deny;
use vswitchd::reconcile::{
    GatewayPort, PortAttachMode, ReconcileConfig, ReconcileHandle, Reconciler,
};
use vswitchd::simulate::{Packet, Protocol, first_frame};
use vswitchd::state::{ClusterChange, EndpointSliceRecord, PolicyRecord};
use vswitchd::supervise::Supervisor;

use crate::cluster::{self, LOCAL_PODS, NAMESPACES, PODS};
use crate::times::Times;

/// Frames that a worker takes from a port at once.
const BATCH: usize = 64;
pub const GATEWAY: PortNo = PortNo(1);
pub const GATEWAY_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

/// The parts of the daemon that policies pass through.
#[derive(Debug)]
pub struct Node {
    pub datapath: Arc<Datapath>,
    pub handle: ReconcileHandle,
    runtime: tokio::runtime::Runtime,
}

impl Node {
    /// Starts them without a FlowCache: every packet is translated.
    ///
    /// # Errors
    /// Fails if there are no threads.
    pub fn start() -> Result<Self> {
        Self::with_cache(0)
    }

    /// Starts them with a FlowCache of that many entries for each engine.
    ///
    /// # Errors
    /// Fails if there are no threads.
    pub fn with_cache(flow_cache_entries: usize) -> Result<Self> {
        let datapath = Datapath::new(DatapathConfig {
            conntrack: ConntrackConfig::default(),
            flow_cache_entries,
        });
        let gateway = GatewayPort {
            port_no: GATEWAY,
            name: "vsw0".to_owned(),
            mac: GATEWAY_MAC,
            addresses: vec!["10.0.0.1".parse()?],
            mtu: 1450,
        };
        let (handle, _thread) = Reconciler::start(
            Arc::clone(&datapath),
            ReconcileConfig {
                node_name: cluster::NODE.to_owned(),
                gateway,
                pod_cidrs: vec!["10.0.0.0/24".parse()?],
                deny: Deny::Drop,
            },
            &Supervisor::default(),
        )?;
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let node = Self {
            datapath,
            handle,
            runtime,
        };
        node.wait_until_in_force()?;
        Ok(node)
    }

    pub fn wait_until_in_force(&self) -> Result<()> {
        self.runtime.block_on(self.handle.wait_until_in_force())?;
        Ok(())
    }

    /// Makes a change; returns the time until it is in force.
    pub fn timed(&self, change: impl FnOnce(&ReconcileHandle)) -> Result<Duration> {
        let start = Instant::now();
        change(&self.handle);
        self.wait_until_in_force()?;
        Ok(start.elapsed())
    }

    /// Brings the cluster with so many policies into force.
    pub fn load(&self, policies: usize) -> Result<Duration> {
        let mut changes: Vec<ClusterChange> = (0..NAMESPACES).map(cluster::namespace).collect();
        changes.extend((0..PODS).map(|number| ClusterChange::Pod(cluster::pod(number, 0))));
        changes.extend((0..policies).map(|number| ClusterChange::Policy(cluster::policy(number))));
        changes.extend((0..cluster::CLUSTER_POLICIES).map(cluster::cluster_policy));
        self.timed(|handle| {
            handle.cluster(changes);
            for local in 0..LOCAL_PODS {
                let attachment = cluster::attachment(local, cluster::local_pod(local));
                handle.attach(attachment, PortAttachMode::default());
            }
            handle.cluster_synced();
        })
    }

    /// A label of a pod in a namespace of this node changes, every tenth time a local pod's.
    pub fn relabel(&self, changes: usize) -> Result<Times> {
        let one = |index: usize| {
            let number = match index % 10 {
                0 => cluster::local_pod(index / 10 % LOCAL_PODS),
                _ => index * 7 % (PODS / 10),
            };
            let change = ClusterChange::Pod(cluster::pod(number, 1 + index));
            self.timed(|handle| handle.cluster(vec![change]))
        };
        (0..changes).map(one).collect::<Result<_>>().map(Times::new)
    }

    /// A pod comes, every tenth time one of this node.
    pub fn new_pods(&self, changes: usize) -> Result<Times> {
        let one = |index: usize| {
            let number = PODS + index;
            let change = ClusterChange::Pod(cluster::pod(number, 0));
            let attachment = index
                .is_multiple_of(10)
                .then(|| cluster::attachment(LOCAL_PODS + index / 10, number));
            self.timed(|handle| {
                handle.cluster(vec![change]);
                if let Some(attachment) = attachment {
                    handle.attach(attachment, PortAttachMode::default());
                }
            })
        };
        (0..changes).map(one).collect::<Result<_>>().map(Times::new)
    }

    /// Brings Services with their endpoints into force.
    pub fn load_services(&self, services: usize) -> Result<Duration> {
        let changes = (0..services).flat_map(|number| {
            let service = ClusterChange::Service(cluster::service(number));
            let slice = cluster::slice(number, cluster::ENDPOINTS_EACH);
            [service, ClusterChange::EndpointSlice(slice)]
        });
        let changes: Vec<ClusterChange> = changes.collect();
        self.timed(|handle| handle.cluster(changes))
    }

    /// Puts a Service before one pod.
    ///
    /// # Errors
    /// Fails if the reconciler has ended.
    pub fn serve(&self, pod: usize) -> Result<()> {
        let slice = EndpointSliceRecord {
            endpoints: vec![cluster::endpoint(pod)],
            ..cluster::slice(0, 0)
        };
        let service = ClusterChange::Service(cluster::service(0));
        let changes = vec![service, ClusterChange::EndpointSlice(slice)];
        self.timed(|handle| handle.cluster(changes)).map(drop)
    }

    /// A Service loses its last endpoint, or gets it back.
    pub fn change_endpoints(&self, services: usize, changes: usize) -> Result<Times> {
        let one = |index: usize| {
            let endpoints = cluster::ENDPOINTS_EACH - (index + 1) % 2;
            let slice = cluster::slice(index / 2 * 7 % services, endpoints);
            self.timed(|handle| handle.cluster(vec![ClusterChange::EndpointSlice(slice)]))
        };
        (0..changes).map(one).collect::<Result<_>>().map(Times::new)
    }

    /// A policy that selects pods of this node comes.
    pub fn new_policies(&self, changes: usize) -> Result<Times> {
        let one = |index: usize| {
            let policy: PolicyRecord = cluster::new_policy(index);
            self.timed(|handle| handle.cluster(vec![ClusterChange::Policy(policy)]))
        };
        (0..changes).map(one).collect::<Result<_>>().map(Times::new)
    }

    /// First packets of connections between local pods and everybody, each timed alone.
    pub fn connections(&self, round: usize, count: usize) -> Connections {
        self.first_packets(round, count, |index| self.first_frame(index))
    }

    /// First packets of local pods' connections to this many Services.
    pub fn service_connections(&self, round: usize, count: usize, services: usize) -> Connections {
        self.first_packets(round, count, |index| service_frame(index, services))
    }

    /// Processes frames in batches, as a worker receives them.
    fn first_packets(
        &self,
        round: usize,
        count: usize,
        frame: impl Fn(usize) -> (PortNo, Frame),
    ) -> Connections {
        let mut engine = self.datapath.engine();
        let mut out = Outputs::default();
        let (mut all, mut allowed) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let indexes: Vec<usize> = (round * count..(round + 1) * count).collect();
        for batch in indexes.chunks(BATCH) {
            let mut frames: Vec<(PortNo, Frame)> =
                batch.iter().map(|index| frame(*index)).collect();
            for (port, frame) in &mut frames {
                let start = Instant::now();
                let verdict = engine.process(*port, frame, Timestamp::default(), &mut out);
                let took = start.elapsed();
                all.push(took);
                if matches!(verdict, Verdict::Forward(_)) {
                    allowed.push(took);
                }
            }
            out.replies.clear();
        }
        Connections {
            all: Times::new(all),
            allowed: Times::new(allowed),
        }
    }

    fn first_frame(&self, index: usize) -> (PortNo, Frame) {
        let here = cluster::local_pod(index % LOCAL_PODS);
        // Its neighbour may connect and be connected to; most others may not.
        let is_near = index % 4 < 3;
        let there = if is_near { here + 1 } else { index * 13 % PODS };
        let is_outward = (index / LOCAL_PODS).is_multiple_of(2);
        let (src, dst) = if is_outward {
            (here, there)
        } else {
            (there, here)
        };
        let packet = Packet {
            src: cluster::address(src),
            dst: cluster::address(dst),
            protocol: Protocol::Tcp,
            src_port: u16::try_from(1024 + index % 60_000).unwrap_or(u16::MAX),
            dst_port: 8080,
        };
        let port = self.port_at(src);
        let mac = if port == GATEWAY {
            GATEWAY_MAC
        } else {
            cluster::mac_of(port)
        };
        (port, first_frame(&packet, mac, GATEWAY_MAC))
    }

    fn port_at(&self, pod: usize) -> PortNo {
        let local = (0..LOCAL_PODS).find(|local| cluster::local_pod(*local) == pod);
        local.map_or(GATEWAY, cluster::port_of)
    }

    pub fn members(&self) -> usize {
        let sets = self.datapath.address_sets();
        sets.iter().map(|(_, members)| members.len()).sum()
    }
}

/// A local pod connects to a Service; neighbours in time use different ones.
fn service_frame(index: usize, services: usize) -> (PortNo, Frame) {
    let local = index % LOCAL_PODS;
    let packet = Packet {
        src: cluster::address(cluster::local_pod(local)),
        dst: cluster::cluster_ip(index * 7 % services),
        protocol: Protocol::Tcp,
        src_port: u16::try_from(1024 + index % 60_000).unwrap_or(u16::MAX),
        dst_port: 80,
    };
    let port = cluster::port_of(local);
    (
        port,
        first_frame(&packet, cluster::mac_of(port), GATEWAY_MAC),
    )
}

/// What first packets took.
#[derive(Debug)]
pub struct Connections {
    pub all: Times,
    /// Those that were forwarded.
    pub allowed: Times,
}
