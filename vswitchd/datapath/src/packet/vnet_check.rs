//! Checks a virtio-net header against its frame, so that later code may rely on it.

use super::parsed::Fragment;
use super::{VnetHeader, ethernet};
use crate::drop_reason::DropReason;
use crate::flow::{ether_type, ip_proto};

/// Checks the offsets and sizes (virtio 1.2, section 5.1.6.2).
///
/// `hdr_len` is only a hint there, and Linux states the linear part of its buffer in it:
/// it may be longer than the headers, but not longer than the frame.
#[inline]
pub(super) fn check_vnet(vnet: VnetHeader, frame_len: usize) -> Result<(), DropReason> {
    let checksum = usize::from(vnet.csum_start) + usize::from(vnet.csum_offset);
    let bad_checksum = vnet.needs_csum()
        && (usize::from(vnet.csum_start) < ethernet::HEADER_LEN || checksum + 2 > frame_len);
    let bad_gso = vnet.is_gso() && (vnet.gso_size == 0 || usize::from(vnet.hdr_len) > frame_len);
    let bad_type = !matches!(
        vnet.gso_type & !VnetHeader::GSO_ECN,
        VnetHeader::GSO_NONE
            | VnetHeader::GSO_TCPV4
            | VnetHeader::GSO_UDP
            | VnetHeader::GSO_TCPV6
            | VnetHeader::GSO_UDP_L4
    );
    if bad_checksum || bad_gso || bad_type {
        return Err(DropReason::MalformedVnetHeader);
    }
    Ok(())
}

/// Checks that a super-frame holds what its type says, and is no fragment.
#[inline]
pub(super) fn check_gso_type(
    vnet: VnetHeader,
    (eth_type, ip_proto): (u16, u8),
    fragment: Fragment,
) -> Result<(), DropReason> {
    let is = |eth, proto| eth_type == eth && ip_proto == proto;
    let fits = match vnet.gso_type & !VnetHeader::GSO_ECN {
        VnetHeader::GSO_NONE => return Ok(()),
        VnetHeader::GSO_TCPV4 => is(ether_type::IPV4, ip_proto::TCP),
        VnetHeader::GSO_TCPV6 => is(ether_type::IPV6, ip_proto::TCP),
        _ => is(ether_type::IPV4, ip_proto::UDP) || is(ether_type::IPV6, ip_proto::UDP),
    };
    if fits && fragment == Fragment::No {
        Ok(())
    } else {
        Err(DropReason::MalformedVnetHeader)
    }
}
