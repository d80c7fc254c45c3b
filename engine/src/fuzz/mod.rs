// SPDX-License-Identifier: Apache-2.0
//! Fuzz targets: what takes bytes from a disk or from another member, as plain functions of bytes.
//!
//! Owns      the list of targets, each with its body, the repair of its checksums, and inputs to begin with.
//! Holds     1. no input makes a body panic, go on without end, or take memory beyond a small multiple of the input;
//!           2. a body answers whether the input was taken, so that a run can tell that it got anywhere.
//! Never     is part of a release: it is here because the layouts are.

mod decode;
mod log;
mod store;
mod stream;

use crate::page::PAGE_BYTES;

/// One thing that takes bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub name: &'static str,
    /// The body: true if the input was taken for what it should be.
    pub run: fn(&[u8]) -> bool,
    /// Makes the checksums right, so that what lies behind them is reached.
    pub fix: fn(&mut Vec<u8>),
    /// Good inputs, of which others are made.
    pub samples: fn() -> Vec<Vec<u8>>,
    /// Where the bytes of an input matter most: what is read first lies behind these places.
    pub anchors: fn(&[u8]) -> Vec<usize>,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    decode::SUPERBLOCK,
    decode::SLOT,
    decode::NODE,
    decode::BLOB,
    decode::BITMAP,
    log::SEGMENT_HEADER,
    log::BATCH,
    log::RECOVERY,
    log::PART,
    stream::HEADER,
    stream::FRAME,
    stream::TRAILER,
    stream::RECEIVER,
    store::OPEN_AND_WALK,
];

/// The starts of all pages.
fn pages(input: &[u8]) -> Vec<usize> {
    (0..input.len().max(1)).step_by(PAGE_BYTES).collect()
}

fn start(_: &[u8]) -> Vec<usize> {
    vec![0]
}

/// The first bytes of `input`, zeros where it has none.
fn padded<const N: usize>(input: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    let len = input.len().min(N);
    out[..len].copy_from_slice(&input[..len]);
    out
}

/// Writes the checksum of all that comes before it at the end of the first `len` bytes.
fn fix_last(input: &mut Vec<u8>, len: usize) {
    input.resize(input.len().max(len), 0);
    let crc = crc32fast::hash(&input[..len - 4]);
    input[len - 4..len].copy_from_slice(&crc.to_le_bytes());
}
