// SPDX-License-Identifier: Apache-2.0
//! The overlay's half of an append tree: entries in the order they came, which is key order.
//!
//! Owns      the chunks of entries. One writer, any number of readers, no lock between them.
//! Holds     1. keys only grow;
//!           2. an entry never changes or moves once it is pushed, so a reader that knows a length
//!              reads everything below it for as long as it holds the log.
//! Never     decides what is visible: the published length travels with the view.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::schema::AppendKey;
use crate::sync::{AtomicUsize, OnceLock};

/// Entries of a chunk, chunks of a shelf, and shelves: few where every order of events is tried.
const WIDTH: usize = if cfg!(all(test, loom)) { 2 } else { 256 };
const CHUNK: usize = WIDTH;
const SHELF: usize = WIDTH;
const SHELVES: usize = WIDTH;

/// Most entries one overlay takes. A checkpoint is due at a hundredth of it.
pub(crate) const APPEND_ENTRIES_MAX: usize = CHUNK * SHELF * SHELVES;

#[derive(Debug)]
pub(crate) struct AppendEntry {
    pub(crate) key: AppendKey,
    pub(crate) value: Bytes,
    /// Sum of the weights of all entries before this one, so that a range costs two searches.
    weight_before: u64,
}

type Chunk = Box<[OnceLock<AppendEntry>]>;
type Shelf = Box<[OnceLock<Chunk>]>;

fn empty<T>(n: usize) -> Box<[OnceLock<T>]> {
    (0..n).map(|_| OnceLock::new()).collect()
}

#[derive(Debug)]
pub(crate) struct AppendLog {
    shelves: Box<[OnceLock<Shelf>]>,
    len: AtomicUsize,
    weight: fn(&[u8], &[u8]) -> u64,
}

impl AppendLog {
    pub(crate) fn new(weight: fn(&[u8], &[u8]) -> u64) -> Self {
        Self { shelves: empty(SHELVES), len: AtomicUsize::new(0), weight }
    }

    /// Entries published so far.
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// Adds `entries` and publishes them together. The caller is the only writer.
    ///
    /// # Panics
    /// If a key does not grow, or another writer is at work.
    pub(crate) fn extend(&self, entries: impl IntoIterator<Item = (AppendKey, Bytes)>) {
        let mut at = self.len.load(Ordering::Relaxed);
        let mut last = at.checked_sub(1).map(|i| self.entry(i).key);
        let mut weight_before = self.weight_below(at);
        for (key, value) in entries {
            assert!(last.is_none_or(|l| l < key), "append keys go back: {last:?} to {key:?}");
            assert!(at < APPEND_ENTRIES_MAX, "an overlay of {at} entries was never folded");
            let weight = (self.weight)(&key, &value);
            let shelf = self.shelves[at / CHUNK / SHELF].get_or_init(|| empty(SHELF));
            let chunk = shelf[at / CHUNK % SHELF].get_or_init(|| empty(CHUNK));
            let fresh = chunk[at % CHUNK].set(AppendEntry { key, value, weight_before });
            assert!(fresh.is_ok(), "two writers append to one overlay");
            weight_before += weight;
            last = Some(key);
            at += 1;
        }
        self.len.store(at, Ordering::Release);
    }

    /// The entry at `i`, which must be below a published length.
    pub(crate) fn entry(&self, i: usize) -> &AppendEntry {
        self.shelves[i / CHUNK / SHELF]
            .get()
            .and_then(|shelf| shelf[i / CHUNK % SHELF].get())
            .and_then(|chunk| chunk[i % CHUNK].get())
            .expect("entries below a published length are set")
    }

    /// How many of the first `len` entries have keys below `key`.
    pub(crate) fn rank(&self, len: usize, key: &[u8]) -> usize {
        let (mut lo, mut hi) = (0, len);
        while lo < hi {
            let mid = lo + (hi - lo) / 2;
            if self.entry(mid).key.as_slice() < key { lo = mid + 1 } else { hi = mid }
        }
        lo
    }

