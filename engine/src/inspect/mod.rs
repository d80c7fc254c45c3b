// SPDX-License-Identifier: Apache-2.0
//! Looking at a store from outside, beside whoever writes it.
//!
//! Owns      reading the newest checkpoint without the store's lock, and the rule that tells damage from a page
//!           that was merely written again meanwhile.
//! Holds     1. no file is opened for writing, made, locked or synced;
//!           2. what is found wrong at checkpoint `n` is damage only if afterwards the ring still has slot `n`, byte
//!              for byte, and none above `n + 2`: by invariant I3 nothing that `n` reaches was written before that;
//!           3. whatever was read whole is true, overtaken or not: a page that was written again has another birth
//!              and fails the checksum in its parent.
//! Never     sees what is in the log alone: a look is at a checkpoint.

mod check;
mod page;
mod scrub;

pub use check::{Findings, Keys};
pub use page::{ExtentLook, Role};

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint::{Checkpoint, contexts, mapped};
use crate::error::{Corruption, Error, Result};
use crate::format::slot::{SLOTS, Slot};
use crate::format::superblock::Superblock;
use crate::holds::Holds;
use crate::io::{OpenHow, Vfs};
use crate::options::{Options, PageSourceKind};
use crate::overlay::Overlay;
use crate::page::PageId;
use crate::recover::{FILE_NAME, Ring, match_schema, read_superblock};
use crate::schema::{Schema, Trees};
use crate::treefile::TreeFile;
use crate::view::{Captured, Published, Seq, View};

/// How often a look begins anew before it is given up.
const LOOKS_MAX: u32 = 20;

/// Checkpoints after one that leave its pages alone.
const SAFE_AFTER: u64 = 2;

/// One checkpoint of a store, read from the medium, page by page.
pub struct Store {
    file: Arc<TreeFile>,
    options: Options,
    superblock: Superblock,
    broken_twin: Option<PageId>,
    ring: Ring,
    slot: Slot,
    refused: Option<Corruption>,
    pages: u64,
    trees: Arc<Trees>,
    checkpoint: Arc<Checkpoint>,
}

/// What is in one of the four positions of the ring of commit slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Position<'s> {
    /// Zeros: never written, or wiped by a start that went back.
    Blank,
    Whole(&'s Slot),
    /// Neither.
    Broken,
}

/// Opens the store in `dir` and has `each` look at it, again from the start whenever the store's writer overtook
/// it before it was done.
///
/// # Errors
/// As [`Store::open`] and `each`; [`Error::Overtaken`] if that happened every time.
pub fn look<T>(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    schema: Schema,
    mut each: impl FnMut(&Store) -> Result<T>,
) -> Result<T> {
    let mut looks = 1;
    loop {
        let store = Store::open(vfs, dir, schema)?;
        match each(&store).map_err(|error| store.judge(error)) {
            Err(Error::Overtaken { .. }) if looks < LOOKS_MAX => looks += 1,
            done => return done,
        }
    }
}

impl Store {
    /// Opens the newest checkpoint of the store in `dir` whose roots verify. Takes no lock and writes nothing.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no store or it cannot be read; [`Error::Format`] for one of a newer build;
    /// [`Error::Corrupt`] if no checkpoint can be used.
    pub fn open(vfs: &Arc<dyn Vfs>, dir: &Path, schema: Schema) -> Result<Store> {
        Store::open_file(vfs, dir.join(FILE_NAME), schema)
    }

    /// The same of a tree file that may have another name.
    ///
    /// # Errors
    /// As [`open`](Store::open).
    pub fn open_file(vfs: &Arc<dyn Vfs>, path: PathBuf, schema: Schema) -> Result<Store> {
        let vfs = Arc::clone(vfs);
        let options = Options { vfs, page_source: PageSourceKind::Pread, ..Options::default() };
        let trees = Arc::new(Trees::new(schema));
        let mut looks = 1;
        loop {
            let handle =
                options.vfs.open(&path, OpenHow::Read).map_err(|e| Error::io("open", &path, None, e))?;
            let file = Arc::new(TreeFile::new(handle, &path));
            let (superblock, broken_twin) = read_superblock(&file, file.pages()?)?;
            let ring = Ring::read(&file, superblock.uuid)?;
            // After the ring: the file may have grown for the slot that was just read.
            let pages = file.pages()?;
            let chosen = ring.choose(&file, superblock.uuid, pages);
            let sound = matches!(&chosen, Ok((_, None))) && ring.is_whole() && broken_twin.is_none();
            if !sound && !ring.stands(&file, superblock.uuid)? {
                if looks == LOOKS_MAX {
                    return Err(Error::Overtaken { file: path });
                }
                looks += 1;
                continue;
            }
            let (slot, refused) = chosen?;
            let slot = slot.clone();
            let checkpoint = checkpoint(&options, &trees, &file, superblock.uuid, pages, &slot)?;
            return Ok(Store {
                file,
                options,
                superblock,
                broken_twin,
                ring,
                slot,
                refused,
                pages,
                trees,
                checkpoint,
            });
        }
    }

