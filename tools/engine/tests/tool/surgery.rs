// SPDX-License-Identifier: Apache-2.0
//! `surgery`: each operation repairs what it is for, on a copy, says what is lost, and refuses all else.

use std::fs;
use std::path::{Path, PathBuf};

use expect_test::expect_file;
use serde_json::Value;

use crate::world::{World, engine, flip, json, leaves, masked, state_of};

const PAGE: u64 = 4096;
const YES: &str = "--i-accept-data-loss";

/// Cuts and slots depend on the entries alone, and pages on the layout.
const LAYOUT: &[&str] = &["pages in use"];

fn store(dir: &Path) -> PathBuf {
    dir.join("store/member/engine.db")
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("store/member/wal")).expect("a directory");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "wal"));
    paths.sort();
    paths
}

/// Operates on `store`, which stays as it is. Gives what was said.
fn operate(dir: &Path, operation: &str, to: &str, code: i32) -> String {
    let before = state_of(&dir.join("store"));
    let out = engine(dir, &["surgery", operation, "store", to, YES]).with(code);
    assert_eq!(state_of(&dir.join("store")), before, "what is operated on is only read");
    out
}

/// What a member that is started on `dir` goes on with: the newest checkpoint, and the log.
fn listing(dir: &Path, store: &str) -> (String, Vec<Value>) {
    let keys = engine(dir, &["dump", "--changes", "--values", store]).with(0);
    let log = json(&engine(dir, &["wal", "dump", "--json", "--data", store]).with(0));
    let entries = log.into_iter().filter(|record| record["record"] == "entry").map(|mut record| {
        let fields = record.as_object_mut().expect("an object");
        for place in ["segment", "offset", "batch", "durable"] {
            fields.remove(place);
        }
        record
    });
    (keys, entries.collect())
}

/// The sample, and one more checkpoint with pages of its own.
fn with_a_last_checkpoint() -> World {
    let mut world = World::sample();
    for n in 0..30 {
        world.put(&format!("last/{n}"), &vec![b'l'; 2_000], 0);
    }
    world.checkpoint();
    world
}

#[test]
fn damage_of_the_newest_checkpoint_is_gone_back_from_and_nothing_is_lost() {
    let temp = with_a_last_checkpoint().stop();
    let dir = temp.path();
    let sound = engine(dir, &["info", "--json", "store"]).with(0);
    let newest = &json(&sound)[0]["checkpoint"]["seq"];
    let young = json(&engine(dir, &["pages", "--json", "store", "--tree", "rev"]).with(0));
    let young = young.iter().find(|extent| extent["birth"] == *newest && extent["kind"] == "leaf");
    let page = young.expect("a leaf of the newest checkpoint")["page"].as_u64().expect("a number");
    flip(&store(dir), page * PAGE + 300);
    engine(dir, &["check", "store"]).with(1);
    let out = operate(dir, "previous-slot", "fixed", 0);
    expect_file!["../data/surgery-slot.txt"].assert_eq(&masked(&out, LAYOUT));
    engine(dir, &["check", "--deep", "fixed"]).with(0);

    // The log is the same, and the store is where the log still has all that follows.
    let (_, entries) = listing(dir, "fixed");
    assert_eq!(entries.first().expect("an entry")["index"], 1);
    assert_eq!(entries.len(), 1078);

    // Once more, from what was made.
    let again = engine(dir, &["surgery", "--json", "previous-slot", "fixed", "older", YES]).with(0);
    let again = &json(&again)[0];
    assert_eq!(again["left"]["seq"].as_u64(), Some(newest.as_u64().expect("a number") - 1));
    assert_eq!(again["verdict"], "sound");
}

#[test]
fn without_the_log_to_follow_going_back_says_what_is_lost() {
    let temp = with_a_last_checkpoint().stop();
    let dir = temp.path();
    fs::remove_dir_all(dir.join("store/member/wal")).expect("removes");
    let out = engine(dir, &["surgery", "previous-slot", "store", "fixed", YES]).with(0);
    assert!(
        out.contains("lost            revisions 1047 to 1078, as the log does not bring them back"),
        "{out}"
    );
}

