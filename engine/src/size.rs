// SPDX-License-Identifier: Apache-2.0
//! The size of a store: the most that it needed at once since it was last told to forget that.
//!
//! Owns      the mark, and the wish for a checkpoint that writes it down.
//! Holds     1. the mark rises by itself and is lowered only by [`Db::lower_size`];
//!           2. every slot has it, so a restart does not lower it: what rose after the newest slot rises again as
//!              the log is replayed.
//! Never     counts what is not needed: free pages, spare segments of the log, reserves.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::db::Db;

/// See the module.
#[derive(Debug)]
pub(crate) struct SizeMark {
    bytes: AtomicU64,
    /// What the newest slot has.
    saved: AtomicU64,
}

impl SizeMark {
    /// The mark of the slot that the store goes on from.
    pub(crate) fn new(saved: u64) -> SizeMark {
        SizeMark { bytes: AtomicU64::new(saved), saved: AtomicU64::new(saved) }
    }

    /// Raises the mark to `bytes` if it is lower. Answers the mark.
    pub(crate) fn raise(&self, bytes: u64) -> u64 {
        self.bytes.fetch_max(bytes, Ordering::AcqRel).max(bytes)
    }

    /// A slot with this mark is the newest.
    pub(crate) fn saved(&self, bytes: u64) {
        self.saved.store(bytes, Ordering::Release);
    }

    /// Whether a restart would bring a mark back that was lowered.
    pub(crate) fn is_lowered(&self) -> bool {
        self.bytes.load(Ordering::Acquire) < self.saved.load(Ordering::Acquire)
    }
}

impl Db {
    /// The most bytes that the store needed at once, as far as [`raise_size`](Db::raise_size) and checkpoints saw:
    /// pages in use, pages that only later checkpoints give back, and the overlays. It survives a restart.
    pub fn size(&self) -> u64 {
        self.inner().size.bytes.load(Ordering::Acquire)
    }

    /// Looks at what the store needs now. Answers the mark.
    pub fn raise_size(&self) -> u64 {
        self.inner().size.raise(self.inner().needed_bytes())
    }

    /// Forgets what was needed before now. The next checkpoint, which is made even of an empty overlay, makes a
    /// restart forget it too.
    pub fn lower_size(&self) {
        self.inner().size.bytes.store(self.inner().needed_bytes(), Ordering::Release);
    }
}