    /// The tree file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    pub(crate) fn file(&self) -> &TreeFile {
        &self.file
    }

    /// What the file is.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// The copy of the superblock that is not whole.
    pub fn broken_twin(&self) -> Option<PageId> {
        self.broken_twin
    }

    /// The checkpoint that is looked at.
    pub fn slot(&self) -> &Slot {
        &self.slot
    }

    /// The pages of the ring, and what is in them.
    pub fn ring(&self) -> impl Iterator<Item = (PageId, Position<'_>)> {
        self.ring.positions.iter().map(|at| {
            let position = match &at.slot {
                Some(slot) => Position::Whole(slot),
                None if at.blank => Position::Blank,
                None => Position::Broken,
            };
            (at.page, position)
        })
    }

    /// What is wrong with the newest whole slot, if an older one is looked at for it.
    pub fn refused(&self) -> Option<&Corruption> {
        self.refused.as_ref()
    }

    /// Pages that the file has.
    pub fn file_pages(&self) -> u64 {
        self.pages
    }

    /// The trees that the store has, in the order of the directory.
    pub fn schema(&self) -> Schema {
        self.trees.schema()
    }

    /// The checkpoint as a view, to be read as any other.
    pub fn view(&self) -> View {
        let holds = Arc::new(Holds::new(None));
        let active = Captured::new(Arc::new(Overlay::new(&self.trees, self.slot.stamp, holds)));
        View(Arc::new(Published {
            trees: Arc::clone(&self.trees),
            seq: Seq(0),
            stamp: self.slot.stamp,
            meta: self.slot.meta.clone(),
            active,
            frozen: None,
            checkpoint: Arc::clone(&self.checkpoint),
        }))
    }

    /// A checkpoint before this one, as far as the ring still has its slot: `None` if not, or if the file has
    /// become shorter than it needs.
    ///
    /// # Errors
    /// As [`Store::open`] for the trees it has.
    pub fn before(&self, seq: u64) -> Result<Option<Store>> {
        let slot = self.ring.whole(seq).filter(|slot| slot.seq < self.slot.seq);
        let Some(slot) = slot.filter(|slot| slot.high_water <= self.pages).cloned() else { return Ok(None) };
        let uuid = self.superblock.uuid;
        let checkpoint = checkpoint(&self.options, &self.trees, &self.file, uuid, self.pages, &slot)?;
        Ok(Some(Store {
            file: Arc::clone(&self.file),
            options: self.options.clone(),
            superblock: self.superblock,
            broken_twin: self.broken_twin,
            ring: Ring::read(&self.file, uuid)?,
            slot,
            refused: None,
            pages: self.pages,
            trees: Arc::clone(&self.trees),
            checkpoint,
        }))
    }

    /// What an error of a read of this checkpoint means: [`Error::Overtaken`] if it may come from a page that was
    /// written again, else the error itself.
    pub fn judge(&self, error: Error) -> Error {
        let suspect = match &error {
            Error::Corrupt(_) => true,
            // The file was cut, and the read went past its end.
            Error::Io(failure) => failure.source.kind() == std::io::ErrorKind::UnexpectedEof,
            _ => false,
        };
        if !suspect {
            return error;
        }
        match self.is_overtaken() {
            Ok(false) => error,
            Ok(true) => Error::Overtaken { file: self.path().to_path_buf() },
            Err(unreadable) => unreadable,
        }
    }

    /// Whether a newer checkpoint, or a start that went back, may have let go of pages of this one.
    ///
    /// # Errors
    /// If the ring cannot be read.
    pub fn is_overtaken(&self) -> Result<bool> {
        let now = Ring::read(&self.file, self.superblock.uuid)?;
        let place = (self.slot.seq % SLOTS) as usize;
        let kept = now.positions[place].bytes == self.ring.positions[place].bytes;
        Ok(!kept || now.newest() > self.slot.seq + SAFE_AFTER)
    }
}

fn checkpoint(
    options: &Options,
    trees: &Trees,
    file: &Arc<TreeFile>,
    uuid: u64,
    pages: u64,
    slot: &Slot,
) -> Result<Arc<Checkpoint>> {
    let roots = match_schema(file, trees, slot)?;
    let ctxs = contexts(trees, options, file, uuid, slot.seq);
    let source = mapped(options, file, pages)?;
    Ok(Arc::new(Checkpoint::new(slot.clone(), roots, ctxs, source)))
}

impl Ring {
    /// Whether the ring is still, byte for byte, what was read.
    fn stands(&self, file: &TreeFile, uuid: u64) -> Result<bool> {
        let now = Ring::read(file, uuid)?;
        Ok(now.positions.iter().zip(&self.positions).all(|(now, then)| now.bytes == then.bytes))
    }

    fn newest(&self) -> u64 {
        self.positions.iter().filter_map(|at| at.slot.as_ref()).map(|slot| slot.seq).max().unwrap_or(0)
    }

    fn is_whole(&self) -> bool {
        self.positions.iter().all(|at| at.blank || at.slot.is_some())
    }
}
