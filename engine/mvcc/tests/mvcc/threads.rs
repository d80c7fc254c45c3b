// SPDX-License-Identifier: Apache-2.0
//! Readers on threads of their own, beside a writer, a checkpointer and a purge.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use cairn_engine::sim::{SimVfs, SplitMix};
use cairn_engine::{Db, InstallId};
use cairn_mvcc::{
    DeleteOp, KeyRange, Op, OpError, PurgeBudget, PurgeProgress, PutOp, RangeEnd, RangeOp, Reader, SCHEMA,
    Store, TxnOp,
};

use crate::world::tiny;

/// Keys that come and go, and one that stays.
const LIVE: u64 = 41;
/// More than an index cell keeps: a reader whose view is older follows the links.
const PUTS_OF_ONE: usize = 70;
const NAMES: u64 = 120;
const ROUNDS: u64 = 1000;
const READERS: usize = 2;

fn key(n: u64) -> Bytes {
    format!("k{n:03}").into()
}

fn single(key: Bytes) -> KeyRange {
    KeyRange { key, end: RangeEnd::Single }
}

fn put(key: Bytes) -> PutOp {
    PutOp { key, value: Some("v".into()), lease: Some(0), prev_kv: false }
}

/// Reads until the writer is done; gives how many reads were answered. From revision 2 on there are always
/// `LIVE` keys.
fn read(reader: &Reader, done: &AtomicBool, seed: u64) -> u64 {
    let mut rng = SplitMix::new(seed);
    let mut reads = 0;
    loop {
        let last = done.load(Ordering::Acquire);
        let current = reader.revision().expect("reads");
        let mut op = RangeOp::new(KeyRange::all());
        op.revision = if rng.one_in(3) { 0 } else { (current - rng.below(900) as i64).max(2) };
        op.count_only = rng.one_in(3);
        op.limit = [0, 7][rng.index(2)];
        match reader.range(&op) {
            Ok(answer) => {
                let want = match (op.count_only, op.limit) {
                    (true, _) => 0,
                    (false, 0) => LIVE as usize,
                    (false, limit) => limit as usize,
                };
                assert_eq!((answer.count, answer.kvs.len()), (LIVE as i64, want), "{op:?}");
                reads += 1;
            }
            Err(OpError::Compacted) => {
                assert!(op.revision > 0, "the current revision cannot be compacted");
                assert!(op.revision < reader.compact_revision().expect("reads"), "{op:?}");
            }
            Err(error) => panic!("{op:?}: {error}"),
        }
        if last {
            return reads;
        }
    }
}

/// Each transaction deletes a key and puts another.
fn write(store: &mut Store) {
    let mut rng = SplitMix::new(3);
    let mut live: Vec<u64> = (1..LIVE).collect();
    let mut applied = 1;
    for round in 0..ROUNDS {
        let mut batch = store.batch().expect("begins");
        for _ in 0..1 + rng.below(4) {
            let fresh =
                (0..).map(|_| 1 + rng.below(NAMES)).find(|n| !live.contains(n)).expect("some are free");
            let slot = rng.index(live.len());
            let old = std::mem::replace(&mut live[slot], fresh);
            let delete = DeleteOp { keys: single(key(old)), prev_kv: false };
            let success = vec![Op::Put(put(key(fresh))), Op::Delete(delete)];
            batch.txn(&TxnOp { success, ..TxnOp::default() }, &|_| true).expect("applies");
        }
        for _ in 0..PUTS_OF_ONE {
            batch.put(&put(key(0)), &|_| true).expect("applies");
        }
        if round % 20 == 19 {
            batch.compact(batch.revision() - rng.below(600) as i64).ok();
        }
        applied += 1;
        batch.commit(applied, 1).expect("commits");
        let budget = PurgeBudget { entries: 50, break_holds: false };
        while store.purge_step(budget).expect("purges") == PurgeProgress::More {}
    }
}

// rule: KV-9, KV-11, TXN-19, COMPACT-3
#[test]
fn every_read_is_of_one_revision_whatever_happens_meanwhile() {
    let disk = SimVfs::new();
    disk.stop_recording();
    let db = Db::create(Path::new("/member"), SCHEMA, InstallId(7), tiny(&disk)).expect("a new store");
    let mut store = Store::open(db.clone()).expect("opens");
    let mut batch = store.batch().expect("begins");
    let success = (0..LIVE).map(|n| Op::Put(put(key(n)))).collect();
    batch.txn(&TxnOp { success, ..TxnOp::default() }, &|_| true).expect("applies");
    batch.commit(1, 1).expect("commits");

    let done = Arc::new(AtomicBool::new(false));
    let reads: Vec<u64> = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|n| {
                let (reader, done) = (store.reader(), Arc::clone(&done));
                scope.spawn(move || read(&reader, &done, n as u64))
            })
            .collect();
        let checkpointer = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                db.checkpoint().expect("makes a checkpoint");
                std::thread::yield_now();
            }
        });
        write(&mut store);
        done.store(true, Ordering::Release);
        checkpointer.join().expect("no checkpoint fails");
        readers.into_iter().map(|reader| reader.join().expect("no read is wrong")).collect()
    });
    println!("{ROUNDS} batches, {} checkpoints, {reads:?} reads", db.stats().checkpoints);
    assert!(reads.iter().all(|&n| n > 20), "{reads:?}");
}
