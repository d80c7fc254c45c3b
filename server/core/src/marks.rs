// SPDX-License-Identifier: Apache-2.0
//! Branches of a member's start that runs of the simulator must take: see `cairn_engine::marks`.
//!
//! Owns      the list of them by name.
//! Holds     without the feature `mutants`, `reach` is nothing.
//! Never     changes what is done.

/// Every branch, with when it is taken.
#[cfg(feature = "mutants")]
pub const ALL: &[(&str, &str)] = &[
    ("removed-member-starts", "a member that was removed starts, and helps until its peers say so"),
    ("repair-under-the-log", "a peer's store is one that the log goes on from"),
    ("repair-behind-the-log", "a peer's store has all that the log has, and more"),
    ("term-of-a-peers-store", "a peer's store ends in a term that this member never heard of"),
];

/// The branch `name` is taken.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub(crate) const fn reach(_name: &'static str) {}

/// The branch `name` is taken.
#[cfg(feature = "mutants")]
pub(crate) fn reach(name: &'static str) {
    cairn_engine::marks::reach_of(ALL, name);
}
