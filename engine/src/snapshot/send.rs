// SPDX-License-Identifier: Apache-2.0
//! The sending end: a pinned checkpoint, read in the order of the file.
//!
//! Owns      the pin, the cut into frames, and the bound on how long a snapshot may pin.
//! Holds     1. pages are read, not mapped: a failed read is an error, and a long transfer does not fill memory;
//!           2. a frame is whole extents, each checked from its own header, and a wrong one is read again before it
//!              counts as damage;
//!           3. a snapshot that was let go of ends with an error at its next frame, never with other bytes.
//! Never     makes a checkpoint. It makes the newest one durable first, because the number of one that a crash
//!           loses is used again, and a transfer that goes on after that would mix the two.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::format::{FRAME_HEADER_BYTES, FrameHeader, Header, Trailer, digest};
use crate::checkpoint::Checkpoint;
use crate::db::Db;
use crate::error::{Corruption, Error, Result};
use crate::format::Fault;
use crate::format::header::{EXTENT_PAGES_MAX, Header as ExtentHeader, check_extent};
use crate::format::slot::position;
use crate::inspect::Store;
use crate::page::{PAGE_BYTES, PageId, TreeRoot};
use crate::space::{FIRST_DATA, LivePages};
use crate::treefile::{READS_MAX, TreeFile};

/// Pages of a frame, but for one that holds a single larger extent.
const FRAME_PAGES: u64 = 256;

/// One checkpoint, held for sending. It can be sent more than once, and from any frame on.
pub struct Snapshot {
    header: Header,
    roots: Vec<(u8, TreeRoot)>,
    live: LivePages,
    pages: Pages,
    frame_pages: u64,
}

/// What keeps the pages, or notices that they went.
enum Pages {
    Pinned(Arc<Pin>),
    Looked(Box<Store>),
}

/// Where a transfer is: what was taken, and what comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Position {
    /// Frames taken.
    pub frames: u64,
    /// Pages in them.
    pub pages: u64,
    /// The next frame begins here or behind.
    pub page: u64,
    /// Over the frames taken.
    pub digest: u32,
}

/// The bytes of a snapshot, piece by piece: the header, frames, the trailer.
pub struct Stream<'s> {
    snapshot: &'s Snapshot,
    at: Position,
    next: Next,
    buf: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    Header,
    Frame,
    Nothing,
}

impl Snapshot {
    /// The checkpoint of `store`, which may be at rest, or run in another process: then the stream ends once that one
    /// has overtaken it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the slot does not confirm the space map; [`Error::Overtaken`]; a failed read.
    pub fn of_store(store: Store) -> Result<Snapshot> {
        let slot = store.slot();
        let Some(runs) = store.used_runs()? else {
            let damage = Corruption::new(store.path(), "the space map is not the one that the slot confirms");
            return Err(store.judge(damage.page(position(slot.seq).get()).into()));
        };
        let mut live = LivePages::default();
        for (start, n) in runs {
            live.add(start, n);
        }
        let header = Header {
            uuid: store.superblock().uuid,
            seq: slot.seq,
            meta: slot.meta.clone(),
            stamp: slot.stamp,
            high_water: live.end().unwrap_or(FIRST_DATA),
            pages: live.count(),
        };
        let roots = slot.roots.clone();
        Ok(Snapshot { header, roots, live, pages: Pages::Looked(Box::new(store)), frame_pages: FRAME_PAGES })
    }

    /// The same snapshot in frames of at most `bytes`, but for a larger extent, which is a frame of its own.
    pub fn in_frames_of(self, bytes: u64) -> Snapshot {
        let frame_pages = (bytes / PAGE_BYTES as u64).clamp(1, EXTENT_PAGES_MAX.into());
        Snapshot { frame_pages, ..self }
    }

    /// Which checkpoint this is, and how much there is of it.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The whole stream.
    pub fn stream(&self) -> Stream<'_> {
        self.resume(Position::default())
    }

    /// The stream from where a receiver is: the header, which says whose frames they are, and the frames after `at`.
    pub fn resume(&self, at: Position) -> Stream<'_> {
        Stream { snapshot: self, at, next: Next::Header, buf: Vec::new() }
    }

    /// The bytes of `out` from `first` on, while they are surely those of the checkpoint.
    fn read(&self, first: u64, out: &mut [u8]) -> Result<()> {
        match &self.pages {
            Pages::Pinned(pin) => pin.checkpoint()?.source().file().read(PageId::new(first), out),
            Pages::Looked(store) => store.file().read(PageId::new(first), out),
        }
    }

    /// # Errors
    /// [`Error::Overtaken`] if what was read so far may be of a later checkpoint.
    fn still_there(&self) -> Result<()> {
        let Pages::Looked(store) = &self.pages else { return Ok(()) };
        if store.is_overtaken()? {
            return Err(Error::Overtaken { file: store.path().to_path_buf() });
        }
        Ok(())
    }

    fn corrupt(&self, first: u64, fault: Fault, tree: Option<u8>) -> Error {
        let path = match &self.pages {
            Pages::Pinned(pin) => &*pin.path,
            Pages::Looked(store) => store.path(),
        };
        let offset = first * PAGE_BYTES as u64 + fault.at as u64;
        let damage = Corruption::new(path, fault.what).at(offset).page(offset / PAGE_BYTES as u64);
        let damage = damage.mismatch(fault.expected, fault.found);
        tree.map_or(damage.clone(), |tree| damage.tree(tree)).into()
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("header", &self.header).finish_non_exhaustive()
    }
}

