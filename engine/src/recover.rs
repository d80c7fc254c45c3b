// SPDX-License-Identifier: Apache-2.0
//! The first and the next start: making a tree file, and finding the checkpoint to go on from.
//!
//! Owns      creation, the choice of a commit slot, and what has to be durable before anything is allocated.
//! Holds     1. a new file has its name only once it is whole and durable, and no store is open before its name is;
//!           2. the newest slot that is whole, fits the file, and whose roots verify is chosen; to fall back
//!              past one whose roots do not verify is said;
//!           3. every newer or broken slot is zeroed, and the file synced, before anything else is written: a
//!              rejected slot would otherwise come back after the next crash and point into pages that are in
//!              use again;
//!           4. a read error is an error, never a reason to fall back.
//! Never     looks at more of the trees than their roots, unless the space map is damaged.
//!
//! The chosen slot is synced and not written again: a torn write could take the only slot there is. It may be
//! in the cache alone, if the process before this one died of a failed sync. Then the one before it is durable,
//! and the log reaches back to that one (I4), so nothing hangs on it.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint::{Checkpoint, Checkpointer, Written, contexts, mapped};
use crate::db::{Db, Inner};
use crate::error::{Corruption, Error, FormatMismatch, Result};
use crate::format::crc;
use crate::format::slot::{self, Slot};
use crate::format::superblock::{FORMAT, Refused, SUPERBLOCKS, Superblock};
use crate::io::{FileLock, OpenHow};
use crate::marks::reach;
use crate::mutants::planted;
use crate::options::Options;
use crate::page::{PAGE_BYTES, PageId, TreeRoot};
use crate::schema::{AppendKey, InstallId, TreeKind, Trees};
use crate::shrink::ShrinkWatch;
use crate::space::{self, Loaded, Previous, Space};
use crate::tree;
use crate::treefile::TreeFile;
use crate::view::CommitMeta;

/// The tree file's name in the store's directory.
pub(crate) const FILE_NAME: &str = "engine.db";

/// Its name until it is whole.
const TEMP_NAME: &str = "engine.db.tmp";

/// Whoever has locked this file has the directory.
const LOCK_NAME: &str = "LOCK";

/// What opening a store found.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Recovered {
    /// The checkpoint that the store goes on from.
    pub slot_seq: u64,
    /// A newer checkpoint was there and its roots did not verify.
    pub fell_back: bool,
    /// The space map was damaged and made anew from a walk over all trees; not known yet where it is
    /// [read later](crate::Options::lazy_space_map).
    pub space_map_rebuilt: bool,
    /// What the newest commit in that checkpoint said about itself: the log goes on after it.
    pub meta: CommitMeta,
    pub stamp: u64,
    pub install_id: InstallId,
}

/// A store as it comes up.
pub(crate) struct Opened {
    pub(crate) lock: Box<dyn FileLock>,
    pub(crate) checkpointer: Checkpointer,
    pub(crate) checkpoint: Arc<Checkpoint>,
    pub(crate) last_keys: Vec<Option<AppendKey>>,
    pub(crate) recovered: Recovered,
    /// The size mark of the checkpoint that the store goes on from.
    pub(crate) size_mark: u64,
}

/// Makes a new, empty store in `dir`.
pub(crate) fn create(dir: &Path, trees: &Trees, install: InstallId, options: &Options) -> Result<Opened> {
    let vfs = &options.vfs;
    vfs.create_dir(dir).map_err(|e| Error::io("create", dir, None, e))?;
    let lock = lock(dir, options)?;
    let (temp, path) = (dir.join(TEMP_NAME), dir.join(FILE_NAME));
    if exists(&path, options)? {
        return Err(Error::io("create", &path, None, std::io::ErrorKind::AlreadyExists.into()));
    }
    if exists(&temp, options)? {
        vfs.remove(&temp).map_err(|e| Error::io("remove", &temp, None, e))?;
    }
    let building = if planted("created-in-place") { &path } else { &temp };
    let handle =
        vfs.open(building, OpenHow::CreateNew).map_err(|e| Error::io("create", building, None, e))?;
    let file = TreeFile::new(handle, building);
    let pages = options.growth.step_pages(0).max(space::FIRST_DATA);
    file.reserve(0, pages)?;
    let superblock = Superblock { uuid: uuid_of(install), install };
    for copy in 0..SUPERBLOCKS {
        file.write(PageId::new(copy), &[IoSlice::new(&superblock.encode())])?;
    }
    let mut space = Space::new(superblock.uuid);
    space.grow(pages);
    let slot = Slot {
        seq: 1,
        meta: CommitMeta::default(),
        stamp: 0,
        roots: trees.schema().iter().map(|tree| (tree.id, TreeRoot::EMPTY)).collect(),
        high_water: space.high_water(),
        map_digest: space.digest(),
        previous_crc: 0,
        size_mark: 0,
    };
    file.write(slot::position(slot.seq), &[IoSlice::new(&slot.encode(superblock.uuid))])?;
    file.sync()?;
    if building != &path {
        vfs.rename(&temp, &path).map_err(|e| Error::io("rename", &temp, None, e))?;
    }
    open_locked(dir, trees, options, lock)
}

