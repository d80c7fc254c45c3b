// SPDX-License-Identifier: Apache-2.0
//! Bitmaps: which pages of a region a checkpoint uses, and the page that says so on disk.
//!
//! Owns      the cut of the file into regions, the layout of a bitmap page, the bits of one region.
//! Holds     1. each region begins with four pages for its bitmap, which are never allocated: the map does
//!              not allocate itself. The first region has them after the slots;
//!           2. a checkpoint that changes a region writes the next of the four in turn, so the versions of
//!              the three checkpoints before it stay whole (invariant I3 for the map).
//! Never     reads or writes a file.
//!
//! A region is 126 MiB, not 128: 64 bytes of a bitmap page say whose version it is, so that a checkpoint
//! finds its own without a list of them in its slot.

use crate::page::{PAGE_BYTES, PageId};

/// Pages of a region: one bit each in what its bitmap page has beside the header.
pub const REGION_PAGES: u64 = ((PAGE_BYTES - HEADER_BYTES) * 8) as u64;

/// Bitmap pages of a region, written in turn.
pub const TURNS: u64 = 4;

/// The first page that is ever allocated. Before it: superblocks, slots, the first region's bitmaps.
pub const FIRST_DATA: u64 = 16;

const FIRST_REGION_MAPS: u64 = 6;
/// Where a bitmap page keeps its checksum.
#[cfg(feature = "sim")]
pub(crate) const CRC_AT: usize = 4;

const HEADER_BYTES: usize = 64;
const MAGIC: &[u8; 4] = b"CMAP";
const WORDS: usize = REGION_PAGES as usize / 64;

const _: () = assert!(REGION_PAGES.is_multiple_of(64), "a region is whole words");

/// The page of a region's bitmap whose turn it is.
pub(crate) fn map_page(region: u64, turn: u64) -> PageId {
    let first = if region == 0 { FIRST_REGION_MAPS } else { region * REGION_PAGES };
    PageId::new(first + turn % TURNS)
}

/// The first page of a region that can be allocated.
pub(crate) fn first_data(region: u64) -> u64 {
    if region == 0 { FIRST_DATA } else { region * REGION_PAGES + TURNS }
}

/// Regions that a file of `pages` pages has, the last of them perhaps short.
pub(crate) fn regions(pages: u64) -> u64 {
    pages.div_ceil(REGION_PAGES)
}

/// The used pages of one region.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Bits(Box<[u64; WORDS]>);

impl Bits {
    pub(crate) fn new() -> Self {
        Self(Box::new([0; WORDS]))
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Sets the bits of `n` pages from `at`. Answers how many were not.
    pub(crate) fn set(&mut self, at: u64, n: u64) -> u64 {
        let mut fresh = 0;
        for_words(at, n, |word, mask| {
            fresh += u64::from((mask & !self.0[word]).count_ones());
            self.0[word] |= mask;
        });
        fresh
    }

    /// Clears the bits of `n` pages from `at`. Answers how many were set.
    pub(crate) fn clear(&mut self, at: u64, n: u64) -> u64 {
        let mut used = 0;
        for_words(at, n, |word, mask| {
            used += u64::from((mask & self.0[word]).count_ones());
            self.0[word] &= !mask;
        });
        used
    }

    /// Whether all of `n` pages from `at` are set.
    pub(crate) fn all(&self, at: u64, n: u64) -> bool {
        let mut all = true;
        for_words(at, n, |word, mask| all &= self.0[word] & mask == mask);
        all
    }

    /// Pages used here and not in `other`.
    pub(crate) fn without(&self, other: &Bits) -> Bits {
        let mut out = self.clone();
        for (word, taken) in out.0.iter_mut().zip(other.0.iter()) {
            *word &= !taken;
        }
        out
    }

    /// Pages used here and in `other`.
    pub(crate) fn within(&self, other: &Bits) -> Bits {
        let mut out = self.clone();
        for (word, kept) in out.0.iter_mut().zip(other.0.iter()) {
            *word &= kept;
        }
        out
    }

    /// Pages used here or in `other`.
    pub(crate) fn with(&self, other: &Bits) -> Bits {
        let mut out = self.clone();
        for (word, added) in out.0.iter_mut().zip(other.0.iter()) {
            *word |= added;
        }
        out
    }

    /// End of the last used page, zero if none is.
    pub(crate) fn end(&self) -> u64 {
        match self.0.iter().rposition(|word| *word != 0) {
            None => 0,
            Some(i) => i as u64 * 64 + 64 - u64::from(self.0[i].leading_zeros()),
        }
    }

    /// The first run of used pages at or behind `from`: start and length.
    pub(crate) fn next_used(&self, from: u64) -> Option<(u64, u64)> {
        let start = self.find(true, from)?;
        Some((start, self.find(false, start).unwrap_or(REGION_PAGES) - start))
    }

    /// The first page at or behind `from` that is used, or free.
    fn find(&self, used: bool, from: u64) -> Option<u64> {
        let mut at = from;
        while at < REGION_PAGES {
            let word = if used { self.0[at as usize / 64] } else { !self.0[at as usize / 64] };
            let rest = word >> (at % 64);
            if rest != 0 {
                return Some(at + u64::from(rest.trailing_zeros()));
            }
            at = (at / 64 + 1) * 64;
        }
        None
    }

    /// Runs of pages in `from..to` that are used (`true`) or free (`false`): start and length.
    pub(crate) fn runs(&self, used: bool, from: u64, to: u64) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        let mut at = from;
        while at < to {
            let word = if used { self.0[at as usize / 64] } else { !self.0[at as usize / 64] };
            let rest = word >> (at % 64);
            if rest == 0 {
                at = (at / 64 + 1) * 64;
                continue;
            }
            let start = at + u64::from(rest.trailing_zeros());
            let ones = u64::from((word >> (start % 64)).trailing_ones());
            let end = (start + ones).min(to);
            if start < to {
                match runs.last_mut() {
                    Some((last, n)) if *last + *n == start => *n += end - start,
                    _ => runs.push((start, end - start)),
                }
            }
            at = end;
        }
        runs
    }
}

