// SPDX-License-Identifier: Apache-2.0
//! Byte layouts of the tree file: encoding and checked decoding.
//!
//! Owns      what each byte of a page means.
//! Holds     1. all integers are little-endian and nothing is cast;
//!           2. decoding is total: whatever the bytes, the answer is a value or a [`Fault`].
//! Never     reads or writes a file.

pub mod blob;
pub mod crc;
pub mod header;
pub mod node;
pub mod slot;
pub mod superblock;

/// What decoding found wrong, and how far into the extent. The reader adds the file, the page and the tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    pub what: &'static str,
    /// Byte offset from the start of the extent.
    pub at: usize,
    pub expected: u64,
    pub found: u64,
}

impl Fault {
    pub(crate) fn new(what: &'static str, at: usize, expected: u64, found: u64) -> Fault {
        Fault { what, at, expected, found }
    }
}
