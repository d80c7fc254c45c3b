// SPDX-License-Identifier: Apache-2.0
//! What reads and writes cost, in extents and pages rather than in time.
//!
//! Owns      the figures that must not get worse unseen.
//! Holds     a page counts when its checksum is looked at for the first time.
//! Never     measures time.

use std::ops::Bound;

use cairn_engine::page::{PAGE_BYTES, TreeRoot};
use cairn_engine::tree::{self, Ctx, Shape, Weight};

use crate::support::*;

const ENTRIES: u64 = 200_000;
const VALUE_BYTES: usize = 100;

fn revision(main: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&main.to_be_bytes());
    key
}

/// A tree of revisions with leaves of 32 KiB.
fn revisions() -> (MemFile, Ctx, TreeRoot) {
    let (file, ctx) = (MemFile::new(), ctx(Shape::append(8), Weight::One));
    file.begin(1);
    let entries = (0..ENTRIES).map(|main| (revision(main), [main as u8; VALUE_BYTES]));
    let root =
        tree::append(&file, &mut file.clone(), &ctx, &TreeRoot::EMPTY, entries).expect("a build in memory");
    (file, ctx, root)
}

#[test]
fn a_point_read_verifies_few_pages_once_and_then_none() {
    let (file, ctx, root) = revisions();
    assert_eq!(root.height, 3);
    file.remember(true);
    let read = |main: u64| {
        file.take_counts();
        let value =
            tree::get(&file, &ctx, &root, &revision(main)).expect("a sound tree").expect("the key is there");
        assert_eq!(value[..], [main as u8; VALUE_BYTES]);
        file.take_counts()
    };
    let (extents, cold) = read(123_456);
    assert_eq!(extents, 3, "one extent a level");
    // Root 1; branch 4; of the leaf the header page, which has the keys of 270 entries but for the last, and the
    // value's page, or two where it crosses.
    println!("point read: {cold} pages verified cold");
    assert!(cold <= 9, "{cold} pages verified for one read");
    assert_eq!(read(123_456), (3, 0), "nothing is verified twice");
    let mut neighbours = 0;
    for main in 123_457..123_477 {
        neighbours += read(main).1;
    }
    assert!(neighbours <= 2, "{neighbours} pages for neighbours of a key that was read");
}

#[test]
fn a_weight_costs_two_walks_down() {
    let (file, ctx, root) = revisions();
    file.take_counts();
    let (low, high) = (revision(1_000), revision(150_000));
    let weight = tree::weight(&file, &ctx, &root, Bound::Included(&low), Bound::Excluded(&high))
        .expect("a sound tree");
    assert_eq!(weight, 149_000);
    assert_eq!(file.take_counts().0, 6);
    tree::weight(&file, &ctx, &root, Bound::Unbounded, Bound::Unbounded).expect("a sound tree");
    assert_eq!(file.take_counts().0, 0, "the root knows the whole");
}

#[test]
fn a_scan_reads_every_node_once() {
    let (file, ctx, root) = revisions();
    let stats = tree::verify(&file, &ctx, &root, &mut |_| {}).expect("a sound tree");
    file.take_counts();
    let mut cursor = tree::Cursor::new(&file, &ctx, &root);
    let mut seen = 0;
    while cursor.next().expect("a sound tree").is_some() {
        seen += 1;
    }
    assert_eq!(seen, ENTRIES);
    assert_eq!(file.take_counts().0, stats.leaves + stats.branches);
}

#[test]
fn a_scan_asks_once_for_the_pages_of_each_leaf_whether_they_can_be_read() {
    let (file, ctx, root) = revisions();
    let stats = tree::verify(&file, &ctx, &root, &mut |_| {}).expect("a sound tree");
    file.damage(|_| {});
    file.remember(true);
    file.take_counts();
    file.take_probes();
    let mut cursor = tree::Cursor::new(&file, &ctx, &root);
    while let Some(entry) = cursor.next().expect("a sound tree") {
        entry.value().expect("a sound tree");
    }
    assert_eq!(file.take_counts().1, stats.pages, "each page is looked at once");
    let calls = file.take_probes();
    // Of each leaf the header page, a second one where the keys go on, and the rest; the pages of branches, and
    // of the leaf where the scan begins.
    let most = 3 * stats.leaves + 4 * stats.branches + 8;
    assert!(calls <= most, "{calls} calls, {most} at most");
}

#[test]
fn an_append_rewrites_the_right_spine_and_nothing_else() {
    let (file, mut ctx, root) = revisions();
    let before = file.live();
    ctx.seq = 2;
    file.begin(2);
    let entries = [(revision(ENTRIES), [1; VALUE_BYTES])];
    let grown = tree::append(&file, &mut file.clone(), &ctx, &root, entries).expect("an append in memory");
    let after = file.live();
    let gone = before.keys().filter(|page| !after.contains_key(page)).count();
    assert_eq!((gone, after.len()), (3, before.len()), "a leaf and two branches are replaced");
    assert_eq!(grown.entries, ENTRIES + 1);
}