/// Opens the store in `dir`.
pub(crate) fn open(dir: &Path, trees: &Trees, options: &Options) -> Result<Opened> {
    let lock = lock(dir, options)?;
    open_locked(dir, trees, options, lock)
}

/// The file's own number follows from the install id, which is drawn at random, so that the same input
/// gives the same file.
fn uuid_of(install: InstallId) -> u64 {
    let mixed = (install.0 ^ install.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ mixed >> 31
}

pub(crate) fn lock(dir: &Path, options: &Options) -> Result<Box<dyn FileLock>> {
    let path = dir.join(LOCK_NAME);
    options.vfs.lock(&path).map_err(|e| match e.kind() {
        std::io::ErrorKind::WouldBlock => Error::Locked { file: path },
        _ => Error::io("lock", &path, None, e),
    })
}

pub(crate) fn exists(path: &Path, options: &Options) -> Result<bool> {
    options.vfs.exists(path).map_err(|e| Error::io("look for", path, None, e))
}

fn open_locked(dir: &Path, trees: &Trees, options: &Options, lock: Box<dyn FileLock>) -> Result<Opened> {
    let path: PathBuf = dir.join(FILE_NAME);
    let handle =
        options.vfs.open(&path, OpenHow::ReadWrite).map_err(|e| Error::io("open", &path, None, e))?;
    let file = Arc::new(TreeFile::new(handle, &path));
    let pages = file.pages()?;
    let (superblock, broken_twin) = read_superblock(&file, pages)?;
    let ring = Ring::read(&file, superblock.uuid)?;
    let (chosen, refused) = ring.choose(&file, superblock.uuid, pages)?;
    if refused.is_some() {
        reach("slot-fallen-back");
    }
    let roots = match_schema(&file, trees, chosen)?;
    let ctxs = contexts(trees, options, &file, superblock.uuid, chosen.seq);
    let source = mapped(options, &file, pages)?;
    let checkpoint = Arc::new(Checkpoint::new(chosen.clone(), roots, ctxs, source));

    let whole = |seq| ring.whole(seq).filter(|slot| slot.high_water <= pages).map(previous);
    let before = [1, 2].map(|n| whole(chosen.seq.checked_sub(n)?));
    let unread = UnreadMap { uuid: superblock.uuid, chosen: previous(chosen), before, pages };
    let (loaded, unread) = if options.lazy_space_map {
        (Loaded::unread(superblock.uuid, pages), Some(unread))
    } else {
        (unread.read(&file, &checkpoint)?, None)
    };
    let Loaded { space, newer, rebuilt } = loaded;

    // From here on the file is written. The order inside one sync does not matter: each alone is harmless.
    let write = |page: PageId, bytes: &[u8]| file.write(page, &[IoSlice::new(bytes)]);
    if let Some(twin) = broken_twin {
        write(twin, &superblock.encode())?;
    }
    if !planted("rejected-slot-kept") {
        for page in ring.newer_or_broken(chosen.seq) {
            reach("slot-zeroed");
            write(page, &ZEROS)?;
        }
    }
    for page in newer {
        write(page, &ZEROS)?;
    }
    file.sync()?;
    // The file got its name just now, or from a process that ended before it could say so to the disk.
    if !planted("name-not-synced") {
        options.vfs.sync_dir(dir).map_err(|e| Error::io("sync", dir, None, e))?;
    }

    let last_keys = last_keys(&checkpoint, trees)?;
    let recovered = Recovered {
        slot_seq: chosen.seq,
        fell_back: refused.is_some(),
        space_map_rebuilt: rebuilt,
        meta: chosen.meta.clone(),
        stamp: chosen.stamp,
        install_id: superblock.install,
    };
    let size_mark = chosen.size_mark;
    let checkpointer = Checkpointer {
        uuid: superblock.uuid,
        file,
        space,
        unread,
        building: None,
        retained: Vec::new(),
        written: ring.written(chosen.seq, superblock.uuid),
        confirmed: chosen.seq,
        empty_in_a_row: 0,
        punch_from_ms: 0,
        shrink: None,
        shrink_watch: ShrinkWatch::default(),
    };
    Ok(Opened { lock, checkpointer, checkpoint, last_keys, recovered, size_mark })
}

static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// The space map of the checkpoint that the store goes on from, while it is not read. Nothing is written to the file
/// before it is but what no checkpoint reaches, so it can be read at any time.
pub(crate) struct UnreadMap {
    uuid: u64,
    chosen: Previous,
    /// The slots of the two checkpoints before.
    before: [Option<Previous>; 2],
    /// Pages that the file has.
    pages: u64,
}

impl UnreadMap {
    /// Reads it, or makes it from a walk over the trees of `chosen` if it is damaged.
    fn read(&self, file: &TreeFile, chosen: &Checkpoint) -> Result<Loaded> {
        let read = |page: PageId, out: &mut [u8]| file.read(page, out);
        let walk = || {
            reach("space-map-rebuilt");
            chosen.extents(chosen.roots.len())
        };
        space::load(self.uuid, self.chosen, self.before, self.pages, read, walk)
    }
}

impl Checkpointer {
    /// Reads the space map if that is still to be done. `false` if it was there. To be called before anything is asked
    /// of the space but its figures.
    pub(crate) fn read_space_map(&mut self, inner: &Inner) -> Result<bool> {
        let Some(unread) = &self.unread else { return Ok(false) };
        self.file.healthy()?;
        let chosen = Arc::clone(&inner.published().checkpoint);
        let Loaded { space, newer, rebuilt: _ } = unread.read(&self.file, &chosen)?;
        // Durable with the next sync, and no slot that a later open could choose is written before that.
        for page in newer {
            self.file.write(page, &[IoSlice::new(&ZEROS)])?;
        }
        (self.space, self.unread) = (space, None);
        inner.set_figures(self);
        inner.size.raise(inner.needed_bytes());
        Ok(true)
    }
}

impl Db {
    /// Reads the space map if that was put off at open and nobody needed it since. `false` if it was there. Until it
    /// is, the figures of [`Stats`](crate::Stats) say nothing of what is used and free. Makes checkpoints wait.
    ///
    /// # Errors
    /// A failed read, which can be tried again; damage to a tree where the map is damaged too.
    pub fn read_space_map(&self) -> Result<bool> {
        self.inner().checkpointer().read_space_map(self.inner())
    }
}

pub(crate) fn previous(slot: &Slot) -> Previous {
    Previous { seq: slot.seq, high_water: slot.high_water, digest: slot.map_digest }
}

/// The superblock, and the twin of it that has to be written again.
pub(crate) fn read_superblock(file: &TreeFile, pages: u64) -> Result<(Superblock, Option<PageId>)> {
    if pages < space::FIRST_DATA {
        let what = "a tree file has at least its superblocks, slots and first bitmaps";
        return Err(Corruption::new(file.path(), what).mismatch(space::FIRST_DATA, pages).into());
    }
    let mut found = None;
    let mut broken = None;
    let mut refused = None;
    for at in (0..SUPERBLOCKS).map(PageId::new) {
        match Superblock::decode(&read_page(file, at)?) {
            Ok(superblock) => found = found.or(Some(superblock)),
            Err(why) => {
                broken = Some(at);
                // What a whole page says of itself outweighs what is wrong with its twin.
                let whole = !matches!(why, Refused::NotOurs | Refused::Damaged { .. });
                if whole {
                    return Err(refuse(file, at, why));
                }
                refused = refused.or(Some((at, why)));
            }
        }
    }
    match (found, refused) {
        (Some(superblock), _) => Ok((superblock, broken)),
        (None, Some((at, why))) => Err(refuse(file, at, why)),
        (None, None) => unreachable!("each twin is found or refused"),
    }
}

fn refuse(file: &TreeFile, at: PageId, why: Refused) -> Error {
    let mismatch = |what: &str, found: String, supported: String| {
        let file = file.path().to_path_buf();
        Error::from(FormatMismatch { file, what: what.into(), found, supported })
    };
    match why {
        Refused::NotOurs => Corruption::new(file.path(), "magic of the superblock").page(at.get()).into(),
        Refused::Damaged { expected, found } => Corruption::new(file.path(), "checksum of the superblock")
            .page(at.get())
            .mismatch(format_args!("{expected:#010x}"), format_args!("{found:#010x}"))
            .into(),
        Refused::Format(format) => mismatch("format", format.to_string(), FORMAT.to_string()),
        Refused::Flags(flags) => {
            mismatch("required feature flags", format!("{flags:#x}"), "none of them".into())
        }
        Refused::PageBytes(bytes) => mismatch("page size", bytes.to_string(), PAGE_BYTES.to_string()),
    }
}

pub(crate) fn read_page(file: &TreeFile, at: PageId) -> Result<[u8; PAGE_BYTES]> {
    let mut page = [0; PAGE_BYTES];
    file.read(at, &mut page)?;
    Ok(page)
}

/// The four positions of the ring.
#[derive(Clone)]
pub(crate) struct Ring {
    pub(crate) positions: Vec<Position>,
}

#[derive(Clone)]
pub(crate) struct Position {
    pub(crate) page: PageId,
    /// A whole slot.
    pub(crate) slot: Option<Slot>,
    crc: u32,
    /// All that is there, whatever it is. A checksum over a whole slot would be no help: it covers its own checksum at
    /// the end, so that it is the same for every one.
    pub(crate) bytes: Box<[u8]>,
    pub(crate) blank: bool,
}

impl Ring {
    pub(crate) fn read(file: &TreeFile, uuid: u64) -> Result<Ring> {
        let mut positions = Vec::new();
        for at in slot::positions() {
            let page = read_page(file, at)?;
            let slot = Slot::decode(&page, uuid, at);
            let blank = page.iter().all(|byte| *byte == 0);
            positions.push(Position {
                page: at,
                slot,
                crc: slot::crc(&page),
                bytes: Box::from(&page[..]),
                blank,
            });
        }
        Ok(Ring { positions })
    }

    pub(crate) fn whole(&self, seq: u64) -> Option<&Slot> {
        self.positions.iter().filter_map(|at| at.slot.as_ref()).find(|slot| slot.seq == seq)
    }

    fn crc(&self, seq: u64) -> Option<u32> {
        let mut positions = self.positions.iter();
        positions.find(|at| at.slot.as_ref().is_some_and(|slot| slot.seq == seq)).map(|at| at.crc)
    }

    /// The newest slot whose roots verify, and what was wrong with the newest one that is whole if it is another.
    pub(crate) fn choose(
        &self,
        file: &TreeFile,
        uuid: u64,
        pages: u64,
    ) -> Result<(&Slot, Option<Corruption>)> {
        let mut slots: Vec<&Slot> = self.positions.iter().filter_map(|at| at.slot.as_ref()).collect();
        slots.sort_by_key(|slot| std::cmp::Reverse(slot.seq));
        let mut damage = None;
        for slot in slots {
            let misfit = short_file(file, slot, pages).or_else(|| self.unchained(file, slot));
            match if misfit.is_some() { misfit } else { check_roots(file, uuid, slot)? } {
                None => return Ok((slot, damage)),
                Some(found) => damage = damage.or(Some(found)),
            }
        }
        let none = || Corruption::new(file.path(), "commit slots: none of the four is whole");
        Err(damage.unwrap_or_else(none).into())
    }

    /// A slot that follows another one than the one that is there belongs to a history that is no more.
    fn unchained(&self, file: &TreeFile, slot: &Slot) -> Option<Corruption> {
        let before = self.crc(slot.seq - 1).filter(|crc| *crc != slot.previous_crc)?;
        let damage = Corruption::new(file.path(), format!("checksum of the slot before {}", slot.seq));
        let damage = damage.page(slot::position(slot.seq).get());
        Some(damage.mismatch(format_args!("{:#010x}", slot.previous_crc), format_args!("{before:#010x}")))
    }

    pub(crate) fn newer_or_broken(&self, chosen: u64) -> impl Iterator<Item = PageId> {
        let bad = self.positions.iter().filter(move |at| match &at.slot {
            Some(slot) => slot.seq > chosen,
            None => !at.blank,
        });
        bad.map(|at| at.page)
    }

    /// The slots up to the chosen one, oldest first.
    fn written(&self, chosen: u64, uuid: u64) -> VecDeque<Written> {
        let whole = self.positions.iter().filter_map(|at| at.slot.as_ref()).filter(|slot| slot.seq <= chosen);
        let mut written: Vec<Written> = whole
            .map(|slot| Written {
                seq: slot.seq,
                applied: slot.meta.applied_index,
                crc: slot::crc(&slot.encode(uuid)),
            })
            .collect();
        written.sort_by_key(|written| written.seq);
        written.into()
    }
}

/// The length of the file proves nothing, but pages that it does not have are not there.
fn short_file(file: &TreeFile, slot: &Slot, pages: u64) -> Option<Corruption> {
    let damage = || {
        let damage = Corruption::new(file.path(), "pages of the file").page(slot::position(slot.seq).get());
        damage.mismatch(slot.high_water, pages)
    };
    (slot.high_water > pages).then(damage)
}

/// Compares the header page of each root with what the slot says of it.
fn check_roots(file: &TreeFile, uuid: u64, slot: &Slot) -> Result<Option<Corruption>> {
    for (id, root) in &slot.roots {
        let Some(ptr) = &root.ptr else { continue };
        let damage = |what: &str| Corruption::new(file.path(), what).page(ptr.page.get()).tree(id);
        if ptr.page.get() + u64::from(ptr.npages) > slot.high_water {
            return Ok(Some(damage("root beyond the end of what is used")));
        }
        let page = read_page(file, ptr.page)?;
        let sum = crc::header_page(crc::salt(uuid, ptr.page, ptr.birth), &page);
        if sum != ptr.crc {
            let what = damage("checksum of a root");
            return Ok(Some(what.mismatch(format_args!("{:#010x}", ptr.crc), format_args!("{sum:#010x}"))));
        }
    }
    Ok(None)
}

/// The roots in the order of the schema. A tree that the slot does not know is new and empty.
pub(crate) fn match_schema(file: &TreeFile, trees: &Trees, slot: &Slot) -> Result<Vec<TreeRoot>> {
    let known = |id: &u8| trees.schema().iter().any(|tree| tree.id == *id);
    if let Some((id, _)) = slot.roots.iter().find(|(id, _)| !known(id)) {
        let ids: Vec<String> = trees.schema().iter().map(|tree| tree.id.to_string()).collect();
        let (found, supported) = (id.to_string(), ids.join(", "));
        let file = file.path().to_path_buf();
        return Err(FormatMismatch { file, what: "tree".into(), found, supported }.into());
    }
    let root =
        |id: u8| slot.roots.iter().find(|(known, _)| *known == id).map_or(TreeRoot::EMPTY, |(_, root)| *root);
    Ok(trees.schema().iter().map(|tree| root(tree.id)).collect())
}

fn last_keys(checkpoint: &Checkpoint, trees: &Trees) -> Result<Vec<Option<AppendKey>>> {
    let mut keys = Vec::new();
    for (place, tree) in trees.schema().iter().enumerate() {
        let mut last = None;
        if tree.kind == TreeKind::Append {
            let mut cursor = checkpoint.cursor(place);
            cursor.seek_last()?;
            last = cursor.prev()?.and_then(|entry| entry.key().first_chunk().copied());
        }
        keys.push(last);
    }
    Ok(keys)
}

impl Checkpoint {
    /// All extents that the first `trees` trees reach, each checked.
    pub(crate) fn extents(&self, trees: usize) -> Result<Vec<(u64, u64)>> {
        let mut extents = Vec::new();
        for place in 0..trees {
            let mut see = |extent: &tree::Extent| extents.push((extent.page.get(), extent.npages.into()));
            tree::verify(self.source(), self.ctx(place), &self.roots[place], &mut see)?;
        }
        Ok(extents)
    }
}
