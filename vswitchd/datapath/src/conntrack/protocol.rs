//! Protocol state of a connection, with one interface for TCP, UDP, SCTP, ICMP and the rest.
//!
//! [`super::Connection`] holds one under its lock and asks it about every packet.

use smallvec::SmallVec;

use super::end::ConnectionEnd;
use super::kernel_state::KernelTcp;
use super::sctp::SctpTrack;
use super::step::{Progress, Start, Step};
use super::tcp::TcpTrack;
use super::{Direction, generic, icmp, udp};
use crate::drop_reason::DropReason;
use crate::flow::ip_proto;
use crate::packet::emit::BarePacket;
use crate::packet::{Fragment, ParsedPacket, PlainPacket};

/// Protocol state of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Protocol {
    Tcp(TcpTrack),
    Sctp(SctpTrack),
    Udp,
    Icmp,
    Generic,
}

impl Protocol {
    /// Returns what the packet may start.
    pub(super) fn start_of(pkt: &ParsedPacket) -> Start {
        match pkt.key.ip_proto {
            ip_proto::TCP => pkt.tcp.as_ref().map_or(Start::Invalid, TcpTrack::start_of),
            ip_proto::SCTP => pkt.sctp.map_or(Start::Invalid, SctpTrack::start_of),
            proto @ (ip_proto::ICMP | ip_proto::ICMPV6) => {
                let is_query = u8::try_from(pkt.key.tp_src).is_ok_and(|t| icmp::is_query(proto, t));
                if is_query { Start::New } else { Start::Invalid }
            }
            _ => Start::New,
        }
    }

    /// Returns the state before the first packet, which [`Protocol::advance`] then takes in.
    pub(super) fn before(pkt: &ParsedPacket) -> Self {
        match pkt.key.ip_proto {
            ip_proto::TCP => Self::Tcp(TcpTrack::default()),
            ip_proto::SCTP => Self::Sctp(SctpTrack::default()),
            ip_proto::UDP => Self::Udp,
            ip_proto::ICMP | ip_proto::ICMPV6 => Self::Icmp,
            _ => Self::Generic,
        }
    }

    /// Takes a packet in.
    pub(super) fn advance(
        &mut self,
        pkt: &ParsedPacket,
        step: Step<'_>,
    ) -> Result<Progress, DropReason> {
        match self {
            Self::Tcp(track) => match &pkt.tcp {
                Some(segment) => track.advance(segment, step),
                None => Self::advance_headless(pkt),
            },
            Self::Sctp(track) => match pkt.sctp {
                Some((tag, chunk)) => track.advance(tag, chunk, step),
                None => Self::advance_headless(pkt),
            },
            Self::Udp => Ok(udp::track(step)),
            Self::Icmp => Ok(Progress::keep(step.config.icmp, false)),
            Self::Generic => Ok(generic::track(step.config, step.replied)),
        }
    }

    /// Puts what the kernel knows in place of what was known before.
    pub(super) fn learn_from_kernel(&mut self, tcp: &KernelTcp) {
        if let Self::Tcp(track) = self {
            track.learn_from_kernel(tcp);
        }
    }

    /// Returns what the state amounts to after packets that the kernel took in; `step` is the last
    /// one's.
    pub(super) fn progress(&self, step: Step<'_>) -> Progress {
        match self {
            Self::Tcp(track) => Progress::keep(track.timeout(step), false),
            Self::Udp => udp::track(step),
            Self::Sctp(_) | Self::Icmp | Self::Generic => Progress::UNCHANGED,
        }
    }

    /// Returns whether the kernel can take packets in from here on.
    pub(super) fn may_enter_kernel(&self) -> bool {
        match self {
            Self::Tcp(track) => track.may_enter_kernel(),
            Self::Udp => true,
            Self::Sctp(_) | Self::Icmp | Self::Generic => false,
        }
    }

    /// Returns what the kernel has to know of TCP.
    pub(super) fn for_kernel(&self) -> Option<KernelTcp> {
        match self {
            Self::Tcp(track) => Some(track.for_kernel()),
            Self::Udp | Self::Sctp(_) | Self::Icmp | Self::Generic => None,
        }
    }

