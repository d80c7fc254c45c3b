// SPDX-License-Identifier: Apache-2.0
//! Checking a checkpoint: everything that the tree file says is held against what else it says.
//!
//! Owns      the walk over all trees, the comparison with the space map, and what of the ring is damage.
//! Holds     1. one damage does not hide another: the walk goes on beside it;
//!           2. a slot that a crash left unfinished is no damage, since the next start wipes it;
//!           3. where a node could not be walked, a page that no tree reaches proves nothing, and is not named.
//! Never     repairs.

use super::{Position, Store};
use crate::error::{Corruption, Error, Result};
use crate::format::slot::{self, SLOTS, Slot};
use crate::format::superblock::SUPERBLOCKS;
use crate::page::PageId;
use crate::recover::previous;
use crate::schema::TreeDef;
use crate::space;
use crate::tree::{self, Extent, TreeStats};

/// Findings that are kept; more are only counted.
const FINDINGS_MAX: usize = 1000;

/// A range of keys that damage hides: from `low` up to `high`, where that is not the end of the tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Keys {
    pub low: Vec<u8>,
    pub high: Option<Vec<u8>>,
}

/// What was found wrong.
#[derive(Debug, Default)]
pub struct Findings {
    /// In the order in which they were met, and the keys that each hides, where it hides any.
    pub damage: Vec<(Error, Option<Keys>)>,
    /// How many there were, those that are not kept included.
    pub count: u64,
}

impl Findings {
    /// One more.
    pub fn add(&mut self, error: Error, keys: Option<Keys>) {
        self.count += 1;
        if self.damage.len() < FINDINGS_MAX {
            self.damage.push((error, keys));
        }
    }
}

impl Store {
    /// What is wrong with the superblocks and the ring of slots.
    pub fn check_head(&self, findings: &mut Findings) {
        if let Some(twin) = self.broken_twin() {
            let damage = Corruption::new(self.path(), "one of the two superblocks; the next start heals it");
            findings.add(damage.page(twin.get()).into(), None);
        }
        if let Some(refused) = self.refused() {
            findings.add(refused.clone().into(), None);
        }
        // The slot after the chosen one is written without a sync, so a crash may leave any bytes there.
        let unfinished = slot::position(self.slot().seq + 1);
        for (page, position) in self.ring() {
            if position == Position::Broken && page != unfinished {
                let damage = Corruption::new(self.path(), "a commit slot that had been durable");
                findings.add(damage.page(page.get()).into(), None);
            }
        }
    }

    /// Walks one tree and checks all of it. `each` sees every extent that is whole.
    ///
    /// # Errors
    /// What `each` answers; [`Error::Overtaken`] where damage may be a page that was written again.
    pub fn check_tree(
        &self,
        tree: &TreeDef,
        findings: &mut Findings,
        each: &mut dyn FnMut(&Extent) -> Result<()>,
    ) -> Result<TreeStats> {
        let place = self.trees.place(tree);
        let (ctx, root) = (self.checkpoint.ctx(place), &self.checkpoint.roots[place]);
        let mut visitor = Visitor { store: self, tree, findings, each };
        tree::survey(self.checkpoint.source(), ctx, root, &mut visitor)
    }