impl Stream<'_> {
    /// Where the stream is after the pieces given so far.
    pub fn position(&self) -> Position {
        self.at
    }

    /// The next piece; `None` after the trailer. Reads one frame.
    ///
    /// # Errors
    /// [`Error::SnapshotEnded`] and [`Error::Overtaken`] if the pages are no longer held; [`Error::Corrupt`] with the page that is not what
    /// was written there; a failed read. After an error the stream can be asked again, for the same piece.
    #[allow(clippy::should_implement_trait)] // an iterator cannot lend
    pub fn next(&mut self) -> Result<Option<&[u8]>> {
        match self.next {
            Next::Header => {
                self.buf = self.snapshot.header.encode();
                self.next = Next::Frame;
            }
            Next::Frame => match self.snapshot.live.next_run(self.at.page.max(FIRST_DATA)) {
                Some((first, run)) => self.frame(first, run)?,
                None => self.trailer()?,
            },
            Next::Nothing => return Ok(None),
        }
        Ok(Some(&self.buf))
    }

    fn frame(&mut self, first: u64, run: u64) -> Result<()> {
        let pages = self.pages_of_frame(first, run)?;
        let header = &self.snapshot.header;
        self.buf.truncate(FRAME_HEADER_BYTES + pages * PAGE_BYTES);
        let (head, body) = self.buf.split_at_mut(FRAME_HEADER_BYTES);
        let frame = FrameHeader::new(header, self.at.frames, PageId::new(first), body);
        head.copy_from_slice(&frame.encode(header));
        self.at = self.at.after(header, &frame);
        if let Pages::Pinned(pin) = &self.snapshot.pages {
            pin.frames.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Reads the frame that begins at `first`, where `run` pages are in use. Answers how many are whole extents.
    fn pages_of_frame(&mut self, first: u64, run: u64) -> Result<usize> {
        let mut wanted = run.min(self.snapshot.frame_pages);
        let mut tries = 1;
        loop {
            self.buf.resize(FRAME_HEADER_BYTES + wanted as usize * PAGE_BYTES, 0);
            let body = &mut self.buf[FRAME_HEADER_BYTES..];
            self.snapshot.read(first, body)?;
            let (fault, tree) = match whole_extents(body, &self.snapshot.header, first) {
                Ok(Extents::Whole(pages)) => return Ok(pages),
                Ok(Extents::Larger(npages)) if u64::from(npages) <= run => {
                    wanted = npages.into();
                    continue;
                }
                Ok(Extents::Larger(npages)) => {
                    (Fault::new("pages of an extent, against the space map", 0, run, npages.into()), None)
                }
                Err(wrong) => wrong,
            };
            // Pages that went are no damage, and what is read again may be right.
            self.snapshot.still_there()?;
            if tries == READS_MAX {
                return Err(self.snapshot.corrupt(first, fault, tree));
            }
            tries += 1;
        }
    }

    fn trailer(&mut self) -> Result<()> {
        self.snapshot.still_there()?;
        let Position { frames, pages, digest, .. } = self.at;
        let trailer = Trailer { frames, pages, digest, roots: self.snapshot.roots.clone() };
        self.buf = trailer.encode(&self.snapshot.header);
        self.next = Next::Nothing;
        Ok(())
    }
}

impl Position {
    /// The position behind `frame`, which was the next.
    pub(crate) fn after(self, of: &Header, frame: &FrameHeader) -> Position {
        Position {
            frames: self.frames + 1,
            pages: self.pages + u64::from(frame.npages),
            page: frame.page.get() + u64::from(frame.npages),
            digest: digest(self.digest, of, frame),
        }
    }
}

/// What some pages begin with.
pub(super) enum Extents {
    /// So many pages of whole extents.
    Whole(usize),
    /// One extent of so many pages, which are more than there are.
    Larger(u16),
}

/// Checks the extents that lie behind each other from page `first` on. The last one may be cut off; it is not
/// counted. A fault counts from the start of `bytes`, and comes with the tree that the extent says it is of.
pub(super) fn whole_extents(bytes: &[u8], of: &Header, first: u64) -> Result<Extents, (Fault, Option<u8>)> {
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let page = PageId::new(first + (at / PAGE_BYTES) as u64);
        let tree = || ExtentHeader::decode(rest).ok().map(|head| head.tree);
        let checked = check_extent(rest, of.uuid, page, of.seq);
        let head = checked.map_err(|fault| (Fault { at: at + fault.at, ..fault }, tree()))?;
        if head.extent_bytes() > rest.len() {
            return Ok(if at == 0 { Extents::Larger(head.npages) } else { Extents::Whole(at / PAGE_BYTES) });
        }
        at += head.extent_bytes();
    }
    Ok(Extents::Whole(at / PAGE_BYTES))
}

