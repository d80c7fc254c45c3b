// SPDX-License-Identifier: Apache-2.0
//! A store looked at from outside: the same pairs as a reader's, and trees that agree, also amid a purge.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use cairn_engine::sim::SplitMix;
use cairn_engine::{CommitMeta, TreeKind};
use cairn_mvcc::{
    Change, DeleteOp, KeyRange, KvRef, OpError, PutOp, RangeEnd, RangeOp, Revision, SCHEMA, Stored,
};

use crate::world::World;

fn key(n: u64) -> Bytes {
    format!("key-{n:03}").into()
}

fn put(world: &mut World, rng: &mut SplitMix) {
    let lease = [0, 0, 1, 7][rng.index(4)];
    let value = vec![b'v'; rng.index(60)].into();
    let op = PutOp { key: key(rng.below(40)), value: Some(value), lease: Some(lease), prev_kv: false };
    world.apply(|batch, leases| batch.put(&op, leases)).0.expect("puts");
}

fn delete(world: &mut World, rng: &mut SplitMix) {
    let end = if rng.one_in(3) { RangeEnd::Until(key(rng.below(40))) } else { RangeEnd::Single };
    let op = DeleteOp { keys: KeyRange { key: key(rng.below(40)), end }, prev_kv: false };
    world.apply(|batch, _| batch.delete_range(&op)).0.expect("deletes");
}

fn contradictions(stored: &Stored) -> Vec<String> {
    let mut found = Vec::new();
    stored.check(&mut || Ok(()), &mut |damage| found.push(damage.to_string())).expect("reads");
    found
}

fn pairs(stored: &Stored, keys: &KeyRange, revision: i64) -> Vec<Bytes> {
    let mut pairs = Vec::new();
    let each = |kv: KvRef<'_>| {
        let message = stored.get(kv.key, revision)?.expect("the walk has just seen it");
        assert_eq!(KvRef::decode(&message), Some(kv));
        pairs.push(message);
        Ok::<_, OpError>(ControlFlow::Continue(()))
    };
    stored.keys(keys, revision, each).expect("reads");
    pairs
}

#[test]
fn a_look_sees_what_a_reader_sees_and_trees_that_agree_amid_purges() {
    let (mut compared, mut checked) = (0, 0);
    for seed in 1..=40 {
        let mut rng = SplitMix::new(seed);
        let mut world = World::new();
        world.leases = [1, 7].into();
        for step in 0..300 {
            match rng.below(40) {
                0 => {
                    let revision = world.store().revision().expect("reads") - rng.below(30) as i64;
                    let refused = world.apply(|batch, _| batch.compact(revision)).0;
                    assert!(matches!(refused, Ok(()) | Err(OpError::Compacted)), "{refused:?}");
                }
                1..4 => drop(world.purge_step(1 + rng.index(30), false)),
                4..9 => delete(&mut world, &mut rng),
                9..12 => {
                    world.checkpoint();
                    assert_eq!(contradictions(&world.stored()), [""; 0], "seed {seed}, step {step}");
                    checked += 1;
                }
                _ => put(&mut world, &mut rng),
            }
        }
        world.checkpoint();
        let (stored, reader) = (world.stored(), world.reader());
        let (revision, compact) = (stored.revision(), stored.compact_revision());
        assert_eq!(revision, reader.revision().expect("reads"));
        assert_eq!(stored.live_bytes(), reader.live_bytes().expect("reads"));
        for at in [0, revision, revision - 3, compact.max(1)] {
            let end = if rng.one_in(2) { RangeEnd::FromKey } else { RangeEnd::Until(key(rng.below(40))) };
            let keys = KeyRange { key: key(rng.below(20)), end };
            let op = RangeOp { revision: at, ..RangeOp::new(keys.clone()) };
            match reader.range(&op) {
                Ok(answer) => assert_eq!(pairs(&stored, &keys, at), answer.kvs, "seed {seed}, revision {at}"),
                Err(OpError::Compacted) => {
                    assert!(matches!(stored.get(b"", at), Err(OpError::Compacted)), "seed {seed}");
                }
                Err(other) => panic!("{other}"),
            }
            compared += 1;
        }
        assert!(matches!(stored.get(b"", revision + 1), Err(OpError::FutureRevision)));
        let mut all: BTreeMap<Vec<u8>, Vec<(Revision, bool)>> = BTreeMap::new();
        let each = |change: Change<'_>| {
            all.entry(change.kv.key.to_vec()).or_default().insert(0, (change.revision, change.delete));
            Ok::<_, OpError>(ControlFlow::Continue(()))
        };
        stored.changes(Revision::default(), each).expect("reads");
        for (key, changes) in &all {
            let mut chain = Vec::new();
            let each = |change: Change<'_>| {
                assert_eq!(change.kv.key, key);
                chain.push((change.revision, change.delete));
                Ok::<_, OpError>(())
            };
            stored.changes_of(key, each).expect("reads");
            let recent = changes.iter().filter(|(revision, _)| revision.main > compact).count();
            assert!(
                changes.starts_with(&chain) && chain.len() >= recent,
                "seed {seed}: {chain:?} of {changes:?}"
            );
        }
        let last: Vec<bool> = all.values().map(|changes| changes[0].1).collect();
        let live = last.iter().filter(|delete| !**delete).count();
        assert_eq!(
            live,
            pairs(&stored, &KeyRange::all(), 0).len(),
            "seed {seed}: the last change of each key"
        );
    }
    println!("{compared} ranges compared, {checked} checks amid the work");
    assert!(compared == 160 && checked > 400, "{compared} {checked}");
}

