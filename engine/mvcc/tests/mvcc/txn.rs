// SPDX-License-Identifier: Apache-2.0
//! Transactions.

use expect_test::expect;

use crate::script::check;

// rule: TXN-1, TXN-6
#[test]
fn the_compares_choose_the_list_that_runs() {
    check(
        "txn :
         txn : put a 1 ; put b 2 | put c 3
         txn ? ver(a)=1 & ver(b)=1 : get a | get b
         txn ? ver(a)=1 & ver(b)=2 : get a | get b
         txn ? ver(a)=2 :",
        expect![[r#"
            txn : -> rev 1 then ()
            txn : put a 1 ; put b 2 | put c 3 -> rev 2 then (rev 2; rev 2)
            txn ? ver(a)=1 & ver(b)=1 : get a | get b -> rev 2 then (rev 2 [a=1(2,2,1)] count 1)
            txn ? ver(a)=1 & ver(b)=2 : get a | get b -> rev 2 else (rev 2 [b=2(2,2,1)] count 1)
            txn ? ver(a)=2 : -> rev 2 else ()
        "#]],
    );
}

// rule: TXN-7, TXN-8, TXN-9, TXN-13
#[test]
fn compares() {
    check(
        "lease 7
         put a v lease=7
         put a w lease=7
         put e \"\"
         read ? ver(a)=2 & create(a)=2 & mod(a)=3 & val(a)=w & lease(a)=7 :
         read ? ver(a)!=2 :
         read ? ver(a)>1 & ver(a)<3 :
         read ? val(a)>v & val(a)<x & val(a)!=v :
         read ? val(a)>w :
         read ? val(e)=\"\" :
         read ? val(e)!=\"\" :
         read ? ver(x)=0 & create(x)=0 & mod(x)<1 & lease(x)=0 :
         read ? create(x)!=0 :
         read ? val(x)=v :
         read ? val(x)!=v :
         read ? val(x)=\"\" :
         read ? val(x)<v :",
        expect![[r#"
            lease 7 -> ok
            put a v lease=7 -> rev 2
            put a w lease=7 -> rev 3
            put e "" -> rev 4
            read ? ver(a)=2 & create(a)=2 & mod(a)=3 & val(a)=w & lease(a)=7 : -> rev 4 then ()
            read ? ver(a)!=2 : -> rev 4 else ()
            read ? ver(a)>1 & ver(a)<3 : -> rev 4 then ()
            read ? val(a)>v & val(a)<x & val(a)!=v : -> rev 4 then ()
            read ? val(a)>w : -> rev 4 else ()
            read ? val(e)="" : -> rev 4 then ()
            read ? val(e)!="" : -> rev 4 else ()
            read ? ver(x)=0 & create(x)=0 & mod(x)<1 & lease(x)=0 : -> rev 4 then ()
            read ? create(x)!=0 : -> rev 4 else ()
            read ? val(x)=v : -> rev 4 else ()
            read ? val(x)!=v : -> rev 4 else ()
            read ? val(x)="" : -> rev 4 else ()
            read ? val(x)<v : -> rev 4 else ()
        "#]],
    );
}

// rule: TXN-10, TXN-11, TXN-12
#[test]
fn compares_of_intervals_and_of_unknown_kinds() {
    check(
        "put a 1
         put b 1
         put c 2
         read ? val(a..c)=1 :
         read ? val(a..)=1 :
         read ? val(..)<3 & ver(..)=1 :
         read ? mod(a..c)<4 :
         read ? ver(x..)=0 :
         read ? val(x..)=0 :
         read ? ver(c..a)=0 :
         read ? unknown(a)=7 :
         read ? unknown(a)!=7 :
         read ? ver(a)~9 :
         read ? val(a)~9 :
         read ? val(x)~9 :
         read ? ver(x)~9 :",
        expect![[r#"
            put a 1 -> rev 2
            put b 1 -> rev 3
            put c 2 -> rev 4
            read ? val(a..c)=1 : -> rev 4 then ()
            read ? val(a..)=1 : -> rev 4 else ()
            read ? val(..)<3 & ver(..)=1 : -> rev 4 then ()
            read ? mod(a..c)<4 : -> rev 4 then ()
            read ? ver(x..)=0 : -> rev 4 then ()
            read ? val(x..)=0 : -> rev 4 else ()
            read ? ver(c..a)=0 : -> rev 4 then ()
            read ? unknown(a)=7 : -> rev 4 then ()
            read ? unknown(a)!=7 : -> rev 4 else ()
            read ? ver(a)~9 : -> rev 4 then ()
            read ? val(a)~9 : -> rev 4 then ()
            read ? val(x)~9 : -> rev 4 else ()
            read ? ver(x)~9 : -> rev 4 then ()
        "#]],
    );
}

// rule: TXN-14, TXN-15
#[test]
fn all_levels_compare_the_state_before_and_ranges_see_the_writes() {
    check(
        "put a 1
         txn ? val(a)=1 : put a 2 ; txn ( ? val(a)=1 : get a ; put b 1 | put b 2 ) ; get .. ; txn ( ? ver(b)=0 : del b prev ) ; get ..
         history .. 3",
        expect![[r#"
            put a 1 -> rev 2
            txn ? val(a)=1 : put a 2 ; txn ( ? val(a)=1 : get a ; put b 1 | put b 2 ) ; get .. ; txn ( ? ver(b)=0 : del b prev ) ; get .. -> rev 3 then (rev 3; rev 3 then (rev 3 [a=2(2,3,2)] count 1; rev 3); rev 3 [a=2(2,3,2) b=1(3,3,1)] count 2; rev 3 then (rev 3 deleted 1 b=1(3,3,1)); rev 3 [a=2(2,3,2)] count 1)
            history .. 3 -> PUT 3.0 a=2(2,3,2) after 2.0; PUT 3.1 b=1(3,3,1); DELETE 3.2 b=""(0,3,0) after 3.1; next 4
        "#]],
    );
}

// rule: TXN-15, DEL-2
#[test]
fn prev_kv_sees_the_writes_of_the_transaction() {
    check(
        "put a 1
         txn : txn ( : put a 2 prev ) ; txn ( : del a prev ) ; txn ( : del a prev )",
        expect![[r#"
            put a 1 -> rev 2
            txn : txn ( : put a 2 prev ) ; txn ( : del a prev ) ; txn ( : del a prev ) -> rev 3 then (rev 3 then (rev 3 prev a=1(2,2,1)); rev 3 then (rev 3 deleted 1 a=2(2,3,2)); rev 3 then (rev 3 deleted 0))
        "#]],
    );
}

// rule: TXN-16, TXN-17, TXN-18
#[test]
fn the_revisions_of_ranges_are_checked_before_anything_runs() {
    check(
        "put a 1
         put a 2
         txn : put a 3 ; get a @3 ; get a @2 ; get a
         txn : put a 4 ; get a @5
         txn : put a 4 ; get a @-1
         txn : put a 5 ; get a @-2
         compact 3
         txn : put a 5 ; get a @-1
         txn : put a 5 ; get a @2
         txn : put a 5 ; get a @3
         read : get a @9
         read : get a @2
         read : get a @3 ; get a
         revision",
        expect![[r#"
            put a 1 -> rev 2
            put a 2 -> rev 3
            txn : put a 3 ; get a @3 ; get a @2 ; get a -> rev 4 then (rev 4; rev 4 [a=2(2,3,2)] count 1; rev 4 [a=1(2,2,1)] count 1; rev 4 [a=3(2,4,3)] count 1)
            txn : put a 4 ; get a @5 -> error: required revision is a future revision
            txn : put a 4 ; get a @-1 -> rev 5 then (rev 5; rev 5 [a=4(2,5,4)] count 1)
            txn : put a 5 ; get a @-2 -> error: required revision has been compacted
            compact 3 -> ok
            txn : put a 5 ; get a @-1 -> error: required revision has been compacted
            txn : put a 5 ; get a @2 -> error: required revision has been compacted
            txn : put a 5 ; get a @3 -> rev 6 then (rev 6; rev 6 [a=2(2,3,2)] count 1)
            read : get a @9 -> error: required revision is a future revision
            read : get a @2 -> error: required revision has been compacted
            read : get a @3 ; get a -> rev 6 then (rev 6 [a=2(2,3,2)] count 1; rev 6 [a=5(2,6,5)] count 1)
            revision -> 6 compact 3
        "#]],
    );
}

// rule: TXN-18
#[test]
fn a_failed_check_of_the_chosen_path_refuses_it_whole_and_another_path_is_not_checked() {
    check(
        "put a 1
         txn : put b 1 ; put c 1 lease=9
         txn : put b 1 ; put x ~
         txn : put b 1 ; put x 1 lease=~
         txn : put b 1 ; txn ( ? ver(b)=1 : put c 1 | put x ~ )
         txn : put x ~ lease=9
         txn : put a ~ lease=9 ; put x ~
         txn ? ver(a)=1 : put b 1 | put x ~ ; put c 1 lease=9 ; get a @99
         txn : txn ( ? ver(a)=2 : put x ~ | put b 2 )
         get ..",
        expect![[r#"
            put a 1 -> rev 2
            txn : put b 1 ; put c 1 lease=9 -> error: requested lease not found
            txn : put b 1 ; put x ~ -> error: key not found
            txn : put b 1 ; put x 1 lease=~ -> error: key not found
            txn : put b 1 ; txn ( ? ver(b)=1 : put c 1 | put x ~ ) -> error: key not found
            txn : put x ~ lease=9 -> error: key not found
            txn : put a ~ lease=9 ; put x ~ -> error: requested lease not found
            txn ? ver(a)=1 : put b 1 | put x ~ ; put c 1 lease=9 ; get a @99 -> rev 3 then (rev 3)
            txn : txn ( ? ver(a)=2 : put x ~ | put b 2 ) -> rev 4 then (rev 4 else (rev 4))
            get .. -> rev 4 [a=1(2,2,1) b=2(3,4,2)] count 2
        "#]],
    );
}

// rule: TXN-19, TXN-23, TXN-33
#[test]
fn all_changes_share_one_revision() {
    check(
        "put a 1
         put b 1
         txn : del a ; del a ; del a.. ; put c 1
         get .. @4
         history .. 4",
        expect![[r#"
            put a 1 -> rev 2
            put b 1 -> rev 3
            txn : del a ; del a ; del a.. ; put c 1 -> rev 4 then (rev 4 deleted 1; rev 4 deleted 0; rev 4 deleted 1; rev 4)
            get .. @4 -> rev 4 [c=1(4,4,1)] count 1
            history .. 4 -> DELETE 4.0 a=""(0,4,0) after 2.0; DELETE 4.1 b=""(0,4,0) after 3.0; PUT 4.2 c=1(4,4,1); next 5
        "#]],
    );
}

// rule: TXN-24, WATCH-28
#[test]
fn a_key_put_and_deleted_in_one_transaction_has_both_events() {
    check(
        "txn : txn ( : put k 1 ) ; txn ( : del k )
         get k
         get k @2
         history k 2
         put k 2
         get k",
        expect![[r#"
            txn : txn ( : put k 1 ) ; txn ( : del k ) -> rev 2 then (rev 2 then (rev 2); rev 2 then (rev 2 deleted 1))
            get k -> rev 2 [] count 0
            get k @2 -> rev 2 [] count 0
            history k 2 -> PUT 2.0 k=1(2,2,1); DELETE 2.1 k=""(0,2,0) after 2.0; next 3
            put k 2 -> rev 3
            get k -> rev 3 [k=2(3,3,1)] count 1
        "#]],
    );
}

// rule: TXN-26, TXN-27
#[test]
fn a_from_key_delete_may_meet_a_put() {
    check(
        "put b 1
         txn : del a.. ; put b 2
         get ..
         txn : del a.. ; put b ~
         txn : txn ( : del a.. ) ; put b 3 lease=~
         txn : put b ~ ; del c..
         get ..
         revision",
        expect![[r#"
            put b 1 -> rev 2
            txn : del a.. ; put b 2 -> rev 3 then (rev 3 deleted 1; rev 3)
            get .. -> rev 3 [b=2(3,3,1)] count 1
            txn : del a.. ; put b ~ -> error: key not found
            txn : txn ( : del a.. ) ; put b 3 lease=~ -> error: key not found
            txn : put b ~ ; del c.. -> rev 4 then (rev 4; rev 4 deleted 0)
            get .. -> rev 4 [b=2(3,4,2)] count 1
            revision -> 4 compact -1
        "#]],
    );
}

// rule: TXN-29, TXN-31
#[test]
fn a_transaction_of_ranges_reads_one_revision_and_changes_nothing() {
    check(
        "put a 1
         put b 2
         read ? ver(a)=1 : get a ; get b ; get .. limit=1 keys | get b
         read ? ver(a)=2 : get a | get b count
         txn : txn ( : get a )
         revision",
        expect![[r#"
            put a 1 -> rev 2
            put b 2 -> rev 3
            read ? ver(a)=1 : get a ; get b ; get .. limit=1 keys | get b -> rev 3 then (rev 3 [a=1(2,2,1)] count 1; rev 3 [b=2(3,3,1)] count 1; rev 3 [a=""(2,2,1)] count 2 more)
            read ? ver(a)=2 : get a | get b count -> rev 3 else (rev 3 [] count 1)
            txn : txn ( : get a ) -> rev 3 then (rev 3 then (rev 3 [a=1(2,2,1)] count 1))
            revision -> 3 compact -1
        "#]],
    );
}
