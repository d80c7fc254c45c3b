// SPDX-License-Identifier: Apache-2.0
//! The superblock: what a tree file is, written once and kept twice.
//!
//! Owns      the layout of pages 0 and 1.
//! Holds     1. magic, format and checksum are where they are in every format to come, so that an older
//!              build refuses a newer file by name and not as damage;
//!           2. a required flag that is not known refuses the file, an optional one does not.
//! Never     changes after the file is made.

use crate::page::PAGE_BYTES;
use crate::schema::InstallId;

/// The format that this build writes and reads.
pub const FORMAT: u32 = 1;

/// Copies of the superblock, at the first pages of the file.
pub const SUPERBLOCKS: u64 = 2;

/// Required flags that this build knows: none yet.
const FLAGS_REQUIRED_KNOWN: u64 = 0;

const MAGIC: &[u8; 8] = b"CAIRNDB\0";
const CRC_AT: usize = PAGE_BYTES - 4;

/// A tree file's identity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// In every page and checksum of the file, so that a page of another file is never taken for one of its own.
    pub uuid: u64,
    /// Which filling of the data directory this file is.
    pub install: InstallId,
}

/// Why a page is not a superblock that can be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Not a tree file at all.
    NotOurs,
    /// The checksum is wrong.
    Damaged { expected: u32, found: u32 },
    /// Whole, and of a format that this build does not read.
    Format(u32),
    /// Whole, and it needs what this build does not have.
    Flags(u64),
    /// Whole, and with pages of another size.
    PageBytes(u32),
}

impl Superblock {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; PAGE_BYTES];
        out[0..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        out[12..16].copy_from_slice(&(PAGE_BYTES as u32).to_le_bytes());
        // 16..24 required flags, 24..32 optional flags.
        out[32..40].copy_from_slice(&self.uuid.to_le_bytes());
        out[40..48].copy_from_slice(&self.install.0.to_le_bytes());
        let crc = crc32fast::hash(&out[..CRC_AT]);
        out[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub fn decode(page: &[u8; PAGE_BYTES]) -> Result<Self, Refused> {
        if &page[0..8] != MAGIC {
            return Err(Refused::NotOurs);
        }
        let u32_at = |at: usize| u32::from_le_bytes(*page[at..].first_chunk().expect("inside the page"));
        let u64_at = |at: usize| u64::from_le_bytes(*page[at..].first_chunk().expect("inside the page"));
        let (expected, found) = (u32_at(CRC_AT), crc32fast::hash(&page[..CRC_AT]));
        if expected != found {
            return Err(Refused::Damaged { expected, found });
        }
        if u32_at(8) != FORMAT {
            return Err(Refused::Format(u32_at(8)));
        }
        let unknown = u64_at(16) & !FLAGS_REQUIRED_KNOWN;
        if unknown != 0 {
            return Err(Refused::Flags(unknown));
        }
        if u32_at(12) != PAGE_BYTES as u32 {
            return Err(Refused::PageBytes(u32_at(12)));
        }
        Ok(Self { uuid: u64_at(32), install: InstallId(u64_at(40)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: Superblock = Superblock { uuid: 0x1122_3344_5566_7788, install: InstallId(0xabcd) };

    fn page(change: impl FnOnce(&mut [u8])) -> [u8; PAGE_BYTES] {
        let mut page = GOLDEN.encode();
        change(&mut page);
        let crc = crc32fast::hash(&page[..CRC_AT]);
        page[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        page.try_into().expect("one page")
    }

    #[test]
    fn format_1_is_these_bytes_for_ever() {
        let page = GOLDEN.encode();
        let golden = include_bytes!("../../tests/golden/superblock-1.bin");
        assert!(page[..] == golden[..], "the layout of format 1 changed");
        assert_eq!(Superblock::decode(golden), Ok(GOLDEN));
    }

    #[test]
    fn a_newer_format_and_an_unknown_required_flag_are_refused_by_name() {
        assert_eq!(Superblock::decode(&page(|p| p[8] = 2)), Err(Refused::Format(2)));
        assert_eq!(Superblock::decode(&page(|p| p[17] = 1)), Err(Refused::Flags(256)));
        assert_eq!(Superblock::decode(&page(|p| p[13] = 0x20)), Err(Refused::PageBytes(8192)));
        assert_eq!(Superblock::decode(&page(|p| p[24] = 255)), Ok(GOLDEN), "an optional flag");
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let page: [u8; PAGE_BYTES] = GOLDEN.encode().try_into().expect("one page");
        for bit in 0..PAGE_BYTES * 8 {
            let mut rotten = page;
            rotten[bit / 8] ^= 1 << (bit % 8);
            assert!(Superblock::decode(&rotten).is_err(), "bit {bit}");
        }
    }
}
