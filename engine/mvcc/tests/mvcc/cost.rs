// SPDX-License-Identifier: Apache-2.0
//! What reads cost, in extents opened rather than in time.

use bytes::Bytes;
use cairn_mvcc::{KeyRange, PutOp, RangeEnd, RangeOp};

use crate::world::World;

const KEYS: usize = 6000;

fn key(n: usize) -> Bytes {
    format!("k{n:05}").into()
}

/// A store of `KEYS` keys, all in the tree file, in nodes of a few entries each.
fn store() -> World {
    let mut world = World::new();
    for start in (0..KEYS).step_by(500) {
        let (done, _) = world.apply(|batch, leases| {
            for n in start..start + 500 {
                let value = Some(Bytes::from_static(b"value"));
                batch.put(&PutOp { key: key(n), value, lease: Some(0), prev_kv: false }, leases)?;
            }
            Ok(())
        });
        done.expect("applies");
    }
    world.checkpoint();
    world
}

/// Extents that one range opens.
fn extents(world: &World, op: &RangeOp) -> u64 {
    let before = world.db().stats().extents_read;
    world.reader().range(op).expect("reads");
    world.db().stats().extents_read - before
}

// rule: KV-11, KV-13
#[test]
fn a_page_costs_its_pairs_and_a_count_costs_a_descent() {
    let world = store();
    let all = || RangeOp::new(KeyRange::all());
    let single = RangeOp::new(KeyRange { key: key(KEYS / 2), end: RangeEnd::Single });
    let one = extents(&world, &single);
    assert!(one < 40, "one key: {one} extents");

    let count = extents(&world, &RangeOp { count_only: true, ..all() });
    assert!(count < 40, "count of all: {count} extents");
    let from = KeyRange { key: key(KEYS / 3), end: RangeEnd::Until(key(KEYS * 2 / 3)) };
    let count = extents(&world, &RangeOp { count_only: true, ..RangeOp::new(from.clone()) });
    assert!(count < 60, "count of a part: {count} extents");

    let page = |limit| extents(&world, &RangeOp { limit, ..RangeOp::new(from.clone()) });
    let (ten, hundred) = (page(10), page(100));
    assert!(ten < 11 * one + 60, "a page of 10: {ten} extents");
    assert!(hundred < 101 * one + 60, "a page of 100: {hundred} extents");
    let keys_only = extents(&world, &RangeOp { limit: 100, keys_only: true, ..RangeOp::new(from) });
    assert!(keys_only < hundred / 4, "a page of 100 without values: {keys_only} extents");

    let at = world.store().revision().expect("reads") - 10;
    let count = extents(&world, &RangeOp { count_only: true, revision: at, ..all() });
    assert!(count < 80, "count of all ten revisions ago: {count} extents");
}
