// SPDX-License-Identifier: Apache-2.0
//! No limit lies below 1 EiB: a store whose trees lie at the very end of the largest file that there can be is opened,
//! read and written to as any other.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use cairn_engine::format::slot::{self, Slot};
use cairn_engine::format::superblock::{SUPERBLOCKS, Superblock};
use cairn_engine::io::{FileLock, MapView, OpenHow, VFile, Vfs};
use cairn_engine::page::{PAGE_BYTES, PageBuf, PageId, PageSink, PageSource, TreeRoot};
use cairn_engine::tree::{self, Ctx, Shape, Weight};
use cairn_engine::{CommitMeta, Db, Error, InstallId, Options, Schema, TreeDef, TreeKind};

const EXBIBYTE: u64 = 1 << 60;
const DIR: &str = "/member";
const INSTALL: InstallId = InstallId(77);
const UUID: u64 = 0x1e1b;

fn one(_: &[u8], _: &[u8]) -> u64 {
    1
}

const LOG: TreeDef = TreeDef { id: 1, name: "log", kind: TreeKind::Append, leaf_pages: 8, weight: one };
const MAP: TreeDef = TreeDef { id: 2, name: "map", kind: TreeKind::Ordered, leaf_pages: 2, weight: one };
const SCHEMA: Schema = &[LOG, MAP];

const ENTRIES: u64 = 5000;

/// A file of 1 EiB, of which the pages that were written are kept. It is all that this file system has.
#[derive(Clone, Debug, Default)]
struct Far(Arc<Mutex<HashMap<u64, Vec<u8>>>>);

#[derive(Debug)]
struct Lock;

impl FileLock for Lock {}

impl Far {
    fn write_page(&self, page: u64, bytes: &[u8]) {
        assert_eq!(bytes.len(), PAGE_BYTES);
        self.0.lock().expect("no panic").insert(page, bytes.to_vec());
    }
}

