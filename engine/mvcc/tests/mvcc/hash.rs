// SPDX-License-Identifier: Apache-2.0
//! HashKV, against the numbers that etcd gives.

use std::fmt::Write as _;

use expect_test::expect;

use crate::script::{check, run};
use crate::world::World;

// rule: HASH-1, HASH-2, HASH-3, HASH-4, HASH-13
#[test]
fn hashes_of_a_transaction_with_leases_and_of_a_delete() {
    check(
        "hash 0
         lease 7
         lease -1
         txn : put t1 a lease=7 ; put t2 \"\" ; put t3 c lease=-1
         txn : del t1..t3 ; put t3 d
         hash 2
         hash 3
         hash 0
         hash 4",
        expect![[r#"
            hash 0 -> rev 1: 1084519789 at 1 compact -1
            lease 7 -> ok
            lease -1 -> ok
            txn : put t1 a lease=7 ; put t2 "" ; put t3 c lease=-1 -> rev 2 then (rev 2; rev 2; rev 2)
            txn : del t1..t3 ; put t3 d -> rev 3 then (rev 3 deleted 2; rev 3)
            hash 2 -> rev 3: 2246752095 at 2 compact -1
            hash 3 -> rev 3: 4037859493 at 3 compact -1
            hash 0 -> rev 3: 4037859493 at 3 compact -1
            hash 4 -> error: required revision is a future revision
        "#]],
    );
}

/// `puts` of `k{i mod 5}={i}`, then the six changes of HASH-14.
fn etcd_sample() -> String {
    let puts: String = (0..20).map(|i| format!("put k{} {i}\n", i % 5)).collect();
    format!("{puts}del k0\nput k0 z\ndel k1\nput k2 q\n")
}

/// The lines of `out` that answer a hash or a compaction.
fn hashes(script: &str) -> String {
    let out = run(&mut World::new(), &format!("{}{script}", etcd_sample()));
    out.lines().filter(|l| !l.starts_with("put") && !l.starts_with("del")).map(|l| format!("{l}\n")).collect()
}

// rule: HASH-1, HASH-14
#[test]
fn hashes_at_old_revisions() {
    expect![[r#"
        hash 5 -> rev 25: 3816155474 at 5 compact -1
        hash 21 -> rev 25: 1065604446 at 21 compact -1
        hash 22 -> rev 25: 1741575917 at 22 compact -1
        hash 24 -> rev 25: 995851975 at 24 compact -1
        hash 25 -> rev 25: 3232264391 at 25 compact -1
        hash 0 -> rev 25: 3232264391 at 25 compact -1
        hash -3 -> rev 25: 1084519789 at -3 compact -1
    "#]]
    .assert_eq(&hashes("hash 5\nhash 21\nhash 22\nhash 24\nhash 25\nhash 0\nhash -3"));
}

// rule: HASH-6, HASH-9, HASH-10, HASH-15
#[test]
fn a_compaction_leaves_its_hash_with_the_compact_revision_before_it() {
    let script = "compact 22\npurge\nhash 22\nhash 23\nhash 24\nhash 0\nhash 21\n\
                  compact 24\npurge\nhash 22\nhash 23\nhash 24\nhash 0";
    expect![[r#"
        compact 22 -> ok
        purge -> Done(22)
        hash 22 -> rev 25: 1741575917 at 22 compact -1
        hash 23 -> rev 25: 1591517344 at 23 compact 22
        hash 24 -> rev 25: 2096262425 at 24 compact 22
        hash 0 -> rev 25: 2344721369 at 25 compact 22
        hash 21 -> error: required revision has been compacted
        compact 24 -> ok
        purge -> Done(24)
        hash 22 -> rev 25: 1741575917 at 22 compact -1
        hash 23 -> error: required revision has been compacted
        hash 24 -> rev 25: 2096262425 at 24 compact 22
        hash 0 -> rev 25: 1880115593 at 25 compact 24
    "#]]
    .assert_eq(&hashes(script));
}

// rule: HASH-6, HASH-11
#[test]
fn hashes_do_not_depend_on_the_purge_and_remembered_ones_end_with_the_process() {
    let script = "compact 22\nhash 22\nhash 23\nhash 0\npurge\nhash 23\nhash 0\nreopen\nhash 21\nhash 22\n\
                  hash 23\nhash 0\ncompact 24\nhash 24\nhash 0\npurge\nhash 22\nhash 24\nhash 0";
    expect![[r#"
        compact 22 -> ok
        hash 22 -> rev 25: 545025577 at 22 compact 22
        hash 23 -> rev 25: 1591517344 at 23 compact 22
        hash 0 -> rev 25: 2344721369 at 25 compact 22
        purge -> Done(22)
        hash 23 -> rev 25: 1591517344 at 23 compact 22
        hash 0 -> rev 25: 2344721369 at 25 compact 22
        reopen -> ok
        hash 21 -> error: required revision has been compacted
        hash 22 -> rev 25: 545025577 at 22 compact 22
        hash 23 -> rev 25: 1591517344 at 23 compact 22
        hash 0 -> rev 25: 2344721369 at 25 compact 22
        compact 24 -> ok
        hash 24 -> rev 25: 3163301592 at 24 compact 24
        hash 0 -> rev 25: 1880115593 at 25 compact 24
        purge -> Done(24)
        hash 22 -> error: required revision has been compacted
        hash 24 -> rev 25: 2096262425 at 24 compact 22
        hash 0 -> rev 25: 1880115593 at 25 compact 24
    "#]]
    .assert_eq(&hashes(script));
}

// rule: HASH-7, HASH-9, HASH-16
#[test]
fn where_no_key_is_live_nothing_is_filtered() {
    check(
        "put a v
         compact 2
         purge
         del a
         hash 3
         compact 3
         purge
         hash 3
         put b v
         del b
         hash 0
         compact 5
         purge
         hash 5
         put c v
         del c
         compact 7
         hash 0
         purge
         reopen
         hash 0",
        expect![[r#"
            put a v -> rev 2
            compact 2 -> ok
            purge -> Done(2)
            del a -> rev 3 deleted 1
            hash 3 -> rev 3: 40785394 at 3 compact 2
            compact 3 -> ok
            purge -> Done(3)
            hash 3 -> rev 3: 3681333679 at 3 compact 2
            put b v -> rev 4
            del b -> rev 5 deleted 1
            hash 0 -> rev 5: 4239237772 at 5 compact 3
            compact 5 -> ok
            purge -> Done(5)
            hash 5 -> rev 5: 4239237772 at 5 compact 3
            put c v -> rev 6
            del c -> rev 7 deleted 1
            compact 7 -> ok
            hash 0 -> rev 7: 1084519789 at 7 compact 7
            purge -> Done(7)
            reopen -> ok
            hash 0 -> rev 7: 1084519789 at 7 compact 7
        "#]],
    );
}

// R31 of the test plan: members of which one has compacted and the other has not yet are not to be told apart by it.
#[test]
fn a_hash_made_anew_is_never_the_one_that_a_compaction_left() {
    check(
        "put a v
         compact 2
         purge
         del a
         anew 3
         compact 3
         anew 3
         purge
         hash 3
         anew 3
         anew 2
         anew 4",
        expect![[r#"
            put a v -> rev 2
            compact 2 -> ok
            purge -> Done(2)
            del a -> rev 3 deleted 1
            anew 3 -> rev 3: 40785394 at 3 compact 2
            compact 3 -> ok
            anew 3 -> rev 3: 1084519789 at 3 compact 3
            purge -> Done(3)
            hash 3 -> rev 3: 3681333679 at 3 compact 2
            anew 3 -> rev 3: 1084519789 at 3 compact 3
            anew 2 -> error: required revision has been compacted
            anew 4 -> error: required revision is a future revision
        "#]],
    );
}

// rule: HASH-9
#[test]
fn the_hashes_of_ten_compactions_are_remembered() {
    let mut script = String::new();
    for revision in 2..=13 {
        writeln!(script, "put k {revision}\ncompact {revision}\npurge").expect("a string takes it");
    }
    script += "hash 2\nhash 3\nhash 4\nhash 13\n";
    let out = run(&mut World::new(), &script);
    let hashes: Vec<&str> = out.lines().filter(|line| line.starts_with("hash")).collect();
    expect![[r#"
        hash 2 -> error: required revision has been compacted
        hash 3 -> error: required revision has been compacted
        hash 4 -> rev 13: 1641854466 at 4 compact 3
        hash 13 -> rev 13: 3117761064 at 13 compact 12"#]]
    .assert_eq(&hashes.join("\n"));
}

// rule: HASH-9
#[test]
fn a_compaction_before_whose_purge_another_came_leaves_the_first_hash_only() {
    check(
        "put k 1
         put k 2
         put k 3
         compact 2
         compact 3
         purge
         hash 2
         hash 3
         hash 0",
        expect![[r#"
            put k 1 -> rev 2
            put k 2 -> rev 3
            put k 3 -> rev 4
            compact 2 -> ok
            compact 3 -> ok
            purge -> Done(3)
            hash 2 -> rev 4: 1336084322 at 2 compact -1
            hash 3 -> rev 4: 2381641730 at 3 compact 3
            hash 0 -> rev 4: 3038171881 at 4 compact 3
        "#]],
    );
}

// rule: HASH-12
#[test]
fn a_compaction_at_0_leaves_no_hash_and_below_0_nothing_is_hashed() {
    check(
        "compact 0
         purge
         put a 1
         hash 0
         hash -1
         compact 2
         purge
         hash 0
         hash 2
         hash -1",
        expect![[r#"
            compact 0 -> ok
            purge -> Done(0)
            put a 1 -> rev 2
            hash 0 -> rev 2: 2587454935 at 2 compact 0
            hash -1 -> rev 2: 1084519789 at -1 compact 0
            compact 2 -> ok
            purge -> Done(2)
            hash 0 -> rev 2: 2587454935 at 2 compact 2
            hash 2 -> rev 2: 2587454935 at 2 compact 0
            hash -1 -> rev 2: 1084519789 at -1 compact 2
        "#]],
    );
}
