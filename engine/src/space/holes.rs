// SPDX-License-Identifier: Apache-2.0
//! Holes: free pages of one region that the file system has back.
//!
//! Owns      which pages surely have room on the disk, which were punched, and which stayed free for long enough.
//! Holds     1. only pages that can be allocated are ever named for a hole, so none that a slot or a reader
//!              reaches (invariant I3);
//!           2. a page without room for sure is reserved again before it is written: a full disk shows there,
//!              and not in a write;
//!           3. after an open nothing is known, so all free pages are reserved again.
//! Never     calls the file system: it says what to punch and what to reserve.

use super::bitmap::{Bits, REGION_PAGES};
use super::extents::FreeExtents;

/// Room is reserved up to a multiple of so many pages, so that not each extent costs a call.
const RESERVE_PAGES: u64 = 64;

/// Most pages of one hole: whoever reads the file may wait for as long as the file system needs for it.
const HOLE_PAGES_MAX: u64 = 256;

/// What is left of an extent is worth a hole of its own if it has this part of the pages that an extent must have.
const PART: u64 = 4;

/// What makes a free extent worth a hole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct HoleRule {
    /// Pages that the extent must have.
    pub(crate) pages: u64,
    /// How long they must have stayed free.
    pub(crate) after_ms: u64,
}

/// What the file system has of one region. Pages are counted from the start of the region.
#[derive(Debug)]
pub(crate) struct Backing {
    reserved: Bits,
    holes: Bits,
    /// Pages in extents that were worth a hole at `since_ms`, and that were not taken since.
    quiet: Bits,
    since_ms: Option<u64>,
}

impl Backing {
    /// Of a region about which nothing is known.
    pub(crate) fn new() -> Self {
        Self { reserved: Bits::new(), holes: Bits::new(), quiet: Bits::new(), since_ms: None }
    }

    /// The pages are not free any more. Answers the end of what has to be reserved from `at` on, at most
    /// `end`, if any of them has to.
    pub(crate) fn take(&mut self, at: u64, n: u64, end: u64) -> Option<u64> {
        self.quiet.clear(at, n);
        let need = !self.reserved.all(at, n) && !crate::mutants::planted("hole-not-reserved");
        need.then(|| (at + n).next_multiple_of(RESERVE_PAGES).min(end))
    }

    /// There is room for the pages now. Answers how many of them were holes.
    pub(crate) fn reserve(&mut self, at: u64, n: u64) -> u64 {
        self.reserved.set(at, n);
        self.holes.clear(at, n)
    }

    /// The pages were punched. Answers how many of them were not before.
    pub(crate) fn punch(&mut self, at: u64, n: u64) -> u64 {
        self.reserved.clear(at, n);
        self.holes.set(at, n)
    }

    /// The file ends at `end` now. Answers how many of the pages behind it were holes.
    pub(crate) fn truncate(&mut self, end: u64) -> u64 {
        let n = REGION_PAGES - end;
        self.reserved.clear(end, n);
        self.quiet.clear(end, n);
        self.holes.clear(end, n)
    }

    pub(crate) fn is_hole(&self, at: u64) -> bool {
        self.holes.all(at, 1)
    }

    pub(crate) fn hole_pages(&self) -> u64 {
        self.holes.count()
    }

    /// Start and length of the next run of `free` that is worth a hole.
    pub(crate) fn next(&mut self, free: &FreeExtents, now_ms: u64, rule: HoleRule) -> Option<(u64, u64)> {
        let old = self.since_ms.is_none_or(|since| now_ms.saturating_sub(since) >= rule.after_ms);
        if !old || free.largest() < rule.pages {
            return None;
        }
        let mut large = Bits::new();
        for (start, n) in free.at_least(rule.pages) {
            large.set(start, n);
        }
        let whole = large.without(&self.holes);
        let runs = whole.within(&self.quiet).runs(true, 0, REGION_PAGES);
        let found = runs.into_iter().find(|(_, n)| *n >= rule.pages.div_ceil(PART));
        if found.is_none() {
            self.quiet = whole;
            self.since_ms = Some(now_ms);
        }
        found.map(|(start, n)| (start, n.min(HOLE_PAGES_MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: HoleRule = HoleRule { pages: 100, after_ms: 60 };

    #[test]
    fn what_stayed_free_for_long_enough_becomes_a_hole_once() {
        let (mut backing, mut free) = (Backing::new(), FreeExtents::default());
        free.add(0, 99);
        free.add(200, 300);
        assert_eq!(backing.next(&free, 0, RULE), None, "seen for the first time");
        assert_eq!(backing.next(&free, 59, RULE), None);
        assert_eq!(free.take(100, 500), Some(200));
        assert_eq!(backing.take(200, 100, 500), Some(320), "nothing is known of them");
        free.add(200, 100);
        assert_eq!(backing.next(&free, 60, RULE), Some((300, 200)), "the others were taken meanwhile");
        backing.punch(300, 200);
        assert_eq!(backing.next(&free, 60, RULE), None);
        assert_eq!(backing.next(&free, 120, RULE), Some((200, 100)));
        backing.punch(200, 100);
        for now_ms in (120..1000).step_by(10) {
            assert_eq!(backing.next(&free, now_ms, RULE), None, "all of it is a hole");
        }
        assert_eq!(backing.hole_pages(), 300);
    }

    #[test]
    fn a_large_extent_is_punched_piece_by_piece_and_slivers_are_left() {
        let (mut backing, mut free) = (Backing::new(), FreeExtents::default());
        free.add(0, 600);
        assert_eq!(backing.next(&free, 0, RULE), None);
        let mut holes = Vec::new();
        while let Some((start, n)) = backing.next(&free, 60, RULE) {
            backing.punch(start, n);
            holes.push((start, n));
        }
        assert_eq!(holes, [(0, 256), (256, 256), (512, 88)]);
        backing.reserve(100, 24);
        for now_ms in [200, 400] {
            assert_eq!(backing.next(&free, now_ms, RULE), None, "24 pages are no quarter of a hundred");
        }
    }

    #[test]
    fn a_hole_is_reserved_again_before_it_is_written() {
        let mut backing = Backing::new();
        backing.reserve(0, 128);
        assert_eq!(backing.take(3, 9, 128), None);
        backing.punch(64, 64);
        assert_eq!(backing.take(60, 8, 128), Some(128));
        assert_eq!(backing.take(120, 8, 125), Some(125), "no further than the file");
        assert_eq!(backing.reserve(60, 68), 64);
        assert_eq!(backing.take(100, 28, 128), None);
        backing.punch(0, 64);
        assert_eq!(backing.truncate(40), 24);
        assert_eq!(backing.hole_pages(), 40);
    }
}
