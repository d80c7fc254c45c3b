// SPDX-License-Identifier: Apache-2.0
//! What an owner can set about a store, each with the value it has unless said otherwise.
//!
//! Owns      the options of a store and their defaults.
//! Never     changes after the store is opened.

/// Options of a store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// A checkpoint is due once the active overlay holds this many bytes.
    pub overlay_bytes: u64,
    /// A checkpoint is due once the active overlay holds this many entries.
    pub overlay_entries: u64,
    /// A checkpoint is due this long after the first commit it would fold.
    pub checkpoint_every_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { overlay_bytes: 64 << 20, overlay_entries: 200_000, checkpoint_every_ms: 60_000 }
    }
}
