// SPDX-License-Identifier: Apache-2.0
//! What the tests of trees share: a file that counts and accounts, a seeded generator, and the model.
//!
//! Owns      the fake file, in memory or with a real one behind it; keys and values by chance.
//! Holds     1. the file knows which extents are live, and refuses a release that does not match one;
//!           2. with a real file, every byte that a tree sees comes from there, by map or by read.
//! Never     looks inside a page.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use cairn_engine::io::{MapView, OpenHow, StdVfs, VFile, Vfs};
use cairn_engine::page::{PAGE_BYTES, PageBuf, PageId, PageSink, PageSource, TreeRoot};
use cairn_engine::tree::{self, Ctx, Shape, Weight};
use cairn_engine::{Corruption, Error};

/// First page that a tree may use, as in a real file.
const FIRST_PAGE: u64 = 16;

pub type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// SplitMix64: enough chance for tests, and the same on every machine.
#[derive(Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// The seed of this run: `CAIRN_SEED`, or the constant of the test. Printed, so that a failure can be had again.
pub fn seed(test: &str, default: u64) -> u64 {
    let seed = std::env::var("CAIRN_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    println!("{test}: seed {seed} (CAIRN_SEED)");
    seed
}

/// Whether the large numbers are wanted.
pub fn full() -> bool {
    std::env::var_os("CAIRN_FULL").is_some_and(|value| value == "1")
}

/// A real file that has the same bytes, and its map if it is to be read through one.
struct Real {
    _dir: tempfile::TempDir,
    file: Arc<dyn VFile>,
    map: Option<MapView>,
}

#[derive(Default)]
struct Disk {
    bytes: Vec<u8>,
    real: Option<Real>,
    /// First page to page count and birth.
    live: BTreeMap<u64, (u32, u64)>,
    /// Released, and still whole until [`MemFile::settle`].
    pending: Vec<(u64, u32)>,
    free: Vec<(u64, u32)>,
    seq: u64,
    verified: BTreeSet<u64>,
    remembers: bool,
    reads: u64,
    probed: u64,
    /// Calls for that.
    probes: u64,
}

impl Disk {
    /// The bytes from `at` on were changed.
    fn wrote(&self, at: usize, len: usize) {
        if let Some(real) = &self.real {
            real.file.write_all_at(&self.bytes[at..at + len], at as u64).expect("the file takes it");
        }
    }
}

/// A tree file in memory, both source and sink.
#[derive(Clone)]
pub struct MemFile(Rc<RefCell<Disk>>);

impl MemFile {
    pub fn new() -> MemFile {
        let bytes = vec![0; FIRST_PAGE as usize * PAGE_BYTES];
        MemFile(Rc::new(RefCell::new(Disk { bytes, ..Disk::default() })))
    }

    /// One that is read from a real file: through a map, or page by page.
    pub fn on_disk(mapped: bool) -> MemFile {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = StdVfs.open(&dir.path().join("tree"), OpenHow::CreateNew).expect("a file");
        let map = if mapped { file.map(1 << 30).expect("a map") } else { None };
        assert_eq!(map.is_some(), mapped);
        let of = MemFile::new();
        of.0.borrow_mut().real = Some(Real { _dir: dir, file, map });
        of
    }

    /// Begins a build whose nodes have this birth.
    pub fn begin(&self, seq: u64) {
        self.0.borrow_mut().seq = seq;
    }

    /// Makes what was released free, and overwrites it so that nobody reads it by luck.
    pub fn settle(&self) {
        let mut disk = self.0.borrow_mut();
        for (first, npages) in std::mem::take(&mut disk.pending) {
            let at = first as usize * PAGE_BYTES;
            disk.bytes[at..at + npages as usize * PAGE_BYTES].fill(0xdd);
            disk.wrote(at, npages as usize * PAGE_BYTES);
            disk.free.push((first, npages));
        }
    }

    /// Makes what was released free, and leaves its bytes as a disk would.
    pub fn reuse(&self) {
        let mut disk = self.0.borrow_mut();
        let released = std::mem::take(&mut disk.pending);
        disk.free.extend(released);
    }

    /// Whether the source remembers which pages were verified, as a mapped one does.
    pub fn remember(&self, remembers: bool) {
        let mut disk = self.0.borrow_mut();
        disk.remembers = remembers;
        disk.verified.clear();
    }

    /// Extents read and pages looked at for the first time since the last call.
    pub fn take_counts(&self) -> (u64, u64) {
        let mut disk = self.0.borrow_mut();
        (std::mem::take(&mut disk.reads), std::mem::take(&mut disk.probed))
    }

    /// Calls since the last one that asked whether pages can be read.
    pub fn take_probes(&self) -> u64 {
        std::mem::take(&mut self.0.borrow_mut().probes)
    }

    pub fn live(&self) -> BTreeMap<u64, (u32, u64)> {
        self.0.borrow().live.clone()
    }

    pub fn pages(&self) -> u64 {
        (self.0.borrow().bytes.len() / PAGE_BYTES) as u64
    }

    /// The whole file.
    pub fn image(&self) -> Vec<u8> {
        self.0.borrow().bytes.clone()
    }

    /// Flips bits of one byte behind the tree's back; what is remembered of other pages stays.
    pub fn flip(&self, at: usize, bits: u8) {
        let mut disk = self.0.borrow_mut();
        disk.bytes[at] ^= bits;
        disk.verified.remove(&((at / PAGE_BYTES) as u64));
    }

    /// Does something to the bytes behind the tree's back.
    pub fn damage<T>(&self, change: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let mut disk = self.0.borrow_mut();
        disk.verified.clear();
        change(&mut disk.bytes)
    }
}

impl PageSource for MemFile {
    fn extent(&self, first: PageId, npages: u32) -> Result<PageBuf, Error> {
        let mut disk = self.0.borrow_mut();
        disk.reads += 1;
        let end = first.get().saturating_add(npages.into());
        if end > (disk.bytes.len() / PAGE_BYTES) as u64 {
            let beyond = Corruption::new(Path::new("test.db"), "extent beyond the file");
            return Err(beyond.at(first.byte_offset()).page(first.get()).into());
        }
        let at = first.get() as usize * PAGE_BYTES;
        let len = npages as usize * PAGE_BYTES;
        Ok(match &disk.real {
            None => disk.bytes[at..at + len].to_vec().into(),
            Some(Real { map: Some(map), .. }) => map.slice(at as u64, len).into(),
            Some(Real { file, .. }) => {
                let mut bytes = vec![0; len];
                file.read_at(&mut bytes, at as u64).expect("the file has it");
                bytes.into()
            }
        })
    }

    fn probe(&self, first: PageId, npages: u32) -> Result<(), Error> {
        let mut disk = self.0.borrow_mut();
        disk.probed += u64::from(npages);
        disk.probes += 1;
        if let Some(Real { map: Some(map), .. }) = &disk.real {
            map.probe(first.byte_offset(), npages as usize * PAGE_BYTES).expect("readable");
        }
        Ok(())
    }

    fn is_verified(&self, page: PageId) -> bool {
        let disk = self.0.borrow();
        disk.remembers && disk.verified.contains(&page.get())
    }

    fn set_verified(&self, page: PageId) {
        self.0.borrow_mut().verified.insert(page.get());
    }
}

impl PageSink for MemFile {
    fn allocate(&mut self, npages: u32) -> Result<PageId, Error> {
        let mut disk = self.0.borrow_mut();
        let first = match disk.free.iter().position(|(_, free)| *free == npages) {
            Some(at) => disk.free.swap_remove(at).0,
            None => {
                let first = (disk.bytes.len() / PAGE_BYTES) as u64;
                let end = disk.bytes.len() + npages as usize * PAGE_BYTES;
                disk.bytes.resize(end, 0);
                first
            }
        };
        let seq = disk.seq;
        let before = disk.live.insert(first, (npages, seq));
        assert!(before.is_none(), "page {first} was allocated twice");
        for page in first..first + u64::from(npages) {
            disk.verified.remove(&page);
        }
        Ok(PageId::new(first))
    }

    fn write(&mut self, first: PageId, bytes: Vec<u8>) -> Result<(), Error> {
        let mut disk = self.0.borrow_mut();
        let (npages, _) = disk.live[&first.get()];
        assert_eq!(bytes.len(), npages as usize * PAGE_BYTES, "a write is the whole extent");
        let at = first.get() as usize * PAGE_BYTES;
        disk.bytes[at..at + bytes.len()].copy_from_slice(&bytes);
        disk.wrote(at, bytes.len());
        Ok(())
    }

    fn release(&mut self, first: PageId, npages: u32, birth: u64) {
        let mut disk = self.0.borrow_mut();
        let was = disk.live.remove(&first.get());
        assert_eq!(was, Some((npages, birth)), "release of page {first} that is not live so");
        disk.pending.push((first.get(), npages));
    }
}

pub fn by_first_byte(_: &[u8], value: &[u8]) -> u64 {
    value.first().map_or(0, |byte| u64::from(*byte % 3))
}

pub fn ctx(shape: Shape, weight: Weight) -> Ctx {
    Ctx { file: Arc::from(Path::new("test.db")), uuid: 0x1122_3344_5566_7788, seq: 1, tree: 7, shape, weight }
}

pub fn weigh(ctx: &Ctx, key: &[u8], value: &[u8]) -> u64 {
    match ctx.weight {
        Weight::One => 1,
        Weight::Of(weight) => weight(key, value),
    }
}

/// Reads everything through a cursor.
pub fn read_all(file: &MemFile, ctx: &Ctx, root: &TreeRoot) -> Result<Model, Error> {
    let mut cursor = tree::Cursor::new(file, ctx, root);
    let mut found = Model::new();
    while let Some(entry) = cursor.next()? {
        found.insert(entry.key().to_vec(), entry.value()?.to_vec());
    }
    Ok(found)
}

/// Verifies the tree, and that the file's live extents are exactly those that it reaches.
pub fn check_whole(file: &MemFile, ctx: &Ctx, root: &TreeRoot, model: &Model) -> tree::TreeStats {
    let mut reached = BTreeMap::new();
    let stats = tree::verify(file, ctx, root, &mut |extent| {
        let twice = reached.insert(extent.page.get(), (u32::from(extent.npages), extent.birth));
        assert!(twice.is_none(), "page {} is reached twice", extent.page);
    });
    let stats = stats.unwrap_or_else(|error| panic!("the tree does not verify: {error}"));
    assert_eq!(reached, file.live(), "what the tree reaches is not what is allocated");
    assert_eq!(stats.entries, model.len() as u64);
    assert_eq!(stats.entries, root.entries);
    assert_eq!(stats.bytes, model.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum::<u64>());
    assert_eq!(stats.weight, model.iter().map(|(key, value)| weigh(ctx, key, value)).sum::<u64>());
    stats
}
