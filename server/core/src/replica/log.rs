// SPDX-License-Identifier: Apache-2.0
//! The log as Raft sees it.
//!
//! Owns      the translation between records of the log and entries of raft-rs.
//! Holds     1. what was appended is readable at once, before it is durable;
//!           2. the index before the first entry has a known term, and commit is never above the last
//!              entry nor below what is applied: raft-rs panics otherwise.
//! Never     waits for a disk.

use bytes::Bytes;
use cairn_engine::wal::{self, Record, Wal};
use raft::{
    Error, GetEntriesContext, RaftState, Storage, StorageError,
    eraftpb::{ConfState, Entry, EntryType, HardState, Snapshot},
};
use std::{cell::RefCell, collections::BTreeSet, sync::Arc};

/// One entry of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogEntry {
    pub index: u64,
    pub term: u64,
    pub kind: EntryKind,
    pub data: Bytes,
}

/// What an entry is, numbered as Raft does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryKind {
    Normal = 0,
    ConfChange = 1,
    ConfChangeV2 = 2,
}

impl EntryKind {
    pub fn from_number(n: u8) -> Option<EntryKind> {
        match n {
            0 => Some(EntryKind::Normal),
            1 => Some(EntryKind::ConfChange),
            2 => Some(EntryKind::ConfChangeV2),
            _ => None,
        }
    }
}

/// Term, vote and commit as they are recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Promise {
    pub term: u64,
    pub vote: u64,
    pub commit: u64,
}

/// Why the log could not be read: damage, or a failed disk.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    #[error("{0}")]
    Engine(#[from] cairn_engine::Error),
    #[error("entry {index} of the log is of kind {kind}, which this version does not know")]
    UnknownKind { index: u64, kind: u8 },
}

/// The log under a replica. Shared with the thread that syncs it.
pub trait Log: Send + Sync {
    /// Appends: readable at once, durable after a sync that covers the batch whose number is given back. An
    /// entry of index i voids every earlier one of index i and above.
    ///
    /// # Errors
    /// If nothing can be written any more.
    fn append(&self, entries: &[LogEntry], promise: Option<Promise>) -> Result<u64, LogError>;
    /// Entries from `low` to `high`, the second excluded; at least one, then up to `bytes_max`.
    ///
    /// # Errors
    /// If they cannot be read.
    fn entries(&self, low: u64, high: u64, bytes_max: usize) -> Result<Vec<LogEntry>, LogError>;
    /// The term of an entry, or of the index before the first one.
    fn term(&self, index: u64) -> Option<u64>;
    fn first_index(&self) -> u64;
    fn last_index(&self) -> u64;
}

impl Log for Wal {
    fn append(&self, entries: &[LogEntry], promise: Option<Promise>) -> Result<u64, LogError> {
        let mut batch = 0;
        let mut records: Vec<Record> = Vec::with_capacity(entries.len() + 1);
        let mut bytes = 0;
        for entry in entries {
            if bytes + entry.data.len() > APPEND_BYTES && !records.is_empty() {
                batch = Wal::append(self, std::mem::take(&mut records))?.0;
                bytes = 0;
            }
            bytes += entry.data.len();
            let (index, term, kind, data) = (entry.index, entry.term, entry.kind as u8, entry.data.clone());
            records.push(Record::Entry(wal::Entry { index, term, kind, data }));
        }
        if let Some(Promise { term, vote, commit }) = promise {
            records.push(Record::HardState(wal::HardState { term, vote, commit }));
        }
        if !records.is_empty() {
            batch = Wal::append(self, records)?.0;
        }
        Ok(batch)
    }

    fn entries(&self, low: u64, high: u64, bytes_max: usize) -> Result<Vec<LogEntry>, LogError> {
        let known = |entry: wal::Entry| {
            let wal::Entry { index, term, kind, data } = entry;
            match EntryKind::from_number(kind) {
                Some(kind) => Ok(LogEntry { index, term, kind, data }),
                None => Err(LogError::UnknownKind { index, kind }),
            }
        };
        self.read(low, high, bytes_max)?.into_iter().map(known).collect()
    }

    fn term(&self, index: u64) -> Option<u64> {
        Wal::term(self, index)
    }

    fn first_index(&self) -> u64 {
        Wal::first_index(self)
    }

    fn last_index(&self) -> u64 {
        Wal::last_index(self)
    }
}

/// Data of the entries in one append, one entry at least.
const APPEND_BYTES: usize = 4 << 20;

/// The log in raft-rs's hands.
pub(super) struct LogStorage {
    log: Arc<dyn Log>,
    initial: RaftState,
    /// Why entries could not be read. raft-rs ends the process for such an error; it goes on when it gets
    /// fewer entries than it asked for, and the replica looks here after each step.
    failed: RefCell<Option<LogError>>,
    /// Members for which the log does not reach back far enough.
    behind: RefCell<BTreeSet<u64>>,
}

impl LogStorage {
    pub fn new(log: Arc<dyn Log>, promise: Promise, voters: Vec<u64>, learners: Vec<u64>) -> LogStorage {
        let hard_state = HardState {
            term: promise.term,
            vote: promise.vote,
            commit: promise.commit,
            ..Default::default()
        };
        let conf_state = ConfState { voters, learners, ..Default::default() };
        LogStorage {
            log,
            initial: RaftState::new(hard_state, conf_state),
            failed: RefCell::default(),
            behind: RefCell::default(),
        }
    }

    /// The members that Raft would have sent a snapshot since this was asked last.
    pub fn take_behind(&self) -> BTreeSet<u64> {
        self.behind.take()
    }

    /// The first failed read, if there was one.
    pub fn take_failure(&self) -> Option<LogError> {
        self.failed.borrow_mut().take()
    }
}

impl Storage for LogStorage {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.log.first_index() {
            return Err(Error::Store(StorageError::Compacted));
        }
        let bytes_max = max_size.into().map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
        match self.log.entries(low, high, bytes_max) {
            Ok(entries) => Ok(entries.into_iter().map(to_raft).collect()),
            Err(error) => {
                self.failed.borrow_mut().get_or_insert(error);
                Ok(Vec::new())
            }
        }
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.log.term(index).ok_or(Error::Store(if index < self.log.first_index() {
            StorageError::Compacted
        } else {
            StorageError::Unavailable
        }))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.log.first_index())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.log.last_index())
    }

    fn snapshot(&self, _request_index: u64, to: u64) -> raft::Result<Snapshot> {
        // Snapshots are pinned checkpoints, which travel on a stream of their own.
        self.behind.borrow_mut().insert(to);
        Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}

pub(super) fn to_raft(entry: LogEntry) -> Entry {
    let entry_type = match entry.kind {
        EntryKind::Normal => EntryType::EntryNormal,
        EntryKind::ConfChange => EntryType::EntryConfChange,
        EntryKind::ConfChangeV2 => EntryType::EntryConfChangeV2,
    };
    Entry { entry_type, term: entry.term, index: entry.index, data: entry.data, ..Default::default() }
}

pub(super) fn from_raft(entry: Entry) -> LogEntry {
    let kind = match entry.entry_type {
        EntryType::EntryNormal => EntryKind::Normal,
        EntryType::EntryConfChange => EntryKind::ConfChange,
        EntryType::EntryConfChangeV2 => EntryKind::ConfChangeV2,
    };
    LogEntry { index: entry.index, term: entry.term, kind, data: entry.data }
}
