// SPDX-License-Identifier: Apache-2.0
//! Damage: whatever happens to the bytes of a file, reads answer what was written, or an error that names the place.
//!
//! Owns      files with every kind of page, the ways to damage them, and the judgement of each outcome.
//! Holds     1. an outcome is exactly one of two: equal to the model, or `Error::Corrupt` with file and offset;
//!           2. `verify` finds all damage to what the tree reaches, and complains of nothing else.
//! Never     corrects checksums; `fuzz.rs` does.

use std::ops::Bound;

use cairn_engine::Error;
use cairn_engine::format::header::Header;
use cairn_engine::page::{PAGE_BYTES, TreeRoot};
use cairn_engine::tree::{self, Ctx, ExtentKind, Shape, Weight};

use crate::support::*;

/// Cases of pages damaged as wholes.
const PAGE_CASES: u64 = 20_000;
const PAGE_CASES_FULL: u64 = 200_000;

struct Tree {
    file: MemFile,
    ctx: Ctx,
    root: TreeRoot,
    model: Model,
}

/// What reading a damaged tree came to.
struct Outcome {
    verify_failed: bool,
    reads_failed: u64,
}

impl Tree {
    fn merge(&mut self, seq: u64, changes: &[(Vec<u8>, Option<Vec<u8>>)]) {
        self.ctx.seq = seq;
        self.file.begin(seq);
        let borrowed = changes.iter().map(|(key, change)| (key, change.as_ref()));
        self.root = tree::merge(&self.file, &mut self.file.clone(), &self.ctx, &self.root, borrowed)
            .expect("a merge into a sound tree");
        for (key, change) in changes {
            match change {
                Some(value) => self.model.insert(key.clone(), value.clone()),
                None => self.model.remove(key),
            };
        }
    }

    /// Every page the tree reaches, and the extent it belongs to.
    fn reached(&self) -> Vec<(u64, u16, ExtentKind)> {
        let mut extents = Vec::new();
        tree::verify(&self.file, &self.ctx, &self.root, &mut |extent| {
            extents.push((extent.page.get(), extent.npages, extent.kind));
        })
        .expect("a sound tree verifies");
        extents
    }

    /// Reads in every way and compares. Panics where an answer is wrong, or an error lacks its place.
    fn outcome(&self, rng: &mut Rng) -> Outcome {
        let Tree { file, ctx, root, model } = self;
        let mut reads_failed = 0;
        let mut judge = |result: Result<bool, Error>| match result {
            Ok(equal) => assert!(equal, "damage was served"),
            Err(error) => {
                self.judge_error(&error);
                reads_failed += 1;
            }
        };
        judge(read_all(file, ctx, root).map(|found| found == *model));
        for _ in 0..6 {
            let at = rng.below(model.len() as u64) as usize;
            let (key, value) = model.iter().nth(at).expect("an entry of the model");
            judge(tree::get(file, ctx, root, key).map(|found| found.as_deref() == Some(&value[..])));
            let below = tree::weight(file, ctx, root, Bound::Unbounded, Bound::Excluded(key));
            let want: u64 = model.range::<Vec<u8>, _>(..key).map(|(key, value)| weigh(ctx, key, value)).sum();
            judge(below.map(|found| found == want));
        }
        let verified = tree::verify(file, ctx, root, &mut |_| {});
        if let Err(error) = &verified {
            self.judge_error(error);
        }
        assert!(verified.is_err() || reads_failed == 0, "verify missed what a read found");
        Outcome { verify_failed: verified.is_err(), reads_failed }
    }

    fn judge_error(&self, error: &Error) {
        let Error::Corrupt(place) = error else { panic!("damage came out as another error: {error}") };
        let (offset, page) = (place.offset.expect("an offset"), place.page.expect("a page"));
        assert_eq!(place.file.to_str(), Some("test.db"));
        assert_eq!(offset / PAGE_BYTES as u64, page);
        assert!(!place.what.is_empty());
    }
}

/// A small file with leaves and branches of one page and of two, values and keys in blobs, and separators in blobs.
fn every_kind(uuid: u64) -> Tree {
    let mut ctx =
        ctx(Shape { leaf_bytes: 2000, branch_bytes: 8192, fill: 100, join: 50 }, Weight::Of(by_first_byte));
    ctx.uuid = uuid;
    let mut rng = Rng(5);
    let mut changes = vec![(b"!".to_vec(), Some(b"first".to_vec()))];
    for pair in 0..7u8 {
        let stem = [&[b'a' + pair][..], &rng.bytes(880)].concat();
        for last in [b'0', b'1'] {
            // One entry a leaf, so that a separator must tell the two apart.
            changes.push(([&stem[..], &[last]].concat(), Some(rng.bytes(1100))));
        }
    }
    let long = vec![b'm'; 1500];
    for last in 0..8u8 {
        changes.push(([&long[..], &[last]].concat(), Some(rng.bytes(300))));
    }
    changes.push((b"n".to_vec(), Some(rng.bytes(5000))));
    changes.push((b"o".to_vec(), Some(rng.bytes(18_000))));
    let mut tree = Tree { file: MemFile::new(), ctx, root: TreeRoot::EMPTY, model: Model::new() };
    tree.merge(1, &changes);
    tree
}

