// SPDX-License-Identifier: Apache-2.0
//! Cursors: one order over all layers of a tree, in both directions.
//!
//! Owns      the merge of a transaction's own writes, the active overlay, the frozen one and the tree.
//! Holds     1. a cursor stands in a gap between keys: `next` gives the entry after the gap, `prev` the
//!              one before it, and either moves the gap past it;
//!           2. of several layers with a key the newest one decides, and its tombstone hides the rest;
//!           3. no lock is held between calls: ordered overlays are copied a bounded number of cells at
//!              a time, so a long scan sees keys written meanwhile at most once, in order;
//!           4. after its first error a cursor gives that error and nothing else: data cannot be skipped.
//! Never     hands out an entry that a checkpoint could reuse: it holds its view.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::overlay::{
    AppendLog, Batch, CELLS_A_LOCK_HOLD, KeyCell, OrderedMap, Overlay, copy_back, copy_forward,
};
use crate::schema::{AppendKey, TreeDef, TreeKind};
use crate::tree::{self, Entry, join_into};
use crate::treefile;
use crate::view::{Published, Value};

/// A walk over one tree of a view, or of a transaction and what it has written.
pub struct Cursor<'t> {
    /// Newest first.
    layers: Vec<Layer<'t>>,
    gap: Gap,
    direction: Option<Direction>,
    key: Vec<u8>,
    value: Option<Value>,
    failed: Option<Error>,
    /// Keeps the overlays and the checkpoint that the layers read.
    view: Arc<Published>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Back,
}

/// Where the cursor stands: at an end, or beside `Cursor::key`.
#[derive(Clone, Copy)]
enum Gap {
    Start,
    /// Just before where the key is, or would be.
    Before,
    /// Just after it.
    After,
    End,
}

impl Gap {
    /// The bound of what lies in `direction` from here; `None` if nothing does.
    fn bound(self, key: &[u8], direction: Direction) -> Option<Bound<&[u8]>> {
        match (self, direction) {
            (Gap::Start, Direction::Forward) | (Gap::End, Direction::Back) => Some(Bound::Unbounded),
            (Gap::Start, Direction::Back) | (Gap::End, Direction::Forward) => None,
            (Gap::Before, Direction::Forward) | (Gap::After, Direction::Back) => Some(Bound::Included(key)),
            (Gap::After, Direction::Forward) | (Gap::Before, Direction::Back) => Some(Bound::Excluded(key)),
        }
    }
}

impl<'t> Cursor<'t> {
    /// A cursor at the start of `tree`, over `own` if there are uncommitted writes to see.
    pub(crate) fn over(view: Arc<Published>, tree: &TreeDef, own: Option<&'t Batch>) -> Self {
        let place = view.trees.place(tree);
        let mut layers = Vec::with_capacity(4);
        match tree.kind {
            TreeKind::Append => {
                layers.extend(own.map(|batch| Layer::OwnAppend { entries: &batch.append[place], at: 0 }));
                let filled = view.overlays().filter(|layer| layer.append_lens[place] > 0);
                layers.extend(filled.map(|layer| Layer::Append {
                    overlay: Arc::clone(&layer.overlay),
                    place,
                    len: layer.append_lens[place],
                    at: 0,
                }));
            }
            TreeKind::Ordered => {
                let own = own.map(|batch| Source::Own(&batch.ordered[place]));
                let shared = view.overlays().map(|layer| Source::Shared(Arc::clone(&layer.overlay), place));
                layers
                    .extend(own.into_iter().chain(shared).map(|source| Layer::Ordered(Copied::new(source))));
            }
        }
        layers.push(Layer::Tree(Box::new(TreeLayer::new(view.checkpoint.cursor(place)))));
        Self { layers, gap: Gap::Start, direction: None, key: Vec::new(), value: None, failed: None, view }
    }

    /// Moves to the gap before the first entry at or after `key`.
    pub fn seek(&mut self, key: &[u8]) {
        self.settle_at(key, Gap::Before);
    }

    /// Moves to the gap after `key`, whether it is there or not.
    pub fn seek_after(&mut self, key: &[u8]) {
        self.settle_at(key, Gap::After);
    }

    /// Moves before the first entry.
    pub fn seek_start(&mut self) {
        self.settle(Gap::Start);
    }

    /// Moves after the last entry.
    pub fn seek_end(&mut self) {
        self.settle(Gap::End);
    }

    fn settle_at(&mut self, key: &[u8], gap: Gap) {
        self.key.clear();
        self.key.extend_from_slice(key);
        self.settle(gap);
    }

    fn settle(&mut self, gap: Gap) {
        self.gap = gap;
        self.direction = None;
    }

    /// The entry after the cursor, which moves past it.
    #[expect(clippy::should_implement_trait, reason = "lends from the cursor, which an Iterator cannot")]
    pub fn next(&mut self) -> Result<Option<(&[u8], &Value)>> {
        self.step(Direction::Forward)
    }

