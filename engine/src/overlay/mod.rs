// SPDX-License-Identifier: Apache-2.0
//! The overlay: what was applied since the last checkpoint, in memory. Active while it is written,
//! frozen while a checkpoint folds it into the tree file.
//!
//! Owns      the in-memory halves of all trees, and the count of bytes and entries in them.
//! Holds     1. one writer at a time (the store's writer lock), any number of readers;
//!           2. a batch enters the ordered halves under one lock, together with its stamp, so that a
//!              sum over them is true at exactly that stamp; a large one lies on top of them at once, and its
//!              cells are moved down over several holds of the lock, each of which has a bound;
//!           3. a frozen overlay never changes.
//! Never     opens a file, reads a clock, or knows what a key means.

mod append_log;
mod ordered;

use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, RwLock, RwLockReadGuard};

use bytes::Bytes;

pub(crate) use append_log::AppendLog;
pub(crate) use ordered::{Cell, DeltaRun, KeyCell, OrderedMap, copy_back, copy_forward};

use crate::holds::{Holds, Lock};
use crate::schema::{AppendKey, TreeKind, Trees};

/// Cells a cursor copies each time it takes the lock.
pub(crate) const CELLS_A_LOCK_HOLD: usize = 64;

/// Cells of a batch that are taken in each time the lock is taken.
const CELLS_A_MERGE: usize = 512;

/// Memory of an append entry beside its value.
const APPEND_OVERHEAD: usize = 64;

#[derive(Debug)]
pub(crate) struct Overlay {
    /// By place in the schema; `None` where the tree is ordered.
    append: Vec<Option<AppendLog>>,
    ordered: RwLock<OrderedHalf>,
    /// By place in the schema; filled once the overlay is frozen.
    runs: OnceLock<Vec<DeltaRun>>,
    bytes: AtomicU64,
    entries: AtomicU64,
    holds: Arc<Holds>,
}

#[derive(Debug)]
pub(crate) struct OrderedHalf {
    /// By place in the schema; the map of an append tree stays empty.
    maps: Vec<OrderedMap>,
    /// What a large batch still has on top of those.
    incoming: Vec<OrderedMap>,
    stamp: u64,
}

impl OrderedHalf {
    /// All cells of the tree at `place`, of an overlay that is frozen.
    pub(crate) fn map(&self, place: usize) -> &OrderedMap {
        assert_eq!(self.incoming[place].len(), 0, "a batch is taken in before its overlay is frozen");
        &self.maps[place]
    }

    pub(crate) fn get(&self, place: usize, key: &[u8]) -> Option<&Cell> {
        self.incoming[place].get(key).or_else(|| self.maps[place].get(key))
    }

    /// Copies up to `n` cells at and after `from`, in key order.
    pub(crate) fn copy_forward(&self, place: usize, from: Bound<&[u8]>, n: usize, out: &mut Vec<KeyCell>) {
        copy_forward(&self.maps[place], &self.incoming[place], from, n, out);
    }

    /// Copies up to `n` cells at and before `from`, in falling key order.
    pub(crate) fn copy_back(&self, place: usize, from: Bound<&[u8]>, n: usize, out: &mut Vec<KeyCell>) {
        copy_back(&self.maps[place], &self.incoming[place], from, n, out);
    }

    /// Moves up to `n` cells of the batch down. Answers how many.
    fn settle(&mut self, n: usize) -> usize {
        let mut moved = 0;
        for (map, incoming) in self.maps.iter_mut().zip(&mut self.incoming) {
            moved += map.merge(incoming, n - moved);
        }
        moved
    }

    /// Bytes and entries, without those that are still on top.
    fn size(&self) -> (usize, usize) {
        self.maps.iter().fold((0, 0), |(bytes, n), map| (bytes + map.bytes(), n + map.len()))
    }
}

/// What one transaction writes, private to it until it commits.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) append: Vec<Vec<(AppendKey, Bytes)>>,
    pub(crate) ordered: Vec<OrderedMap>,
}

