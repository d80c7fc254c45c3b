// SPDX-License-Identifier: Apache-2.0
//! The pages of one checkpoint, in order: a copy of the map that stays as it is while the store goes on.
//!
//! Owns      one bit for each page of the file, and the order in which runs of used pages are walked.
//! Holds     costs 4 KiB for each 126 MiB of file, however the pages lie.
//! Never     says what a page holds.

use super::bitmap::{self, Bits, REGION_PAGES, first_data, regions};
use super::{MapPage, Version, digest};

/// Which pages of a file are part of a checkpoint.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct LivePages(Vec<Bits>);

impl LivePages {
    pub(crate) fn new(regions: Vec<Bits>) -> Self {
        Self(regions)
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.iter().map(Bits::count).sum()
    }

    /// End of the last page.
    pub(crate) fn end(&self) -> Option<u64> {
        let (region, bits) = self.0.iter().enumerate().rfind(|(_, bits)| bits.end() > 0)?;
        Some(region as u64 * REGION_PAGES + bits.end())
    }

    /// The first run of pages at or behind `from`: start and length. A run ends with its region.
    pub(crate) fn next_run(&self, from: u64) -> Option<(u64, u64)> {
        let (region, at) = super::locate(from);
        let rest = self.0.iter().enumerate().skip(region);
        rest.zip(std::iter::once(at).chain(std::iter::repeat(0))).find_map(|((region, bits), at)| {
            let (start, n) = bits.next_used(at)?;
            Some((region as u64 * REGION_PAGES + start, n))
        })
    }

    /// Whether `n` pages from `start` are what one region has beside its bitmaps.
    pub(crate) fn may_have(start: u64, n: u64) -> bool {
        let (region, at) = super::locate(start);
        at + n <= REGION_PAGES && start >= first_data(region as u64)
    }

    /// Adds `n` pages from `start`. `false` if any of them is there already, or they are not what one region has
    /// beside its bitmaps.
    pub(crate) fn add(&mut self, start: u64, n: u64) -> bool {
        if !Self::may_have(start, n) {
            return false;
        }
        let (region, at) = super::locate(start);
        while self.0.len() <= region {
            self.0.push(Bits::new());
        }
        self.0[region].set(at, n) == n
    }

    /// Takes `n` pages from `start` out. `false` if any of them is not there.
    pub(crate) fn take(&mut self, start: u64, n: u64) -> bool {
        let (region, at) = super::locate(start);
        at + n <= REGION_PAGES && self.0.get_mut(region).is_some_and(|bits| bits.clear(at, n) == n)
    }

    /// The bitmap pages that say so at checkpoint `seq`, of all regions up to `high_water`, and the digest of
    /// them for its slot.
    pub(crate) fn map(&self, uuid: u64, seq: u64, high_water: u64) -> (Vec<MapPage>, u32) {
        let (mut pages, mut versions) = (Vec::new(), Vec::new());
        let none = Bits::new();
        for region in 0..regions(high_water) {
            let bits = self.0.get(region as usize).unwrap_or(&none);
            let (bytes, crc) = bitmap::encode(bits, uuid, region, seq);
            pages.push(MapPage { page: bitmap::map_page(region, 0), bytes });
            versions.push(Version { seq, turn: 0, crc });
        }
        let digest = digest(versions.iter().map(Some));
        (pages, digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_come_in_order_over_all_regions() {
        let mut live = LivePages::default();
        let far = 3 * REGION_PAGES + 100;
        for (start, n) in [(far, 5), (16, 4), (REGION_PAGES - 2, 2), (REGION_PAGES + 4, 1)] {
            assert!(live.add(start, n));
        }
        assert!(!live.add(17, 1), "there already");
        assert!(!live.add(REGION_PAGES * 2 - 1, 2), "in two regions");
        assert!(!live.add(REGION_PAGES * 2 + 3, 1) && !live.add(15, 1), "where the bitmaps are");
        let runs = std::iter::successors(live.next_run(0), |(start, n)| live.next_run(start + n));
        let want = [(16, 4), (REGION_PAGES - 2, 2), (REGION_PAGES + 4, 1), (far, 5)];
        assert_eq!(runs.collect::<Vec<_>>(), want);
        assert_eq!(live.next_run(18), Some((18, 2)));
        assert_eq!((live.count(), live.end()), (12, Some(far + 5)));
        assert!(live.take(far, 5) && !live.take(far, 1) && !live.take(1 << 40, 1));
        assert_eq!(live.end(), Some(REGION_PAGES + 5));
    }
}
