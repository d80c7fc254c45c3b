// SPDX-License-Identifier: Apache-2.0
//! `export` and `import`: what comes back is the store that it was, and what is no export makes none.

use std::fs;
use std::path::Path;

use expect_test::expect_file;

use crate::world::{World, engine, json, state_of};

/// The lines of an export without the one that the sample's lease makes differ: nobody granted it.
fn without_lease(text: &str) -> String {
    text.replace("\"lease\":42", "\"lease\":0")
}

fn read(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).expect("is there")
}

#[test]
fn an_export_and_what_is_made_of_it_are_as_people_read_them() {
    let temp = World::sample().stop();
    let dir = temp.path();
    let before = state_of(&dir.join("store"));
    let mut text = String::new();
    for args in [
        &["export", "store", "keys"][..],
        &["import", "keys", "copy"],
        &["export", "store", "all", "--history"],
        &["import", "all", "whole"],
        &["export", "store", "old", "--at", "300"],
        &["export", "store", "never", "--at", "100"],
        &["export", "store", "keys"],
        &["import", "keys", "copy"],
    ] {
        let ran = engine(dir, args);
        text += &format!("$ engine {}\n{}{}", args.join(" "), ran.out, ran.err);
        text += &if ran.code == 0 { "\n".into() } else { format!("[exit status {}]\n\n", ran.code) };
    }
    expect_file!["../data/export.txt"].assert_eq(&text);
    assert_eq!(state_of(&dir.join("store")), before);
    let keys = read(dir, "keys");
    let some: Vec<&str> = keys.lines().take(2).chain(keys.lines().skip(1_002)).collect();
    expect_file!["../data/export-lines.txt"].assert_eq(&(some.join("\n") + "\n"));
    json(&keys);
}

#[test]
fn keys_come_back_with_all_that_they_had() {
    let temp = World::sample().stop();
    let dir = temp.path();
    for at in [&[][..], &["--at", "700"]] {
        let export = |store: &str, at: &[&str]| engine(dir, &[&["export", store], at].concat()).with(0);
        let original = export("store", at);
        fs::write(dir.join("lines"), &original).expect("writes");
        let copy = if at.is_empty() { "now" } else { "then" };
        let figures = &json(&engine(dir, &["import", "--json", "lines", copy]).with(0))[0];
        assert_eq!(figures["keys_without_their_lease"], u64::from(at.is_empty()), "{figures}");
        assert_eq!(export(copy, &[]), without_lease(&original), "{at:?}");
        let check = &json(&engine(dir, &["check", "--deep", "--json", copy]).with(0))[0];
        assert_eq!(check["content"]["attachments"], 0);
        let listed = |store: &str, at: &[&str]| {
            let keys = engine(dir, &[&["dump", "--json", "--values", store], at].concat()).with(0);
            without_lease(&keys)
        };
        assert_eq!(listed(copy, &[]), listed("store", at), "{at:?}");
    }
}

#[test]
fn a_history_comes_back_whole() {
    let mut world = World::sample();
    for n in 0..300 {
        world.put(&format!("often/{}", n % 3), n.to_string().as_bytes(), 0);
        if n % 40 == 39 {
            world.delete(&format!("often/{}", n % 3));
        }
    }
    // A delete at the compact revision itself can still be watched.
    world.delete("often/0");
    world.compact(1_046 + 2 + 300 + 7 + 1);
    world.checkpoint();
    for n in 0..100 {
        world.put("often/0", n.to_string().as_bytes(), 0);
    }
    world.checkpoint();
    let temp = world.stop();
    let dir = temp.path();
    let export = |store: &str| engine(dir, &["export", "--history", store]).with(0);
    let original = export("store");
    assert!(original.contains("\"revision\":\"1356.0\",\"change\":\"delete\""), "the delete is part of it");
    fs::write(dir.join("lines"), &original).expect("writes");
    engine(dir, &["import", "lines", "copy"]).with(0);
    assert_eq!(export("copy"), without_lease(&original));
    engine(dir, &["check", "--deep", "copy"]).with(0);
    for at in ["1356", "1380", "1456"] {
        let of = |store: &str| {
            without_lease(&engine(dir, &["dump", "--json", "--values", "--at", at, store]).with(0))
        };
        assert_eq!(of("copy"), of("store"), "at {at}");
    }
    let history = |store: &str| engine(dir, &["get", "--history", "--json", store, "often/0"]).with(0);
    let newest = |text: String| text.lines().take(100).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(newest(history("copy")), newest(history("store")));
    // Before any compaction there is nothing to leave out.
    let mut young = World::new();
    young.put("a", b"1", 0);
    young.delete("a");
    young.put("a", b"\xff", 0);
    young.checkpoint();
    let temp = young.stop();
    let dir = temp.path();
    engine(dir, &["export", "--history", "store", "lines"]).with(0);
    engine(dir, &["import", "lines", "copy"]).with(0);
    engine(dir, &["export", "--history", "copy", "again"]).with(0);
    assert_eq!(read(dir, "lines"), read(dir, "again"));
    assert_eq!(read(dir, "lines").lines().count(), 5);
}

#[test]
fn what_is_no_export_makes_no_member() {
    let temp = World::sample().stop();
    let dir = temp.path();
    engine(dir, &["export", "store", "good"]).with(0);
    let good = read(dir, "good");
    let lines: Vec<&str> = good.lines().collect();
    let with = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        change(&mut lines);
        lines.join("\n") + "\n"
    };
    let last = lines.len();
    for (text, code, why) in [
        (String::new(), 1, "line 1: it is empty".to_owned()),
        ("{}\n".to_owned(), 1, "line 1: an export begins with its revision".to_owned()),
        (
            with(&|l| l[0] = l[0].replace("export\":1", "export\":2")),
            2,
            "the form of the export is 2".to_owned(),
        ),
        (with(&|l| drop(l.pop())), 1, format!("line {last}: the export was cut short")),
        (good[..good.len() / 2].to_owned(), 1, "a line of an export is an object".to_owned()),
        (with(&|l| drop(l.remove(9))), 1, format!("line {}: there are other numbers", last - 1)),
        (with(&|l| l.swap(8, 9)), 1, "it does not follow the one before it".to_owned()),
        (with(&|l| l.push("{}".into())), 1, format!("line {}: nothing follows the last line", last + 1)),
        (
            with(&|l| l[5] = l[5].replace("\"put\"", "\"got\"")),
            1,
            "line 6: a change is a put or a delete".to_owned(),
        ),
        (
            with(&|l| l[5] = l[5].replace("\"version\":1", "\"version\":0")),
            1,
            "does not follow from".to_owned(),
        ),
        (with(&|l| l[5] = l[5].replace("\"key\"", "\"kay\"")), 1, "line 6: a change has a key".to_owned()),
        (
            with(&|l| l[0] = l[0].replacen("1046", "900", 1)),
            1,
            "the store cannot end before its changes do".to_owned(),
        ),
    ] {
        fs::write(dir.join("bad"), text).expect("writes");
        let ran = engine(dir, &["import", "bad", "made"]);
        assert_eq!((ran.code, ran.out.as_str()), (code, ""), "{why}: {}", ran.err);
        assert!(ran.err.contains(&why), "{why}: {}", ran.err);
        assert!(!dir.join("made").exists(), "{why}");
    }
    let ran = engine(dir, &["export", "store", "no/such/dir"]);
    assert_eq!(ran.code, 2, "{}", ran.err);
}
