// SPDX-License-Identifier: Apache-2.0
//! Surgery: a damaged tree file is changed by hand, as far as that can be done without a guess.
//!
//! Owns      going back one checkpoint, and a space map made anew from what the trees reach.
//! Holds     1. the store is locked, so nobody runs on it;
//!           2. what is gone back to has roots that verify; what a map is made of was walked whole;
//!           3. what it leaves is a store like any other: the next start needs no surgery.
//! Never     works on the only copy: its caller made one. Never invents an entry.

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

use crate::db::Db;
use crate::error::{Corruption, Error, Result};
use crate::format::slot::Slot;
use crate::inspect::{Findings, Store};
use crate::io::{OpenHow, Vfs};
use crate::options::Options;
use crate::page::PAGE_BYTES;
use crate::recover::{self, FILE_NAME, Ring};
use crate::schema::Schema;
use crate::space::{self, MAPS_OF_REGION, REUSE_AFTER};
use crate::treefile::TreeFile;

/// What a store went back from, and to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WentBack {
    pub from: Slot,
    pub to: Slot,
}

/// What a new space map says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RebuiltMap {
    /// Pages in use by the map before; `None` if its slot did not confirm it.
    pub used_before: Option<u64>,
    pub used: u64,
}

/// Has the store in `dir` begin at the checkpoint before the one that it would begin at.
///
/// # Errors
/// [`Error::Corrupt`] if there is no other one whose roots verify; [`Error::Locked`].
pub fn previous_slot(dir: &Path, options: &Options) -> Result<WentBack> {
    let _lock = recover::lock(dir, options)?;
    let file = open(dir, &*options.vfs)?;
    let pages = file.pages()?;
    let (superblock, _) = recover::read_superblock(&file, pages)?;
    let ring = Ring::read(&file, superblock.uuid)?;
    let from = ring.choose(&file, superblock.uuid, pages)?.0.clone();
    let none = |error: Error| match error {
        Error::Corrupt(_) => {
            let what = format!("commit slots: there is no other one than that of checkpoint {}", from.seq);
            Corruption::new(file.path(), what).into()
        }
        other => other,
    };
    let before = ring.below(from.seq);
    let to = before.choose(&file, superblock.uuid, pages).map_err(none)?.0.clone();
    let zeros = vec![0; PAGE_BYTES];
    for page in ring.newer_or_broken(to.seq) {
        file.write(page, &[IoSlice::new(&zeros)])?;
    }
    file.sync()?;
    Ok(WentBack { from, to })
}

/// Makes the space map of the store in `dir` anew, from a walk over all trees, whatever it said before.
///
/// # Errors
/// [`Error::Corrupt`] if the trees cannot be walked whole, or a page is part of two nodes: nothing was changed then.
pub fn rebuild_space_map(dir: &Path, schema: Schema, options: &Options) -> Result<RebuiltMap> {
    let used_before = {
        let _lock = recover::lock(dir, options)?;
        let store = Store::open(&options.vfs, dir, schema)?;
        walk(&store)?;
        let used = store.used_runs()?.map(|runs| runs.iter().map(|(_, n)| n).sum());
        let file = open(dir, &*options.vfs)?;
        let zeros = vec![0; PAGE_BYTES];
        for region in 0..space::regions(file.pages()?) {
            let versions = (0..MAPS_OF_REGION).map(|turn| space::map_page(region, turn));
            for page in versions.filter(|page| page.get() < store.file_pages()) {
                file.write(page, &[IoSlice::new(&zeros)])?;
            }
        }
        file.sync()?;
        used
    };
    // A start without a map walks the trees. Each checkpoint from now on has a map of its own, and after three
    // of them all that a start could go back to have.
    let (db, _) = Db::open(dir, schema, options.clone())?;
    for _ in 0..REUSE_AFTER {
        let (meta, stamp) = (db.view().meta().clone(), db.view().stamp());
        db.begin()?.commit(meta, stamp)?;
        db.checkpoint()?;
    }
    db.confirm()?;
    Ok(RebuiltMap { used_before, used: db.stats().used_bytes / PAGE_BYTES as u64 })
}

/// Walks all trees, and takes no damage and no page of two nodes.
fn walk(store: &Store) -> Result<()> {
    let mut findings = Findings::default();
    let mut extents: Vec<(u64, u64)> = Vec::new();
    for tree in store.schema() {
        store.check_tree(tree, &mut findings, &mut |extent| {
            extents.push((extent.page.get(), extent.npages.into()));
            Ok(())
        })?;
    }
    if let Some((damage, _)) = findings.damage.into_iter().next() {
        return Err(damage);
    }
    extents.sort_unstable();
    let shared = extents.windows(2).find(|pair| pair[0].0 + pair[0].1 > pair[1].0);
    match shared {
        Some(pair) => Err(Corruption::new(store.path(), "a page of two nodes").page(pair[1].0).into()),
        None => Ok(()),
    }
}

fn open(dir: &Path, vfs: &dyn Vfs) -> Result<Arc<TreeFile>> {
    let path = dir.join(FILE_NAME);
    let handle = vfs.open(&path, OpenHow::ReadWrite).map_err(|e| Error::io("open", &path, None, e))?;
    Ok(Arc::new(TreeFile::new(handle, &path)))
}

impl Ring {
    /// The ring without the slots of `seq` and above.
    fn below(&self, seq: u64) -> Ring {
        let positions = self.positions.iter().cloned().map(|mut at| {
            at.slot = at.slot.filter(|slot| slot.seq < seq);
            at
        });
        Ring { positions: positions.collect() }
    }
}
