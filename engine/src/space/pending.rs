// SPDX-License-Identifier: Apache-2.0
//! Pending extents: no longer part of the newest checkpoint, and not yet to be written again.
//!
//! Owns      the extents that checkpoints freed, each with its birth and death.
//! Holds     1. an extent that died at checkpoint `d` is part of `d - 1`; it is given back when checkpoint
//!              `d + 3` is built, because the three newest written checkpoints must stay whole (I3);
//!           2. and not while a reader sits at a checkpoint `r` with `birth <= r < death`.
//! Never     touches the bitmap: on disk a pending extent is free, and the older versions of the bitmap
//!           tell recovery which ones were.

use std::collections::VecDeque;

use crate::mutants::planted;

/// Checkpoints between the death of an extent and its reuse.
pub(crate) const REUSE_AFTER: u64 = 3;

/// Some pages in a row that one checkpoint wrote and a later one let go of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Dead {
    pub(crate) start: u64,
    pub(crate) n: u64,
    pub(crate) birth: u64,
    pub(crate) death: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// Waiting for checkpoints, in order of death.
    waiting: VecDeque<Dead>,
    /// Old enough, and seen by a reader.
    pinned: Vec<Dead>,
    pages: u64,
}

impl Pending {
    /// Pages that wait, for whatever reason.
    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    /// Pages that wait for readers alone.
    pub(crate) fn pinned_pages(&self) -> u64 {
        self.pinned.iter().map(|dead| dead.n).sum()
    }

    pub(crate) fn add(&mut self, dead: Dead) {
        let newest = self.waiting.back().map_or(0, |last| last.death);
        assert!(newest <= dead.death, "deaths come in order: {newest} before {}", dead.death);
        self.pages += dead.n;
        self.waiting.push_back(dead);
    }

    /// Takes out what checkpoint `building` may write to, while `readers` hold older checkpoints.
    pub(crate) fn reusable(&mut self, building: u64, readers: &[u64]) -> Vec<Dead> {
        let wait = if planted("extent-reused-one-checkpoint-early") { REUSE_AFTER - 1 } else { REUSE_AFTER };
        let seen = |dead: &Dead| {
            !planted("readers-not-asked") && readers.iter().any(|r| dead.birth <= *r && *r < dead.death)
        };
        let mut free = Vec::new();
        self.pinned.retain(|dead| {
            let keep = seen(dead);
            if !keep {
                free.push(*dead);
            }
            keep
        });
        while let Some(dead) = self.waiting.pop_front_if(|dead| dead.death + wait <= building) {
            if seen(&dead) { self.pinned.push(dead) } else { free.push(dead) }
        }
        self.pages -= free.iter().map(|dead| dead.n).sum::<u64>();
        free
    }

    /// Whether any page from `first` on waits for checkpoints.
    pub(crate) fn is_waiting_from(&self, first: u64) -> bool {
        self.waiting.iter().any(|dead| dead.start + dead.n > first)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Dead> {
        self.waiting.iter().chain(&self.pinned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead(start: u64, birth: u64, death: u64) -> Dead {
        Dead { start, n: 2, birth, death }
    }

    #[test]
    fn an_extent_that_died_at_k_is_written_again_when_k_plus_3_is_built() {
        let mut pending = Pending::default();
        pending.add(dead(10, 1, 5));
        pending.add(dead(20, 1, 6));
        assert_eq!(pending.reusable(7, &[]), []);
        assert_eq!(pending.reusable(8, &[]), [dead(10, 1, 5)]);
        assert_eq!(pending.pages(), 2);
        assert_eq!(pending.reusable(9, &[]), [dead(20, 1, 6)]);
        assert_eq!(pending.pages(), 0);
    }

    #[test]
    fn a_reader_holds_what_was_alive_where_it_sits_and_nothing_else() {
        let mut pending = Pending::default();
        pending.add(dead(10, 1, 5));
        pending.add(dead(20, 4, 5));
        assert_eq!(pending.reusable(20, &[3]), [dead(20, 4, 5)], "born after the reader's checkpoint");
        assert_eq!(pending.reusable(21, &[3, 5]), []);
        assert_eq!(pending.pinned_pages(), 2);
        assert_eq!(pending.reusable(22, &[5]), [dead(10, 1, 5)], "dead before the reader's checkpoint");
    }
}
