// SPDX-License-Identifier: Apache-2.0
//! What is stored: revisions as keys, and bytes that do not compress as values.
//!
//! Owns      the key and the value of each revision, and numbers drawn by chance.
//! Holds     1. the value of a revision is the same in every run and in every process;
//!           2. no compression makes the values smaller.
//! Never     costs more than a look-up: it runs under the clock.

use crate::store::Key;

/// Bytes that values are cut from.
const POOL_BYTES: usize = 1 << 20;

/// Values of one size.
pub struct Values {
    pool: Vec<u8>,
    bytes: usize,
}

impl Values {
    pub fn new(bytes: usize) -> Values {
        let mut rng = Rng(1);
        let pool = (0..(POOL_BYTES + bytes).div_ceil(8)).flat_map(|_| rng.next().to_le_bytes()).collect();
        Values { pool, bytes }
    }

    /// The value of `revision`.
    pub fn of(&self, revision: u64) -> &[u8] {
        let at = revision.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - POOL_BYTES.trailing_zeros());
        &self.pool[at as usize..][..self.bytes]
    }

    /// Whether `value` looks like that of `revision`: its length, and its first bytes.
    pub fn matches(&self, revision: u64, value: &[u8]) -> bool {
        let head = self.bytes.min(8);
        value.len() == self.bytes && value[..head] == self.of(revision)[..head]
    }
}

/// The key of `revision`: two big-endian numbers, of which the second counts writes of one transaction.
pub fn key(revision: u64) -> Key {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&revision.to_be_bytes());
    key
}

/// The revision of a key.
pub fn revision(key: &[u8]) -> Option<u64> {
    key.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// Numbers by chance, the same in every run.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_revision_has_its_value_and_its_key() {
        let values = Values::new(512);
        assert_eq!(values.of(7).len(), 512);
        assert!(values.matches(7, Values::new(512).of(7)));
        assert!(!values.matches(8, values.of(7)));
        assert!(!values.matches(7, &values.of(7)[1..]));
        assert_eq!(revision(&key(7)), Some(7));
        assert!(key(255) < key(256));
    }
}
