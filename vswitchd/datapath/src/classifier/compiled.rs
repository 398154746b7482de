//! Compiled match of a rule: mask, masked key, anchor, residual conditions.

use ipnet::IpNet;

use super::anchor::{Anchor, PreferredAnchor};
use super::beyond_mask::BeyondMask;
use super::packed::{flag, mac, split};
use super::words::{CT_WORD, ETH_TYPE_WORD, Mask, PROTO_SHIFT, TRANSPORT_WORD, WORDS, Words};
use crate::address_set::SetId;
use crate::flow::{AddressMatch, CtState, Match, PortRange, SetName};

/// A [`Match`] as value and mask, with the demands that a mask cannot express beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CompiledMatch {
    value: [u64; WORDS],
    mask: [u64; WORDS],
    pub(super) src_set: Option<SetId>,
    pub(super) dst_set: Option<SetId>,
    /// Ranges of more than one port.
    tp_src: Option<PortRange>,
    tp_dst: Option<PortRange>,
}

impl CompiledMatch {
    /// Compiles a match; `set_id` gives the number of each set that it names. `None` if it
    /// contradicts itself, so that no packet can match.
    pub(crate) fn compile(m: &Match, mut set_id: impl FnMut(&SetName) -> SetId) -> Option<Self> {
        let mut c = Self {
            value: [0; WORDS],
            mask: [0; WORDS],
            src_set: None,
            dst_set: None,
            tp_src: m.tp_src.filter(is_proper_range),
            tp_dst: m.tp_dst.filter(is_proper_range),
        };
        // Sets first: they have to be counted even where the rest contradicts itself.
        if let Some(AddressMatch::Set(name)) = &m.ip_src {
            c.src_set = Some(set_id(name));
        }
        if let Some(AddressMatch::Set(name)) = &m.ip_dst {
            c.dst_set = Some(set_id(name));
        }
        c.demand_port_and_ethernet(m);
        c.demand_addresses(m);
        c.demand_transport(m);
        m.is_satisfiable().then_some(c)
    }

    fn demand_port_and_ethernet(&mut self, m: &Match) {
        const MAC: u64 = !0xffff;
        self.demand(
            0,
            m.in_port.map(|port| u64::from(port.0) << 32),
            0xffff_ffff << 32,
        );
        self.demand(0, m.out_port.map(|port| u64::from(port.0)), 0xffff_ffff);
        self.demand(CT_WORD, m.eth_src.map(mac), MAC);
        self.demand(
            CT_WORD,
            m.class.map(|class| u64::from(class as u8) << 8),
            0xff00,
        );
        let state = m
            .ct_state
            .map(|state| (u64::from(state.value.0), u64::from(state.mask.0)));
        self.demand(CT_WORD, state.map(|s| s.0), state.map_or(0, |s| s.1));
        self.demand(2, m.eth_dst.map(mac), MAC);
        self.demand(2, m.is_tagged.map(|tagged| u64::from(tagged) << 12), 0x1000);
        self.demand(2, m.vlan_tci.map(u64::from), 0xffff);
        self.demand(ETH_TYPE_WORD, m.arp_sha.map(mac), MAC);
        self.demand(ETH_TYPE_WORD, m.eth_type.map(u64::from), 0xffff);
    }

    fn demand_addresses(&mut self, m: &Match) {
        if let Some(AddressMatch::Net(net)) = &m.ip_src {
            self.demand_net(4, net, flag::SRC_V4, flag::SRC_V6);
        }
        if let Some(AddressMatch::Net(net)) = &m.ip_dst {
            self.demand_net(6, net, flag::DST_V4, flag::DST_V6);
        }
        if let Some(target) = m.nd_target {
            self.demand_wide(8, target.to_bits(), u128::MAX);
            self.demand(TRANSPORT_WORD, Some(flag::ND_TARGET), flag::ND_TARGET);
        }
    }

