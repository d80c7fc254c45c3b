// SPDX-License-Identifier: Apache-2.0
//! Pages of a checkpoint on their way to the file.
//!
//! Owns      what was built and not yet written, and the sink and the source that trees are built with.
//! Holds     1. queued extents are disjoint: one that is let go again leaves the queue;
//!           2. they are written in order of address, neighbours together, at most a named size at a time;
//!           3. room is reserved before anything is written into it, so a full disk shows before any write.
//! Never     syncs.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::IoSlice;

use bytes::Bytes;

use crate::error::Result;
use crate::options::Growth;
use crate::page::{PAGE_BYTES, PageBuf, PageId, PageSink, PageSource};
use crate::space::Space;
use crate::treefile::{Source, TreeFile, count};

/// Most bytes of one write.
const WRITE_BYTES_MAX: usize = 1 << 20;

/// Most pieces of one write; the kernel takes 1024.
const WRITE_PARTS_MAX: usize = 512;

#[derive(Debug, Default)]
pub(crate) struct WriteQueue {
    extents: BTreeMap<u64, Bytes>,
}

impl WriteQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.extents.is_empty()
    }

    fn push(&mut self, first: PageId, bytes: Vec<u8>) {
        let before = self.extents.insert(first.get(), bytes.into());
        assert!(before.is_none(), "page {first} is written twice");
    }

    /// Writes queued extents until `budget` bytes are written or none is left; at least one write. Answers
    /// the bytes written.
    pub(crate) fn drain(&mut self, file: &TreeFile, budget: u64) -> Result<u64> {
        let mut written = 0;
        while let Some((first, run)) = self.next_run() {
            let parts: Vec<IoSlice<'_>> = run.iter().map(|bytes| IoSlice::new(bytes)).collect();
            file.write(PageId::new(first), &parts)?;
            let bytes = run.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
            file.write_behind(PageId::new(first), bytes)?;
            written += bytes;
            if written >= budget {
                break;
            }
        }
        Ok(written)
    }

    /// Takes the first extents that lie behind each other, as many as one write carries.
    fn next_run(&mut self) -> Option<(u64, Vec<Bytes>)> {
        let (first, bytes) = self.extents.pop_first()?;
        let mut len = bytes.len();
        let mut run = vec![bytes];
        while let Some(next) = self.extents.first_entry() {
            let adjacent = *next.key() == first + (len / PAGE_BYTES) as u64;
            if !adjacent || len + next.get().len() > WRITE_BYTES_MAX || run.len() == WRITE_PARTS_MAX {
                break;
            }
            len += next.get().len();
            run.push(next.remove());
        }
        Some((first, run))
    }
}

/// Where a tree is built to.
pub(crate) struct Sink<'b> {
    pub(crate) space: &'b mut Space,
    pub(crate) file: &'b TreeFile,
    pub(crate) queue: &'b RefCell<WriteQueue>,
    pub(crate) growth: Growth,
    /// Bytes written so far, which whoever feeds the build watches to end it in time.
    pub(crate) output: &'b Cell<u64>,
    /// Set once an extent had to come from the tail that is being given up.
    pub(crate) spilled: Option<&'b Cell<bool>>,
}

impl Sink<'_> {
    fn grow(&mut self, npages: u64) -> Result<()> {
        let from = self.space.file_pages();
        let least = self.space.pages_to_fit(npages);
        let wanted = least.max(from + self.growth.step_pages(from));
        let to = match self.file.reserve(from, wanted) {
            Ok(()) => wanted,
            // A full disk may still have room for what is needed now.
            Err(crate::Error::NoSpace { .. }) if least < wanted => {
                self.file.reserve(from, least)?;
                least
            }
            Err(error) => return Err(error),
        };
        self.space.grow(to);
        Ok(())
    }
}

impl PageSink for Sink<'_> {
    fn allocate(&mut self, npages: u32) -> Result<PageId> {
        count(&self.file.counters.extents_allocated, 1);
        let page = match self.space.take(npages.into()) {
            Some(page) => page,
            None => {
                self.grow(npages.into())?;
                self.space.take(npages.into()).expect("the file grew by what is needed")
            }
        };
        if let Some(spilled) = self.spilled.filter(|_| page.get() + u64::from(npages) > self.space.floor()) {
            spilled.set(true);
        }
        if let Some((from, to)) = self.space.unreserved(page, npages.into()) {
            self.file.reserve(from, to)?;
            self.space.reserved(from, to);
        }
        Ok(page)
    }

    fn write(&mut self, first: PageId, bytes: Vec<u8>) -> Result<()> {
        self.output.set(self.output.get() + bytes.len() as u64);
        self.file.forget(first, (bytes.len() / PAGE_BYTES) as u64);
        self.queue.borrow_mut().push(first, bytes);
        Ok(())
    }

    fn release(&mut self, first: PageId, npages: u32, birth: u64) {
        if self.space.release(first, npages.into(), birth) {
            self.queue.borrow_mut().extents.remove(&first.get());
        }
    }
}

/// The file as the build sees it: what is queued counts as written.
pub(crate) struct BuildSource<'b> {
    pub(crate) source: &'b Source,
    pub(crate) queue: &'b RefCell<WriteQueue>,
}

impl BuildSource<'_> {
    fn queued(&self, page: PageId) -> bool {
        let queue = self.queue.borrow();
        let before = queue.extents.range(..=page.get()).next_back();
        before.is_some_and(|(first, bytes)| page.get() < first + (bytes.len() / PAGE_BYTES) as u64)
    }
}

impl PageSource for BuildSource<'_> {
    fn extent(&self, first: PageId, npages: u32) -> Result<PageBuf> {
        match self.queue.borrow().extents.get(&first.get()) {
            Some(bytes) if bytes.len() == npages as usize * PAGE_BYTES => Ok(bytes.clone().into()),
            _ => self.source.extent(first, npages),
        }
    }

    fn probe(&self, first: PageId, npages: u32) -> Result<()> {
        if self.queued(first) { Ok(()) } else { self.source.probe(first, npages) }
    }

    fn is_verified(&self, page: PageId) -> bool {
        !self.queued(page) && self.source.is_verified(page)
    }

    fn set_verified(&self, page: PageId) {
        if !self.queued(page) {
            self.source.set_verified(page);
        }
    }
}