    /// The entry before the cursor, which moves before it.
    pub fn prev(&mut self) -> Result<Option<(&[u8], &Value)>> {
        self.step(Direction::Back)
    }

    fn step(&mut self, direction: Direction) -> Result<Option<(&[u8], &Value)>> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        match self.advance(direction) {
            Ok(true) => Ok(self.value.as_ref().map(|value| (&self.key[..], value))),
            Ok(false) => Ok(None),
            Err(error) => {
                self.failed = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Takes the nearest live entry in `direction` into `key` and `value`.
    fn advance(&mut self, direction: Direction) -> Result<bool> {
        if self.direction != Some(direction) {
            let Some(bound) = self.gap.bound(&self.key, direction) else { return Ok(false) };
            for layer in &mut self.layers {
                layer.seek(bound, direction)?;
            }
            self.direction = Some(direction);
        }
        loop {
            let Some(nearest) = self.nearest(direction)? else {
                self.settle(match direction {
                    Direction::Forward => Gap::End,
                    Direction::Back => Gap::Start,
                });
                return Ok(false);
            };
            self.layers[nearest].take(&self.view.checkpoint, &mut self.key, &mut self.value)?;
            for (i, layer) in self.layers.iter_mut().enumerate() {
                if i == nearest || layer.head_key()?.is_some_and(|key| key == self.key) {
                    layer.pass(direction);
                }
            }
            self.gap = match direction {
                Direction::Forward => Gap::After,
                Direction::Back => Gap::Before,
            };
            if self.value.is_some() {
                return Ok(true);
            }
        }
    }

    /// The newest of the layers whose head comes first in `direction`.
    fn nearest(&mut self, direction: Direction) -> Result<Option<usize>> {
        let mut nearest: Option<(usize, &[u8])> = None;
        for (i, layer) in self.layers.iter_mut().enumerate() {
            let Some(key) = layer.head_key()? else { continue };
            let closer = nearest.is_none_or(|(_, best)| match direction {
                Direction::Forward => key < best,
                Direction::Back => key > best,
            });
            if closer {
                nearest = Some((i, key));
            }
        }
        Ok(nearest.map(|(i, _)| i))
    }
}

/// One layer's entries in the cursor's direction; its head is the next one.
enum Layer<'t> {
    OwnAppend { entries: &'t [(AppendKey, Bytes)], at: usize },
    Append { overlay: Arc<Overlay>, place: usize, len: usize, at: usize },
    Ordered(Copied<'t>),
    Tree(Box<TreeLayer>),
}

/// A position in `0..len` that falls past either end as `len` or `usize::MAX`.
fn start_at(
    bound: Bound<&[u8]>,
    direction: Direction,
    len: usize,
    rank: impl Fn(&[u8], bool) -> usize,
) -> usize {
    match (direction, bound) {
        (Direction::Forward, Bound::Unbounded) => 0,
        (Direction::Forward, Bound::Included(key)) => rank(key, false),
        (Direction::Forward, Bound::Excluded(key)) => rank(key, true),
        (Direction::Back, Bound::Unbounded) => len.wrapping_sub(1),
        (Direction::Back, Bound::Included(key)) => rank(key, true).wrapping_sub(1),
        (Direction::Back, Bound::Excluded(key)) => rank(key, false).wrapping_sub(1),
    }
}

fn log_rank(log: &AppendLog, len: usize, key: &[u8], past: bool) -> usize {
    let rank = log.rank(len, key);
    rank + usize::from(past && rank < len && log.entry(rank).key.as_slice() == key)
}

impl Layer<'_> {
    fn seek(&mut self, bound: Bound<&[u8]>, direction: Direction) -> Result<()> {
        match self {
            Layer::OwnAppend { entries, at } => {
                *at = start_at(bound, direction, entries.len(), |key, past| {
                    entries.partition_point(|(k, _)| if past { &k[..] <= key } else { &k[..] < key })
                });
            }
            Layer::Append { overlay, place, len, at } => {
                let log = overlay.append_log(*place);
                *at = start_at(bound, direction, *len, |key, past| log_rank(log, *len, key, past));
            }
            Layer::Ordered(copied) => copied.seek(bound, direction),
            Layer::Tree(tree) => tree.seek(bound, direction)?,
        }
        Ok(())
    }

    fn head_key(&mut self) -> Result<Option<&[u8]>> {
        Ok(match self {
            Layer::OwnAppend { entries, at } => entries.get(*at).map(|(key, _)| &key[..]),
            Layer::Append { overlay, place, len, at } => {
                (*at < *len).then(|| &overlay.append_log(*place).entry(*at).key[..])
            }
            Layer::Ordered(copied) => copied.head().map(|(key, _)| &key[..]),
            Layer::Tree(tree) => tree.head()?.map(|entry| entry.key()),
        })
    }

    /// Copies the head, which there is; the value is `None` if it is a tombstone.
    fn take(
        &mut self,
        checkpoint: &Arc<Checkpoint>,
        to: &mut Vec<u8>,
        value: &mut Option<Value>,
    ) -> Result<()> {
        let (key, held) = match self {
            Layer::OwnAppend { entries, at } => {
                let (key, held) = &entries[*at];
                (&key[..], Some(held.clone()))
            }
            Layer::Append { overlay, place, at, .. } => {
                let entry = overlay.append_log(*place).entry(*at);
                (&entry.key[..], Some(entry.value.clone()))
            }
            Layer::Ordered(copied) => {
                let (key, held) = copied.head().expect("there is a head");
                (&key[..], held.clone())
            }
            Layer::Tree(tree) => {
                let entry = tree.head()?.expect("there is a head");
                match value.as_mut().and_then(|value| value.of_tree(checkpoint)) {
                    Some(kept) => entry.value_into(kept)?,
                    None => *value = Some(Value::from_tree(entry.value()?, checkpoint)),
                }
                join_into(to, entry.key(), &[]);
                return Ok(());
            }
        };
        join_into(to, key, &[]);
        *value = held.map(Value::from);
        Ok(())
    }

    fn pass(&mut self, direction: Direction) {
        match self {
            Layer::OwnAppend { at, .. } | Layer::Append { at, .. } => {
                *at = match direction {
                    Direction::Forward => *at + 1,
                    Direction::Back => at.wrapping_sub(1),
                };
            }
            Layer::Ordered(copied) => copied.at += 1,
            Layer::Tree(tree) => tree.passed = true,
        }
    }
}

/// The tree of the view's checkpoint.
struct TreeLayer {
    cursor: tree::Cursor<treefile::Source>,
    direction: Direction,
    /// The cursor's entry was taken: the next look moves on.
    passed: bool,
}

impl TreeLayer {
    fn new(cursor: tree::Cursor<treefile::Source>) -> Self {
        Self { cursor, direction: Direction::Forward, passed: false }
    }

    /// Stands on the first entry in `direction` from `bound`.
    fn seek(&mut self, bound: Bound<&[u8]>, direction: Direction) -> Result<()> {
        self.direction = direction;
        self.passed = true;
        match bound {
            Bound::Unbounded if direction == Direction::Forward => self.cursor.seek_first(),
            Bound::Unbounded => self.cursor.seek_last(),
            Bound::Included(key) | Bound::Excluded(key) => {
                self.cursor.seek(key)?;
                let past = matches!(bound, Bound::Excluded(_)) == (direction == Direction::Forward);
                if past && self.cursor.next()?.is_some_and(|entry| entry.key() != key) {
                    self.cursor.prev()?;
                }
                Ok(())
            }
        }
    }

    fn head(&mut self) -> Result<Option<Entry<'_, treefile::Source>>> {
        if std::mem::take(&mut self.passed) {
            match self.direction {
                Direction::Forward => self.cursor.next()?,
                Direction::Back => self.cursor.prev()?,
            };
        }
        Ok(self.cursor.current())
    }
}

enum Source<'t> {
    Own(&'t OrderedMap),
    Shared(Arc<Overlay>, usize),
}

/// An ordered map read through a copy of its next few cells.
struct Copied<'t> {
    source: Source<'t>,
    direction: Direction,
    cells: Vec<KeyCell>,
    at: usize,
    /// The copy reached the end of the map.
    ended: bool,
}

