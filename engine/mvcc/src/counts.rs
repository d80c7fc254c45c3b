// SPDX-License-Identifier: Apache-2.0
//! What requests did since the store was opened, counted as etcd counts it.
//!
//! Owns      the counters of a store, and the tally of a request under way.
//! Holds     a compare, and the look at a pair before it is replaced or deleted, counts as a range.
//! Never     decides anything.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts since the store was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    pub ranges: u64,
    pub puts: u64,
    /// Deletes, however many keys each of them found.
    pub deletes: u64,
    /// Requests that did more than one of these things; of a transaction that writes, its compares and its
    /// operations are told apart.
    pub txns: u64,
    /// Keys and values of all puts.
    pub put_bytes: u64,
    /// Records that purges took out.
    pub purged: u64,
}

/// Of all batches and readers of a store.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    ranges: AtomicU64,
    puts: AtomicU64,
    deletes: AtomicU64,
    txns: AtomicU64,
    put_bytes: AtomicU64,
    purged: AtomicU64,
}

impl Counters {
    pub(crate) fn add(&self, counts: &Counts) {
        for (counter, n) in [
            (&self.ranges, counts.ranges),
            (&self.puts, counts.puts),
            (&self.deletes, counts.deletes),
            (&self.txns, counts.txns),
            (&self.put_bytes, counts.put_bytes),
            (&self.purged, counts.purged),
        ] {
            if n > 0 {
                counter.fetch_add(n, Relaxed);
            }
        }
    }

    pub(crate) fn get(&self) -> Counts {
        Counts {
            ranges: self.ranges.load(Relaxed),
            puts: self.puts.load(Relaxed),
            deletes: self.deletes.load(Relaxed),
            txns: self.txns.load(Relaxed),
            put_bytes: self.put_bytes.load(Relaxed),
            purged: self.purged.load(Relaxed),
        }
    }
}

/// The counts of a batch, whose requests end one after the other.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    counts: Counts,
    /// What the part under way did.
    done: u64,
}

impl Tally {
    pub(crate) fn ranges(&mut self, n: u64) {
        self.counts.ranges += n;
        self.done += n;
    }

    pub(crate) fn put(&mut self, bytes: usize) {
        self.counts.puts += 1;
        self.counts.put_bytes += bytes as u64;
        self.done += 1;
    }

    pub(crate) fn delete(&mut self) {
        self.counts.deletes += 1;
        self.done += 1;
    }

    /// The request, or the compares of a transaction, are over.
    pub(crate) fn end(&mut self) {
        self.counts.txns += u64::from(std::mem::take(&mut self.done) > 1);
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }
}
