// SPDX-License-Identifier: Apache-2.0
//! The store's history as the watch hub reads it.
//!
//! Owns      the translation between the hub's questions and the reader's answers.
//! Holds     a compaction is told apart from a failure: the first ends a watcher, the second the member.
//! Never     holds a lock.

use bytes::Bytes;
use cairn_core::watch::{Chunk, History, HistoryError};
use cairn_mvcc::{HistoryBudget, KeyRange, OpError, Reader};

/// Changes that one read looks at, and revisions that it gives.
const ENTRIES_MAX: usize = 100_000;
const REVISIONS_MAX: usize = 10_000;

pub(super) struct ReaderHistory(pub Reader);

fn told(error: OpError) -> HistoryError {
    match error {
        OpError::Compacted => HistoryError::Compacted,
        other => HistoryError::Failed(other.to_string()),
    }
}

impl History for ReaderHistory {
    fn compact_revision(&self) -> Result<i64, HistoryError> {
        self.0.compact_revision().map_err(told)
    }

    fn events(
        &self,
        ranges: &[KeyRange],
        from: i64,
        to: i64,
        bytes_max: usize,
    ) -> Result<Chunk, HistoryError> {
        let budget = HistoryBudget { entries: ENTRIES_MAX, revisions: REVISIONS_MAX, bytes: bytes_max };
        let done = self.0.history(ranges, from, to, budget).map_err(told)?;
        Ok(Chunk { revisions: done.revisions, covered: done.next - 1 })
    }

    fn kv_at(&self, key: &[u8], revision: i64) -> Result<Option<Bytes>, HistoryError> {
        match self.0.get_at(key, revision) {
            Ok(kv) => Ok(kv),
            Err(OpError::Compacted) => Ok(None),
            Err(other) => Err(told(other)),
        }
    }
}
