// SPDX-License-Identifier: Apache-2.0
//! What is in a store: `dump`, `get`, `stats`, as people and as programs read them.

use std::path::Path;

use expect_test::expect_file;

use crate::world::{World, engine, flip, json, leaves, state_of};

/// Runs commands one after the other, and puts what they answer together as a session.
fn session(dir: &Path, lines: &[&[&str]]) -> String {
    let mut text = String::new();
    for args in lines {
        let ran = engine(dir, args);
        text += &format!("$ engine {}\n{}{}", args.join(" "), ran.out, ran.err);
        if ran.code != 0 {
            text += &format!("[exit status {}]\n", ran.code);
        }
        text += "\n";
    }
    text
}

#[test]
fn keys_changes_and_trees_are_listed() {
    let temp = World::sample().stop();
    let text = session(
        temp.path(),
        &[
            &["dump", "store", "--limit", "5"],
            &["dump", "store", "--prefix", "registry/pods/item-99", "--values"],
            &["dump", "store", "--prefix", "bin\\x01", "--escaped"],
            &["dump", "store", "--at", "300", "--prefix", "registry/leases/item-2"],
            &["dump", "store", "--at", "100"],
            &["dump", "store", "--at", "2000"],
            &["dump", "store", "--prefix", "no such key"],
            &["dump", "store", "--tree"],
            &[
                "dump",
                "store",
                "--tree",
                "--prefix",
                "registry/",
                "--delimiter",
                "-",
                "--depth",
                "1",
                "--at",
                "500",
            ],
            &["dump", "store", "--changes", "--since", "1044", "--values"],
            &["dump", "store", "--changes", "--prefix", "counter", "--limit", "3"],
        ],
    );
    expect_file!["../data/dump.txt"].assert_eq(&text);
}

#[test]
fn json_lines_carry_any_bytes() {
    let temp = World::sample().stop();
    let text = session(
        temp.path(),
        &[
            &["dump", "--json", "store", "--prefix", "bin", "--values"],
            &["dump", "--json", "store", "--prefix", "gr", "--values"],
            &["dump", "--json", "store", "--changes", "--since", "1046"],
            &["dump", "--json", "store", "--tree", "--depth", "1"],
            &["get", "--json", "store", "leased"],
            &["get", "--json", "store", "registry/pods/item-000", "--history"],
        ],
    );
    expect_file!["../data/dump-json.txt"].assert_eq(&text);
    let all = json(&engine(temp.path(), &["dump", "--json", "store", "--values"]).with(0));
    assert_eq!(all.len(), 1004);
    assert!(all.windows(2).all(|pair| pair[0]["key"].as_str() < pair[1]["key"].as_str()));
    let changes = json(&engine(temp.path(), &["dump", "--json", "store", "--changes"]).with(0));
    assert_eq!(changes.len(), 1045);
    json(&engine(temp.path(), &["dump", "--json", "store", "--tree"]).with(0));
    json(&engine(temp.path(), &["get", "--json", "store", "counter", "--history"]).with(0));
}

#[test]
fn one_key_is_shown_whole() {
    let temp = World::sample().stop();
    let text = session(
        temp.path(),
        &[
            &["get", "store", "registry/nodes/item-500"],
            &["get", "store", "leased"],
            &["get", "store", "bin\\x01ary\\\\", "--escaped"],
            &["get", "store", "counter", "--at", "1010"],
            &["get", "store", "counter", "--at", "100"],
            &["get", "store", "nothing"],
            &["get", "store", "nothing\\", "--escaped"],
            &["get", "store", "registry/pods/item-000", "--history"],
            &["get", "store", "gr\u{fc}n", "--raw"],
        ],
    );
    expect_file!["../data/get.txt"].assert_eq(&text);
    let raw = engine(temp.path(), &["get", "store", "large", "--raw"]).with(0);
    assert_eq!(raw, "z".repeat(40_000));
    let history = engine(temp.path(), &["get", "store", "counter", "--history"]).with(0);
    assert_eq!(history.lines().count(), 41, "{history}");
}

#[test]
fn stats_say_what_takes_how_much_room() {
    let temp = World::sample().stop();
    let text = session(
        temp.path(),
        &[
            &["stats", "store"],
            &["stats", "store", "--prefix", "registry/", "--depth", "1", "--delimiter", "-", "--top", "2"],
        ],
    );
    expect_file!["../data/stats.txt"].assert_eq(&text);
    let stats = &json(&engine(temp.path(), &["stats", "--json", "store"]).with(0))[0];
    let prefixes = stats["prefixes"].as_array().expect("a list");
    let sum = |field: &str| prefixes.iter().filter_map(|prefix| prefix[field].as_u64()).sum::<u64>();
    assert_eq!((sum("keys"), sum("changes")), (1004, 1045));
}

#[test]
fn listing_changes_nothing_not_even_a_time() {
    let temp = World::sample().stop();
    let before = state_of(temp.path());
    for command in [
        &["dump", "store"][..],
        &["dump", "store", "--tree"],
        &["dump", "store", "--changes"],
        &["get", "store", "counter", "--history"],
        &["stats", "store"],
    ] {
        engine(temp.path(), command).with(0);
        assert_eq!(state_of(temp.path()), before, "{command:?}");
    }
}

#[test]
fn what_comes_before_damage_is_listed_and_the_damage_is_told() {
    let temp = World::sample().stop();
    let page = leaves(temp.path(), &cairn_mvcc::SCHEMA[2])[1];
    flip(&temp.path().join("store/member/engine.db"), page * 4096 + 300);
    let whole: usize = 1004;
    let ran = engine(temp.path(), &["dump", "store"]);
    let listed = ran.out.lines().count() - 1;
    assert!(listed > 100 && listed < whole, "{listed}");
    assert!(ran.err.contains(&format!("page {page}, tree 3: checksum of a header page")), "{}", ran.err);
    assert_eq!(ran.code, 1);
    let stats = engine(temp.path(), &["stats", "store"]).with(1);
    assert!(stats.contains(&format!("page {page}, tree idx")), "{stats}");
}
