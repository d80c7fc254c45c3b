// SPDX-License-Identifier: Apache-2.0
//! Decoding of bytes that pass their checksums and are wrong all the same.
//!
//! Owns      the bodies that a fuzzer would call, their seeded corpus, and the table of fields of a header.
//! Holds     no input makes a panic, a walk without end, or a read of more than the file holds.
//! Never     tests checksums; `damage.rs` does.

use std::ops::Bound;

use cairn_engine::Error;
use cairn_engine::format::blob::Segment;
use cairn_engine::format::header::{Header, Kind, seal};
use cairn_engine::format::node::Layout;
use cairn_engine::page::{NodePtr, PAGE_BYTES, PageId, TreeRoot};
use cairn_engine::tree::{self, Ctx, Shape, Weight};

use crate::support::*;

const INPUTS: u64 = 30_000;
const INPUTS_FULL: u64 = 1_000_000;
/// What one walk of a damaged tree may take: pointers that lead to one child many times make it long, never endless.
const STEPS_MAX: u64 = 5_000;

/// The body for arbitrary bytes: everything that decoding offers, on one extent.
fn decode_all(bytes: &[u8]) -> bool {
    let Ok(header) = Header::decode(bytes) else { return false };
    if header.kind == Kind::Blob {
        let sound = [0, 1, 1000, u32::MAX].map(|len| Segment::decode(&header, bytes, len).is_ok());
        return sound.contains(&true);
    }
    let Ok(mut layout) = Layout::open(&header) else { return false };
    if layout.close(bytes).is_err() {
        return false;
    }
    assert!(layout.arrays_end() <= layout.keys_end() && layout.keys_end() <= header.used as usize);
    let mut sound = layout.check_end(bytes).is_ok() && layout.prefix(bytes).is_ok();
    assert!(layout.key(bytes, layout.count()).is_err(), "an entry behind the last");
    for index in 0..layout.count() {
        sound &= layout.key(bytes, index).is_ok();
        sound &= layout.value(bytes, index).is_ok() || layout.child(bytes, index).is_ok();
    }
    sound
}

/// Changes a few bytes where they matter most: in the header, in the arrays behind it, or anywhere.
fn mutate(rng: &mut Rng, bytes: &mut [u8]) {
    for _ in 0..1 + rng.below(4) {
        let end = bytes.len() as u64;
        let at = match rng.below(4) {
            0 => rng.below(48),
            1 => rng.below(256.min(end)),
            2 => rng.below(1024.min(end)),
            _ => rng.below(end),
        } as usize;
        let width = (*rng.pick(&[1, 2, 4])).min(bytes.len() - at);
        let value = match rng.below(5) {
            0 => 0,
            1 => u64::MAX,
            2 => rng.below(64),
            3 => u64::from(bytes[at]).wrapping_add(rng.below(3)).wrapping_sub(1),
            _ => rng.next(),
        };
        bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
    }
}

/// A tree with every kind of node, and the path of extents from its root to each.
struct Corpus {
    file: MemFile,
    ctx: Ctx,
    root: TreeRoot,
    extents: Vec<(PageId, u16)>,
    image: Vec<u8>,
}

fn corpus(leaf_bytes: usize) -> Corpus {
    let file = MemFile::new();
    let shape = Shape { leaf_bytes, branch_bytes: 400, fill: 85, join: 50 };
    let ctx = ctx(shape, Weight::Of(by_first_byte));
    let mut model = Model::new();
    for number in 0..60u8 {
        model.insert(format!("pods/{number:03}").into_bytes(), vec![number; usize::from(number)]);
    }
    for number in 0..4 {
        model.insert([&[b'q'; 1300][..], &[number]].concat(), vec![number; 10]);
        model.insert([b'x', number].to_vec(), vec![number; 17_000]);
    }
    file.begin(1);
    let changes = model.iter().map(|(key, value)| (key, Some(value)));
    let root =
        tree::merge(&file, &mut file.clone(), &ctx, &TreeRoot::EMPTY, changes).expect("a build in memory");
    let mut extents = Vec::new();
    tree::verify(&file, &ctx, &root, &mut |extent| extents.push((extent.page, extent.npages)))
        .expect("a sound tree");
    let image = file.image();
    Corpus { file, ctx, root, extents, image }
}

