// SPDX-License-Identifier: Apache-2.0
//! The newest entries, kept in memory.
//!
//! Owns      a contiguous run of entries that ends at the last one of the log.
//! Holds     1. an entry that is not yet in a written batch is always here;
//!           2. beyond those, at most `bytes_max` of data are.
//! Never     reads a file.

use std::collections::VecDeque;

use super::batch::Entry;

#[derive(Debug)]
pub(super) struct EntryCache {
    entries: VecDeque<Entry>,
    bytes: usize,
    bytes_max: usize,
}

impl EntryCache {
    pub(super) fn new(bytes_max: usize) -> EntryCache {
        EntryCache { entries: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Takes in an entry, which voids those with its index or a larger one.
    pub(super) fn push(&mut self, entry: Entry) {
        while let Some(last) = self.entries.back().filter(|last| last.index >= entry.index) {
            self.bytes -= cost(last);
            self.entries.pop_back();
        }
        debug_assert!(self.entries.back().is_none_or(|last| last.index + 1 == entry.index));
        self.bytes += cost(&entry);
        self.entries.push_back(entry);
    }

    pub(super) fn get(&self, index: u64) -> Option<&Entry> {
        let first = self.entries.front()?.index;
        self.entries.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }

    /// Lets go of entries that are below `from` and over the bound.
    pub(super) fn evict_below(&mut self, from: u64) {
        while self.bytes > self.bytes_max {
            let Some(first) = self.entries.front().filter(|first| first.index < from) else { return };
            self.bytes -= cost(first);
            self.entries.pop_front();
        }
    }

    /// Lets go of every entry below `first`.
    pub(super) fn forget_below(&mut self, first: u64) {
        while let Some(entry) = self.entries.front().filter(|entry| entry.index < first) {
            self.bytes -= cost(entry);
            self.entries.pop_front();
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

fn cost(entry: &Entry) -> usize {
    size_of::<Entry>() + entry.data.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn the_bound_spares_what_is_not_yet_written() {
        let entry = |index| Entry { index, term: 1, kind: 0, data: Bytes::from_static(&[0; 100]) };
        let mut cache = EntryCache::new(3 * (100 + size_of::<Entry>()));
        (1..=10).for_each(|i| cache.push(entry(i)));
        cache.evict_below(6);
        assert!(cache.get(5).is_none() && cache.get(6).is_some(), "6 and on are not written");
        cache.evict_below(11);
        assert!(cache.get(7).is_none() && cache.get(8).is_some());
        cache.push(entry(9));
        assert!(cache.get(10).is_none(), "voided");
        cache.forget_below(10);
        assert_eq!(cache.bytes(), 0);
    }
}
