// SPDX-License-Identifier: Apache-2.0
//! Loading the space map at open: from the bitmaps, or from a walk where they are damaged.
//!
//! Owns      the choice of each checkpoint's version among the four of a region.
//! Holds     1. what either of the two checkpoints before the chosen one uses and it does not is pending, so
//!              those stay whole; where a version of theirs is missing, all free pages are;
//!           2. a version newer than the chosen checkpoint is named, so that it is zeroed before anything is
//!              written: it belongs to a history that is no more.
//! Never     believes a map that the slot's digest does not confirm.

use super::bitmap::{self, Bits, REGION_PAGES, TURNS, Version, first_data, regions};
use super::pending::{Dead, Pending};
use super::{Region, Space, digest};
use crate::error::Result;
use crate::page::{PAGE_BYTES, PageId};

/// What a slot says of its map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Previous {
    pub(crate) seq: u64,
    pub(crate) high_water: u64,
    pub(crate) digest: u32,
}

/// A map read back.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) space: Space,
    /// Bitmap pages that are newer than the chosen checkpoint.
    pub(crate) newer: Vec<PageId>,
    /// The map of the chosen checkpoint could not be read: `space` was made from the walk.
    pub(crate) rebuilt: bool,
}

impl Loaded {
    /// In the place of a map that is read later: a file of `file_pages`, of which nothing is known.
    pub(crate) fn unread(uuid: u64, file_pages: u64) -> Self {
        let space = Space { len_pages: file_pages, ..Space::new(uuid) };
        Self { space, newer: Vec::new(), rebuilt: false }
    }
}

/// One region's versions, whole ones alone.
type Versions = Vec<(Version, Bits)>;

/// Reads the map of checkpoint `chosen`. `before` are the slots of the two checkpoints before it as far as
/// they are whole; `file_pages` is the length of the file; `read` reads from a page on; `walk` lists the extents
/// that the chosen checkpoint reaches, and is only called if the map is damaged.
pub(crate) fn load(
    uuid: u64,
    chosen: Previous,
    before: [Option<Previous>; 2],
    file_pages: u64,
    mut read: impl FnMut(PageId, &mut [u8]) -> Result<()>,
    walk: impl FnOnce() -> Result<Vec<(u64, u64)>>,
) -> Result<Loaded> {
    let known = before.iter().flatten().map(|slot| slot.high_water).max().unwrap_or(0);
    let span = known.max(chosen.high_water);
    let mut all: Vec<Versions> = Vec::new();
    let mut newer = Vec::new();
    let mut pages = vec![0; TURNS as usize * PAGE_BYTES];
    for region in 0..regions(file_pages) {
        let mut versions = Versions::new();
        let first = bitmap::map_page(region, 0);
        let there = TURNS.min(file_pages.saturating_sub(first.get())) as usize;
        // A file may end inside them, or before those of the first region.
        read(first, &mut pages[..there * PAGE_BYTES])?;
        for (turn, page) in (0..TURNS).zip(pages[..there * PAGE_BYTES].chunks(PAGE_BYTES)) {
            let at = bitmap::map_page(region, turn);
            let Some((seq, bits, crc)) = bitmap::decode(page, uuid, region) else { continue };
            if seq > chosen.seq { newer.push(at) } else { versions.push((Version { seq, turn, crc }, bits)) }
        }
        versions.sort_by_key(|(version, _)| version.seq);
        all.push(versions);
    }
    let current = bits_at(&all, chosen);
    let rebuilt = current.is_none();
    let used = match current {
        Some(used) => used,
        None => from_extents(&walk()?, regions(span)),
    };
    let before = used_before(&all, chosen, before);
    let mut space = Space::new(uuid);
    // Room that no slot vouches for is asked for again, unless an unknown checkpoint may have used it.
    space.file_pages = if before.is_some() { span.max(super::FIRST_DATA) } else { file_pages };
    space.len_pages = file_pages;
    for (region, versions) in all.iter().enumerate().take(regions(space.file_pages) as usize) {
        let used = used.get(region).cloned().unwrap_or_else(Bits::new);
        let version = versions.last().map(|(version, _)| version.clone());
        space.used_pages += used.count();
        space.regions.push(Region { used, version, dirty: rebuilt, ..Region::new() });
    }
    let pending = pending(&space, chosen, before);
    add_free(&mut space, &pending);
    space.pending = pending;
    Ok(Loaded { space, newer, rebuilt })
}

