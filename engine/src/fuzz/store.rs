// SPDX-License-Identifier: Apache-2.0
//! The fuzz target of a whole tree file: any bytes, with every checksum made right from the leaves up, are opened and
//! walked by everything that reads.
//!
//! Owns      the store that inputs are made of, the repair, and what is done with an input.
//! Holds     the repair follows pointers as a reader would, and no further than a bound.
//! Never     writes to a store whose map may lie: what a reader must survive is the subject.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::{Target, pages};
use crate::db::Db;
use crate::error::{Error, Result};
use crate::format::blob::BlobRef;
use crate::format::header::{Header, Kind, seal};
use crate::format::node::{Layout, ValueCell};
use crate::format::slot;
use crate::inspect::{Findings, Store};
use crate::io::{Budget, Vfs};
use crate::options::{Growth, Options};
use crate::page::{NODE_PTR_BYTES, NodePtr, PAGE_BYTES, PageBuf, PageId, PageSource};
use crate::schema::{InstallId, Schema, TreeDef, TreeKind};
use crate::scrub::Scrub;
use crate::sim::SimVfs;
use crate::space::fuzz as bitmap;
use crate::view::{CommitMeta, View};

const DIR: &str = "/fuzz";
const FILE: &str = "/fuzz/engine.db";

fn length(_: &[u8], value: &[u8]) -> u64 {
    value.len() as u64
}

const LOG: TreeDef = TreeDef { id: 1, name: "log", kind: TreeKind::Append, leaf_pages: 1, weight: length };
const MAP: TreeDef = TreeDef { id: 2, name: "map", kind: TreeKind::Ordered, leaf_pages: 1, weight: length };
pub(super) const SCHEMA: Schema = &[LOG, MAP];

pub(super) const OPEN_AND_WALK: Target = Target {
    name: "open-and-walk",
    run: open_and_walk,
    fix: |image| fix(image),
    samples: || vec![image(1), image(3)],
    anchors: pages,
};

/// Extents that the repair looks at, and entries that a walk asks for.
const STEPS_MAX: u64 = 2_000;

pub(super) fn options(disk: &SimVfs) -> Options {
    Options {
        vfs: Arc::new(disk.clone()),
        growth: Growth { first_bytes: 1 << 16, step_bytes: 1 << 16, step_bytes_max: 1 << 16 },
        node_bytes_max: 600,
        ..Options::default()
    }
}

/// A store of so many checkpoints, with every kind of node.
pub(super) fn store(disk: &SimVfs, checkpoints: u64) -> Db {
    let db = Db::create(Path::new(DIR), SCHEMA, InstallId(7), options(disk)).expect("a new store");
    for n in 0..checkpoints {
        let mut txn = db.begin().expect("healthy");
        for sub in 0..12 {
            let key = (u128::from(n + 1) << 64 | u128::from(sub as u64)).to_be_bytes();
            txn.append(&LOG, key, Bytes::from(vec![sub; 30]));
            let value = Bytes::from(vec![sub; usize::from(sub) * 7]);
            txn.put(&MAP, format!("pods/{n}/{sub}").as_bytes(), value, i64::from(sub) * 7);
        }
        txn.put(&MAP, &[&[b'q'; 1300][..], &[n as u8]].concat(), Bytes::from_static(b"long"), 4);
        txn.put(&MAP, &[b'x', n as u8], Bytes::from(vec![n as u8; 17_000]), 17_000);
        let meta = CommitMeta { applied_index: n + 1, applied_term: 1, owner: Bytes::from_static(b"o") };
        txn.commit(meta, n).expect("commits");
        db.checkpoint().expect("makes a checkpoint");
    }
    db
}

fn image(checkpoints: u64) -> Vec<u8> {
    let disk = SimVfs::new();
    drop(store(&disk, checkpoints));
    disk.contents(Path::new(FILE)).expect("is there")
}

