//! A probe under way, and its end.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use vswitch_datapath::conntrack::Tuple;
use vswitch_datapath::flow::{FlowKey, ip_proto};
use vswitch_datapath::packet::emit::BarePacket;
use vswitch_datapath::packet::tcp_flags;
use vswitch_datapath::probe::{Answer, AnswerKind, Probe};
use vswitch_datapath::{Timestamp, Verdict, Watcher};

use super::outcome::{Outcome, ProbeError, Probed};
use crate::errors;
use crate::supervise;
use crate::switch::{Switch, Watch};

/// How often it is asked whether there is an answer; workers say when it came.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Source ports and identifiers of probes are from here on: beyond those that Linux gives to clients by
/// itself (`net.ipv4.ip_local_port_range`).
const FIRST_PORT: u16 = 61_000;

/// The packet that a probe sends.
#[derive(Debug, Clone, Copy)]
pub struct ProbePacket {
    /// Its key, but for the source port.
    key: FlowKey,
    /// Source port, or identifier of an echo request: no live connection of the pod has it.
    number: u16,
    /// Initial sequence number of TCP, as hard to guess as any.
    seq: u32,
}

impl ProbePacket {
    /// Chooses a source port for a described packet. Blocks for as long as it takes to look through the
    /// connection table.
    ///
    /// # Errors
    /// [`ProbeError::NoFreePort`].
    pub fn choose(switch: &Switch, key: FlowKey) -> Result<Self, ProbeError> {
        let mut used = HashSet::new();
        let (datapath, now) = (switch.datapath(), switch.clock().now());
        datapath.visit_connections(now, |connection| {
            let (asks, answers) = (&connection.original, &connection.reply);
            for tuple in [asks, answers] {
                if Some(tuple.src) == key.ip_src && tuple.proto == key.ip_proto {
                    used.insert(tuple.tp_src);
                }
            }
        });
        let (random, _) = uuid::Uuid::new_v4().as_u64_pair();
        let [a, b, c, d, e, f, ..] = random.to_be_bytes();
        let ports = FIRST_PORT..=u16::MAX;
        let at = usize::from(u16::from_be_bytes([e, f])) % ports.len();
        let mut tried = ports.clone().cycle().skip(at).take(ports.len());
        let number = tried.find(|port| !used.contains(port));
        Ok(Self {
            key,
            number: number.ok_or(ProbeError::NoFreePort { first: FIRST_PORT })?,
            seq: u32::from_be_bytes([a, b, c, d]),
        })
    }

    /// Returns the source port that was chosen.
    #[must_use]
    pub const fn source_port(&self) -> u16 {
        self.number
    }

    fn tuple(&self) -> Option<Tuple> {
        let key = &self.key;
        let is_icmp = ip_proto::is_icmp(key.ip_proto);
        Some(Tuple {
            src: key.ip_src?,
            dst: key.ip_dst?,
            proto: key.ip_proto,
            icmp_type: if is_icmp {
                u8::try_from(key.tp_src).ok()?
            } else {
                0
            },
            tp_src: self.number,
            tp_dst: if is_icmp { self.number } else { key.tp_dst },
        })
    }

    fn first(&self) -> Option<BarePacket> {
        match self.key.ip_proto {
            ip_proto::TCP => Some(BarePacket::Syn { seq: self.seq }),
            ip_proto::UDP => Some(BarePacket::Datagram),
            ip_proto::ICMP | ip_proto::ICMPV6 => Some(BarePacket::EchoRequest),
            _ => None,
        }
    }
}

/// Sends a probe and waits for what answers; goes on to its end when the caller gives up.
///
/// # Errors
/// [`ProbeError`]; nothing was sent then, or nobody is left to wait.
pub async fn send(
    switch: Arc<Switch>,
    packet: ProbePacket,
    timeout: Duration,
    stop: watch::Receiver<bool>,
) -> Result<Probed, ProbeError> {
    let probed = supervise::request(run(switch, packet, timeout, stop)).await;
    probed.unwrap_or(Err(ProbeError::Stopping))
}