    /// Takes in a plain packet if that is one of the common ones; `None` with nothing done if it
    /// is not, or not of this protocol.
    #[inline(always)]
    pub(super) fn advance_predicted(
        &mut self,
        pkt: &PlainPacket<'_>,
        step: Step<'_>,
    ) -> Option<Progress> {
        if let Self::Tcp(track) = self {
            return track.advance_predicted(&pkt.tcp_segment()?, step);
        }
        let is_udp = matches!(self, Self::Udp) && pkt.ip_proto == ip_proto::UDP;
        is_udp.then(|| udp::track(step))
    }

    /// Takes in a plain packet.
    pub(super) fn advance_plain(
        &mut self,
        pkt: &PlainPacket<'_>,
        step: Step<'_>,
    ) -> Result<Progress, DropReason> {
        match (self, pkt.tcp_segment()) {
            (Self::Tcp(track), Some(segment)) => track.advance(&segment, step),
            (Self::Udp, None) => Ok(udp::track(step)),
            _ => Err(DropReason::CtInvalid),
        }
    }

    /// A later fragment says nothing: its first fragment was judged. Everything else has its
    /// transport header.
    fn advance_headless(pkt: &ParsedPacket) -> Result<Progress, DropReason> {
        match pkt.fragment {
            Fragment::Later { .. } => Ok(Progress::UNCHANGED),
            Fragment::No | Fragment::First { .. } => Err(DropReason::CtInvalid),
        }
    }

    /// Returns whether any state accepts the packet.
    pub(super) fn is_well_formed(pkt: &ParsedPacket) -> bool {
        pkt.tcp.as_ref().is_none_or(TcpTrack::is_well_formed)
    }

    /// Returns whether the connection was ended by its own ends, so that it is kept for what may
    /// still be on its way only.
    pub(super) fn is_finished(&self) -> bool {
        match self {
            Self::Tcp(track) => track.is_finished(),
            Self::Sctp(track) => track.is_finished(),
            Self::Udp | Self::Icmp | Self::Generic => false,
        }
    }

    /// Returns how its own ends have ended the connection, if they have.
    pub(super) fn own_end(&self) -> Option<ConnectionEnd> {
        match self {
            Self::Tcp(track) => track.own_end(),
            Self::Sctp(track) => track.own_end(),
            Self::Udp | Self::Icmp | Self::Generic => None,
        }
    }

    /// Returns whether the connection is over and the packet starts another one.
    pub(super) fn is_reopened_by(&self, pkt: &ParsedPacket) -> bool {
        match self {
            Self::Tcp(track) => pkt
                .tcp
                .as_ref()
                .is_some_and(|segment| track.is_reopened_by(segment)),
            Self::Sctp(track) => pkt
                .sctp
                .is_some_and(|(_, chunk)| track.is_reopened_by(chunk)),
            Self::Udp | Self::Icmp | Self::Generic => false,
        }
    }

    /// Returns what the end that sends in this direction may send next. Of SCTP nothing is known
    /// that both ends would believe; its ends ask by themselves (RFC 9260 section 8.3).
    pub(super) fn next_of(&self, direction: Direction) -> SmallVec<[BarePacket; 2]> {
        match self {
            Self::Tcp(track) => track.next_of(direction),
            Self::Udp => SmallVec::from_slice(&[BarePacket::Datagram]),
            Self::Sctp(_) | Self::Icmp | Self::Generic => SmallVec::new(),
        }
    }

    /// Returns the name of the state, as `dump-conntrack` prints it.
    pub(super) fn state_name(&self, replied: bool, assured: bool) -> &'static str {
        match self {
            Self::Tcp(track) => track.state_name(),
            Self::Sctp(track) => track.state_name(),
            Self::Udp if assured => "STREAM",
            Self::Udp | Self::Icmp | Self::Generic if replied => "REPLIED",
            Self::Udp | Self::Icmp | Self::Generic => "UNREPLIED",
        }
    }
}