/// What keeps a checkpoint's pages for a snapshot, until it is dropped or let go of.
pub(crate) struct Pin {
    seq: u64,
    path: Arc<Path>,
    held: Mutex<Held>,
    /// Frames read, by which a transfer that goes on is told from one that stalls.
    frames: AtomicU64,
}

enum Held {
    Checkpoint(Arc<Checkpoint>),
    Gone(&'static str),
}

impl Pin {
    /// The checkpoint, whose pages stay as long as the answer is held.
    fn checkpoint(&self) -> Result<Arc<Checkpoint>> {
        match &*self.held.lock().unwrap_or_else(PoisonError::into_inner) {
            Held::Checkpoint(checkpoint) => Ok(Arc::clone(checkpoint)),
            Held::Gone(why) => Err(Error::SnapshotEnded { seq: self.seq, why }),
        }
    }

    fn let_go(&self, why: &'static str) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Held::Gone(why);
    }
}

/// The snapshots of a store, for the bound on what they pin.
#[derive(Default)]
pub(crate) struct Pins(Mutex<Vec<Watched>>);

struct Watched {
    pin: Weak<Pin>,
    /// Frames when it was last seen to move, and when that was.
    frames: u64,
    moved_ms: Option<u64>,
}

/// How long and how much snapshots may pin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotLimits {
    /// A snapshot of which no frame was read for this long is let go of.
    pub stall_ms: u64,
    /// While readers pin more than this, the oldest snapshot is let go of.
    pub pinned_bytes: u64,
}

impl Pins {
    fn add(&self, pin: &Arc<Pin>) {
        let watched = Watched { pin: Arc::downgrade(pin), frames: 0, moved_ms: None };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(watched);
    }

    /// Snapshots that hold a checkpoint.
    pub(crate) fn count(&self) -> u64 {
        let pins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pins.iter().filter(|watched| watched.pin.strong_count() > 0).count() as u64
    }

    /// Lets go of what stalls, and of the oldest one if `too_much` is pinned. Answers how many.
    fn limit(&self, now_ms: u64, stall_ms: u64, too_much: bool) -> u64 {
        let mut pins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ended = 0;
        let oldest = pins.iter().filter_map(|watched| Some(watched.pin.upgrade()?.seq)).min();
        pins.retain_mut(|watched| {
            let Some(pin) = watched.pin.upgrade() else { return false };
            let frames = pin.frames.load(Ordering::Relaxed);
            let since = watched.moved_ms.filter(|_| frames == watched.frames).unwrap_or(now_ms);
            (watched.frames, watched.moved_ms) = (frames, Some(since));
            let why = if now_ms.saturating_sub(since) >= stall_ms {
                "no frame of it was read for too long"
            } else if too_much && Some(pin.seq) == oldest {
                "too much space waited for it"
            } else {
                return true;
            };
            pin.let_go(why);
            ended += 1;
            false
        });
        ended
    }
}

impl Db {
    /// The newest checkpoint, pinned and made durable: at most one sync, and no checkpoint. What was committed after
    /// it is in the log. Waits for a step of a checkpoint to end.
    ///
    /// # Errors
    /// A failed sync, which is final.
    pub fn snapshot(&self) -> Result<Snapshot> {
        let inner = self.inner();
        let mut checkpointer = inner.checkpointer();
        checkpointer.read_space_map(inner)?;
        checkpointer.confirm(inner)?;
        inner.set_figures(&checkpointer);
        let state = inner.published();
        let live = checkpointer.space.live();
        let checkpoint = Arc::clone(&state.checkpoint);
        let file: &Arc<TreeFile> = checkpoint.source().file();
        let header = Header {
            uuid: checkpointer.uuid,
            seq: checkpoint.seq,
            meta: checkpoint.meta.clone(),
            stamp: checkpoint.stamp,
            high_water: live.end().unwrap_or(FIRST_DATA),
            pages: live.count(),
        };
        let ids = state.trees.schema().iter().map(|tree| tree.id);
        let roots = ids.zip(checkpoint.roots.iter().copied()).collect();
        let pin = Arc::new(Pin {
            seq: checkpoint.seq,
            path: Arc::clone(file.path()),
            held: Mutex::new(Held::Checkpoint(checkpoint)),
            frames: AtomicU64::new(0),
        });
        inner.pins.add(&pin);
        Ok(Snapshot { header, roots, live, pages: Pages::Pinned(pin), frame_pages: FRAME_PAGES })
    }

    /// Lets go of snapshots that stall, or for which too much space waits, given the owner's time; to be called now
    /// and then. Their streams end with [`Error::SnapshotEnded`], and the next checkpoints give back what they
    /// pinned. Answers how many ended.
    pub fn limit_snapshots(&self, now_ms: u64, limits: SnapshotLimits) -> u64 {
        let too_much = self.stats().pinned_bytes > limits.pinned_bytes;
        self.inner().pins.limit(now_ms, limits.stall_ms, too_much)
    }
}
