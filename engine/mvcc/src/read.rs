// SPDX-License-Identifier: Apache-2.0
//! The reader: everything that is answered beside the apply path, from any thread.
//!
//! Owns      the choice of a view and a revision for each read, and the check that nothing was purged
//!           under it.
//! Holds     1. a read at the current revision cannot fail for a compaction: it holds its revision first;
//!           2. what a read gives is what was there at its revision, or an error.
//! Never     waits for the writer or for a purge.

use std::ops::Bound;

use bytes::Bytes;
use cairn_engine::Error;

use crate::batch::{keys_of_lease, small_scan};
use crate::counts::{Counts, Tally};
use crate::holds::RevisionHold;
use crate::index::{self, Snapshot, record_at};
use crate::kv::Record;
use crate::meta::Meta;
use crate::ops::{Op, RangeOp, TxnOp};
use crate::outcome::{Deferred, OpDone, OpError, RangeDone, Revision, TxnDone};
use crate::range;
use crate::store::Shared;
use crate::trees::{IDX, SmallTree};
use crate::txn::{check_revision, choose};

/// Reads a store. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    pub(crate) shared: Shared,
}

/// A view with what it says of itself, and a hold on the revision that is read.
pub(crate) struct Reading<'a> {
    pub(crate) snapshot: Snapshot<'a>,
    pub(crate) meta: Meta,
    pub(crate) hold: RevisionHold,
}

impl Reading<'_> {
    pub(crate) fn end<T>(&self, read: Result<T, Error>) -> Result<T, OpError> {
        end(&self.hold, read)
    }
}

/// What was read under a hold. If a purge would wait no longer, some of it may be missing, and an error
/// may be for that.
fn end<T>(hold: &RevisionHold, read: Result<T, Error>) -> Result<T, OpError> {
    if hold.is_intact() { Ok(read?) } else { Err(OpError::Compacted) }
}

impl Reader {
    pub(crate) fn new(shared: Shared) -> Reader {
        Reader { shared }
    }

