// SPDX-License-Identifier: Apache-2.0
//! Watchers that begin in the past, fall behind, or want the pair before.

use crate::script::{check, check_with};
use cairn_core::watch::HubOptions;
use expect_test::expect;

// rule: WATCH-17, WATCH-18, WATCH-25
#[test]
fn the_past_comes_first_and_the_future_waits() {
    for options in [HubOptions::default(), HubOptions { ring_revisions_max: 1, ..HubOptions::default() }] {
        check_with(
            options,
            "put a 1
             put a 2
             put b 3
             create s a start=3
             create s a start=6
             put a 4
             catchup
             put a 5
             put a 6
             read s",
            expect![[r#"
                s: #0 @4 created
                s: #1 @4 created
                s: #0 @5 a=2@3 a=4@5
                s: #1 @6 a=5@6
                s: #0 @6 a=5@6
                s: #1 @7 a=6@7
                s: #0 @7 a=6@7
            "#]],
        );
    }
}

// rule: WATCH-19, WATCH-20, WATCH-22
#[test]
fn the_compact_revision_is_still_watched_and_the_one_before_is_cut_off() {
    check(
        "puts a 5
         compact 4
         create s a start=4
         create s a start=3
         read s
         catchup
         read s
         progress s
         create s a id=1
         cancel s 1
         create s a id=1
         progress s
         read s",
        expect![[r#"
            s: #0 @6 created
            s: #1 @6 created
            s: #1 @0 canceled compact_revision=4
            s: #0 @6 a=2@4 a=3@5 a=4@6
            s: #-1 @6 created canceled "mvcc: duplicate watch ID provided on the WatchStream"
            s: #1 @6 canceled
            s: #1 @6 created
            s: #-1 @6
        "#]],
    );
}

// rule: WATCH-21, WATCH-42
#[test]
fn a_slow_watcher_gets_what_is_queued_and_is_then_cut_off_by_compaction() {
    check(
        "create s a
         puts a 200
         compact 180
         catchup
         skip s 127
         catchup
         read s",
        expect![[r#"
            s: #0 @128 a=126@128
            s: #0 @129 a=127@129
            s: #0 @0 canceled compact_revision=180
        "#]],
    );
}

// rule: WATCH-23, WATCH-28
#[test]
fn one_revision_is_one_response_in_the_order_of_its_changes() {
    for options in [HubOptions::default(), HubOptions { ring_revisions_max: 1, ..HubOptions::default() }] {
        check_with(
            options,
            "create s a..c
             create s a
             put a 1 put b 2 del a
             put x 1 put b 3
             create s a..c start=2
             put q 1
             catchup
             read s",
            expect![[r#"
                s: #0 @1 created
                s: #1 @1 created
                s: #0 @2 a=1@2 b=2@2 -a@2
                s: #1 @2 a=1@2 -a@2
                s: #0 @3 b=3@3
                s: #2 @3 created
                s: #2 @4 a=1@2 b=2@2 -a@2 b=3@3
            "#]],
        );
    }
}

// rule: WATCH-24, WATCH-25
#[test]
fn catching_up_takes_a_thousand_revisions_a_response() {
    for options in [HubOptions::default(), HubOptions { ring_revisions_max: 1, ..HubOptions::default() }] {
        check_with(
            options,
            "puts a 2300
             create s a start=1
             catchup
             read s",
            expect![[r#"
                s: #0 @2301 created
                s: #0 @2301 a=0@2 .. a=999@1001 (1000 events)
                s: #0 @2301 a=1000@1002 .. a=1999@2001 (1000 events)
                s: #0 @2301 a=2000@2002 .. a=2299@2301 (300 events)
            "#]],
        );
    }
}

// rule: WATCH-26, WATCH-29
#[test]
fn the_pair_before_comes_with_updates_and_deletes() {
    for options in [HubOptions::default(), HubOptions { ring_revisions_max: 1, ..HubOptions::default() }] {
        check_with(
            options,
            "create s a prev
             put a 1
             put a 2
             del a
             put a 3 del a
             create t a prev start=2
             put q 1
             catchup
             read s
             read t",
            expect![[r#"
                s: #0 @1 created
                s: #0 @2 a=1@2
                s: #0 @3 a=2@3(was 1@2)
                s: #0 @4 -a@4(was 2@3)
                s: #0 @5 a=3@5 -a@5
                t: #0 @5 created
                t: #0 @6 a=1@2 .. -a@5 (5 events)
            "#]],
        );
    }
}

// rule: WATCH-29
#[test]
fn a_compacted_pair_before_is_left_out() {
    check(
        "put a 1
         put a 2
         put a 3
         compact 3
         create s a prev start=3
         catchup
         read s",
        expect![[r#"
            s: #0 @4 created
            s: #0 @4 a=2@3 a=3@4(was 2@3)
        "#]],
    );
}
