// SPDX-License-Identifier: Apache-2.0
//! Planted mistakes, with which the tests are tested.
//!
//! Owns      the list of the engine's mistakes by name, the one that is planted on this thread, and the line that a test prints
//!           of a search for one: `cargo xtask sabotage` reads it.
//! Holds     1. without the feature `mutants`, `planted` is a constant and the mistakes do not exist;
//!           2. with it, nothing is planted unless a test asks, and only on that test's thread.
//! Never     is part of a release.

#[cfg(feature = "mutants")]
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

/// Every mistake that the code can be asked to make, with what it sabotages.
#[cfg(feature = "mutants")]
pub const ALL: &[(&str, &str)] = &[
    ("wal-sync-skipped", "the group commit answers without its sync"),
    ("wal-segment-named-before-sync", "a segment gets its name before its header is durable"),
    ("wal-segment-name-not-synced", "the directory is not synced after a segment got its name"),
    ("wal-segment-released-early", "one segment more than allowed is let go"),
    ("wal-recycled-before-its-name-is-gone", "a released file is rewritten while its old name may come back"),
    ("wal-append-to-a-recovered-tail", "after a restart the log goes on in the segment that it found"),
    ("wal-goes-on-after-a-failed-sync", "a failed write or sync does not end the writing"),
    ("wal-recovered-tail-not-synced", "what is read at open is trusted without a sync"),
    ("wal-read-from-one-segment-late", "at open the oldest segment that is needed is passed over"),
    ("wal-voided-entries-revived", "after a restart, entries that others replaced are there again"),
    ("wal-install-not-noticed", "a store that came by a snapshot gets the log of the one before it"),
    (
        "wal-loss-taken-for-a-torn-tail",
        "damage to a batch that was durable is cut off as one that was never synced",
    ),
    ("slot-before-data", "a commit slot is written before the pages it points at are synced"),
    ("checkpoint-without-sync", "a checkpoint writes its slot and never syncs"),
    ("extent-reused-one-checkpoint-early", "a freed extent is written again one checkpoint too early"),
    ("readers-not-asked", "a freed extent is written again under a reader"),
    ("punch-early", "a hole is punched in pages that only later checkpoints give back"),
    ("hole-not-reserved", "a hole is written to without asking for room first"),
    ("relocated-not-released", "a node is copied out of the tail and its old pages stay in use"),
    ("truncate-early", "the file is cut where checkpoints that a crash could bring back have pages"),
    ("bitmap-in-place", "a region's bitmap is written over the version before it"),
    ("rejected-slot-kept", "a slot that recovery rejected stays on disk"),
    ("log-released-one-checkpoint-early", "the log is released up to the confirmed checkpoint itself"),
    ("log-released-to-the-unconfirmed", "the log is released up to a checkpoint whose slot is not synced"),
    (
        "log-released-beyond-the-fold",
        "the log is released up to what is applied, whether the tree file has it or not",
    ),
    ("name-not-synced", "the name of the tree file is not made durable"),
    ("created-in-place", "a new tree file is built under its own name"),
    (
        "meta-from-newest-commit",
        "a slot takes its applied index from the newest commit, not from the overlay",
    ),
    ("write-after-failed-sync", "a failed sync does not stop later writes"),
    ("tree-parent-checksum-ignored", "a node is read though its header page is not what its parent says"),
    ("tree-page-checksum-ignored", "a page of a node is read though it is not what its header page says"),
    ("tree-stale-node-taken", "a node of an older checkpoint is taken for the one that its parent means"),
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
    is_planted(ALL, name)
}

/// True if the mistake `name` of the list `all` is planted on this thread: for crates with lists of their own.
#[cfg(feature = "mutants")]
pub fn is_planted(all: &[(&str, &str)], name: &'static str) -> bool {
    debug_assert!(all.iter().any(|(known, _)| *known == name), "{name} is not in the list");
    PLANTED.get() == Some(name)
}

/// Runs `run` with the mistake `name` of any list planted on this thread.
#[cfg(feature = "mutants")]
pub fn with<R>(name: &'static str, run: impl FnOnce() -> R) -> R {
    PLANTED.set(Some(name));
    let _uproot = Uproot;
    run()
}

#[cfg(feature = "mutants")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<&'static str>> = const { std::cell::Cell::new(None) };
}

/// Whether the mistake `name` is to be looked for: all are, or the one of `CAIRN_MUTANT`.
#[cfg(feature = "mutants")]
pub fn is_wanted(name: &str) -> bool {
    std::env::var("CAIRN_MUTANT").map_or(true, |wanted| wanted == name)
}

/// Runs a search that finds nothing in sound code, for the mistake `name`. Answers what it found, or what it panicked
/// with; `None` if it noticed nothing. `by` is who searches.
#[cfg(feature = "mutants")]
pub fn hunt(name: &str, by: &str, search: impl FnOnce() -> Result<(), String>) -> Option<String> {
    let began = Instant::now();
    let found = match catch_unwind(AssertUnwindSafe(search)) {
        Ok(result) => result.err(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied());
            Some(text.unwrap_or("a panic without a text").to_owned())
        }
    };
    let first = |text: &String| text.lines().next().unwrap_or_default().to_owned();
    let place = found.as_ref().map_or("NOT CAUGHT".to_owned(), first);
    println!("sabotage: {name}\t{by}\t{:.1}\t{place}", began.elapsed().as_secs_f64());
    found
}

/// The same with the mistake planted.
#[cfg(feature = "mutants")]
pub fn hunt_planted(
    name: &'static str,
    by: &str,
    search: impl FnOnce() -> Result<(), String>,
) -> Option<String> {
    with(name, || hunt(name, by, search))
}

/// Takes the mistake out again, also when the test panics.
#[cfg(feature = "mutants")]
struct Uproot;

#[cfg(feature = "mutants")]
impl Drop for Uproot {
    fn drop(&mut self) {
        PLANTED.set(None);
    }
}
