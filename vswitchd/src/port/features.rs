//! Offload features of a device, switched off by name as `ethtool -K` does.
//!
//! A pod's kernel leaves to its veth what the veth says it can do. What the virtio-net header has
//! no words for must not be left to it: it would reach the switch undescribed and leave it
//! broken. Called by `host` when it makes a pair. Names, not bit numbers, are the kernel's
//! interface (`linux/ethtool.h`, ETH_SS_FEATURES): the bits move between kernels.

use vswitch_api::IfName;

use super::{PortError, sys};
use crate::netns::{NetnsFile, in_netns};

/// What a veth does by default that the virtio-net header of a packet socket cannot describe.
///
/// Tunnel segmentation: the header has one segment size and no place for the inner headers, so a
/// super-frame in a tunnel looks like one in plain TCP. SCTP: its CRC32c is no Internet checksum,
/// the only kind that the header can ask to be completed; its super-frames have no GSO type.
pub const UNDESCRIBED_FEATURES: [&str; 8] = [
    "tx-udp_tnl-segmentation",
    "tx-udp_tnl-csum-segmentation",
    "tx-gre-segmentation",
    "tx-gre-csum-segmentation",
    "tx-ipxip4-segmentation",
    "tx-ipxip6-segmentation",
    "tx-checksum-sctp",
    "tx-sctp-segmentation",
];

/// Switches features of a device off, in `netns` or in the caller's namespace; those that the
/// kernel does not know, or that are off, stay as they are. Blocks.
///
/// # Errors
///
/// [`PortError`] if there is no such device or the kernel refuses.
pub fn disable_features(
    ifname: &IfName,
    netns: Option<&NetnsFile>,
    names: &[&str],
) -> Result<(), PortError> {
    match netns {
        None => disable_here(ifname, names),
        Some(netns) => {
            in_netns(netns, || disable_here(ifname, names)).map_err(|source| PortError::Netns {
                ifname: ifname.clone(),
                source,
            })?
        }
    }
}

fn disable_here(ifname: &IfName, names: &[&str]) -> Result<(), PortError> {
    let failed = |(step, source)| PortError::Features {
        ifname: ifname.clone(),
        step,
        source,
    };
    let socket = sys::control_socket().map_err(|source| failed(("socket", source)))?;
    sys::if_index(&socket, ifname.as_str()).map_err(|source| PortError::FindInterface {
        ifname: ifname.clone(),
        source,
    })?;
    let known = sys::feature_names(&socket, ifname.as_str()).map_err(failed)?;
    let unwanted: Vec<bool> = known
        .iter()
        .map(|name| names.contains(&name.as_str()))
        .collect();
    sys::clear_features(&socket, ifname.as_str(), &unwanted).map_err(failed)
}
