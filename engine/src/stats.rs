// SPDX-License-Identifier: Apache-2.0
//! Figures of a store, for metrics and for the gates on counts.
//!
//! Owns      the public snapshot of a store's figures.
//! Never     decides anything.

use crate::holds::LockStats;

/// A store's figures at one moment. Counters count since the store was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Memory of the active and the frozen overlay.
    pub overlay_bytes: u64,
    /// Entries of both.
    pub overlay_entries: u64,
    pub commits: u64,
    pub checkpoints: u64,
    /// The newest checkpoint, and the newest one whose slot is known to be durable.
    pub checkpoint_seq: u64,
    pub confirmed_seq: u64,
    /// The oldest checkpoint that a reader holds; the newest one if no reader holds an older.
    pub oldest_reader_seq: u64,
    /// For how long it has been seen to hold it, snapshots included, when
    /// [`Db::note_readers`](crate::Db::note_readers) looked last; zero if there was none.
    pub oldest_reader_ms: u64,
    /// Snapshots that hold a checkpoint.
    pub snapshots: u64,
    /// Size of the tree file, and its parts: used by the newest checkpoint, free, waiting for later
    /// checkpoints or readers, and of the latter those that wait for readers alone.
    pub file_bytes: u64,
    pub used_bytes: u64,
    pub free_bytes: u64,
    pub pending_bytes: u64,
    pub pinned_bytes: u64,
    /// Those of the free bytes that the file system has back: the file is that much smaller on the disk.
    pub hole_bytes: u64,
    pub syncs: u64,
    pub bytes_written: u64,
    /// Nodes and blobs opened.
    pub extents_read: u64,
    /// Pages whose checksum was computed.
    pub pages_verified: u64,
    pub extents_allocated: u64,
    pub bytes_punched: u64,
    /// Holds of locks that a reader or the writer may wait for.
    pub locks: LockStats,
}
