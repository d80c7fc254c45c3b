// SPDX-License-Identifier: Apache-2.0
//! Scrubbing from outside: what the newest checkpoint needs is read from the medium, a part at a time.
//!
//! Owns      the head of the file and the parts of trees, as one checkpoint has them.
//! Holds     1. the medium is asked, past the page cache where the system can;
//!           2. what is wrong is read again three times before it is damage, and is damage only while the checkpoint
//!              still needs the page;
//!           3. a part that was overtaken reports nothing: it is to be read again at a newer checkpoint.
//! Never     waits, or decides how fast it goes.

use super::{Findings, Keys, Store};
use crate::error::{Corruption, Error, Result};
use crate::format::slot::{self, Slot};
use crate::format::superblock::{SUPERBLOCKS, Superblock};
use crate::page::{PAGE_BYTES, PageId};
use crate::recover::previous;
use crate::schema::{TreeDef, TreeKind};
use crate::space;
use crate::tree::{self, Extent, Part, Scrubbed};
use crate::treefile::{Medium, READS_MAX};

impl Store {
    /// Reads superblocks, the newest slot and the space map from the medium. Answers the pages read.
    ///
    /// # Errors
    /// [`Error::Overtaken`].
    pub fn scrub_head(&self, findings: &mut Findings) -> Result<u64> {
        let mut pages = 0;
        for copy in (0..SUPERBLOCKS).map(PageId::new) {
            let is = |page: &[u8; PAGE_BYTES]| Superblock::decode(page) == Ok(self.superblock);
            self.scrub_page(copy, "superblock", is, findings)?;
        }
        let (at, uuid) = (slot::position(self.slot.seq), self.superblock.uuid);
        let is = |page: &[u8; PAGE_BYTES]| {
            Slot::decode(page, uuid, at).is_some_and(|slot| slot.seq >= self.slot.seq)
        };
        self.scrub_page(at, "commit slot", is, findings)?;
        let mut tries = 1;
        loop {
            let read = |page: PageId, out: &mut [u8]| {
                pages += (out.len() / PAGE_BYTES) as u64;
                self.file.read_medium(page, out)
            };
            let map =
                space::load(uuid, previous(&self.slot), [None, None], self.pages, read, || Ok(Vec::new()));
            let error = match map {
                Ok(map) if !map.rebuilt => return Ok(pages + SUPERBLOCKS + 1),
                Ok(_) => Corruption::new(self.path(), "the space map is not the one that the slot confirms")
                    .page(space::map_page(0, 0).get())
                    .into(),
                Err(error) => error,
            };
            if tries == READS_MAX {
                return self.wrong(error, None, findings).map(|()| pages + SUPERBLOCKS + 1);
            }
            tries += 1;
        }
    }

    /// Reads a part of one tree from the medium, from the key `from` on. `began` is the checkpoint with which the pass
    /// began: what a tree that only grows had written since needs no scrub.
    ///
    /// # Errors
    /// [`Error::Overtaken`]: nothing was found, and the part is to be read again.
    pub fn scrub_tree(
        &self,
        tree: &TreeDef,
        from: &[u8],
        pages_max: u64,
        began: u64,
        findings: &mut Findings,
    ) -> Result<Scrubbed> {
        let place = self.trees.place(tree);
        let newest = if tree.kind == TreeKind::Append { began } else { u64::MAX };
        let part = Part { from, pages_max, newest };
        let mut found = Findings::default();
        let mut visitor = Reporter { store: self, tree: tree.name, findings: &mut found };
        let (ctx, root) = (self.checkpoint.ctx(place), &self.checkpoint.roots[place]);
        let scrubbed = tree::scrub(&Medium(&self.file), ctx, root, part, &mut visitor)?;
        for (error, keys) in found.damage {
            findings.add(error, keys);
        }
        Ok(scrubbed)
    }

    /// Reads a page that has to be what `is` says.
    fn scrub_page(
        &self,
        at: PageId,
        what: &str,
        is: impl Fn(&[u8; PAGE_BYTES]) -> bool,
        findings: &mut Findings,
    ) -> Result<()> {
        let mut tries = 1;
        loop {
            let mut page = [0; PAGE_BYTES];
            let error = match self.file.read_medium(at, &mut page) {
                Ok(()) if is(&page) => return Ok(()),
                Ok(()) => Corruption::new(self.path(), what).page(at.get()).at(at.byte_offset()).into(),
                Err(error) => error,
            };
            if tries == READS_MAX {
                return self.wrong(error, None, findings);
            }
            tries += 1;
        }
    }

    /// Takes down what is wrong, unless the store has gone on.
    fn wrong(&self, error: Error, keys: Option<Keys>, findings: &mut Findings) -> Result<()> {
        match self.judge(error) {
            overtaken @ Error::Overtaken { .. } => Err(overtaken),
            error => {
                findings.add(error, keys);
                Ok(())
            }
        }
    }
}

struct Reporter<'r> {
    store: &'r Store,
    tree: &'static str,
    findings: &'r mut Findings,
}

impl tree::Visitor for Reporter<'_> {
    fn extent(&mut self, _: &Extent) -> Result<()> {
        Ok(())
    }

    fn damage(&mut self, error: Error, low: &[u8], high: Option<&[u8]>) -> Result<()> {
        let error = error.in_tree(self.tree);
        let keys = Keys { low: low.to_vec(), high: high.map(<[u8]>::to_vec) };
        self.store.wrong(error, Some(keys), self.findings)
    }
}
