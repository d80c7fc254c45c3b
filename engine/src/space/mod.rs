// SPDX-License-Identifier: Apache-2.0
//! Space: which pages of the tree file are used, free, or not yet to be written again.
//!
//! Owns      the bitmaps, the free extents, the pending ones, and what the checkpoint being built took.
//! Holds     1. on disk and at rest, a page's bit is set exactly if the newest checkpoint reaches it, so the
//!              map can be compared with a walk, and rebuilt by one;
//!           2. a page is in at most one of: used, taken, pending, free;
//!           3. what a failed build took goes back, and what it released stays.
//! Never     reads or writes the file: it says which pages to write.

mod bitmap;
mod extents;
#[cfg(feature = "sim")]
pub(crate) mod fuzz;
mod holes;
mod live;
mod load;
mod pending;
mod rooms;

use std::collections::BTreeMap;

use bitmap::{Bits, REGION_PAGES, Version, first_data};
pub(crate) use bitmap::{FIRST_DATA, TURNS as MAPS_OF_REGION, map_page, regions};
use extents::FreeExtents;
use holes::Backing;
pub(crate) use holes::HoleRule;
pub(crate) use live::LivePages;
pub(crate) use load::{Loaded, Previous, load};
pub(crate) use pending::REUSE_AFTER;
use pending::{Dead, Pending};
use rooms::Rooms;

use crate::mutants::planted;
use crate::page::PageId;

/// The largest extent there can be: what a region has beside its bitmaps.
pub(crate) const EXTENT_PAGES_MAX: u64 = REGION_PAGES - FIRST_DATA;

/// Regions that are looked at for holes at a time.
const HOLE_REGIONS_MAX: usize = 64;

#[derive(Debug)]
struct Region {
    /// What the newest checkpoint uses.
    used: Bits,
    free: FreeExtents,
    backing: Backing,
    /// The version on disk of the newest checkpoint; `None` if no checkpoint ever used the region.
    version: Option<Version>,
    /// `used` differs from `version`.
    dirty: bool,
}

impl Region {
    fn new() -> Self {
        let (used, free, backing) = (Bits::new(), FreeExtents::default(), Backing::new());
        Self { used, free, backing, version: None, dirty: false }
    }
}

/// The space of one tree file.
#[derive(Debug)]
pub(crate) struct Space {
    uuid: u64,
    regions: Vec<Region>,
    /// The largest free extent of each region.
    rooms: Rooms,
    pending: Pending,
    /// Pages that are surely there to be written.
    file_pages: u64,
    /// Pages that the file is long. After a crash it may be longer than what is sure.
    len_pages: u64,
    free_pages: u64,
    used_pages: u64,
    /// From this page on the file is being given up: what is there is taken only where there is nothing below.
    floor: u64,
    hole_pages: u64,
    /// The region that is looked at next for holes to punch.
    hole_at: usize,
    /// Extents that the checkpoint being built holds, start and length.
    taken: BTreeMap<u64, u64>,
    /// Extents of older checkpoints that it no longer reaches: start, length, birth.
    released: Vec<(u64, u64, u64)>,
}

/// Figures of the space map, in pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct SpaceStats {
    pub(crate) file: u64,
    pub(crate) free: u64,
    pub(crate) used: u64,
    pub(crate) pending: u64,
    pub(crate) pinned: u64,
    pub(crate) holes: u64,
}

/// A version of a bitmap that has to be written.
#[derive(Debug)]
pub(crate) struct MapPage {
    pub(crate) page: PageId,
    pub(crate) bytes: Vec<u8>,
}

/// The version of a region's bitmap that belongs to a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MapVersion {
    region: u64,
    pub(crate) page: PageId,
    seq: u64,
    crc: u32,
}

impl MapVersion {
    /// Whether `bytes` are that version.
    pub(crate) fn is(&self, bytes: &[u8], uuid: u64) -> bool {
        let found = bitmap::decode(bytes, uuid, self.region);
        found.is_some_and(|(seq, _, crc)| (seq, crc) == (self.seq, self.crc))
    }
}

