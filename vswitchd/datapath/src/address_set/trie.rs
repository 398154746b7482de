//! A path-compressed binary trie of networks whose versions share unchanged nodes.
//!
//! `prefix-trie` copies the whole map for a new version; here a change copies the path from
//! the root, at most one node for each bit. A lookup collects what stands at *every* prefix
//! of the address, because an address may be inside several networks of several sets.

use std::sync::Arc;

use super::set_id::{Ids, SetId, add_id, remove_id};

/// Networks of one family, addresses left-aligned in 128 bits.
#[derive(Debug, Clone, Default)]
pub(super) struct PrefixTrie {
    root: Option<Arc<Node>>,
}

#[derive(Debug, Clone)]
struct Node {
    bits: u128,
    len: u8,
    /// Sets that have this network as a member; empty at a mere fork.
    ids: Ids,
    children: [Option<Arc<Node>>; 2],
}

/// Returns the first `len` bits of `bits`.
const fn prefix(bits: u128, len: u8) -> u128 {
    if len == 0 {
        0
    } else {
        bits & (u128::MAX << (128 - len as u32))
    }
}

/// Returns the child that an address with these bits is under.
fn side(bits: u128, len: u8) -> usize {
    usize::from(len < 128 && (bits << len) >> 127 == 1)
}

impl PrefixTrie {
    /// Visits the sets of every network that holds the address, the widest first.
    #[inline]
    pub(super) fn visit<'s>(&'s self, address: u128, mut visit: impl FnMut(&'s [SetId])) {
        let mut next = &self.root;
        while let Some(node) = next {
            if prefix(address, node.len) != node.bits {
                return;
            }
            visit(&node.ids);
            let [zero, one] = &node.children;
            next = if side(address, node.len) == 0 {
                zero
            } else {
                one
            };
        }
    }

    /// Makes the network a member of the set.
    pub(super) fn insert(&mut self, bits: u128, len: u8, id: SetId) {
        insert(&mut self.root, prefix(bits, len), len, id);
    }

    /// Ends the membership of the network in the set.
    pub(super) fn remove(&mut self, bits: u128, len: u8, id: SetId) {
        remove(&mut self.root, prefix(bits, len), len, id);
    }
}

fn insert(slot: &mut Option<Arc<Node>>, bits: u128, len: u8, id: SetId) {
    let Some(node) = slot else {
        *slot = Some(Arc::new(Node {
            bits,
            len,
            ids: Ids::from_iter([id]),
            children: [None, None],
        }));
        return;
    };
    let common = common_len(node, bits, len);
    if common < node.len {
        fork(slot, bits, common);
        return insert(slot, bits, len, id);
    }
    let node = Arc::make_mut(node);
    if len == node.len {
        add_id(&mut node.ids, id);
        return;
    }
    insert(child_mut(node, bits), bits, len, id);
}

/// Returns how many leading bits the node and the network share.
fn common_len(node: &Node, bits: u128, len: u8) -> u8 {
    let same = u8::try_from((node.bits ^ bits).leading_zeros()).unwrap_or(128);
    same.min(node.len).min(len)
}

/// Puts a node of the first `len` bits above the one in the slot.
fn fork(slot: &mut Option<Arc<Node>>, bits: u128, len: u8) {
    let below = slot.take();
    let mut fork = Node {
        bits: prefix(bits, len),
        len,
        ids: Ids::default(),
        children: [None, None],
    };
    if let Some(node) = &below {
        let bits = node.bits;
        *child_mut(&mut fork, bits) = below;
    }
    *slot = Some(Arc::new(fork));
}

fn child_mut(node: &mut Node, bits: u128) -> &mut Option<Arc<Node>> {
    let side = side(bits, node.len);
    let [zero, one] = &mut node.children;
    if side == 0 { zero } else { one }
}

fn remove(slot: &mut Option<Arc<Node>>, bits: u128, len: u8, id: SetId) {
    let Some(node) = slot.as_mut() else { return };
    if node.len > len || prefix(bits, node.len) != node.bits {
        return;
    }
    let node = Arc::make_mut(node);
    if node.len == len {
        remove_id(&mut node.ids, id);
    } else {
        remove(child_mut(node, bits), bits, len, id);
    }
    if node.ids.is_empty() {
        match &mut node.children {
            [Some(_), Some(_)] => {}
            [only, None] | [None, only] => *slot = only.take(),
        }
    }
}
