// SPDX-License-Identifier: Apache-2.0
//! A tree file of 100 GiB costs what one of 1 GiB does: the same counts of calls, bytes, pages and allocations.
//!
//! Owns      the two files, made alike but for where their nodes lie, and the counting file system under them.
//! Holds     1. both have the same trees. What the steps change lies together, as checkpoints lay it; the rest of the
//!              nodes is spread over all regions. All other pages count as used but for one in 256 and a short run in
//!              each region: the map is full and the free list in pieces;
//!           2. the files are sparse: what only counts as used was never written, and is never read.
//! Never     verifies a whole file: its map says more than its trees reach.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use cairn_engine::format::slot::{self, Slot};
use cairn_engine::format::superblock::{SUPERBLOCKS, Superblock};
use cairn_engine::io::{FileLock, MapView, OpenHow, StdVfs, VFile, Vfs};
use cairn_engine::page::{PAGE_BYTES, PageBuf, PageId, PageSink, PageSource, TreeRoot};
use cairn_engine::tree::{self, Ctx, Shape, Weight};
use cairn_engine::{CommitMeta, Db, Error, InstallId, Options, PurgeRequest, Schema, TreeDef, TreeKind};

use crate::alloc::allocations;
use crate::member::scatter;

fn one(_: &[u8], _: &[u8]) -> u64 {
    1
}

const LOG: TreeDef = TreeDef { id: 1, name: "log", kind: TreeKind::Append, leaf_pages: 1, weight: one };
const MAP: TreeDef = TreeDef { id: 2, name: "map", kind: TreeKind::Ordered, leaf_pages: 2, weight: one };
const SCHEMA: Schema = &[LOG, MAP];
const UUID: u64 = 0x5ba5;
const INSTALL: InstallId = InstallId(77);
const VALUE: [u8; 100] = [7; 100];

/// The layout of the space map, as its own file tells it.
const REGION_PAGES: u64 = 32_256;
const MAPS: u64 = 4;
const FIRST_DATA: u64 = 16;
const FIRST_MAP: u64 = 6;
const MAP_HEADER_BYTES: usize = 64;

/// 1.1 and 100 GiB.
const REGIONS: [u64; 2] = [9, 813];
/// Leaves of the log that lie together, and those that lie anywhere.
const DENSE_LEAVES: u64 = 400;
const SPREAD_LEAVES: u64 = 4 * 813;
const ENTRIES_A_LEAF: u64 = 32;
const ENTRIES: u64 = (DENSE_LEAVES + SPREAD_LEAVES) * ENTRIES_A_LEAF;
const KEYS: u64 = 5000;
/// One page in so many is free.
const FREE_EVERY: u64 = 256;
/// Pages of the free run at the end of each region.
const FREE_RUN: u64 = 128;

const DIFFERENCE_MAX: f64 = 0.05;
/// Of the map as it is kept in memory: its bits, and the list of what is free.
const ALLOCATIONS_A_REGION: u64 = 64;

/// What was done, by the file system's callers and by this thread.
#[derive(Clone, Copy, Default, Debug)]
struct Counts {
    reads: u64,
    read_bytes: u64,
    writes: u64,
    written_bytes: u64,
    syncs: u64,
    extents_read: u64,
    pages_verified: u64,
    extents_allocated: u64,
    allocations: u64,
}

impl Counts {
    const NAMES: [&str; 9] =
        ["reads", "read", "writes", "written", "syncs", "opened", "summed", "taken", "allocations"];

    fn figures(&self) -> [u64; 9] {
        [
            self.reads,
            self.read_bytes,
            self.writes,
            self.written_bytes,
            self.syncs,
            self.extents_read,
            self.pages_verified,
            self.extents_allocated,
            self.allocations,
        ]
    }
}

/// The system's files, counted, where reserving room only makes a file longer.
#[derive(Debug, Default)]
struct Sparse {
    reads: AtomicU64,
    read_bytes: AtomicU64,
    writes: AtomicU64,
    written_bytes: AtomicU64,
    syncs: AtomicU64,
}

#[derive(Clone, Debug)]
struct SparseVfs(Arc<Sparse>);

#[derive(Debug)]
struct SparseFile {
    file: Arc<dyn VFile>,
    counts: Arc<Sparse>,
}