/// Sums the extent at `page` anew, then whatever points at it, up to the root.
fn correct(corpus: &Corpus, bytes: &mut [u8], page: PageId, npages: u16, root: &mut TreeRoot) {
    let mut changed = (page, npages);
    loop {
        let (page, npages) = changed;
        let at = page.byte_offset() as usize;
        let crc = seal(&mut bytes[at..at + usize::from(npages) * PAGE_BYTES], corpus.ctx.uuid, page, 1);
        let is_root = root.ptr.is_some_and(|ptr| ptr.page == page);
        if is_root {
            root.ptr = root.ptr.map(|ptr| NodePtr { crc, ..ptr });
            return;
        }
        let mut needle = page.get().to_le_bytes()[..6].to_vec();
        needle.extend(npages.to_le_bytes());
        let parent = corpus.extents.iter().copied().find_map(|(parent, parent_pages)| {
            let from = parent.byte_offset() as usize;
            let sound = &corpus.image[from..from + usize::from(parent_pages) * PAGE_BYTES];
            // Behind the header, which names the extent itself.
            let found = sound[64..].windows(needle.len()).position(|window| window == needle)?;
            (parent != page).then_some((parent, parent_pages, from + 64 + found))
        });
        let Some((parent, parent_pages, at)) = parent else { return };
        bytes[at + 8..at + 12].copy_from_slice(&crc.to_le_bytes());
        changed = (parent, parent_pages);
    }
}

/// The body for trees: every operation on a tree that is wrong somewhere. Answers whether any of them noticed.
fn use_all(file: &MemFile, ctx: &Ctx, root: &TreeRoot, rng: &mut Rng) -> bool {
    let mut noticed = false;
    let mut judge = |error: Option<Error>| match error {
        Some(Error::Corrupt(place)) => {
            assert!(place.offset.is_some() && place.page.is_some());
            noticed = true;
        }
        Some(error) => panic!("a wrong tree came out as {error}"),
        None => {}
    };
    judge(tree::verify(file, ctx, root, &mut |_| {}).err());
    let keys: [Vec<u8>; 4] = [b"pods/031".to_vec(), vec![b'q'; 1301], vec![b'x', 2], rng.bytes(6)];
    for key in &keys {
        judge(tree::get(file, ctx, root, key).err());
        judge(tree::weight(file, ctx, root, Bound::Included(&key[..]), Bound::Unbounded).err());
    }
    let mut cursor = tree::Cursor::new(file, ctx, root);
    for forward in [true, false] {
        for _ in 0..STEPS_MAX {
            let step = if forward { cursor.next() } else { cursor.prev() };
            let end = !matches!(step, Ok(Some(_)));
            judge(step.and_then(|entry| entry.map(|entry| entry.value()).transpose()).err());
            if end {
                break;
            }
        }
    }
    let changes: Vec<(&[u8], Option<&[u8]>)> = vec![
        (b"a", Some(b"new")),
        (b"pods/030", None),
        (b"pods/0301", Some(b"new")),
        (b"q", None),
        (b"z", Some(b"")),
    ];
    let mut sink = Scratch(0);
    judge(tree::merge(file, &mut sink, ctx, root, changes).err());
    judge(tree::append(file, &mut sink, ctx, root, [(vec![0xff; 40], b"last")]).err());
    assert!(sink.0 < 2_000, "{} pages written for five changes", sink.0);
    noticed
}

/// A sink that keeps nothing.
struct Scratch(u64);

impl cairn_engine::page::PageSink for Scratch {
    fn allocate(&mut self, npages: u32) -> Result<PageId, Error> {
        self.0 += u64::from(npages);
        Ok(PageId::new(1_000_000 + self.0))
    }

    fn write(&mut self, _: PageId, _: Vec<u8>) -> Result<(), Error> {
        Ok(())
    }

    fn release(&mut self, _: PageId, _: u32, _: u64) {}
}

#[test]
fn wrong_nodes_with_right_checksums_are_refused_or_read_and_never_panic() {
    let seed = seed("node fuzz", 31);
    let inputs = if full() { INPUTS_FULL } else { INPUTS };
    let (mut decoded, mut refused, mut noticed) = (0u64, 0u64, 0u64);
    let corpora = [corpus(500), corpus(8192)];
    for input in 0..inputs {
        let mut rng = Rng(seed ^ (input << 20));
        let corpus = rng.pick(&corpora);
        let (page, npages) = *rng.pick(&corpus.extents);
        let from = page.byte_offset() as usize;
        let to = from + usize::from(npages) * PAGE_BYTES;
        let mut image = corpus.image.clone();
        mutate(&mut rng, &mut image[from..to]);
        if decode_all(&image[from..to]) {
            decoded += 1
        } else {
            refused += 1
        }
        if rng.one_in(4) {
            let cut = rng.below((to - from) as u64) as usize;
            decode_all(&image[from..from + cut]);
        }
        let mut root = corpus.root;
        correct(corpus, &mut image, page, npages, &mut root);
        corpus.file.damage(|bytes| *bytes = image);
        corpus.file.remember(rng.one_in(2));
        noticed += u64::from(use_all(&corpus.file, &corpus.ctx, &root, &mut rng));
    }
    println!("node fuzz: {inputs} inputs, {decoded} decoded, {refused} refused, {noticed} noticed in use");
    assert!(decoded > inputs / 10 && refused > inputs / 10 && noticed > inputs / 3);
    println!("score: tree-fuzz-inputs {inputs} >={inputs} ok");
}

