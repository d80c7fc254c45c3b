// SPDX-License-Identifier: Apache-2.0
//! Scrub: everything that the newest checkpoint needs is read from the medium and summed, a little at a time.
//!
//! Owns      where a pass is, and the reports of what is wrong.
//! Holds     1. the medium is asked, past the page cache where the system can, and what passed there before is summed
//!              again by whoever reads it next;
//!           2. what is wrong is read again three times before it is damage, and damage ends neither the pass nor the
//!              store;
//!           3. each step looks at the checkpoint that is the newest then, so a pass pins nothing between its steps:
//!              what is written behind it was summed when it was made.
//! Never     repairs, waits for the disk under a lock that others want, or decides how fast it goes.

use crate::checkpoint::Checkpoint;
use crate::db::Db;
use crate::error::{Corruption, Error, Result};
use crate::format::slot::{self, Slot};
use crate::format::superblock::{SUPERBLOCKS, Superblock};
use crate::inspect::Keys;
use crate::io::Budget;
use crate::page::{PAGE_BYTES, PageId};
use crate::schema::TreeKind;
use crate::tree::{self, Extent, Part, Visitor};
use crate::treefile::{Medium, TreeFile};

/// How often a page outside the trees is read again.
const REREADS_MAX: u32 = 3;

/// Where a scrub is. A new one begins with the first page.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Scrub {
    at: At,
    /// The checkpoint with which the pass began.
    began: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
enum At {
    /// Superblocks, slot and space map.
    #[default]
    Head,
    /// The tree at this place of the schema, from this key on.
    Tree(usize, Vec<u8>),
}

/// Something that the medium does not give back as it was written.
#[derive(Clone, Debug)]
pub struct Damage {
    /// [`Error::Corrupt`] with file, page and tree, or the [`Error::Io`] of a page that cannot be read.
    pub error: Error,
    /// The tree that it is part of, and the keys in it that cannot be reached. `None` outside the trees.
    pub keys: Option<(&'static str, Keys)>,
}

/// What one step of a scrub did.
#[derive(Clone, Debug, Default)]
pub struct Scrubbed {
    /// Bytes read, those read again not counted.
    pub bytes: u64,
    /// Extents and pages that were wrong, and right when they were read again.
    pub reread: u64,
    pub damage: Vec<Damage>,
    /// The pass ended with this step: the next one begins another.
    pub pass_ended: bool,
}

impl Db {
    /// Goes on with a scrub until about `budget` is read. Reads past the page cache, takes no lock for longer than a
    /// look, and never fails: what cannot be read is damage.
    pub fn scrub(&self, scrub: &mut Scrub, budget: Budget) -> Scrubbed {
        let state = self.inner().published();
        let mut scrubbed = Scrubbed::default();
        scrub.at = match std::mem::take(&mut scrub.at) {
            At::Head => {
                scrub.began = state.checkpoint.seq;
                self.scrub_head(&state.checkpoint, &mut scrubbed);
                At::Tree(0, Vec::new())
            }
            At::Tree(place, from) => {
                let kind = state.trees.schema()[place].kind;
                let newest = if kind == TreeKind::Append { scrub.began } else { u64::MAX };
                let pages_max = budget.bytes.div_ceil(PAGE_BYTES as u64).max(1);
                let part = Part { from: &from, pages_max, newest };
                let next = self.scrub_tree(&state.checkpoint, place, part, &mut scrubbed);
                next.map_or(At::Tree(place + 1, Vec::new()), |next| At::Tree(place, next))
            }
        };
        if matches!(scrub.at, At::Tree(place, _) if place == state.trees.len()) {
            *scrub = Scrub::default();
            scrubbed.pass_ended = true;
        }
        scrubbed
    }

    /// A part of one tree. Answers where to go on in it.
    fn scrub_tree(
        &self,
        checkpoint: &Checkpoint,
        place: usize,
        part: Part<'_>,
        scrubbed: &mut Scrubbed,
    ) -> Option<Vec<u8>> {
        let name = self.inner().trees().schema()[place].name;
        let medium = Medium(checkpoint.source().file());
        let mut visitor = Reporter { tree: name, scrubbed };
        let (ctx, root) = (checkpoint.ctx(place), &checkpoint.roots[place]);
        let done = tree::scrub(&medium, ctx, root, part, &mut visitor);
        let tree::Scrubbed { pages, reread, next } = done.expect("the reporter ends no walk");
        scrubbed.bytes += pages * PAGE_BYTES as u64;
        scrubbed.reread += reread;
        next
    }

    /// Superblocks, the newest slot, and the space map.
    fn scrub_head(&self, checkpoint: &Checkpoint, scrubbed: &mut Scrubbed) {
        let file = checkpoint.source().file();
        let (uuid, map) = {
            let mut checkpointer = self.inner().checkpointer();
            if let Err(error) = checkpointer.read_space_map(self.inner()) {
                scrubbed.damage.push(Damage { error, keys: None });
            }
            (checkpointer.uuid, checkpointer.space.map_pages())
        };
        let superblock = Superblock { uuid, install: self.install_id() };
        for copy in 0..SUPERBLOCKS {
            let is = |page: &[u8; PAGE_BYTES]| Superblock::decode(page) == Ok(superblock);
            check_page(file, PageId::new(copy), "superblock", is, scrubbed);
        }
        // Four checkpoints later another one has its place.
        let at = slot::position(checkpoint.seq);
        let is = |page: &[u8; PAGE_BYTES]| {
            Slot::decode(page, uuid, at).is_some_and(|slot| slot.seq >= checkpoint.seq)
        };
        check_page(file, at, "commit slot", is, scrubbed);
        for version in map {
            let is = |page: &[u8; PAGE_BYTES]| {
                let still = || self.inner().checkpointer().space.map_pages().contains(&version);
                version.is(page, uuid) || !still()
            };
            check_page(file, version.page, "bitmap of the space map", is, scrubbed);
        }
    }
}

/// Reads a page that has to be what `is` says.
fn check_page(
    file: &TreeFile,
    at: PageId,
    what: &str,
    is: impl Fn(&[u8; PAGE_BYTES]) -> bool,
    scrubbed: &mut Scrubbed,
) {
    scrubbed.bytes += PAGE_BYTES as u64;
    let mut rereads = 0;
    loop {
        let mut page = [0; PAGE_BYTES];
        let error = match file.read_medium(at, &mut page) {
            Ok(()) if is(&page) => {
                scrubbed.reread += u64::from(rereads > 0);
                return;
            }
            Ok(()) => Corruption::new(file.path(), what).page(at.get()).at(at.byte_offset()).into(),
            Err(error) => error,
        };
        if rereads == REREADS_MAX {
            scrubbed.damage.push(Damage { error, keys: None });
            return;
        }
        rereads += 1;
    }
}

/// Keeps the reports of one step, of which there are no more than pages in it.
struct Reporter<'r> {
    tree: &'static str,
    scrubbed: &'r mut Scrubbed,
}

impl Visitor for Reporter<'_> {
    fn extent(&mut self, _: &Extent) -> Result<()> {
        Ok(())
    }

    fn damage(&mut self, error: Error, low: &[u8], high: Option<&[u8]>) -> Result<()> {
        let error = error.in_tree(self.tree);
        let keys = Keys { low: low.to_vec(), high: high.map(<[u8]>::to_vec) };
        self.scrubbed.damage.push(Damage { error, keys: Some((self.tree, keys)) });
        Ok(())
    }
}
