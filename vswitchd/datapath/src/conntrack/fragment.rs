//! Fragment table: later fragments, which carry no transport header, get the connection of the
//! first fragment.
//!
//! The pipeline has a first fragment noted when it forwards it, so that later fragments follow
//! only where the first one was allowed to go. Bounded: the oldest entry makes room.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use foldhash::quality::RandomState;
use vswitch_api::PortNo;

use super::Tuple;
use crate::flow::FlowKey;
use crate::time::Timestamp;

/// What all fragments of one datagram have in common (RFC 791 section 3.2, RFC 8200 section
/// 4.5), and the port they come through: nobody elsewhere can ride on an allowed datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct DatagramId {
    in_port: PortNo,
    src: IpAddr,
    dst: IpAddr,
    proto: u8,
    id: u32,
}

impl DatagramId {
    pub(crate) fn new(key: &FlowKey, id: u32) -> Option<Self> {
        let (src, dst) = (key.ip_src?, key.ip_dst?);
        Some(Self {
            in_port: key.in_port,
            src,
            dst,
            proto: key.ip_proto,
            id,
        })
    }

    pub(crate) const fn in_port(&self) -> PortNo {
        self.in_port
    }
}

/// What the first fragment's transport header said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FirstFragment {
    pub(super) tuple: Tuple,
    pub(super) tp_src: u16,
    pub(super) tp_dst: u16,
    pub(super) expires: Timestamp,
}

/// First fragments by datagram. Each entry stands once in `order`, oldest first.
#[derive(Debug)]
pub(super) struct FragmentTable {
    limit: usize,
    entries: HashMap<DatagramId, FirstFragment, RandomState>,
    order: VecDeque<DatagramId>,
}

impl FragmentTable {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            entries: HashMap::default(),
            order: VecDeque::new(),
        }
    }

    /// Notes a first fragment; a datagram that reuses an identification replaces the old one.
    pub(super) fn note(&mut self, id: DatagramId, first: FirstFragment) {
        if self.entries.insert(id, first).is_some() {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
    }

    /// Returns what the first fragment of the datagram said, unless that is too long ago.
    pub(super) fn get(&self, id: &DatagramId, now: Timestamp) -> Option<FirstFragment> {
        self.entries
            .get(id)
            .copied()
            .filter(|first| now < first.expires)
    }

    /// Forgets what is past its time.
    pub(super) fn expire(&mut self, now: Timestamp) {
        let entries = &mut self.entries;
        self.order.retain(|id| {
            let keep = entries.get(id).is_some_and(|first| now < first.expires);
            if !keep {
                entries.remove(id);
            }
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn datagram(id: u32) -> DatagramId {
        let address = IpAddr::from([10, 0, 0, 1]);
        DatagramId {
            in_port: PortNo(1),
            src: address,
            dst: address,
            proto: 17,
            id,
        }
    }

    fn first(expires: Timestamp) -> FirstFragment {
        let address = IpAddr::from([10, 0, 0, 1]);
        let tuple = Tuple {
            src: address,
            dst: address,
            proto: 17,
            icmp_type: 0,
            tp_src: 1,
            tp_dst: 2,
        };
        FirstFragment {
            tuple,
            tp_src: 1,
            tp_dst: 2,
            expires,
        }
    }

    #[test]
    fn the_oldest_datagram_makes_room() {
        let start = Timestamp::default();
        let mut table = FragmentTable::new(3);
        for id in 0..10 {
            table.note(datagram(id), first(start + Duration::from_secs(30)));
            assert!(table.entries.len() <= 3 && table.order.len() <= 3);
        }
        assert_eq!(table.get(&datagram(6), start), None);
        assert!((7..10).all(|id| table.get(&datagram(id), start).is_some()));
    }

    #[test]
    fn expired_datagrams_leave_nothing_behind() {
        let start = Timestamp::default();
        let mut table = FragmentTable::new(10);
        for id in 0..4 {
            let time = Duration::from_secs(u64::from(id));
            table.note(datagram(id), first(start + time));
        }
        table.expire(start + Duration::from_secs(2));
        assert_eq!((table.entries.len(), table.order.len()), (1, 1));
    }
}