impl VFile for Far {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        assert!(offset.is_multiple_of(PAGE_BYTES as u64) && offset + bytes.len() as u64 <= EXBIBYTE);
        let pages = self.0.lock().expect("no panic");
        for (page, out) in (offset / PAGE_BYTES as u64..).zip(bytes.chunks_mut(PAGE_BYTES)) {
            match pages.get(&page) {
                Some(bytes) => out.copy_from_slice(bytes),
                None => out.fill(0),
            }
        }
        Ok(())
    }
    fn write_at(&self, bytes: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let all: Vec<u8> = bytes.iter().flat_map(|part| part.iter().copied()).collect();
        for (page, bytes) in (offset / PAGE_BYTES as u64..).zip(all.chunks(PAGE_BYTES)) {
            self.write_page(page, bytes);
        }
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn size(&self) -> io::Result<u64> {
        Ok(EXBIBYTE)
    }
    fn allocate(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn punch(&self, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn drop_cache(&self) -> io::Result<()> {
        Ok(())
    }
    fn map(&self, _: u64) -> io::Result<Option<MapView>> {
        Ok(None)
    }
}

impl Vfs for Far {
    fn open(&self, _: &Path, _: OpenHow) -> io::Result<Arc<dyn VFile>> {
        Ok(Arc::new(self.clone()))
    }
    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn remove(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn list(&self, _: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn exists(&self, _: &Path) -> io::Result<bool> {
        Ok(true)
    }
    fn lock(&self, _: &Path) -> io::Result<Box<dyn FileLock>> {
        Ok(Box::new(Lock))
    }
}

/// Gives out pages from the end of the file down.
struct Downwards {
    file: Far,
    end: u64,
}

/// A tree that is built in one go is not read meanwhile.
struct Nothing;

impl PageSource for Nothing {
    fn extent(&self, first: PageId, _: u32) -> Result<PageBuf, Error> {
        panic!("page {first} is read while its tree is built")
    }
    fn is_verified(&self, _: PageId) -> bool {
        false
    }
    fn set_verified(&self, _: PageId) {}
}

impl PageSink for Downwards {
    fn allocate(&mut self, npages: u32) -> Result<PageId, Error> {
        self.end -= u64::from(npages);
        Ok(PageId::new(self.end))
    }
    fn write(&mut self, first: PageId, bytes: Vec<u8>) -> Result<(), Error> {
        for (page, bytes) in (first.get()..).zip(bytes.chunks(PAGE_BYTES)) {
            self.file.write_page(page, bytes);
        }
        Ok(())
    }
    fn release(&mut self, _: PageId, _: u32, _: u64) {}
}

fn ctx(tree: &TreeDef, shape: Shape) -> Ctx {
    let file = Arc::from(Path::new("engine.db"));
    Ctx { file, uuid: UUID, seq: 1, tree: tree.id, shape, weight: Weight::One }
}

fn revision(n: u64) -> [u8; 16] {
    (u128::from(n) << 64).to_be_bytes()
}

/// Every thousandth is so large that it has pages of its own.
fn value(n: u64) -> Bytes {
    let bytes = if n.is_multiple_of(1000) { 100_000 } else { 100 };
    (0..bytes).map(|at| (at as u64 + n) as u8).collect()
}

fn build() -> Far {
    let file = Far::default();
    let mut pages = Downwards { file: file.clone(), end: PageId::MAX.get() + 1 };
    let entries = (0..ENTRIES).map(|n| (revision(n), value(n)));
    let log = tree::append(&Nothing, &mut pages, &ctx(&LOG, Shape::append(8)), &TreeRoot::EMPTY, entries);
    let pairs = (0..ENTRIES).map(|n| (n.to_be_bytes(), Some(value(n))));
    let map = tree::merge(&Nothing, &mut pages, &ctx(&MAP, Shape::ordered(2)), &TreeRoot::EMPTY, pairs);
    for copy in 0..SUPERBLOCKS {
        file.write_page(copy, &Superblock { uuid: UUID, install: INSTALL }.encode());
    }
    let slot = Slot {
        seq: 1,
        meta: CommitMeta::default(),
        stamp: 0,
        roots: vec![(LOG.id, log.expect("a new tree")), (MAP.id, map.expect("a new tree"))],
        high_water: PageId::MAX.get() + 1,
        map_digest: 0,
        size_mark: EXBIBYTE,
        previous_crc: 0,
    };
    file.write_page(slot::position(1).get(), &slot.encode(UUID));
    file
}

#[test]
fn a_file_of_one_exbibyte_is_opened_and_read_to_its_last_page() {
    assert_eq!((PageId::MAX.get() + 1) * PAGE_BYTES as u64, EXBIBYTE);
    let file = build();
    let last = file.0.lock().expect("no panic").contains_key(&PageId::MAX.get());
    assert!(last, "the very last page is part of a tree");
    let mut options = Options::default();
    options.vfs = Arc::new(file);
    options.lazy_space_map = true;
    let (db, recovered) = Db::open(Path::new(DIR), SCHEMA, options).expect("opens");
    assert!(!recovered.fell_back);
    assert_eq!((db.stats().file_bytes, db.size()), (EXBIBYTE, EXBIBYTE));
    let mut txn = db.begin().expect("healthy");
    txn.append(&LOG, revision(ENTRIES), value(ENTRIES));
    txn.put(&MAP, &ENTRIES.to_be_bytes(), value(ENTRIES), 1);
    let meta = CommitMeta { applied_index: 1, applied_term: 1, owner: Bytes::new() };
    txn.commit(meta, 1).expect("commits");

    let view = db.view();
    for n in 0..=ENTRIES {
        let found = view.get(&LOG, &revision(n)).expect("reads").expect("is there");
        assert!(found[..] == value(n)[..], "entry {n}");
        let found = view.get(&MAP, &n.to_be_bytes()).expect("reads").expect("is there");
        assert!(found[..] == value(n)[..], "pair {n}");
    }
    for tree in [&LOG, &MAP] {
        let mut cursor = view.cursor(tree);
        let mut seen = 0;
        while let Some((_, found)) = cursor.next().expect("walks") {
            assert!(found[..] == value(seen)[..], "{} of {}", seen, tree.name);
            seen += 1;
        }
        assert_eq!(seen, ENTRIES + 1);
        let (weight, _) =
            view.weight(tree, std::ops::Bound::Unbounded, std::ops::Bound::Unbounded).expect("reads");
        assert_eq!(weight, ENTRIES + 1);
    }
}
