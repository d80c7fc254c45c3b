// SPDX-License-Identifier: Apache-2.0
//! What the log holds, in memory: indexes, terms, and which batch has which entries.
//!
//! Owns      the base, the hard state, the terms as runs, and the place of each batch that has live entries.
//! Holds     1. entries are contiguous from `first` to `last`, and the term before `first` is known;
//!           2. an entry of index i voids every earlier one of index >= i, a base voids all;
//!           3. batch ranges are disjoint and ascending, and never cover a voided index.
//! Never     touches a file or an entry's data.

use std::collections::VecDeque;

use super::batch::{Base, Carry, HardState};

/// The live part of the log, without the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogIndex {
    pub(super) base: Base,
    pub(super) hard_state: HardState,
    /// The index before the first entry, and its term.
    before: (u64, u64),
    last: u64,
    /// First index of each run of entries with one term, ascending.
    runs: VecDeque<(u64, u64)>,
}

/// Why an entry cannot follow the log as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OutOfOrder {
    /// It would leave a gap after `last`.
    Gap { last: u64 },
    /// Its term is below that of the entry before it.
    TermBack { before: u64 },
}

impl LogIndex {
    /// A log that begins after `base` and has no entry.
    pub(super) fn new(base: Base) -> LogIndex {
        LogIndex {
            base,
            hard_state: HardState::default(),
            before: (base.index, base.term),
            last: base.index,
            runs: VecDeque::new(),
        }
    }

    /// A log of which the segments before this carry are gone.
    pub(super) fn from_carry(carry: &Carry) -> LogIndex {
        LogIndex {
            base: carry.base,
            hard_state: carry.hard_state,
            before: (carry.last_index, carry.last_term),
            last: carry.last_index,
            runs: VecDeque::new(),
        }
    }

    /// What a new segment has to repeat.
    pub(super) fn carry(&self) -> Carry {
        Carry {
            base: self.base,
            hard_state: self.hard_state,
            last_index: self.last,
            last_term: self.last_term(),
        }
    }

    /// The first index that has an entry; `last + 1` if there is none.
    pub(super) fn first(&self) -> u64 {
        self.before.0 + 1
    }

    pub(super) fn last(&self) -> u64 {
        self.last
    }

    pub(super) fn last_term(&self) -> u64 {
        self.runs.back().map_or(self.before.1, |run| run.1)
    }

    /// The term of `index`; also known for the index before the first entry.
    pub(super) fn term(&self, index: u64) -> Option<u64> {
        if index == self.before.0 {
            return Some(self.before.1);
        }
        if index < self.before.0 || index > self.last {
            return None;
        }
        let after = self.runs.partition_point(|run| run.0 <= index);
        Some(self.runs[after - 1].1)
    }

    /// Takes in an entry, voiding what it replaces.
    pub(super) fn push(&mut self, index: u64, term: u64) -> Result<(), OutOfOrder> {
        if index > self.last + 1 {
            return Err(OutOfOrder::Gap { last: self.last });
        }
        if index <= self.before.0 {
            // The entries up to here are gone with their segments, and this one replaces some of them. It
            // stands for all of those: known by term, not readable.
            self.before = (index, term);
            self.last = index;
            self.runs.clear();
            return Ok(());
        }
        let before = self.term(index - 1).expect("the index before a live one has a term");
        if term < before {
            return Err(OutOfOrder::TermBack { before });
        }
        while self.runs.back().is_some_and(|run| run.0 >= index) {
            self.runs.pop_back();
        }
        if self.runs.back().is_none_or(|run| run.1 != term) {
            self.runs.push_back((index, term));
        }
        self.last = index;
        Ok(())
    }

    /// The entries of `before` that are above the last one come back.
    #[cfg(feature = "mutants")]
    pub(super) fn revive(&mut self, before: &LogIndex) {
        for index in self.last + 1..=before.last {
            let term = before.term(index).unwrap_or_default();
            if self.runs.back().is_none_or(|run| run.1 != term) {
                self.runs.push_back((index, term));
            }
            self.last = index;
        }
    }

    /// Begins the log anew after `base`; the hard state stays.
    pub(super) fn reset(&mut self, base: Base) {
        *self = LogIndex { hard_state: self.hard_state, ..LogIndex::new(base) };
    }

    /// Forgets the entries below `first`, which must not be past the end.
    pub(super) fn forget_below(&mut self, first: u64) {
        if first <= self.first() {
            return;
        }
        let term = self.term(first - 1).expect("only entries that are there are forgotten");
        self.before = (first - 1, term);
        while self.runs.get(1).is_some_and(|run| run.0 <= first) {
            self.runs.pop_front();
        }
        match self.runs.front_mut() {
            Some(_) if first > self.last => self.runs.clear(),
            Some(run) => run.0 = run.0.max(first),
            None => {}
        }
    }
}

