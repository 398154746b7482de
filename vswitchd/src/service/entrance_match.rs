//! What leads to a group of endpoints: one protocol and port of some addresses of one family.

use vswitch_datapath::flow::{AddressMatch, Match, PortRange, ether_type};

/// Demands packets of a family to `addresses` at `number` of the IP protocol `proto`.
pub(super) fn to_port(is_ipv6: bool, proto: u8, addresses: AddressMatch, number: u16) -> Match {
    Match {
        eth_type: Some(ether_type::of_ip(is_ipv6)),
        ip_proto: Some(proto),
        ip_dst: Some(addresses),
        tp_dst: Some(PortRange {
            first: number,
            last: number,
        }),
        ..Match::default()
    }
}
