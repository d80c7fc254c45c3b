// SPDX-License-Identifier: Apache-2.0
//! The watch history.

use cairn_mvcc::{DeleteOp, HistoryBudget, KeyRange, OpError, PutOp};
use expect_test::expect;

use crate::script::{check, run, show_kv};
use crate::world::World;

// rule: WATCH-17, WATCH-19, WATCH-20
#[test]
fn history_from_a_revision_to_now() {
    check(
        "put a 1
         put b 1
         put a 2
         del a
         put c 1
         history .. 1
         history .. 4
         history a 2
         history a 6
         history a 7
         history a 9
         history x 1
         history b..d 1
         history b,a 1
         compact 4
         history .. 3
         history .. 4
         history a 5",
        expect![[r#"
            put a 1 -> rev 2
            put b 1 -> rev 3
            put a 2 -> rev 4
            del a -> rev 5 deleted 1
            put c 1 -> rev 6
            history .. 1 -> PUT 2.0 a=1(2,2,1); PUT 3.0 b=1(3,3,1); PUT 4.0 a=2(2,4,2) after 2.0; DELETE 5.0 a=""(0,5,0) after 4.0; PUT 6.0 c=1(6,6,1); next 7
            history .. 4 -> PUT 4.0 a=2(2,4,2) after 2.0; DELETE 5.0 a=""(0,5,0) after 4.0; PUT 6.0 c=1(6,6,1); next 7
            history a 2 -> PUT 2.0 a=1(2,2,1); PUT 4.0 a=2(2,4,2) after 2.0; DELETE 5.0 a=""(0,5,0) after 4.0; next 7
            history a 6 -> next 7
            history a 7 -> next 7
            history a 9 -> next 9
            history x 1 -> next 7
            history b..d 1 -> PUT 3.0 b=1(3,3,1); PUT 6.0 c=1(6,6,1); next 7
            history b,a 1 -> PUT 2.0 a=1(2,2,1); PUT 3.0 b=1(3,3,1); PUT 4.0 a=2(2,4,2) after 2.0; DELETE 5.0 a=""(0,5,0) after 4.0; next 7
            compact 4 -> ok
            history .. 3 -> error: required revision has been compacted
            history .. 4 -> PUT 4.0 a=2(2,4,2) after 2.0; DELETE 5.0 a=""(0,5,0) after 4.0; PUT 6.0 c=1(6,6,1); next 7
            history a 5 -> DELETE 5.0 a=""(0,5,0) after 4.0; next 7
        "#]],
    );
}

// rule: WATCH-23, WATCH-26, WATCH-30
#[test]
fn a_revision_is_given_whole_and_in_order() {
    check(
        "lease 7
         txn : put b 1 lease=7 ; put a 1 lease=7 ; put c 1
         txn : del b ; put b 2 lease=7 ; put c 2
         history .. 1
         history b..d 1
         revoke 7
         history .. 4",
        expect![[r#"
            lease 7 -> ok
            txn : put b 1 lease=7 ; put a 1 lease=7 ; put c 1 -> rev 2 then (rev 2; rev 2; rev 2)
            txn : del b ; put b 2 lease=7 ; put c 2 -> rev 3 then (rev 3 deleted 1; rev 3; rev 3)
            history .. 1 -> PUT 2.0 b=1(2,2,1,l7); PUT 2.1 a=1(2,2,1,l7); PUT 2.2 c=1(2,2,1); DELETE 3.0 b=""(0,3,0) after 2.0; PUT 3.1 b=2(3,3,1,l7); PUT 3.2 c=2(2,3,2) after 2.2; next 4
            history b..d 1 -> PUT 2.0 b=1(2,2,1,l7); PUT 2.2 c=1(2,2,1); DELETE 3.0 b=""(0,3,0) after 2.0; PUT 3.1 b=2(3,3,1,l7); PUT 3.2 c=2(2,3,2) after 2.2; next 4
            revoke 7 -> rev 4 deleted 2
            history .. 4 -> DELETE 4.0 a=""(0,4,0) after 2.1; DELETE 4.1 b=""(0,4,0) after 3.1; next 5
        "#]],
    );
}

// rule: WATCH-24
#[test]
fn a_budget_ends_after_whole_revisions() {
    let mut world = World::new();
    run(&mut world, "put a 1\nput b 1\ntxn : put a 2 ; put b 2\nput a 3");
    let all = [KeyRange::all()];
    let reader = world.reader();
    let steps = |budget: HistoryBudget, from: i64| {
        let done = reader.history(&all, from, 100, budget).expect("readable");
        (done.revisions.iter().map(|revision| revision.main).collect::<Vec<_>>(), done.next)
    };
    let wide = HistoryBudget { entries: 100, revisions: 100, bytes: 1 << 20 };
    assert_eq!(steps(wide, 1), (vec![2, 3, 4, 5], 6));
    assert_eq!(steps(HistoryBudget { entries: 3, ..wide }, 2), (vec![2, 3, 4], 5));
    assert_eq!(steps(HistoryBudget { revisions: 2, ..wide }, 2), (vec![2, 3], 4));
    assert_eq!(steps(HistoryBudget { bytes: 1, ..wide }, 3), (vec![3], 4));
    let done = reader.history(&all, 2, 3, wide).expect("readable");
    assert_eq!((done.revisions.len(), done.next), (2, 4));
    let done = reader.history(&all, 9, 20, wide).expect("nothing is there yet");
    assert_eq!((done.revisions.len(), done.next), (0, 9));
}

// rule: WATCH-29
#[test]
fn the_pair_before_a_revision_is_there_until_it_is_compacted() {
    let mut world = World::new();
    run(&mut world, "put a 1\nput a 2\ndel a\nput a 3");
    let reader = world.reader();
    let at = |revision| match reader.get_at(b"a", revision) {
        Ok(kv) => kv.map_or("none".into(), |kv| show_kv(&kv)),
        Err(error) => error.to_string(),
    };
    assert_eq!([1, 2, 3, 4, 5].map(at).join(" "), "none a=1(2,2,1) a=2(2,3,2) none a=3(5,5,1)");
    run(&mut world, "compact 3");
    assert_eq!(at(2), "required revision has been compacted");
    assert_eq!(at(3), "a=2(2,3,2)");
}

// rule: PUT-5, WATCH-26
#[test]
fn events_of_a_batch_are_those_of_its_history() {
    let mut world = World::new();
    world.leases.insert(7);
    let (_, events) = world.apply(|batch, leases| {
        let put = |key: &'static str, value: Option<&'static str>, lease| PutOp {
            key: key.into(),
            value: value.map(Into::into),
            lease,
            prev_kv: false,
        };
        batch.put(&put("a", Some("1"), Some(7)), leases)?;
        batch.put(&put("a", None, None), leases)?;
        assert!(matches!(batch.put(&put("b", None, None), leases), Err(OpError::KeyNotFound)));
        batch.delete_range(&DeleteOp { keys: KeyRange::all(), prev_kv: false })?;
        batch.delete_range(&DeleteOp { keys: KeyRange::all(), prev_kv: false })?;
        batch.put(&put("a", Some("2"), Some(0)), leases)
    });
    assert_eq!(events.iter().map(|revision| revision.main).collect::<Vec<_>>(), [2, 3, 4, 5]);
    let budget = HistoryBudget { entries: 100, revisions: 100, bytes: 1 << 20 };
    let history = world.reader().history(&[KeyRange::all()], 1, 100, budget).expect("readable");
    assert_eq!(history.revisions, events);
}