    /// The runs of pages that the space map of this checkpoint has as used; `None` if its slot does not confirm
    /// the map.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn used_runs(&self) -> Result<Option<Vec<(u64, u64)>>> {
        let read = |page: PageId, out: &mut [u8]| self.file.read(page, out);
        let (uuid, slot) = (self.superblock().uuid, previous(self.slot()));
        let loaded = space::load(uuid, slot, [None, None], self.file_pages(), read, || Ok(Vec::new()));
        let loaded = loaded.map_err(|error| self.judge(error))?;
        Ok((!loaded.rebuilt).then(|| loaded.space.used_runs()))
    }

    /// Holds the space map against `extents`, start and length of all that the trees reach, in any order.
    /// Where `whole` is false some of them are missing. Answers how many pages they have.
    ///
    /// # Errors
    /// [`Error::Overtaken`]; a map that cannot be read.
    pub fn check_space(
        &self,
        mut extents: Vec<(u64, u64)>,
        whole: bool,
        findings: &mut Findings,
    ) -> Result<u64> {
        let damage = |what: &str, page: u64| Corruption::new(self.path(), what).page(page);
        extents.sort_unstable();
        let mut reached: Vec<(u64, u64)> = Vec::new();
        for (start, n) in extents {
            match reached.last_mut() {
                Some((last, len)) if *last + *len > start => {
                    findings.add(damage("a page of two nodes", start).into(), None);
                    *len = (start + n).max(*last + *len) - *last;
                }
                Some((last, len)) if *last + *len == start => *len += n,
                _ => reached.push((start, n)),
            }
        }
        let pages = reached.iter().map(|(_, n)| n).sum();
        let Some(used) = self.used_runs()? else {
            let map = damage("the space map is not the one that the slot confirms", MAP_PAGE);
            let error = self.judge(map.into());
            if matches!(error, Error::Overtaken { .. }) {
                return Err(error);
            }
            findings.add(error, None);
            return Ok(pages);
        };
        for (start, n) in without(&reached, &used) {
            let damage = damage("pages of a node that the space map has as free", start);
            findings.add(damage.mismatch("used", format_args!("free, {n} pages")).into(), None);
        }
        if whole {
            for (start, n) in without(&used, &reached) {
                let damage = damage("pages that the space map has as used and no tree reaches", start);
                findings.add(damage.mismatch("free", format_args!("used, {n} pages")).into(), None);
            }
        }
        Ok(pages)
    }

    /// Numbers of the checkpoints before this one that a start could still go back to, newest first.
    pub fn seqs_before(&self) -> impl Iterator<Item = u64> {
        let slots = self.ring().filter_map(|(_, position)| match position {
            Position::Whole(Slot { seq, .. }) => Some(*seq),
            _ => None,
        });
        let mut seqs: Vec<u64> = slots.filter(|seq| *seq < self.slot().seq).collect();
        seqs.sort_unstable();
        // The oldest of the four shares its pages with the checkpoint that is built next.
        seqs.into_iter().rev().take(SLOTS as usize - 2)
    }
}

/// Where the first region's bitmaps begin.
const MAP_PAGE: u64 = SUPERBLOCKS + SLOTS;

struct Visitor<'v> {
    store: &'v Store,
    tree: &'v TreeDef,
    findings: &'v mut Findings,
    each: &'v mut dyn FnMut(&Extent) -> Result<()>,
}

impl tree::Visitor for Visitor<'_> {
    fn extent(&mut self, extent: &Extent) -> Result<()> {
        (self.each)(extent)
    }

    fn damage(&mut self, error: Error, low: &[u8], high: Option<&[u8]>) -> Result<()> {
        let error = self.store.judge(error);
        let error = match error {
            Error::Corrupt(mut damage) => {
                damage.tree = Some(self.tree.name.to_owned());
                Error::Corrupt(damage)
            }
            // A page that the medium does not give back is as lost as one with wrong bytes.
            Error::Io(_) => error,
            other => return Err(other),
        };
        let keys = Keys { low: low.to_vec(), high: high.map(<[u8]>::to_vec) };
        self.findings.add(error, Some(keys));
        Ok(())
    }
}

/// The parts of the runs `of` that are in none of `others`. Both are in order.
fn without(of: &[(u64, u64)], others: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut left = Vec::new();
    let mut others = others.iter().copied().peekable();
    for (start, n) in of {
        let (mut at, end) = (*start, start + n);
        while at < end {
            while others.next_if(|(other, len)| other + len <= at).is_some() {}
            match others.peek() {
                Some((other, len)) if *other <= at => at = (other + len).min(end),
                next => {
                    let upto = next.map_or(end, |(other, _)| (*other).min(end));
                    left.push((at, upto - at));
                    at = upto;
                }
            }
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_runs_without_others() {
        let of = [(10, 10), (30, 5), (40, 10)];
        for (others, left) in [
            (vec![], vec![(10, 10), (30, 5), (40, 10)]),
            (vec![(0, 100)], vec![]),
            (vec![(0, 12), (15, 2), (34, 8), (49, 50)], vec![(12, 3), (17, 3), (30, 4), (42, 7)]),
            (vec![(20, 10), (35, 5)], vec![(10, 10), (30, 5), (40, 10)]),
        ] {
            assert_eq!(without(&of, &others), left, "{others:?}");
        }
    }
}
