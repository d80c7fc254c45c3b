// SPDX-License-Identifier: Apache-2.0
//! What an owner can set about a store, each with the value it has unless said otherwise.
//!
//! Owns      the options of a store, their defaults, and the steps in which the file grows.
//! Never     changes after the store is opened.

use std::sync::Arc;

use crate::holds::Stopwatch;
use crate::io::{StdVfs, Vfs};
use crate::page::PAGE_BYTES;

/// How pages are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageSourceKind {
    /// Through a memory map, where the file has one.
    Map,
    /// By reading, each time anew: for suspect disks, and for files much larger than memory.
    Pread,
}

/// Options of a store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Where the files are.
    pub vfs: Arc<dyn Vfs>,
    pub page_source: PageSourceKind,
    /// Has the space map, which grows with the file, read by the first who needs it and not at open: an open then costs
    /// the same whatever the size of the file. See [`Db::read_space_map`](crate::Db::read_space_map).
    pub lazy_space_map: bool,
    /// With what holds of locks are measured; without one they are counted alone.
    pub stopwatch: Option<Arc<dyn Stopwatch>>,
    /// Addresses to reserve for the map; a file that outgrows them is mapped anew.
    pub map_reserve: u64,
    /// A checkpoint is due once the active overlay holds this many bytes.
    pub overlay_bytes: u64,
    /// A checkpoint is due once the active overlay holds this many entries.
    pub overlay_entries: u64,
    /// A checkpoint is due this long after the first commit it would fold.
    pub checkpoint_every_ms: u64,
    pub growth: Growth,
    /// Space that only later checkpoints give back makes an idle store tidy up once it is this much, and a
    /// tenth of the file.
    pub tidy_bytes: u64,
    /// Most bytes that purges rewrite in one checkpoint; the rest waits for the next.
    pub purge_bytes: u64,
    /// A file that is larger than it should be for so long is made smaller in the background.
    pub shrink_after_ms: u64,
    /// Most bytes that one checkpoint moves for that.
    pub relocate_bytes: u64,
    /// Free extents of this size are given back to the file system, which keeps the length of the file.
    pub punch_bytes: u64,
    /// Once they stayed free for so long.
    pub punch_after_ms: u64,
    /// Most bytes of content in a leaf or a branch, whatever its tree says: small ones make deep trees of
    /// few entries.
    pub node_bytes_max: usize,
}

/// How the tree file grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Growth {
    /// A new file's size.
    pub first_bytes: u64,
    /// The file doubles until it grows by this much at a time.
    pub step_bytes: u64,
    /// A large file grows by an eighth of its size, and by no more than this.
    pub step_bytes_max: u64,
}

impl Growth {
    /// Pages by which a file of `pages` pages grows.
    pub(crate) fn step_pages(&self, pages: u64) -> u64 {
        let bytes = pages * PAGE_BYTES as u64;
        let step = if bytes < self.step_bytes {
            bytes.max(self.first_bytes)
        } else {
            (bytes / 8).max(self.step_bytes).min(self.step_bytes_max.max(self.step_bytes))
        };
        step.div_ceil(PAGE_BYTES as u64).max(1)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            vfs: Arc::new(StdVfs),
            page_source: PageSourceKind::Map,
            lazy_space_map: false,
            stopwatch: None,
            map_reserve: 1 << 40,
            overlay_bytes: 64 << 20,
            overlay_entries: 200_000,
            checkpoint_every_ms: 60_000,
            growth: Growth { first_bytes: 1 << 20, step_bytes: 64 << 20, step_bytes_max: 1 << 30 },
            tidy_bytes: 16 << 20,
            purge_bytes: 16 << 20,
            shrink_after_ms: 30_000,
            relocate_bytes: 16 << 20,
            punch_bytes: 1 << 20,
            punch_after_ms: 60_000,
            node_bytes_max: usize::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_doubles_and_then_grows_by_an_eighth() {
        let growth = Options::default().growth;
        let mib = |mib: u64| mib << 20 >> 12;
        let steps = [0, 1, 32, 64, 1024, 100 << 10].map(|size| growth.step_pages(mib(size)));
        assert_eq!(steps, [mib(1), mib(1), mib(32), mib(64), mib(128), mib(1024)]);
    }
}
