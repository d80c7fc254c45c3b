// SPDX-License-Identifier: Apache-2.0
//! A batch: several requests applied in one transaction of the engine, each with a revision of its own.
//!
//! Owns      the writes of pairs and tombstones to all trees, the lease attachments, the count of live
//!           bytes, and the events of what was done.
//! Holds     1. a request is checked before it writes, so a refused one leaves no trace;
//!           2. a request that changes something raises the revision by one, whatever it changes;
//!           3. after an engine error nothing of the batch can be committed.
//! Never     answers a range: it fixes what the range sees, and a reader answers it later.

use std::sync::Arc;

use bytes::Bytes;
use cairn_engine::{CommitMeta, Error, WriteTxn};

use crate::cell::{self, Cell, Life};
use crate::counts::Tally;
use crate::hist;
use crate::index::{Trees, Walk, cell_of, record_at};
use crate::inspect::Change;
use crate::kv::{KvRef, Stored};
use crate::meta::Meta;
use crate::ops::{DeleteOp, PutOp, RangeOp};
use crate::outcome::{
    Changes, Deferred, DeleteDone, Event, EventKind, OpError, PutDone, Revision, RevisionEvents,
};
use crate::purge::{Compaction, Purger};
use crate::store::{Shared, damaged};
use crate::trees::{ATTACH, HIST, IDX, REV, SmallTree};

/// Bytes that a record's key adds to it.
pub(crate) const REVISION_BYTES: u64 = 16;

/// Every change there is.
pub(crate) const NEWEST: Revision = Revision::new(i64::MAX, i64::MAX);

/// One transaction of the engine for a run of requests. Dropped without [`commit`](Batch::commit), it
/// changes nothing.
pub struct Batch<'s> {
    shared: &'s Shared,
    purger: &'s mut Purger,
    txn: WriteTxn<'s>,
    meta: Meta,
    /// The lowest revision that a reader may still ask for: index cells are trimmed below it.
    floor: i64,
    /// Of the request under way.
    events: Vec<Event>,
    changes: Changes,
    tally: Tally,
    compactions: Vec<Compaction>,
    failed: Option<Error>,
}

