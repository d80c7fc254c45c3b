// SPDX-License-Identifier: Apache-2.0
//! `backup` and `restore`: what comes back is what was there, log and all, or there is nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use expect_test::expect_file;

use crate::world::{World, engine, flip, json, leaves, masked, state_of};

/// What depends on where pages lie.
const LAYOUT: &[&str] = &["backup ", "checkpoint"];

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a directory");
    let name = |entry: fs::DirEntry| entry.file_name().into_string().expect("a name");
    let mut names: Vec<String> = entries.map(|entry| name(entry.expect("an entry"))).collect();
    names.sort();
    names
}

/// The entries of a log, without where they are.
fn entries(dir: &Path, store: &str) -> Vec<(u64, u64, String)> {
    let records = json(&engine(dir, &["wal", "dump", "--json", "--data", store]).with(0));
    let entries = records.iter().filter(|record| record["record"] == "entry");
    let field = |record: &serde_json::Value, name: &str| record[name].as_u64().expect("a number");
    entries
        .map(|record| (field(record, "index"), field(record, "term"), record["data"].to_string()))
        .collect()
}

#[test]
fn a_backup_comes_back_with_its_log() {
    let temp = World::sample().stop();
    let dir = temp.path();
    let before = state_of(&dir.join("store"));
    let text = engine(dir, &["backup", "store", "one.backup"]).with(0)
        + "\n"
        + &engine(dir, &["restore", "one.backup", "copy"]).with(0);
    expect_file!["../data/backup.txt"].assert_eq(&masked(&text, LAYOUT));
    assert_eq!(state_of(&dir.join("store")), before, "nothing of the store was changed");
    assert_eq!(names(dir), ["copy", "one.backup", "store"]);
    for made in ["copy", "copy/member", "copy/member/wal"] {
        let mode = fs::metadata(dir.join(made)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{made}");
    }
    assert_eq!(names(&dir.join("copy/member")), ["CAIRN", "LOCK", "engine.db", "wal"]);

    let check = engine(dir, &["check", "--deep", "copy"]).with(0);
    assert!(check.contains("2, index 1047 to 1048; 2 not in the checkpoint yet"), "{check}");
    for listing in [&["dump", "--values"][..], &["dump", "--changes", "--values"]] {
        let of = |store: &str| engine(dir, &[listing, &[store]].concat()).with(0);
        assert_eq!(of("copy"), of("store"), "{listing:?}");
    }
    let original = entries(dir, "store");
    assert!(original.ends_with(&entries(dir, "copy")) && entries(dir, "copy").len() == 2);
    let [info, copy] = ["store", "copy"].map(|store| {
        let info = engine(dir, &["info", "--json", store]).with(0);
        json(&info).remove(0)
    });
    for field in ["member_id", "last_index", "term", "vote", "commit"] {
        assert_eq!(info["log"][field], copy["log"][field], "{field}");
    }
    assert_ne!(info["install"], copy["install"]);
}

#[test]
fn json_has_the_same_figures_from_both() {
    let temp = World::sample().stop();
    let backup = json(&engine(temp.path(), &["backup", "--json", "store", "b"]).with(0));
    let restore = json(&engine(temp.path(), &["restore", "--json", "b", "copy"]).with(0));
    assert_eq!(backup, restore);
    assert_eq!((&backup[0]["entries"], &backup[0]["last_index"]), (&2.into(), &1048.into()));
    assert_eq!(backup[0]["file_bytes"], fs::metadata(temp.path().join("b")).expect("is there").len());
}

/// rule: EX-5
#[test]
fn revisions_are_passed_over_by_one_more_entry_and_only_with_both_flags() {
    let temp = World::sample().stop();
    let dir = temp.path();
    engine(dir, &["backup", "store", "b"]).with(0);
    for (flags, missing) in [
        (&["--bump-revision", "9"][..], "--mark-compacted"),
        (&["--mark-compacted"], "--bump-revision"),
        (&["--bump-revision", "0", "--mark-compacted"], "0"),
    ] {
        let ran = engine(dir, &[&["restore", "b", "copy"], flags].concat());
        assert!(ran.code == 64 && ran.err.contains(missing), "{flags:?}: {} {}", ran.code, ran.err);
        assert_eq!(names(dir), ["b", "store"]);
    }
    let both = ["restore", "--json", "b", "copy", "--bump-revision", "9", "--mark-compacted"];
    let restored = json(&engine(dir, &both).with(0));
    assert_eq!((&restored[0]["entries"], &restored[0]["bump_revision"]), (&2.into(), &9.into()));
    let copied = entries(dir, "copy");
    assert_eq!(copied[..2], entries(dir, "store")[entries(dir, "store").len() - 2..]);
    assert_eq!((copied.len(), copied[2].0), (3, 1049));
}

#[test]
fn a_store_without_a_checkpoint_is_all_in_the_log() {
    let mut world = World::new();
    world.put("a", b"b", 0);
    let temp = world.stop();
    let out = engine(temp.path(), &["backup", "store", "b"]).with(0);
    assert!(out.contains("1 entry after the checkpoint, to index 1"), "{out}");
    engine(temp.path(), &["restore", "b", "copy"]).with(0);
    let verified = engine(temp.path(), &["wal", "verify", "copy"]).with(0);
    assert!(verified.contains("1, index 1 to 1; 1 not in the checkpoint yet"), "{verified}");
}

#[test]
fn a_damaged_store_is_not_backed_up_and_a_damaged_backup_is_not_restored() {
    let temp = World::sample().stop();
    let dir = temp.path();
    engine(dir, &["backup", "store", "b"]).with(0);
    let bytes = fs::metadata(dir.join("b")).expect("is there").len();
    for at in [100, 4200, bytes / 2, bytes - 100] {
        flip(&dir.join("b"), at);
        let ran = engine(dir, &["restore", "b", "copy"]);
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{at}");
        assert!(ran.err.starts_with("engine: b is damaged"), "{at}: {}", ran.err);
        assert_eq!(names(dir), ["b", "store"], "{at}");
        flip(&dir.join("b"), at);
    }
    let page = leaves(dir, &cairn_mvcc::SCHEMA[0])[1];
    flip(&dir.join("store/member/engine.db"), page * 4096 + 300);
    let ran = engine(dir, &["backup", "store", "other"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(ran.err.contains(&format!("page {page}, tree 1: checksum of a header page")), "{}", ran.err);
    assert_eq!(names(dir), ["b", "store"]);
}

#[test]
fn nothing_that_is_there_is_written_over() {
    let temp = World::sample().stop();
    let dir = temp.path();
    engine(dir, &["backup", "store", "b"]).with(0);
    let before = state_of(dir);
    for (args, why) in [
        (&["backup", "store", "b"][..], "b is there already: name a new file"),
        (&["restore", "b", "store"], "store has a member already: name a directory that has none"),
        (&["restore", "c", "copy"], "c is no file"),
        (&["restore", "store/member/engine.db", "copy"], "magic of a snapshot"),
        (&["backup", "b", "c"], "b is a file: name the directory that it is in"),
    ] {
        let ran = engine(dir, args);
        assert!(ran.code == 2 || why.starts_with("magic"), "{args:?}: {}", ran.code);
        assert!(ran.err.contains(why), "{args:?}: {}", ran.err);
        assert_eq!(state_of(dir), before, "{args:?}");
    }
    fs::create_dir_all(dir.join("cut/member.partial")).expect("makes");
    let ran = engine(dir, &["restore", "b", "cut"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("another command is at work, or was cut short"), "{}", ran.err);
    assert!(dir.join("cut/member.partial").is_dir());
    fs::create_dir(dir.join("empty")).expect("makes");
    engine(dir, &["restore", "b", "empty"]).with(0);
}
