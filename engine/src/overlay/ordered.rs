// SPDX-License-Identifier: Apache-2.0
//! The overlay's half of an ordered tree: the newest value or tombstone of each key written since
//! the overlay began, and what that did to the tree's weight.
//!
//! Owns      one map from key to cell, its sums of weight and its size.
//! Holds     1. a cell's delta is the key's weight now less its weight in the layers below;
//!           2. `delta_total` is the sum of all cells' deltas, and a map of more than a few cells is cut into runs
//!              that each know theirs, so that the sum of a range is no walk over all of its cells.
//! Never     locks: the overlay holds the maps of all its trees under one lock.

use std::cmp::Ordering;
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

/// Most cells of a run.
const RUN_CELLS: usize = 512;

/// Neighbouring cells.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    cells: usize,
    delta: i64,
}

#[derive(Debug, Default)]
pub(crate) struct OrderedMap {
    cells: BTreeMap<Bytes, Cell>,
    /// By a key that is not above the first cell's; empty as long as one run would do.
    runs: BTreeMap<Bytes, Run>,
    delta_total: i64,
    bytes: usize,
}

impl OrderedMap {
    pub(crate) const EMPTY: OrderedMap =
        OrderedMap { cells: BTreeMap::new(), runs: BTreeMap::new(), delta_total: 0, bytes: 0 };

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
                self.count_in_run(&key, 0, delta);
            }
            None => {
                self.bytes += key.len() + size + CELL_OVERHEAD;
                self.cells.insert(key.clone(), Cell { value, delta });
                self.count_in_run(&key, 1, delta);
            }
        }
    }

    fn count_in_run(&mut self, key: &Bytes, cells: usize, delta: i64) {
        if self.runs.is_empty() {
            if self.cells.len() > RUN_CELLS {
                let all = Run { cells: self.cells.len(), delta: self.delta_total };
                self.runs.insert(Bytes::new(), all);
                self.split_run(&Bytes::new());
            }
            return;
        }
        let run = self.runs.range_mut::<[u8], _>((Bound::Unbounded, Bound::Included(&key[..]))).next_back();
        let (start, run) = run.expect("the first run begins before all keys");
        run.cells += cells;
        run.delta += delta;
        if run.cells > RUN_CELLS {
            let start = start.clone();
            self.split_run(&start);
        }
    }

    fn split_run(&mut self, start: &Bytes) {
        let run = self.runs[start];
        let (mut low, mut middle) = (Run { cells: run.cells / 2, delta: 0 }, None);
        for (i, (key, cell)) in self.from(Bound::Included(start)).enumerate() {
            if i == low.cells {
                middle = Some(key.clone());
                break;
            }
            low.delta += cell.delta;
        }
        let high = Run { cells: run.cells - low.cells, delta: run.delta - low.delta };
        self.runs.insert(middle.expect("a run that is split has two halves"), high);
        self.runs.insert(start.clone(), low);
    }

    /// Takes the first cell out.
    pub(crate) fn pop_first(&mut self) -> Option<(Bytes, Cell)> {
        let (key, cell) = self.cells.pop_first()?;
        self.delta_total -= cell.delta;
        self.bytes -= key.len() + cell.value.as_ref().map_or(0, Bytes::len) + CELL_OVERHEAD;
        if let Some(mut first) = self.runs.first_entry() {
            first.get_mut().cells -= 1;
            first.get_mut().delta -= cell.delta;
            if first.get().cells == 0 {
                // The next run begins before all keys that are left.
                let (_, next) = (first.remove(), self.runs.pop_first());
                self.runs.extend(next.map(|(_, run)| (Bytes::new(), run)));
            }
        }
        Some((key, cell))
    }

    /// Takes over up to `n` of the first cells of `newer`, which was written on top of this map. Answers how many.
    pub(crate) fn merge(&mut self, newer: &mut OrderedMap, n: usize) -> usize {
        let mut merged = 0;
        while merged < n
            && let Some((key, cell)) = newer.pop_first()
        {
            self.set(key, cell.value, cell.delta);
            merged += 1;
        }
        merged
    }

    /// Sum of the deltas of the keys in range, and how many cells and runs were walked for it.
    pub(crate) fn delta(&self, lo: Bound<&[u8]>, hi: Bound<&[u8]>) -> (i64, u64) {
        if matches!((lo, hi), (Bound::Unbounded, Bound::Unbounded)) {
            return (self.delta_total, 0);
        }
        if is_empty_range(lo, hi) {
            return (0, 0);
        }
        // Whole runs lie between the one in which the range begins and the one in which it ends.
        let start_of = |bound: Bound<&[u8]>| match bound {
            Bound::Unbounded => None,
            Bound::Included(key) | Bound::Excluded(key) => {
                let upto = (Bound::Unbounded, Bound::Included(key));
                self.runs.range::<[u8], _>(upto).next_back().map(|(start, _)| start)
            }
        };
        let after_first = match start_of(lo) {
            None => Bound::Unbounded,
            Some(start) => Bound::Excluded(&start[..]),
        };
        let first_whole = self.runs.range::<[u8], _>((after_first, Bound::Unbounded)).next();
        let last = start_of(hi);
        let mut walked = Walked::default();
        match first_whole.map(|(start, _)| start) {
            Some(first) if last.is_none_or(|last| first <= last) => {
                walked.cells(&self.cells, lo, Bound::Excluded(first));
                let upto = last.map_or(Bound::Unbounded, |last| Bound::Excluded(&last[..]));
                for (_, run) in self.runs.range::<[u8], _>((Bound::Included(&first[..]), upto)) {
                    walked.add(run.delta);
                }
                if let Some(last) = last {
                    walked.cells(&self.cells, Bound::Included(last), hi);
                }
            }
            _ => walked.cells(&self.cells, lo, hi),
        }
        (walked.delta, walked.steps)
    }

    /// The cells up to `from`, in falling key order.
    fn back_from(&self, from: Bound<&[u8]>) -> impl Iterator<Item = (&Bytes, &Cell)> {
        self.cells.range::<[u8], _>((Bound::Unbounded, from)).rev()
    }

    /// The cells from `from` on, in key order.
    pub(crate) fn from(&self, from: Bound<&[u8]>) -> impl Iterator<Item = (&Bytes, &Cell)> {
        self.cells.range::<[u8], _>((from, Bound::Unbounded))
    }
}

