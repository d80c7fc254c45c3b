// SPDX-License-Identifier: Apache-2.0
//! Compaction and the purge.

use bytes::Bytes;
use cairn_mvcc::{KeyRange, Op, OpDone, OpError, PurgeProgress, PutOp, RangeOp, TxnOp};
use expect_test::expect;

use crate::script::{check, run, show_kv};
use crate::world::World;

// rule: COMPACT-1, COMPACT-2
#[test]
fn which_revisions_can_be_compacted() {
    check(
        "compact -1
         compact -2
         compact 0
         compact 0
         compact 2
         put a 1
         compact 2
         compact 2
         compact 1
         compact 3
         revision",
        expect![[r#"
            compact -1 -> error: required revision has been compacted
            compact -2 -> error: required revision has been compacted
            compact 0 -> ok
            compact 0 -> error: required revision has been compacted
            compact 2 -> error: required revision is a future revision
            put a 1 -> rev 2
            compact 2 -> ok
            compact 2 -> error: required revision has been compacted
            compact 1 -> error: required revision has been compacted
            compact 3 -> error: required revision is a future revision
            revision -> 2 compact 2
        "#]],
    );
}

// rule: EX-5
#[test]
fn revisions_that_are_passed_over_have_no_changes_and_are_compacted() {
    check(
        "put a 1
         put b 1
         put a 2
         skip 10
         revision
         get a
         get a @13
         history a 4
         history a 14
         put a 3
         history a 14
         purge
         get b @14
         get a",
        expect![[r#"
            put a 1 -> rev 2
            put b 1 -> rev 3
            put a 2 -> rev 4
            skip 10 -> ok
            revision -> 14 compact 14
            get a -> rev 14 [a=2(2,4,2)] count 1
            get a @13 -> error: required revision has been compacted
            history a 4 -> error: required revision has been compacted
            history a 14 -> next 15
            put a 3 -> rev 15
            history a 14 -> PUT 15.0 a=3(2,15,3) after 4.0; next 16
            purge -> Done(14)
            get b @14 -> rev 15 [b=1(3,3,1)] count 1
            get a -> rev 15 [a=3(2,15,3)] count 1
        "#]],
    );
}

// rule: COMPACT-3, COMPACT-6
#[test]
fn a_compaction_holds_at_once_and_at_its_revision_all_still_works() {
    check(
        "put a 1
         put a 2
         put a 3
         compact 3
         get a @2
         get a @3
         history a 2
         history a 3
         hash 2
         hash 3
         purge
         get a @2
         get a @3
         history a 3",
        expect![[r#"
            put a 1 -> rev 2
            put a 2 -> rev 3
            put a 3 -> rev 4
            compact 3 -> ok
            get a @2 -> error: required revision has been compacted
            get a @3 -> rev 4 [a=2(2,3,2)] count 1
            history a 2 -> error: required revision has been compacted
            history a 3 -> PUT 3.0 a=2(2,3,2) after 2.0; PUT 4.0 a=3(2,4,3) after 3.0; next 5
            hash 2 -> error: required revision has been compacted
            hash 3 -> rev 4: 1483641527 at 3 compact 3
            purge -> Done(3)
            get a @2 -> error: required revision has been compacted
            get a @3 -> rev 4 [a=2(2,3,2)] count 1
            history a 3 -> PUT 3.0 a=2(2,3,2) after 2.0; PUT 4.0 a=3(2,4,3) after 3.0; next 5
        "#]],
    );
}

// rule: COMPACT-4
#[test]
fn what_a_compaction_keeps() {
    check(
        "put a 1
         put a 2
         put b 1
         del b
         put c 1
         put c 2
         put d 1
         del d
         put d 2
         compact 8
         get .. @8
         get .. @9
         get ..
         purge
         checkpoint
         get .. @8
         get .. @9
         get ..
         reopen
         get .. @8
         get .. @9
         get ..
         history .. 8
         put b 9
         get b",
        expect![[r#"
            put a 1 -> rev 2
            put a 2 -> rev 3
            put b 1 -> rev 4
            del b -> rev 5 deleted 1
            put c 1 -> rev 6
            put c 2 -> rev 7
            put d 1 -> rev 8
            del d -> rev 9 deleted 1
            put d 2 -> rev 10
            compact 8 -> ok
            get .. @8 -> rev 10 [a=2(2,3,2) c=2(6,7,2) d=1(8,8,1)] count 3
            get .. @9 -> rev 10 [a=2(2,3,2) c=2(6,7,2)] count 2
            get .. -> rev 10 [a=2(2,3,2) c=2(6,7,2) d=2(10,10,1)] count 3
            purge -> Done(8)
            checkpoint -> ok
            get .. @8 -> rev 10 [a=2(2,3,2) c=2(6,7,2) d=1(8,8,1)] count 3
            get .. @9 -> rev 10 [a=2(2,3,2) c=2(6,7,2)] count 2
            get .. -> rev 10 [a=2(2,3,2) c=2(6,7,2) d=2(10,10,1)] count 3
            reopen -> ok
            get .. @8 -> rev 10 [a=2(2,3,2) c=2(6,7,2) d=1(8,8,1)] count 3
            get .. @9 -> rev 10 [a=2(2,3,2) c=2(6,7,2)] count 2
            get .. -> rev 10 [a=2(2,3,2) c=2(6,7,2) d=2(10,10,1)] count 3
            history .. 8 -> PUT 8.0 d=1(8,8,1); DELETE 9.0 d=""(0,9,0) after 8.0; PUT 10.0 d=2(10,10,1); next 11
            put b 9 -> rev 11
            get b -> rev 11 [b=9(11,11,1)] count 1
        "#]],
    );
}

// rule: COMPACT-5
#[test]
fn the_tombstone_at_the_compact_revision_is_kept() {
    check(
        "put a 1
         del a
         put b 1
         compact 3
         purge
         history .. 3
         reopen
         history .. 3
         compact 4
         purge
         history .. 4
         get .. @4",
        expect![[r#"
            put a 1 -> rev 2
            del a -> rev 3 deleted 1
            put b 1 -> rev 4
            compact 3 -> ok
            purge -> Done(3)
            history .. 3 -> DELETE 3.0 a=""(0,3,0) after 2.0; PUT 4.0 b=1(4,4,1); next 5
            reopen -> ok
            history .. 3 -> DELETE 3.0 a=""(0,3,0) after 2.0; PUT 4.0 b=1(4,4,1); next 5
            compact 4 -> ok
            purge -> Done(4)
            history .. 4 -> PUT 4.0 b=1(4,4,1); next 5
            get .. @4 -> rev 4 [b=1(4,4,1)] count 1
        "#]],
    );
}

// rule: COMPACT-7
#[test]
fn of_several_changes_in_the_compact_revision_the_last_is_kept() {
    check(
        "put a 1
         txn : txn ( : put k 1 ) ; txn ( : del k ) ; del a.. ; put a 2
         history .. 3
         compact 3
         history .. 3
         get .. @3
         purge
         history .. 3
         get .. @3
         reopen
         history .. 3
         get .. @3",
        expect![[r#"
            put a 1 -> rev 2
            txn : txn ( : put k 1 ) ; txn ( : del k ) ; del a.. ; put a 2 -> rev 3 then (rev 3 then (rev 3); rev 3 then (rev 3 deleted 1); rev 3 deleted 1; rev 3)
            history .. 3 -> PUT 3.0 k=1(3,3,1); DELETE 3.1 k=""(0,3,0) after 3.0; DELETE 3.2 a=""(0,3,0) after 2.0; PUT 3.3 a=2(3,3,1); next 4
            compact 3 -> ok
            history .. 3 -> DELETE 3.1 k=""(0,3,0) after 3.0; PUT 3.3 a=2(3,3,1); next 4
            get .. @3 -> rev 3 [a=2(3,3,1)] count 1
            purge -> Done(3)
            history .. 3 -> DELETE 3.1 k=""(0,3,0) after 3.0; PUT 3.3 a=2(3,3,1); next 4
            get .. @3 -> rev 3 [a=2(3,3,1)] count 1
            reopen -> ok
            history .. 3 -> DELETE 3.1 k=""(0,3,0) after 3.0; PUT 3.3 a=2(3,3,1); next 4
            get .. @3 -> rev 3 [a=2(3,3,1)] count 1
        "#]],
    );
}

// rule: COMPACT-11
#[test]
fn the_revision_survives_the_purge_of_the_newest_change() {
    check(
        "put a 1
         del a
         compact 3
         purge
         reopen
         revision
         put b 1
         compact 4
         purge
         reopen
         revision",
        expect![[r#"
            put a 1 -> rev 2
            del a -> rev 3 deleted 1
            compact 3 -> ok
            purge -> Done(3)
            reopen -> ok
            revision -> 3 compact 3
            put b 1 -> rev 4
            compact 4 -> ok
            purge -> Done(4)
            reopen -> ok
            revision -> 4 compact 4
        "#]],
    );
}

// rule: COMPACT-14
#[test]
fn live_bytes_are_those_of_the_newest_revisions_and_no_compaction_changes_them() {
    check(
        "live
         put a 1
         live
         put a 22
         live
         put b 1
         del a
         live
         compact 5
         live
         purge
         live
         del b
         live",
        expect![[r#"
            live -> 0
            put a 1 -> rev 2
            live -> 29
            put a 22 -> rev 3
            live -> 30
            put b 1 -> rev 4
            del a -> rev 5 deleted 1
            live -> 29
            compact 5 -> ok
            live -> 29
            purge -> Done(5)
            live -> 29
            del b -> rev 6 deleted 1
            live -> 0
        "#]],
    );
}

// rule: COMPACT-8, COMPACT-10
#[test]
fn a_purge_goes_in_slices_and_waits_for_held_revisions() {
    let mut world = World::new();
    run(&mut world, "put a 1\nput a 2\nput b 1\nput a 3\ndel b\nput c 1");
    let reader = world.reader();
    let hold = reader.hold(3).expect("readable");
    let slow =
        reader.range_stream(&RangeOp { revision: 4, ..RangeOp::new(KeyRange::all()) }).expect("readable");
    run(&mut world, "compact 6");
    assert!(matches!(reader.hold(5), Err(OpError::Compacted)));

    assert_eq!(world.purge_step(1, false), PurgeProgress::Held(3));
    assert_eq!(world.purge(), PurgeProgress::Held(3));
    assert_eq!(world.store().purged_revision(), -1);
    assert!(hold.is_intact());
    drop(hold);
    let mut steps = 0;
    while world.purge_step(1, false) != PurgeProgress::Done(6) {
        steps += 1;
        assert!(steps < 100, "a purge ends");
    }
    assert!(steps >= 5, "{steps} steps of one entry");
    assert_eq!(world.store().purged_revision(), 6);
    assert!(matches!(reader.range_chunk(&mut slow.clone(), 1), Err(OpError::Compacted)));
}

// rule: COMPACT-3, KV-28
#[test]
fn a_deferred_range_keeps_its_revision_until_a_purge_breaks_it() {
    let mut world = World::new();
    run(&mut world, "put a 1\nput a 2");
    let op = TxnOp { success: vec![Op::Range(RangeOp::new(KeyRange::all()))], ..TxnOp::default() };
    let done = world.reader().txn(&op).expect("reads");
    let [OpDone::Range(deferred)] = &done.responses[..] else { panic!("one range, one answer: {done:?}") };
    run(&mut world, "put a 3\nput b 1\ncompact 5");
    assert_eq!(world.purge(), PurgeProgress::Held(3));
    let answer = world.reader().range_deferred(deferred).expect("held");
    assert_eq!(answer.kvs.iter().map(|kv| show_kv(kv)).collect::<Vec<_>>(), ["a=2(2,3,2)"]);

    assert_eq!(world.purge_step(100, true), PurgeProgress::More);
    world.purge();
    world.checkpoint();
    assert!(matches!(world.reader().range_deferred(deferred), Err(OpError::Compacted)));
}

// rule: COMPACT-7, TXN-15
#[test]
fn a_range_between_two_changes_of_a_key_outlives_the_compaction_of_their_revision() {
    let mut world = World::new();
    let put = |value: &'static str| {
        let key = Bytes::from_static(b"a");
        Op::Put(PutOp { key, value: Some(value.into()), lease: Some(0), prev_kv: false })
    };
    let success = vec![put("1"), Op::Range(RangeOp::new(KeyRange::all())), put("2")];
    let op = TxnOp { success, ..TxnOp::default() };
    let (done, _) = world.apply(|batch, leases| batch.txn(&op, leases));
    let done = done.expect("applies");
    let OpDone::Range(deferred) = &done.responses[1] else { panic!("the second op is a range: {done:?}") };
    run(&mut world, "compact 2\nput a 3\ncheckpoint");
    assert_eq!(world.purge(), PurgeProgress::Held(1));
    let answer = world.reader().range_deferred(deferred).expect("held");
    assert_eq!(answer.kvs.iter().map(|kv| show_kv(kv)).collect::<Vec<_>>(), ["a=1(2,2,1)"]);
}

// rule: COMPACT-4
#[test]
fn a_purge_that_a_crash_cut_short_is_done_again() {
    let mut world = World::new();
    for n in 0..60 {
        run(&mut world, &format!("put k{} {n}", n % 7));
    }
    run(&mut world, "compact 50");
    while world.purge_step(20, false) != PurgeProgress::Done(50) {}
    // The checkpoint has the compaction; the next process finds the records that it did not delete.
    world.reopen();
    let before = run(&mut world, "hash 0\nhash 55\nget .. @50\nlive");
    while world.purge_step(20, false) != PurgeProgress::Idle || world.db().purges_waiting() > 0 {
        world.checkpoint();
    }
    world.checkpoint();
    assert_eq!(run(&mut world, "hash 0\nhash 55\nget .. @50\nlive"), before);
    let trees = world.db().verify().expect("whole").trees;
    assert_eq!(trees[0].entries, 7 + 11, "seven live at 50 and eleven since");
    assert_eq!(trees[1].entries, 12, "history from 50 on");
}
