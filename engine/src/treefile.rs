// SPDX-License-Identifier: Apache-2.0
//! The open tree file: every read, write and sync of it, counted, and the end of it after a failure.
//!
//! Owns      the file's handle, and the one flag that says whether it may still be written.
//! Holds     1. after a failed write or sync nothing is written or synced again (invariant I6);
//!           2. a page's verified bit is cleared before the page is written, never after.
//! Never     knows which page is what.

use std::cell::Cell;
use std::io::{ErrorKind, IoSlice};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::error::{Error, Result};
use crate::io::{MapView, VFile};
use crate::mutants::planted;
use crate::page::{PAGE_BYTES, PageBuf, PageId, PageSource};
use crate::verified::VerifiedBits;

/// How often a failed read is tried before it counts.
pub(crate) const READS_MAX: u32 = 3;

/// Pages that are cut off at a time: a few milliseconds of work for the file system.
const CUT_PAGES_MAX: u64 = (16 << 20) / PAGE_BYTES as u64;

/// What was done to a tree file since it was opened.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) syncs: AtomicU64,
    pub(crate) bytes_written: AtomicU64,
    pub(crate) extents_read: AtomicU64,
    pub(crate) pages_verified: AtomicU64,
    pub(crate) extents_allocated: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) bytes_punched: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

#[derive(Debug)]
pub(crate) struct TreeFile {
    file: Arc<dyn VFile>,
    path: Arc<Path>,
    /// What every write and sync answers since one of them failed.
    poisoned: OnceLock<Error>,
    verified: VerifiedBits,
    pub(crate) counters: Counters,
}

impl TreeFile {
    pub(crate) fn new(file: Arc<dyn VFile>, path: &Path) -> Self {
        Self {
            file,
            path: Arc::from(path),
            poisoned: OnceLock::new(),
            verified: VerifiedBits::new(),
            counters: Counters::default(),
        }
    }

    pub(crate) fn path(&self) -> &Arc<Path> {
        &self.path
    }