/// Copies up to `n` cells of two maps, of which `newer` decides, at and after `from` in key order.
pub(crate) fn copy_forward(
    older: &OrderedMap,
    newer: &OrderedMap,
    from: Bound<&[u8]>,
    n: usize,
    out: &mut Vec<KeyCell>,
) {
    copy(older.from(from), newer.from(from), Ordering::Less, n, out);
}

/// As [`copy_forward`], at and before `from` in falling key order.
pub(crate) fn copy_back(
    older: &OrderedMap,
    newer: &OrderedMap,
    from: Bound<&[u8]>,
    n: usize,
    out: &mut Vec<KeyCell>,
) {
    copy(older.back_from(from), newer.back_from(from), Ordering::Greater, n, out);
}

fn copy<'m>(
    older: impl Iterator<Item = (&'m Bytes, &'m Cell)>,
    newer: impl Iterator<Item = (&'m Bytes, &'m Cell)>,
    first: Ordering,
    n: usize,
    out: &mut Vec<KeyCell>,
) {
    let (mut older, mut newer) = (older.peekable(), newer.peekable());
    for _ in 0..n {
        let order = match (older.peek(), newer.peek()) {
            (Some((old, _)), Some((new, _))) => old.cmp(new),
            (Some(_), None) => first,
            (None, _) => first.reverse(),
        };
        let next = if order == first { older.next() } else { newer.next() };
        if order == Ordering::Equal {
            older.next();
        }
        let Some((key, cell)) = next else { return };
        out.push((key.clone(), cell.value.clone()));
    }
}

/// A sum on its way.
#[derive(Default)]
struct Walked {
    delta: i64,
    steps: u64,
}

impl Walked {
    fn add(&mut self, delta: i64) {
        self.delta += delta;
        self.steps += 1;
    }

