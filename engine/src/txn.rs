// SPDX-License-Identifier: Apache-2.0
//! The write transaction: private until it commits, then visible as a whole.
//!
//! Owns      the writes of one transaction and the store's writer lock.
//! Holds     1. it sees its own writes over a view that does not move under it;
//!           2. dropping it without a commit changes nothing;
//!           3. applied index, stamp and owner meta come by value with the commit (invariant I2).
//! Never     touches the disk: what it commits is durable because its log entry already is.

use std::sync::{Arc, MutexGuard};

use bytes::Bytes;

use crate::cursor::Cursor;
use crate::db::{Inner, Writer};
use crate::error::{Error, Result};
use crate::failpoints::reach;
use crate::overlay::Batch;
use crate::schema::{AppendKey, TreeDef, TreeKind};
use crate::view::{CommitMeta, OWNER_META_BYTES_MAX, Published, Seq, Value};

/// The one writer of a store, from [`Db::begin`](crate::Db::begin) to its commit or its drop.
pub struct WriteTxn<'db> {
    inner: &'db Inner,
    writer: MutexGuard<'db, Writer>,
    view: Arc<Published>,
    batch: Batch,
}

impl<'db> WriteTxn<'db> {
    pub(crate) fn new(inner: &'db Inner, writer: MutexGuard<'db, Writer>, view: Arc<Published>) -> Self {
        let batch = Batch::new(&view.trees);
        Self { inner, writer, view, batch }
    }

    /// Adds an entry to an append tree.
    ///
    /// # Panics
    /// If `key` is not above every key the tree ever had since the store was opened.
    pub fn append(&mut self, tree: &TreeDef, key: AppendKey, value: Bytes) {
        let place = self.view.trees.place_of_kind(tree, TreeKind::Append);
        let entries = &mut self.batch.append[place];
        let last = entries.last().map(|(key, _)| *key).or(self.writer.last_keys[place]);
        assert!(last.is_none_or(|last| last < key), "tree {}: key {key:?} is not above {last:?}", tree.name);
        entries.push((key, value));
    }

    /// Sets `key` of an ordered tree. `weight_delta` is the weight of the new entry less that of the
    /// one visible before.
    pub fn put(&mut self, tree: &TreeDef, key: &[u8], value: Bytes, weight_delta: i64) {
        self.set(tree, key, Some(value), weight_delta);
    }

    /// Deletes `key` of an ordered tree; it need not be there.
    pub fn delete(&mut self, tree: &TreeDef, key: &[u8], weight_delta: i64) {
        self.set(tree, key, None, weight_delta);
    }

    fn set(&mut self, tree: &TreeDef, key: &[u8], value: Option<Bytes>, delta: i64) {
        let place = self.view.trees.place_of_kind(tree, TreeKind::Ordered);
        self.batch.ordered[place].set(Bytes::copy_from_slice(key), value, delta);
    }

    /// The value of `key`, this transaction's own writes included.
    pub fn get(&self, tree: &TreeDef, key: &[u8]) -> Result<Option<Value>> {
        let place = self.view.trees.place(tree);
        match tree.kind {
            TreeKind::Append => {
                let own = &self.batch.append[place];
                if let Ok(at) = own.binary_search_by(|(k, _)| k[..].cmp(key)) {
                    return Ok(Some(own[at].1.clone().into()));
                }
            }
            TreeKind::Ordered => {
                if let Some(cell) = self.batch.ordered[place].get(key) {
                    return Ok(cell.value.clone().map(Value::from));
                }
            }
        }
        self.view.get(tree.kind, place, key)
    }

    /// A cursor before the first entry of `tree`, this transaction's own writes included.
    pub fn cursor(&self, tree: &TreeDef) -> Cursor<'_> {
        Cursor::over(Arc::clone(&self.view), tree, Some(&self.batch))
    }

    /// What the newest commit before this transaction said about itself.
    pub fn meta(&self) -> &CommitMeta {
        &self.view.meta
    }

    /// Makes the writes visible, all at once. `stamp` is the owner's revision after them.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if the owner meta does not fit a commit slot.
    ///
    /// # Panics
    /// If the applied index goes back: the caller would lose what it already said is applied.
    pub fn commit(mut self, meta: CommitMeta, stamp: u64) -> Result<Seq> {
        if meta.owner.len() > OWNER_META_BYTES_MAX {
            let (bytes, bytes_max) = (meta.owner.len() as u64, OWNER_META_BYTES_MAX as u64);
            return Err(Error::TooLarge { what: "owner meta", bytes, bytes_max });
        }
        let before = self.view.meta.applied_index;
        assert!(before <= meta.applied_index, "applied index goes back: {before} to {}", meta.applied_index);
        for (last, new) in self.writer.last_keys.iter_mut().zip(&self.batch.append) {
            if let Some((key, _)) = new.last() {
                *last = Some(*key);
            }
        }
        reach("beforeWritebackBuf");
        let seq = self.inner.publish_commit(self.batch, meta, stamp);
        reach("afterWritebackBuf");
        Ok(seq)
    }
}
