// SPDX-License-Identifier: Apache-2.0
//! etcd's data model under a clock of CPU time: puts as a batch applies them, gets, counts and pages.
//!
//! Owns      the sizes: 200,000 keys of 32 bytes with values of 256 bytes, batches of 64 puts.
//! Holds     1. the checkpoint that puts make due is timed apart from them;
//!           2. memory comes from the allocator that the daemon uses;
//!           3. reads are timed twice: from the tree, and with the overlay of 100,000 later puts over it.
//! Never     decides whether a figure is good; the design's tables do.

use std::time::Duration;

use bytes::Bytes;
use cairn_benches::Rng;
use cairn_benches::cputime::{self, CpuTime};
use cairn_engine::{Db, InstallId, Options};
use cairn_mvcc::{KeyRange, PutOp, RangeEnd, RangeOp, SCHEMA, Store};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEYS: u64 = 200_000;
const LATER_PUTS: u64 = 100_000;
const BATCH: u64 = 64;
const PAGE: i64 = 500;

fn key(number: u64) -> Bytes {
    Bytes::from(format!("/registry/pods/{:017x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

fn put(number: u64) -> PutOp {
    PutOp { key: key(number), value: Some(Bytes::from_static(&[7; 256])), lease: Some(0), prev_kv: false }
}

struct Bench {
    db: Db,
    store: Store,
    applied: u64,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let db = Db::create(dir.path(), SCHEMA, InstallId(1), Options::default()).expect("a new store");
        let store = Store::open(db.clone()).expect("a new store");
        let mut bench = Bench { db, store, applied: 0, _dir: dir };
        for first in (0..KEYS).step_by(BATCH as usize) {
            bench.apply((first..KEYS.min(first + BATCH)).map(put));
        }
        bench.checkpoint();
        bench
    }

    fn apply(&mut self, puts: impl Iterator<Item = PutOp>) {
        let mut batch = self.store.batch().expect("a sound store");
        for put in puts {
            batch.put(&put, &|_| true).expect("a put without a lease");
        }
        self.applied += 1;
        batch.commit(self.applied, 1).expect("a sound store");
    }

    /// There is no log here: what was applied counts as durable.
    fn checkpoint(&mut self) {
        self.db.log_durable(self.applied);
        while self.db.checkpoint().expect("a sound store") {}
    }

    fn due(&self) -> bool {
        self.db.checkpoint_due(0).is_some()
    }
}

fn writes(criterion: &mut Criterion<CpuTime>) {
    let mut bench = Bench::new();
    let mut rng = Rng(1);
    let mut group = criterion.benchmark_group("put");
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("64 in a batch", |bencher| {
        bencher.iter_custom(|rounds| {
            let mut spent = Duration::ZERO;
            for _ in 0..rounds {
                let puts: Vec<PutOp> = (0..BATCH).map(|_| put(rng.below(KEYS))).collect();
                let begin = cputime::now();
                bench.apply(puts.into_iter());
                spent += cputime::now() - begin;
                if bench.due() {
                    bench.checkpoint();
                }
            }
            spent
        });
    });
    group.sample_size(10);
    group.throughput(Throughput::Elements(LATER_PUTS));
    group.bench_function("checkpoint of 100,000", |bencher| {
        bencher.iter_custom(|rounds| {
            let mut spent = Duration::ZERO;
            for _ in 0..rounds {
                for _ in 0..LATER_PUTS / BATCH {
                    bench.apply((0..BATCH).map(|_| put(rng.below(KEYS))));
                }
                let begin = cputime::now();
                bench.checkpoint();
                spent += cputime::now() - begin;
            }
            spent
        });
    });
    group.finish();
}

fn reads(criterion: &mut Criterion<CpuTime>) {
    let mut bench = Bench::new();
    let mut rng = Rng(2);
    for state in ["tree", "overlay"] {
        let reader = bench.store.reader();
        let mut group = criterion.benchmark_group(format!("read/{state}"));
        group.bench_function("get", |bencher| {
            bencher.iter(|| {
                let op = RangeOp::new(KeyRange { key: key(rng.below(KEYS)), end: RangeEnd::Single });
                let done = reader.range(&op).expect("a sound store");
                assert_eq!(done.kvs.len(), 1);
                done
            });
        });
        group.bench_function("count of all", |bencher| {
            let op = RangeOp { count_only: true, ..RangeOp::new(KeyRange::all()) };
            bencher.iter(|| assert_eq!(reader.range(&op).expect("a sound store").count, KEYS as i64));
        });
        group.bench_function("page of 500", |bencher| {
            let op = RangeOp { limit: PAGE, ..RangeOp::new(KeyRange::all()) };
            bencher.iter(|| assert_eq!(reader.range(&op).expect("a sound store").kvs.len(), PAGE as usize));
        });
        group.finish();
        for _ in 0..LATER_PUTS / BATCH {
            bench.apply((0..BATCH).map(|_| put(rng.below(KEYS))));
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = writes, reads
}
criterion_main!(benches);
