// SPDX-License-Identifier: Apache-2.0
//! A log in memory, for replicas without a disk.
//!
//! Owns      the entries, and the count of appends; what is durable is said by whoever drives the replica.
//! Never     fails.

use cairn_core::replica::log::{Log, LogEntry, LogError, Promise};
use std::sync::Mutex;

#[derive(Default)]
pub struct MemLog(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// Index and term before the first entry.
    base: (u64, u64),
    entries: Vec<LogEntry>,
    promise: Promise,
    batches: u64,
}

impl MemLog {
    /// One whose entries begin behind this index and term.
    pub fn behind(base: (u64, u64), promise: Promise) -> MemLog {
        MemLog(Mutex::new(Inner { base, promise, ..Inner::default() }))
    }

    /// Appends so far.
    pub fn batches(&self) -> u64 {
        self.0.lock().expect("one thread").batches
    }

    /// The newest that was appended.
    pub fn promise(&self) -> Promise {
        self.0.lock().expect("one thread").promise
    }

    /// Lets go of everything up to `index`.
    pub fn forget(&self, index: u64) {
        let mut inner = self.0.lock().expect("one thread");
        let count = (index - inner.base.0) as usize;
        let last = inner.entries.drain(..count).next_back().expect("there is something to forget");
        inner.base = (last.index, last.term);
    }
}

impl Log for MemLog {
    fn append(&self, entries: &[LogEntry], promise: Option<Promise>) -> Result<u64, LogError> {
        let mut inner = self.0.lock().expect("one thread");
        for entry in entries {
            let before = (entry.index - inner.base.0) as usize - 1;
            inner.entries.truncate(before);
            inner.entries.push(entry.clone());
        }
        inner.promise = promise.unwrap_or(inner.promise);
        inner.batches += 1;
        Ok(inner.batches)
    }
    fn entries(&self, low: u64, high: u64, _bytes_max: usize) -> Result<Vec<LogEntry>, LogError> {
        let inner = self.0.lock().expect("one thread");
        let at = |index: u64| (index - inner.base.0) as usize - 1;
        Ok(inner.entries[at(low)..at(high)].to_vec())
    }
    fn term(&self, index: u64) -> Option<u64> {
        let inner = self.0.lock().expect("one thread");
        if index == inner.base.0 {
            return Some(inner.base.1);
        }
        let at = index.checked_sub(inner.base.0 + 1)?;
        inner.entries.get(at as usize).map(|entry| entry.term)
    }
    fn first_index(&self) -> u64 {
        self.0.lock().expect("one thread").base.0 + 1
    }
    fn last_index(&self) -> u64 {
        let inner = self.0.lock().expect("one thread");
        inner.base.0 + inner.entries.len() as u64
    }
}