    /// # Errors
    /// [`Error::Poisoned`] after any failed write or sync.
    pub(crate) fn healthy(&self) -> Result<()> {
        match self.poisoned.get() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// Reads from `first` until `out` is full. A failed read is tried again: it is never taken for damage.
    pub(crate) fn read(&self, first: PageId, out: &mut [u8]) -> Result<()> {
        let offset = first.byte_offset();
        let mut tries = 1;
        loop {
            match self.file.read_at(out, offset) {
                Ok(()) => return Ok(()),
                Err(source) if tries == READS_MAX => {
                    return Err(Error::io("read", &self.path, Some(offset), source));
                }
                Err(_) => tries += 1,
            }
        }
    }

    /// Reads from `first` until `out` is full, from the medium, once.
    pub(crate) fn read_medium(&self, first: PageId, out: &mut [u8]) -> Result<()> {
        let offset = first.byte_offset();
        self.file.read_medium(out, offset).map_err(|e| Error::io("read", &self.path, Some(offset), e))
    }

    /// Writes whole pages from `first` on.
    pub(crate) fn write(&self, first: PageId, parts: &[IoSlice<'_>]) -> Result<()> {
        self.healthy()?;
        let bytes: u64 = parts.iter().map(|part| part.len() as u64).sum();
        self.forget(first, bytes.div_ceil(PAGE_BYTES as u64));
        let offset = first.byte_offset();
        count(&self.counters.bytes_written, bytes);
        self.file.write_at(parts, offset).map_err(|source| self.fatal("write", Some(offset), source))
    }

    /// Begins to bring pages that were written to the medium, so that the next sync, which others on the same disk wait
    /// behind, has little left to do.
    pub(crate) fn write_behind(&self, first: PageId, bytes: u64) -> Result<()> {
        let offset = first.byte_offset();
        self.file.write_behind(offset, bytes).map_err(|source| self.fatal("write", Some(offset), source))
    }

    /// The pages are to be written anew: whatever passed its checksum there no longer counts. A damaged pointer may name
    /// pages after the last that there can be.
    pub(crate) fn forget(&self, first: PageId, npages: u64) {
        let end = (first.get() + npages).min(PageId::MAX.get() + 1);
        for page in first.get()..end {
            self.verified.clear(page);
        }
    }

    /// Makes everything written durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.healthy()?;
        count(&self.counters.syncs, 1);
        self.file.sync_data().map_err(|source| self.fatal("sync", None, source))
    }

    /// Reserves room for the pages from `from` to `to`. A full disk is an answer and ends nothing: no byte
    /// was written.
    pub(crate) fn reserve(&self, from: u64, to: u64) -> Result<()> {
        self.healthy()?;
        let (from, bytes) = (from * PAGE_BYTES as u64, (to - from) * PAGE_BYTES as u64);
        match self.file.allocate(from, bytes) {
            Ok(()) => Ok(()),
            Err(source) => match Error::io("allocate", &self.path, Some(from), source) {
                full @ Error::NoSpace { .. } => Err(full),
                other => {
                    self.poisoned.get_or_init(|| other.poison(&self.path));
                    Err(other)
                }
            },
        }
    }

    /// Gives pages back to the file system. `false` where it cannot, or has no room to note that it did.
    pub(crate) fn punch(&self, first: u64, n: u64) -> Result<bool> {
        self.healthy()?;
        let (offset, bytes) = (first * PAGE_BYTES as u64, n * PAGE_BYTES as u64);
        match self.file.punch(offset, bytes) {
            Ok(()) => {
                count(&self.counters.bytes_punched, bytes);
                Ok(true)
            }
            Err(e) if matches!(e.kind(), ErrorKind::Unsupported | ErrorKind::StorageFull) => Ok(false),
            Err(source) => Err(self.fatal("punch", Some(offset), source)),
        }
    }

    /// Cuts the file from `pages` to `to`, some at a time: who touches a page that the system does not have in memory
    /// waits for a cut under way.
    pub(crate) fn cut(&self, mut pages: u64, to: u64) -> Result<()> {
        self.healthy()?;
        while pages > to {
            pages = to.max(pages.saturating_sub(CUT_PAGES_MAX));
            let len = pages * PAGE_BYTES as u64;
            self.file.set_len(len).map_err(|source| self.fatal("cut", Some(len), source))?;
        }
        Ok(())
    }

    /// Whole pages that the file has.
    pub(crate) fn pages(&self) -> Result<u64> {
        let len = self.file.size().map_err(|source| Error::io("measure", &self.path, None, source))?;
        Ok(len / PAGE_BYTES as u64)
    }

    /// A map of the file with `reserve` bytes of addresses; `None` where this kind of file has none.
    pub(crate) fn map(&self, reserve: u64) -> Result<Option<MapView>> {
        self.file.map(reserve).map_err(|source| Error::io("map", &self.path, None, source))
    }

    /// The error of a failed write or sync, after which there are no others.
    fn fatal(&self, op: &'static str, offset: Option<u64>, source: std::io::Error) -> Error {
        let error = Error::io(op, &self.path, offset, source);
        let poisoned = error.poison(&self.path);
        if !planted("write-after-failed-sync") {
            self.poisoned.get_or_init(|| poisoned.clone());
        }
        // `NoSpace` is for what can be tried again.
        if error.is_full() { poisoned } else { error }
    }
}

/// How a checkpoint's pages are read: through a map as far as it reaches, else by reading.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    file: Arc<TreeFile>,
    map: Option<MapView>,
}

impl Source {
    pub(crate) fn new(file: Arc<TreeFile>, map: Option<MapView>) -> Self {
        Self { file, map }
    }

    pub(crate) fn file(&self) -> &Arc<TreeFile> {
        &self.file
    }

    /// Addresses that the map has, if there is one.
    pub(crate) fn mapped(&self) -> Option<u64> {
        self.map.as_ref().map(MapView::reserved)
    }

    fn map_of(&self, first: PageId, npages: u32) -> Option<&MapView> {
        let end = first.byte_offset() + u64::from(npages) * PAGE_BYTES as u64;
        self.map.as_ref().filter(|map| end <= map.reserved())
    }
}