/// Writes to the trees behind the store's back, and says what a check finds.
fn after(change: impl FnOnce(&mut cairn_engine::WriteTxn<'_>)) -> Vec<String> {
    let mut world = World::new();
    world.leases = [7].into();
    for n in 0..3 {
        let op = PutOp { key: key(n), value: Some("v".into()), lease: Some(7), prev_kv: false };
        world.apply(|batch, leases| batch.put(&op, leases)).0.expect("puts");
    }
    let mut txn = world.db().begin().expect("begins");
    let meta: CommitMeta = txn.meta().clone();
    change(&mut txn);
    txn.commit(meta, 4).expect("commits");
    world.checkpoint();
    let found = contradictions(&world.stored());
    found.into_iter().map(|text| text.split_once(": ").expect("a place").1.to_owned()).collect()
}

#[test]
fn trees_that_contradict_each_other_are_found() {
    let [rev, hist, idx, attach] = [SCHEMA[0], SCHEMA[1], SCHEMA[2], SCHEMA[3]];
    assert!(rev.kind == TreeKind::Append && idx.kind == TreeKind::Ordered);
    assert_eq!(after(|_| ()), [""; 0]);
    let at = |main: i64| {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&main.to_be_bytes());
        key
    };
    let firsts = |found: Vec<String>| -> Vec<String> {
        found.iter().map(|text| text.split([',', ';']).next().expect("a phrase").to_owned()).collect()
    };
    assert_eq!(
        firsts(after(|txn| txn.delete(&idx, b"key-001", -1))),
        [
            "live bytes that the checkpoint states against their sum",
            "key key-001 attached to lease 0000000000000007"
        ]
    );
    assert_eq!(
        firsts(after(|txn| txn.delete(&attach, b"\0\0\0\0\0\0\0\x07key-001", -1))),
        ["keys with a lease"]
    );
    assert_eq!(
        firsts(after(|txn| txn.append(&hist, at(5), Bytes::from_static(b"\x04key-009")))),
        ["record of revision 5.0"]
    );
    assert_eq!(
        firsts(after(|txn| txn.append(&rev, at(5), Bytes::from_static(b"\0\x0a\x01k")))),
        ["mod revision of the record of revision 5.0", "entry of revision 5.0"]
    );
    assert_eq!(
        firsts(after(|txn| txn.append(&rev, at(5), Bytes::from_static(b"\x09")))),
        ["record of revision 5.0"]
    );
    assert_eq!(
        firsts(after(|txn| txn.put(&idx, b"key-001", Bytes::from_static(&[1, 2, 0, 0, 1, 31, 14, 0]), 0)))
            [..1],
        ["cell of key key-001 and revision 2.0"]
    );
    assert_eq!(
        firsts(after(|txn| txn.put(&idx, b"key-001", Bytes::from_static(&[0xff]), 0)))[..1],
        ["cell of key key-001"]
    );
}
