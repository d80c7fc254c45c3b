// SPDX-License-Identifier: Apache-2.0
//! `scrub` and `defrag`: all of a store is read from the disk, and all of it is loaded anew.

use std::time::Instant;

use cairn_mvcc::SCHEMA;
use expect_test::expect_file;

use crate::world::{World, engine, flip, json, leaves, masked, state_of};

const PAGE: u64 = 4096;

#[test]
fn a_scrub_of_a_sound_store_reads_all_of_it() {
    let temp = World::sample().stop();
    let dir = temp.path();
    let before = state_of(dir);
    let out = engine(dir, &["scrub", "store"]).with(0);
    expect_file!["../data/scrub.txt"].assert_eq(&masked(&out, &["read  "]));
    assert_eq!(state_of(dir), before);
    let scrub = &json(&engine(dir, &["scrub", "--json", "store"]).with(0))[0];
    let info = &json(&engine(dir, &["info", "--json", "store"]).with(0))[0];
    let [read, used] = [&scrub["pages"], &info["space"]["used_pages"]].map(|n| n.as_u64().expect("a number"));
    // Superblocks, a slot, the four versions of a map.
    assert_eq!(read, used + 2 + 1 + 4);
}

#[test]
fn what_the_disk_does_not_give_back_is_named() {
    let temp = World::sample().stop();
    let dir = temp.path();
    let file = dir.join("store/member/engine.db");
    let leaf = leaves(dir, &SCHEMA[2])[1];
    for (page, at, what) in [
        (0, 40, "page 0: superblock".to_owned()),
        (leaf, 300, format!("page {leaf}, tree idx: checksum of a header page")),
        (6, 80, "page 6: the space map is not the one that the slot confirms".to_owned()),
    ] {
        // Of the map there are four versions; which of them is the newest is not said.
        let pages = if page == 6 { 6..10 } else { page..page + 1 };
        pages.clone().for_each(|page| flip(&file, page * PAGE + at));
        let out = engine(dir, &["scrub", "store"]).with(1);
        assert!(out.contains(&what), "{what}: {out}");
        let scrub = &json(&engine(dir, &["scrub", "--json", "store"]).with(1))[0];
        assert_eq!((&scrub["damages"], &scrub["verdict"]), (&1.into(), &"damaged".into()), "{what}");
        pages.for_each(|page| flip(&file, page * PAGE + at));
    }
    engine(dir, &["scrub", "store"]).with(0);
}

#[test]
fn a_rate_is_kept() {
    let temp = World::sample().stop();
    let begin = Instant::now();
    let scrub = &json(&engine(temp.path(), &["scrub", "--json", "store", "--rate", "1M"]).with(0))[0];
    let bytes = scrub["pages"].as_u64().expect("a number") * PAGE;
    assert!(begin.elapsed().as_secs_f64() >= bytes as f64 / f64::from(1 << 20));
    for wrong in ["0", "x", "1T", "", "99999999999G"] {
        assert_eq!(engine(temp.path(), &["scrub", "store", "--rate", wrong]).code, 64, "{wrong}");
    }
}

#[test]
fn a_store_is_loaded_anew_and_is_smaller() {
    let mut world = World::sample();
    // Much that is written over, and purged then.
    for _ in 0..300 {
        world.put("again and again", &vec![b'v'; 20_000], 0);
    }
    world.checkpoint();
    world.compact(1_300);
    world.purge();
    world.checkpoint();
    world.put("late", b"in the log alone", 0);
    world.wal.sync().expect("syncs");
    let temp = world.stop();
    let dir = temp.path();
    let before = state_of(&dir.join("store"));
    let out = engine(dir, &["defrag", "store", "small"]).with(0);
    expect_file!["../data/defrag.txt"].assert_eq(&masked(&out, &["before", "after"]));
    assert_eq!(state_of(&dir.join("store")), before);
    let check = engine(dir, &["check", "--deep", "small"]).with(0);
    assert!(check.contains("1 not in the checkpoint yet"), "{check}");
    for listing in [&["dump", "--values"][..], &["dump", "--changes", "--values"]] {
        let of = |store: &str| engine(dir, &[listing, &[store]].concat()).with(0);
        assert_eq!(of("small"), of("store"), "{listing:?}");
    }
    let figures = &json(&engine(dir, &["defrag", "--json", "store", "smaller"]).with(0))[0];
    let figure = |when: &str, what: &str| figures[when][what].as_u64().expect("a number");
    assert!(figure("after", "used_pages") <= figure("before", "used_pages") * 11 / 10, "{figures}");
    assert!(figure("after", "file_bytes") < figure("before", "file_bytes") / 3, "{figures}");
    // The head of the file, and what growth is rounded to.
    let room = figure("after", "used_pages") * PAGE * 5 / 4 + (1 << 20);
    assert!(figure("after", "file_bytes") <= room, "{figures}");
}

#[test]
fn a_running_or_damaged_store_is_not_loaded() {
    let world = World::sample();
    let dir = world.temp.path().to_path_buf();
    let ran = engine(&dir, &["defrag", "store", "to"]);
    assert_eq!((ran.code, ran.err.as_str()), (2, "engine: a member runs on store/member: stop it first\n"));
    let temp = world.stop();
    let leaf = leaves(temp.path(), &SCHEMA[2])[1];
    flip(&temp.path().join("store/member/engine.db"), leaf * PAGE + 300);
    let ran = engine(temp.path(), &["defrag", "store", "to"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains(&format!("page {leaf}")), "{}", ran.err);
    assert!(!temp.path().join("to").exists());
}
