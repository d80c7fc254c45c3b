// SPDX-License-Identifier: Apache-2.0
//! A log in memory that can lose what is not synced.
//!
//! Owns      what the replica sees, what is durable, and the appends between the two.
//! Holds     a crash keeps what was synced, and a beginning of the appends after it.
//! Never     fails.

use cairn_core::replica::log::{Log, LogEntry, LogError, Promise};
use cairn_engine::sim::SplitMix;
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard},
};

#[derive(Clone, Default)]
struct Content {
    /// Index and term before the first entry.
    base: (u64, u64),
    entries: VecDeque<LogEntry>,
    promise: Promise,
}

#[derive(Default)]
struct Inner {
    seen: Content,
    durable: Content,
    pending: VecDeque<(Vec<LogEntry>, Option<Promise>)>,
    batches: u64,
}

/// See the module.
#[derive(Default)]
pub(super) struct MemLog(Mutex<Inner>);

impl Content {
    fn append(&mut self, entries: &[LogEntry], promise: Option<Promise>) {
        for entry in entries {
            self.entries.truncate((entry.index - self.base.0) as usize - 1);
            self.entries.push_back(entry.clone());
        }
        self.promise = promise.unwrap_or(self.promise);
    }

    fn last(&self) -> u64 {
        self.base.0 + self.entries.len() as u64
    }

    fn term(&self, index: u64) -> Option<u64> {
        if index == self.base.0 {
            return Some(self.base.1);
        }
        let at = index.checked_sub(self.base.0 + 1)?;
        self.entries.get(at as usize).map(|entry| entry.term)
    }
}

impl MemLog {
    /// A log whose first entries are durable.
    pub fn new(entries: &[LogEntry], promise: Promise) -> MemLog {
        let log = MemLog::default();
        log.inner().seen.append(entries, Some(promise));
        log.sync();
        log
    }

    /// An empty log after `base`, with what was promised before.
    pub fn after(base: (u64, u64), promise: Promise) -> MemLog {
        let content = Content { base, promise, ..Content::default() };
        MemLog(Mutex::new(Inner { seen: content.clone(), durable: content, ..Inner::default() }))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("one thread")
    }

    /// Makes everything durable, and answers up to which batch.
    pub fn sync(&self) -> u64 {
        let mut inner = self.inner();
        inner.pending.clear();
        inner.durable = inner.seen.clone();
        inner.batches
    }

    /// The same log after a crash.
    pub fn crashed(&self, rng: &mut SplitMix) -> MemLog {
        let inner = self.inner();
        let mut kept = inner.durable.clone();
        let count = rng.below(inner.pending.len() as u64 + 1) as usize;
        for (entries, promise) in inner.pending.iter().take(count) {
            kept.append(entries, *promise);
        }
        MemLog(Mutex::new(Inner { seen: kept.clone(), durable: kept, ..Inner::default() }))
    }

    /// Whether something was appended that is not synced.
    pub fn is_behind(&self) -> bool {
        !self.inner().pending.is_empty()
    }

    pub fn promise(&self) -> Promise {
        self.inner().seen.promise
    }

    /// The last entry that is surely durable.
    pub fn durable_last(&self) -> u64 {
        self.inner().durable.last()
    }

    pub fn durable_term(&self, index: u64) -> Option<u64> {
        let inner = self.inner();
        if index < inner.durable.base.0 { Some(u64::MAX) } else { inner.durable.term(index) }
    }

    /// Lets go of everything up to `index`, which is durable.
    pub fn forget(&self, index: u64) {
        let mut inner = self.inner();
        let Inner { seen, durable, .. } = &mut *inner;
        for content in [seen, durable] {
            while content.base.0 < index {
                let Some(entry) = content.entries.pop_front() else { break };
                content.base = (entry.index, entry.term);
            }
        }
    }
}

impl Log for MemLog {
    fn append(&self, entries: &[LogEntry], promise: Option<Promise>) -> Result<u64, LogError> {
        let mut inner = self.inner();
        inner.seen.append(entries, promise);
        inner.pending.push_back((entries.to_vec(), promise));
        inner.batches += 1;
        Ok(inner.batches)
    }

    fn entries(&self, low: u64, high: u64, bytes_max: usize) -> Result<Vec<LogEntry>, LogError> {
        let inner = self.inner();
        let at = |index: u64| (index - inner.seen.base.0) as usize - 1;
        let mut bytes = 0;
        let fits = |entry: &&LogEntry| {
            let first = bytes == 0;
            bytes += entry.data.len() + 1;
            first || bytes <= bytes_max
        };
        Ok(inner.seen.entries.range(at(low)..at(high)).take_while(fits).cloned().collect())
    }

    fn term(&self, index: u64) -> Option<u64> {
        self.inner().seen.term(index)
    }

    fn first_index(&self) -> u64 {
        self.inner().seen.base.0 + 1
    }

    fn last_index(&self) -> u64 {
        self.inner().seen.last()
    }
}