/// A tree with a history: what each of its checkpoints left on disk is kept.
fn with_history(seed: u64, uuid: u64) -> (Tree, Vec<Vec<u8>>) {
    let mut rng = Rng(seed);
    let shape = Shape { leaf_bytes: *rng.pick(&[1000, 4096, 8192]), branch_bytes: 700, fill: 85, join: 50 };
    let mut ctx = ctx(shape, Weight::Of(by_first_byte));
    ctx.uuid = uuid;
    let mut tree = Tree { file: MemFile::new(), ctx, root: TreeRoot::EMPTY, model: Model::new() };
    let mut images = Vec::new();
    for seq in 1..=8 {
        let mut batch = std::collections::BTreeMap::new();
        for _ in 0..40 {
            let mut key = format!("key-{:03}", rng.below(120)).into_bytes();
            if rng.one_in(20) {
                key = [&[b'l'; 1200][..], &key].concat();
            }
            let len = if rng.one_in(30) { 17_000 + rng.below(9_000) } else { rng.below(300) };
            let value = rng.bytes(len as usize);
            batch.insert(key, if rng.one_in(5) { None } else { Some(value) });
        }
        tree.merge(seq, &batch.into_iter().collect::<Vec<_>>());
        images.push(tree.file.image());
        tree.file.reuse();
    }
    (tree, images)
}

#[test]
pub fn every_flipped_byte_is_found_or_does_not_matter() {
    let mut rng = Rng(seed("flips", 4711));
    let mut tree = every_kind(1);
    if full() {
        // The same kinds, and a mebibyte in all.
        let more: Vec<_> =
            (0..460u32).map(|number| (number.to_be_bytes().to_vec(), Some(rng.bytes(700)))).collect();
        tree.merge(2, &more);
        tree.file.settle();
    }
    tree.file.remember(true);
    let extents = tree.reached();
    let reachable = |page: u64| {
        extents.iter().any(|(first, npages, _)| (*first..first + u64::from(*npages)).contains(&page))
    };
    for (kind, pages_least) in [(ExtentKind::Leaf, 2), (ExtentKind::Branch, 2), (ExtentKind::Blob, 5)] {
        let most = extents.iter().filter(|extent| extent.2 == kind).map(|extent| extent.1).max();
        assert!(most >= Some(pages_least), "no {kind:?} of {pages_least} pages in the file");
    }
    let (mut flips, mut found, mut unread) = (0u64, 0u64, 0u64);
    for page in 16..tree.file.pages() {
        let reachable = reachable(page);
        for at in page as usize * PAGE_BYTES..(page as usize + 1) * PAGE_BYTES {
            let bits = 1 + rng.below(255) as u8;
            tree.file.flip(at, bits);
            let outcome = tree.outcome(&mut rng);
            tree.file.flip(at, bits);
            assert_eq!(outcome.verify_failed, reachable, "flip at offset {at} of page {page}");
            flips += 1;
            found += u64::from(outcome.reads_failed > 0);
            unread += u64::from(outcome.verify_failed && outcome.reads_failed == 0);
        }
    }
    println!("flips: {flips} bytes, {found} found by reads, {unread} found by verify alone");
    let least = if full() { 1 << 20 } else { 80_000 };
    assert!(flips >= least && found > flips / 2, "{flips} flips are too few");
    println!("score: tree-bytes-flipped {flips} >={least} ok");
}

