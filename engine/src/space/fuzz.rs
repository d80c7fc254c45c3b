// SPDX-License-Identifier: Apache-2.0
//! What the fuzz targets need of the space map: its pages, decoded and with their checksums made right.

use super::bitmap::{self, Bits, REGION_PAGES, Version, regions};
use crate::page::PAGE_BYTES;

const UUID: u64 = 7;

fn u64_at(page: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*page.get(at..)?.first_chunk()?))
}

/// Decodes a bitmap page as that of the file and region that it names. True if it is one.
pub(crate) fn decode(page: &[u8]) -> bool {
    let (Some(uuid), Some(region)) = (u64_at(page, 16), u64_at(page, 24)) else { return false };
    let Some((_, bits, _)) = bitmap::decode(page, uuid, region) else { return false };
    let runs = bits.runs(true, 0, REGION_PAGES);
    assert_eq!(runs.iter().map(|(_, n)| n).sum::<u64>(), bits.count());
    true
}

pub(crate) fn fix(input: &mut Vec<u8>) {
    input.resize(PAGE_BYTES, 0);
    fix_page(input);
}

/// Makes the checksum of a bitmap page right, and answers its checkpoint and that checksum.
pub(crate) fn fix_page(page: &mut [u8]) -> (u64, u32) {
    let crc = bitmap::checksum(page);
    page[bitmap::CRC_AT..bitmap::CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    (u64_at(page, 8).unwrap_or_default(), crc)
}

pub(crate) fn samples() -> Vec<Vec<u8>> {
    let mut bits = Bits::new();
    bits.set(17, 1000);
    bits.set(REGION_PAGES - 3, 2);
    vec![bitmap::encode(&Bits::new(), UUID, 0, 1).0, bitmap::encode(&bits, UUID, 3, 12).0]
}

/// The pages of the first region's bitmaps, and the digest that a slot has for checkpoint `seq` given the
/// checkpoint and checksum of each; `None` where the slot claims more regions.
pub(crate) fn digest_of(versions: &[(u64, u32)], seq: u64, high_water: u64) -> Option<u32> {
    if regions(high_water) != 1 {
        return None;
    }
    let newest = versions.iter().filter(|(at, _)| *at <= seq).max_by_key(|(at, _)| *at);
    let version = newest.map(|(seq, crc)| Version { seq: *seq, turn: 0, crc: *crc });
    Some(super::digest(std::iter::once(version.as_ref())))
}

/// The pages of the first region's bitmaps.
pub(crate) fn map_pages() -> impl Iterator<Item = u64> {
    (0..bitmap::TURNS).map(|turn| bitmap::map_page(0, turn).get())
}