    pub(crate) fn snapshot(&self) -> Snapshot<'_> {
        Snapshot::new(&self.shared.db)
    }

    fn meta(&self) -> Result<Meta, OpError> {
        Ok(Meta::of(&self.shared.db.view())?)
    }

    /// The current revision.
    pub fn revision(&self) -> Result<i64, OpError> {
        Ok(self.meta()?.revision)
    }

    /// The compact revision; -1 before the first compaction.
    pub fn compact_revision(&self) -> Result<i64, OpError> {
        Ok(self.meta()?.compact)
    }

    /// [`Store::live_bytes`](crate::Store::live_bytes).
    pub fn live_bytes(&self) -> Result<i64, OpError> {
        Ok(self.meta()?.live_bytes)
    }

    /// What requests did since the store was opened.
    pub fn counts(&self) -> Counts {
        self.shared.counters.get()
    }

    /// Live keys.
    pub fn keys(&self) -> Result<i64, OpError> {
        let (keys, _) = self.shared.db.view().weight(&IDX, Bound::Unbounded, Bound::Unbounded)?;
        Ok(keys as i64)
    }

    /// A view to read at `revision`, zero and below for the current one, and a hold on it.
    pub(crate) fn read_at(&self, revision: i64) -> Result<Reading<'_>, OpError> {
        loop {
            let snapshot = self.snapshot();
            let meta = Meta::of(&snapshot.view())?;
            if revision > 0 {
                check_revision(revision, meta.revision, meta.compact)?;
            }
            let main = if revision > 0 { revision } else { meta.revision };
            match self.shared.holds.take(main) {
                Some(hold) => return Ok(Reading { snapshot, meta, hold }),
                None if revision > 0 => return Err(OpError::Compacted),
                // The floor passed this view's revision: a newer one was published meanwhile.
                None => {}
            }
        }
    }

    /// Keeps all that a read at `revision` needs, zero and below for the current one, until it is dropped.
    ///
    /// # Errors
    /// [`OpError::Compacted`], [`OpError::FutureRevision`].
    pub fn hold(&self, revision: i64) -> Result<RevisionHold, OpError> {
        Ok(self.read_at(revision)?.hold)
    }

    /// The pairs of an interval as they were at the op's revision. A limit in key order bounds the
    /// walk; the count costs O(log n), plus what changed since an old revision.
    ///
    /// # Errors
    /// [`OpError::Compacted`] below the compact revision (at it is still readable);
    /// [`OpError::FutureRevision`] above the current one.
    pub fn range(&self, op: &RangeOp) -> Result<RangeDone, OpError> {
        self.shared.counters.add(&Counts { ranges: 1, ..Counts::default() });
        let reading = self.read_at(op.revision)?;
        let at = Revision::end_of(reading.hold.main());
        reading.end(range::answer(&reading.snapshot, op, at, reading.meta.revision))
    }

    /// Answers a range of a transaction that was applied, and committed, before.
    ///
    /// # Errors
    /// [`OpError::Compacted`] if a purge waited for it in vain.
    pub fn range_deferred(&self, deferred: &Deferred) -> Result<RangeDone, OpError> {
        let done = range::answer(&self.snapshot(), &deferred.op, deferred.at, deferred.revision);
        end(&deferred.hold, done)
    }

    /// Answers a transaction that only reads, compares included, from one revision.
    ///
    /// # Errors
    /// As [`Batch::txn`](crate::Batch::txn).
    ///
    /// # Panics
    /// If the transaction is not [read-only](TxnOp::is_read_only).
    pub fn txn(&self, op: &TxnOp) -> Result<TxnDone, OpError> {
        assert!(op.is_read_only(), "a transaction that may write goes through a batch");
        let reading = self.read_at(0)?;
        let current = reading.meta.revision;
        let path = reading.end(choose(&reading.snapshot, op, Revision::end_of(current)))?;
        let mut tally = Tally::default();
        tally.ranges(path.compared() + path.ops.len() as u64);
        tally.end();
        self.shared.counters.add(tally.counts());
        let ranges = || path.ops.iter().filter_map(|op| if let Op::Range(op) = op { Some(op) } else { None });
        for op in ranges() {
            check_revision(op.revision, current, reading.meta.compact)?;
        }
        let mut responses = Vec::with_capacity(path.ops.len());
        for op in ranges() {
            let main = if op.revision > 0 { op.revision } else { current };
            let hold = self.shared.holds.take(main).ok_or(OpError::Compacted)?;
            let at = Revision::end_of(main);
            responses.push(OpDone::Range(Deferred { op: op.clone(), at, revision: current, hold }));
        }
        Ok(TxnDone { revision: current, succeeded: path.succeeded, responses })
    }

    /// The pair of `key` as it was at `revision`, which is above zero; `None` if it was not there.
    ///
    /// # Errors
    /// [`OpError::Compacted`], [`OpError::FutureRevision`].
    pub fn get_at(&self, key: &[u8], revision: i64) -> Result<Option<Bytes>, OpError> {
        let reading = self.read_at(revision)?;
        let at = Revision::end_of(reading.hold.main());
        let kv = index::find(&reading.snapshot, key, at).and_then(|found| {
            let record = found.map(|found| record_at(&reading.snapshot, found.revision)).transpose()?;
            Ok(record.map(Record::into_message))
        });
        reading.end(kv)
    }

    /// The keys attached to a lease, in order.
    pub fn keys_of_lease(&self, lease: i64) -> Result<Vec<Bytes>, OpError> {
        Ok(keys_of_lease(&self.snapshot(), lease)?)
    }

    /// The value of a key of a small tree.
    pub fn small_get(&self, tree: SmallTree, key: &[u8]) -> Result<Option<Bytes>, Error> {
        Ok(self.shared.db.view().get(tree.def(), key)?.map(|value| value.into_bytes()))
    }

    /// All of a small tree, in key order.
    pub fn small_scan(&self, tree: SmallTree) -> Result<Vec<(Bytes, Bytes)>, Error> {
        small_scan(&self.snapshot(), tree)
    }
}
