// SPDX-License-Identifier: Apache-2.0
//! Fuzz targets of the tree file's decoders: one page or extent each.
//!
//! Never     follows a pointer: `store.rs` does.

use bytes::Bytes;

use super::{Target, fix_last, padded, start};
use crate::error::Error;
use crate::format::blob::Segment;
use crate::format::header::{Header, Kind, check_extent, seal};
use crate::format::node::Layout;
use crate::format::slot::{self, Slot};
use crate::format::superblock::Superblock;
use crate::page::{NodePtr, PAGE_BYTES, PageId, PageSink, TreeRoot};
use crate::schema::InstallId;
use crate::space::fuzz as bitmap;
use crate::tree::{self, Ctx, Shape, Weight};
use crate::view::CommitMeta;

pub(super) const UUID: u64 = 0x1122_3344_5566_7788;

pub(super) const SUPERBLOCK: Target = Target {
    name: "superblock",
    run: |input| Superblock::decode(&padded(input)).is_ok(),
    fix: |input| fix_last(input, PAGE_BYTES),
    samples: || vec![Superblock { uuid: UUID, install: InstallId(7) }.encode()],
    anchors: start,
};

pub(super) const SLOT: Target = Target {
    name: "slot",
    run: |input| {
        let page: [u8; PAGE_BYTES] = padded(input);
        let [seq, uuid] = [8, 16].map(|at| u64::from_le_bytes(padded(&page[at..at + 8])));
        let slot = Slot::decode(&page, uuid, slot::position(seq));
        if let Some(slot) = &slot {
            let again = padded(&slot.encode(uuid));
            assert_eq!(Slot::decode(&again, uuid, slot::position(seq)).as_ref(), Some(slot));
        }
        slot.is_some()
    },
    fix: |input| fix_last(input, PAGE_BYTES),
    samples: || {
        let ptr = NodePtr { page: PageId::new(77), npages: 8, crc: 0xdead_beef, birth: 5, weight: 1000 };
        let root = TreeRoot { ptr: Some(ptr), height: 2, entries: 1000, bytes: 64_000 };
        let slot = |trees: u8| Slot {
            seq: 6,
            meta: CommitMeta { applied_index: 42, applied_term: 3, owner: Bytes::from_static(b"owner") },
            stamp: 99,
            roots: (0..trees).map(|id| (id, if id % 2 == 0 { root } else { TreeRoot::EMPTY })).collect(),
            high_water: 85,
            map_digest: 1,
            previous_crc: 2,
            size_mark: 3,
        };
        vec![slot(0).encode(UUID), slot(3).encode(UUID), slot(32).encode(UUID)]
    },
    anchors: |_| vec![0, 64, 640, 700],
};

pub(super) const NODE: Target = Target {
    name: "node",
    run: extent,
    fix: fix_extent,
    samples: || extents().into_iter().filter(|extent| kind(extent) != Some(Kind::Blob)).collect(),
    anchors: |input| vec![0, 64, input.len() / 2],
};

pub(super) const BLOB: Target = Target {
    name: "blob",
    run: extent,
    fix: fix_extent,
    samples: || extents().into_iter().filter(|extent| kind(extent) == Some(Kind::Blob)).collect(),
    anchors: start,
};

pub(super) const BITMAP: Target = Target {
    name: "bitmap",
    run: bitmap::decode,
    fix: bitmap::fix,
    samples: bitmap::samples,
    anchors: start,
};

/// Everything that decoding offers, on one extent.
fn extent(bytes: &[u8]) -> bool {
    let Ok(header) = Header::decode(bytes) else { return false };
    let whole = check_extent(bytes, header.uuid, header.page, header.birth).is_ok();
    if header.kind == Kind::Blob {
        let sound = [1, 1000, 20_000, u32::MAX].map(|len| match Segment::decode(&header, bytes, len) {
            Ok(segment) => bytes.get(segment.bytes).is_some_and(|held| !held.is_empty()),
            Err(_) => false,
        });
        // The length is told by whatever refers to it.
        return whole || sound.contains(&true);
    }
    let Ok(mut layout) = Layout::open(&header) else { return false };
    if layout.close(bytes).is_err() {
        return false;
    }
    assert!(layout.arrays_end() <= layout.keys_end() && layout.keys_end() <= header.used as usize);
    let mut sound = whole && layout.check_end(bytes).is_ok() && layout.prefix(bytes).is_ok();
    assert!(layout.key(bytes, layout.count()).is_err(), "an entry behind the last");
    for index in 0..layout.count() {
        sound &= layout.key(bytes, index).is_ok();
        sound &= layout.value(bytes, index).is_ok() || layout.child(bytes, index).is_ok();
    }
    sound
}

fn fix_extent(input: &mut Vec<u8>) {
    let pages = input.len().div_ceil(PAGE_BYTES).clamp(1, 64);
    input.resize(pages * PAGE_BYTES, 0);
    seal(input, UUID, PageId::new(77), 3);
}

fn kind(extent: &[u8]) -> Option<Kind> {
    Header::decode(extent).ok().map(|header| header.kind)
}

/// The extents of two trees with every kind of node, as they were written.
fn extents() -> Vec<Vec<u8>> {
    let mut kept = Kept(Vec::new(), 16);
    for leaf_bytes in [400, 8192] {
        let ctx = Ctx {
            file: std::path::Path::new("fuzz").into(),
            uuid: UUID,
            seq: 3,
            tree: 1,
            shape: Shape { leaf_bytes, branch_bytes: 400, fill: 85, join: 50 },
            weight: Weight::One,
        };
        let mut entries: Vec<(Vec<u8>, Vec<u8>)> =
            (0..24u8).map(|n| (format!("pods/{n:03}").into_bytes(), vec![n; usize::from(n)])).collect();
        entries.push(([&[b'q'; 1300][..], b"1"].concat(), vec![1; 10]));
        entries.push((b"x".to_vec(), vec![2; 17_000]));
        let changes = entries.iter().map(|(key, value)| (key, Some(value)));
        let nothing = super::store::Nothing;
        tree::merge(&nothing, &mut kept, &ctx, &TreeRoot::EMPTY, changes).expect("a build in memory");
    }
    kept.0
}

/// A sink that keeps what is written.
struct Kept(Vec<Vec<u8>>, u64);

impl PageSink for Kept {
    fn allocate(&mut self, npages: u32) -> Result<PageId, Error> {
        self.1 += u64::from(npages);
        Ok(PageId::new(self.1 - u64::from(npages)))
    }

    fn write(&mut self, _: PageId, bytes: Vec<u8>) -> Result<(), Error> {
        self.0.push(bytes);
        Ok(())
    }

    fn release(&mut self, _: PageId, _: u32, _: u64) {}
}