#[test]
pub fn pages_zeroed_swapped_stale_foreign_or_torn_are_found() {
    let seed = seed("damaged pages", 1234);
    let cases = if full() { PAGE_CASES_FULL } else { PAGE_CASES };
    let per_tree = 1000;
    let mut counts = [0u64; WAYS.len()];
    let (mut consistent, mut failed_reads) = (0u64, 0u64);
    for round in 0..cases / per_tree {
        let mut rng = Rng(seed ^ (round << 32));
        let (tree, images) = with_history(seed ^ round, 1);
        let (_, foreign) = with_history(seed ^ round, 2);
        let extents = tree.reached();
        let sound = tree.file.image();
        tree.file.remember(rng.one_in(2));
        let mut done = 0;
        while done < per_tree {
            let way = rng.below(WAYS.len() as u64) as usize;
            let (first, npages, _) = *rng.pick(&extents);
            let (image, whole) =
                damage(WAYS[way], &mut rng, &sound, &images, &foreign, first, npages, &extents);
            if image == sound {
                continue;
            }
            tree.file.damage(|bytes| *bytes = image);
            let outcome = tree.outcome(&mut rng);
            assert!(outcome.verify_failed, "{} at page {first} was missed", WAYS[way]);
            failed_reads += u64::from(outcome.reads_failed > 0);
            consistent += u64::from(whole);
            counts[way] += 1;
            done += 1;
        }
        tree.file.damage(|bytes| *bytes = sound);
        assert!(!tree.outcome(&mut rng).verify_failed, "the sound image does not verify");
    }
    for (way, count) in WAYS.iter().zip(counts) {
        println!("damaged pages: {way}: {count}");
        assert!(count >= cases / 40, "{way} came up {count} times only");
    }
    println!(
        "damaged pages: {consistent} extents were consistent in themselves, {failed_reads} found by reads"
    );
    assert!(consistent >= cases / 40 && failed_reads >= cases / 2);
    println!("score: tree-pages-damaged {} >={cases} ok", counts.iter().sum::<u64>());
}

const WAYS: [&str; 10] = [
    "zeroed page",
    "zeroed extent",
    "swapped pages",
    "swapped extents",
    "stale page",
    "stale extent",
    "foreign page",
    "foreign extent",
    "torn by sectors",
    "file cut short",
];

/// The damaged image, and whether it holds a whole extent that once was right in this very place.
#[expect(clippy::too_many_arguments, reason = "a case is made of all of these")]
fn damage(
    way: &str,
    rng: &mut Rng,
    sound: &[u8],
    images: &[Vec<u8>],
    foreign: &[Vec<u8>],
    first: u64,
    npages: u16,
    extents: &[(u64, u16, ExtentKind)],
) -> (Vec<u8>, bool) {
    let mut image = sound.to_vec();
    let extent = first as usize * PAGE_BYTES..(first as usize + usize::from(npages)) * PAGE_BYTES;
    let page_at = extent.start + rng.below(npages.into()) as usize * PAGE_BYTES;
    let page = page_at..page_at + PAGE_BYTES;
    let mut whole = false;
    let from = |other: &Vec<u8>, range: &std::ops::Range<usize>| match other.get(range.clone()) {
        Some(bytes) => bytes.to_vec(),
        None => vec![0; range.len()],
    };
    match way {
        "zeroed page" => image[page].fill(0),
        "zeroed extent" => image[extent].fill(0),
        "swapped pages" => {
            let (other, other_pages, _) = *rng.pick(extents);
            let other_at = (other + rng.below(other_pages.into())) as usize * PAGE_BYTES;
            image[page].copy_from_slice(&sound[other_at..other_at + PAGE_BYTES]);
            image[other_at..other_at + PAGE_BYTES].copy_from_slice(&sound[page_at..page_at + PAGE_BYTES]);
        }
        "swapped extents" => {
            let same: Vec<_> = extents.iter().filter(|other| other.1 == npages).collect();
            let other_at = rng.pick(&same).0 as usize * PAGE_BYTES;
            let other = other_at..other_at + extent.len();
            image[other.clone()].copy_from_slice(&sound[extent.clone()]);
            image[extent].copy_from_slice(&sound[other]);
        }
        "stale page" => image[page.clone()].copy_from_slice(&from(rng.pick(images), &page)),
        "stale extent" => {
            let stale = from(rng.pick(images), &extent);
            whole =
                Header::decode(&stale).is_ok_and(|head| head.npages == npages && head.page.get() == first);
            image[extent].copy_from_slice(&stale);
        }
        "foreign page" => {
            image[page.clone()].copy_from_slice(&from(foreign.last().expect("an image"), &page));
        }
        "foreign extent" => {
            image[extent.clone()].copy_from_slice(&from(foreign.last().expect("an image"), &extent));
        }
        "torn by sectors" => {
            let other = rng.pick(images);
            for sector in 0..PAGE_BYTES / 512 {
                let sector = page_at + sector * 512..page_at + (sector + 1) * 512;
                if rng.one_in(2) {
                    let torn = if rng.one_in(3) { vec![0; 512] } else { from(other, &sector) };
                    image[sector].copy_from_slice(&torn);
                }
            }
        }
        "file cut short" => image.truncate(page_at),
        other => panic!("no way of damage {other}"),
    }
    (image, whole)
}