async fn run(
    switch: Arc<Switch>,
    packet: ProbePacket,
    timeout: Duration,
    mut stop: watch::Receiver<bool>,
) -> Result<Probed, ProbeError> {
    let no_such_packet = || ProbeError::NoSuchPacket {
        packet: packet.key.to_string(),
    };
    let first = packet.first().ok_or_else(no_such_packet)?;
    let tuple = packet.tuple().ok_or_else(no_such_packet)?;
    let probe = Arc::new(Probe::new(packet.key.in_port, tuple));
    let watcher = Watcher::Probe(Arc::clone(&probe));
    let watch = Watch::begin(Arc::clone(switch.datapath()), watcher).await?;
    let mut under_way = UnderWay {
        switch,
        probe,
        packet,
        watch,
        is_half_open: false,
    };
    let sent;
    (under_way, sent) = supervise::blocking(move || {
        let sent = under_way.inject(first);
        (under_way, sent)
    })
    .await;
    let (sent_at, verdict) = sent?;
    let answered = match verdict {
        Verdict::Drop(_) => None,
        _ => {
            // One of which nothing was heard may wait as well.
            under_way.is_half_open = packet.key.ip_proto == ip_proto::TCP;
            tokio::select! {
                answer = answer(&under_way.probe, timeout) => answer,
                // An error means that the daemon is gone.
                _ = stop.wait_for(|stopped| *stopped) => None,
            }
        }
    };
    under_way.is_half_open &= !answered.is_some_and(|answer| is_reset(&answer));
    let left_with = supervise::blocking(move || under_way.end()).await;
    let outcome = match (verdict, answered) {
        (Verdict::Drop(reason), _) => Outcome::Dropped(reason),
        (_, Some(answer)) => Outcome::Answered(answer, answer.time.since(sent_at)),
        (_, None) if *stop.borrow() => return Err(ProbeError::Stopping),
        (_, None) => Outcome::NoAnswer,
    };
    let out_port = match verdict {
        Verdict::Forward(port) => Some(port),
        _ => None,
    };
    Ok(Probed {
        outcome,
        out_port,
        left_with,
    })
}

async fn answer(probe: &Probe, timeout: Duration) -> Option<Answer> {
    let next = async {
        loop {
            if let Some(answer) = probe.next() {
                return answer;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    // What came while the time ran out counts.
    let answered = tokio::time::timeout(timeout, next).await.ok();
    answered.or_else(|| probe.next())
}

fn is_reset(answer: &Answer) -> bool {
    matches!(answer.kind, AnswerKind::Segment { flags, .. } if flags & tcp_flags::RST != 0)
}

/// A probe under way.
#[derive(Debug)]
struct UnderWay {
    switch: Arc<Switch>,
    probe: Arc<Probe>,
    packet: ProbePacket,
    watch: Watch,
    /// A TCP server may wait for more.
    is_half_open: bool,
}

impl UnderWay {
    /// Sends a packet as if it had come in through the pod's port. Blocks.
    fn inject(&self, bare: BarePacket) -> Result<(Timestamp, Verdict), ProbeError> {
        let key = &self.packet.key;
        let frame = self.probe.frame(bare, key.eth_src, key.eth_dst);
        let frame = frame.ok_or_else(|| ProbeError::NoSuchPacket {
            packet: key.to_string(),
        })?;
        let sent = self.switch.workers().inject(self.probe.port(), frame);
        sent.map_err(|source| ProbeError::Send { source })
    }

    /// Leaves nothing behind; returns the addresses and ports that the packet left with. Blocks.
    fn end(self) -> Option<Tuple> {
        if self.is_half_open {
            let seq = self.packet.seq.wrapping_add(1);
            if let Err(error) = self.inject(BarePacket::Reset { seq }) {
                // The server gives up by itself, within a minute.
                let error = errors::chain(&error);
                tracing::debug!(error, "resetting what a probe has opened failed");
            }
        }
        let now = self.switch.clock().now();
        let left_with = self.switch.datapath().forget_probe(&self.probe, now);
        self.watch.end();
        left_with
    }
}