/// Opens the image and reads it in every way there is. True if nothing was wrong with it.
fn open_and_walk(image: &[u8]) -> bool {
    let disk = SimVfs::new();
    disk.stop_recording();
    disk.plant(Path::new(FILE), image);
    let mut sound = look(&disk);
    let opened = judge(Db::open(Path::new(DIR), SCHEMA, options(&disk)));
    let Some((db, _)) = opened else { return false };
    sound &= judge(db.verify()).is_some();
    sound &= judge(read(&db.view())).is_some();
    let mut scrub = Scrub::default();
    for _ in 0..STEPS_MAX {
        let step = db.scrub(&mut scrub, Budget::bytes(1 << 20));
        sound &= step.damage.is_empty();
        if step.pass_ended {
            break;
        }
    }
    sound
}

/// As the tool does, from outside.
fn look(disk: &SimVfs) -> bool {
    let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
    let Some(store) = judge(Store::open(&vfs, Path::new(DIR), SCHEMA)) else { return false };
    let (mut findings, mut extents) = (Findings::default(), Vec::new());
    store.check_head(&mut findings);
    for tree in SCHEMA {
        judge(store.check_tree(tree, &mut findings, &mut |extent| {
            extents.push((extent.page.get(), u64::from(extent.npages)));
            Ok(())
        }));
    }
    judge(store.check_space(extents, findings.count == 0, &mut findings));
    findings.count == 0
}

/// What a reader does: one key, a range's weight, and a walk both ways.
fn read(view: &View) -> Result<()> {
    use std::ops::Bound::{Excluded, Unbounded};
    for tree in SCHEMA {
        for key in [&b"pods/0/7"[..], b"x\0", &[b'q'; 1300], &[0; 16]] {
            view.get(tree, key)?;
            view.weight(tree, Unbounded, Excluded(key))?;
        }
        let mut cursor = view.cursor(tree);
        let mut steps = 0;
        while steps < STEPS_MAX && cursor.next()?.is_some() {
            steps += 1;
        }
        while steps > 0 && cursor.prev()?.is_some() {
            steps -= 1;
        }
    }
    Ok(())
}

/// The answer, or `None` where the bytes were refused, which they are by name.
///
/// # Panics
/// If the error is none that bytes can cause.
pub(super) fn judge<T>(result: Result<T>) -> Option<T> {
    match result {
        Ok(answer) => Some(answer),
        Err(Error::Corrupt(_) | Error::Format(_) | Error::Transfer(_)) => None,
        // A refused slot with a number far ahead looks like a writer that is.
        Err(Error::Overtaken { .. }) => None,
        // A pointer past the end of the file.
        Err(Error::Io(failure)) if failure.source.kind() == std::io::ErrorKind::UnexpectedEof => None,
        Err(other) => panic!("bytes alone led to: {other}"),
    }
}

/// Makes every checksum of a tree file right, from the leaves up.
fn fix(image: &mut Vec<u8>) {
    let pages = (image.len() / PAGE_BYTES).max(16);
    image.resize(pages * PAGE_BYTES, 0);
    for copy in 0..2 {
        fix_page_crc(image, copy);
    }
    let uuid = u64_at(image, 32);
    let versions: Vec<(u64, u32)> = bitmap::map_pages()
        .map(|page| bitmap::fix_page(&mut image[page as usize * PAGE_BYTES..][..PAGE_BYTES]))
        .collect();
    let mut slots: Vec<(u64, usize)> = slot::positions()
        .map(|at| (u64_at(image, at.byte_offset() as usize + 8), at.get() as usize))
        .filter(|(seq, _)| *seq > 0)
        .collect();
    slots.sort_unstable();
    let mut repair = Repair { image, uuid, steps: 0 };
    let mut before: Option<(u64, u32)> = None;
    for (seq, page) in slots {
        repair.slot(page, seq, &versions, before);
        before = Some((seq, slot::crc(&repair.image[page * PAGE_BYTES..][..PAGE_BYTES])));
    }
}

fn fix_page_crc(image: &mut [u8], page: usize) {
    let page = &mut image[page * PAGE_BYTES..][..PAGE_BYTES];
    let crc = crc32fast::hash(&page[..PAGE_BYTES - 4]);
    page[PAGE_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("inside a file of some pages"))
}