impl<'s> Batch<'s> {
    pub(crate) fn begin(shared: &'s Shared, purger: &'s mut Purger) -> Result<Batch<'s>, Error> {
        let txn = shared.db.begin()?;
        let meta = Meta::of(&shared.db.view())?;
        // Fixed for the batch: a view made before its commit reads at or above today's compact revision.
        let floor = shared.holds.raise(meta.compact);
        Ok(Batch {
            shared,
            purger,
            txn,
            meta,
            floor,
            events: Vec::new(),
            changes: Vec::new(),
            tally: Tally::default(),
            compactions: Vec::new(),
            failed: None,
        })
    }

    /// The revision after all that this batch did so far.
    pub fn revision(&self) -> i64 {
        self.meta.revision
    }

    /// The compact revision after all that this batch did so far.
    pub fn compact_revision(&self) -> i64 {
        self.meta.compact
    }

    /// [`Store::live_bytes`](crate::Store::live_bytes) after all that this batch did so far.
    pub fn live_bytes(&self) -> i64 {
        self.meta.live_bytes
    }

    pub(crate) fn trees(&self) -> &impl Trees {
        &self.txn
    }

    /// Writes one key. `leases` says which leases are granted.
    ///
    /// # Errors
    /// [`OpError::LeaseNotFound`], then [`OpError::KeyNotFound`] for an op that keeps value or lease.
    pub fn put(&mut self, op: &PutOp, leases: &dyn Fn(i64) -> bool) -> Result<PutDone, OpError> {
        if !lease_is_granted(op, leases) {
            return Err(OpError::LeaseNotFound);
        }
        let done = self.keeping_failure(|batch| batch.write_put(op));
        self.end_request();
        done
    }

    /// Deletes all keys of an interval, in key order and in one revision.
    pub fn delete_range(&mut self, op: &DeleteOp) -> Result<DeleteDone, OpError> {
        let done = self.keeping_failure(|batch| batch.write_delete(op));
        self.end_request();
        done
    }

    /// Deletes those of `keys` that exist, in one revision. The keys come in ascending order.
    pub fn delete_keys(&mut self, keys: &[Bytes]) -> Result<DeleteDone, OpError> {
        debug_assert!(keys.is_sorted(), "keys to delete come in order");
        let done = self.keeping_failure(|batch| {
            let mut deleted = 0;
            for key in keys {
                batch.tally.delete();
                deleted += i64::from(batch.delete_key(key)?);
            }
            Ok(DeleteDone { revision: batch.revision_under_way(), deleted, prev_kvs: Vec::new() })
        });
        self.end_request();
        done
    }

    /// Makes `revision` the compact revision: reads below it fail from now on, and what only they could
    /// see is purged later.
    ///
    /// # Errors
    /// [`OpError::Compacted`] at or below the compact revision, [`OpError::FutureRevision`] above the
    /// current one.
    pub fn compact(&mut self, revision: i64) -> Result<(), OpError> {
        if revision <= self.meta.compact {
            return Err(OpError::Compacted);
        }
        if revision > self.meta.revision {
            return Err(OpError::FutureRevision);
        }
        self.compactions.push(Compaction { prev: self.meta.compact, revision });
        self.meta.compact = revision;
        Ok(())
    }

    /// Passes over `by` revisions, which then have no changes, and makes the last of them the compact revision: for a
    /// store that took the place of one that had gone on. Whoever knows a revision of that one does not find another
    /// change under it, and is told of a compaction (EX-5).
    ///
    /// # Errors
    /// [`OpError::FutureRevision`] if there are not so many revisions.
    pub fn skip(&mut self, by: u64) -> Result<(), OpError> {
        let to = self.meta.revision.checked_add_unsigned(by).ok_or(OpError::FutureRevision)?;
        self.meta.revision = to;
        self.compact(to)
    }

    /// The keys attached to a lease, in order.
    pub fn keys_of_lease(&self, lease: i64) -> Result<Vec<Bytes>, OpError> {
        keys_of_lease(&self.txn, lease).map_err(OpError::from)
    }

    /// The value of a key of a small tree.
    pub fn small_get(&self, tree: SmallTree, key: &[u8]) -> Result<Option<Bytes>, OpError> {
        Ok(self.txn.get(tree.def(), key)?.map(|value| value.into_bytes()))
    }

    /// Sets a key of a small tree.
    pub fn small_put(&mut self, tree: SmallTree, key: &[u8], value: Bytes) -> Result<(), OpError> {
        self.keeping_failure(|batch| {
            let delta = 1 - i64::from(batch.txn.get(tree.def(), key)?.is_some());
            batch.txn.put(tree.def(), key, value, delta);
            Ok(())
        })
    }

    /// Deletes a key of a small tree. It need not be there.
    pub fn small_delete(&mut self, tree: SmallTree, key: &[u8]) -> Result<(), OpError> {
        self.keeping_failure(|batch| {
            if batch.txn.get(tree.def(), key)?.is_some() {
                batch.txn.delete(tree.def(), key, -1);
            }
            Ok(())
        })
    }

    /// All of a small tree, in key order.
    pub fn small_scan(&self, tree: SmallTree) -> Result<Vec<(Bytes, Bytes)>, OpError> {
        small_scan(&self.txn, tree).map_err(OpError::from)
    }

    /// Makes the batch visible as a whole and durable with the log entry `applied_index`. Gives the
    /// events of each revision.
    ///
    /// # Errors
    /// The engine error that a request of the batch met, else that of the commit.
    pub fn commit(self, applied_index: u64, applied_term: u64) -> Result<Changes, Error> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        let meta = CommitMeta { applied_index, applied_term, owner: self.meta.encode() };
        self.txn.commit(meta, self.meta.revision as u64)?;
        self.shared.counters.add(self.tally.counts());
        for compaction in self.compactions {
            self.purger.enqueue(compaction);
        }
        Ok(self.changes)
    }

    /// Runs a part of a request and remembers an engine error: what it had written must not be kept.
    pub(crate) fn keeping_failure<T>(
        &mut self,
        part: impl FnOnce(&mut Self) -> Result<T, OpError>,
    ) -> Result<T, OpError> {
        let done = part(self);
        if let Err(OpError::Engine(error)) = &done {
            self.failed.get_or_insert_with(|| error.clone());
        }
        done
    }

    /// Closes the request under way: if it changed something, that is one revision.
    pub(crate) fn end_request(&mut self) {
        self.tally.end();
        if !self.events.is_empty() {
            self.meta.revision += 1;
            let events = std::mem::take(&mut self.events);
            self.changes.push(Arc::new(RevisionEvents { main: self.meta.revision, events }));
        }
    }

    /// What the store's revision is as seen from inside the request under way.
    pub(crate) fn revision_under_way(&self) -> i64 {
        self.meta.revision + i64::from(!self.events.is_empty())
    }

    /// The next change's place.
    fn next_change(&self) -> Revision {
        Revision::new(self.meta.revision + 1, self.events.len() as i64)
    }

    /// The compares of the transaction under way are over.
    pub(crate) fn end_compares(&mut self, compares: u64) {
        self.tally.ranges(compares);
        self.tally.end();
    }

    /// A range of the transaction under way: it sees what was written before it.
    pub(crate) fn defer(&mut self, op: &RangeOp) -> Result<Deferred, OpError> {
        self.tally.ranges(1);
        let at = if op.revision > 0 {
            Revision::end_of(op.revision)
        } else if self.events.is_empty() {
            Revision::end_of(self.meta.revision)
        } else {
            Revision::new(self.meta.revision + 1, self.events.len() as i64 - 1)
        };
        // A compaction at this very revision keeps only its end: the middle hangs on the one before.
        let held = if at.sub == i64::MAX { at.main } else { at.main - 1 };
        let hold = self.shared.holds.take(held).ok_or(OpError::Compacted)?;
        Ok(Deferred { op: op.clone(), at, revision: self.revision_under_way(), hold })
    }

    /// Writes a put whose lease was checked.
    pub(crate) fn write_put(&mut self, op: &PutOp) -> Result<PutDone, OpError> {
        let found = self.txn.get(&IDX, &op.key)?;
        let before = found.as_deref().map(cell_of).transpose()?;
        let life = before.and_then(|cell| cell.life);
        let keeps = op.value.is_none() || op.lease.is_none();
        if keeps || op.prev_kv {
            self.tally.ranges(1);
        }
        let record = match (&before, life) {
            (_, None) if keeps => return Err(OpError::KeyNotFound),
            (Some(cell), Some(_)) if op.value.is_none() || op.prev_kv => {
                Some(record_at(&self.txn, cell.newest)?)
            }
            _ => None,
        };
        let prev_kv = record.map(|record| record.into_message());
        let value = match &op.value {
            Some(value) => value,
            None => {
                let kv = prev_kv.as_deref().and_then(KvRef::decode);
                kv.ok_or_else(|| Error::from(damaged("rev", "record of a pair")))?.value
            }
        };
        let lease = op.lease.unwrap_or_else(|| life.map_or(0, |life| life.lease));
        self.put_pair(&op.key, value, lease, before.as_ref())?;
        let prev_kv = prev_kv.filter(|_| op.prev_kv);
        Ok(PutDone { revision: self.revision_under_way(), prev_kv })
    }

    fn put_pair(
        &mut self,
        key: &[u8],
        value: &[u8],
        lease: i64,
        before: Option<&Cell<'_>>,
    ) -> Result<(), Error> {
        self.tally.put(key.len() + value.len());
        let at = self.next_change();
        let life = before.and_then(|cell| cell.life);
        let (create, version) = life.map_or((at.main, 1), |life| (life.create, life.version + 1));
        let kv = KvRef { key, create, modified: at.main, version, value, lease };
        let Stored { record, key: stored_key, message } = Stored::pair(kv);
        let size = record.len() as u64;
        let own_key = (record.len() > hist::SHORT_RECORD_BYTES).then_some(key);
        self.txn.append(&REV, at.to_key(), record);

        let prev = before.map(|cell| cell.newest);
        let entry = hist::Entry { key: own_key, delete: false, prev, create, version };
        self.txn.append(&HIST, at.to_key(), entry.encode(at).into());

        let new_life = Life { create, version, size, lease };
        self.set_cell(key, before, at, Some(new_life))?;
        self.attach(key, life.map_or(0, |life| life.lease), lease);
        self.events.push(Event {
            kind: EventKind::Put,
            key: stored_key,
            kv: message,
            create,
            version,
            sub: at.sub,
            prev: prev.filter(|_| life.is_some()),
        });
        Ok(())
    }

    /// Create revision and version of a key that is there.
    pub(crate) fn life(&self, key: &[u8]) -> Result<Option<(i64, i64)>, Error> {
        let found = self.txn.get(&IDX, key)?;
        let life = found.as_deref().map(cell_of).transpose()?.and_then(|cell| cell.life);
        Ok(life.map(|life| (life.create, life.version)))
    }

    /// Writes a change that has its revision already, into a store whose compact revision will be `compact`.
    pub(crate) fn load(&mut self, change: Change<'_>, compact: i64) -> Result<(), Error> {
        let Change { revision: at, delete, kv } = change;
        self.floor = self.floor.max(compact);
        self.meta.revision = at.main;
        let found = self.txn.get(&IDX, kv.key)?;
        let before = found.as_deref().map(cell_of).transpose()?;
        let (old, prev) = (before.and_then(|cell| cell.life), before.map(|cell| cell.newest));
        let (stored, create, version, life) = if delete {
            let (create, version) = old.map_or((at.main, 1), |life| (life.create, life.version));
            (Stored::tombstone(kv.key, at.main), create, version, None)
        } else {
            let stored = Stored::pair(kv);
            let life = Life {
                create: kv.create,
                version: kv.version,
                size: stored.record.len() as u64,
                lease: kv.lease,
            };
            (stored, kv.create, kv.version, Some(life))
        };
        let long = stored.record.len() > hist::SHORT_RECORD_BYTES;
        self.txn.append(&REV, at.to_key(), stored.record);
        if at.main >= compact {
            let key = (delete || long).then_some(kv.key);
            let entry = hist::Entry { key, delete, prev, create, version };
            self.txn.append(&HIST, at.to_key(), entry.encode(at).into());
        }
        self.set_cell(kv.key, before.as_ref(), at, life)?;
        self.attach(kv.key, old.map_or(0, |life| life.lease), life.map_or(0, |life| life.lease));
        Ok(())
    }

    /// Sets the revisions of a store that was loaded.
    pub(crate) fn end_load(&mut self, revision: i64, compact: i64) {
        (self.meta.revision, self.meta.compact) = (revision, compact);
    }

    /// Writes a delete of all keys of an interval.
    pub(crate) fn write_delete(&mut self, op: &DeleteOp) -> Result<DeleteDone, OpError> {
        if op.prev_kv {
            self.tally.ranges(1);
        }
        self.tally.delete();
        let mut keys = Vec::new();
        let mut prev_kvs = Vec::new();
        let mut walk = Walk::forward(&self.txn, &op.keys, NEWEST);
        while let Some((key, found)) = walk.next()? {
            if op.prev_kv {
                prev_kvs.push(record_at(&self.txn, found.revision)?.into_message());
            }
            keys.push(Bytes::copy_from_slice(key));
        }
        drop(walk);
        let deleted = keys.len() as i64;
        for key in keys {
            let existed = self.delete_key(&key)?;
            assert!(existed, "a key that the walk found is there");
        }
        Ok(DeleteDone { revision: self.revision_under_way(), deleted, prev_kvs })
    }

    /// Deletes one key; `false` if it was not there.
    fn delete_key(&mut self, key: &[u8]) -> Result<bool, OpError> {
        let Some(found) = self.txn.get(&IDX, key)? else { return Ok(false) };
        let before = cell_of(&found)?;
        let Some(life) = before.life else { return Ok(false) };
        let at = self.next_change();
        let Stored { record, key: stored_key, message } = Stored::tombstone(key, at.main);
        self.txn.append(&REV, at.to_key(), record);

        let (create, version, prev) = (life.create, life.version, Some(before.newest));
        let entry = hist::Entry { key: Some(key), delete: true, prev, create, version };
        self.txn.append(&HIST, at.to_key(), entry.encode(at).into());

        self.set_cell(key, Some(&before), at, None)?;
        self.attach(key, life.lease, 0);
        let kind = EventKind::Delete;
        self.events.push(Event { kind, key: stored_key, kv: message, create, version, sub: at.sub, prev });
        Ok(true)
    }

    /// Writes the key's index cell and accounts for its bytes.
    fn set_cell(
        &mut self,
        key: &[u8],
        before: Option<&Cell<'_>>,
        at: Revision,
        life: Option<Life>,
    ) -> Result<(), Error> {
        let cell = cell::after(before, at, life, self.floor)
            .ok_or_else(|| Error::from(damaged("idx", "older revisions of a key")))?;
        let was = before.and_then(|cell| cell.life);
        let delta = i64::from(life.is_some()) - i64::from(was.is_some());
        self.txn.put(&IDX, key, cell.into(), delta);
        let bytes = |life: Option<Life>| life.map_or(0, |life| (life.size + REVISION_BYTES) as i64);
        self.meta.live_bytes += bytes(life) - bytes(was);
        Ok(())
    }

    /// Moves a key from one lease to another; 0 is none.
    fn attach(&mut self, key: &[u8], from: i64, to: i64) {
        if from == to {
            return;
        }
        if from != 0 {
            self.txn.delete(&ATTACH, &attachment(from, key), -1);
        }
        if to != 0 {
            self.txn.put(&ATTACH, &attachment(to, key), Bytes::new(), 1);
        }
    }
}

pub(crate) fn lease_is_granted(op: &PutOp, leases: &dyn Fn(i64) -> bool) -> bool {
    op.lease.is_none_or(|lease| lease == 0 || leases(lease))
}

fn attachment(lease: i64, key: &[u8]) -> Vec<u8> {
    [&lease.to_be_bytes(), key].concat()
}

pub(crate) fn keys_of_lease<T: Trees>(trees: &T, lease: i64) -> Result<Vec<Bytes>, Error> {
    let prefix = lease.to_be_bytes();
    let mut cursor = trees.cursor(&ATTACH);
    cursor.seek(&prefix);
    let mut keys = Vec::new();
    while let Some((attachment, _)) = cursor.next()? {
        let Some(key) = attachment.strip_prefix(&prefix) else { break };
        keys.push(Bytes::copy_from_slice(key));
    }
    Ok(keys)
}

pub(crate) fn small_scan<T: Trees>(trees: &T, tree: SmallTree) -> Result<Vec<(Bytes, Bytes)>, Error> {
    let mut cursor = trees.cursor(tree.def());
    let mut all = Vec::new();
    while let Some((key, value)) = cursor.next()? {
        all.push((Bytes::copy_from_slice(key), value.clone().into_bytes()));
    }
    Ok(all)
}