impl Space {
    /// The space of a file in which nothing is used and which has no room yet.
    pub(crate) fn new(uuid: u64) -> Self {
        Self {
            uuid,
            regions: Vec::new(),
            rooms: Rooms::default(),
            pending: Pending::default(),
            file_pages: 0,
            len_pages: 0,
            free_pages: 0,
            used_pages: 0,
            floor: u64::MAX,
            hole_pages: 0,
            hole_at: 0,
            taken: BTreeMap::new(),
            released: Vec::new(),
        }
    }

    pub(crate) fn file_pages(&self) -> u64 {
        self.file_pages
    }

    /// Pages that the file is long.
    pub(crate) fn len_pages(&self) -> u64 {
        self.len_pages
    }

    pub(crate) fn stats(&self) -> SpaceStats {
        SpaceStats {
            file: self.len_pages,
            free: self.free_pages,
            used: self.used_pages,
            pending: self.pending.pages(),
            pinned: self.pending.pinned_pages(),
            holes: self.hole_pages,
        }
    }

    /// Begins to build checkpoint `seq`: what it may write to becomes free.
    pub(crate) fn begin(&mut self, seq: u64, readers: &[u64]) {
        assert!(self.taken.is_empty() && self.released.is_empty(), "one checkpoint is built at a time");
        for dead in self.pending.reusable(seq, readers) {
            self.give_back(dead.start, dead.n);
        }
    }

    /// Takes `n` free pages in a row, the best fit of the lowest region that has any, below the floor if there
    /// are any; `None` if the file has to grow.
    pub(crate) fn take(&mut self, n: u64) -> Option<PageId> {
        assert!(n > 0 && n <= EXTENT_PAGES_MAX, "an extent of {n} pages");
        let start = self.take_below(n, self.floor).or_else(|| self.take_below(n, u64::MAX))?;
        self.free_pages -= n;
        self.taken.insert(start, n);
        Some(PageId::new(start))
    }

    fn take_below(&mut self, n: u64, end: u64) -> Option<u64> {
        let mut from = 0;
        while let Some(region) = self.rooms.find(from, n) {
            let start = region as u64 * REGION_PAGES;
            if start >= end {
                return None;
            }
            // What the region in which the end lies has may all be behind that.
            if let Some(at) = self.regions[region].free.take(n, end - start) {
                self.note_room(region);
                return Some(start + at);
            }
            from = region + 1;
        }
        None
    }

    /// What is free of a region has changed.
    fn note_room(&mut self, region: usize) {
        self.rooms.set(region, self.regions[region].free.largest());
    }

    /// From now on nothing is taken from `floor` on as long as there is room below.
    pub(crate) fn set_floor(&mut self, floor: u64) {
        self.floor = floor;
    }

    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    /// Pages that the checkpoint being built holds.
    pub(crate) fn taken_pages(&self) -> u64 {
        self.taken.values().sum()
    }

    /// Whether the newest checkpoint uses any page from `first` on.
    pub(crate) fn is_used_from(&self, first: u64) -> bool {
        self.high_water() > first
    }

    /// Whether any page from `first` on is given back by later checkpoints.
    pub(crate) fn is_waiting_from(&self, first: u64) -> bool {
        self.pending.is_waiting_from(first)
    }

    /// What has to be reserved before an extent just taken is written: first page and end, if anything has to.
    pub(crate) fn unreserved(&mut self, first: PageId, n: u64) -> Option<(u64, u64)> {
        let (i, at) = locate(first.get());
        let start = i as u64 * REGION_PAGES;
        let end = (self.file_pages - start).min(REGION_PAGES);
        let upto = self.regions[i].backing.take(at, n, end)?;
        Some((first.get(), start + upto))
    }

