// SPDX-License-Identifier: Apache-2.0
//! Planted mistakes of this crate, with which the simulator is tested: see `cairn_engine::mutants`.
//!
//! Owns      the list of them by name.
//! Holds     without the feature `mutants`, `planted` is a constant and the mistakes do not exist.
//! Never     is part of a release.

/// Every mistake that the code can be asked to make, with what it sabotages.
#[cfg(feature = "mutants")]
pub const ALL: &[(&str, &str)] = &[
    (
        "revision-from-the-newest-record",
        "the revision is read off the newest record, which a purge may have taken",
    ),
    (
        "tombstone-at-the-compact-revision-purged",
        "a purge takes the tombstone that a watcher may still begin at",
    ),
    (
        "txn-range-not-checked",
        "a range in a transaction is not held against the revisions before anything is written",
    ),
];

/// True if the mistake `name` is planted on this thread.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub(crate) const fn planted(_name: &'static str) -> bool {
    false
}

/// True if the mistake `name` is planted on this thread.
#[cfg(feature = "mutants")]
pub(crate) fn planted(name: &'static str) -> bool {
    cairn_engine::mutants::is_planted(ALL, name)
}
