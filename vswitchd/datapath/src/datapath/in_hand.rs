//! A packet while an engine processes it, and the operations on it.

use std::net::IpAddr;

use vswitch_api::{MacAddr, PortNo};

use super::{Outputs, Verdict};
use crate::cache::CachedFlow;
use crate::conntrack::{Connection, ConntrackConfig, Direction};
use crate::drop_reason::DropReason;
use crate::flow::ip_proto;
use crate::packet::emit::Refusal;
use crate::packet::rewrite::{End, Ends};
use crate::packet::{
    Fragment, Frame, ParsedPacket, emit, may_fragment, offload, rewrite, verify_l4_checksum,
};
use crate::pipeline::{Counts, Meter, Packet, RuleCounters, Step};
use crate::time::Timestamp;

/// Returns what a rule counts of a frame.
#[inline]
pub(super) fn counts(frame_len: usize) -> Counts {
    Counts {
        packets: 1,
        bytes: u64::try_from(frame_len).unwrap_or(u64::MAX),
        connections: 0,
    }
}

/// One packet on its way.
pub(super) struct InHand<'a> {
    pub(super) parsed: &'a ParsedPacket,
    pub(super) frame: &'a mut Frame,
    pub(super) now: Timestamp,
    pub(super) out: &'a mut Outputs,
    /// What it is to look like when it leaves, where addresses are translated.
    pub(super) readdressed: Option<Readdressed>,
}

/// Other addresses and ports for a packet.
#[derive(Debug, Clone, Copy)]
pub(super) enum Readdressed {
    /// A packet of a connection gets these.
    Own(Ends),
    /// An ICMP error: its own addresses, and the quoted packet as its receiver sent it.
    Error {
        src: IpAddr,
        dst: IpAddr,
        quoted: Ends,
    },
}