    fn cells(&mut self, cells: &BTreeMap<Bytes, Cell>, lo: Bound<&[u8]>, hi: Bound<&[u8]>) {
        if !is_empty_range(lo, hi) {
            cells.range::<[u8], _>((lo, hi)).for_each(|(_, cell)| self.add(cell.delta));
        }
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
                assert_eq!(run.delta(lo, hi), map.delta(lo, hi).0, "{lo:?}..{hi:?}");
            }
        }
    }

    /// A map of many runs, and what it holds by the letter.
    fn large() -> (OrderedMap, BTreeMap<u16, i64>) {
        let (mut map, mut model) = (OrderedMap::default(), BTreeMap::new());
        for n in 0..20_000_u32 {
            let key = (n.wrapping_mul(40_503) >> 3) as u16;
            let delta = i64::from(n % 7) - 3;
            map.set(Bytes::copy_from_slice(&key.to_be_bytes()), None, delta);
            *model.entry(key).or_insert(0) += delta;
        }
        assert!(map.runs.len() > 20 && map.len() == model.len());
        (map, model)
    }

    fn check_ranges(map: &OrderedMap, model: &BTreeMap<u16, i64>) {
        for n in 0..400_u16 {
            let (a, b) = (n.wrapping_mul(25_173), n.wrapping_mul(13_849).wrapping_add(7));
            let (low, high) = (a.min(b), a.max(b));
            let (low_key, high_key) = (low.to_be_bytes(), high.to_be_bytes());
            let expected: i64 = model.range(low..=high).map(|(_, delta)| delta).sum();
            let (sum, steps) = map.delta(Bound::Included(&low_key), Bound::Included(&high_key));
            assert_eq!(sum, expected, "{low}..={high}");
            assert!(steps <= (map.runs.len() + 2 * RUN_CELLS) as u64, "{steps} steps");
            let below: i64 = model.range(..high).map(|(_, delta)| delta).sum();
            assert_eq!(map.delta(Bound::Unbounded, Bound::Excluded(&high_key)).0, below, "..{high}");
            let above: i64 = model.range((Bound::Excluded(low), Bound::Unbounded)).map(|(_, d)| d).sum();
            assert_eq!(map.delta(Bound::Excluded(&low_key), Bound::Unbounded).0, above, "{low}..");
        }
    }

    #[test]
    fn sums_of_ranges_walk_two_runs_and_agree_with_the_cells_also_while_the_first_are_taken_out() {
        let (mut map, mut model) = large();
        check_ranges(&map, &model);
        while map.len() > 100 {
            for _ in 0..1500 {
                let popped = map.pop_first().map(|(key, cell)| (key.to_vec(), cell.delta));
                let first = model.pop_first().map(|(key, delta)| (key.to_be_bytes().to_vec(), delta));
                assert_eq!(popped, first);
            }
            check_ranges(&map, &model);
            assert_eq!(map.bytes(), map.len() * (2 + CELL_OVERHEAD));
        }
    }

    #[test]
    fn two_maps_are_copied_as_one_in_both_directions() {
        let (mut older, mut newer) = (OrderedMap::default(), OrderedMap::default());
        for n in 0..30_u8 {
            older.set(Bytes::copy_from_slice(&[n * 2]), Some(Bytes::from_static(b"old")), 0);
            newer.set(Bytes::copy_from_slice(&[n * 3]), Some(Bytes::from_static(b"new")), 0);
        }
        let mut forward = Vec::new();
        copy_forward(&older, &newer, Bound::Excluded(&[3]), 1000, &mut forward);
        let mut back = Vec::new();
        copy_back(&older, &newer, Bound::Unbounded, forward.len(), &mut back);
        back.reverse();
        assert_eq!(forward, back);
        assert!(forward.windows(2).all(|pair| pair[0].0 < pair[1].0));
        let expected = (4..=87_u8).filter(|n| n % 3 == 0 || n % 2 == 0 && *n < 60);
        assert!(forward.iter().map(|(key, _)| key[0]).eq(expected));
        assert!(forward.iter().all(|(key, v)| (v.as_deref() == Some(b"new")) == (key[0] % 3 == 0)));
        let mut few = Vec::new();
        copy_forward(&older, &newer, Bound::Unbounded, 3, &mut few);
        assert_eq!(few.iter().map(|(key, _)| key[0]).collect::<Vec<_>>(), [0, 2, 3]);
    }
}
