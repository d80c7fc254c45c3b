// SPDX-License-Identifier: Apache-2.0
//! The bytes of one simulated file.
//!
//! Owns      4 KiB chunks, shared between all copies of a file until one of them is written.
//! Holds     1. bytes past the length are zero, so growing again shows zeros;
//!           2. a chunk of zeros and a missing chunk are the same content and have the same hash.
//! Never     knows names, or what is durable.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

const CHUNK_BYTES: usize = 4096;

/// A file's bytes. Cloning copies one pointer a chunk.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    chunks: Vec<Option<Arc<Chunk>>>,
    len: u64,
    hash: OnceLock<u64>,
}

#[derive(Debug)]
struct Chunk {
    bytes: [u8; CHUNK_BYTES],
    hash: OnceLock<u64>,
}

impl Clone for Chunk {
    fn clone(&self) -> Chunk {
        Chunk { bytes: self.bytes, hash: OnceLock::new() }
    }
}

impl Chunk {
    fn hash(&self) -> u64 {
        *self.hash.get_or_init(|| {
            if self.bytes.iter().all(|b| *b == 0) {
                return 0;
            }
            let mut hasher = DefaultHasher::new();
            hasher.write(&self.bytes);
            hasher.finish() | 1
        })
    }
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Fills `out` from `offset`; false if the file ends before.
    pub(super) fn read(&self, out: &mut [u8], offset: u64) -> bool {
        if offset + out.len() as u64 > self.len {
            return false;
        }
        let mut rest = out;
        let mut at = offset as usize;
        while !rest.is_empty() {
            let within = at % CHUNK_BYTES;
            let n = rest.len().min(CHUNK_BYTES - within);
            let (now, later) = rest.split_at_mut(n);
            match self.chunks.get(at / CHUNK_BYTES).and_then(Option::as_ref) {
                Some(chunk) => now.copy_from_slice(&chunk.bytes[within..within + n]),
                None => now.fill(0),
            }
            rest = later;
            at += n;
        }
        true
    }

    /// Writes `bytes` at `offset`, growing the file if needed.
    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        if bytes.is_empty() {
            return;
        }
        if offset + bytes.len() as u64 > self.len {
            self.set_len(offset + bytes.len() as u64);
        }
        self.for_each_part(offset, bytes.len() as u64, |chunk, within, done, n| {
            chunk[within..within + n].copy_from_slice(&bytes[done..done + n]);
        });
    }

    /// Makes the part of the range that is inside the file read as zeros.
    pub(super) fn zero(&mut self, offset: u64, bytes: u64) {
        let end = offset.saturating_add(bytes).min(self.len);
        if offset < end {
            self.for_each_part(offset, end - offset, |chunk, within, _, n| chunk[within..within + n].fill(0));
        }
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.zero(len, self.len - len);
        }
        self.hash = OnceLock::new();
        self.len = len;
        self.chunks.resize((len as usize).div_ceil(CHUNK_BYTES), None);
    }

    /// The same for the same bytes, whatever way they came about.
    pub(super) fn hash(&self) -> u64 {
        *self.hash.get_or_init(|| {
            let mut hasher = DefaultHasher::new();
            self.len.hash(&mut hasher);
            for (at, chunk) in self.chunks.iter().enumerate() {
                let hash = chunk.as_ref().map_or(0, |c| c.hash());
                if hash != 0 {
                    (at, hash).hash(&mut hasher);
                }
            }
            hasher.finish()
        })
    }

    fn for_each_part(
        &mut self,
        offset: u64,
        bytes: u64,
        mut part: impl FnMut(&mut [u8], usize, usize, usize),
    ) {
        self.hash = OnceLock::new();
        let (mut at, bytes) = (offset as usize, bytes as usize);
        let mut done = 0;
        while done < bytes {
            let within = at % CHUNK_BYTES;
            let n = (bytes - done).min(CHUNK_BYTES - within);
            let chunk = self.chunks[at / CHUNK_BYTES]
                .get_or_insert_with(|| Arc::new(Chunk { bytes: [0; CHUNK_BYTES], hash: OnceLock::new() }));
            let chunk = Arc::make_mut(chunk);
            chunk.hash = OnceLock::new();
            part(&mut chunk.bytes, within, done, n);
            done += n;
            at += n;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_file_grows_again_with_zeros_and_hashes_by_what_it_holds() {
        let mut a = Content::default();
        a.write(&[7; 5000], 100);
        let mut b = a.clone();
        assert_eq!(a.hash(), b.hash());
        b.set_len(4200);
        b.set_len(5100);
        let mut out = [1; 900];
        assert!(b.read(&mut out, 4200));
        assert_eq!(out, [0; 900]);
        assert_ne!(a.hash(), b.hash());
        b.write(&[7; 900], 4200);
        assert_eq!(a.hash(), b.hash(), "the same bytes by another way");
        assert!(!b.read(&mut out, 4201), "past the end");
        let mut zeroed = a.clone();
        zeroed.zero(0, u64::MAX);
        let mut sparse = Content::default();
        sparse.set_len(5100);
        assert_eq!(zeroed.hash(), sparse.hash());
    }
}