/// The bits of all regions at a checkpoint, if they are what its slot says.
fn bits_at(all: &[Versions], slot: Previous) -> Option<Vec<Bits>> {
    let span = regions(slot.high_water) as usize;
    let newest: Vec<Option<&(Version, Bits)>> = all
        .get(..span)?
        .iter()
        .map(|versions| versions.iter().rev().find(|(version, _)| version.seq <= slot.seq))
        .collect();
    if digest(newest.iter().map(|found| found.map(|(version, _)| version))) != slot.digest {
        return None;
    }
    Some(newest.into_iter().map(|found| found.map_or_else(Bits::new, |(_, bits)| bits.clone())).collect())
}

/// The bits of the checkpoints before the chosen one, newest first, as many as there are; `None` if those
/// of any cannot be told.
fn used_before(all: &[Versions], chosen: Previous, before: [Option<Previous>; 2]) -> Option<Vec<Vec<Bits>>> {
    // Checkpoints are numbered from 1: the first has none before it, the second has one.
    let needed = before.len().min(chosen.seq as usize - 1);
    before[..needed].iter().map(|slot| slot.and_then(|slot| bits_at(all, slot))).collect()
}

/// What the two checkpoints before the chosen one use and it does not; all free pages where that is unknown.
fn pending(space: &Space, chosen: Previous, before: Option<Vec<Vec<Bits>>>) -> Pending {
    let mut pending = Pending::default();
    let mut add = |region: usize, runs: Vec<(u64, u64)>, death: u64| {
        for (start, n) in runs {
            pending.add(Dead { start: region as u64 * REGION_PAGES + start, n, birth: 0, death });
        }
    };
    let Some(before) = before else {
        for (region, state) in space.regions.iter().enumerate() {
            add(region, free_runs(space, region, &state.used), chosen.seq);
        }
        return pending;
    };
    let none = Bits::new();
    let at = |i: usize, region: usize| before.get(i).and_then(|bits| bits.get(region)).unwrap_or(&none);
    // In order of death: first what the older of the two alone has.
    for (region, state) in space.regions.iter().enumerate() {
        let older = at(1, region).without(at(0, region)).without(&state.used);
        add(region, older.runs(true, 0, REGION_PAGES), chosen.seq - 1);
    }
    for (region, state) in space.regions.iter().enumerate() {
        add(region, at(0, region).without(&state.used).runs(true, 0, REGION_PAGES), chosen.seq);
    }
    pending
}

fn free_runs(space: &Space, region: usize, used: &Bits) -> Vec<(u64, u64)> {
    let start = region as u64 * REGION_PAGES;
    let end = (space.file_pages - start).min(REGION_PAGES);
    let first = first_data(region as u64) - start;
    if first < end { used.runs(false, first, end) } else { Vec::new() }
}

fn add_free(space: &mut Space, pending: &Pending) {
    let held = from_extents(
        &pending.iter().map(|dead| (dead.start, dead.n)).collect::<Vec<_>>(),
        space.regions.len() as u64,
    );
    for (region, held) in held.iter().enumerate() {
        let taken = space.regions[region].used.with(held);
        for (start, n) in free_runs(space, region, &taken) {
            space.regions[region].free.add(start, n);
            space.free_pages += n;
        }
        space.note_room(region);
    }
}

fn from_extents(extents: &[(u64, u64)], regions: u64) -> Vec<Bits> {
    let mut bits = vec![Bits::new(); regions as usize];
    for (start, n) in extents {
        let (region, at) = super::locate(*start);
        if let Some(bits) = bits.get_mut(region) {
            bits.set(at, *n);
        }
    }
    bits
}
