// SPDX-License-Identifier: Apache-2.0
//! What a put costs from its entry in the log to its place in the tree file, and what a store takes on the disk.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use cairn_engine::io::{Budget, Progress, Vfs};
use cairn_engine::sim::SimVfs;
use cairn_engine::{Aim, Shrinking};
use cairn_mvcc::PutOp;

use crate::alloc::allocations;
use crate::member::{GROUP, KEY_BYTES, Member, VALUE_BYTES, key, scatter};

const KEYS: u64 = 5000;
const PUTS: u64 = 40_000;
/// Of the store whose size is looked at, so that steps of a mebibyte do not matter.
const MANY_KEYS: u64 = 30_000;

fn disk() -> (SimVfs, Arc<dyn Vfs>) {
    let disk = SimVfs::new();
    disk.stop_recording();
    (disk.clone(), Arc::new(disk))
}

/// Uniform puts in groups, with the checkpoints that they make due.
fn churn(member: &mut Member, keys: u64, puts: Range<u64>) {
    for first in puts.step_by(GROUP as usize) {
        member.put((first..first + GROUP).map(|n| scatter(n) % keys));
        member.upkeep();
    }
}

#[test]
fn a_put_writes_so_many_bytes_and_shares_one_sync_with_its_group() {
    let (disk, vfs) = disk();
    let mut member = Member::new(&vfs, Path::new("/member"));
    // Segments of the log are made once, and written again from then on.
    churn(&mut member, KEYS, 0..PUTS / 2);
    let (before, checkpoints) = (disk.counters(), member.db.stats().checkpoints);
    churn(&mut member, KEYS, PUTS / 2..PUTS / 2 + PUTS);
    let after = disk.counters();
    let checkpoints = member.db.stats().checkpoints - checkpoints;
    let payload = PUTS as f64 * (KEY_BYTES + VALUE_BYTES) as f64;
    let written = (after.write_bytes - before.write_bytes) as f64 / payload;
    let syncs = after.syncs - before.syncs;
    println!(
        "{PUTS} puts: {written:.2} bytes written a byte put, {syncs} syncs, {checkpoints} checkpoints, {} calls",
        after.writes - before.writes
    );
    assert!(checkpoints >= 4, "the figure is of whole checkpoints");
    assert!((2.0..=2.6).contains(&written), "{written} bytes written a byte put");
    // One a group, one a checkpoint, and those of the segments that are written again.
    assert!(syncs <= PUTS / GROUP + checkpoints + payload as u64 / (1 << 19), "{syncs} syncs");
    assert!(syncs >= PUTS / GROUP, "no group is answered without one");
}

#[test]
fn a_put_allocates_a_bounded_number_of_times() {
    let (_, vfs) = disk();
    let mut member = Member::new(&vfs, Path::new("/member"));
    churn(&mut member, KEYS, 0..KEYS * 2);
    member.checkpoint();
    for (name, keys, most) in
        [("of a key in the tree", 0..1000, 14.0), ("of a new key", KEYS..KEYS + 1000, 14.0)]
    {
        let value = Some(Bytes::from_static(&[9; VALUE_BYTES]));
        let put = |n| PutOp { key: key(n), value: value.clone(), lease: Some(0), prev_kv: false };
        let puts: Vec<PutOp> = keys.map(put).collect();
        let before = allocations();
        for group in puts.chunks(GROUP as usize) {
            member.apply(group);
        }
        let each = (allocations() - before) as f64 / puts.len() as f64;
        println!("a put {name}: {each:.2} allocations");
        assert!(each <= most, "{each} allocations for a put {name}");
    }
}

#[test]
fn a_store_after_churn_takes_little_more_than_what_lives_in_it() {
    let (_, vfs) = disk();
    let mut member = Member::new(&vfs, Path::new("/member"));
    churn(&mut member, MANY_KEYS, 0..MANY_KEYS * 4);
    member.compact();
    // Two minutes of an idle member.
    for now_ms in (0..120_000).step_by(2000) {
        let shrinks = member.db.shrink(now_ms, Aim::Background).expect("looks") == Shrinking::Checkpoint;
        if shrinks || member.db.tidy_due() {
            member.checkpoint();
        }
        while member.db.punch(now_ms, Budget::UNBOUNDED).expect("looks") == Progress::More {}
    }
    let stats = member.db.stats();
    let verified = member.db.verify().expect("whole");
    let content: u64 = verified.trees.iter().map(|tree| tree.bytes).sum();
    let keys = member.store.reader().keys().expect("counts");
    let live = keys as f64 * (KEY_BYTES + VALUE_BYTES) as f64;
    let on_disk = (stats.file_bytes - stats.hole_bytes) as f64;
    let (of_content, of_pairs) = (on_disk / content as f64, on_disk / live);
    println!(
        "after churn: {} KiB of file, {} of them holes, {} used; {of_content:.3} bytes on disk a byte in trees, {of_pairs:.3} a byte of live pairs",
        stats.file_bytes >> 10,
        stats.hole_bytes >> 10,
        stats.used_bytes >> 10
    );
    assert!(of_content <= 1.25, "{of_content} bytes on disk a byte in trees");
    assert!(of_pairs <= 1.5, "{of_pairs} bytes on disk a byte of live pairs");
}