#[test]
fn each_field_of_a_header_is_looked_at_when_its_checksum_is_right() {
    // Offset, width and new value of a field, and what the error calls it, for leaf, branch and blob.
    const SAME: &str = "";
    #[rustfmt::skip]
    let table: [(usize, usize, u64, [&str; 3]); 14] = [
        (0, 4, 0x4242, ["magic"; 3]),
        (4, 1, 9, ["kind"; 3]),
        (5, 1, 9, ["level", "level in a header", "level"]),
        (6, 1, 6, ["tree in a header"; 3]),
        (7, 1, 0x80, ["flags"; 3]),
        (8, 4, 0, ["count", "count", SAME]),
        (8, 4, 60_000, ["count", "count", "count"]),
        (12, 4, 1 << 30, ["used bytes"; 3]),
        (12, 4, 70, ["arrays pass the used bytes", "arrays pass the used bytes", "bytes of a blob"]),
        (16, 2, 63, ["page count in a header"; 3]),
        (18, 2, 4000, ["arrays pass the used bytes", "arrays pass the used bytes", SAME]),
        (48, 1, 1, ["reserved bytes"; 3]),
        (63, 1, 1, ["reserved bytes"; 3]),
        (16, 2, 0, ["page count"; 3]),
    ];
    let corpus = corpus(500);
    let kinds = [Kind::Leaf, Kind::Branch, Kind::Blob].map(|kind| {
        let of_kind = |(page, _): &&(PageId, u16)| {
            Header::decode(&corpus.image[page.byte_offset() as usize..]).is_ok_and(|head| head.kind == kind)
        };
        *corpus.extents.iter().find(of_kind).expect("a node of each kind")
    });
    let mut checked = 0;
    for (at, width, value, names) in table {
        for ((page, npages), name) in kinds.into_iter().zip(names) {
            let mut image = corpus.image.clone();
            let field = page.byte_offset() as usize + at;
            image[field..field + width].copy_from_slice(&value.to_le_bytes()[..width]);
            let mut root = corpus.root;
            correct(&corpus, &mut image, page, npages, &mut root);
            corpus.file.damage(|bytes| *bytes = image);
            let outcome = tree::verify(&corpus.file, &corpus.ctx, &root, &mut |_| {});
            if name == SAME {
                outcome.unwrap_or_else(|error| panic!("field at {at}: {error}"));
                continue;
            }
            let Err(Error::Corrupt(place)) = outcome else {
                panic!("field at {at} set to {value}: {outcome:?}")
            };
            assert_eq!(
                (place.what.as_str(), place.page),
                (name, Some(page.get())),
                "field at {at} set to {value}"
            );
            checked += 1;
        }
    }
    println!("fields of headers: {checked} wrong values named");
    assert!(checked >= 38);
}

#[test]
fn fields_that_say_where_a_page_lies_are_compared_with_the_pointer() {
    let corpus = corpus(500);
    let ptr = corpus.root.ptr.expect("a tree with entries");
    let other = |change: &dyn Fn(&mut NodePtr)| {
        let mut ptr = ptr;
        change(&mut ptr);
        let root = TreeRoot { ptr: Some(ptr), ..corpus.root };
        match tree::get(&corpus.file, &corpus.ctx, &root, b"pods/001") {
            Err(Error::Corrupt(place)) => place.what.clone(),
            outcome => panic!("a wrong pointer was followed: {outcome:?}"),
        }
    };
    // Where no page is remembered, the salt makes the checksum fail first.
    assert_eq!(other(&|ptr| ptr.birth = 0), "checksum of a header page");
    assert_eq!(other(&|ptr| ptr.crc ^= 1), "checksum of a header page");
    assert_eq!(other(&|ptr| ptr.birth = 2), "birth of a pointer's target");
    assert_eq!(other(&|ptr| ptr.npages = 0), "pages of a pointer's target");
    assert_eq!(other(&|ptr| ptr.npages = 1000), "pages of a pointer's target");
    assert_eq!(other(&|ptr| ptr.page = PageId::new(0)), "pages of a pointer's target");
    assert_eq!(other(&|ptr| ptr.page = PageId::MAX), "extent beyond the file");
    // Where it is, the header itself is compared.
    corpus.file.damage(|bytes| bytes.resize(bytes.len() + PAGE_BYTES, 0));
    corpus.file.remember(true);
    tree::verify(&corpus.file, &corpus.ctx, &corpus.root, &mut |_| {}).expect("a sound tree");
    assert_eq!(other(&|ptr| ptr.birth = 0), "birth in a header");
    assert_eq!(other(&|ptr| ptr.crc ^= 1), "checksum in a header");
    assert_eq!(other(&|ptr| ptr.npages += 1), "page count in a header");
}
