// SPDX-License-Identifier: Apache-2.0
//! Views: what a reader sees, captured whole by one pointer.
//!
//! Owns      the published state of a store and the reads over its layers.
//! Holds     1. a published state never changes: stamp, meta, lengths, overlays and checkpoint go together;
//!           2. a view keeps its overlays and its checkpoint alive, so nothing it can reach is reused;
//!           3. append trees are captured by length, so they are a true snapshot; of an ordered key a view
//!              sees the newest committed value, which its owner filters by revision.
//! Never     blocks on a writer for longer than one batch takes to merge.

use std::fmt;
use std::ops::{Bound, Deref};
use std::sync::Arc;

use bytes::Bytes;

use crate::checkpoint::Checkpoint;
use crate::cursor::Cursor;
use crate::error::Result;
use crate::overlay::Overlay;
use crate::schema::{TreeDef, TreeKind, Trees};
use crate::tree::ValueRef;

/// Number of a commit since the store was opened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Seq(pub u64);

/// What a commit says about itself. It reaches the disk in the slot of the checkpoint that folds it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CommitMeta {
    /// The newest log index whose effect the commit contains.
    pub applied_index: u64,
    /// The term of that index.
    pub applied_term: u64,
    /// The owner's own: at most [`OWNER_META_BYTES_MAX`] bytes, opaque here.
    pub owner: Bytes,
}

/// Most bytes of [`CommitMeta::owner`]: they are part of a commit slot.
pub const OWNER_META_BYTES_MAX: usize = 512;

/// One state of the store, replaced as a whole by a commit, a freeze or a checkpoint.
#[derive(Clone)]
pub(crate) struct Published {
    pub(crate) trees: Arc<Trees>,
    pub(crate) seq: Seq,
    pub(crate) stamp: u64,
    pub(crate) meta: CommitMeta,
    pub(crate) active: Captured,
    pub(crate) frozen: Option<Frozen>,
    pub(crate) checkpoint: Arc<Checkpoint>,
}

/// A frozen overlay and the commit that it ends with.
#[derive(Clone)]
pub(crate) struct Frozen {
    pub(crate) captured: Captured,
    pub(crate) seq: Seq,
    pub(crate) stamp: u64,
    pub(crate) meta: CommitMeta,
}

/// An overlay as far as it is published.
#[derive(Clone)]
pub(crate) struct Captured {
    pub(crate) overlay: Arc<Overlay>,
    /// Lengths of the append logs by place in the schema.
    pub(crate) append_lens: Arc<[usize]>,
}

impl Captured {
    pub(crate) fn new(overlay: Arc<Overlay>) -> Self {
        let append_lens = overlay.append_lens();
        Self { overlay, append_lens }
    }

    fn get(&self, kind: TreeKind, place: usize, key: &[u8]) -> Option<Option<Bytes>> {
        match kind {
            TreeKind::Append => {
                let found = self.overlay.append_log(place).get(self.append_lens[place], key);
                found.map(|value| Some(value.clone()))
            }
            TreeKind::Ordered => self.overlay.ordered().get(place, key).map(|cell| cell.value.clone()),
        }
    }
}

impl Published {
    /// The overlays, newest first.
    pub(crate) fn overlays(&self) -> impl Iterator<Item = &Captured> {
        std::iter::once(&self.active).chain(self.frozen.as_ref().map(|frozen| &frozen.captured))
    }

    pub(crate) fn get(&self, kind: TreeKind, place: usize, key: &[u8]) -> Result<Option<Value>> {
        for layer in self.overlays() {
            if let Some(found) = layer.get(kind, place, key) {
                return Ok(found.map(Value::from));
            }
        }
        Ok(self.checkpoint.get(place, key)?.map(|value| Value::from_tree(value, &self.checkpoint)))
    }

    fn weight(&self, kind: TreeKind, place: usize, lo: Bound<&[u8]>, hi: Bound<&[u8]>) -> Result<(u64, u64)> {
        match kind {
            TreeKind::Append => {
                let overlays = self.overlays().map(|layer| layer.append_weight(place, lo, hi)).sum::<u64>();
                Ok((overlays + self.checkpoint.weight(place, lo, hi)?, self.stamp))
            }
            TreeKind::Ordered => {
                // Neither the tree nor the frozen overlay can change, so the sum is true at the active
                // overlay's stamp.
                let tree = self.checkpoint.weight(place, lo, hi)?;
                let (active, stamp) = self.active.overlay.delta(place, lo, hi);
                let frozen = self.frozen.as_ref().map_or(0, |f| f.captured.overlay.delta(place, lo, hi).0);
                let weight = tree.checked_add_signed(active + frozen);
                Ok((weight.expect("deltas never take more than the layers below have"), stamp))
            }
        }
    }
}

