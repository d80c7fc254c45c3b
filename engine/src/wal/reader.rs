// SPDX-License-Identifier: Apache-2.0
//! Reading entries back.
//!
//! Owns      the way from an index to an entry: the cache, or the batch on disk.
//! Holds     1. what comes from disk was checked again, checksums, indexes and all;
//!           2. a segment that is being read is neither recycled nor rewritten.
//! Never     holds the log's lock while it reads a file.

use std::sync::Arc;

use bytes::Bytes;

use super::batch::{self, Entry, Found, Records};
use super::files::Segment;
use super::index::BatchPlace;
use super::{Shared, Wal};
use crate::error::{Corruption, Error, Result};

/// Where the next entries are.
enum Source {
    Memory(Vec<Entry>),
    Disk(Arc<Segment>, BatchPlace),
}

impl Wal {
    /// The entries of `[lo, hi)`, or the first of them if all have more than `bytes_max` bytes of data;
    /// always one at least, if the range is not empty. None if a concurrent `release` let go of the first of
    /// them. Costs no I/O for recent entries, else one read a batch.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::Io`] for what cannot be read back.
    ///
    /// # Panics
    /// If the range ends past the last index.
    pub fn read(&self, lo: u64, hi: u64, bytes_max: usize) -> Result<Vec<Entry>> {
        let mut out: Vec<Entry> = Vec::new();
        let mut left = bytes_max;
        let mut next = lo;
        while next < hi {
            let source = {
                let shared = self.shared();
                let last = shared.index.last();
                assert!(hi <= last + 1, "entries {lo} to {hi} of a log that ends at {last}");
                if next < shared.index.first() {
                    return Ok(out);
                }
                shared.locate(next, hi, left)
            };
            let found = match source {
                Source::Memory(entries) => entries,
                Source::Disk(segment, place) => read_batch(&segment, &place, next, hi.min(place.last + 1))?,
            };
            for entry in found {
                if !out.is_empty() && entry.data.len() > left {
                    return Ok(out);
                }
                left = left.saturating_sub(entry.data.len());
                next = entry.index + 1;
                out.push(entry);
            }
        }
        Ok(out)
    }
}

impl Shared {
    fn locate(&self, lo: u64, hi: u64, bytes_max: usize) -> Source {
        if self.cache.get(lo).is_some() {
            let mut entries: Vec<Entry> = Vec::new();
            let mut bytes = 0;
            for index in lo..hi {
                let Some(entry) = self.cache.get(index) else { break };
                entries.push(entry.clone());
                bytes += entry.data.len();
                if bytes > bytes_max {
                    break;
                }
            }
            return Source::Memory(entries);
        }
        let place = self.batches.find(lo).expect("an entry is in memory or in a batch on disk");
        let oldest = self.segments.front().expect("a log has a segment").segment.seq;
        let live = &self.segments[(place.seq - oldest) as usize];
        Source::Disk(Arc::clone(&live.segment), place)
    }
}

/// The entries of `[lo, hi)` from one batch, all of which it holds.
fn read_batch(segment: &Segment, place: &BatchPlace, lo: u64, hi: u64) -> Result<Vec<Entry>> {
    let mut bytes = vec![0; place.bytes];
    segment
        .file
        .read_at(&mut bytes, place.offset)
        .map_err(|e| Error::io("read", &segment.path, Some(place.offset), e))?;
    let bytes = Bytes::from(bytes);
    let damaged = |what: String| Error::from(Corruption::new(&segment.path, what).at(place.offset));
    let (header, payload) = batch::decode(&bytes, segment.salt, place.offset)
        .map_err(|_| damaged("checksum of a batch that was good when the log was opened".into()))?;
    let mut entries: Vec<Entry> = Vec::new();
    for record in Records::new(&header, payload) {
        match record.map_err(|what| damaged(what.into()))? {
            Found::Entry { index, term, kind, data } if (lo..hi).contains(&index) => {
                // Later records of one batch void earlier ones, as batches do.
                entries.retain(|entry| entry.index < index);
                entries.push(Entry { index, term, kind, data: bytes.slice_ref(data) });
            }
            Found::Base(_) => entries.clear(),
            _ => {}
        }
    }
    let whole = entries.len() as u64 == hi - lo && entries.first().is_none_or(|entry| entry.index == lo);
    if !whole {
        return Err(damaged(format!("entries {lo} to {hi} are not in the batch that had them")));
    }
    Ok(entries)
}
