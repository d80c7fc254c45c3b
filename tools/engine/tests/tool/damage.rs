// SPDX-License-Identifier: Apache-2.0
//! Damage: the exit status is 1, and the place is named.

use std::fs;
use std::path::Path;

use cairn_mvcc::SCHEMA;

use crate::world::{World, engine, flip, json, leaves};

const PAGE: u64 = 4096;

fn check(dir: &Path, code: i32) -> String {
    engine(dir, &["check", "store"]).with(code)
}

#[test]
fn a_flipped_byte_in_any_tree_is_named_with_file_page_and_tree() {
    let mut world = World::sample();
    for n in 0..5000 {
        world.put("counter", n.to_string().as_bytes(), 0);
    }
    world.checkpoint();
    world.db.confirm().expect("syncs");
    let temp = world.stop();
    let file = temp.path().join("store/member/engine.db");
    let mut trees = 0;
    for tree in SCHEMA {
        let pages = leaves(temp.path(), tree);
        // A root that does not verify has another checkpoint looked at.
        let Some(page) = pages.get(1) else { continue };
        flip(&file, page * PAGE + 300);
        let out = check(temp.path(), 1);
        assert!(out.contains("damage in store/member/engine.db:\n"), "{out}");
        assert!(
            out.contains(&format!("page {page}, tree {}: checksum of a header page", tree.name)),
            "{out}"
        );
        assert!(out.contains("; hides keys "), "{out}");
        assert!(
            out.ends_with(" in checkpoint 8 of store/member/engine.db, #\n")
                || out.contains("damaged: 1 damage in")
        );
        let damage = &json(&engine(temp.path(), &["check", "--json", "store"]).with(1))[0]["damage"][0];
        assert_eq!((&damage["page"], &damage["tree"]), (&(*page).into(), &tree.name.into()), "{damage}");
        assert!(damage["keys"]["high"] != damage["keys"]["low"], "{damage}");
        flip(&file, page * PAGE + 300);
        trees += 1;
    }
    assert!(trees >= 3, "{trees} trees with more than one leaf");
    check(temp.path(), 0);
}

#[test]
fn several_damages_are_all_named() {
    let temp = World::sample().stop();
    let file = temp.path().join("store/member/engine.db");
    let pages = leaves(temp.path(), &SCHEMA[0]);
    for page in &pages[..2] {
        flip(&file, page * PAGE + 300);
    }
    flip(&file, 40);
    let out = check(temp.path(), 1);
    assert!(pages[..2].iter().all(|page| out.contains(&format!("page {page}, tree rev"))), "{out}");
    assert!(out.contains("page 0: one of the two superblocks"), "{out}");
    assert!(out.contains("damaged: 3 damages in"), "{out}");
}

#[test]
fn a_damaged_log_is_named_with_file_and_offset() {
    let temp = World::sample().stop();
    let wal = temp.path().join("store/member/wal");
    let mut segments: Vec<_> =
        fs::read_dir(&wal).expect("lists").map(|entry| entry.expect("an entry").path()).collect();
    segments.sort();
    let newest = segments.last().expect("a log has a segment");
    flip(newest, 2 * PAGE + 50);
    let out = check(temp.path(), 1);
    let name = newest.file_name().and_then(|name| name.to_str()).expect("a name");
    assert!(out.contains(&format!("damage in store/member/wal/{name}:\n  offset 8192: batch ")), "{out}");
    assert!(out.contains("was durable, as a batch after it proves, and cannot be read"), "{out}");
    let out = engine(temp.path(), &["info", "store"]).with(1);
    assert!(out.contains("offset 8192: batch "), "{out}");
}

#[test]
fn a_store_without_any_checkpoint_is_damaged_and_a_directory_without_a_store_cannot_be_looked_at() {
    let temp = World::sample().stop();
    let file = temp.path().join("store/member/engine.db");
    let mut bytes = fs::read(&file).expect("reads");
    bytes[2 * 4096..6 * 4096].fill(0xee);
    fs::write(&file, bytes).expect("writes");
    let ran = engine(temp.path(), &["check", "store"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(
        ran.err.contains("store/member/engine.db is damaged: commit slots: none of the four is whole"),
        "{}",
        ran.err
    );
    fs::remove_file(&file).expect("removes");
    for (dir, why) in [
        ("store", "there is no store in store: neither engine.db nor member/engine.db is there"),
        ("nowhere", "nowhere does not exist"),
    ] {
        let ran = engine(temp.path(), &["check", dir]);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""));
        assert_eq!(ran.err, format!("engine: {why}\n"));
    }
}

#[test]
fn a_newer_format_cannot_be_looked_at() {
    let temp = World::sample().stop();
    let file = temp.path().join("store/member/engine.db");
    let mut bytes = fs::read(&file).expect("reads");
    for twin in 0..2 {
        bytes[twin * 4096 + 8] = 9;
        let crc = crc32fast::hash(&bytes[twin * 4096..twin * 4096 + 4092]);
        bytes[twin * 4096 + 4092..(twin + 1) * 4096].copy_from_slice(&crc.to_le_bytes());
    }
    fs::write(&file, bytes).expect("writes");
    let ran = engine(temp.path(), &["check", "store"]);
    assert_eq!(ran.code, 2, "{}", ran.err);
    assert!(ran.err.contains("format is 9, this build reads 1"), "{}", ran.err);
}
