// SPDX-License-Identifier: Apache-2.0
//! What a read costs: nodes opened, pages whose checksum is computed, allocations.

use std::sync::Arc;

use cairn_engine::io::{StdVfs, Vfs};
use cairn_engine::{Db, Stats};
use cairn_mvcc::{KeyRange, RangeEnd, RangeOp, Reader, SCHEMA, Store};

use crate::alloc::allocations;
use crate::member::{GROUP, Member, get, key, options, scatter};

const KEYS: u64 = 20_000;
const READS: u64 = 500;

/// A store of `KEYS` pairs in the tree file, opened anew: nothing of it was looked at.
fn opened(dir: &tempfile::TempDir) -> (Db, Reader) {
    let vfs: Arc<dyn Vfs> = Arc::new(StdVfs);
    let mut member = Member::new(&vfs, dir.path());
    for first in (0..KEYS).step_by(GROUP as usize) {
        member.put(first..first + GROUP);
        member.upkeep();
    }
    member.checkpoint();
    drop(member);
    let (db, _) = Db::open(dir.path(), SCHEMA, options(&vfs)).expect("opens");
    let store = Store::open(db.clone()).expect("opens");
    let reader = store.reader();
    (db, reader)
}

/// Costs of one of many reads.
struct Cost {
    extents: f64,
    pages: f64,
    allocations: f64,
}

fn cost(db: &Db, reads: u64, mut read: impl FnMut(u64)) -> Cost {
    let figures = |stats: Stats| (stats.extents_read, stats.pages_verified);
    let (before, allocated) = (figures(db.stats()), allocations());
    (0..reads).for_each(&mut read);
    let allocated = allocations() - allocated;
    let after = figures(db.stats());
    let each = |n: u64| n as f64 / reads as f64;
    Cost { extents: each(after.0 - before.0), pages: each(after.1 - before.1), allocations: each(allocated) }
}

fn show(what: &str, cost: &Cost) {
    println!(
        "{what}: {:.2} extents opened, {:.2} pages summed, {:.2} allocations",
        cost.extents, cost.pages, cost.allocations
    );
}

#[test]
fn a_get_opens_two_paths_sums_few_pages_once_and_allocates_little() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (db, reader) = opened(&dir);
    let read = |n: u64| {
        let done = reader.range(&get(scatter(n) % KEYS)).expect("reads");
        assert_eq!(done.kvs.len(), 1);
    };
    let cold = cost(&db, READS, read);
    show("get, first touch", &cold);
    let warm = cost(&db, READS, read);
    show("get, again", &warm);
    assert!(cold.extents <= 4.0 && warm.extents == cold.extents, "a path in each of two trees");
    assert!(cold.pages <= 2.5, "{} pages summed for one get", cold.pages);
    assert!(warm.pages == 0.0, "nothing is summed twice");
    assert!(warm.allocations <= 6.0, "{} allocations for one get", warm.allocations);
}

#[test]
fn a_page_and_a_count_cost_what_they_give_and_a_descent() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (db, reader) = opened(&dir);
    let page = |n: u64| {
        let from = scatter(n) % (KEYS / 2);
        let keys = KeyRange { key: key(from), end: RangeEnd::Until(key(KEYS)) };
        let done = reader.range(&RangeOp { limit: 100, ..RangeOp::new(keys) }).expect("reads");
        assert_eq!((done.kvs.len(), done.count as u64), (100, KEYS - from));
    };
    cost(&db, READS, page);
    let pages = cost(&db, READS, page);
    show("page of 100", &pages);
    assert!(pages.pages == 0.0 && pages.extents <= 210.0, "{} extents", pages.extents);
    assert!(pages.allocations <= 225.0, "{} allocations", pages.allocations);
    let count = |n: u64| {
        let from = scatter(n) % KEYS;
        let keys = KeyRange { key: key(from), end: RangeEnd::Until(key(KEYS)) };
        let done = reader.range(&RangeOp { count_only: true, ..RangeOp::new(keys) }).expect("reads");
        assert_eq!(done.count as u64, KEYS - from);
    };
    let counts = cost(&db, READS, count);
    show("count", &counts);
    assert!(counts.extents <= 4.0, "{} extents", counts.extents);
    assert!(counts.allocations <= 10.5, "{} allocations", counts.allocations);
}