impl Vfs for SparseVfs {
    fn open(&self, path: &Path, how: OpenHow) -> io::Result<Arc<dyn VFile>> {
        Ok(Arc::new(SparseFile { file: StdVfs.open(path, how)?, counts: Arc::clone(&self.0) }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        StdVfs.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        StdVfs.remove(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        StdVfs.sync_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        StdVfs.list(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        StdVfs.create_dir(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        StdVfs.exists(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        StdVfs.lock(path)
    }
}

impl VFile for SparseFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.counts.reads.fetch_add(1, Ordering::Relaxed);
        self.counts.read_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.file.read_at(bytes, offset)
    }
    fn write_at(&self, bytes: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let n: usize = bytes.iter().map(|part| part.len()).sum();
        self.counts.writes.fetch_add(1, Ordering::Relaxed);
        self.counts.written_bytes.fetch_add(n as u64, Ordering::Relaxed);
        self.file.write_at(bytes, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.counts.syncs.fetch_add(1, Ordering::Relaxed);
        self.file.sync_data()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let end = offset + bytes;
        if end > self.file.size()? { self.file.set_len(end) } else { Ok(()) }
    }
    fn punch(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.file.punch(offset, bytes)
    }
    fn drop_cache(&self) -> io::Result<()> {
        self.file.drop_cache()
    }
    fn map(&self, reserve: u64) -> io::Result<Option<MapView>> {
        self.file.map(reserve)
    }
}

/// Where the nodes of a new file go.
struct Builder {
    file: Arc<dyn VFile>,
    /// The end of what lies in each region.
    ends: Vec<u64>,
    live: Vec<(u64, u64)>,
    /// Extents that still go to one region, with a free page behind each; the others go to all in turn.
    together: u64,
    home: usize,
    turn: usize,
}

impl Builder {
    fn new(file: Arc<dyn VFile>, regions: u64) -> Builder {
        let ends = (0..regions).map(first_data).collect();
        Builder { file, ends, live: Vec::new(), together: 0, home: 0, turn: 0 }
    }
}

fn first_data(region: u64) -> u64 {
    if region == 0 { FIRST_DATA } else { region * REGION_PAGES + MAPS }
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

impl PageSink for Builder {
    fn allocate(&mut self, npages: u32) -> Result<PageId, Error> {
        let (region, gap) = if self.together > 0 {
            self.together -= 1;
            (self.home, 1)
        } else {
            self.turn = (self.turn + 1) % self.ends.len();
            (self.turn, 0)
        };
        let first = self.ends[region];
        self.ends[region] += u64::from(npages) + gap;
        self.live.push((first, npages.into()));
        Ok(PageId::new(first))
    }
    fn write(&mut self, first: PageId, bytes: Vec<u8>) -> Result<(), Error> {
        self.file.write_all_at(&bytes, first.byte_offset()).expect("room for what is live");
        Ok(())
    }
    fn release(&mut self, _: PageId, _: u32, _: u64) {}
}

fn ctx(tree: &TreeDef, shape: Shape) -> Ctx {
    let file = Arc::from(Path::new("engine.db"));
    Ctx { file, uuid: UUID, seq: 1, tree: tree.id, shape, weight: Weight::One }
}

/// Which pages of a region count as used.
fn bits(builder: &Builder, region: u64) -> Vec<u8> {
    let start = region * REGION_PAGES;
    let mut used = vec![false; REGION_PAGES as usize];
    for page in builder.ends[region as usize] - start..REGION_PAGES - FREE_RUN {
        used[page as usize] = page % FREE_EVERY != 0;
    }
    for (first, n) in builder.live.iter().filter(|(first, _)| first / REGION_PAGES == region) {
        used[(first - start) as usize..(first - start + n) as usize].fill(true);
    }
    let byte = |bits: &[bool]| bits.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit));
    used.chunks(8).map(byte).collect()
}

/// Writes a whole file at its first checkpoint.
fn build(dir: &Path, regions: u64) {
    StdVfs.create_dir(dir).expect("a directory");
    let file = StdVfs.open(&dir.join("engine.db"), OpenHow::CreateNew).expect("a new file");
    file.set_len(regions * REGION_PAGES * PAGE_BYTES as u64).expect("a sparse file");
    let mut builder = Builder::new(Arc::clone(&file), regions);
    (builder.together, builder.home) = (DENSE_LEAVES, 1);
    let entries = (0..ENTRIES).map(|n| (revision(n), VALUE));
    let log = tree::append(&Nothing, &mut builder, &ctx(&LOG, Shape::append(1)), &TreeRoot::EMPTY, entries);
    (builder.together, builder.home) = (u64::MAX, 2);
    let pairs = (0..KEYS).map(|n| (n.to_be_bytes(), Some(VALUE)));
    let map = tree::merge(&Nothing, &mut builder, &ctx(&MAP, Shape::ordered(2)), &TreeRoot::EMPTY, pairs);
    let write = |page: u64, bytes: &[u8]| {
        file.write_all_at(bytes, PageId::new(page).byte_offset()).expect("writes");
    };
    let mut digest = crc32fast::Hasher::new();
    for region in 0..regions {
        let mut page = vec![0; PAGE_BYTES];
        page[..4].copy_from_slice(b"CMAP");
        page[8..16].copy_from_slice(&1_u64.to_le_bytes());
        page[16..24].copy_from_slice(&UUID.to_le_bytes());
        page[24..32].copy_from_slice(&region.to_le_bytes());
        page[MAP_HEADER_BYTES..].copy_from_slice(&bits(&builder, region));
        let mut crc = crc32fast::Hasher::new();
        crc.update(&page[..4]);
        crc.update(&page[8..]);
        let crc = crc.finalize().to_le_bytes();
        page[4..8].copy_from_slice(&crc);
        write(if region == 0 { FIRST_MAP } else { region * REGION_PAGES }, &page);
        digest.update(&1_u64.to_le_bytes());
        digest.update(&crc);
    }
    for copy in 0..SUPERBLOCKS {
        write(copy, &Superblock { uuid: UUID, install: INSTALL }.encode());
    }
    let slot = Slot {
        seq: 1,
        meta: CommitMeta::default(),
        stamp: 0,
        roots: vec![(LOG.id, log.expect("a new tree")), (MAP.id, map.expect("a new tree"))],
        high_water: regions * REGION_PAGES - FREE_RUN,
        map_digest: digest.finalize(),
        size_mark: 0,
        previous_crc: 0,
    };
    write(slot::position(1).get(), &slot.encode(UUID));
    file.sync_data().expect("syncs");
    let extents = builder.live.len() as u64;
    assert!(extents > 4 * regions && builder.ends.iter().all(|end| end % REGION_PAGES > MAPS), "{extents}");
}

fn revision(n: u64) -> [u8; 16] {
    (u128::from(n) << 64).to_be_bytes()
}

/// The steps that are compared, by name, with what each took.
struct Steps {
    counts: Arc<Sparse>,
    taken: Vec<(&'static str, Counts)>,
}

impl Steps {
    fn now(&self, db: Option<&Db>) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let stats = db.map(Db::stats).unwrap_or_default();
        Counts {
            reads: read(&self.counts.reads),
            read_bytes: read(&self.counts.read_bytes),
            writes: read(&self.counts.writes),
            written_bytes: read(&self.counts.written_bytes),
            syncs: read(&self.counts.syncs),
            extents_read: stats.extents_read,
            pages_verified: stats.pages_verified,
            extents_allocated: stats.extents_allocated,
            allocations: allocations(),
        }
    }

    fn step(&mut self, name: &'static str, db: &Db, step: impl FnOnce()) {
        let before = self.now(Some(db)).figures();
        step();
        let after = self.now(Some(db)).figures();
        self.push(name, before, after);
    }

    fn push(&mut self, name: &'static str, before: [u64; 9], after: [u64; 9]) {
        let [
            reads,
            read_bytes,
            writes,
            written_bytes,
            syncs,
            extents_read,
            pages_verified,
            extents_allocated,
            allocations,
        ] = std::array::from_fn(|i| after[i] - before[i]);
        let counts = Counts {
            reads,
            read_bytes,
            writes,
            written_bytes,
            syncs,
            extents_read,
            pages_verified,
            extents_allocated,
            allocations,
        };
        self.taken.push((name, counts));
    }
}

/// Commits of five changes each: to the log, or to keys of the map drawn by chance.
fn commits(db: &Db, next: &mut u64, n: u64, appends: bool) {
    for _ in 0..n {
        let mut txn = db.begin().expect("healthy");
        for sub in 0..5 {
            if appends {
                txn.append(&LOG, revision(ENTRIES + *next * 5 + sub), Bytes::from_static(&VALUE));
            } else {
                let key = scatter(*next * 5 + sub) % KEYS;
                txn.put(&MAP, &key.to_be_bytes(), Bytes::from_static(&VALUE), 0);
            }
        }
        *next += 1;
        let meta = CommitMeta { applied_index: *next, applied_term: 1, owner: Bytes::new() };
        txn.commit(meta, *next).expect("commits");
    }
}

fn checkpoint(db: &Db) {
    assert!(db.checkpoint().expect("makes a checkpoint"), "there is something to fold");
}

fn steps(dir: &Path, regions: u64) -> Steps {
    build(dir, regions);
    let counts = Arc::new(Sparse::default());
    let mut steps = Steps { counts: Arc::clone(&counts), taken: Vec::new() };
    let mut options = Options::default();
    options.vfs = Arc::new(SparseVfs(counts));
    options.lazy_space_map = true;
    let before = steps.now(None).figures();
    let (db, recovered) = Db::open(dir, SCHEMA, options).expect("opens");
    let after = steps.now(Some(&db)).figures();
    steps.push("open", before, after);
    assert!(!recovered.fell_back);
    steps.step("map", &db, || assert!(db.read_space_map().expect("reads"), "nobody needed it before"));
    let stats = db.stats();
    assert_eq!(stats.file_bytes, regions * REGION_PAGES * PAGE_BYTES as u64);
    assert!(stats.used_bytes * 10 > stats.file_bytes * 9, "a full map: {stats:?}");

    // What is touched for the first time, or was laid by hand, is not compared.
    let view = db.view();
    let mut cursor = view.cursor(&LOG);
    let mut seen = 0;
    while cursor.next().expect("walks").is_some() {
        seen += 1;
    }
    assert_eq!(seen, ENTRIES);
    drop((cursor, view));
    let mut next = 0;
    for _ in 0..6 {
        commits(&db, &mut next, 50, true);
        commits(&db, &mut next, 50, false);
        db.checkpoint().expect("makes a checkpoint");
    }

    steps.step("append", &db, || commits(&db, &mut next, 600, true));
    steps.step("checkpoint of appends", &db, || checkpoint(&db));
    steps.step("put", &db, || commits(&db, &mut next, 200, false));
    steps.step("checkpoint of puts", &db, || checkpoint(&db));
    steps.step("read", &db, || {
        let view = db.view();
        for n in 0..1000 {
            assert!(view.get(&LOG, &revision(scatter(n) % ENTRIES)).expect("reads").is_some());
            assert!(view.get(&MAP, &(scatter(n) % KEYS).to_be_bytes()).expect("reads").is_some());
        }
    });
    steps.step("scan", &db, || {
        let view = db.view();
        let mut cursor = view.cursor(&LOG);
        cursor.seek(&revision(ENTRIES / 2));
        for n in 0..5000 {
            assert_eq!(cursor.next().expect("walks").expect("is there").0, revision(ENTRIES / 2 + n));
        }
    });
    let oldest = DENSE_LEAVES * ENTRIES_A_LEAF;
    db.purge(
        &LOG,
        PurgeRequest::Keys((0..oldest).filter(|n| n % 10 != 0).map(revision).collect()),
        db.view().seq(),
    );
    steps.step("compaction", &db, || {
        while db.purges_waiting() > 0 {
            db.checkpoint().expect("makes a checkpoint");
        }
    });
    steps.step("checkpoints after it", &db, || {
        for _ in 0..4 {
            commits(&db, &mut next, 1, true);
            db.checkpoint().expect("makes a checkpoint");
        }
    });
    steps
}

#[test]
fn a_file_of_a_hundred_gibibytes_costs_what_one_of_one_gibibyte_does() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let [small, huge] = REGIONS.map(|regions| steps(&dir.path().join(regions.to_string()), regions));
    println!("{:<22} {:>6} {}", "step", "GiB", Counts::NAMES.map(|name| format!("{name:>11}")).join(" "));
    let mut differences = Vec::new();
    for ((name, a), (_, b)) in small.taken.iter().zip(&huge.taken) {
        for (counts, gib) in [(a, "1"), (b, "100")] {
            let figures = counts.figures().map(|n| format!("{n:>11}")).join(" ");
            println!("{name:<22} {gib:>6} {figures}");
        }
        for ((what, a), b) in Counts::NAMES.iter().zip(a.figures()).zip(b.figures()) {
            // One call more or less is no trend.
            if a.abs_diff(b) > 1 && a.abs_diff(b) as f64 > a as f64 * DIFFERENCE_MAX {
                differences.push((*name, *what, a, b));
            }
        }
    }
    // What is read once, beside all else: the map, in one read a region.
    let map_reads = REGIONS[1] - REGIONS[0];
    let of_the_map = |(name, what, a, b): &(&str, &str, u64, u64)| match (*name, *what) {
        ("map", "reads") => b - a == map_reads,
        ("map", "read") => b - a == map_reads * MAPS * PAGE_BYTES as u64,
        ("map", "allocations") => b - a <= map_reads * ALLOCATIONS_A_REGION,
        _ => false,
    };
    differences.retain(|difference| !of_the_map(difference));
    assert_eq!(differences, [], "step, figure, at 1 GiB, at 100 GiB");
}
