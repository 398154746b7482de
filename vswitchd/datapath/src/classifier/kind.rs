//! Kinds of packets by EtherType and protocol, which the lanes are indexed by.

use crate::flow::{ether_type, ip_proto};

/// The kinds of packets that most rules are for one of. A lookup passes by the lanes of other
/// kinds without a glance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Kind(u8);

/// EtherType and protocol of each kind; `None` for what it leaves open.
const KINDS: [(Option<u16>, Option<u8>); Kind::COUNT] = [
    (None, None),
    (Some(ether_type::ARP), None),
    (Some(ether_type::IPV4), None),
    (Some(ether_type::IPV4), Some(ip_proto::TCP)),
    (Some(ether_type::IPV4), Some(ip_proto::UDP)),
    (Some(ether_type::IPV6), None),
    (Some(ether_type::IPV6), Some(ip_proto::TCP)),
    (Some(ether_type::IPV6), Some(ip_proto::UDP)),
];

impl Kind {
    pub(super) const COUNT: usize = 8;

    /// Returns the kind of a packet.
    pub(super) const fn of(eth_type: u16, proto: u8) -> Self {
        Self(match (eth_type, proto) {
            (ether_type::ARP, _) => 1,
            (ether_type::IPV4, ip_proto::TCP) => 3,
            (ether_type::IPV4, ip_proto::UDP) => 4,
            (ether_type::IPV4, _) => 2,
            (ether_type::IPV6, ip_proto::TCP) => 6,
            (ether_type::IPV6, ip_proto::UDP) => 7,
            (ether_type::IPV6, _) => 5,
            _ => 0,
        })
    }

    /// Returns every kind.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..).take(Self::COUNT).map(Self)
    }

    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }

    /// Returns what the packets of this kind have in common: EtherType and protocol.
    pub(super) fn common(self) -> (Option<u16>, Option<u8>) {
        KINDS.get(self.index()).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kind_leaves_open_is_all_that_its_packets_differ_in() {
        for (eth_type, proto) in [
            (ether_type::IPV4, ip_proto::TCP),
            (ether_type::IPV6, ip_proto::UDP),
            (ether_type::IPV6, ip_proto::ICMPV6),
            (ether_type::ARP, 1),
            (0x88cc, 0),
        ] {
            let (kind_type, kind_proto) = KINDS[Kind::of(eth_type, proto).index()];
            assert!(kind_type.is_none_or(|kind| kind == eth_type));
            assert!(kind_proto.is_none_or(|kind| kind == proto));
        }
        assert!(Kind::all().zip(KINDS).all(|(kind, (eth_type, proto))| {
            eth_type.is_none_or(|it| Kind::of(it, proto.unwrap_or(u8::MAX)) == kind)
        }));
    }
}
