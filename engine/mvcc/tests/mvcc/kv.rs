// SPDX-License-Identifier: Apache-2.0
//! Ranges, puts and deletes.

use expect_test::expect;

use crate::script::check;

// rule: HDR-1
#[test]
fn an_empty_store_is_at_revision_1() {
    check(
        "revision
         get ..
         put a 1
         get ..",
        expect![[r#"
            revision -> 1 compact -1
            get .. -> rev 1 [] count 0
            put a 1 -> rev 2
            get .. -> rev 2 [a=1(2,2,1)] count 1
        "#]],
    );
}

// rule: HDR-2, HDR-4, HDR-5, HDR-6
#[test]
fn the_revision_grows_by_one_with_each_request_that_changes_something() {
    check(
        "put a 1
         put a 1
         del x
         txn : get a
         txn ? ver(a)=9 : put a 2 | del x
         txn : put b 1 ; put c 1 ; del a..b
         lease 7
         revoke 7
         compact 3
         revision
         get .. @3
         del ..
         get ..",
        expect![[r#"
            put a 1 -> rev 2
            put a 1 -> rev 3
            del x -> rev 3 deleted 0
            txn : get a -> rev 3 then (rev 3 [a=1(2,3,2)] count 1)
            txn ? ver(a)=9 : put a 2 | del x -> rev 3 else (rev 3 deleted 0)
            txn : put b 1 ; put c 1 ; del a..b -> rev 4 then (rev 4; rev 4; rev 4 deleted 1)
            lease 7 -> ok
            revoke 7 -> rev 4 deleted 0
            compact 3 -> ok
            revision -> 4 compact 3
            get .. @3 -> rev 4 [a=1(2,3,2)] count 1
            del .. -> rev 5 deleted 2
            get .. -> rev 5 [] count 0
        "#]],
    );
}

// rule: HDR-8, HDR-10, HDR-5
#[test]
fn inside_a_transaction_the_revision_moves_with_the_first_change() {
    check(
        "put a 1
         txn : get a ; del x ; put b 1 ; del x ; get a ; del a ; get a..",
        expect![[r#"
            put a 1 -> rev 2
            txn : get a ; del x ; put b 1 ; del x ; get a ; del a ; get a.. -> rev 3 then (rev 2 [a=1(2,2,1)] count 1; rev 2 deleted 0; rev 3; rev 3 deleted 0; rev 3 [a=1(2,2,1)] count 1; rev 3 deleted 1; rev 3 [b=1(3,3,1)] count 1)
        "#]],
    );
}

// rule: KV-1
#[test]
fn keys_are_in_the_order_of_their_bytes() {
    check(
        "put b 1
         put a 2
         put aa 3
         put é 4
         put B 5
         get ..",
        expect![[r#"
            put b 1 -> rev 2
            put a 2 -> rev 3
            put aa 3 -> rev 4
            put é 4 -> rev 5
            put B 5 -> rev 6
            get .. -> rev 6 [B=5(6,6,1) a=2(3,3,1) aa=3(4,4,1) b=1(2,2,1) é=4(5,5,1)] count 5
        "#]],
    );
}

// rule: KV-2, KV-3, KV-4, KV-5
#[test]
fn intervals() {
    check(
        "put a 1
         put ab 2
         put b 3
         put c 4
         get a
         get x
         get a..b
         get b..b
         get c..a
         get b..
         get ..",
        expect![[r#"
            put a 1 -> rev 2
            put ab 2 -> rev 3
            put b 3 -> rev 4
            put c 4 -> rev 5
            get a -> rev 5 [a=1(2,2,1)] count 1
            get x -> rev 5 [] count 0
            get a..b -> rev 5 [a=1(2,2,1) ab=2(3,3,1)] count 2
            get b..b -> rev 5 [] count 0
            get c..a -> rev 5 [] count 0
            get b.. -> rev 5 [b=3(4,4,1) c=4(5,5,1)] count 2
            get .. -> rev 5 [a=1(2,2,1) ab=2(3,3,1) b=3(4,4,1) c=4(5,5,1)] count 4
        "#]],
    );
}

// rule: KV-8, KV-9
#[test]
fn which_revisions_can_be_read() {
    check(
        "put a 1
         put a 2
         put a 3
         get a @-5
         get a @0
         get a @2
         get a @4
         get a @5
         get a @1
         compact 3
         get a @2
         get a @3
         get a..b @2 count",
        expect![[r#"
            put a 1 -> rev 2
            put a 2 -> rev 3
            put a 3 -> rev 4
            get a @-5 -> rev 4 [a=3(2,4,3)] count 1
            get a @0 -> rev 4 [a=3(2,4,3)] count 1
            get a @2 -> rev 4 [a=1(2,2,1)] count 1
            get a @4 -> rev 4 [a=3(2,4,3)] count 1
            get a @5 -> error: required revision is a future revision
            get a @1 -> rev 4 [] count 0
            compact 3 -> ok
            get a @2 -> error: required revision has been compacted
            get a @3 -> rev 4 [a=2(2,3,2)] count 1
            get a..b @2 count -> error: required revision has been compacted
        "#]],
    );
}

// rule: KV-10, KV-11, REV-4
#[test]
fn a_read_at_a_revision_sees_what_was_there() {
    check(
        "lease 7
         put a 1 lease=7
         put b 1
         put a 2
         del a
         put a 3
         get .. @2
         get .. @3
         get .. @4
         get .. @5
         get .. @6
         get .. @1
         get a count @5
         get .. count @3",
        expect![[r#"
            lease 7 -> ok
            put a 1 lease=7 -> rev 2
            put b 1 -> rev 3
            put a 2 -> rev 4
            del a -> rev 5 deleted 1
            put a 3 -> rev 6
            get .. @2 -> rev 6 [a=1(2,2,1,l7)] count 1
            get .. @3 -> rev 6 [a=1(2,2,1,l7) b=1(3,3,1)] count 2
            get .. @4 -> rev 6 [a=2(2,4,2) b=1(3,3,1)] count 2
            get .. @5 -> rev 6 [b=1(3,3,1)] count 1
            get .. @6 -> rev 6 [a=3(6,6,1) b=1(3,3,1)] count 2
            get .. @1 -> rev 6 [] count 0
            get a count @5 -> rev 6 [] count 0
            get .. count @3 -> rev 6 [] count 2
        "#]],
    );
}

// rule: KV-11, KV-12, KV-13
#[test]
fn the_limit_cuts_and_says_so_and_leaves_the_count() {
    check(
        "put a 1
         put b 2
         put c 3
         get .. limit=2
         get .. limit=3
         get .. limit=4
         get .. limit=0
         get .. limit=-1
         get b limit=1
         get .. limit=1 @3
         get a..c limit=1 desc:key
         get a..c limit=2 desc:key",
        expect![[r#"
            put a 1 -> rev 2
            put b 2 -> rev 3
            put c 3 -> rev 4
            get .. limit=2 -> rev 4 [a=1(2,2,1) b=2(3,3,1)] count 3 more
            get .. limit=3 -> rev 4 [a=1(2,2,1) b=2(3,3,1) c=3(4,4,1)] count 3
            get .. limit=4 -> rev 4 [a=1(2,2,1) b=2(3,3,1) c=3(4,4,1)] count 3
            get .. limit=0 -> rev 4 [a=1(2,2,1) b=2(3,3,1) c=3(4,4,1)] count 3
            get .. limit=-1 -> rev 4 [a=1(2,2,1) b=2(3,3,1) c=3(4,4,1)] count 3
            get b limit=1 -> rev 4 [b=2(3,3,1)] count 1
            get .. limit=1 @3 -> rev 4 [a=1(2,2,1)] count 2 more
            get a..c limit=1 desc:key -> rev 4 [b=2(3,3,1)] count 2 more
            get a..c limit=2 desc:key -> rev 4 [b=2(3,3,1) a=1(2,2,1)] count 2
        "#]],
    );
}

// rule: KV-14
#[test]
fn count_only_has_no_pairs_and_no_more() {
    check(
        "put a 1
         put b 2
         get .. count
         get .. count limit=1 keys desc:mod min_mod=3
         get a count
         get x count",
        expect![[r#"
            put a 1 -> rev 2
            put b 2 -> rev 3
            get .. count -> rev 3 [] count 2
            get .. count limit=1 keys desc:mod min_mod=3 -> rev 3 [] count 2
            get a count -> rev 3 [] count 1
            get x count -> rev 3 [] count 0
        "#]],
    );
}

// rule: KV-15
#[test]
fn keys_only_has_no_value_and_the_lease_only_when_sorted_by_value() {
    check(
        "lease 7
         put a 1 lease=7
         put b 2
         put a 3 lease=7
         get .. keys
         get .. keys @3
         get .. keys by:value
         get .. keys desc:value @3
         get .. keys limit=1",
        expect![[r#"
            lease 7 -> ok
            put a 1 lease=7 -> rev 2
            put b 2 -> rev 3
            put a 3 lease=7 -> rev 4
            get .. keys -> rev 4 [a=""(2,4,2) b=""(3,3,1)] count 2
            get .. keys @3 -> rev 4 [a=""(2,2,1) b=""(3,3,1)] count 2
            get .. keys by:value -> rev 4 [b=""(3,3,1) a=""(2,4,2,l7)] count 2
            get .. keys desc:value @3 -> rev 4 [b=""(3,3,1) a=""(2,2,1,l7)] count 2
            get .. keys limit=1 -> rev 4 [a=""(2,4,2)] count 2 more
        "#]],
    );
}

// rule: KV-16, KV-17, KV-19
#[test]
fn orders() {
    check(
        "put a 3
         put b 1
         put c 2
         put a 3
         put d 1
         get .. by:key
         get .. desc:key
         get .. by:version
         get .. desc:version
         get .. by:create
         get .. desc:create limit=2
         get .. by:mod
         get .. desc:mod limit=1
         get .. asc:value
         get .. desc:value
         get .. asc:value limit=2
         get .. asc:create @4",
        expect![[r#"
            put a 3 -> rev 2
            put b 1 -> rev 3
            put c 2 -> rev 4
            put a 3 -> rev 5
            put d 1 -> rev 6
            get .. by:key -> rev 6 [a=3(2,5,2) b=1(3,3,1) c=2(4,4,1) d=1(6,6,1)] count 4
            get .. desc:key -> rev 6 [d=1(6,6,1) c=2(4,4,1) b=1(3,3,1) a=3(2,5,2)] count 4
            get .. by:version -> rev 6 [b=1(3,3,1) c=2(4,4,1) d=1(6,6,1) a=3(2,5,2)] count 4
            get .. desc:version -> rev 6 [a=3(2,5,2) b=1(3,3,1) c=2(4,4,1) d=1(6,6,1)] count 4
            get .. by:create -> rev 6 [a=3(2,5,2) b=1(3,3,1) c=2(4,4,1) d=1(6,6,1)] count 4
            get .. desc:create limit=2 -> rev 6 [d=1(6,6,1) c=2(4,4,1)] count 4 more
            get .. by:mod -> rev 6 [b=1(3,3,1) c=2(4,4,1) a=3(2,5,2) d=1(6,6,1)] count 4
            get .. desc:mod limit=1 -> rev 6 [d=1(6,6,1)] count 4 more
            get .. asc:value -> rev 6 [b=1(3,3,1) d=1(6,6,1) c=2(4,4,1) a=3(2,5,2)] count 4
            get .. desc:value -> rev 6 [a=3(2,5,2) c=2(4,4,1) b=1(3,3,1) d=1(6,6,1)] count 4
            get .. asc:value limit=2 -> rev 6 [b=1(3,3,1) d=1(6,6,1)] count 4 more
            get .. asc:create @4 -> rev 6 [a=3(2,2,1) b=1(3,3,1) c=2(4,4,1)] count 3
        "#]],
    );
}

// rule: KV-17, KV-18
#[test]
fn without_an_order_the_limit_cuts_before_the_sort_by_another_target() {
    check(
        "put s1 9
         put s2 8
         put s3 7
         put s4 1
         get .. by:value limit=2
         get .. asc:value limit=2
         get .. by:value limit=2 min_mod=1
         get .. by:mod limit=4",
        expect![[r#"
            put s1 9 -> rev 2
            put s2 8 -> rev 3
            put s3 7 -> rev 4
            put s4 1 -> rev 5
            get .. by:value limit=2 -> rev 5 [s3=7(4,4,1) s2=8(3,3,1)] count 4 more
            get .. asc:value limit=2 -> rev 5 [s4=1(5,5,1) s3=7(4,4,1)] count 4 more
            get .. by:value limit=2 min_mod=1 -> rev 5 [s4=1(5,5,1) s3=7(4,4,1)] count 4 more
            get .. by:mod limit=4 -> rev 5 [s1=9(2,2,1) s2=8(3,3,1) s3=7(4,4,1) s4=1(5,5,1)] count 4
        "#]],
    );
}

// rule: KV-20, KV-21, KV-22
#[test]
fn filters_are_inclusive_and_look_at_the_pair_that_is_seen() {
    check(
        "put a 1
         put b 1
         put a 2
         put c 1
         get .. min_mod=3 max_mod=4
         get .. min_create=3
         get .. max_create=2
         get .. max_mod=-1
         get .. min_mod=-1
         get .. max_mod=2
         get .. max_mod=2 @2
         get .. min_mod=4 limit=1
         get .. min_mod=9 limit=1
         get .. max_create=3 limit=1",
        expect![[r#"
            put a 1 -> rev 2
            put b 1 -> rev 3
            put a 2 -> rev 4
            put c 1 -> rev 5
            get .. min_mod=3 max_mod=4 -> rev 5 [a=2(2,4,2) b=1(3,3,1)] count 3
            get .. min_create=3 -> rev 5 [b=1(3,3,1) c=1(5,5,1)] count 3
            get .. max_create=2 -> rev 5 [a=2(2,4,2)] count 3
            get .. max_mod=-1 -> rev 5 [] count 3
            get .. min_mod=-1 -> rev 5 [a=2(2,4,2) b=1(3,3,1) c=1(5,5,1)] count 3
            get .. max_mod=2 -> rev 5 [] count 3
            get .. max_mod=2 @2 -> rev 5 [a=1(2,2,1)] count 1
            get .. min_mod=4 limit=1 -> rev 5 [a=2(2,4,2)] count 3 more
            get .. min_mod=9 limit=1 -> rev 5 [] count 3
            get .. max_create=3 limit=1 -> rev 5 [a=2(2,4,2)] count 3 more
        "#]],
    );
}

// rule: KV-27, KV-28, KV-30, KV-31
#[test]
fn a_stream_is_a_range_in_chunks() {
    check(
        "put a 1
         put b 2
         put c 3
         put d 4
         put e 5
         stream .. 2
         stream .. 5
         stream .. 1 limit=2
         stream .. 9 limit=9
         stream a..c 1 @2
         stream .. 2 count
         stream x 2
         stream a 2
         stream b..a 2
         stream .. 2 @9",
        expect![[r#"
            put a 1 -> rev 2
            put b 2 -> rev 3
            put c 3 -> rev 4
            put d 4 -> rev 5
            put e 5 -> rev 6
            stream .. 2 -> [a=1(2,2,1) b=2(3,3,1)] [c=3(4,4,1) d=4(5,5,1)] [e=5(6,6,1)] rev 6 count 5
            stream .. 5 -> [a=1(2,2,1) b=2(3,3,1) c=3(4,4,1) d=4(5,5,1) e=5(6,6,1)] rev 6 count 5
            stream .. 1 limit=2 -> [a=1(2,2,1)] [b=2(3,3,1)] rev 6 count 5 more
            stream .. 9 limit=9 -> [a=1(2,2,1) b=2(3,3,1) c=3(4,4,1) d=4(5,5,1) e=5(6,6,1)] rev 6 count 5
            stream a..c 1 @2 -> [a=1(2,2,1)] rev 6 count 1
            stream .. 2 count -> [] rev 6 count 5
            stream x 2 -> [] rev 6 count 0
            stream a 2 -> [a=1(2,2,1)] rev 6 count 1
            stream b..a 2 -> [] rev 6 count 0
            stream .. 2 @9 -> error: required revision is a future revision
        "#]],
    );
}

// rule: PUT-1, PUT-9
#[test]
fn versions_and_the_pair_before() {
    check(
        "lease 7
         put a 1 prev
         put a 1 lease=7 prev
         put a 1 prev
         put a 2
         get a",
        expect![[r#"
            lease 7 -> ok
            put a 1 prev -> rev 2
            put a 1 lease=7 prev -> rev 3 prev a=1(2,2,1)
            put a 1 prev -> rev 4 prev a=1(2,3,2,l7)
            put a 2 -> rev 5
            get a -> rev 5 [a=2(2,5,4)] count 1
        "#]],
    );
}

// rule: PUT-2, PUT-4, PUT-7
#[test]
fn a_put_is_refused_for_its_lease_first_then_for_its_key() {
    check(
        "put a ~ lease=5
         put a 1 lease=5
         put a 1 lease=-5
         put a ~
         put a 1 lease=~
         lease -5
         put a 1 lease=-5
         del a
         put a ~
         put a 1 lease=~
         revision",
        expect![[r#"
            put a ~ lease=5 -> error: requested lease not found
            put a 1 lease=5 -> error: requested lease not found
            put a 1 lease=-5 -> error: requested lease not found
            put a ~ -> error: key not found
            put a 1 lease=~ -> error: key not found
            lease -5 -> ok
            put a 1 lease=-5 -> rev 2
            del a -> rev 3 deleted 1
            put a ~ -> error: key not found
            put a 1 lease=~ -> error: key not found
            revision -> 3 compact -1
        "#]],
    );
}

// rule: PUT-5, PUT-6, PUT-8, LEASE-28
#[test]
fn what_a_put_keeps_is_as_it_was() {
    check(
        "lease 7
         lease 8
         put a 1 lease=7
         put a ~ lease=8
         keys 7
         keys 8
         put a 2 lease=~
         put a ~ lease=~
         get a
         keys 8
         put a ~
         get a
         keys 8
         put a 3 lease=7
         put b 1 lease=7
         put a 3 lease=7
         keys 7
         put a 3 lease=8
         keys 7
         keys 8",
        expect![[r#"
            lease 7 -> ok
            lease 8 -> ok
            put a 1 lease=7 -> rev 2
            put a ~ lease=8 -> rev 3
            keys 7 -> none
            keys 8 -> a
            put a 2 lease=~ -> rev 4
            put a ~ lease=~ -> rev 5
            get a -> rev 5 [a=2(2,5,4,l8)] count 1
            keys 8 -> a
            put a ~ -> rev 6
            get a -> rev 6 [a=2(2,6,5)] count 1
            keys 8 -> none
            put a 3 lease=7 -> rev 7
            put b 1 lease=7 -> rev 8
            put a 3 lease=7 -> rev 9
            keys 7 -> a b
            put a 3 lease=8 -> rev 10
            keys 7 -> b
            keys 8 -> a
        "#]],
    );
}

// rule: DEL-1, DEL-2, DEL-3, DEL-4
#[test]
fn a_delete_takes_an_interval_in_one_revision() {
    check(
        "put a 1
         put b 2
         put c 3
         del c..a
         del x..
         del b..b
         del a..c prev
         get ..
         history .. 5
         del c
         del c prev
         revision",
        expect![[r#"
            put a 1 -> rev 2
            put b 2 -> rev 3
            put c 3 -> rev 4
            del c..a -> rev 4 deleted 0
            del x.. -> rev 4 deleted 0
            del b..b -> rev 4 deleted 0
            del a..c prev -> rev 5 deleted 2 a=1(2,2,1) b=2(3,3,1)
            get .. -> rev 5 [c=3(4,4,1)] count 1
            history .. 5 -> DELETE 5.0 a=""(0,5,0) after 2.0; DELETE 5.1 b=""(0,5,0) after 3.0; next 6
            del c -> rev 6 deleted 1
            del c prev -> rev 6 deleted 0
            revision -> 6 compact -1
        "#]],
    );
}

// rule: DEL-5, LEASE-17, LEASE-18, LEASE-29
#[test]
fn keys_leave_their_lease_when_they_are_deleted() {
    check(
        "lease 7
         put b 1 lease=7
         put c 1 lease=7
         put a 1 lease=7
         del b
         keys 7
         reopen
         keys 7
         revoke 7
         keys 7
         history .. 6
         revoke 8
         revision",
        expect![[r#"
            lease 7 -> ok
            put b 1 lease=7 -> rev 2
            put c 1 lease=7 -> rev 3
            put a 1 lease=7 -> rev 4
            del b -> rev 5 deleted 1
            keys 7 -> a c
            reopen -> ok
            keys 7 -> a c
            revoke 7 -> rev 6 deleted 2
            keys 7 -> none
            history .. 6 -> DELETE 6.0 a=""(0,6,0) after 4.0; DELETE 6.1 c=""(0,6,0) after 3.0; next 7
            revoke 8 -> rev 6 deleted 0
            revision -> 6 compact -1
        "#]],
    );
}

// rule: REV-1, REV-2, REV-3
#[test]
fn a_key_that_comes_again_begins_anew() {
    check(
        "put a 1
         put a 2
         del a
         put a 3
         get a
         txn : del a.. ; put a 4
         get a
         history a 2",
        expect![[r#"
            put a 1 -> rev 2
            put a 2 -> rev 3
            del a -> rev 4 deleted 1
            put a 3 -> rev 5
            get a -> rev 5 [a=3(5,5,1)] count 1
            txn : del a.. ; put a 4 -> rev 6 then (rev 6 deleted 1; rev 6)
            get a -> rev 6 [a=4(6,6,1)] count 1
            history a 2 -> PUT 2.0 a=1(2,2,1); PUT 3.0 a=2(2,3,2) after 2.0; DELETE 4.0 a=""(0,4,0) after 3.0; PUT 5.0 a=3(5,5,1); DELETE 6.0 a=""(0,6,0) after 5.0; PUT 6.1 a=4(6,6,1); next 7
        "#]],
    );
}
