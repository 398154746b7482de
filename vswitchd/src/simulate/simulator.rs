//! The simulator: judges connections by sending their first frames through switches in memory.

use std::net::IpAddr;

use vswitch_datapath::DropReason;

use super::judgement::Judgement;
use super::switch::{SimulatedSwitch, Who};
use super::{Answer, Cluster, Packet, PortName, Probe, ProbeError, Protocol};
use crate::state::{ClusterChange, ObjectKey};

/// Judges connections in a cluster.
#[derive(Debug)]
pub struct Simulator {
    cluster: Cluster,
    /// Every pod at one switch.
    all: SimulatedSwitch,
    /// Source ports are used once, so that no probe meets the connection of another.
    next_port: u16,
}

/// The two ends of a probe, found.
struct Ends {
    from: Option<ObjectKey>,
    to: Option<ObjectKey>,
    src: IpAddr,
    dst: IpAddr,
}

impl Simulator {
    /// Attaches the pods of a cluster.
    #[must_use]
    pub fn new(cluster: Cluster) -> Self {
        let all = SimulatedSwitch::of(&cluster, Who::Everyone);
        Self {
            cluster,
            all,
            next_port: FIRST_SOURCE_PORT,
        }
    }

    /// Returns the cluster.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Takes in changes of the cluster, as the running switch would.
    pub fn apply(&mut self, changes: Vec<ClusterChange>) {
        for change in &changes {
            self.cluster.apply(change.clone());
        }
        self.all.apply(&self.cluster, changes);
    }

    /// Judges a connection.
    ///
    /// # Errors
    /// An end that is not there, or a port that means nothing.
    pub fn judge(&mut self, probe: &Probe) -> Result<Answer, ProbeError> {
        let ends = self.ends(probe)?;
        if let Some(answer) = unjudged(&ends) {
            return Ok(answer);
        }
        let port = self.port_of(probe, ends.to.as_ref())?;
        let mut packet = Packet {
            src: ends.src,
            dst: ends.dst,
            protocol: probe.protocol,
            src_port: 0,
            dst_port: port,
        };
        let whole = self.send_to_all(&mut packet);
        Ok(match whole.reason {
            Some(DropReason::PolicyEgress) => self.denied_by_egress(&ends, &mut packet, whole),
            reason => Answer::of(reason, whole.egress_by, whole.ingress_by),
        })
    }

    /// Judges every pod against every declared port of every other that `is_receiver` names.
    pub fn matrix(&mut self, is_receiver: impl Fn(&ObjectKey) -> bool) -> Vec<(Probe, Answer)> {
        let pods = self.cluster.pods();
        let mut found = Vec::new();
        for to in pods.iter().filter(|pod| is_receiver(&pod.key)) {
            for port in &to.ports {
                for from in pods.iter().filter(|from| from.key != to.key) {
                    let probe = Probe::between(&from.key, &to.key, port);
                    // Ends and ports come from the cluster itself; two pods without a common
                    // family have no way to each other at all.
                    if let Ok(answer) = self.judge(&probe) {
                        found.push((probe, answer));
                    }
                }
            }
        }
        found
    }

    /// Asks the receiver's side what the sender's side hid.
    fn denied_by_egress(&mut self, ends: &Ends, packet: &mut Packet, egress: Judgement) -> Answer {
        let (mut is_let_in, mut ingress_by) = (true, Vec::new());
        if let Some(receiver) = &ends.to {
            let mut node = SimulatedSwitch::of(&self.cluster, Who::Only(receiver.clone()));
            packet.src_port = self.take_port();
            let ingress = node.judge(packet);
            is_let_in = ingress.reason.is_none();
            ingress_by = ingress.ingress_by;
        }
        Answer::denied_by_egress(is_let_in, egress.egress_by, ingress_by)
    }

    fn send_to_all(&mut self, packet: &mut Packet) -> Judgement {
        packet.src_port = self.take_port();
        self.all.judge(packet)
    }

    fn take_port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = port.checked_add(1).unwrap_or_else(|| {
            self.all.forget_connections();
            FIRST_SOURCE_PORT
        });
        port
    }

    fn ends(&self, probe: &Probe) -> Result<Ends, ProbeError> {
        let (from, sources) = self.cluster.find(&probe.from)?;
        let (to, destinations) = self.cluster.find(&probe.to)?;
        let pairs = sources
            .iter()
            .flat_map(|src| destinations.iter().map(move |dst| (*src, *dst)));
        let mut common = pairs.filter(|(src, dst)| src.is_ipv4() == dst.is_ipv4());
        let (src, dst) = common.next().ok_or_else(|| ProbeError::NoCommonFamily {
            from: probe.from.to_string(),
            to: probe.to.to_string(),
        })?;
        Ok(Ends { from, to, src, dst })
    }

    fn port_of(&self, probe: &Probe, to: Option<&ObjectKey>) -> Result<u16, ProbeError> {
        match (&probe.port, probe.protocol) {
            (_, Protocol::Icmp) => Ok(0),
            (Some(PortName::Number(port)), _) => Ok(*port),
            (Some(PortName::Name(name)), protocol) => {
                let ports = to.map(|key| self.cluster.ports_of(key)).unwrap_or_default();
                let found = ports
                    .iter()
                    .find(|p| p.name == *name && p.protocol == protocol);
                found
                    .map(|port| port.port)
                    .ok_or_else(|| ProbeError::UnknownPort {
                        to: probe.to.to_string(),
                        name: name.clone(),
                    })
            }
            (None, protocol) => Err(ProbeError::NoPort { protocol }),
        }
    }
}

/// Below lie the ports of servers.
const FIRST_SOURCE_PORT: u16 = 32_768;

/// Connections that no policy is asked about.
fn unjudged(ends: &Ends) -> Option<Answer> {
    match (&ends.from, &ends.to) {
        (None, None) => Some(Answer::unjudged("neither end is a pod")),
        (Some(from), Some(to)) if from == to => {
            Some(Answer::unjudged("a pod reaches itself without the switch"))
        }
        _ => None,
    }
}