impl Batch {
    pub(crate) fn new(trees: &Trees) -> Self {
        let append = (0..trees.len()).map(|_| Vec::new()).collect();
        let ordered = (0..trees.len()).map(|_| OrderedMap::default()).collect();
        Self { append, ordered }
    }
}

impl Overlay {
    /// An empty overlay that continues at `stamp`.
    pub(crate) fn new(trees: &Trees, stamp: u64, holds: Arc<Holds>) -> Self {
        let append =
            trees.schema().iter().map(|t| (t.kind == TreeKind::Append).then(|| AppendLog::new(t.weight)));
        let maps = || (0..trees.len()).map(|_| OrderedMap::default()).collect();
        Self {
            append: append.collect(),
            ordered: RwLock::new(OrderedHalf { maps: maps(), incoming: maps(), stamp }),
            runs: OnceLock::new(),
            bytes: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            holds,
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// The log of the append tree at `place`.
    pub(crate) fn append_log(&self, place: usize) -> &AppendLog {
        self.append[place].as_ref().expect("the tree at this place is an append tree")
    }

    /// Lengths of all append logs by place, zero where the tree is ordered.
    pub(crate) fn append_lens(&self) -> Arc<[usize]> {
        self.append.iter().map(|log| log.as_ref().map_or(0, AppendLog::len)).collect()
    }

    pub(crate) fn ordered(&self) -> RwLockReadGuard<'_, OrderedHalf> {
        self.ordered.read().expect("no writer panics while it merges a batch")
    }

    /// Takes in a whole batch. The caller is the only writer, and publishes the new lengths after.
    pub(crate) fn apply(&self, batch: Batch, stamp: u64) {
        let mut bytes = 0;
        let mut entries = 0;
        for (log, new) in self.append.iter().zip(batch.append) {
            let Some(log) = log else { continue };
            entries += new.len();
            bytes += new.iter().map(|(_, value)| value.len() + APPEND_OVERHEAD).sum::<usize>();
            log.extend(new);
        }
        let cells: usize = batch.ordered.iter().map(OrderedMap::len).sum();
        let mut left = Some((batch.ordered, stamp));
        let (mut moved, mut grown) = (0, (0_usize, 0));
        while moved < cells || left.is_some() {
            let mut half = self.ordered.write().expect("no writer panics while it merges a batch");
            let _hold = self.holds.begin(Lock::Merge);
            if let Some((ordered, stamp)) = left.take() {
                half.incoming = ordered;
                half.stamp = stamp;
            }
            let before = half.size();
            let now = half.settle(CELLS_A_MERGE);
            let after = half.size();
            // A batch may shrink the overlay (a tombstone over a big value): the sum wraps to the right answer.
            grown.0 = after.0.wrapping_sub(before.0).wrapping_add(grown.0);
            grown.1 += after.1 - before.1;
            self.holds.entries(now as u64);
            moved += now;
        }
        self.bytes.fetch_add(bytes.wrapping_add(grown.0) as u64, Ordering::Relaxed);
        self.entries.fetch_add((entries + grown.1) as u64, Ordering::Relaxed);
    }

    /// Turns the deltas of a frozen overlay into prefix sums. Called once nothing writes to it.
    pub(crate) fn index_deltas(&self) {
        self.runs.get_or_init(|| self.ordered().maps.iter().map(DeltaRun::new).collect());
    }

    /// Weight that this overlay adds to the ordered tree at `place`, and the stamp at which that is true.
    pub(crate) fn delta(&self, place: usize, lo: Bound<&[u8]>, hi: Bound<&[u8]>) -> (i64, u64) {
        let half = self.ordered();
        let delta = match self.runs.get() {
            Some(runs) => runs[place].delta(lo, hi),
            None => {
                let (below, steps) = half.maps[place].delta(lo, hi);
                let (above, more) = half.incoming[place].delta(lo, hi);
                self.holds.entries(steps + more);
                below + above
            }
        };
        (delta, half.stamp)
    }
}
