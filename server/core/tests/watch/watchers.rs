// SPDX-License-Identifier: Apache-2.0
//! The life of a watcher: its creation and its filters, what it is told while nothing happens, and its end.

use crate::script::{World, check, check_with};
use cairn_core::watch::HubOptions;
use expect_test::expect;

// rule: WATCH-2, WATCH-5
#[test]
fn ids_count_from_zero_skip_what_is_in_use_and_are_not_reused() {
    check(
        "create s a
         create s b id=5
         create s c
         create s d id=-4
         cancel s 1
         create s e
         create s f id=5
         read s",
        expect![[r#"
            s: #0 @1 created
            s: #5 @1 created
            s: #1 @1 created
            s: #-4 @1 created
            s: #1 @1 canceled
            s: #2 @1 created
            s: #-1 @1 created canceled "mvcc: duplicate watch ID provided on the WatchStream"
        "#]],
    );
}

// rule: WATCH-3, WATCH-4, WATCH-8, WATCH-9, WATCH-10, WATCH-12
#[test]
fn what_is_watched_and_what_cannot_be() {
    check(
        "create s EMPTY..0
         create s b..d
         create s c
         create s b..b
         create s b..a
         create s a start=-1
         put a 1
         put b 2
         put c 3
         put d 4
         read s",
        expect![[r#"
            s: #0 @1 created
            s: #1 @1 created
            s: #2 @1 created
            s: #-1 @1 created canceled "mvcc: watcher range is empty"
            s: #-1 @1 created canceled "mvcc: watcher range is empty"
            s: #-1 @1 created canceled "etcdserver: mvcc: required revision has been compacted"
            s: #0 @2 a=1@2
            s: #0 @3 b=2@3
            s: #1 @3 b=2@3
            s: #2 @4 c=3@4
            s: #0 @4 c=3@4
            s: #1 @4 c=3@4
            s: #0 @5 d=4@5
        "#]],
    );
}

// rule: WATCH-7, WATCH-16
#[test]
fn what_the_hub_learns_late_is_still_before_the_creation() {
    check(
        "put a 1
         late s put z 2
         put z 3
         read s",
        expect![[r#"
            s: #0 @3 created
            s: #0 @4 z=3@4
        "#]],
    );
}

// rule: WATCH-11
#[test]
fn a_refusal_leaves_the_stream_usable() {
    check(
        "refuse s rpc error: code = PermissionDenied desc = etcdserver: permission denied
         create s a
         put a 1
         read s",
        expect![[r#"
            s: #-1 @1 created canceled "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
            s: #0 @1 created
            s: #0 @2 a=1@2
        "#]],
    );
}

// rule: WATCH-14
#[test]
fn filters_drop_events_and_an_empty_response_is_not_sent() {
    check(
        "create s a filter=0
         create s a filter=1
         create s a filter=0 filter=1
         create s a filter=77
         put a 1
         del a
         read s",
        expect![[r#"
            s: #0 @1 created
            s: #1 @1 created
            s: #2 @1 created
            s: #3 @1 created
            s: #1 @2 a=1@2
            s: #3 @2 a=1@2
            s: #0 @3 -a@3
            s: #3 @3 -a@3
        "#]],
    );
}

// rule: WATCH-27, WATCH-31
#[test]
fn a_cancel_ends_one_watcher_and_an_unknown_one_gets_no_answer() {
    check(
        "create s a
         create s a
         put a 1
         cancel s 0
         cancel s 9
         put a 2
         read s",
        expect![[r#"
            s: #0 @1 created
            s: #1 @1 created
            s: #0 @2 a=1@2
            s: #1 @2 a=1@2
            s: #0 @2 canceled
            s: #1 @3 a=2@3
        "#]],
    );
}

// rule: WATCH-30
#[test]
fn the_end_of_a_lease_is_one_response_in_key_order() {
    check(
        "put a 1 put b 1 put c 1
         create s a..0
         del a del b del c
         read s",
        expect![[r#"
            s: #0 @2 created
            s: #0 @3 -a@3 -b@3 -c@3
        "#]],
    );
}

// rule: WATCH-35, WATCH-36, WATCH-40
#[test]
fn progress_is_sent_to_quiet_synced_watchers_that_asked() {
    check(
        "create s a notify
         create s b
         create s c notify start=9
         put x 1
         tick 600000
         read s
         tick 60000
         read s
         put a 1
         tick 660000
         read s
         tick 660000
         read s",
        expect![[r#"
            s: #0 @1 created
            s: #1 @1 created
            s: #2 @1 created
            s: #0 @2
            s: #0 @3 a=1@3
            s: #0 @3
        "#]],
    );
}

// rule: WATCH-35
#[test]
fn a_progress_interval_below_a_tenth_of_a_second_is_raised() {
    check_with(
        HubOptions { progress_interval_ms: 1, ..HubOptions::default() },
        "create s a notify
         tick 99
         read s
         tick 11
         read s",
        expect![[r#"
            s: #0 @1 created
            s: #0 @1
        "#]],
    );
}

// rule: WATCH-37, WATCH-38, WATCH-39
#[test]
fn a_progress_request_is_answered_only_when_all_watchers_have_everything() {
    check(
        "progress s
         create s a
         progress s
         put a 1
         create s a start=2
         progress s
         catchup
         progress s
         create s a start=5
         progress s
         put x 1
         put x 2
         put x 3
         progress s
         read s",
        expect![[r#"
            s: #0 @1 created
            s: #-1 @1
            s: #0 @2 a=1@2
            s: #1 @2 created
            s: #1 @2 a=1@2
            s: #-1 @2
            s: #2 @2 created
            s: #-1 @5
        "#]],
    );
}

// rule: WATCH-41, WATCH-42
#[test]
fn a_slow_stream_loses_nothing_and_holds_up_nobody() {
    let script = "create s a
         create t a
         puts a 128
         read t
         puts a 2000
         catchup
         read t
         read s 100
         catchup
         read s";
    for ring_revisions_max in [1, 8192] {
        let mut world = World::new(HubOptions { ring_revisions_max, ..HubOptions::default() });
        let mut out = String::new();
        for line in script.lines().map(str::trim) {
            world.run(line, &mut out);
            world.run("catchup", &mut out);
        }
        for name in ["s", "t"] {
            for _ in 0..100 {
                world.run("catchup", &mut out);
                world.run(&format!("read {name}"), &mut out);
            }
            let events: usize = out
                .lines()
                .filter(|line| line.starts_with(name))
                .map(|line| match line.split_once('(') {
                    Some((_, count)) => {
                        count.split(' ').next().expect("a word").parse::<usize>().expect("a count")
                    }
                    None => line.split(' ').filter(|word| word.contains('=')).count(),
                })
                .sum();
            assert_eq!(events, 2128, "stream {name} with a ring of {ring_revisions_max}:\n{out}");
        }
        assert_eq!(world.hub.stats().slow, 0);
    }
}

// rule: WATCH-43
#[test]
fn after_a_reset_watchers_go_on_where_they_were() {
    let mut world = World::new(HubOptions::default());
    let mut out = String::new();
    for line in ["create s a", "create s a start=9", "put a 1"] {
        world.run(line, &mut out);
    }
    // Two revisions arrive by a snapshot: the hub never saw them.
    world.store.apply(&["put", "a", "2"]);
    world.store.apply(&["put", "a", "3"]);
    for line in ["reset", "catchup", "put a 4", "read s"] {
        world.run(line, &mut out);
    }
    expect![[r#"
        s: #0 @1 created
        s: #1 @1 created
        s: #0 @2 a=1@2
        s: #0 @4 a=2@3 a=3@4
        s: #0 @5 a=4@5
    "#]]
    .assert_eq(&out);
}

// rule: WATCH-6, WATCH-15
#[test]
fn a_closed_stream_takes_its_watchers_along() {
    let mut world = World::new(HubOptions::default());
    let mut out = String::new();
    for line in ["create s a", "create s b start=1", "create t a", "close s", "put a 1", "catchup", "read t"]
    {
        world.run(line, &mut out);
    }
    assert_eq!((world.hub.stats().streams, world.hub.stats().watchers, world.hub.stats().slow), (1, 1, 0));
    expect![[r#"
        t: #0 @1 created
        t: #0 @2 a=1@2
    "#]]
    .assert_eq(&out);
}

// rule: WATCH-34
#[test]
fn created_comes_before_the_events_of_its_watcher() {
    check(
        "put a 1
         create s a start=2 fragment
         catchup
         read s",
        expect![[r#"
            s: #0 @2 created
            s: #0 @2 a=1@2
        "#]],
    );
}

// R38: a right that ends takes its watchers along, whatever they are doing, and no others.
// rule: WATCH-13
#[test]
fn watchers_end_with_the_right_of_their_user() {
    check(
        "put b 1
         as alice create s b
         as alice create s c
         as alice create s a..0
         as alice create s a..c start=1
         as bob create s b
         create s b
         as alice create t b start=2
         as alice create t a..b
         forbid alice b
         put b 2
         catchup
         forbid alice b
         as alice create s c
         put c 3
         read s
         read t",
        expect![[r#"
            s: #0 @2 created
            s: #1 @2 created
            s: #2 @2 created
            s: #3 @2 created
            s: #4 @2 created
            s: #5 @2 created
            s: #0 @2 canceled "no right"
            s: #2 @2 canceled "no right"
            s: #3 @2 canceled "no right"
            s: #4 @3 b=2@3
            s: #5 @3 b=2@3
            s: #6 @3 created
            s: #1 @4 c=3@4
            s: #6 @4 c=3@4
            t: #0 @2 created
            t: #1 @2 created
            t: #0 @2 canceled "no right"
        "#]],
    );
}
