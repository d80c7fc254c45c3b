// SPDX-License-Identifier: Apache-2.0
//! Figures of a store, for metrics and for the gates on counts.
//!
//! Owns      the public snapshot of a store's figures.
//! Never     decides anything.

/// A store's figures at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Memory of the active and the frozen overlay.
    pub overlay_bytes: u64,
    /// Entries of both.
    pub overlay_entries: u64,
    /// Commits since the store was opened.
    pub commits: u64,
}
