//! Neighbour discovery messages (RFC 4861) and what receivers must discard (its section 7.1).

use std::net::Ipv6Addr;

use vswitch_api::MacAddr;

use super::bytes::{chunk, u8_at};

/// Types of the messages.
pub(super) mod kind {
    pub(in super::super) const ROUTER_SOLICITATION: u8 = 133;
    pub(in super::super) const ROUTER_ADVERTISEMENT: u8 = 134;
    pub(in super::super) const NEIGHBOR_SOLICITATION: u8 = 135;
    pub(in super::super) const NEIGHBOR_ADVERTISEMENT: u8 = 136;
    pub(in super::super) const REDIRECT: u8 = 137;
}

mod option {
    pub(super) const SOURCE_LINK_LAYER: u8 = 1;
    pub(super) const TARGET_LINK_LAYER: u8 = 2;
}

const TARGET: usize = 8;
const SOLICITED_FLAG: u8 = 0x40;

/// What the IP header says of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct NdContext {
    pub(super) src: Ipv6Addr,
    pub(super) dst: Ipv6Addr,
    pub(super) hop_limit: u8,
    pub(super) has_fragment_header: bool,
}

/// What a valid message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct NdMessage {
    /// Target of a neighbour solicitation or advertisement.
    pub(super) target: Option<Ipv6Addr>,
    /// The link-layer option that belongs to the type.
    pub(super) link_layer: Option<MacAddr>,
}

/// Returns whether the ICMPv6 type is one of neighbour discovery.
pub(super) const fn is_nd(icmp_type: u8) -> bool {
    matches!(icmp_type, kind::ROUTER_SOLICITATION..=kind::REDIRECT)
}

/// Reads a message whose ICMPv6 checksum was verified; `None` if it must be discarded.
pub(super) fn parse(message: &[u8], ip: NdContext) -> Option<NdMessage> {
    let kind = u8_at(message, 0)?;
    let code = u8_at(message, 1)?;
    // RFC 6980: never fragmented, not even "atomic".
    if ip.hop_limit != 255 || code != 0 || ip.has_fragment_header {
        return None;
    }
    let (fixed_len, link_layer_option) = match kind {
        kind::ROUTER_SOLICITATION => (8, option::SOURCE_LINK_LAYER),
        kind::ROUTER_ADVERTISEMENT => (16, option::SOURCE_LINK_LAYER),
        kind::NEIGHBOR_SOLICITATION => (24, option::SOURCE_LINK_LAYER),
        kind::NEIGHBOR_ADVERTISEMENT => (24, option::TARGET_LINK_LAYER),
        _ => (40, option::TARGET_LINK_LAYER),
    };
    let link_layer = find_link_layer(message.get(fixed_len..)?, link_layer_option)?;
    let is_valid = match kind {
        kind::NEIGHBOR_SOLICITATION => is_valid_solicitation(ip, link_layer),
        kind::NEIGHBOR_ADVERTISEMENT => {
            // RFC 4861 section 7.1.2: one to a group was not asked for.
            !(ip.dst.is_multicast() && u8_at(message, 4)? & SOLICITED_FLAG != 0)
        }
        // RFC 4861 section 6.1.1.
        kind::ROUTER_SOLICITATION => !ip.src.is_unspecified() || link_layer.is_none(),
        // RFC 4861 sections 6.1.2 and 8.1.
        _ => ip.src.is_unicast_link_local(),
    };
    let target = match kind {
        kind::NEIGHBOR_SOLICITATION | kind::NEIGHBOR_ADVERTISEMENT => {
            Some(unicast_target(message)?)
        }
        _ => None,
    };
    is_valid.then_some(NdMessage { target, link_layer })
}

/// RFC 4861 section 7.1.1: duplicate address detection asks the solicited-node group and
/// has no link-layer address yet.
fn is_valid_solicitation(ip: NdContext, link_layer: Option<MacAddr>) -> bool {
    !ip.src.is_unspecified() || (is_solicited_node(ip.dst) && link_layer.is_none())
}

fn is_solicited_node(ip: Ipv6Addr) -> bool {
    matches!(
        ip.octets(),
        [0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, _, _, _]
    )
}

fn unicast_target(message: &[u8]) -> Option<Ipv6Addr> {
    let target = Ipv6Addr::from(*chunk::<16>(message, TARGET)?);
    (!target.is_multicast()).then_some(target)
}

/// Walks all options and returns the wanted link-layer address; the outer `None` if an
/// option is broken. The address may stand there once only: receivers differ in which of
/// two they believe, and the switch judges by one.
#[expect(
    clippy::option_option,
    reason = "broken, absent and present are three answers"
)]
fn find_link_layer(mut options: &[u8], wanted: u8) -> Option<Option<MacAddr>> {
    const ETHERNET_LEN: usize = 8;
    let mut found = None;
    while !options.is_empty() {
        // A length of zero gives an empty option, without the two bytes that each has.
        let (option, rest) = options.split_at_checked(usize::from(*options.get(1)?) * 8)?;
        if *option.first()? == wanted {
            if option.len() != ETHERNET_LEN || found.is_some() {
                return None;
            }
            found = Some(MacAddr(*chunk(option, 2)?));
        }
        options = rest;
    }
    Some(found)
}