#[test]
fn revisions_fill_their_pages() {
    let (file, ctx, root) = revisions();
    let stats = tree::verify(&file, &ctx, &root, &mut |_| {}).expect("a sound tree");
    let file_bytes = stats.pages * PAGE_BYTES as u64;
    let per_live = file_bytes as f64 / stats.bytes as f64;
    println!(
        "append tree: {} leaves, {} branches, {per_live:.3} file bytes a live byte",
        stats.leaves, stats.branches
    );
    assert!(per_live < 1.03, "{per_live} bytes of file a byte of keys and values");
    assert!(stats.used as f64 / file_bytes as f64 > 0.98, "pages are not filled");
}

#[test]
fn a_purge_of_nine_in_ten_gives_the_pages_back() {
    let (file, mut ctx, root) = revisions();
    ctx.seq = 2;
    file.begin(2);
    let keys = (0..ENTRIES).filter(|main| main % 10 != 0).map(revision);
    let root = tree::delete_sorted(&file, &mut file.clone(), &ctx, &root, keys).expect("a delete in memory");
    let stats = tree::verify(&file, &ctx, &root, &mut |_| {}).expect("a sound tree");
    assert_eq!(stats.entries, ENTRIES / 10);
    let per_live = (stats.pages * PAGE_BYTES as u64) as f64 / stats.bytes as f64;
    println!("after purge: {per_live:.3} file bytes a live byte");
    assert!(per_live < 1.05, "{per_live} bytes of file a byte of keys and values");
}

#[test]
fn a_purge_of_the_oldest_rewrites_the_edge_and_nothing_behind_it() {
    let (file, ctx, root) = revisions();
    let stats = tree::verify(&file, &ctx, &root, &mut |_| {}).expect("a sound tree");
    let a_leaf = ENTRIES / stats.leaves;
    let mut most = 0;
    for (seq, tenth) in (2..).zip(0..20) {
        let (file, mut ctx, root) = revisions();
        (ctx.seq, _) = (seq, file.begin(seq));
        let before = file.live();
        let keys = (0..a_leaf * (30 + tenth) / 10).map(revision);
        tree::delete_sorted(&file, &mut file.clone(), &ctx, &root, keys).expect("a delete in memory");
        let fresh = file.live().keys().filter(|page| !before.contains_key(page)).count();
        most = most.max(fresh);
    }
    println!("purge of the oldest: {most} extents written at most");
    assert!(most <= 4, "{most} extents: two branches, what is left of a leaf, and its neighbour at most");
}

#[test]
fn leaves_that_a_purge_left_almost_empty_between_full_ones_are_joined() {
    let (file, mut ctx, root) = revisions();
    let stats = tree::verify(&file, &ctx, &root, &mut |_| {}).expect("a sound tree");
    let a_leaf = ENTRIES / stats.leaves;
    (ctx.seq, _) = (2, file.begin(2));
    let keys = (0..ENTRIES).filter(|main| (main / a_leaf).is_multiple_of(2) && main % 50 != 0).map(revision);
    let root = tree::delete_sorted(&file, &mut file.clone(), &ctx, &root, keys).expect("a delete in memory");
    let stats = tree::verify(&file, &ctx, &root, &mut |_| {}).expect("a sound tree");
    let per_live = (stats.pages * PAGE_BYTES as u64) as f64 / stats.bytes as f64;
    println!("after a purge of every second leaf: {per_live:.3} file bytes a live byte");
    assert!(per_live < 1.1, "{per_live} bytes of file a byte of keys and values");
}

#[test]
fn keys_put_at_random_fill_most_of_their_pages() {
    let seed = seed("fill of ordered trees", 99);
    for (pages, file_per_live_max) in [(1, 1.9), (2, 1.2), (4, 1.2)] {
        let (file, mut rng) = (MemFile::new(), Rng(seed));
        let mut ctx = ctx(Shape::ordered(pages), Weight::One);
        let mut root = TreeRoot::EMPTY;
        let mut model = Model::new();
        for seq in 1..=40 {
            (ctx.seq, _) = (seq, file.begin(seq));
            let batch: Model = (0..1000)
                .map(|_| (format!("/registry/{:016x}", rng.next()).into_bytes(), rng.bytes(45)))
                .collect();
            let changes = batch.iter().map(|(key, value)| (key, Some(value)));
            root = tree::merge(&file, &mut file.clone(), &ctx, &root, changes).expect("a merge in memory");
            model.extend(batch);
            file.settle();
        }
        let stats = check_whole(&file, &ctx, &root, &model);
        let per_live = (stats.pages * PAGE_BYTES as u64) as f64 / stats.bytes as f64;
        println!(
            "ordered, leaves of {pages} pages: {} leaves, {per_live:.3} file bytes a live byte, {:.2} of pages used",
            stats.leaves,
            stats.used as f64 / (stats.pages * PAGE_BYTES as u64) as f64
        );
        assert!(per_live < file_per_live_max, "{per_live} bytes of file a byte of keys and values");
    }
}