impl Captured {
    fn append_weight(&self, place: usize, lo: Bound<&[u8]>, hi: Bound<&[u8]>) -> u64 {
        let log = self.overlay.append_log(place);
        let len = self.append_lens[place];
        let after = |key: &[u8]| {
            let rank = log.rank(len, key);
            rank + usize::from(rank < len && log.entry(rank).key.as_slice() == key)
        };
        let start = match lo {
            Bound::Unbounded => 0,
            Bound::Included(key) => log.rank(len, key),
            Bound::Excluded(key) => after(key),
        };
        let end = match hi {
            Bound::Unbounded => len,
            Bound::Included(key) => after(key),
            Bound::Excluded(key) => log.rank(len, key),
        };
        if end <= start { 0 } else { log.weight_below(end) - log.weight_below(start) }
    }
}

/// A reader's view of the store. Cheap to make and to clone, and never in a writer's way.
#[derive(Clone)]
pub struct View(pub(crate) Arc<Published>);

impl View {
    /// The value of `key`. One search in each overlay, then one descent of the tree.
    pub fn get(&self, tree: &TreeDef, key: &[u8]) -> Result<Option<Value>> {
        self.0.get(tree.kind, self.0.trees.place(tree), key)
    }

    /// A cursor before the first entry of `tree`.
    pub fn cursor(&self, tree: &TreeDef) -> Cursor<'static> {
        Cursor::over(Arc::clone(&self.0), tree, None)
    }

    /// Sum of the weights of the entries in range, and the stamp at which that sum is true: for an
    /// append tree the view's own, for an ordered tree that of the newest commit the view's overlays hold.
    ///
    /// O(log n), but for a partial range of an ordered tree also a walk over the runs of cells that the active
    /// overlay has in that range, each of which knows its sum.
    pub fn weight(&self, tree: &TreeDef, lo: Bound<&[u8]>, hi: Bound<&[u8]>) -> Result<(u64, u64)> {
        self.0.weight(tree.kind, self.0.trees.place(tree), lo, hi)
    }

    /// The owner's stamp of the newest commit in the view.
    pub fn stamp(&self) -> u64 {
        self.0.stamp
    }

    /// What the newest commit in the view said about itself.
    pub fn meta(&self) -> &CommitMeta {
        &self.0.meta
    }

    /// The newest commit in the view.
    pub fn seq(&self) -> Seq {
        self.0.seq
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("seq", &self.0.seq).field("stamp", &self.0.stamp).finish_non_exhaustive()
    }
}

/// A value, and a hold on whatever keeps its bytes in place. Cheap to clone.
#[derive(Clone)]
pub struct Value(Held);

#[derive(Clone)]
enum Held {
    Memory(Bytes),
    /// Bytes of the tree file, and the checkpoint that keeps their pages from being written again.
    Tree {
        value: ValueRef,
        checkpoint: Arc<Checkpoint>,
    },
}

impl Value {
    /// The bytes on their own: as they are if they are in memory, else a copy, so that what is kept
    /// for long does not hold a checkpoint.
    pub fn into_bytes(self) -> Bytes {
        match self.0 {
            Held::Memory(bytes) => bytes,
            Held::Tree { value, .. } => Bytes::copy_from_slice(&value),
        }
    }

    pub(crate) fn from_tree(value: ValueRef, checkpoint: &Arc<Checkpoint>) -> Self {
        Self(Held::Tree { value, checkpoint: Arc::clone(checkpoint) })
    }

    /// Where a value of the tree of `checkpoint` is kept, to be replaced by another one.
    pub(crate) fn of_tree(&mut self, checkpoint: &Arc<Checkpoint>) -> Option<&mut ValueRef> {
        match &mut self.0 {
            Held::Tree { value, checkpoint: held } if Arc::ptr_eq(held, checkpoint) => Some(value),
            _ => None,
        }
    }
}

impl From<Bytes> for Value {
    fn from(bytes: Bytes) -> Self {
        Self(Held::Memory(bytes))
    }
}

impl Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Held::Memory(bytes) => bytes,
            Held::Tree { value, .. } => value,
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({} bytes)", self.len())
    }
}
