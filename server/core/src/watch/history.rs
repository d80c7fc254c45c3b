// SPDX-License-Identifier: Apache-2.0
//! The store's history as the watch hub reads it.
//!
//! Owns      the translation between the hub's questions and the reader's answers.
//! Holds     a compaction is told apart from a failure: the first ends a watcher, the second the member.
//! Never     holds a lock.

use super::catchup::{Chunk, History, HistoryError};
use bytes::Bytes;
use cairn_mvcc::{HistoryBudget, KeyRange, OpError, Reader};

/// See the module.
#[derive(Clone)]
pub struct ReaderHistory {
    pub reader: Reader,
    /// Changes that one read looks at.
    pub entries_max: usize,
    /// Revisions that one read gives.
    pub revisions_max: usize,
}

impl ReaderHistory {
    pub fn new(reader: Reader) -> ReaderHistory {
        ReaderHistory { reader, entries_max: 100_000, revisions_max: 10_000 }
    }
}

fn told(error: OpError) -> HistoryError {
    match error {
        OpError::Compacted => HistoryError::Compacted,
        other => HistoryError::Failed(other),
    }
}

impl History for ReaderHistory {
    fn compact_revision(&self) -> Result<i64, HistoryError> {
        self.reader.compact_revision().map_err(told)
    }

    fn events(&self, ranges: &[KeyRange], from: i64, to: i64, bytes: usize) -> Result<Chunk, HistoryError> {
        let budget = HistoryBudget { entries: self.entries_max, revisions: self.revisions_max, bytes };
        let done = self.reader.history(ranges, from, to, budget).map_err(told)?;
        Ok(Chunk { revisions: done.revisions, covered: done.next - 1 })
    }

    fn kv_at(&self, key: &[u8], revision: i64) -> Result<Option<Bytes>, HistoryError> {
        match self.reader.get_at(key, revision) {
            Ok(kv) => Ok(kv),
            Err(OpError::Compacted) => Ok(None),
            Err(other) => Err(told(other)),
        }
    }
}
