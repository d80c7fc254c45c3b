// SPDX-License-Identifier: Apache-2.0
//! Golden bytes: what format 1 looks like on disk, for every kind of node.
//!
//! Owns      the texts under `tests/golden`, one file of pages each. `CAIRN_BLESS=1` writes them anew.
//! Holds     1. the same input gives the same bytes;
//!           2. a file of a format that was once released reads for ever: a text is added for a new format, and none
//!              is changed.
//! Never     explains the bytes; that is `format/`.

use std::fmt::Write;
use std::path::PathBuf;

use cairn_engine::page::{PAGE_BYTES, TreeRoot};
use cairn_engine::tree::{self, Ctx, Shape, Weight};

use crate::support::*;

const ROW: usize = 32;

/// A tree whose nodes are of every kind, and the input that made it.
fn build(name: &str) -> (MemFile, Ctx, TreeRoot, Model) {
    let (file, mut model) = (MemFile::new(), Model::new());
    let mut ctx = ctx(Shape::ordered(1), Weight::Of(by_first_byte));
    match name {
        "leaf" => {
            for (key, value) in [("", "no key"), ("alpha", "1"), ("alpine", ""), ("alps", "three")] {
                model.insert(key.into(), value.into());
            }
        }
        "branch" => {
            for number in 0..400u32 {
                model.insert(
                    format!("/registry/pods/{number:05}").into_bytes(),
                    number.to_le_bytes()[..2].to_vec(),
                );
            }
        }
        "long-and-large" => {
            let long = |last: u8| [&[b'k'; 1500][..], &[last]].concat();
            model.insert(long(b'a'), b"of a long key".to_vec());
            model.insert(long(b'b'), b"of its neighbour".to_vec());
            let mut large = vec![0; 20_000];
            (large[0], large[10_000], large[19_999]) = (1, 2, 3);
            model.insert(b"large".to_vec(), large);
        }
        "wide" => {
            ctx.shape = Shape::append(32);
            for number in 0..6u8 {
                let mut value = vec![0; 16 * 1024];
                (value[0], value[16 * 1024 - 1]) = (number, number);
                model.insert(vec![0, number], value);
            }
        }
        other => panic!("no golden tree {other}"),
    }
    ctx.seq = 3;
    file.begin(3);
    let changes = model.iter().map(|(key, value)| (key, Some(value)));
    let root =
        tree::merge(&file, &mut file.clone(), &ctx, &TreeRoot::EMPTY, changes).expect("a build in memory");
    (file, ctx, root, model)
}

const NAMES: [&str; 4] = ["leaf", "branch", "long-and-large", "wide"];

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/tree-v1-{name}.txt"))
}

/// The root, the number of pages, and all rows that are not zero.
fn dump(root: &TreeRoot, image: &[u8]) -> String {
    let mut out = format!("root {}\npages {}\n", hex(&root.encode()), image.len() / PAGE_BYTES);
    for (row, bytes) in image.chunks(ROW).enumerate().filter(|(_, bytes)| bytes.iter().any(|byte| *byte != 0))
    {
        let at = row * ROW;
        writeln!(out, "{}+{:03x} {}", at / PAGE_BYTES, at % PAGE_BYTES, hex(bytes))
            .expect("a string takes all");
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("two hex digits");
    (0..text.len()).step_by(2).map(digit).collect()
}

/// The file that a text describes.
fn load(text: &str) -> (TreeRoot, MemFile) {
    let mut lines = text.lines();
    let mut field =
        |name: &str| lines.next().and_then(|line| line.strip_prefix(name)).expect("a field").to_string();
    let root = unhex(&field("root "));
    let root = TreeRoot::decode(root[..].try_into().expect("48 bytes")).expect("a sound root");
    let pages: usize = field("pages ").parse().expect("a number");
    let file = MemFile::new();
    file.damage(|bytes| {
        bytes.resize(pages * PAGE_BYTES, 0);
        for line in lines {
            let (place, row) = line.split_once(' ').expect("place and bytes");
            let (page, at) = place.split_once('+').expect("page and offset");
            let page: usize = page.parse().expect("a page number");
            let at = page * PAGE_BYTES + usize::from_str_radix(at, 16).expect("an offset");
            bytes[at..at + ROW].copy_from_slice(&unhex(row));
        }
    });
    (root, file)
}

#[test]
fn the_same_input_gives_the_golden_bytes() {
    for name in NAMES {
        let (file, _, root, _) = build(name);
        let found = dump(&root, &file.image());
        if std::env::var_os("CAIRN_BLESS").is_some() {
            std::fs::write(path(name), &found).expect("the golden text is writable");
        }
        let want = std::fs::read_to_string(path(name)).expect("the golden text is there");
        let differs = want.lines().zip(found.lines()).find(|(want, found)| want != found);
        assert!(want == found, "{name}: the format changed: {differs:?}");
    }
}

#[test]
fn a_golden_file_reads_as_what_was_put_in() {
    for name in NAMES {
        let text = std::fs::read_to_string(path(name)).expect("the golden text is there");
        let (root, file) = load(&text);
        let (_, ctx, _, model) = build(name);
        assert!(read_all(&file, &ctx, &root).expect("a golden file reads") == model, "{name}");
        let stats = tree::verify(&file, &ctx, &root, &mut |_| {}).expect("a golden file verifies");
        assert_eq!(stats.entries, model.len() as u64, "{name}");
        for (key, value) in &model {
            assert_eq!(
                tree::get(&file, &ctx, &root, key).expect("a read").as_deref(),
                Some(&value[..]),
                "{name}"
            );
        }
    }
}

#[test]
fn every_root_and_pointer_comes_back_from_its_bytes() {
    for name in NAMES {
        let (_, _, root, _) = build(name);
        assert_eq!(TreeRoot::decode(&root.encode()), Some(root));
    }
    assert_eq!(TreeRoot::decode(&TreeRoot::EMPTY.encode()), Some(TreeRoot::EMPTY));
    let mut contradiction = TreeRoot::EMPTY.encode();
    contradiction[32] = 1;
    assert_eq!(TreeRoot::decode(&contradiction), None, "entries in an empty tree");
}
