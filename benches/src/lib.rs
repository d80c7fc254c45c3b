// SPDX-License-Identifier: Apache-2.0
//! What the criterion benches of the engine share: a tree file on disk that is read through a map, and a clock
//! of CPU time.
//!
//! Owns      that file, and keys drawn by chance.
//! Holds     reads go the way a server's go: one map, and each page verified at its first touch.
//! Never     measures.

pub mod cputime;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cairn_engine::io::{MapView, OpenHow, StdVfs, VFile, Vfs};
use cairn_engine::page::{PAGE_BYTES, PageBuf, PageId, PageSink, PageSource};
use cairn_engine::{Corruption, Error, IoFailure};

/// Pages that a bench file may have.
const PAGES_MAX: u64 = 1 << 20;

/// A file of pages without checkpoints: what is released is not used again.
#[derive(Clone)]
pub struct TreeFile(Arc<Inner>);

struct Inner {
    file: Arc<dyn VFile>,
    map: MapView,
    next: AtomicU64,
    verified: Vec<AtomicU64>,
    /// Removed with the last clone.
    _dir: tempfile::TempDir,
}

impl TreeFile {
    /// # Panics
    /// Where the machine's temporary directory cannot be written or mapped.
    pub fn new() -> TreeFile {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = StdVfs.open(&dir.path().join("bench.db"), OpenHow::Create).expect("a new file");
        let map = file.map(PAGES_MAX * PAGE_BYTES as u64).expect("a map").expect("a file that can be mapped");
        let verified = (0..PAGES_MAX / 64).map(|_| AtomicU64::new(0)).collect();
        TreeFile(Arc::new(Inner { file, map, next: AtomicU64::new(16), verified, _dir: dir }))
    }

    /// Forgets which pages were verified.
    pub fn forget(&self) {
        self.0.verified.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    /// Pages given out so far.
    pub fn pages(&self) -> u64 {
        self.0.next.load(Ordering::Relaxed)
    }

    fn failed(&self, op: &'static str, first: PageId, source: std::io::Error) -> Error {
        let file = self.0.map.path().to_path_buf();
        Error::Io(Box::new(IoFailure {
            op,
            file,
            offset: Some(first.byte_offset()),
            source: Arc::new(source),
        }))
    }
}

impl Default for TreeFile {
    fn default() -> TreeFile {
        TreeFile::new()
    }
}

impl PageSource for TreeFile {
    fn extent(&self, first: PageId, npages: u32) -> Result<PageBuf, Error> {
        if first.get() + u64::from(npages) > self.pages() {
            return Err(Corruption::new(Path::new("bench.db"), "extent beyond the file")
                .page(first.get())
                .into());
        }
        Ok(self.0.map.slice(first.byte_offset(), npages as usize * PAGE_BYTES).into())
    }

    fn probe(&self, first: PageId, npages: u32) -> Result<(), Error> {
        let probed = self.0.map.probe(first.byte_offset(), npages as usize * PAGE_BYTES);
        probed.map_err(|source| self.failed("probe", first, source))
    }

    fn is_verified(&self, page: PageId) -> bool {
        self.0.verified[page.get() as usize / 64].load(Ordering::Acquire) >> (page.get() % 64) & 1 == 1
    }

    fn set_verified(&self, page: PageId) {
        self.0.verified[page.get() as usize / 64].fetch_or(1 << (page.get() % 64), Ordering::Release);
    }
}

impl PageSink for TreeFile {
    fn allocate(&mut self, npages: u32) -> Result<PageId, Error> {
        let first = self.0.next.fetch_add(npages.into(), Ordering::Relaxed);
        assert!(first + u64::from(npages) < PAGES_MAX, "the bench file is full");
        Ok(PageId::new(first))
    }

    fn write(&mut self, first: PageId, bytes: Vec<u8>) -> Result<(), Error> {
        let written = self.0.file.write_all_at(&bytes, first.byte_offset());
        written.map_err(|source| self.failed("write", first, source))
    }

    fn release(&mut self, _: PageId, _: u32, _: u64) {}
}

/// Numbers by chance, the same in every run.
pub struct Rng(pub u64);

impl Rng {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        ((u128::from(self.0 ^ (self.0 >> 33)) * u128::from(end)) >> 64) as u64
    }
}
