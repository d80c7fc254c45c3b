// SPDX-License-Identifier: Apache-2.0
//! `info` and `check` of a sound store, as people and as programs read them.

use expect_test::expect_file;

use crate::world::{World, engine, json, masked, state_of};

/// What depends on where pages lie, and on the file system.
const LAYOUT: &[&str] = &["size", "space ", "sound"];

#[test]
fn info_says_what_a_store_is() {
    let temp = World::sample().stop();
    let out = engine(temp.path(), &["info", "store"]).with(0);
    expect_file!["../data/info.txt"].assert_eq(&masked(&out, LAYOUT));
    assert_eq!(engine(temp.path(), &["info", "store/member"]).with(0), out, "the member's directory will do");
}

#[test]
fn check_goes_through_a_sound_store() {
    let temp = World::sample().stop();
    let out = engine(temp.path(), &["check", "store"]).with(0);
    expect_file!["../data/check.txt"].assert_eq(&masked(&out, LAYOUT));
    let out = engine(temp.path(), &["check", "--deep", "store"]).with(0);
    expect_file!["../data/check-deep.txt"].assert_eq(&masked(&out, LAYOUT));
}

#[test]
fn json_is_one_object_with_the_same_figures() {
    let temp = World::sample().stop();
    let info = &json(&engine(temp.path(), &["info", "--json", "store"]).with(0))[0];
    assert_eq!(info["checkpoint"]["revision"], 1046);
    assert_eq!(info["log"]["not_in_checkpoint"], 2);
    assert_eq!(info["slots"].as_array().map(Vec::len), Some(4));
    let check = &json(&engine(temp.path(), &["--json", "check", "--deep", "store"]).with(0))[0];
    assert_eq!(check["verdict"], "sound");
    assert_eq!(check["content"]["live_keys"], 1004);
    assert_eq!(check["pages"], info["space"]["used_pages"]);
}

#[test]
fn an_empty_store_is_sound_too() {
    let world = World::new();
    let temp = world.stop();
    let out = engine(temp.path(), &["check", "--deep", "store"]).with(0);
    expect_file!["../data/check-empty.txt"].assert_eq(&masked(&out, LAYOUT));
    assert!(engine(temp.path(), &["info", "store"]).with(0).contains("none, after index 0"));
}

#[test]
fn the_log_may_be_elsewhere_or_missing() {
    let temp = World::sample().stop();
    std::fs::rename(temp.path().join("store/member/wal"), temp.path().join("log")).expect("moves");
    let out = engine(temp.path(), &["check", "store"]).with(0);
    assert!(out.contains("none found: say where it is with --wal-dir"), "{out}");
    let out = engine(temp.path(), &["check", "store", "--wal-dir", "log"]).with(0);
    assert!(out.contains("2 not in the checkpoint yet"), "{out}");
}

#[test]
fn looking_changes_nothing_not_even_a_time() {
    let temp = World::sample().stop();
    let before = state_of(temp.path());
    for command in [&["info"][..], &["check"], &["check", "--deep"]] {
        for json in [&[][..], &["--json"]] {
            engine(temp.path(), &[command, json, &["store"]].concat()).with(0);
            assert_eq!(state_of(temp.path()), before, "{command:?}");
        }
    }
}