    fn demand_net(&mut self, word: usize, net: &IpNet, v4_flag: u64, v6_flag: u64) {
        let is_family = match net {
            IpNet::V4(net) => {
                let mask = u128::from(net.netmask().to_bits());
                self.demand_wide(word, u128::from(net.addr().to_bits()), mask);
                v4_flag
            }
            IpNet::V6(net) => {
                self.demand_wide(word, net.addr().to_bits(), net.netmask().to_bits());
                v6_flag
            }
        };
        self.demand(TRANSPORT_WORD, Some(is_family), is_family);
    }

    fn demand_transport(&mut self, m: &Match) {
        let exact = |range: Option<PortRange>| range.filter(|r| r.first == r.last).map(|r| r.first);
        self.demand(
            TRANSPORT_WORD,
            exact(m.tp_src).map(|port| u64::from(port) << 48),
            0xffff << 48,
        );
        self.demand(
            TRANSPORT_WORD,
            exact(m.tp_dst).map(|port| u64::from(port) << 32),
            0xffff << 32,
        );
        self.demand(
            TRANSPORT_WORD,
            m.ip_proto.map(|proto| u64::from(proto) << PROTO_SHIFT),
            0xff << PROTO_SHIFT,
        );
        self.demand(
            TRANSPORT_WORD,
            m.is_later_fragment.map(u64::from),
            flag::LATER_FRAGMENT,
        );
    }

    fn demand_wide(&mut self, word: usize, value: u128, mask: u128) {
        let ([v0, v1], [m0, m1]) = (split(value), split(mask));
        self.demand(word, Some(v0), m0);
        self.demand(word + 1, Some(v1), m1);
    }

    fn demand(&mut self, word: usize, value: Option<u64>, mask: u64) {
        let (Some(value), Some(to), Some(under)) =
            (value, self.value.get_mut(word), self.mask.get_mut(word))
        else {
            return;
        };
        *to |= value & mask;
        *under |= mask;
    }

    /// Returns the words of the mask that are not zero, with their index.
    pub(super) fn mask(&self) -> Mask {
        self.mask
            .iter()
            .copied()
            .enumerate()
            .filter(|(_, mask)| *mask != 0)
            .collect()
    }

    /// Returns the demanded value of those words.
    pub(super) fn value(&self) -> Words {
        self.mask
            .iter()
            .zip(self.value)
            .filter(|(mask, _)| **mask != 0)
            .map(|(_, v)| v)
            .collect()
    }

    /// Returns whether the match tells a connection's first packet from its later ones.
    pub(super) fn tells_new_from_established(&self) -> bool {
        let bits = u64::from(CtState::NEW.0 | CtState::EST.0);
        self.mask.get(CT_WORD).is_some_and(|mask| mask & bits != 0)
    }

    /// Returns the set that a rule with this match is filed under.
    pub(super) fn anchor(&self, prefer: PreferredAnchor) -> Anchor {
        Anchor::choose(self.src_set, self.dst_set, prefer)
    }

    /// Returns the demands beside the mask; the anchor's set is demanded by where the rule is
    /// filed.
    pub(super) fn beyond_mask(&self, anchor: Anchor) -> BeyondMask {
        let mut beyond = BeyondMask::NONE.with_ports(self.tp_src, self.tp_dst);
        if let Some(set) = self.src_set
            && !matches!(anchor, Anchor::Source(_))
        {
            beyond = beyond.with_src_set(set);
        }
        if let Some(set) = self.dst_set
            && !matches!(anchor, Anchor::Destination(_))
        {
            beyond = beyond.with_dst_set(set);
        }
        beyond
    }
}

/// A single port is a matter of the mask, all ports are no demand. A range could be cut into
/// masks as well, but each would be a subtable of its own to probe, up to 30 for one range; so it
/// is compared on the few rules that a probe finds.
fn is_proper_range(range: &PortRange) -> bool {
    range.first != range.last && (range.first, range.last) != (0, u16::MAX)
}
