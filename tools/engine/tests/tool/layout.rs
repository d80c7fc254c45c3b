// SPDX-License-Identifier: Apache-2.0
//! Where things lie: `pages`, `page`, `map`. Where exactly is the engine's business, so these tests hold the commands
//! against each other.

use std::fs;

use serde_json::Value;

use crate::world::{State, World, engine, flip, json, state_of};

const PAGE: u64 = 4096;

fn n(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn pages_map_and_info_agree_on_every_page() {
    let temp = World::sample().stop();
    let pages = json(&engine(temp.path(), &["pages", "--json", "store"]).with(0));
    let map = &json(&engine(temp.path(), &["map", "--json", "store"]).with(0))[0];
    let info = &json(&engine(temp.path(), &["info", "--json", "store"]).with(0))[0];
    let live: u64 = pages.iter().map(|extent| n(&extent["pages"])).sum();
    assert_eq!(live, n(&info["space"]["used_pages"]));
    let runs = map["runs"].as_array().expect("a list");
    let mut at = 0;
    for run in runs {
        assert_eq!(n(&run["page"]), at, "no page is missing");
        at += n(&run["pages"]);
    }
    assert_eq!(at, n(&info["space"]["file_pages"]));
    let drawn: u64 = runs.iter().filter(|run| run["state"] == "live").map(|run| n(&run["pages"])).sum();
    assert_eq!(drawn, live);
    let sums = map["sums"].as_array().expect("a list");
    assert_eq!(sums.iter().map(|sum| n(&sum["pages"])).sum::<u64>(), at);
    for state in ["system", "live", "pending", "free"] {
        assert!(sums.iter().any(|sum| sum["state"] == state), "{state}: {sums:?}");
    }
    let rev = json(&engine(temp.path(), &["pages", "--json", "store", "--tree", "rev"]).with(0));
    assert!(!rev.is_empty() && rev.iter().all(|extent| extent["tree"] == "rev"));
    assert!(rev.iter().any(|extent| extent["kind"] == "blob"), "a value of 40,000 bytes is a blob");
    let ran = engine(temp.path(), &["pages", "store", "--tree", "revs"]);
    assert_eq!((ran.code, ran.out.as_str()), (64, ""));
    assert!(ran.err.contains("there are rev, hist, idx, attach"), "{}", ran.err);
}

#[test]
fn every_page_of_a_store_can_be_shown() {
    let temp = World::sample().stop();
    let extents = json(&engine(temp.path(), &["pages", "--json", "store"]).with(0));
    let info = &json(&engine(temp.path(), &["info", "--json", "store"]).with(0))[0];
    let mut entries = 0;
    for extent in &extents {
        let last = n(&extent["page"]) + n(&extent["pages"]) - 1;
        let page = &json(&engine(temp.path(), &["page", "--json", "store", &last.to_string()]).with(0))[0];
        assert_eq!((&page["role"], &page["in_use"]), (&extent["kind"], &true.into()), "{page}");
        assert_eq!(page["extent"]["first_page"], extent["page"]);
        assert_eq!(page["extent"]["tree"], extent["tree"]);
        let listed = page["extent"]["entries"].as_array().map_or(0, Vec::len) as u64;
        let children = page["extent"]["children"].as_array().map_or(0, Vec::len) as u64;
        assert_eq!(listed + children, n(&extent["entries"]), "{page}");
        entries += listed;
    }
    let stated: u64 = info["trees"].as_array().expect("a list").iter().map(|tree| n(&tree["entries"])).sum();
    assert_eq!(entries, stated, "every entry of every tree was shown");
    let mut roles = Vec::new();
    for page in 0..20 {
        let shown = &json(&engine(temp.path(), &["page", "--json", "store", &page.to_string()]).with(0))[0];
        roles.push(shown["role"].as_str().expect("text").to_owned());
    }
    roles.dedup();
    assert_eq!(roles[..4], ["superblock", "commit slot", "space map", "reserved"]);
    let file_pages = n(&info["space"]["file_pages"]);
    let ran = engine(temp.path(), &["page", "store", &file_pages.to_string()]);
    assert_eq!(ran.code, 2);
    assert_eq!(
        ran.err,
        format!("engine: store/member/engine.db has no page {file_pages}: it has {file_pages} pages\n")
    );
    assert_eq!(engine(temp.path(), &["page", "store", &u64::MAX.to_string()]).code, 2);
    assert_eq!(engine(temp.path(), &["page", "store", "x"]).code, 64);
}

#[test]
fn a_page_is_shown_for_people_and_as_bytes() {
    let temp = World::sample().stop();
    let extents = json(&engine(temp.path(), &["pages", "--json", "store", "--tree", "idx"]).with(0));
    let of_kind = |kind: &str| extents.iter().find(|extent| extent["kind"] == kind).expect("there is one");
    let leaf = engine(temp.path(), &["page", "store", &of_kind("leaf")["page"].to_string()]).with(0);
    assert!(leaf.contains("\ntree       idx, level 0\n") && leaf.contains("checksums  right\n"), "{leaf}");
    assert!(leaf.contains("\nENTRY  BYTES  VALUE  KEY\n") && leaf.contains("\"registry/"), "{leaf}");
    let branch = engine(temp.path(), &["page", "store", &of_kind("branch")["page"].to_string()]).with(0);
    assert!(branch.contains("CHILD  PAGE  PAGES  BIRTH  WEIGHT  FROM KEY\n"), "{branch}");
    assert!(branch.contains("the start\n"), "{branch}");
    let hex = engine(temp.path(), &["page", "store", "0", "--hex"]).with(0);
    let first = "0000  43 41 49 52 4e 44 42 00  01 00 00 00 00 10 00 00  CAIRNDB.........\n";
    assert!(hex.starts_with(first), "{hex}");
    assert!(hex.lines().count() < 10 && hex.contains("\n*\n"), "zeros are left out: {hex}");
}

#[test]
fn damage_is_shown_where_it_is() {
    let temp = World::sample().stop();
    let extents = json(&engine(temp.path(), &["pages", "--json", "store", "--tree", "rev"]).with(0));
    let leaf = extents.iter().find(|extent| extent["kind"] == "leaf").expect("there is one");
    let page = n(&leaf["page"]) + 1;
    flip(&temp.path().join("store/member/engine.db"), page * PAGE + 7);
    let shown = engine(temp.path(), &["page", "store", &page.to_string()]).with(1);
    assert!(shown.contains("\nfault   checksum of a page, at byte 4096 of the extent, expected "), "{shown}");
    let ran = engine(temp.path(), &["pages", "store"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains(&format!("page {page}, tree rev: checksum of a page")), "{}", ran.err);
    assert_eq!(engine(temp.path(), &["map", "store"]).code, 1);
}

#[test]
fn a_map_is_drawn_on_the_terminal_and_as_svg_and_nowhere_in_the_store() {
    let temp = World::sample().stop();
    let before = state_of(&temp.path().join("store"));
    let drawn = engine(temp.path(), &["map", "store", "--width", "32"]).with(0);
    let first = drawn.lines().next().expect("a line");
    assert!(first.starts_with("################") && first.len() == 32, "{drawn}");
    for letter in ['r', 'h', 'i', 'a', '.', '~'] {
        assert!(
            drawn.split("\n\n").next().is_some_and(|picture| picture.contains(letter)),
            "{letter}: {drawn}"
        );
    }
    assert!(!drawn.contains('\x1b'), "no colour where no one looks");
    engine(temp.path(), &["map", "store", "--svg", "map.svg"]).with(0);
    let svg = fs::read_to_string(temp.path().join("map.svg")).expect("is written");
    assert!(svg.starts_with("<svg ") && svg.contains("tree rev: "), "{svg}");
    assert_eq!(engine(temp.path(), &["map", "store", "--svg", "-"]).with(0), svg);
    for inside in ["store/map.svg", "store/member/map.svg", "store/member/../member/map.svg"] {
        let ran = engine(temp.path(), &["map", "store/member", "--svg", inside]);
        let code = if inside == "store/map.svg" { 0 } else { 64 };
        assert_eq!(ran.code, code, "{inside}: {}", ran.err);
    }
    fs::remove_file(temp.path().join("store/map.svg")).expect("removes");
    let after = state_of(&temp.path().join("store"));
    // The directory itself had a file for a moment.
    let member = |mut state: State| {
        state.retain(|path, _| path.starts_with(temp.path().join("store/member")));
        state
    };
    assert_eq!(member(after), member(before));
    assert_eq!(engine(temp.path(), &["map", "store", "--width", "3"]).code, 64);
}
