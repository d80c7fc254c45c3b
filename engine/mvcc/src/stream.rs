// SPDX-License-Identifier: Apache-2.0
//! A range in chunks: an answer of any size in bounded memory.
//!
//! Owns      where a stream stands between two chunks.
//! Holds     1. all chunks are of one revision, and together they are what one range would answer;
//!           2. between chunks nothing is held: a compaction may end the stream, and then it says so.
//! Never     chooses how large a chunk is.

use std::ops::Bound;

use bytes::Bytes;
use cairn_engine::Error;

use crate::counts::Counts;
use crate::index::{self, Snapshot, Walk};
use crate::ops::{KeyRange, RangeEnd, RangeOp, SortOrder, SortTarget};
use crate::outcome::{OpError, Revision};
use crate::range::{self, Candidate};
use crate::read::Reader;

/// A range that is answered in chunks.
#[derive(Clone, Debug)]
pub struct RangeStream {
    op: RangeOp,
    /// The revision that all chunks read.
    main: i64,
    /// The store's revision at the first chunk.
    revision: i64,
    /// Keys that are still to come.
    rest: KeyRange,
    sent: usize,
    ended: bool,
}

/// Some of a stream's pairs, in key order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RangeChunk {
    pub kvs: Vec<Bytes>,
    /// With the last chunk.
    pub totals: Option<RangeTotals>,
}

/// What a stream ends with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RangeTotals {
    pub revision: i64,
    pub count: i64,
    pub more: bool,
}

impl Reader {
    /// Begins a range that is answered in chunks.
    ///
    /// # Errors
    /// [`OpError::Compacted`], [`OpError::FutureRevision`].
    ///
    /// # Panics
    /// If the op asks for another order than that of the keys, or for filters: refused at the door.
    pub fn range_stream(&self, op: &RangeOp) -> Result<RangeStream, OpError> {
        let plain = op.sort_order != SortOrder::Descend && op.sort_target == SortTarget::Key;
        assert!(plain && !op.has_filter(), "a stream is in key order and unfiltered");
        self.shared.counters.add(&Counts { ranges: 1, ..Counts::default() });
        let reading = self.read_at(op.revision)?;
        let (main, revision) = (reading.hold.main(), reading.meta.revision);
        Ok(RangeStream { op: op.clone(), main, revision, rest: op.keys.clone(), sent: 0, ended: false })
    }

    /// The next chunk of a stream, of `keys_max` pairs at most (one at least); `None` after the last.
    ///
    /// # Errors
    /// [`OpError::Compacted`] if the stream's revision was compacted meanwhile.
    pub fn range_chunk(
        &self,
        stream: &mut RangeStream,
        keys_max: usize,
    ) -> Result<Option<RangeChunk>, OpError> {
        if stream.ended {
            return Ok(None);
        }
        let reading = self.read_at(stream.main)?;
        reading.end(stream.chunk(&reading.snapshot, keys_max)).map(Some)
    }
}

impl RangeStream {
    fn chunk(&mut self, snapshot: &Snapshot<'_>, keys_max: usize) -> Result<RangeChunk, Error> {
        let at = Revision::end_of(self.main);
        let op = &self.op;
        if op.count_only || op.keys.end == RangeEnd::Single {
            self.ended = true;
            let done = range::answer(snapshot, op, at, self.revision)?;
            let totals = RangeTotals { revision: done.revision, count: done.count, more: done.more };
            return Ok(RangeChunk { kvs: done.kvs, totals: Some(totals) });
        }

        let left = op.limit().map_or(usize::MAX, |limit| limit - self.sent);
        let take = left.min(keys_max.max(1));
        let mut candidates = Vec::new();
        // The first key beyond the chunk, if there is one.
        let mut beyond = None;
        let mut walk = Walk::forward(snapshot, &self.rest, at);
        while let Some((key, found)) = walk.next()? {
            if candidates.len() == take {
                beyond = Some(Bytes::copy_from_slice(key));
                break;
            }
            candidates.push(Candidate::new(key, found, op));
        }
        drop(walk);
        let kvs = candidates.into_iter().map(|candidate| candidate.answer(snapshot, op));
        let kvs = kvs.collect::<Result<Vec<_>, _>>()?;
        let sent = self.sent + kvs.len();
        let totals = match beyond {
            Some(key) if take < left => {
                self.rest.key = key;
                None
            }
            beyond => {
                let uncounted = match &beyond {
                    Some(key) => index::count(snapshot, &self.rest, Bound::Included(key), at)?,
                    None => 0,
                };
                self.ended = true;
                let count = sent as i64 + uncounted;
                Some(RangeTotals { revision: self.revision, count, more: beyond.is_some() })
            }
        };
        self.sent = sent;
        Ok(RangeChunk { kvs, totals })
    }
}
