//! Names and MAC addresses that follow from an attachment, and the names of nft tables.
//!
//! Pure. The hash is part of the format: a daemon of a later version must find the veth
//! pairs of an earlier one under the same name.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use vswitch_api::{IfName, MacAddr};

/// What the host end of every veth pair starts with; 12 hexadecimal digits follow.
pub const HOST_VETH_PREFIX: &str = "vsw";

/// Digits behind the prefix: 3 + 12 fills the 15 bytes that the kernel allows.
const DIGITS: usize = 12;

/// Returns the name of the host end of a container's interface.
///
/// 48 bits: two of 10,000 attachments of one node share a name with a chance of 1 in
/// 5 million, and creating the second then fails with a clear error.
#[must_use]
pub fn host_ifname(container_id: &str, ifname: &IfName) -> IfName {
    let digest = digest(b"ifname", container_id, ifname) & 0xffff_ffff_ffff;
    format!("{HOST_VETH_PREFIX}{digest:012x}")
        .parse()
        .expect("3 + 12 characters of [a-z0-9] are an interface name")
}

/// Returns whether `name` looks like a result of [`host_ifname`].
pub(super) fn is_host_ifname(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|digits| {
        digits.len() == DIGITS
            && digits
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

/// Returns the MAC of the container's end: unicast, locally administered, the same for the
/// same attachment.
#[must_use]
pub fn container_mac(container_id: &str, ifname: &IfName) -> MacAddr {
    let [_, _, a, b, c, d, e, f] = digest(b"mac", container_id, ifname).to_be_bytes();
    // IEEE 802: bit 0 of the first octet is group, bit 1 is locally administered.
    MacAddr([(a & 0xfc) | 0x02, b, c, d, e, f])
}

/// FNV-1a over purpose, id and name with separators, finished with MurmurHash3's mixer,
/// because FNV's high bits hardly depend on the last byte (`eth0` against `eth1`).
fn digest(purpose: &[u8], container_id: &str, ifname: &IfName) -> u64 {
    let parts = [purpose, container_id.as_bytes(), ifname.as_str().as_bytes()];
    let bytes = parts
        .into_iter()
        .flat_map(|part| part.iter().copied().chain([0]));
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// Name of the daemon's nft tables: `vswitch`, or `vswitch_SUFFIX` where several daemons
/// share a network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct NftTable(String);

/// Text that cannot be the suffix of an nft table's name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not a table suffix (at most 16 of a-z, 0-9 and _)")]
pub struct NftTableError {
    text: String,
}

impl Default for NftTable {
    fn default() -> Self {
        Self("vswitch".to_owned())
    }
}

impl FromStr for NftTable {
    type Err = NftTableError;

    /// Takes the suffix; the empty one means the plain name.
    fn from_str(suffix: &str) -> Result<Self, Self::Err> {
        let is_word = suffix
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        match suffix {
            "" => Ok(Self::default()),
            _ if is_word && suffix.len() <= 16 => Ok(Self(format!("vswitch_{suffix}"))),
            _ => Err(NftTableError {
                text: suffix.to_owned(),
            }),
        }
    }
}

impl fmt::Display for NftTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn ifname(name: &str) -> IfName {
        name.parse().unwrap()
    }

    #[test]
    fn host_ifname_is_stable_and_recognised() {
        let name = host_ifname("0f1e2d3c", &ifname("eth0"));
        assert_eq!(name, host_ifname("0f1e2d3c", &ifname("eth0")));
        // Golden: a running node's links must be found after an upgrade.
        assert_eq!(name.as_str(), "vswcdb27fb6b15b");
        assert!(is_host_ifname(name.as_str(), HOST_VETH_PREFIX));
        for other in [
            "vsw0",
            "vsw0123456789",
            "vsw0123456789AB",
            "vsx0123456789ab",
            "vsw0123456789xy",
        ] {
            assert!(!is_host_ifname(other, HOST_VETH_PREFIX), "{other}");
        }
    }

    #[test]
    fn names_and_macs_differ_by_container_and_by_interface() {
        let pairs = [
            ("a", "eth0"),
            ("a", "eth1"),
            ("b", "eth0"),
            ("ae", "th0"),
            ("", "aeth0"),
        ];
        let names: HashSet<_> = pairs
            .iter()
            .map(|(id, i)| host_ifname(id, &ifname(i)))
            .collect();
        let macs: HashSet<_> = pairs
            .iter()
            .map(|(id, i)| container_mac(id, &ifname(i)))
            .collect();
        assert_eq!((names.len(), macs.len()), (pairs.len(), pairs.len()));
    }

    #[test]
    fn container_macs_are_unicast_and_locally_administered() {
        for id in 0..1000 {
            let mac = container_mac(&id.to_string(), &ifname("eth0"));
            assert_eq!(mac.0[0] & 0b11, 0b10, "{mac}");
        }
    }

    #[test]
    fn table_suffixes_cannot_smuggle_nft_syntax() {
        assert_eq!("".parse::<NftTable>().unwrap().to_string(), "vswitch");
        assert_eq!("n1".parse::<NftTable>().unwrap().to_string(), "vswitch_n1");
        for bad in ["a b", "a;", "A", "{", "\n", "0123456789abcdefg"] {
            assert!(bad.parse::<NftTable>().is_err(), "{bad}");
        }
    }
}