    /// There is room now for the pages from `from` to `to`, which are of one region.
    pub(crate) fn reserved(&mut self, from: u64, to: u64) {
        let (i, at) = locate(from);
        self.hole_pages -= self.regions[i].backing.reserve(at, to - from);
    }

    /// Start and length of free pages that the file system should have back. Looks at a few regions, and goes
    /// on with the next ones the next time; `None` if they have nothing for it.
    pub(crate) fn next_hole(&mut self, now_ms: u64, rule: HoleRule) -> Option<(u64, u64)> {
        if planted("punch-early") {
            let whole = |dead: &&Dead| {
                let (i, at) = locate(dead.start);
                !self.regions[i].backing.is_hole(at)
            };
            return self.pending.iter().find(whole).map(|dead| (dead.start, dead.n));
        }
        for _ in 0..HOLE_REGIONS_MAX.min(self.regions.len()) {
            self.hole_at %= self.regions.len();
            let Region { free, backing, .. } = &mut self.regions[self.hole_at];
            if let Some((start, n)) = backing.next(free, now_ms, rule) {
                return Some((self.hole_at as u64 * REGION_PAGES + start, n));
            }
            self.hole_at += 1;
        }
        None
    }

    /// Pages that [`next_hole`](Space::next_hole) named were punched.
    pub(crate) fn punched(&mut self, start: u64, n: u64) {
        let (i, at) = locate(start);
        self.hole_pages += self.regions[i].backing.punch(at, n);
    }

    /// Lets go of an extent. `true` if the checkpoint being built had taken it itself, so that whatever is
    /// still to be written there no longer is.
    pub(crate) fn release(&mut self, first: PageId, n: u64, birth: u64) -> bool {
        if self.taken.get(&first.get()) == Some(&n) {
            self.taken.remove(&first.get());
            self.give_back(first.get(), n);
            return true;
        }
        self.released.push((first.get(), n, birth));
        false
    }

    /// The file now has room for `file_pages`, and all of what it did not have before is reserved.
    pub(crate) fn grow(&mut self, file_pages: u64) {
        let before = self.file_pages;
        self.file_pages = file_pages.max(before);
        self.len_pages = self.len_pages.max(self.file_pages);
        for region in before / REGION_PAGES..regions(self.file_pages) {
            if region as usize == self.regions.len() {
                self.regions.push(Region::new());
            }
            let start = first_data(region).max(before);
            let end = self.file_pages.min((region + 1) * REGION_PAGES);
            if start < end {
                self.reserved(start, end);
                self.give_back(start, end - start);
            }
        }
    }

    /// How many pages the file must have for `n` more in a row, at least.
    pub(crate) fn pages_to_fit(&self, n: u64) -> u64 {
        let region = self.file_pages / REGION_PAGES;
        // The free end of the file counts towards it.
        let tail = self.regions.get(region as usize).and_then(|r| r.free.last());
        let start = match tail {
            Some((start, len)) if region * REGION_PAGES + start + len == self.file_pages => {
                region * REGION_PAGES + start
            }
            _ => self.file_pages.max(first_data(region)),
        };
        if start + n <= (region + 1) * REGION_PAGES { start + n } else { first_data(region + 1) + n }
    }

    /// Ends the build of checkpoint `seq`: what it took is used, what it released is pending. Gives the
    /// bitmap pages to write before the checkpoint's sync.
    ///
    /// # Panics
    /// If an extent is taken twice or released twice: two nodes would share it.
    pub(crate) fn seal(&mut self, seq: u64) -> Vec<MapPage> {
        for (start, n) in std::mem::take(&mut self.taken) {
            let (region, at) = locate(start);
            let region = &mut self.regions[region];
            assert!(region.used.set(at, n) == n, "pages {start}+{n} are used already");
            region.dirty = true;
            self.used_pages += n;
        }
        for (start, n, birth) in std::mem::take(&mut self.released) {
            let (region, at) = locate(start);
            let region = &mut self.regions[region];
            assert!(region.used.clear(at, n) == n, "pages {start}+{n} are not used");
            region.dirty = true;
            self.used_pages -= n;
            self.pending.add(Dead { start, n, birth, death: seq });
        }
        let mut pages = Vec::new();
        for (i, region) in self.regions.iter_mut().enumerate().filter(|(_, r)| r.dirty) {
            let turn = match &region.version {
                None => 0,
                Some(version) if planted("bitmap-in-place") => version.turn,
                Some(version) => (version.turn + 1) % bitmap::TURNS,
            };
            let (bytes, crc) = bitmap::encode(&region.used, self.uuid, i as u64, seq);
            pages.push(MapPage { page: bitmap::map_page(i as u64, turn), bytes });
            region.version = Some(Version { seq, turn, crc });
            region.dirty = false;
        }
        pages
    }