    /// The value of `key` among the first `len` entries.
    pub(crate) fn get(&self, len: usize, key: &[u8]) -> Option<&Bytes> {
        let at = self.rank(len, key);
        if at == len {
            return None;
        }
        let entry = self.entry(at);
        (entry.key.as_slice() == key).then_some(&entry.value)
    }

    /// Sum of the weights of the first `n` entries.
    pub(crate) fn weight_below(&self, n: usize) -> u64 {
        match n.checked_sub(1) {
            None => 0,
            Some(i) => {
                let last = self.entry(i);
                last.weight_before + (self.weight)(&last.key, &last.value)
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn key(n: u64) -> AppendKey {
        (u128::from(n) << 64).to_be_bytes()
    }

    fn by_len(_: &[u8], value: &[u8]) -> u64 {
        value.len() as u64
    }

    #[test]
    fn a_length_bounds_what_is_found() {
        let log = AppendLog::new(by_len);
        log.extend((0..1000).map(|n| (key(n * 2), Bytes::from(n.to_string()))));
        assert_eq!(log.len(), 1000);
        assert_eq!(log.get(1000, &key(998)).map(|v| &v[..]), Some(&b"499"[..]));
        assert_eq!(log.get(499, &key(998)), None, "beyond the captured length");
        assert_eq!(log.get(1000, &key(999)), None, "a gap between keys");
        assert_eq!(log.rank(1000, &key(5000)), 1000);
        assert_eq!(log.rank(1000, b""), 0);
    }

    #[test]
    fn weights_are_prefix_sums() {
        let log = AppendLog::new(by_len);
        log.extend((0..700).map(|n| (key(n), Bytes::from(vec![0; n as usize % 7]))));
        let mut sum = 0;
        for n in 0..=700_usize {
            assert_eq!(log.weight_below(n), sum);
            sum += n as u64 % 7;
        }
    }

    #[test]
    fn readers_see_a_whole_prefix_while_the_writer_goes_on() {
        let log = AppendLog::new(by_len);
        std::thread::scope(|s| {
            s.spawn(|| {
                for batch in 0..300_u64 {
                    log.extend((batch * 10..batch * 10 + 10).map(|n| (key(n), Bytes::from(n.to_string()))));
                }
            });
            for _ in 0..2 {
                s.spawn(|| {
                    let mut seen = 0;
                    while seen < 3000 {
                        let len = log.len();
                        assert!(len >= seen && len.is_multiple_of(10), "a batch is published whole");
                        for i in seen..len {
                            assert_eq!(log.entry(i).key, key(i as u64));
                        }
                        seen = len;
                    }
                });
            }
        });
    }

    #[test]
    #[should_panic(expected = "append keys go back")]
    fn a_key_that_does_not_grow_is_refused() {
        let log = AppendLog::new(by_len);
        log.extend([(key(2), Bytes::new()), (key(2), Bytes::new())]);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    fn key(n: usize) -> AppendKey {
        (n as u128).to_be_bytes()
    }

    #[test]
    fn who_sees_a_length_sees_every_entry_below_it() {
        loom::model(|| {
            let log = Arc::new(AppendLog::new(|_, value| value.len() as u64));
            // The reader is the one that is spawned: loom tries a load against the newest store before it, but not a
            // store against the loads of others once its own thread has loaded too.
            let reader = thread::spawn({
                let log = Arc::clone(&log);
                move || {
                    let len = log.len();
                    assert!([0, 1, 3].contains(&len), "{len} entries were never published");
                    for n in 0..len {
                        assert_eq!(log.entry(n).key, key(n));
                    }
                    assert_eq!(log.weight_below(len), len as u64);
                }
            });
            let entry = |n: usize| (key(n), Bytes::from_static(b"v"));
            log.extend([entry(0)]);
            log.extend([entry(1), entry(2)]);
            reader.join().expect("no panic");
            assert_eq!(log.len(), 3);
        });
    }
}
