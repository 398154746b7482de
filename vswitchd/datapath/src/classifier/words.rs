//! The words of a packed key and the masks over them.

use smallvec::SmallVec;

/// Words of a packed key.
pub(super) const WORDS: usize = 11;

/// Index of the word that holds class and `ct_state` (low byte).
pub(super) const CT_WORD: usize = 1;

/// Index of the word that holds the EtherType (lowest 16 bits).
pub(super) const ETH_TYPE_WORD: usize = 3;

/// Index of the word that holds ports and protocol.
pub(super) const TRANSPORT_WORD: usize = 10;

/// Where the protocol stands in it.
pub(super) const PROTO_SHIFT: u32 = 16;

/// Index and bits of the words of a key that are looked at.
pub(super) type Mask = SmallVec<[(usize, u64); 4]>;

/// Words of a masked key: of rules that demand sets, no more than ports and protocol.
pub(super) type Words = SmallVec<[u64; 2]>;
