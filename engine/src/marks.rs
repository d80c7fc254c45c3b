// SPDX-License-Identifier: Apache-2.0
//! Branches of recovery that runs of the simulator must take: a run that never took one shows nothing of it.
//!
//! Owns      the engine's branches by name, and how often each was taken in this process.
//! Holds     without the feature `sim`, `reach` is nothing.
//! Never     changes what is done, or has what tests of this crate take by themselves: stores that crash while they are made.

#[cfg(feature = "sim")]
use std::{collections::BTreeMap, sync::Mutex};

/// Every branch of the engine's recovery, with when it is taken.
#[cfg(feature = "sim")]
pub const ALL: &[(&str, &str)] = &[
    ("slot-fallen-back", "the newest whole slot is not the one to go on from"),
    ("slot-zeroed", "a slot that was rejected or torn is made blank"),
    ("space-map-rebuilt", "the space map is made from a walk over the trees"),
    ("log-clean", "nothing follows the last batch"),
    ("log-torn", "a batch that was begun before a crash is cut off"),
    ("log-leftovers", "segments that were being released are let go"),
    ("log-passed-over", "no more of a segment is read than how it begins"),
    ("log-replaced", "entries of one leader give way to those of another"),
    ("log-rebased", "the log begins anew behind a store that came by a snapshot"),
];

/// The branch `name` of recovery is taken.
#[cfg(not(feature = "sim"))]
#[inline(always)]
pub(crate) const fn reach(_name: &'static str) {}

/// The branch `name` of recovery is taken.
#[cfg(feature = "sim")]
pub(crate) fn reach(name: &'static str) {
    reach_of(ALL, name);
}

#[cfg(feature = "sim")]
static TAKEN: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());

/// The branch `name` of the list `all` is taken: for crates with lists of their own.
#[cfg(feature = "sim")]
pub fn reach_of(all: &[(&str, &str)], name: &'static str) {
    debug_assert!(all.iter().any(|(known, _)| *known == name), "{name} is not in the list");
    *TAKEN.lock().expect("nothing fails under this lock").entry(name).or_default() += 1;
}

/// How often each branch was taken.
#[cfg(feature = "sim")]
pub fn taken() -> BTreeMap<&'static str, u64> {
    TAKEN.lock().expect("nothing fails under this lock").clone()
}
