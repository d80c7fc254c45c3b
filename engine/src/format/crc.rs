// SPDX-License-Identifier: Apache-2.0
//! Checksums of pages.
//!
//! Owns      the salt and the two ways to sum a page.
//! Holds     no sum covers more than one page and its salt, far inside the 11 KiB up to which CRC-32 (IEEE) finds
//!           every error of three bits.
//! Never     decides what a wrong sum means.

use crc32fast::Hasher;

use crate::page::PageId;

/// Where the header page keeps its own checksum, which that sum skips.
pub const HEADER_CRC_AT: usize = 20;

/// What makes the sum of equal bytes differ between files, places and checkpoints.
pub fn salt(uuid: u64, page: PageId, birth: u64) -> u64 {
    uuid ^ page.get() ^ birth
}

/// The sum of a page that is not the first of its extent.
pub fn page(salt: u64, bytes: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

/// The sum of the first page of an extent, without the field that holds it.
///
/// # Panics
/// If `bytes` end before that field does.
pub fn header_page(salt: u64, bytes: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(&bytes[..HEADER_CRC_AT]);
    hasher.update(&bytes[HEADER_CRC_AT + 4..]);
    hasher.finalize()
}