#[test]
fn damage_that_older_checkpoints_share_stays_and_is_told() {
    let temp = with_a_last_checkpoint().stop();
    let dir = temp.path();
    let page = leaves(dir, &cairn_mvcc::SCHEMA[0])[1];
    flip(&store(dir), page * PAGE + 300);
    let out = operate(dir, "previous-slot", "fixed", 1);
    assert!(out.contains(&format!("page {page}, tree rev: checksum of a header page")), "{out}");
    assert!(out.ends_with("still damaged: 1 damage in fixed\n"), "{out}");
    // A map is not made from what cannot be walked, and nothing is left of the attempt.
    let ran = engine(dir, &["surgery", "rebuild-space-map", "store", "map", YES]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(ran.err.contains("the space map can only be made of whole trees"), "{}", ran.err);
    assert!(!dir.join("map").exists());
}

#[test]
fn a_space_map_is_made_anew_from_the_trees() {
    let temp = World::sample().stop();
    let dir = temp.path();
    let before = listing(dir, "store");
    for page in 6..10 {
        flip(&store(dir), page * PAGE + 80);
    }
    engine(dir, &["check", "store"]).with(1);
    let out = operate(dir, "rebuild-space-map", "fixed", 0);
    expect_file!["../data/surgery-map.txt"].assert_eq(&masked(&out, LAYOUT));
    let check = engine(dir, &["check", "--deep", "fixed"]).with(0);
    assert!(check.contains("space map          sound"), "{check}");
    assert_eq!(listing(dir, "fixed"), before);
    // Of a sound one the new map says the same as the old one.
    let again = engine(dir, &["surgery", "--json", "rebuild-space-map", "fixed", "again", YES]).with(0);
    let again = &json(&again)[0];
    assert_eq!(again["used_pages"], again["used_pages_before"]);
}

#[test]
fn a_log_is_cut_where_it_cannot_be_read_and_the_loss_is_named() {
    let mut world = with_a_last_checkpoint();
    for n in 0..60 {
        world.put(&format!("log/{n}"), b"after the checkpoint", 0);
    }
    world.wal.sync().expect("syncs");
    world.wal.seal().expect("seals");
    let temp = world.stop();
    let dir = temp.path();
    let (keys, entries) = listing(dir, "store");
    let records = json(&engine(dir, &["wal", "dump", "--json", "store"]).with(0));
    let batch = |index: u64| {
        let record = records.iter().rfind(|record| record["index"] == index && record["record"] == "entry");
        let record = record.unwrap_or_else(|| panic!("no entry {index}"));
        let first = records.iter().find(|other| other["batch"] == record["batch"]).expect("it is one");
        let segment = record["segment"].as_u64().expect("a number");
        let path = segments(dir)
            .into_iter()
            .find(|path| path.to_string_lossy().contains(&format!("{segment:016x}-")));
        (
            path.expect("a segment"),
            record["offset"].as_u64().expect("a number"),
            first["index"].as_u64().expect("one"),
        )
    };

    // Behind the checkpoint: all from there on is lost.
    let (path, offset, first) = batch(1100);
    assert!(first > 1078, "a batch behind the checkpoint");
    flip(&path, offset + 200);
    let ran = engine(dir, &["wal", "verify", "store"]);
    assert_eq!(ran.code, 1, "{}", ran.out);
    let out = operate(dir, "cut-wal", "fixed", 0);
    let lost = format!("lost        entries {first} to 1138 of the log, and any behind them");
    assert!(out.contains(&lost), "{out}");
    assert!(out.contains(&format!("log         {} entries behind the checkpoint", first - 1079)), "{out}");
    assert!(out.contains(&format!("offset {offset}: batch ")), "{out}");
    let (kept_keys, kept) = listing(dir, "fixed");
    assert_eq!(kept_keys, keys);
    assert_eq!(kept[..], entries[1078..first as usize - 1]);
    engine(dir, &["check", "--deep", "fixed"]).with(0);
    flip(&path, offset + 200);

    // Before it: the store has what is lost there.
    let (path, offset, _) = batch(700);
    flip(&path, offset + 200);
    engine(dir, &["wal", "verify", "store"]).with(1);
    let out = operate(dir, "cut-wal", "before", 0);
    assert!(out.contains("lost        nothing\n"), "{out}");
    assert_eq!(listing(dir, "before").1[..], entries[1078..]);
    flip(&path, offset + 200);

    // The newest segment gone: what it had is not known.
    fs::remove_file(segments(dir).pop().expect("a segment")).expect("removes");
    engine(dir, &["wal", "verify", "store"]).with(1);
    let out = operate(dir, "cut-wal", "short", 0);
    assert!(
        out.contains("lost        any entry of the log from 1079 on: whether there was one is not known"),
        "{out}"
    );
    assert!(listing(dir, "short").1.is_empty());
}

#[test]
fn surgery_needs_consent_a_member_at_rest_and_a_reason() {
    let world = World::sample();
    let dir = world.temp.path().to_path_buf();
    for operation in ["previous-slot", "rebuild-space-map", "cut-wal"] {
        let ran = engine(&dir, &["surgery", operation, "store", "to"]);
        assert_eq!((ran.code, ran.out.as_str()), (64, ""));
        assert!(ran.err.contains(YES), "{}", ran.err);
        let ran = engine(&dir, &["surgery", operation, "store", "to", YES]);
        assert_eq!(
            (ran.code, ran.err.as_str()),
            (2, "engine: a member runs on store/member: stop it first\n")
        );
    }
    let temp = world.stop();
    let ran = engine(temp.path(), &["surgery", "cut-wal", "store", "to", YES]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("the log in store/member/wal is sound: there is nothing to cut"), "{}", ran.err);
    let ran = engine(temp.path(), &["surgery", "previous-slot", "store", "store", YES]);
    assert!(ran.err.contains("store has a member already"), "{}", ran.err);
    fs::remove_dir_all(temp.path().join("store/member/wal")).expect("removes");
    let ran = engine(temp.path(), &["surgery", "cut-wal", "store", "to", YES]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("nothing of the log says whose it was"), "{}", ran.err);
    assert!(!temp.path().join("to").exists());
}

#[test]
fn a_member_of_a_cluster_does_not_come_back_without_what_it_promised() {
    let mut world = World::new();
    [7, 8, 9].into_iter().for_each(|id| world.member(id));
    world.checkpoint();
    let temp = world.stop();
    let dir = temp.path();
    let why = "engine: it is one of 3 members of a cluster";
    engine(dir, &["backup", "store", "b"]).with(0);
    let ran = engine(dir, &["restore", "b", "to"]);
    assert!(ran.code == 2 && ran.err.starts_with(why), "{}", ran.err);
    fs::remove_dir_all(dir.join("store/member/wal")).expect("removes");
    let ran = engine(dir, &["surgery", "cut-wal", "store", "to", YES]);
    assert!(ran.code == 2 && ran.err.starts_with(why), "{}", ran.err);
    assert!(!dir.join("to").exists());
}

#[test]
fn a_log_that_is_gone_is_begun_anew_for_the_only_member() {
    let mut world = World::new();
    world.member(7);
    world.put("a", b"b", 0);
    world.checkpoint();
    let temp = world.stop();
    fs::remove_dir_all(temp.path().join("store/member/wal")).expect("removes");
    let out = engine(temp.path(), &["surgery", "cut-wal", "store", "to", YES]).with(0);
    assert!(
        out.contains("lost        any entry of the log from 3 on: whether there was one is not known"),
        "{out}"
    );
    let verified = engine(temp.path(), &["wal", "verify", "to"]).with(0);
    assert!(verified.contains("  member      7\n") && verified.contains("none, after index 2"), "{verified}");
}
