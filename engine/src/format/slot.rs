// SPDX-License-Identifier: Apache-2.0
//! Commit slots: the record of a checkpoint, four to a ring.
//!
//! Owns      the layout of pages 2 to 5.
//! Holds     1. applied index and term, stamp, owner meta and every root are in one page under one checksum
//!              (invariant I2);
//!           2. checkpoint `n` is at position `n mod 4` and nowhere else, so a misdirected slot is not one;
//!           3. a slot names the checksum of the one before it, so one of another history shows.
//! Never     says whether what it points at is there: recovery looks.

use bytes::Bytes;

use crate::page::{PAGE_BYTES, PageId, TREE_ROOT_BYTES, TreeRoot};
use crate::schema::TREES_MAX;
use crate::view::{CommitMeta, OWNER_META_BYTES_MAX};

/// Slots in the ring.
pub const SLOTS: u64 = 4;

/// The page of the first slot.
const FIRST_SLOT: u64 = super::superblock::SUPERBLOCKS;

const MAGIC: &[u8; 8] = b"CAIRNCKP";
const OWNER_AT: usize = 128;
const ROOTS_AT: usize = OWNER_AT + OWNER_META_BYTES_MAX;
/// Tree id, seven zeros, root.
const ROOT_STRIDE: usize = 8 + TREE_ROOT_BYTES;
const CRC_AT: usize = PAGE_BYTES - 4;

const _: () = assert!(ROOTS_AT + TREES_MAX * ROOT_STRIDE <= CRC_AT, "a commit slot is one page");

/// What a checkpoint records.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slot {
    /// Number of the checkpoint, from 1.
    pub seq: u64,
    pub meta: CommitMeta,
    pub stamp: u64,
    /// Tree id and root.
    pub roots: Vec<(u8, TreeRoot)>,
    /// End of the last page in use.
    pub high_water: u64,
    /// Checksum over which version of each region's bitmap belongs to this checkpoint.
    pub map_digest: u32,
    /// Checksum of the slot of the checkpoint before; zero in the first.
    pub previous_crc: u32,
    /// The most bytes that the store needed at once; zero where that was not written down.
    pub size_mark: u64,
}

/// The page of checkpoint `seq`'s slot.
pub fn position(seq: u64) -> PageId {
    PageId::new(FIRST_SLOT + seq % SLOTS)
}

/// The pages of all slots.
pub fn positions() -> impl Iterator<Item = PageId> {
    (FIRST_SLOT..FIRST_SLOT + SLOTS).map(PageId::new)
}

