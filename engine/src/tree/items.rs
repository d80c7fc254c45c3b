// SPDX-License-Identifier: Apache-2.0
//! Items: entries of one level in key order, on their way from old nodes and from input into new nodes.
//!
//! Owns      the bytes of those entries, and the arithmetic of how many fill a node.
//! Holds     1. keys are whole, so that separators can be cut from them;
//!           2. sums over the first items are kept, so that the size of a node is known without a walk.
//! Never     reads or writes pages.

use crate::format::blob::{BLOB_REF_BYTES, BlobRef};
use crate::format::node::{Cell, KEY_HEAD_BYTES, KEY_INLINE_MAX, Sums, encode, node_bytes};
use crate::page::NodePtr;

/// What an item brings along besides its key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Payload<'a> {
    /// Value, encoded [`BlobRef`], or encoded [`NodePtr`].
    pub bytes: &'a [u8],
    pub blob: bool,
    pub weight: u64,
}

/// Entries of one level, oldest first; taken from the front, node by node.
#[derive(Debug)]
pub(super) struct Items {
    level: u8,
    /// Keys and payloads, back to back.
    arena: Vec<u8>,
    /// What was taken from the front of `arena`, to which items count from.
    taken: usize,
    /// Sums of what was taken.
    base: Sums,
    items: Vec<Item>,
}

#[derive(Clone, Debug)]
struct Item {
    at: usize,
    key_len: usize,
    value_len: usize,
    tail: Option<BlobRef>,
    blob: bool,
    weight: u64,
    /// Sums up to and with this item.
    sums: Sums,
}

impl Items {
    pub fn new(level: u8) -> Items {
        Items { level, arena: Vec::new(), taken: 0, base: Sums::default(), items: Vec::new() }
    }

    pub fn level(&self) -> u8 {
        self.level
    }

    fn is_leaf(&self) -> bool {
        self.level == 0
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Adds an entry behind the others. `tail` is where the rest of a long key already lies, if it does.
    pub fn push(&mut self, key: &[u8], tail: Option<BlobRef>, payload: Payload<'_>) {
        let at = self.taken + self.arena.len();
        self.arena.extend_from_slice(key);
        self.arena.extend_from_slice(payload.bytes);
        let mut sums = self.items.last().map_or(self.base, |last| last.sums);
        let long = key.len() > KEY_INLINE_MAX;
        sums.count += 1;
        sums.long_keys += usize::from(long);
        sums.blobs += usize::from(payload.blob);
        sums.keys += kept_key_bytes(key.len());
        sums.values += payload.bytes.len();
        let (key_len, value_len) = (key.len(), payload.bytes.len());
        let Payload { blob, weight, .. } = payload;
        self.items.push(Item { at, key_len, value_len, tail, blob, weight, sums });
    }

    pub fn push_child(&mut self, separator: &[u8], tail: Option<BlobRef>, ptr: &NodePtr) {
        let payload = Payload { bytes: &ptr.encode(), blob: false, weight: ptr.weight };
        self.push(separator, tail, payload);
    }

    /// Whether `key` may come next.
    pub fn ends_below(&self, key: &[u8]) -> bool {
        self.len().checked_sub(1).is_none_or(|last| self.key(last) < key)
    }

    /// Moves all of `other` behind the items of `self`.
    pub fn append(&mut self, other: Items) {
        for index in 0..other.len() {
            self.push(other.key(index), other.tail(index), other.payload(index));
        }
    }

    pub fn key(&self, index: usize) -> &[u8] {
        let item = &self.items[index];
        &self.arena[item.at - self.taken..][..item.key_len]
    }

    pub fn tail(&self, index: usize) -> Option<BlobRef> {
        self.items[index].tail
    }

    pub fn set_tail(&mut self, index: usize, tail: BlobRef) {
        self.items[index].tail = Some(tail);
    }

    /// Whether the key needs a tail, wherever it is now.
    pub fn is_long(&self, index: usize) -> bool {
        self.items[index].key_len > KEY_INLINE_MAX
    }

    pub fn payload(&self, index: usize) -> Payload<'_> {
        let item = &self.items[index];
        let bytes = &self.arena[item.at - self.taken + item.key_len..][..item.value_len];
        Payload { bytes, blob: item.blob, weight: item.weight }
    }

