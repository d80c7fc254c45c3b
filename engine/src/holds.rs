// SPDX-License-Identifier: Apache-2.0
//! How long locks are held that a reader or the writer may wait for.
//!
//! Owns      the figures of each such lock, and the measuring of one hold.
//! Holds     1. time comes from the store's owner: without a stopwatch holds are counted and not measured;
//!           2. where a hold walks entries, how many it walks is counted too, so that its length has a bound that
//!              no clock is needed to check.
//! Never     takes a lock.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Time for measuring, brought by the owner of a store.
pub trait Stopwatch: Send + Sync + fmt::Debug {
    /// Nanoseconds since some moment; never goes back.
    fn now_ns(&self) -> u64;
}

/// A hold that is longer than this is counted as a long one.
pub const LONG_HOLD_NS: u64 = 5_000_000;

/// Most entries of an ordered overlay that are walked or moved in one hold of its lock.
pub const HOLD_ENTRIES_MAX: u64 = 2048;

/// What a lock is held for, while a reader or the writer may wait for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lock {
    /// The published state is replaced.
    Publish,
    /// The writer waits while its overlay is frozen.
    Freeze,
    /// Readers wait while a batch enters the overlay.
    Merge,
    /// The writer waits while a checkpoint takes over the list of purges.
    Purges,
}

impl Lock {
    pub const ALL: [Lock; 4] = [Lock::Publish, Lock::Freeze, Lock::Merge, Lock::Purges];

    pub const fn name(self) -> &'static str {
        match self {
            Lock::Publish => "publish",
            Lock::Freeze => "freeze",
            Lock::Merge => "merge",
            Lock::Purges => "purges",
        }
    }
}

/// Figures of one lock since the store was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HoldStats {
    pub holds: u64,
    pub longest_ns: u64,
    /// Holds that were longer than [`LONG_HOLD_NS`].
    pub long: u64,
}

/// Figures of all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LockStats {
    by_lock: [HoldStats; Lock::ALL.len()],
    /// Most entries of an ordered overlay that one hold of its lock walked or moved.
    pub entries_max: u64,
}

impl LockStats {
    pub fn of(&self, lock: Lock) -> HoldStats {
        self.by_lock[lock as usize]
    }
}

#[derive(Debug, Default)]
struct Figures {
    holds: AtomicU64,
    longest_ns: AtomicU64,
    long: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct Holds {
    stopwatch: Option<Arc<dyn Stopwatch>>,
    by_lock: [Figures; Lock::ALL.len()],
    entries_max: AtomicU64,
}

impl Holds {
    pub(crate) fn new(stopwatch: Option<Arc<dyn Stopwatch>>) -> Self {
        Self { stopwatch, by_lock: Default::default(), entries_max: AtomicU64::new(0) }
    }

    /// A hold begins; it ends when the answer is dropped, which is to be before the lock is let go.
    pub(crate) fn begin(&self, lock: Lock) -> Hold<'_> {
        let since_ns = self.now_ns();
        Hold { holds: self, lock, since_ns }
    }

    /// One hold walked or moved so many entries.
    pub(crate) fn entries(&self, n: u64) {
        if n > self.entries_max.load(Ordering::Relaxed) {
            self.entries_max.fetch_max(n, Ordering::Relaxed);
        }
    }

    pub(crate) fn stats(&self) -> LockStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let by_lock = self.by_lock.each_ref().map(|figures| HoldStats {
            holds: read(&figures.holds),
            longest_ns: read(&figures.longest_ns),
            long: read(&figures.long),
        });
        LockStats { by_lock, entries_max: read(&self.entries_max) }
    }

    fn now_ns(&self) -> u64 {
        self.stopwatch.as_ref().map_or(0, |stopwatch| stopwatch.now_ns())
    }
}

/// A hold of a lock that is measured.
#[must_use]
pub(crate) struct Hold<'h> {
    holds: &'h Holds,
    lock: Lock,
    since_ns: u64,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let ns = self.holds.now_ns().saturating_sub(self.since_ns);
        let figures = &self.holds.by_lock[self.lock as usize];
        figures.holds.fetch_add(1, Ordering::Relaxed);
        figures.longest_ns.fetch_max(ns, Ordering::Relaxed);
        figures.long.fetch_add(u64::from(ns > LONG_HOLD_NS), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each look is so many nanoseconds after the one before.
    #[derive(Debug)]
    struct Steps(AtomicU64, u64);

    impl Stopwatch for Steps {
        fn now_ns(&self) -> u64 {
            self.0.fetch_add(self.1, Ordering::Relaxed)
        }
    }

    #[test]
    fn a_hold_is_measured_under_its_own_name_and_a_long_one_is_told() {
        let holds = Holds::new(Some(Arc::new(Steps(AtomicU64::new(7), LONG_HOLD_NS))));
        drop(holds.begin(Lock::Merge));
        let outer = holds.begin(Lock::Publish);
        drop(holds.begin(Lock::Merge));
        drop(outer);
        holds.entries(9);
        holds.entries(3);
        let stats = holds.stats();
        let merge = HoldStats { holds: 2, longest_ns: LONG_HOLD_NS, long: 0 };
        let publish = HoldStats { holds: 1, longest_ns: 3 * LONG_HOLD_NS, long: 1 };
        assert_eq!((stats.of(Lock::Merge), stats.of(Lock::Publish)), (merge, publish));
        assert_eq!((stats.of(Lock::Freeze), stats.entries_max), (HoldStats::default(), 9));
        let blind = Holds::new(None);
        drop(blind.begin(Lock::Freeze));
        assert_eq!(blind.stats().of(Lock::Freeze), HoldStats { holds: 1, longest_ns: 0, long: 0 });
    }
}
