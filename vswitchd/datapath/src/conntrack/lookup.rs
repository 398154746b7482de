//! Connection state of a packet: new, established, related or invalid.
//!
//! Looking up changes no connection; it only drops one that is past its time.

use std::sync::Arc;

use super::fragment::DatagramId;
use super::protocol::Protocol;
use super::step::Start;
use super::{ConnTable, Connection, Direction, Tuple, icmp};
use crate::drop_reason::DropReason;
use crate::flow::{CtState, FlowKey};
use crate::packet::{Fragment, Frame, IcmpQuote, ParsedPacket, verify_l4_checksum};
use crate::time::Timestamp;

/// What the connection table knows of a packet.
#[derive(Debug, Clone)]
pub struct CtLookup {
    /// `TRK` and one of `NEW`, `EST`, `REL`, `INV`; `RPL` in the reply direction.
    pub state: CtState,
    /// The connection it is of or (`REL`) about; `None` for `NEW` and `INV`.
    pub conn: Option<Arc<Connection>>,
    /// Which way it goes; an error goes against the packet that it quotes.
    pub direction: Direction,
    /// The packet's key, with the ports of the first fragment if it is a later one.
    pub key: FlowKey,
    /// `NEW`, but in the middle of a stream: to be committed only where the port is known to
    /// have had connections before.
    pub midstream: bool,
}

impl CtLookup {
    fn without(state: CtState, key: FlowKey, midstream: bool) -> Self {
        let state = CtState::TRK | state;
        Self {
            state,
            conn: None,
            direction: Direction::Original,
            key,
            midstream,
        }
    }

    fn with(state: CtState, conn: Arc<Connection>, direction: Direction, key: FlowKey) -> Self {
        let state = conn.nat_flags() | CtState::TRK | state;
        let state = match direction {
            Direction::Original => state,
            Direction::Reply => state | CtState::RPL,
        };
        Self {
            state,
            conn: Some(conn),
            direction,
            key,
            midstream: false,
        }
    }
}

impl ConnTable {
    /// Finds out what the packet is to the connections in the table. Whether a packet of a
    /// connection fits its state is for [`Connection::track`] to say.
    ///
    /// # Errors
    /// [`DropReason::FragmentUnknown`] for a later fragment whose first fragment was not
    /// [allowed](ConnTable::allow_fragments).
    pub fn lookup(
        &self,
        pkt: &ParsedPacket,
        frame: &Frame,
        now: Timestamp,
    ) -> Result<CtLookup, DropReason> {
        let (tuple, key) = self.identify(pkt, now)?;
        let Some(tuple) = tuple else {
            return Ok(CtLookup::without(CtState::INV, key, false));
        };
        if !Protocol::is_well_formed(pkt) || !verify_l4_checksum(frame, pkt) {
            return Ok(CtLookup::without(CtState::INV, key, false));
        }
        if let Some(quote) = &pkt.icmp_quote {
            return Ok(self.lookup_related(quote, key, now));
        }
        match self.find(&tuple, now) {
            Some((conn, direction)) if !conn.is_reopened_by(pkt) => {
                Ok(CtLookup::with(CtState::EST, conn, direction, key))
            }
            _ => Ok(Self::lookup_unknown(pkt, key)),
        }
    }

    /// Returns whether the packet is of a connection in the table, whatever its state says of it.
    pub(crate) fn knows(&self, pkt: &ParsedPacket, now: Timestamp) -> bool {
        let tuple = self.identify(pkt, now).ok().and_then(|(tuple, _)| tuple);
        pkt.icmp_quote.is_none() && tuple.is_some_and(|tuple| self.find(&tuple, now).is_some())
    }

    fn lookup_unknown(pkt: &ParsedPacket, key: FlowKey) -> CtLookup {
        match Protocol::start_of(pkt) {
            Start::New => CtLookup::without(CtState::NEW, key, false),
            Start::Midstream => CtLookup::without(CtState::NEW, key, true),
            Start::Invalid => CtLookup::without(CtState::INV, key, false),
        }
    }

    /// Finds the connection that an ICMP error is about.
    fn lookup_related(&self, quote: &IcmpQuote, key: FlowKey, now: Timestamp) -> CtLookup {
        // An error goes to whoever sent what it quotes; anything else is forged.
        if key.ip_dst != Some(quote.src) {
            return CtLookup::without(CtState::INV, key, false);
        }
        // What is quoted looks as it left; what answers it looks as it comes in, like the error.
        let found = icmp::quotable_types(quote.proto)
            .find_map(|icmp_type| self.find(&Tuple::of_quote(quote, icmp_type).reversed(), now));
        match found {
            Some((conn, direction)) => CtLookup::with(CtState::REL, conn, direction, key),
            None => CtLookup::without(CtState::INV, key, false),
        }
    }

    /// Returns the packet's tuple and key, completed from the first fragment for later ones.
    fn identify(
        &self,
        pkt: &ParsedPacket,
        now: Timestamp,
    ) -> Result<(Option<Tuple>, FlowKey), DropReason> {
        let Fragment::Later { id } = pkt.fragment else {
            return Ok((Tuple::of_packet(pkt, &pkt.key), pkt.key));
        };
        let first = DatagramId::new(&pkt.key, id)
            .and_then(|datagram| self.first_fragment(&datagram, now))
            .ok_or(DropReason::FragmentUnknown)?;
        let key = FlowKey {
            tp_src: first.tp_src,
            tp_dst: first.tp_dst,
            ..pkt.key
        };
        Ok((Some(first.tuple), key))
    }
}
