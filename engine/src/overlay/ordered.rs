// SPDX-License-Identifier: Apache-2.0
//! The overlay's half of an ordered tree: the newest value or tombstone of each key written since
//! the overlay began, and what that did to the tree's weight.
//!
//! Owns      one map from key to cell, its running total of weight and its size.
//! Holds     1. a cell's delta is the key's weight now less its weight in the layers below;
//!           2. `delta_total` is the sum of all cells' deltas.
//! Never     locks: the overlay holds the maps of all its trees under one lock.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

/// What a key was last set to; `None` deletes what the layers below have.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) value: Option<Bytes>,
    pub(crate) delta: i64,
}

/// A cell as a cursor copies it.
pub(crate) type KeyCell = (Bytes, Option<Bytes>);

/// Memory of a cell beside its bytes: two `Bytes`, the delta, and a B-tree's slack.
pub(crate) const CELL_OVERHEAD: usize = 112;

#[derive(Debug, Default)]
pub(crate) struct OrderedMap {
    cells: BTreeMap<Bytes, Cell>,
    delta_total: i64,
    bytes: usize,
}

impl OrderedMap {
    pub(crate) fn len(&self) -> usize {
        self.cells.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Cell> {
        self.cells.get(key)
    }

    /// Sets `key`; `delta` is against what was visible before, which may be this map's own cell.
    pub(crate) fn set(&mut self, key: Bytes, value: Option<Bytes>, delta: i64) {
        self.delta_total += delta;
        let size = value.as_ref().map_or(0, Bytes::len);
        match self.cells.get_mut(&key[..]) {
            Some(cell) => {
                self.bytes = self.bytes + size - cell.value.as_ref().map_or(0, Bytes::len);
                cell.value = value;
                cell.delta += delta;
            }
            None => {
                self.bytes += key.len() + size + CELL_OVERHEAD;
                self.cells.insert(key, Cell { value, delta });
            }
        }
    }

    /// Takes over all cells of `newer`, which was written on top of this map.
    pub(crate) fn merge(&mut self, newer: OrderedMap) {
        for (key, cell) in newer.cells {
            self.set(key, cell.value, cell.delta);
        }
    }

    /// Sum of the deltas of the keys in range. The whole range is a running total; any other is a walk.
    pub(crate) fn delta(&self, lo: Bound<&[u8]>, hi: Bound<&[u8]>) -> i64 {
        if matches!((lo, hi), (Bound::Unbounded, Bound::Unbounded)) {
            return self.delta_total;
        }
        if is_empty_range(lo, hi) {
            return 0;
        }
        self.cells.range::<[u8], _>((lo, hi)).map(|(_, cell)| cell.delta).sum()
    }

    /// Copies up to `n` cells at and after `from`, in key order.
    pub(crate) fn copy_forward(&self, from: Bound<&[u8]>, n: usize, out: &mut Vec<KeyCell>) {
        let cells = self.cells.range::<[u8], _>((from, Bound::Unbounded)).take(n);
        out.extend(cells.map(|(key, cell)| (key.clone(), cell.value.clone())));
    }

    /// Copies up to `n` cells at and before `from`, in falling key order.
    pub(crate) fn copy_back(&self, from: Bound<&[u8]>, n: usize, out: &mut Vec<KeyCell>) {
        let cells = self.cells.range::<[u8], _>((Bound::Unbounded, from)).rev().take(n);
        out.extend(cells.map(|(key, cell)| (key.clone(), cell.value.clone())));
    }

    /// The cells from `from` on, in key order.
    pub(crate) fn from(&self, from: Bound<&[u8]>) -> impl Iterator<Item = (&Bytes, &Cell)> {
        self.cells.range::<[u8], _>((from, Bound::Unbounded))
    }
}

/// Whether no key lies in the range; `BTreeMap::range` panics on the inverted ones.
pub(crate) fn is_empty_range(lo: Bound<&[u8]>, hi: Bound<&[u8]>) -> bool {
    match (lo, hi) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(a), Bound::Included(b)) => a > b,
        (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => a >= b,
    }
}

/// The cells of a frozen map as prefix sums of their deltas, so that a range costs two searches.
#[derive(Debug)]
pub(crate) struct DeltaRun {
    /// Keys whose delta is not zero, each with the sum up to and including it.
    sums: Vec<(Bytes, i64)>,
}

impl DeltaRun {
    pub(crate) fn new(map: &OrderedMap) -> Self {
        let mut sum = 0;
        let changed = map.from(Bound::Unbounded).filter(|(_, cell)| cell.delta != 0);
        let sums = changed.map(|(key, cell)| {
            sum += cell.delta;
            (key.clone(), sum)
        });
        Self { sums: sums.collect() }
    }

    pub(crate) fn delta(&self, lo: Bound<&[u8]>, hi: Bound<&[u8]>) -> i64 {
        if is_empty_range(lo, hi) {
            return 0;
        }
        let below = |end: usize| end.checked_sub(1).map_or(0, |i| self.sums[i].1);
        let start = match lo {
            Bound::Unbounded => 0,
            Bound::Included(k) => self.sums.partition_point(|(key, _)| &key[..] < k),
            Bound::Excluded(k) => self.sums.partition_point(|(key, _)| &key[..] <= k),
        };
        let end = match hi {
            Bound::Unbounded => self.sums.len(),
            Bound::Included(k) => self.sums.partition_point(|(key, _)| &key[..] <= k),
            Bound::Excluded(k) => self.sums.partition_point(|(key, _)| &key[..] < k),
        };
        below(end) - below(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> OrderedMap {
        let mut map = OrderedMap::default();
        for n in 0..50_u8 {
            map.set(Bytes::copy_from_slice(&[n]), Some(Bytes::from_static(b"v")), i64::from(n % 3) - 1);
        }
        map
    }

    #[test]
    fn deltas_of_a_key_add_up_and_its_newest_value_stays() {
        let mut map = OrderedMap::default();
        map.set(Bytes::from_static(b"k"), Some(Bytes::from_static(b"one")), 1);
        map.set(Bytes::from_static(b"k"), None, -1);
        map.set(Bytes::from_static(b"k"), Some(Bytes::from_static(b"three")), 1);
        let cell = map.get(b"k").expect("was set");
        assert_eq!((cell.value.as_deref(), cell.delta, map.len()), (Some(&b"three"[..]), 1, 1));
        assert_eq!(map.bytes(), 1 + 5 + CELL_OVERHEAD);
    }

    #[test]
    fn a_run_of_prefix_sums_agrees_with_the_walk_on_every_range() {
        let map = map();
        let run = DeltaRun::new(&map);
        let keys: Vec<[u8; 1]> = (0..52).map(|n| [n]).collect();
        let mut bounds = vec![Bound::Unbounded];
        for key in &keys {
            bounds.push(Bound::Included(&key[..]));
            bounds.push(Bound::Excluded(&key[..]));
        }
        for &lo in &bounds {
            for &hi in &bounds {
                assert_eq!(run.delta(lo, hi), map.delta(lo, hi), "{lo:?}..{hi:?}");
            }
        }
    }
}