impl<'t> Copied<'t> {
    fn new(source: Source<'t>) -> Self {
        Self { source, direction: Direction::Forward, cells: Vec::new(), at: 0, ended: true }
    }

    fn seek(&mut self, bound: Bound<&[u8]>, direction: Direction) {
        self.direction = direction;
        self.cells.clear();
        self.copy(bound);
    }

    fn copy(&mut self, from: Bound<&[u8]>) {
        let (n, out) = (CELLS_A_LOCK_HOLD, &mut self.cells);
        match (&self.source, self.direction) {
            (Source::Own(map), Direction::Forward) => copy_forward(map, &OrderedMap::EMPTY, from, n, out),
            (Source::Own(map), Direction::Back) => copy_back(map, &OrderedMap::EMPTY, from, n, out),
            (Source::Shared(overlay, place), Direction::Forward) => {
                overlay.ordered().copy_forward(*place, from, n, out);
            }
            (Source::Shared(overlay, place), Direction::Back) => {
                overlay.ordered().copy_back(*place, from, n, out);
            }
        }
        self.at = 0;
        self.ended = self.cells.len() < CELLS_A_LOCK_HOLD;
    }

    fn head(&mut self) -> Option<&KeyCell> {
        if self.at == self.cells.len() && !self.ended {
            let last = self.cells.pop().expect("a copy that has not ended is full").0;
            self.cells.clear();
            self.copy(Bound::Excluded(&last));
        }
        self.cells.get(self.at)
    }
}