    /// Ends a build that failed: nothing of it counts.
    pub(crate) fn abort(&mut self) {
        self.released.clear();
        for (start, n) in std::mem::take(&mut self.taken) {
            self.give_back(start, n);
        }
    }

    /// End of the last page in use.
    pub(crate) fn high_water(&self) -> u64 {
        let used = self.regions.iter().enumerate().rev().find_map(|(i, region)| {
            let end = region.used.end();
            (end > 0).then_some(i as u64 * REGION_PAGES + end)
        });
        used.unwrap_or(FIRST_DATA)
    }

    /// Checksum over the versions of the bitmaps of all regions up to the last in use.
    pub(crate) fn digest(&self) -> u32 {
        let used = regions(self.high_water()) as usize;
        digest(self.regions[..used.min(self.regions.len())].iter().map(|r| r.version.as_ref()))
    }

    /// Pages of the file that everything else lies below, pending extents included.
    pub(crate) fn end(&self) -> u64 {
        let dead = self.pending.iter().map(|dead| dead.start + dead.n).max().unwrap_or(0);
        let dead = if planted("truncate-early") { 0 } else { dead };
        let taken = self.taken.last_key_value().map_or(0, |(start, n)| start + n);
        self.high_water().max(dead).max(taken)
    }

    /// The file was cut to `file_pages`, which [`end`](Space::end) allows.
    pub(crate) fn truncate(&mut self, file_pages: u64) {
        assert!(file_pages >= self.end(), "the file is cut at {file_pages}, below what is used");
        self.len_pages = file_pages;
        if file_pages >= self.file_pages {
            return;
        }
        let (keep, before) = (regions(file_pages) as usize, self.regions.len());
        for region in self.regions.drain(keep.min(self.regions.len())..) {
            self.free_pages -= region.free.iter().map(|(_, n)| n).sum::<u64>();
            self.hole_pages -= region.backing.hole_pages();
        }
        for region in keep..before {
            self.rooms.set(region, 0);
        }
        if let Some(region) = self.regions.last_mut() {
            let start = (keep as u64 - 1) * REGION_PAGES;
            self.free_pages -= region.free.truncate(file_pages - start);
            self.hole_pages -= region.backing.truncate(file_pages - start);
            self.note_room(keep - 1);
        }
        self.file_pages = file_pages;
    }

    /// Used extents of the newest checkpoint as runs of pages, in order.
    pub(crate) fn used_runs(&self) -> Vec<(u64, u64)> {
        let regions = self.regions.iter().enumerate();
        let runs = regions.flat_map(|(i, region)| {
            let runs = region.used.runs(true, 0, REGION_PAGES);
            runs.into_iter().map(move |(start, n)| (i as u64 * REGION_PAGES + start, n))
        });
        runs.collect()
    }

    /// The bitmap pages of the newest checkpoint, each with what tells its version from the others.
    pub(crate) fn map_pages(&self) -> Vec<MapVersion> {
        let regions = self.regions.iter().enumerate();
        let versions = regions.filter_map(|(i, region)| {
            let Version { seq, turn, crc } = *region.version.as_ref()?;
            Some(MapVersion { region: i as u64, page: bitmap::map_page(i as u64, turn), seq, crc })
        });
        versions.collect()
    }