/// A source for the reads of one call, which are counted together at its end.
pub(crate) struct Tallied<'s> {
    source: &'s Source,
    extents: Cell<u64>,
}

impl Source {
    /// For the reads of one call.
    pub(crate) fn tallied(&self) -> Tallied<'_> {
        Tallied { source: self, extents: Cell::new(0) }
    }

    #[inline]
    fn bytes_of(&self, first: PageId, npages: u32) -> Result<PageBuf, Error> {
        let bytes = npages as usize * PAGE_BYTES;
        if let Some(map) = self.map_of(first, npages) {
            return Ok(map.slice(first.byte_offset(), bytes).into());
        }
        let mut buf = vec![0; bytes];
        self.file.read(first, &mut buf)?;
        Ok(buf.into())
    }
}

impl Drop for Tallied<'_> {
    fn drop(&mut self) {
        count(&self.source.file.counters.extents_read, self.extents.get());
    }
}

impl PageSource for Tallied<'_> {
    #[inline]
    fn extent(&self, first: PageId, npages: u32) -> Result<PageBuf, Error> {
        self.extents.set(self.extents.get() + 1);
        self.source.bytes_of(first, npages)
    }

    fn probe(&self, first: PageId, npages: u32) -> Result<(), Error> {
        self.source.probe(first, npages)
    }

    #[inline]
    fn is_verified(&self, page: PageId) -> bool {
        self.source.is_verified(page)
    }

    fn set_verified(&self, page: PageId) {
        self.source.set_verified(page);
    }
}

impl PageSource for Source {
    fn extent(&self, first: PageId, npages: u32) -> Result<PageBuf, Error> {
        count(&self.file.counters.extents_read, 1);
        self.bytes_of(first, npages)
    }

    fn probe(&self, first: PageId, npages: u32) -> Result<(), Error> {
        let Some(map) = self.map_of(first, npages) else { return Ok(()) };
        let offset = first.byte_offset();
        let mut tries = 1;
        loop {
            match map.probe(offset, npages as usize * PAGE_BYTES) {
                Ok(()) => return Ok(()),
                Err(source) if tries == READS_MAX => {
                    return Err(Error::io("read", &self.file.path, Some(offset), source));
                }
                Err(_) => tries += 1,
            }
        }
    }

    fn is_verified(&self, page: PageId) -> bool {
        self.map_of(page, 1).is_some() && self.file.verified.get(page.get())
    }

    fn set_verified(&self, page: PageId) {
        count(&self.file.counters.pages_verified, 1);
        self.file.verified.set(page.get());
    }
}

/// The pages as the medium has them. What passed before is not believed any longer: the kernel may have given a page
/// up since then and read other bytes back, so whoever reads it next through memory sums it anew.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Medium<'f>(pub(crate) &'f TreeFile);

impl PageSource for Medium<'_> {
    fn extent(&self, first: PageId, npages: u32) -> Result<PageBuf, Error> {
        self.0.forget(first, npages.into());
        let mut buf = vec![0; npages as usize * PAGE_BYTES];
        self.0.read_medium(first, &mut buf)?;
        Ok(buf.into())
    }

    fn is_verified(&self, _: PageId) -> bool {
        false
    }

    fn set_verified(&self, _: PageId) {}
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::io::{OpenHow, Vfs as _};
    use crate::sim::SimVfs;

    #[test]
    fn pages_after_the_last_that_there_can_be_are_not_read_and_end_nothing() {
        let (vfs, path) = (SimVfs::new(), Path::new("/data/tree"));
        vfs.create_dir(Path::new("/data")).expect("memory");
        let handle = vfs.open(path, OpenHow::CreateNew).expect("memory");
        let file = TreeFile::new(handle, path);
        for first in [PageId::MAX, PageId::new(PageId::MAX.get() - 1)] {
            let read = Medium(&file).extent(first, 16);
            assert!(matches!(read, Err(Error::Io { .. })), "{first:?}: {read:?}");
        }
    }
}
