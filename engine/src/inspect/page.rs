// SPDX-License-Identifier: Apache-2.0
//! Looking at single pages: what each is for, and what is in it, whether a checkpoint needs it or not.
//!
//! Owns      the roles of pages by their place, and the search for the extent that a page is part of.
//! Holds     what is shown is what the page says of itself: a page that is free may still hold an old node.
//! Never     follows a pointer.

use super::Store;
use crate::error::Result;
use crate::format::Fault;
use crate::format::header::{EXTENT_PAGES_MAX, Header, check_extent};
use crate::format::slot::SLOTS;
use crate::format::superblock::SUPERBLOCKS;
use crate::page::{PAGE_BYTES, PageId};
use crate::space::{self, MAPS_OF_REGION, map_page, regions};

/// What a page is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Role {
    Superblock,
    /// One of the four commit slots.
    Slot,
    /// One of the four pages of a region's space map: which region, the checkpoint that it is of, and how many pages
    /// that uses there; `None` if it is not whole, or was never written.
    SpaceMap {
        region: u64,
        version: Option<(u64, u64)>,
    },
    /// Before the first page that is ever allocated.
    Reserved,
    /// Part of an extent.
    Extent(Box<ExtentLook>),
    /// None of these: never written, or overwritten in part.
    Unknown,
}

/// An extent as it says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExtentLook {
    pub header: Header,
    /// All of its pages.
    pub bytes: Vec<u8>,
    /// What its checksums say against it.
    pub fault: Option<Fault>,
}

impl Store {
    /// What `page` is for; `None` if the file does not have it.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn role(&self, page: PageId) -> Result<Option<Role>> {
        let n = page.get();
        if n >= self.file_pages() {
            return Ok(None);
        }
        if n < SUPERBLOCKS {
            return Ok(Some(Role::Superblock));
        }
        if n < SUPERBLOCKS + SLOTS {
            return Ok(Some(Role::Slot));
        }
        if let Some(region) = self.map_pages().find(|(at, _)| *at == page).map(|(_, region)| region) {
            let bytes = self.bytes(page, 1)?;
            let version = space::map_version(&bytes, self.superblock().uuid, region);
            return Ok(Some(Role::SpaceMap { region, version }));
        }
        if n < space::FIRST_DATA {
            return Ok(Some(Role::Reserved));
        }
        Ok(Some(self.extent_of(page)?.map_or(Role::Unknown, |extent| Role::Extent(Box::new(extent)))))
    }

    /// The bytes of `n` pages from `first` on.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn bytes(&self, first: PageId, n: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(n).expect("an extent fits the address space") * PAGE_BYTES];
        self.file.read(first, &mut bytes)?;
        Ok(bytes)
    }

    /// Runs of pages that are never part of a tree, in order: superblocks, slots, space maps.
    pub fn system_runs(&self) -> Vec<(u64, u64)> {
        let mut runs = vec![(0, space::FIRST_DATA)];
        let later = self.map_pages().filter(|(page, _)| page.get() >= space::FIRST_DATA);
        for (page, _) in later {
            match runs.last_mut() {
                Some((start, n)) if *start + *n == page.get() => *n += 1,
                _ => runs.push((page.get(), 1)),
            }
        }
        runs
    }

    /// The pages of the space map that the file has, and the region of each.
    fn map_pages(&self) -> impl Iterator<Item = (PageId, u64)> {
        let pages = self.file_pages();
        let all = (0..regions(pages)).flat_map(|region| (0..MAPS_OF_REGION).map(move |turn| (region, turn)));
        all.map(|(region, turn)| (map_page(region, turn), region)).filter(move |(page, _)| page.get() < pages)
    }

    /// The extent whose header is the nearest before `page` that reaches it.
    fn extent_of(&self, page: PageId) -> Result<Option<ExtentLook>> {
        let before = (page.get() - space::FIRST_DATA).min(u64::from(EXTENT_PAGES_MAX) - 1);
        let first = page.get() - before;
        let heads = self.bytes(PageId::new(first), before + 1)?;
        let found = heads.chunks_exact(PAGE_BYTES).enumerate().rev().find_map(|(at, head)| {
            let header = Header::decode(head).ok()?;
            let here = first + at as u64;
            let own = header.uuid == self.superblock().uuid && header.page.get() == here;
            (own && here + u64::from(header.npages) > page.get()).then_some(header)
        });
        let Some(header) = found else { return Ok(None) };
        if header.page.get() + u64::from(header.npages) > self.file_pages() {
            return Ok(None);
        }
        let bytes = self.bytes(header.page, header.npages.into())?;
        let fault = check_extent(&bytes, header.uuid, header.page, u64::MAX).err();
        Ok(Some(ExtentLook { header, bytes, fault }))
    }
}