    /// The pages that the newest checkpoint reaches, also while the next one is being built.
    pub(crate) fn live(&self) -> LivePages {
        LivePages::new(self.regions.iter().map(|region| region.used.clone()).collect())
    }

    fn give_back(&mut self, start: u64, n: u64) {
        // A file that was cut and has pending space beyond its end does not exist: `end` counts pending.
        let (region, at) = locate(start);
        self.regions[region].free.add(at, n);
        self.note_room(region);
        self.free_pages += n;
    }
}

/// The checkpoint that a page of a region's map is of, and how many pages that uses in the region; `None` if it is not
/// a whole one.
pub(crate) fn map_version(page: &[u8], uuid: u64, region: u64) -> Option<(u64, u64)> {
    let (seq, bits, _) = bitmap::decode(page, uuid, region)?;
    Some((seq, bits.count()))
}

/// Region and page inside it.
fn locate(page: u64) -> (usize, u64) {
    ((page / REGION_PAGES) as usize, page % REGION_PAGES)
}

fn digest<'v>(versions: impl Iterator<Item = Option<&'v Version>>) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for version in versions {
        let (seq, crc) = version.map_or((0, 0), |v| (v.seq, v.crc));
        hasher.update(&seq.to_le_bytes());
        hasher.update(&crc.to_le_bytes());
    }
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(pages: u64) -> Space {
        let mut space = Space::new(7);
        space.grow(pages);
        space
    }

    #[test]
    fn a_build_that_fails_gives_back_what_it_took_and_keeps_what_it_released() {
        let mut space = space(256);
        space.begin(1, &[]);
        let kept = space.take(8).expect("room");
        space.seal(1);
        let before = space.stats();
        space.begin(2, &[]);
        space.take(4).expect("room");
        space.release(kept, 8, 1);
        space.abort();
        assert_eq!(space.stats(), before);
        assert_eq!(space.used_runs(), [(16, 8)]);
    }

    #[test]
    fn what_a_build_took_and_let_go_again_is_free_at_once() {
        let mut space = space(256);
        space.begin(1, &[]);
        let first = space.take(4).expect("room");
        assert!(space.release(first, 4, 1));
        assert_eq!(space.take(4), Some(first));
        assert!(!space.release(PageId::new(100), 2, 0));
    }

    #[test]
    fn growth_says_how_much_one_extent_needs_and_skips_the_next_regions_bitmaps() {
        let mut space = space(256);
        assert_eq!(space.pages_to_fit(10), 26, "the free end counts");
        space.begin(1, &[]);
        space.take(240).expect("room");
        assert_eq!(space.pages_to_fit(10), 266);
        space.grow(REGION_PAGES - 5);
        space.take(REGION_PAGES - 5 - 256).expect("room");
        assert_eq!(space.pages_to_fit(10), REGION_PAGES + 4 + 10);
        space.grow(REGION_PAGES + 14);
        assert_eq!(space.take(10), Some(PageId::new(REGION_PAGES + 4)));
        assert_eq!(space.take(5), Some(PageId::new(REGION_PAGES - 5)));
    }

    #[test]
    fn only_the_free_tail_is_cut() {
        let mut space = space(REGION_PAGES * 2);
        space.begin(1, &[]);
        let low = space.take(8).expect("room");
        let high = space.take(EXTENT_PAGES_MAX - 8).expect("room");
        space.seal(1);
        space.begin(2, &[]);
        space.release(high, EXTENT_PAGES_MAX - 8, 1);
        space.seal(2);
        assert_eq!(space.high_water(), low.get() + 8);
        assert_eq!(space.end(), high.get() + EXTENT_PAGES_MAX - 8, "pending space stays");
        space.begin(5, &[]);
        assert_eq!(space.end(), low.get() + 8);
        space.truncate(space.end());
        assert_eq!((space.stats().free, space.file_pages()), (0, low.get() + 8));
    }
}