impl InHand<'_> {
    pub(super) fn as_packet(&self) -> Packet<'_> {
        Packet {
            parsed: self.parsed,
            frame: self.frame,
            now: self.now,
        }
    }

    /// Returns what a rule counts of it.
    pub(super) fn counts(&self) -> Counts {
        counts(self.frame.len())
    }

    /// Does what a cached flow says; `None` if it no longer holds, with nothing done yet.
    /// No allocation and no lock but the connection's own.
    pub(super) fn follow(
        &mut self,
        flow: &CachedFlow,
        config: &ConntrackConfig,
        rules: &RuleCounters,
    ) -> Option<Result<Verdict, DropReason>> {
        let conn = flow.conn.as_ref();
        // The lookup refuses wrong checksums; a packet must not get past that by being late.
        if conn.is_some_and(|(conn, _)| conn.is_dead() || !self.is_checksum_right()) {
            return None;
        }
        let refused_at = self.meter(&flow.steps);
        if let Some(refused_at) = refused_at {
            let slots = flow.path.rules().iter().take(refused_at);
            slots.for_each(|slot| rules.add(*slot, self.counts()));
            return Some(Err(DropReason::RateLimited));
        }
        if self.is_too_big(flow.mtu) && !may_fragment(self.parsed) {
            flow.path.count(self.counts());
            let verdict = self.fit(flow.mtu).map(|()| Verdict::Forward(flow.out_port));
            self.perform(&flow.steps);
            return Some(verdict);
        }
        if let Some((conn, direction)) = conn {
            // What does not fit the connection may be the first packet of the next one.
            conn.track(self.parsed, *direction, self.now, config).ok()?;
            self.readdress(conn, *direction).ok()?;
        }
        flow.path.count(self.counts());
        self.perform(&flow.steps);
        rewrite::set_macs(self.frame, flow.macs);
        Some(Ok(Verdict::Forward(flow.out_port)))
    }

    fn is_checksum_right(&self) -> bool {
        verify_l4_checksum(self.frame, self.parsed)
    }

    /// Asks the meters; returns how many rules a refused packet has gone through.
    pub(super) fn meter(&self, steps: &[Step]) -> Option<usize> {
        steps.iter().find_map(|step| match step {
            Step::Meter { meter, rules } if !meter.allow(self.now) => Some(*rules),
            _ => None,
        })
    }

    /// Has a packet of a translated connection leave with its other addresses.
    ///
    /// # Errors
    ///
    /// [`DropReason::NatUnsupported`] if its checksum cannot be mended.
    pub(super) fn readdress(
        &mut self,
        conn: &Connection,
        direction: Direction,
    ) -> Result<(), DropReason> {
        let Some(leaves_as) = conn.leaves_as(direction) else {
            return Ok(());
        };
        let is_sctp = leaves_as.proto == ip_proto::SCTP;
        if is_sctp && self.parsed.fragment != Fragment::No {
            return Err(DropReason::NatUnsupported);
        }
        self.readdressed = Some(Readdressed::Own(leaves_as.into()));
        Ok(())
    }

    /// Has an ICMP error about a translated connection leave as its receiver understands it.
    pub(super) fn readdress_error(&mut self, conn: &Connection, direction: Direction) {
        let Some(leaves_as) = conn.leaves_as(direction) else {
            return;
        };
        let comes_as = conn.comes_as(direction);
        // A router on the way speaks for itself.
        let is_router = self.parsed.key.ip_src != Some(comes_as.src);
        self.readdressed = Some(Readdressed::Error {
            src: self
                .parsed
                .key
                .ip_src
                .filter(|_| is_router)
                .unwrap_or(leaves_as.src),
            dst: leaves_as.dst,
            quoted: conn.comes_as(direction.opposite()).into(),
        });
    }

    /// Copies and rewrites the frame, in the order of the steps; its addresses last.
    pub(super) fn perform(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Meter { .. } => {}
                Step::Mirror(port) => self.copy_to(*port),
                Step::SetEthDst(mac) => rewrite::set_eth_dst(self.frame, *mac),
                Step::SetEthSrc(mac) => rewrite::set_eth_src(self.frame, *mac),
            }
        }
        match self.readdressed.take() {
            None => {}
            Some(Readdressed::Own(ends)) => rewrite::set_ends(self.frame, self.parsed, &ends),
            Some(Readdressed::Error { src, dst, quoted }) => {
                rewrite::set_ip(self.frame, self.parsed, End::Src, src);
                rewrite::set_ip(self.frame, self.parsed, End::Dst, dst);
                rewrite::set_quoted_ends(self.frame, self.parsed, &quoted);
            }
        }
    }

    fn copy_to(&mut self, port: PortNo) {
        // Not `clone`, which would copy the whole receive buffer.
        let mut copy = Frame::from_bytes(self.frame.bytes());
        copy.vnet = self.frame.vnet;
        self.out.copies.push((port, copy));
    }

    fn is_too_big(&self, mtu: u16) -> bool {
        offload::segment_l3_len(self.frame, self.parsed) > usize::from(mtu)
    }

    /// Refuses what the out port cannot take and must not be fragmented, and tells the sender.
    ///
    /// # Errors
    ///
    /// [`DropReason::MtuExceeded`].
    pub(super) fn fit(&mut self, mtu: u16) -> Result<(), DropReason> {
        if !self.is_too_big(mtu) || may_fragment(self.parsed) {
            return Ok(());
        }
        // Sent as if by the receiver: the switch itself has no address.
        let receiver = self.parsed.key.ip_dst;
        let error =
            receiver.and_then(|from| emit::icmp_too_big(self.frame, self.parsed, mtu, from));
        self.reply(error);
        Err(DropReason::MtuExceeded)
    }

    pub(super) fn answer_arp(&mut self, mac: MacAddr) -> Result<Verdict, DropReason> {
        let answer = emit::arp_reply(self.frame, self.parsed, mac);
        if self.reply(answer) {
            Ok(Verdict::Answered)
        } else {
            Err(DropReason::ArpUnknown)
        }
    }

    pub(super) fn answer_nd(&mut self, mac: MacAddr) -> Result<Verdict, DropReason> {
        let answer = emit::neighbor_advertisement(self.frame, self.parsed, mac);
        if self.reply(answer) {
            Ok(Verdict::Answered)
        } else {
            Err(DropReason::NdUnknown)
        }
    }

    /// Tells the sender that the packet is refused, if the standards and the limit allow it.
    pub(super) fn reject(&mut self, reason: DropReason, limit: &Meter) {
        // Asked before an answer is built, so that a flood costs none; counted only for an
        // answer that there is. What is damaged asked for none.
        if !limit.has_room(self.now) || !self.is_checksum_right() {
            return;
        }
        let refusal = match reason {
            DropReason::ServiceNoEndpoints => Refusal::NobodyListens,
            _ => Refusal::Prohibited,
        };
        let answer = emit::rejection(self.frame, self.parsed, refusal);
        self.reply(answer.filter(|_| limit.allow(self.now)));
    }

    /// Sends a frame of the switch's own back to where the packet came from.
    fn reply(&mut self, frame: Option<Frame>) -> bool {
        let in_port = self.parsed.key.in_port;
        let is_some = frame.is_some();
        self.out.replies.extend(frame.map(|frame| (in_port, frame)));
        is_some
    }
}