impl Slot {
    /// # Panics
    /// If owner meta or trees are more than a slot holds; both are checked where they come in.
    pub fn encode(&self, uuid: u64) -> Vec<u8> {
        assert!(self.meta.owner.len() <= OWNER_META_BYTES_MAX && self.roots.len() <= TREES_MAX);
        let mut out = vec![0; PAGE_BYTES];
        out[0..8].copy_from_slice(MAGIC);
        let fields = [
            self.seq,
            uuid,
            self.meta.applied_index,
            self.meta.applied_term,
            self.stamp,
            self.high_water,
            u64::from(self.map_digest) | u64::from(self.previous_crc) << 32,
            self.meta.owner.len() as u64 | (self.roots.len() as u64) << 32,
            self.size_mark,
        ];
        for (i, field) in fields.into_iter().enumerate() {
            out[8 + i * 8..16 + i * 8].copy_from_slice(&field.to_le_bytes());
        }
        out[OWNER_AT..OWNER_AT + self.meta.owner.len()].copy_from_slice(&self.meta.owner);
        for (i, (id, root)) in self.roots.iter().enumerate() {
            let at = ROOTS_AT + i * ROOT_STRIDE;
            out[at] = *id;
            out[at + 8..at + ROOT_STRIDE].copy_from_slice(&root.encode());
        }
        let crc = crc32fast::hash(&out[..CRC_AT]);
        out[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The slot in `page`, which is at `at` in the file of `uuid`; `None` if it is not a whole one of that
    /// file and place, for whatever reason.
    pub fn decode(page: &[u8; PAGE_BYTES], uuid: u64, at: PageId) -> Option<Self> {
        let u64_at = |at: usize| u64::from_le_bytes(*page[at..].first_chunk().expect("inside the page"));
        let field = |i: usize| u64_at(8 + i * 8);
        if &page[0..8] != MAGIC || crc(page) != crc32fast::hash(&page[..CRC_AT]) {
            return None;
        }
        let seq = field(0);
        if seq == 0 || position(seq) != at || field(1) != uuid {
            return None;
        }
        let (owner_len, trees) = (field(7) as u32 as usize, (field(7) >> 32) as usize);
        if owner_len > OWNER_META_BYTES_MAX || trees > TREES_MAX {
            return None;
        }
        let mut roots = Vec::with_capacity(trees);
        for i in 0..trees {
            let at = ROOTS_AT + i * ROOT_STRIDE;
            let root = TreeRoot::decode(page[at + 8..at + ROOT_STRIDE].first_chunk()?)?;
            roots.push((page[at], root));
        }
        Some(Self {
            seq,
            meta: CommitMeta {
                applied_index: field(2),
                applied_term: field(3),
                owner: Bytes::copy_from_slice(&page[OWNER_AT..OWNER_AT + owner_len]),
            },
            stamp: field(4),
            roots,
            high_water: field(5),
            map_digest: field(6) as u32,
            previous_crc: (field(6) >> 32) as u32,
            size_mark: field(8),
        })
    }
}

/// Where in a slot's page the roots are that it can have.
#[cfg(feature = "sim")]
pub(crate) fn root_offsets() -> impl Iterator<Item = usize> {
    (0..TREES_MAX).map(|i| ROOTS_AT + i * ROOT_STRIDE + 8)
}

/// The checksum that an encoded slot states of itself.
pub fn crc(page: &[u8]) -> u32 {
    u32::from_le_bytes(*page[CRC_AT..].first_chunk().expect("a slot is one page"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::NodePtr;

    const UUID: u64 = 0x1122_3344_5566_7788;

    fn golden() -> Slot {
        let ptr = NodePtr { page: PageId::new(77), npages: 8, crc: 0xdead_beef, birth: 5, weight: 1000 };
        Slot {
            seq: 6,
            meta: CommitMeta { applied_index: 42, applied_term: 3, owner: Bytes::from_static(b"owner") },
            stamp: 99,
            roots: vec![
                (1, TreeRoot { ptr: Some(ptr), height: 2, entries: 1000, bytes: 64_000 }),
                (2, TreeRoot::EMPTY),
            ],
            high_water: 85,
            map_digest: 0x0102_0304,
            previous_crc: 0x0506_0708,
            size_mark: 0,
        }
    }

    fn page(slot: &Slot) -> [u8; PAGE_BYTES] {
        slot.encode(UUID).try_into().expect("one page")
    }

    #[test]
    fn format_1_is_these_bytes_for_ever() {
        let golden_page = include_bytes!("../../tests/golden/slot-1.bin");
        assert!(page(&golden())[..] == golden_page[..], "the layout of format 1 changed");
        assert_eq!(Slot::decode(golden_page, UUID, position(6)), Some(golden()));
    }

    #[test]
    fn the_size_mark_is_kept_where_there_was_nothing_before() {
        let marked = Slot { size_mark: 0x0102_0304_0506_0708, ..golden() };
        let bytes = page(&marked);
        assert_eq!(Slot::decode(&bytes, UUID, position(6)), Some(marked));
        let plain = page(&golden());
        let changed: Vec<usize> = (0..CRC_AT).filter(|at| bytes[*at] != plain[*at]).collect();
        assert_eq!(changed, (72..80).collect::<Vec<_>>());
    }

    #[test]
    fn a_slot_of_another_place_or_file_is_none() {
        let page = page(&golden());
        assert_eq!(position(6), PageId::new(4));
        for at in positions().filter(|at| *at != position(6)) {
            assert_eq!(Slot::decode(&page, UUID, at), None);
        }
        assert_eq!(Slot::decode(&page, UUID + 1, position(6)), None);
        assert_eq!(Slot::decode(&[0; PAGE_BYTES], UUID, position(4)), None);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let page = page(&golden());
        for bit in 0..PAGE_BYTES * 8 {
            let mut rotten = page;
            rotten[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Slot::decode(&rotten, UUID, position(6)), None, "bit {bit}");
        }
    }

    #[test]
    fn any_bytes_under_a_right_checksum_decode_to_an_answer() {
        let mut page = page(&golden());
        for byte in 8..CRC_AT {
            for value in [0, 1, 0x7f, 0xff] {
                let kept = std::mem::replace(&mut page[byte], value);
                let crc = crc32fast::hash(&page[..CRC_AT]);
                page[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
                if let Some(slot) = Slot::decode(&page, UUID, position(6)) {
                    assert_eq!(
                        Slot::decode(&slot.encode(UUID).try_into().expect("one page"), UUID, position(6)),
                        Some(slot)
                    );
                }
                page[byte] = kept;
            }
        }
    }
}
