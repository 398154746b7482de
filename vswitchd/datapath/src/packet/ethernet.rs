//! Ethernet II with up to two VLAN tags (IEEE 802.3, 802.1Q, 802.1ad).

use vswitch_api::MacAddr;

use super::bytes::{chunk, u16_at};
use crate::drop_reason::DropReason;
use crate::flow::ether_type;

/// Bytes of an untagged header.
pub(super) const HEADER_LEN: usize = 14;
/// Bytes of one VLAN tag.
pub(super) const TAG_LEN: usize = 4;
/// The bit of a TCI in the flow key that says that there is a tag (OVS uses the CFI bit).
pub(super) const TCI_PRESENT: u16 = 0x1000;
/// EtherType in the key of an IEEE 802.3 frame, whose field is a length (as in OVS).
pub(super) const NOT_ETHER_TYPE: u16 = 0x05ff;

/// Lowest number that is an EtherType and not a length.
const MIN_ETHER_TYPE: u16 = 0x0600;
const MAX_TAGS: usize = 2;

mod field {
    pub(super) const DST: usize = 0;
    pub(super) const SRC: usize = 6;
    pub(super) const ETHER_TYPE: usize = 12;
}

/// An Ethernet header with its tags.
#[derive(Debug, Clone, Copy)]
pub(super) struct EthernetView {
    pub(super) dst: MacAddr,
    pub(super) src: MacAddr,
    /// TCI of the outermost tag with [`TCI_PRESENT`], 0 if there is none.
    pub(super) vlan_tci: u16,
    /// EtherType behind the tags; a third tag's TPID stands here.
    pub(super) ether_type: u16,
    /// Where the payload starts.
    pub(super) payload: usize,
}

impl EthernetView {
    /// Reads the header and the tags.
    pub(super) fn new_checked(frame: &[u8]) -> Result<Self, DropReason> {
        Self::read(frame).ok_or(DropReason::Truncated)
    }

    fn read(frame: &[u8]) -> Option<Self> {
        let mut vlan_tci = 0;
        let mut at = field::ETHER_TYPE;
        let mut ether_type = u16_at(frame, at)?;
        for tag in 0..MAX_TAGS {
            if !is_vlan(ether_type) {
                break;
            }
            let tci = u16_at(frame, at + 2)?;
            if tag == 0 {
                vlan_tci = tci | TCI_PRESENT;
            }
            at += TAG_LEN;
            ether_type = u16_at(frame, at)?;
        }
        if ether_type < MIN_ETHER_TYPE {
            ether_type = NOT_ETHER_TYPE;
        }
        Some(Self {
            dst: MacAddr(*chunk(frame, field::DST)?),
            src: MacAddr(*chunk(frame, field::SRC)?),
            vlan_tci,
            ether_type,
            payload: at + 2,
        })
    }
}

/// Returns whether the EtherType announces a VLAN tag.
pub(super) const fn is_vlan(ether_type: u16) -> bool {
    matches!(ether_type, ether_type::VLAN | ether_type::QINQ)
}
