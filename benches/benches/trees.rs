// SPDX-License-Identifier: Apache-2.0
//! Trees under a clock: point reads, scans, weights, appends and merges, on a mapped file.
//!
//! Owns      the sizes: a million entries, values of 512 bytes in an append tree and of 45 in an ordered one.
//! Holds     pages are verified before the clock starts, but where a name says "first touch".
//! Never     decides whether a figure is good; the design's tables do.

use std::hint::black_box;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use cairn_benches::{Rng, TreeFile};
use cairn_engine::page::TreeRoot;
use cairn_engine::tree::{self, Ctx, Cursor, Shape, Weight};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const ENTRIES: u64 = 1_000_000;
const BATCH: u64 = 10_000;

fn ctx(shape: Shape) -> Ctx {
    Ctx { file: Arc::from(Path::new("bench.db")), uuid: 1, seq: 1, tree: 1, shape, weight: Weight::One }
}

fn revision(main: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&main.to_be_bytes());
    key
}

fn user_key(number: u64) -> Vec<u8> {
    format!("/registry/pods/default/{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).into_bytes()
}

/// A tree by revision, and one by user key, both whole and verified.
fn trees() -> [(TreeFile, Ctx, TreeRoot); 2] {
    let (file, by_revision) = (TreeFile::new(), ctx(Shape::append(8)));
    let entries = (0..ENTRIES).map(|main| (revision(main), [main as u8; 512]));
    let root =
        tree::append(&file, &mut file.clone(), &by_revision, &TreeRoot::EMPTY, entries).expect("a build");
    let first = (file, by_revision, root);

    let (file, by_key) = (TreeFile::new(), ctx(Shape::ordered(2)));
    let mut keys: Vec<_> = (0..ENTRIES).map(user_key).collect();
    keys.sort();
    let changes = keys.iter().map(|key| (key, Some([7; 45])));
    let root = tree::merge(&file, &mut file.clone(), &by_key, &TreeRoot::EMPTY, changes).expect("a build");
    let trees = [first, (file, by_key, root)];
    for (file, ctx, root) in &trees {
        tree::verify(file, ctx, root, &mut |_| {}).expect("a sound tree");
    }
    trees
}

fn reads(criterion: &mut Criterion) {
    let [(file, ctx, root), (key_file, key_ctx, key_root)] = trees();
    let mut group = criterion.benchmark_group("read");
    let mut rng = Rng(1);
    group.bench_function("point/append tree", |bencher| {
        bencher.iter(|| tree::get(&file, &ctx, &root, &revision(rng.below(ENTRIES))).expect("a sound tree"));
    });
    group.bench_function("point/append tree, hot", |bencher| {
        bencher.iter(|| {
            tree::get(&file, &ctx, &root, &revision(500_000 + rng.below(1000))).expect("a sound tree")
        });
    });
    group.bench_function("point/ordered tree", |bencher| {
        let key = || user_key(rng.below(ENTRIES));
        let read = |key: Vec<u8>| tree::get(&key_file, &key_ctx, &key_root, &key).expect("a sound tree");
        bencher.iter_batched(key, read, BatchSize::SmallInput);
    });
    group.bench_function("point/first touch", |bencher| {
        bencher.iter_batched(
            || file.forget(),
            |()| tree::get(&file, &ctx, &root, &revision(123_456)).expect("a sound tree"),
            BatchSize::PerIteration,
        );
    });
    tree::verify(&file, &ctx, &root, &mut |_| {}).expect("a sound tree");
    group.bench_function("weight/ordered tree", |bencher| {
        let (low, high) = (user_key(1), user_key(2));
        let bounds = (Bound::Included(&low[..]), Bound::Excluded(&high[..]));
        bencher
            .iter(|| tree::weight(&key_file, &key_ctx, &key_root, bounds.0, bounds.1).expect("a sound tree"));
    });
    group.throughput(Throughput::Elements(ENTRIES));
    group.sample_size(10);
    for (name, file, ctx, root) in
        [("scan/append tree", &file, &ctx, &root), ("scan/ordered tree", &key_file, &key_ctx, &key_root)]
    {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut cursor = Cursor::new(file, ctx, root);
                let mut bytes = 0;
                while let Some(entry) = cursor.next().expect("a sound tree") {
                    bytes += entry.key().len() + entry.inline().expect("a sound tree").map_or(0, <[u8]>::len);
                }
                black_box(bytes)
            });
        });
    }
    group.finish();
}

fn writes(criterion: &mut Criterion) {
    let [(file, ctx, root), (key_file, key_ctx, key_root)] = trees();
    let mut group = criterion.benchmark_group("write");
    group.throughput(Throughput::Elements(BATCH));
    group.sample_size(20);
    group.bench_function("append/512 B values", |bencher| {
        let entries: Vec<_> =
            (ENTRIES..ENTRIES + BATCH).map(|main| (revision(main), [main as u8; 512])).collect();
        let mut sink = Discard(file.clone());
        bencher
            .iter(|| tree::append(&file, &mut sink, &ctx, &root, borrowed(&entries)).expect("a sound tree"));
    });
    group.bench_function("merge/random keys into a million", |bencher| {
        let mut rng = Rng(3);
        let mut keys: Vec<_> = (0..BATCH).map(|_| user_key(rng.below(2 * ENTRIES))).collect();
        keys.sort();
        keys.dedup();
        let mut sink = Discard(key_file.clone());
        bencher.iter(|| {
            let changes = keys.iter().map(|key| (key, Some([9; 45])));
            tree::merge(&key_file, &mut sink, &key_ctx, &key_root, changes).expect("a sound tree")
        });
    });
    group.finish();
}

fn borrowed(entries: &[([u8; 16], [u8; 512])]) -> impl Iterator<Item = (&[u8], &[u8])> {
    entries.iter().map(|(key, value)| (&key[..], &value[..]))
}

/// Takes pages as a file does and writes none, so that the tree's own work is timed.
struct Discard(TreeFile);

impl cairn_engine::page::PageSink for Discard {
    fn allocate(&mut self, _: u32) -> Result<cairn_engine::page::PageId, cairn_engine::Error> {
        Ok(cairn_engine::page::PageId::new(self.0.pages()))
    }

    fn write(&mut self, _: cairn_engine::page::PageId, bytes: Vec<u8>) -> Result<(), cairn_engine::Error> {
        black_box(bytes);
        Ok(())
    }

    fn release(&mut self, _: cairn_engine::page::PageId, _: u32, _: u64) {}
}

criterion_group!(benches, reads, writes);
criterion_main!(benches);