fn for_words(at: u64, n: u64, mut each: impl FnMut(usize, u64)) {
    assert!(at + n <= REGION_PAGES, "{n} pages at {at} reach past their region");
    let (mut at, end) = (at, at + n);
    while at < end {
        let take = (64 - at % 64).min(end - at);
        let mask = if take == 64 { u64::MAX } else { ((1 << take) - 1) << (at % 64) };
        each(at as usize / 64, mask);
        at += take;
    }
}

/// One version of a region's bitmap as it is on disk.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) seq: u64,
    pub(crate) turn: u64,
    pub(crate) crc: u32,
}

/// The page that says at checkpoint `seq` which pages of `region` are used, and its checksum.
pub(crate) fn encode(bits: &Bits, uuid: u64, region: u64, seq: u64) -> (Vec<u8>, u32) {
    let mut out = vec![0; PAGE_BYTES];
    out[0..4].copy_from_slice(MAGIC);
    out[8..16].copy_from_slice(&seq.to_le_bytes());
    out[16..24].copy_from_slice(&uuid.to_le_bytes());
    out[24..32].copy_from_slice(&region.to_le_bytes());
    for (i, word) in bits.0.iter().enumerate() {
        let at = HEADER_BYTES + i * 8;
        out[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }
    let crc = checksum(&out);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    (out, crc)
}

/// The bitmap in `page`: checkpoint, bits, checksum; `None` if it is not a whole one of that region.
pub(crate) fn decode(page: &[u8], uuid: u64, region: u64) -> Option<(u64, Bits, u32)> {
    let u64_at = |at: usize| Some(u64::from_le_bytes(*page.get(at..)?.first_chunk()?));
    let crc = u32::from_le_bytes(*page.get(4..)?.first_chunk()?);
    if page.len() != PAGE_BYTES || &page[0..4] != MAGIC || checksum(page) != crc {
        return None;
    }
    if u64_at(16)? != uuid || u64_at(24)? != region {
        return None;
    }
    let mut bits = Bits::new();
    for (i, word) in bits.0.iter_mut().enumerate() {
        *word = u64_at(HEADER_BYTES + i * 8)?;
    }
    Some((u64_at(8)?, bits, crc))
}

/// The checksum that a bitmap page should state of itself.
pub(crate) fn checksum(page: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&page[..4]);
    hasher.update(&page[8..]);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_and_clearing_notice_what_was_so_already() {
        let mut bits = Bits::new();
        assert_eq!(bits.set(60, 200), 200);
        assert_eq!(bits.set(259, 2), 1, "one is used already");
        assert!(bits.all(60, 201) && !bits.all(60, 202) && !bits.all(59, 2));
        assert_eq!(bits.clear(60, 101), 101);
        assert_eq!(bits.clear(150, 20), 9, "partly free already");
        assert_eq!(bits.count(), 91);
        assert_eq!(bits.end(), 261);
    }

    #[test]
    fn runs_of_used_and_of_free_pages_share_the_region() {
        let mut bits = Bits::new();
        for (at, n) in [(0, 3), (63, 2), (128, 64), (32_000, 256)] {
            bits.set(at, n);
        }
        let used = bits.runs(true, 0, REGION_PAGES);
        assert_eq!(used, [(0, 3), (63, 2), (128, 64), (32_000, 256)]);
        let free = bits.runs(false, 2, 32_100);
        assert_eq!(free, [(3, 60), (65, 63), (192, 31_808)]);
        assert_eq!(bits.runs(true, 64, 130), [(64, 1), (128, 2)]);
        let walk = std::iter::successors(bits.next_used(0), |(start, n)| bits.next_used(start + n));
        assert_eq!(walk.collect::<Vec<_>>(), used);
        assert_eq!((bits.next_used(64), bits.next_used(32_256)), (Some((64, 1)), None));
        assert_eq!(Bits::new().end(), 0);
    }

    #[test]
    fn a_page_of_another_region_or_file_or_with_a_flipped_bit_is_none() {
        let mut bits = Bits::new();
        bits.set(17, 1000);
        let (page, crc) = encode(&bits, 7, 3, 12);
        let (seq, read, read_crc) = decode(&page, 7, 3).expect("whole");
        assert_eq!((seq, &read, read_crc), (12, &bits, crc));
        assert!(decode(&page, 7, 4).is_none() && decode(&page, 8, 3).is_none());
        for bit in (0..PAGE_BYTES * 8).step_by(37) {
            let mut rotten = page.clone();
            rotten[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&rotten, 7, 3).is_none(), "bit {bit}");
        }
        assert!(decode(&[0; PAGE_BYTES], 7, 3).is_none());
    }
}
