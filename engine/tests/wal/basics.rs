// SPDX-License-Identifier: Apache-2.0
//! What a log does when nothing goes wrong.

use expect_test::expect;

use crate::script::check;

#[test]
fn what_is_appended_is_readable_at_once_and_durable_after_one_sync() {
    check(
        "entries 1..4 t1 10
         hard t1 v1 c2
         read 1 4
         log
         crash
         entries 1..4 t1 10
         entries 4..5 t1 10
         sync
         sync
         crash
         read 1 5",
        expect![[r#"
            entries 1..4 t1 10 -> append 1
            hard t1 v1 c2 -> append 2
            read 1 4 -> 1t1 2t1 3t1 (0 reads)
            log -> 1..=3
            crash -> 1..=0 t0 v0 c0 clean
            entries 1..4 t1 10 -> append 1
            entries 4..5 t1 10 -> append 2
            sync -> append 2 durable, last 4: 1 batches, 1 syncs
            sync -> append 2 durable, last 4: 0 batches, 0 syncs
            crash -> 1..=4 t0 v0 c0 clean
            read 1 5 -> 1t1 2t1 3t1 4t1 (1 reads)
        "#]],
    );
}

#[test]
fn an_entry_voids_those_at_and_above_its_index_also_after_a_crash() {
    check(
        "entries 1..6 t1 10
         sync
         entries 3..5 t2 10
         read 1 5
         sync
         log
         term 4
         term 5
         crash
         read 1 5
         entries 5..6 t2 10
         entries 4..5 t3 10
         sync
         crash
         read 1 5",
        expect![[r#"
            entries 1..6 t1 10 -> append 1
            sync -> append 1 durable, last 5: 1 batches, 1 syncs
            entries 3..5 t2 10 -> append 2
            read 1 5 -> 1t1 2t1 3t2 4t2 (0 reads)
            sync -> append 2 durable, last 4: 1 batches, 1 syncs
            log -> 1..=4
            term 4 -> 2
            term 5 -> unknown
            crash -> 1..=4 t0 v0 c0 clean
            read 1 5 -> 1t1 2t1 3t2 4t2 (2 reads)
            entries 5..6 t2 10 -> append 1
            entries 4..5 t3 10 -> append 2
            sync -> append 2 durable, last 4: 1 batches, 1 syncs
            crash -> 1..=4 t0 v0 c0 clean
            read 1 5 -> 1t1 2t1 3t2 4t3 (3 reads)
        "#]],
    );
}

#[test]
fn a_full_segment_is_followed_by_a_larger_one_and_the_old_ones_can_go() {
    check(
        "entries 1..2 t1 9000
         sync
         entries 2..3 t1 9000
         sync
         entries 3..4 t1 9000
         sync
         files
         spare
         files
         entries 4..5 t1 9000
         entries 5..6 t1 9000
         entries 6..7 t2 9000
         sync
         entries 7..8 t2 9000
         entries 8..9 t2 9000
         sync
         files
         read 1 9
         release 1
         log
         release 2
         log
         term 2
         term 1
         release 99
         files
         log
         crash 8 t2
         log
         term 6",
        expect![[r#"
            entries 1..2 t1 9000 -> append 1
            sync -> append 1 durable, last 1: 1 batches, 1 syncs
            entries 2..3 t1 9000 -> append 2
            sync -> append 2 durable, last 2: 2 batches, 2 syncs
            entries 3..4 t1 9000 -> append 3
            sync -> append 3 durable, last 3: 1 batches, 1 syncs
            files -> 1-01.wal 8, 2-02.wal 16
            spare -> More
            files -> 1-01.wal 8, 2-02.wal 16, spare-2 16
            entries 4..5 t1 9000 -> append 4
            entries 5..6 t1 9000 -> append 5
            entries 6..7 t2 9000 -> append 6
            sync -> append 6 durable, last 6: 4 batches, 3 syncs
            entries 7..8 t2 9000 -> append 7
            entries 8..9 t2 9000 -> append 8
            sync -> append 8 durable, last 8: 2 batches, 1 syncs
            files -> 1-01.wal 8, 2-02.wal 16, 3-06.wal 16
            read 1 9 -> 1t1 2t1 3t1 4t1 5t1 6t2 7t2 8t2 (8 reads)
            release 1 -> 2 segments
            log -> 2..=8
            release 2 -> 2 segments
            log -> 2..=8
            term 2 -> 1
            term 1 -> 1
            release 99 -> 1 segments
            files -> 3-06.wal 16, spare-3 16
            log -> 6..=8
            crash 8 t2 -> 6..=8 t0 v0 c8 clean
            log -> 6..=8
            term 6 -> 2
        "#]],
    );
}

#[test]
fn older_entries_are_read_from_disk_a_batch_at_a_time() {
    check(
        "entries 1..4 t1 1500
         sync
         entries 4..7 t1 1500
         sync
         read 1 7
         read 2 4
         read 6 7
         read 1 7 3000
         read 1 7 1",
        expect![[r#"
            entries 1..4 t1 1500 -> append 1
            sync -> append 1 durable, last 3: 1 batches, 1 syncs
            entries 4..7 t1 1500 -> append 2
            sync -> append 2 durable, last 6: 1 batches, 1 syncs
            read 1 7 -> 1t1 2t1 3t1 4t1 5t1 6t1 (2 reads)
            read 2 4 -> 2t1 3t1 (1 reads)
            read 6 7 -> 6t1 (0 reads)
            read 1 7 3000 -> 1t1 2t1 (1 reads)
            read 1 7 1 -> 1t1 (1 reads)
        "#]],
    );
}

#[test]
fn a_base_begins_the_log_anew_and_keeps_the_vote() {
    check(
        "entries 1..4 t1 10
         hard t1 v1 c3
         sync
         base 20 t3 i8
         log
         term 20
         term 3
         entries 21..22 t3 10
         sync
         crash 20 t3 i8
         read 21 22",
        expect![[r#"
            entries 1..4 t1 10 -> append 1
            hard t1 v1 c3 -> append 2
            sync -> append 2 durable, last 3: 1 batches, 1 syncs
            base 20 t3 i8 -> append 3
            log -> 21..=20
            term 20 -> 3
            term 3 -> unknown
            entries 21..22 t3 10 -> append 4
            sync -> append 4 durable, last 21: 1 batches, 1 syncs
            crash 20 t3 i8 -> 21..=21 t1 v1 c20 clean
            read 21 22 -> 21t3 (1 reads)
        "#]],
    );
}

#[test]
fn a_tree_file_of_another_install_voids_the_entries_and_never_the_vote() {
    check(
        "entries 1..4 t1 10
         hard t1 v1 c3
         sync
         crash 30 t2 i9
         term 30
         entries 31..32 t2 10
         sync
         crash 30 t2 i9
         read 31 32",
        expect![[r#"
            entries 1..4 t1 10 -> append 1
            hard t1 v1 c3 -> append 2
            sync -> append 2 durable, last 3: 1 batches, 1 syncs
            crash 30 t2 i9 -> 31..=30 t1 v1 c30 clean
            term 30 -> 2
            entries 31..32 t2 10 -> append 1
            sync -> append 1 durable, last 31: 1 batches, 1 syncs
            crash 30 t2 i9 -> 31..=31 t1 v1 c30 clean
            read 31 32 -> 31t2 (1 reads)
        "#]],
    );
}

#[test]
fn a_seal_is_written_once_and_syncs_nothing() {
    check(
        "entries 1..2 t1 10
         sync
         files
         seal
         seal
         entries 2..3 t1 10
         sync
         crash
         log",
        expect![[r#"
            entries 1..2 t1 10 -> append 1
            sync -> append 1 durable, last 1: 1 batches, 1 syncs
            files -> 1-01.wal 8
            seal -> ok
            seal -> ok
            entries 2..3 t1 10 -> append 2
            sync -> append 2 durable, last 2: 1 batches, 1 syncs
            crash -> 1..=2 t0 v0 c0 clean
            log -> 1..=2
        "#]],
    );
}

#[test]
fn a_seal_without_room_leaves_the_log_as_it_is_and_a_batch_without_room_ends_it() {
    check(
        "entries 1..2 t1 10
         sync
         full
         seal
         entries 2..3 t1 10
         sync
         full
         entries 3..4 t1 10
         sync
         sync
         crash
         read 1 3",
        expect![[r#"
            entries 1..2 t1 10 -> append 1
            sync -> append 1 durable, last 1: 1 batches, 1 syncs
            full -> ok
            seal -> error: no space left on the device for /wal/0000000000000001-0000000000000001.wal: free some space, or compact and delete keys
            entries 2..3 t1 10 -> append 2
            sync -> append 2 durable, last 2: 1 batches, 1 syncs
            full -> ok
            entries 3..4 t1 10 -> append 3
            sync -> error: writes stopped because an earlier write or sync of /wal/0000000000000001-0000000000000001.wal failed for want of space: free some, then restart; acknowledged data is replayed
            sync -> error: writes stopped because an earlier write or sync of /wal/0000000000000001-0000000000000001.wal failed for want of space: free some, then restart; acknowledged data is replayed
            crash -> 1..=2 t0 v0 c0 clean
            read 1 3 -> 1t1 2t1 (2 reads)
        "#]],
    );
}

#[test]
fn an_append_larger_than_any_segment_gets_one_of_its_own() {
    check(
        "entries 1..2 t1 200000
         sync
         files
         entries 2..3 t1 10
         sync
         read 1 3
         crash
         read 1 3",
        expect![[r#"
            entries 1..2 t1 200000 -> append 1
            sync -> append 1 durable, last 1: 2 batches, 2 syncs
            files -> 1-01.wal 8, 2-01.wal 52
            entries 2..3 t1 10 -> append 2
            sync -> append 2 durable, last 2: 2 batches, 2 syncs
            read 1 3 -> 1t1 2t1 (1 reads)
            crash -> 1..=2 t0 v0 c0 clean
            read 1 3 -> 1t1 2t1 (2 reads)
        "#]],
    );
}
