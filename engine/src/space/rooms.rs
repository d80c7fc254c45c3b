// SPDX-License-Identifier: Apache-2.0
//! Which regions have room: the largest free extent of each, so that the lowest region that has enough is found without
//! a look at those below it.
//!
//! Owns      a tree of maxima over all regions.
//! Holds     a search and a change cost the logarithm of the number of regions, whatever the file's size.
//! Never     knows where in a region the extent lies.

/// A complete binary tree in one vector: node `i` has the children `2i` and `2i + 1`, the regions are its leaves.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    maxima: Vec<u64>,
    /// Leaves, a power of two; those past the last region have no room.
    width: usize,
}

impl Rooms {
    /// The largest free extent of a region is `pages` now.
    pub(crate) fn set(&mut self, region: usize, pages: u64) {
        if region >= self.width {
            self.widen(region + 1);
        }
        let mut node = self.width + region;
        self.maxima[node] = pages;
        while node > 1 {
            node /= 2;
            self.maxima[node] = self.maxima[2 * node].max(self.maxima[2 * node + 1]);
        }
    }

    /// The first region, from `from` on, that has an extent of `n` pages.
    pub(crate) fn find(&self, from: usize, n: u64) -> Option<usize> {
        if from >= self.width {
            return None;
        }
        let mut node = self.width + from;
        // Up, until a tree to the right has it; then down to its first leaf.
        while self.maxima[node] < n {
            while node % 2 == 1 {
                node /= 2;
            }
            if node == 0 {
                return None;
            }
            node += 1;
        }
        while node < self.width {
            node = if self.maxima[2 * node] >= n { 2 * node } else { 2 * node + 1 };
        }
        Some(node - self.width)
    }

    fn widen(&mut self, regions: usize) {
        let leaves = self.maxima.split_off(self.width.min(self.maxima.len()));
        *self =
            Rooms { maxima: vec![0; 2 * regions.next_power_of_two()], width: regions.next_power_of_two() };
        for (region, pages) in leaves.into_iter().enumerate().filter(|(_, pages)| *pages > 0) {
            self.set(region, pages);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SplitMix;

    #[test]
    fn the_first_region_with_room_is_the_one_that_a_walk_finds() {
        let mut rng = SplitMix::new(5);
        let (mut rooms, mut model): (Rooms, Vec<u64>) = Default::default();
        for step in 0..20_000 {
            let region = rng.index(1 + (step / 20).min(300));
            let pages = if rng.one_in(3) { 0 } else { rng.below(50) };
            rooms.set(region, pages);
            model.resize(model.len().max(region + 1), 0);
            model[region] = pages;
            let (from, n) = (rng.index(320), 1 + rng.below(55));
            let walk = (from..model.len()).find(|region| model[*region] >= n);
            assert_eq!(rooms.find(from, n), walk, "step {step}: {n} pages from region {from}");
        }
        assert_eq!(Rooms::default().find(0, 1), None);
    }
}
