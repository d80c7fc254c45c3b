// SPDX-License-Identifier: Apache-2.0
//! Locks that readers or the writer wait for are held for a bounded piece of work, whatever is committed, counted,
//! frozen or purged, and readers see a batch whole while it is taken in.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use cairn_engine::page::PAGE_BYTES;
use cairn_engine::sim::SimVfs;
use cairn_engine::{
    CommitMeta, Db, HOLD_ENTRIES_MAX, InstallId, Lock, Options, PurgeRequest, Schema, Stopwatch, TreeDef,
    TreeKind, View,
};

use crate::model::{Commit, create, key};

fn one(_: &[u8], _: &[u8]) -> u64 {
    1
}

const LOG: TreeDef = TreeDef { id: 1, name: "log", kind: TreeKind::Append, leaf_pages: 8, weight: one };
const MAP: TreeDef = TreeDef { id: 2, name: "map", kind: TreeKind::Ordered, leaf_pages: 1, weight: one };
const SCHEMA: Schema = &[LOG, MAP];

/// Keys of a batch that would take many times as long as a hold may last.
const LARGE: u64 = 100_000;

/// Counts looks, so that what is measured is the same each time.
#[derive(Debug, Default)]
struct Ticks(AtomicU64);

impl Stopwatch for Ticks {
    fn now_ns(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Clock(Instant);

impl Stopwatch for Clock {
    fn now_ns(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

fn store(stopwatch: Arc<dyn Stopwatch>) -> Db {
    let mut options = Options::default();
    options.vfs = Arc::new(SimVfs::new());
    options.overlay_entries = u64::MAX;
    options.stopwatch = Some(stopwatch);
    Db::create(Path::new("/store"), SCHEMA, InstallId(3), options).expect("a new store")
}

/// Commit `n` sets the keys `from..to` to `n`.
fn set(db: &Db, n: u64, keys: std::ops::Range<u64>, fresh: bool) {
    let mut txn = db.begin().expect("healthy");
    let value = Bytes::copy_from_slice(&n.to_be_bytes());
    for at in keys {
        txn.put(&MAP, &at.to_be_bytes(), value.clone(), i64::from(fresh));
    }
    txn.append(&LOG, key(n, 0), value);
    txn.commit(CommitMeta { applied_index: n, applied_term: 1, owner: Bytes::new() }, n).expect("commits");
}

fn weight(view: &View, lo: u64, hi: u64) -> (u64, u64) {
    let (lo, hi) = (lo.to_be_bytes(), hi.to_be_bytes());
    view.weight(&MAP, Bound::Included(&lo), Bound::Excluded(&hi)).expect("weighs")
}

#[test]
fn a_batch_a_count_and_a_freeze_of_any_size_are_cut_into_bounded_holds() {
    let db = store(Arc::new(Ticks::default()));
    set(&db, 1, 0..LARGE, true);
    assert_eq!(weight(&db.view(), LARGE / 3, LARGE / 2), (LARGE / 2 - LARGE / 3, 1));
    set(&db, 2, LARGE / 2..LARGE / 2 + 10, false);
    db.purge(&LOG, PurgeRequest::Keys((1..LARGE).map(|n| key(n, 0)).collect()), db.view().seq());
    assert!(db.freeze().expect("freezes"));
    set(&db, 3, LARGE..2 * LARGE, true);
    assert_eq!(weight(&db.view(), LARGE / 3, LARGE + LARGE / 3), (LARGE, 3));
    db.checkpoint().expect("makes a checkpoint");
    let locks = db.stats().locks;
    assert!(locks.entries_max >= 512 && locks.entries_max <= HOLD_ENTRIES_MAX, "{locks:?}");
    let merges = locks.of(Lock::Merge).holds;
    assert!((2 * LARGE / HOLD_ENTRIES_MAX..2 * LARGE / 100).contains(&merges), "{locks:?}");
    for lock in Lock::ALL {
        let stats = locks.of(lock);
        // A freeze publishes meanwhile, which looks twice.
        let looks = if lock == Lock::Freeze { 3 } else { 1 };
        assert!(
            stats.holds > 0 && stats.longest_ns == looks && stats.long == 0,
            "{}: {stats:?}",
            lock.name()
        );
    }
}

#[test]
fn readers_beside_a_large_batch_see_all_of_it_or_nothing_and_wait_for_no_long_hold() {
    let db = store(Arc::new(Clock(Instant::now())));
    set(&db, 1, 0..LARGE, true);
    let ended = AtomicBool::new(false);
    let looks: u64 = std::thread::scope(|scope| {
        let readers = [(); 2].map(|()| {
            scope.spawn(|| {
                let mut looks = 0;
                while !ended.load(Ordering::Acquire) {
                    let view = db.view();
                    // A batch is there as a whole as soon as any of it is.
                    let first = view.get(&MAP, &0_u64.to_be_bytes()).expect("reads").expect("is there");
                    let last = view.get(&MAP, &(LARGE - 1).to_be_bytes()).expect("reads").expect("is there");
                    assert!(last[..] >= first[..], "the last key after the first");
                    let (all, _) = weight(&view, 0, LARGE);
                    assert_eq!(all, LARGE, "the batch changes no weight");
                    let mut cursor = view.cursor(&MAP);
                    let from = looks * 997 % LARGE;
                    cursor.seek(&from.to_be_bytes());
                    for at in from..(from + 100).min(LARGE) {
                        let (key, value) = cursor.next().expect("walks").expect("is there");
                        assert_eq!(key, at.to_be_bytes());
                        assert!(value[..] >= first[..], "a cell from before");
                    }
                    looks += 1;
                }
                looks
            })
        });
        for n in 2..12 {
            set(&db, n, 0..LARGE, false);
        }
        ended.store(true, Ordering::Release);
        readers.map(|reader| reader.join().expect("a reader")).into_iter().sum()
    });
    let merge = db.stats().locks.of(Lock::Merge);
    println!(
        "{looks} looks beside 10 batches of {LARGE}: {} holds, the longest {} us",
        merge.holds,
        merge.longest_ns / 1000
    );
    assert!(looks > 10 && merge.holds >= 11 * LARGE / HOLD_ENTRIES_MAX);
}

/// The log is on the same disk, and its syncs wait for what is before them.
#[test]
fn a_checkpoint_is_on_its_way_to_the_medium_before_it_is_synced() {
    let disk = SimVfs::new();
    let db = create(Arc::new(disk.clone()), Path::new("/member")).expect("a new store");
    for index in 1..=50 {
        Commit::new(3, index, true).run(&db, true).expect("commits");
    }
    let before = disk.counters();
    assert!(db.checkpoint().expect("makes a checkpoint"));
    let after = disk.counters();
    let [written, behind] =
        [(after.write_bytes, before.write_bytes), (after.behind_bytes, before.behind_bytes)]
            .map(|(a, b)| a - b);
    assert_eq!(after.syncs - before.syncs, 1);
    assert!(behind > 10 * PAGE_BYTES as u64, "{behind} bytes");
    assert_eq!(written - behind, 2 * PAGE_BYTES as u64, "all but a page of the space map and the slot");
}
