//! A switch in memory: the reconciler's model and a datapath, with pods but without devices.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use vswitch_api::{IfName, MacAddr, PortNo};
use vswitch_datapath::pipeline::{TraceInput, TracePacket};
use vswitch_datapath::{Datapath, DatapathConfig, Engine, Outputs, Timestamp, Verdict};

use super::cluster::{Cluster, ClusterPod};
use super::frames::{Packet, first_frame};
use super::judgement::Judgement;
use crate::config::Deny;
use crate::reconcile::{GatewayPort, Model, ModelInput, PortAttachMode, ReconcileConfig};
use crate::state::{Attachment, ClusterChange, ObjectKey};

const GATEWAY: PortNo = PortNo(1);
const GATEWAY_MAC: MacAddr = MacAddr([2, 0xff, 0, 0, 0, 1]);
const MTU: u16 = 1500;

/// The gateway's own addresses: of networks that no pod can have (RFC 3927, RFC 4291).
const GATEWAY_ADDRESSES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
];

/// A pod that is attached to the switch.
#[derive(Debug, Clone, PartialEq, Eq)]
struct AttachedPod {
    port: PortNo,
    ips: Vec<IpAddr>,
}

/// One node with some of the cluster's pods.
#[derive(Debug)]
pub(super) struct SimulatedSwitch {
    model: Model,
    datapath: Arc<Datapath>,
    engine: Engine,
    attached: BTreeMap<ObjectKey, AttachedPod>,
    who: Who,
    next_port: u32,
}

/// Which pods of the cluster are at a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Who {
    Everyone,
    Only(ObjectKey),
}

impl SimulatedSwitch {
    /// Returns the switch of a node that has these pods of the cluster.
    pub(super) fn of(cluster: &Cluster, who: Who) -> Self {
        let gateway = GatewayPort {
            port_no: GATEWAY,
            name: "gateway".to_owned(),
            mac: GATEWAY_MAC,
            addresses: GATEWAY_ADDRESSES.to_vec(),
            mtu: MTU,
        };
        let mut model = Model::new(ReconcileConfig {
            node_name: String::new(),
            gateway,
            // What is no pod of this node is somewhere behind the gateway.
            pod_cidrs: Vec::new(),
            deny: Deny::Drop,
        });
        model.take(ModelInput::Synced);
        let datapath = Datapath::new(DatapathConfig {
            flow_cache_entries: 1024,
            ..DatapathConfig::default()
        });
        let mut switch = Self {
            model,
            engine: datapath.engine(),
            datapath,
            attached: BTreeMap::new(),
            who,
            next_port: 2,
        };
        switch.apply(cluster, cluster.changes());
        switch
    }

    /// Takes in changes that the cluster has taken in.
    pub(super) fn apply(&mut self, cluster: &Cluster, changes: Vec<ClusterChange>) {
        self.model.take(ModelInput::Cluster(changes));
        let node = cluster.node_addresses();
        self.model.take(ModelInput::NodeAddresses(node));
        self.attach(cluster.pods());
        self.datapath.apply(self.model.flush());
    }

    /// Brings the ports in line with the pods that have addresses.
    fn attach(&mut self, pods: Vec<ClusterPod>) {
        let is_here = |pod: &ClusterPod| match &self.who {
            Who::Everyone => true,
            Who::Only(key) => pod.key == *key,
        };
        let wanted: BTreeMap<ObjectKey, Vec<IpAddr>> = pods
            .into_iter()
            .filter(is_here)
            .map(|pod| (pod.key, pod.ips))
            .collect();
        let is_kept = |key: &ObjectKey, pod: &AttachedPod| wanted.get(key) == Some(&pod.ips);
        let gone = self.attached.extract_if(.., |key, pod| !is_kept(key, pod));
        for (_, pod) in gone {
            self.model.take(ModelInput::Detach(pod.port));
        }
        for (key, ips) in wanted {
            if self.attached.contains_key(&key) {
                continue;
            }
            let port = PortNo(self.next_port);
            self.next_port += 1;
            let attachment = attachment(port, &key, &ips);
            self.model.take(ModelInput::Attach(
                Box::new(attachment),
                PortAttachMode::default(),
            ));
            self.attached.insert(key, AttachedPod { port, ips });
        }
    }

    /// Sends a packet and says what became of it.
    pub(super) fn judge(&mut self, packet: &Packet) -> Judgement {
        let sender = self
            .attached
            .values()
            .find(|pod| pod.ips.contains(&packet.src));
        let (in_port, mac) =
            sender.map_or((GATEWAY, GATEWAY_MAC), |pod| (pod.port, mac_of(pod.port)));
        let mut frame = first_frame(packet, mac, GATEWAY_MAC);
        let now = Timestamp::default();
        let input = TraceInput {
            in_port,
            packet: TracePacket::Frame(frame.clone()),
        };
        let trace = self.datapath.trace(&input, now);
        let mut out = Outputs::default();
        let reason = match self.engine.process(in_port, &mut frame, now, &mut out) {
            Verdict::Drop(reason) => Some(reason),
            Verdict::Forward(_)
            | Verdict::InFragments
            | Verdict::Answered
            | Verdict::Held
            | Verdict::Taken => None,
        };
        Judgement::of(reason, &trace)
    }

    /// Forgets the connections that were made so far.
    pub(super) fn forget_connections(&self) {
        self.datapath.flush_connections(|_| true);
    }
}

fn mac_of(PortNo(port): PortNo) -> MacAddr {
    let [a, b, c, d] = port.to_be_bytes();
    MacAddr([2, 0, a, b, c, d])
}

fn attachment(port_no: PortNo, pod: &ObjectKey, ips: &[IpAddr]) -> Attachment {
    // There is no device; the names only have to be names.
    let ifname: IfName = "eth0".parse().expect("eth0 is a name of an interface");
    Attachment {
        container_id: pod.to_string(),
        ifname: ifname.clone(),
        network: String::new(),
        netns: std::path::PathBuf::new(),
        host_ifname: ifname,
        port_no,
        mac: mac_of(port_no),
        addresses: ips.iter().map(|ip| IpNet::from(*ip)).collect(),
        mtu: MTU,
        pod: pod.clone(),
        delegated_ipam: None,
        host_ports: Vec::new(),
    }
}