    pub fn child(&self, index: usize) -> NodePtr {
        assert!(!self.is_leaf(), "a leaf has no children");
        NodePtr::decode(self.payload(index).bytes.try_into().expect("push_child wrote a pointer"))
    }

    pub fn pop(&mut self) -> Option<(Vec<u8>, Option<BlobRef>, NodePtr)> {
        let last = self.len().checked_sub(1)?;
        let popped = (self.key(last).to_vec(), self.tail(last), self.child(last));
        let item = self.items.pop()?;
        self.arena.truncate(item.at - self.taken);
        Some(popped)
    }

    /// Bytes of a node of the first `count` items.
    pub fn node_bytes(&self, count: usize) -> usize {
        let Some(last) = count.checked_sub(1) else { return 0 };
        let (end, base) = (&self.items[last].sums, &self.base);
        let mut sums = Sums {
            count,
            long_keys: end.long_keys - base.long_keys,
            blobs: end.blobs - base.blobs,
            keys: end.keys - base.keys,
            values: end.values - base.values,
        };
        if !self.is_leaf() {
            sums.keys -= kept_key_bytes(self.items[0].key_len);
            sums.long_keys -= usize::from(self.is_long(0));
        }
        node_bytes(self.is_leaf(), &sums, self.prefix_len(count))
    }

    /// The most items, and at least `least`, whose node has at most `bytes`.
    pub fn fitting(&self, bytes: usize, least: usize) -> usize {
        let (mut fits, mut over) = (least.min(self.len()), self.len() + 1);
        while over - fits > 1 {
            let middle = fits + (over - fits) / 2;
            if self.node_bytes(middle) <= bytes { fits = middle } else { over = middle }
        }
        fits
    }

    pub fn weight(&self, count: usize) -> u64 {
        self.items[..count].iter().fold(0, |sum, item| sum.saturating_add(item.weight))
    }

    /// Encodes a node of the first `count` items. Long keys have their tails by now.
    pub fn encode(&self, tree: u8, level: u8, count: usize) -> Vec<u8> {
        let prefix = if self.is_leaf() || count > 1 {
            let first = usize::from(!self.is_leaf());
            &self.key(first)[..self.prefix_len(count)]
        } else {
            &[]
        };
        encode(tree, level, prefix, count, |index| {
            let (key, payload) = (self.key(index), self.payload(index));
            let stored = self.is_leaf() || index > 0;
            let tail = if stored && self.is_long(index) {
                Some(self.tail(index).expect("the tail of a long key is written before its node"))
            } else {
                None
            };
            Cell { key: &key[..kept_head(key.len())], tail, value: payload.bytes, blob: payload.blob }
        })
    }

    /// Takes the first `count` items away.
    pub fn drop_front(&mut self, count: usize) {
        let Some(last) = count.checked_sub(1) else { return };
        self.base = self.items[last].sums;
        let start = self.items.get(count).map_or(self.taken + self.arena.len(), |next| next.at);
        self.arena.drain(..start - self.taken);
        self.taken = start;
        self.items.drain(..count);
    }

    /// How many bytes the stored keys of the first `count` items share.
    fn prefix_len(&self, count: usize) -> usize {
        let first = usize::from(!self.is_leaf());
        if count <= first {
            return 0;
        }
        let (low, high) = (self.key(first), self.key(count - 1));
        // Keys are in order, so what the first and the last share, all share; of a long key the node keeps a head.
        let kept = kept_head(low.len()).min(kept_head(high.len()));
        let shared = shared_len(low, high).min(kept);
        if self.items[count - 1].sums.long_keys > self.base.long_keys {
            shared.min(KEY_HEAD_BYTES)
        } else {
            shared
        }
    }
}

/// How many bytes two keys share from the start.
pub(super) fn shared_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The shortest key that is above `low` and not above `high`.
pub(super) fn separator<'a>(low: &[u8], high: &'a [u8]) -> &'a [u8] {
    &high[..(shared_len(low, high) + 1).min(high.len())]
}

fn kept_head(key_len: usize) -> usize {
    if key_len > KEY_INLINE_MAX { KEY_HEAD_BYTES } else { key_len }
}

fn kept_key_bytes(key_len: usize) -> usize {
    if key_len > KEY_INLINE_MAX { KEY_HEAD_BYTES + BLOB_REF_BYTES } else { key_len }
}