struct Repair<'i> {
    image: &'i mut [u8],
    uuid: u64,
    steps: u64,
}

impl Repair<'_> {
    fn slot(&mut self, page: usize, seq: u64, versions: &[(u64, u32)], before: Option<(u64, u32)>) {
        let at = page * PAGE_BYTES;
        for root in slot::root_offsets() {
            let height = self.image[at + root + NODE_PTR_BYTES];
            if height > 0 {
                self.pointer(at + root, height - 1);
            }
        }
        let high_water = u64_at(self.image, at + 48);
        if let Some(digest) = bitmap::digest_of(versions, seq, high_water) {
            self.image[at + 56..at + 60].copy_from_slice(&digest.to_le_bytes());
        }
        if let Some((_, crc)) = before.filter(|(before, _)| before + 1 == seq) {
            self.image[at + 60..at + 64].copy_from_slice(&crc.to_le_bytes());
        }
        fix_page_crc(self.image, page);
    }

    /// The pointer at `at`, and what it leads to.
    fn pointer(&mut self, at: usize, level: u8) {
        let Some(ptr) = self.image.get(at..).and_then(|bytes| bytes.first_chunk()) else { return };
        let ptr = NodePtr::decode(ptr);
        if let Some(crc) = self.extent(ptr.page, ptr.npages, level) {
            self.image[at + 8..at + 12].copy_from_slice(&crc.to_le_bytes());
        }
    }

    /// The reference to a blob at `at`, and the blob.
    fn blob(&mut self, at: usize) {
        let Some(blob) = self.image.get(at..).and_then(|bytes| bytes.first_chunk()) else { return };
        let blob = BlobRef::decode(blob);
        if let Some(crc) = self.extent(blob.page, blob.npages, 0) {
            self.image[at + 12..at + 16].copy_from_slice(&crc.to_le_bytes());
        }
    }

    /// What an extent leads to, then its own checksums. Answers that of its header page.
    fn extent(&mut self, page: PageId, npages: u16, level: u8) -> Option<u32> {
        self.steps += 1;
        let at = usize::try_from(page.byte_offset()).ok()?;
        let len = usize::from(npages) * PAGE_BYTES;
        let extent = self.image.get(at..at.checked_add(len)?)?.to_vec();
        if extent.is_empty() || at < 16 * PAGE_BYTES || self.steps > STEPS_MAX {
            return None;
        }
        if let Ok(header) = Header::decode(&extent) {
            match header.kind {
                Kind::Blob => self.blob(at + header.body_at()),
                Kind::Leaf | Kind::Branch => self.node(at, &extent, &header, level),
            }
        }
        let birth = u64_at(&extent, 32);
        Some(seal(&mut self.image[at..at + len], self.uuid, page, birth))
    }

    fn node(&mut self, at: usize, extent: &[u8], header: &Header, level: u8) {
        let Ok(mut layout) = Layout::open(header) else { return };
        if layout.close(extent).is_err() {
            return;
        }
        for index in 0..layout.count() {
            if let Ok(key) = layout.key(extent, index)
                && key.tail.is_some()
            {
                // The reference lies behind what the node keeps of the key.
                let suffix = key.suffix.as_ptr() as usize - extent.as_ptr() as usize;
                self.blob(at + suffix + key.suffix.len());
            }
            match header.kind {
                Kind::Branch if level > 0 => {
                    self.pointer(at + layout.child_at(index), level - 1);
                }
                Kind::Leaf if matches!(layout.value(extent, index), Ok(ValueCell::Blob(_))) => {
                    let span = layout.value_span(extent, index).expect("a cell has a place");
                    self.blob(at + span.start);
                }
                _ => {}
            }
        }
    }
}

/// A source of an empty tree.
#[derive(Debug)]
pub(super) struct Nothing;

impl PageSource for Nothing {
    fn extent(&self, first: PageId, _: u32) -> Result<PageBuf> {
        panic!("page {first} of an empty tree")
    }

    fn is_verified(&self, _: PageId) -> bool {
        false
    }

    fn set_verified(&self, _: PageId) {}
}