/// One batch on disk that has entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchPlace {
    pub(super) seq: u64,
    pub(super) offset: u64,
    /// Header and payload, without the padding.
    pub(super) bytes: usize,
    pub(super) first: u64,
    pub(super) last: u64,
}

/// The batches that hold the live entries, by index.
#[derive(Clone, Debug, Default)]
pub(super) struct BatchMap {
    places: VecDeque<BatchPlace>,
}

impl BatchMap {
    /// Takes in a batch written after all others; it voids what it covers and all that is above it.
    pub(super) fn push(&mut self, place: BatchPlace) {
        self.void_from(place.first);
        self.places.push_back(place);
    }

    pub(super) fn void_from(&mut self, index: u64) {
        while self.places.back().is_some_and(|place| place.first >= index) {
            self.places.pop_back();
        }
        if let Some(place) = self.places.back_mut() {
            place.last = place.last.min(index - 1);
        }
    }

    /// The places of `before` that are above the last one come back.
    #[cfg(feature = "mutants")]
    pub(super) fn revive(&mut self, before: &BatchMap) {
        let last = self.places.back().map_or(0, |place| place.last);
        let above = before.places.iter().filter(|place| place.last > last);
        self.places.extend(above.map(|place| BatchPlace { first: place.first.max(last + 1), ..*place }));
    }

    /// Forgets the batches of segments before `seq`, and answers the last index that went with them.
    pub(super) fn forget_before(&mut self, seq: u64) -> Option<u64> {
        let mut last = None;
        while let Some(place) = self.places.front().filter(|place| place.seq < seq) {
            last = Some(place.last);
            self.places.pop_front();
        }
        last
    }

    /// The batch that holds `index`.
    pub(super) fn find(&self, index: u64) -> Option<BatchPlace> {
        let at = self.places.partition_point(|place| place.last < index);
        self.places.get(at).filter(|place| place.first <= index).copied()
    }
}

/// The range of live entries that the records of one batch leave behind, followed record by record.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BatchRange(pub(super) Option<(u64, u64)>);

impl BatchRange {
    pub(super) fn entry(&mut self, index: u64) {
        self.0 = match self.0 {
            Some((first, _)) if first <= index => Some((first, index)),
            _ => Some((index, index)),
        };
    }

    pub(super) fn base(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::InstallId;

    fn index_of(entries: &[(u64, u64)]) -> LogIndex {
        let mut index = LogIndex::new(Base { index: 10, term: 2, install: InstallId(1) });
        for (i, term) in entries {
            index.push(*i, *term).expect("in order");
        }
        index
    }

    #[test]
    fn terms_are_known_from_the_one_before_the_first_to_the_last() {
        let index = index_of(&[(11, 2), (12, 3), (13, 3), (14, 5)]);
        let terms: Vec<_> = (9..=15).map(|i| index.term(i)).collect();
        assert_eq!(terms, [None, Some(2), Some(2), Some(3), Some(3), Some(5), None]);
    }

    #[test]
    fn an_entry_voids_what_is_at_and_above_it() {
        let index = index_of(&[(11, 2), (12, 3), (13, 3), (14, 5), (12, 6), (13, 7)]);
        assert_eq!((index.last(), index.term(12), index.term(13)), (13, Some(6), Some(7)));
        assert_eq!(index, index_of(&[(11, 2), (12, 6), (13, 7)]));
    }

    #[test]
    fn gaps_and_falling_terms_are_refused() {
        let mut index = index_of(&[(11, 4)]);
        assert_eq!(index.push(13, 4), Err(OutOfOrder::Gap { last: 11 }));
        assert_eq!(index.push(12, 3), Err(OutOfOrder::TermBack { before: 4 }));
    }

    #[test]
    fn what_is_forgotten_leaves_its_last_term_behind() {
        for first in 11..=15 {
            let mut index = index_of(&[(11, 2), (12, 3), (13, 3), (14, 5)]);
            let whole = index.clone();
            index.forget_below(first);
            assert_eq!(index.first(), first);
            for i in first - 1..=14 {
                assert_eq!(index.term(i), whole.term(i), "{first} {i}");
            }
            assert_eq!((index.term(first - 2), index.last_term()), (None, 5));
            index.push(15, 5).expect("goes on");
            assert_eq!(index.term(15), Some(5));
        }
    }

    #[test]
    fn a_batch_that_rewrites_takes_the_indexes_over() {
        let place = |seq, first, last| BatchPlace { seq, offset: first * 4096, bytes: 1, first, last };
        let mut map = BatchMap::default();
        for (seq, first, last) in [(1, 1, 4), (1, 5, 9), (2, 7, 7), (2, 8, 8)] {
            map.push(place(seq, first, last));
        }
        assert_eq!(map.find(6).map(|p| (p.first, p.last)), Some((5, 6)));
        assert_eq!(map.find(7).map(|p| p.seq), Some(2));
        assert_eq!(map.find(9), None);
        assert_eq!(map.forget_before(2), Some(6));
        assert_eq!(map.find(6), None);
    }
}
