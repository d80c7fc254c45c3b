// SPDX-License-Identifier: Apache-2.0
//! Views, transactions and cursors over the layers of a store, by example.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use cairn_engine::io::{Budget, Progress};
use cairn_engine::sim::SimVfs;
use cairn_engine::{CommitMeta, Cursor, Db, InstallId, Options, TreeDef, TreeKind, View};

fn one(_: &[u8], _: &[u8]) -> u64 {
    1
}

const LOG: TreeDef = TreeDef { id: 1, name: "log", kind: TreeKind::Append, leaf_pages: 1, weight: one };
const MAP: TreeDef = TreeDef { id: 2, name: "map", kind: TreeKind::Ordered, leaf_pages: 1, weight: one };

fn store() -> Db {
    let mut options = Options::default();
    options.vfs = Arc::new(SimVfs::new());
    Db::create(Path::new("/store"), const { &[LOG, MAP] }, InstallId(7), options).expect("a new store")
}

fn key(n: u64) -> [u8; 16] {
    (u128::from(n) << 64).to_be_bytes()
}

fn text(s: &str) -> Bytes {
    Bytes::copy_from_slice(s.as_bytes())
}

fn meta(applied_index: u64) -> CommitMeta {
    CommitMeta { applied_index, applied_term: 1, owner: Bytes::new() }
}

/// Runs one commit: `+key=value` and `-key` on the map, and one entry of the log.
fn commit(db: &Db, n: u64, changes: &str) {
    let mut txn = db.begin().expect("healthy");
    txn.append(&LOG, key(n), text(changes));
    for change in changes.split_whitespace() {
        let was = txn.get(&MAP, change[1..].split('=').next().unwrap_or_default().as_bytes()).expect("reads");
        let was = i64::from(was.is_some());
        match (change.as_bytes()[0], change[1..].split_once('=')) {
            (b'+', Some((key, value))) => txn.put(&MAP, key.as_bytes(), text(value), 1 - was),
            (b'-', None) => txn.delete(&MAP, &change.as_bytes()[1..], -was),
            _ => panic!("not a change: {change}"),
        }
    }
    txn.commit(meta(n), n).expect("commits");
}

fn walk(mut cursor: Cursor<'_>) -> String {
    let mut out = Vec::new();
    while let Some((key, value)) = cursor.next().expect("walks") {
        out.push(format!("{}={}", String::from_utf8_lossy(key), String::from_utf8_lossy(value)));
    }
    let forward = out.join(" ");
    let mut back = Vec::new();
    while let Some((key, value)) = cursor.prev().expect("walks") {
        back.push(format!("{}={}", String::from_utf8_lossy(key), String::from_utf8_lossy(value)));
    }
    back.reverse();
    assert_eq!(forward, back.join(" "), "both ways see the same");
    forward
}

fn weight(view: &View) -> u64 {
    view.weight(&MAP, Bound::Unbounded, Bound::Unbounded).expect("weighs").0
}

#[test]
fn a_newer_layer_decides_and_its_tombstone_hides_the_older() {
    let db = store();
    commit(&db, 0, "+a=0 +c=0 +e=0");
    assert!(db.checkpoint().expect("makes a checkpoint"));
    commit(&db, 1, "+a=1 +b=1 +c=1 -e");
    assert!(db.freeze().expect("freezes"));
    commit(&db, 2, "+b=2 -c +d=2");
    let view = db.view();
    assert_eq!(walk(view.cursor(&MAP)), "a=1 b=2 d=2");
    assert_eq!(weight(&view), 3);
    assert_eq!(view.get(&MAP, b"c").expect("reads").as_deref(), None);
    assert_eq!(view.get(&MAP, b"b").expect("reads").as_deref(), Some(&b"2"[..]));
    let part = view.weight(&MAP, Bound::Included(b"b"), Bound::Excluded(b"d")).expect("weighs");
    assert_eq!(part, (1, 2), "b alone, true at stamp 2");
    while let Progress::More = db.checkpoint_step(Budget::bytes(1)).expect("goes on") {}
    assert!(db.checkpoint().expect("makes a checkpoint"));
    for view in [view, db.view()] {
        assert_eq!(walk(view.cursor(&MAP)), "a=1 b=2 d=2");
        assert_eq!(weight(&view), 3);
    }
}

#[test]
fn a_view_is_a_snapshot_of_an_append_tree() {
    let db = store();
    commit(&db, 1, "");
    let before = db.view();
    commit(&db, 2, "");
    db.freeze().expect("freezes");
    db.checkpoint().expect("makes a checkpoint");
    commit(&db, 3, "");
    assert_eq!((before.stamp(), db.view().stamp()), (1, 3));
    assert!(before.get(&LOG, &key(2)).expect("reads").is_none());
    assert!(db.view().get(&LOG, &key(2)).expect("reads").is_some());
    let all = db.view().weight(&LOG, Bound::Unbounded, Bound::Unbounded).expect("weighs");
    assert_eq!(all, (3, 3));
    let mut cursor = before.cursor(&LOG);
    assert_eq!(cursor.next().expect("walks").map(|(k, _)| k.to_vec()), Some(key(1).to_vec()));
    assert!(cursor.next().expect("walks").is_none());
}

#[test]
fn a_transaction_sees_its_own_writes_and_a_dropped_one_leaves_nothing() {
    let db = store();
    commit(&db, 1, "+a=1 +b=1");
    let mut txn = db.begin().expect("healthy");
    txn.put(&MAP, b"a", text("2"), 0);
    txn.delete(&MAP, b"b", -1);
    txn.put(&MAP, b"c", text("2"), 1);
    txn.append(&LOG, key(2), text("two"));
    assert_eq!(walk(txn.cursor(&MAP)), "a=2 c=2");
    assert_eq!(txn.get(&MAP, b"b").expect("reads").as_deref(), None);
    assert_eq!(txn.get(&LOG, &key(2)).expect("reads").as_deref(), Some(&b"two"[..]));
    drop(txn);
    assert_eq!(walk(db.view().cursor(&MAP)), "a=1 b=1");
    assert!(db.view().get(&LOG, &key(2)).expect("reads").is_none());
    commit(&db, 2, "-a");
    assert_eq!(walk(db.view().cursor(&MAP)), "b=1");
}

#[test]
fn a_cursor_stands_between_keys() {
    let db = store();
    let many: Vec<String> = (0..300).map(|n| format!("+{n:03}=x")).collect();
    commit(&db, 1, &many.join(" "));
    let view = db.view();
    let mut cursor = view.cursor(&MAP);
    let mut at = |go: &str| {
        let entry = match go {
            "next" => cursor.next(),
            "prev" => cursor.prev(),
            key => {
                cursor.seek(key.as_bytes());
                return key.to_owned();
            }
        };
        entry.expect("walks").map_or("none".to_owned(), |(k, _)| String::from_utf8_lossy(k).into_owned())
    };
    let steps = ["prev", "next", "next", "prev", "1505", "prev", "prev", "next", "next", "9", "next", "prev"];
    let seen = steps.map(&mut at).join(" ");
    assert_eq!(seen, "none 000 001 001 1505 150 149 149 150 9 none 299");
}
