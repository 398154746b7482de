//! Hashing for tables that only the control plane fills: rules, members of address sets.
//!
//! Packets choose what is looked up there, not what is filed: without a secret seed nobody
//! gains a way to lengthen a search. What packets do fill (connections, the FlowCache) is
//! hashed with a seed.

/// Odd, about half of its bits set: the fractional part of the golden ratio.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Takes one more word into a hash: multiplies, and folds the halves of the product, so that
/// each bit of the outcome depends on all of the word's.
#[inline]
pub(crate) fn mix(hash: u64, word: u64) -> u64 {
    // The addend keeps zero from staying zero.
    let product = u128::from((hash ^ word).wrapping_add(MULTIPLIER)) * u128::from(MULTIPLIER);
    #[expect(clippy::cast_possible_truncation, reason = "takes the halves apart")]
    let [high, low] = [(product >> 64) as u64, product as u64];
    high ^ low
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::mix;

    /// Set numbers and addresses are small and dense: both ends of the hash, which choose the
    /// shard, the bucket and its tag, have to differ all the same.
    #[test]
    fn dense_words_spread_over_high_middle_and_low_bits() {
        let hashes: Vec<u64> = (0..4_096).map(|word| mix(mix(0, 7 << 32), word)).collect();
        for shift in [0, 32, 52] {
            let places: HashSet<u64> = hashes.iter().map(|hash| (hash >> shift) & 0xfff).collect();
            // Chance leaves 1/e of the places empty.
            assert!(places.len() > 4_096 / 2, "{} at {shift}", places.len());
        }
    }
}
