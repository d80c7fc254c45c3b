// SPDX-License-Identifier: Apache-2.0
//! The threads of a member over one log, on real files: one appends and reads, one syncs, one tidies up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use cairn_engine::Error;
use cairn_engine::io::{Budget, StdVfs};
use cairn_engine::sim::SplitMix;
use cairn_engine::wal::{Evidence, Tail, Wal, WalOptions};

use crate::script::{BASE, INSTALL, data, entry};

const ENTRIES: u64 = 4000;
/// Entries that may wait for a sync, as a proposer's bound would have it.
const QUEUE_MAX: u64 = 64;
/// Entries that the owner keeps for reading.
const KEPT: u64 = 300;

fn small(salt_seed: u64) -> WalOptions {
    let mut options = WalOptions::new(Arc::new(StdVfs), 1, salt_seed);
    options.first_segment_bytes = 64 << 10;
    options.segment_bytes = 256 << 10;
    options.cache_bytes = 64 << 10;
    options
}

/// What index stands in the log: its size follows from it.
fn size(index: u64) -> usize {
    (index * 37 % 900) as usize
}

#[test]
fn appends_syncs_reads_and_releases_go_on_side_by_side() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("wal");
    let wal = Wal::create(&path, small(1), BASE).expect("a new log");
    let (floor, done) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                wal.sync().expect("healthy");
                thread::yield_now();
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                let durable = wal.durable().last_index;
                let released = durable.saturating_sub(KEPT);
                floor.store(released, Ordering::Release);
                wal.release(released).expect("healthy");
                wal.prepare_spare(Budget::bytes(32 << 10)).map(|_| ()).expect("healthy");
                thread::yield_now();
            }
        });
        let mut rng = SplitMix::new(1);
        for index in 1..=ENTRIES {
            wal.append(vec![entry(index, 1 + index / 1000, size(index))]).expect("healthy");
            while index - wal.durable().last_index.min(index) > QUEUE_MAX {
                thread::yield_now();
            }
            let lo = floor.load(Ordering::Acquire) + 1;
            let lo = lo + rng.below(index + 1 - lo);
            for found in wal.read(lo, index + 1, 4000).expect("readable") {
                assert_eq!(found.data, data(found.index, found.term, size(found.index)));
                assert_eq!(found.term, 1 + found.index / 1000);
            }
        }
        while wal.durable().last_index < ENTRIES {
            thread::yield_now();
        }
        done.store(true, Ordering::Release);
    });
    let stats = wal.stats();
    assert!(stats.segments < 8, "old segments went: {stats:?}");
    let first = wal.first_index();
    assert!(first > ENTRIES / 2, "the log begins at {first}");
    drop(wal);

    let applied_index = first;
    let evidence = Evidence { applied_index, applied_term: 1 + first / 1000, install: INSTALL };
    let (wal, replay) = Wal::open(&path, small(2), evidence).expect("whole");
    assert_eq!(replay.last_index, ENTRIES);
    // The newest segment is a recycled one: behind its last batch may be the middle of an older one.
    match replay.tail {
        Tail::Clean => {}
        Tail::Torn { file, .. } => assert!(file.starts_with(&path), "{}", file.display()),
    }
    let entries = wal.read(replay.first_index, ENTRIES + 1, usize::MAX).expect("readable");
    assert!(entries.iter().all(|found| found.data == data(found.index, found.term, size(found.index))));
    let mut options = small(3);
    options.member_id = 2;
    let other = Wal::open(&path, options, evidence).expect_err("another's");
    assert!(matches!(other, Error::Format(_)), "{other}");
}
