// SPDX-License-Identifier: Apache-2.0
//! The log: `wal dump` and `wal verify`.

use std::fs;
use std::path::{Path, PathBuf};

use expect_test::expect_file;

use crate::world::{World, engine, flip, json, state_of};

fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("store/member/wal")).expect("lists");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

#[test]
fn records_are_listed() {
    let mut world = World::new();
    for (key, value) in [("a", "1"), ("b", "2"), ("a", "3")] {
        world.put(key, value.as_bytes(), 0);
    }
    world.checkpoint();
    world.delete("b");
    let long = "k".repeat(100);
    world.put(&long, b"v", 0);
    world.wal.sync().expect("syncs");
    world.wal.seal().expect("seals");
    let temp = world.stop();
    let mut text = engine(temp.path(), &["wal", "dump", "store"]).with(0);
    text += &engine(temp.path(), &["wal", "dump", "store", "--from", "3", "--to", "5"]).with(0);
    text += &engine(temp.path(), &["wal", "dump", "store/member/wal", "--from", "5", "--data"]).with(0);
    let lines = engine(temp.path(), &["wal", "dump", "--json", "store", "--data"]).with(0);
    assert_eq!(json(&lines).len(), 12);
    expect_file!["../data/wal-dump.txt"].assert_eq(&(text + &lines));
}

#[test]
fn a_sound_log_is_verified_beside_its_store_and_alone() {
    let temp = World::sample().stop();
    let before = state_of(temp.path());
    let beside = engine(temp.path(), &["wal", "verify", "store"]).with(0);
    let alone = engine(temp.path(), &["wal", "verify", "store/member/wal"]).with(0);
    expect_file!["../data/wal-verify.txt"].assert_eq(&(beside + "\n" + &alone));
    let verified = &json(&engine(temp.path(), &["wal", "verify", "--json", "store"]).with(0))[0];
    assert_eq!((&verified["verdict"], &verified["log"]["last_index"]), (&"sound".into(), &1048.into()));
    assert_eq!(state_of(temp.path()), before);
}

#[test]
fn what_comes_before_damage_is_listed_and_then_the_damage() {
    let temp = World::sample().stop();
    let path = segments(temp.path()).pop().expect("a log has a segment");
    let whole = engine(temp.path(), &["wal", "dump", "store"]).with(0);
    flip(&path, 2 * 4096 + 50);
    let ran = engine(temp.path(), &["wal", "dump", "store"]);
    assert_eq!(ran.code, 1);
    assert!(ran.out.lines().count() < whole.lines().count(), "{}", ran.out);
    let rows = |out: &str| {
        out.lines()
            .skip(1)
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
    };
    assert!(rows(&whole).starts_with(&rows(&ran.out)));
    assert!(ran.err.contains("offset 8192: batch "), "{}", ran.err);
    let out = engine(temp.path(), &["wal", "verify", "store"]).with(1);
    assert!(out.contains("offset 8192: batch "), "{out}");
    let verified = &json(&engine(temp.path(), &["wal", "verify", "--json", "store"]).with(1))[0];
    assert_eq!(verified["damage"][0]["offset"], 8192);
}

#[test]
fn a_log_that_does_not_reach_the_store_is_damaged() {
    let temp = World::sample().stop();
    for path in segments(temp.path()).into_iter().skip(1) {
        fs::remove_file(path).expect("removes");
    }
    let out = engine(temp.path(), &["wal", "verify", "store"]).with(1);
    assert!(out.contains("the log ends at index 325, and the tree file holds index 1046"), "{out}");
    let ran = engine(temp.path(), &["wal", "verify", "store/member"]);
    assert_eq!(ran.code, 1);
    fs::remove_dir_all(temp.path().join("store/member/wal")).expect("removes");
    let ran = engine(temp.path(), &["wal", "verify", "store"]);
    assert_eq!(
        (ran.code, ran.err.as_str()),
        (2, "engine: there is no log in store/member/wal: say where it is with --wal-dir\n")
    );
}
