// SPDX-License-Identifier: Apache-2.0
//! Keys and values of all sizes up to that of a request: nothing about a pair depends on whether it fits a page, a
//! node, or the sixteen bits in which somebody may have counted it.

use std::collections::BTreeMap;

use bytes::Bytes;
use cairn_mvcc::{
    DeleteOp, EventKind, HistoryBudget, KeyRange, KvRef, OpError, PutOp, RangeDone, RangeEnd, RangeOp,
};

use crate::world::World;

/// What etcd takes in one request, less its envelope.
const REQUEST_BYTES: usize = 1_572_864 - 100;

/// Around what a node keeps of a long key, a page, a value in a leaf, sixteen bits, and the limit.
const SIZES: [usize; 15] = [
    1,
    511,
    512,
    513,
    1_023,
    1_024,
    1_025,
    4_095,
    4_097,
    16_384,
    16_385,
    65_535,
    65_536,
    1_000_000,
    REQUEST_BYTES - 1,
];

/// Keys of one size differ in their last byte alone, and each begins with those that are shorter.
fn key(size: usize, last: u8) -> Bytes {
    let mut key = vec![b'k'; size];
    key[size - 1] = last;
    key.into()
}

/// As large as the request still is, or nothing.
fn value(key_bytes: usize, round: usize) -> Bytes {
    let bytes = match round % 3 {
        0 => REQUEST_BYTES - key_bytes,
        1 => SIZES[(key_bytes + round) % SIZES.len()].min(REQUEST_BYTES - key_bytes),
        _ => 0,
    };
    (0..bytes).map(|n| (n / 7 + n / 1009 + round) as u8).collect()
}

type Pairs = BTreeMap<Bytes, Bytes>;

fn put(world: &mut World, pairs: &mut Pairs, key: &Bytes, value: &Bytes) {
    let op = PutOp { key: key.clone(), value: Some(value.clone()), lease: Some(0), prev_kv: false };
    let (done, _) = world.apply(|batch, leases| batch.put(&op, leases));
    done.expect("applies");
    pairs.insert(key.clone(), value.clone());
}

/// Compares without printing megabytes where they differ.
fn same(what: &str, found: &RangeDone, want: &[(&Bytes, &Bytes)]) {
    assert_eq!((found.kvs.len(), found.count as usize), (want.len(), want.len()), "{what}");
    for (at, (message, (key, value))) in found.kvs.iter().zip(want).enumerate() {
        let kv = KvRef::decode(message).expect("a pair of the store");
        assert!(kv.key == &key[..], "{what}: key {at}, of {} bytes for {}", kv.key.len(), key.len());
        assert!(
            kv.value == &value[..],
            "{what}: value {at}, of {} bytes for {}",
            kv.value.len(),
            value.len()
        );
    }
}

fn check(world: &World, pairs: &Pairs, revision: i64) -> Result<(), OpError> {
    let reader = world.reader();
    let op = |keys| RangeOp { revision, ..RangeOp::new(keys) };
    let all: Vec<_> = pairs.iter().collect();
    same("all", &reader.range(&op(KeyRange::all()))?, &all);
    for (at, pair) in all.iter().enumerate() {
        let keys = |end| KeyRange { key: pair.0.clone(), end };
        same("one", &reader.range(&op(keys(RangeEnd::Single)))?, &[*pair]);
        let rest = reader.range(&RangeOp { limit: 1, ..op(keys(RangeEnd::FromKey)) })?;
        assert_eq!((rest.kvs.len(), rest.count as usize), (1, all.len() - at), "from key {at}");
    }
    Ok(())
}

#[test]
fn keys_and_values_of_every_size_are_kept_read_watched_and_deleted() {
    let mut world = World::new();
    let mut pairs = Pairs::new();
    let mut before = None;
    for round in 0..3 {
        for size in SIZES {
            for last in [b'a', b'z'] {
                put(&mut world, &mut pairs, &key(size, last), &value(size, round));
            }
        }
        check(&world, &pairs, 0).expect("from the overlay");
        world.checkpoint();
        check(&world, &pairs, 0).expect("from the tree file");
        let revision = world.reader().revision().expect("reads");
        if let Some((old, revision)) = before.replace((pairs.clone(), revision)) {
            check(&world, &old, revision).expect("what was there before is");
        }
    }
    world.reopen();
    check(&world, &pairs, 0).expect("after a restart");

    let (_, revision) = before.expect("three rounds");
    let reader = world.reader();
    let (mut seen, mut from) = (0, 0);
    let budget = HistoryBudget { entries: 1000, revisions: 1000, bytes: 4 << 20 };
    while from <= revision {
        let done = reader.history(&[KeyRange::all()], from, i64::MAX, budget).expect("reads");
        assert!(done.next > from, "the history goes on");
        from = done.next;
        for event in done.revisions.iter().flat_map(|revision| &revision.events) {
            let kv = KvRef::decode(&event.kv).expect("a pair of the store");
            assert!(event.kind == EventKind::Put && kv.key.len() + kv.value.len() <= REQUEST_BYTES);
            let (round, place) = (seen / (2 * SIZES.len()), seen % (2 * SIZES.len()));
            let want = key(SIZES[place / 2], [b'a', b'z'][place % 2]);
            assert!(kv.key == &want[..] && kv.value == &value(want.len(), round)[..], "event {seen}");
            seen += 1;
        }
    }
    assert_eq!(seen, 3 * 2 * SIZES.len());
    drop(reader);

    for size in SIZES {
        let keys = KeyRange { key: key(size, b'a'), end: RangeEnd::Single };
        let op = DeleteOp { keys, prev_kv: true };
        let (done, _) = world.apply(|batch, _| batch.delete_range(&op));
        assert_eq!(done.expect("applies").deleted, 1);
        pairs.remove(&key(size, b'a'));
    }
    check(&world, &pairs, 0).expect("half of them");
    let now = world.reader().revision().expect("reads");
    let (done, _) = world.apply(|batch, _| batch.compact(now));
    done.expect("applies");
    world.purge();
    world.reopen();
    check(&world, &pairs, 0).expect("after a purge");
}
