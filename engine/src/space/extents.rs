// SPDX-License-Identifier: Apache-2.0
//! Free extents of one region, by address and by size.
//!
//! Owns      which pages of a region can be allocated now.
//! Holds     1. extents are disjoint, and neighbours are one extent;
//!           2. both orders hold the same extents.
//! Never     decides when a page may be used again.

use std::collections::{BTreeMap, BTreeSet};

/// Pages are counted from the start of the region.
#[derive(Debug, Default)]
pub(crate) struct FreeExtents {
    by_start: BTreeMap<u64, u64>,
    by_size: BTreeSet<(u64, u64)>,
}

impl FreeExtents {
    /// Pages of the largest free extent.
    pub(crate) fn largest(&self) -> u64 {
        self.by_size.last().map_or(0, |(n, _)| *n)
    }

    /// Start and length of the extent that ends last.
    pub(crate) fn last(&self) -> Option<(u64, u64)> {
        self.by_start.last_key_value().map(|(start, n)| (*start, *n))
    }

    /// Takes `n` pages from the smallest extent that has them below `end`, the lowest of equals.
    pub(crate) fn take(&mut self, n: u64, end: u64) -> Option<u64> {
        let (size, start) = *self.by_size.range((n, 0)..).find(|(_, start)| start + n <= end)?;
        self.remove(start, size);
        if size > n {
            self.insert(start + n, size - n);
        }
        Some(start)
    }

    /// Adds an extent that is not free yet, and joins it with its neighbours.
    ///
    /// # Panics
    /// If any of it is free already: it would be handed out twice.
    pub(crate) fn add(&mut self, start: u64, n: u64) {
        let (mut start, mut n) = (start, n);
        if let Some((next, size)) = self.by_start.range(start..).next().map(|(a, b)| (*a, *b)) {
            assert!(start + n <= next, "pages {start}+{n} are free already");
            if start + n == next {
                self.remove(next, size);
                n += size;
            }
        }
        if let Some((before, size)) = self.by_start.range(..start).next_back().map(|(a, b)| (*a, *b)) {
            assert!(before + size <= start, "pages {start}+{n} are free already");
            if before + size == start {
                self.remove(before, size);
                start = before;
                n += size;
            }
        }
        self.insert(start, n);
    }

    /// Drops the free pages from `end` on, which the file no longer has.
    pub(crate) fn truncate(&mut self, end: u64) -> u64 {
        let mut dropped = 0;
        while let Some((start, n)) = self.last().filter(|(start, n)| start + n > end) {
            self.remove(start, n);
            if start < end {
                self.insert(start, end - start);
            }
            dropped += start + n - end.max(start);
        }
        dropped
    }

    /// Extents of `n` pages or more.
    pub(crate) fn at_least(&self, n: u64) -> impl Iterator<Item = (u64, u64)> {
        self.by_size.range((n, 0)..).map(|(size, start)| (*start, *size))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.by_start.iter().map(|(start, n)| (*start, *n))
    }

    fn insert(&mut self, start: u64, n: u64) {
        self.by_start.insert(start, n);
        self.by_size.insert((n, start));
    }

    fn remove(&mut self, start: u64, n: u64) {
        self.by_start.remove(&start);
        self.by_size.remove(&(n, start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_fit_is_taken_and_neighbours_join() {
        let mut free = FreeExtents::default();
        for (start, n) in [(0, 10), (20, 4), (40, 6)] {
            free.add(start, n);
        }
        assert_eq!(free.take(4, 100), Some(20), "the exact one");
        assert_eq!(free.take(5, 100), Some(40), "the smallest with room");
        assert_eq!(free.take(11, 100), None);
        assert_eq!((free.take(1, 3), free.take(8, 8)), (Some(0), None), "below an end");
        free.add(0, 1);
        free.add(20, 4);
        free.add(10, 10);
        assert_eq!(free.iter().collect::<Vec<_>>(), [(0, 24), (45, 1)]);
        assert_eq!((free.largest(), free.last()), (24, Some((45, 1))));
        assert_eq!(free.truncate(20), 5);
        assert_eq!(free.iter().collect::<Vec<_>>(), [(0, 20)]);
    }

    #[test]
    #[should_panic(expected = "free already")]
    fn freeing_twice_is_refused() {
        let mut free = FreeExtents::default();
        free.add(0, 10);
        free.add(8, 4);
    }
}
