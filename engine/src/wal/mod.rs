// SPDX-License-Identifier: Apache-2.0
//! The write-ahead log: the only thing that a client waits for.
//!
//! Owns      the segments under one directory, and what of them is in memory: terms, places, newest entries.
//! Holds     1. `sync` returns `Ok` only after everything appended before it is durable;
//!           2. no block is written twice while anything may need it; a recovered tail is never appended to;
//!           3. after a failed write or sync nothing is written any more by this process;
//!           4. an entry of index i voids every earlier one of index >= i, also after a crash.
//! Never     starts a thread, reads a clock, draws a random number, or looks into an entry.
//!
//! One thread appends and reads, one syncs, one prepares spares and releases; any of them may be the same.

mod batch;
mod cache;
mod files;
#[cfg(feature = "sim")]
pub mod fuzz;
mod index;
mod look;
mod part;
mod reader;
mod recover;
mod salvage;
mod segment;
mod writer;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::cache::EntryCache;
use self::files::{LogFiles, Segment};
use self::index::{BatchMap, LogIndex};
use self::recover::Want;
use self::writer::{Pending, Writer};
use crate::error::{Error, Result};
use crate::io::{Budget, OpenHow, Progress, VFile, Vfs};
use crate::mutants::planted;

pub use self::batch::{Base, Carry, Entry, HardState, Record};
pub use self::look::{BatchLook, LogLook, LogRecord, SegmentLook};
pub use self::part::LogPart;
pub use self::recover::{Evidence, Tail};
pub use self::salvage::{Salvage, salvage};

/// What one call of [`Wal::append`] takes: it becomes durable as a whole or not at all.
pub type RecordBatch = Vec<Record>;

/// Spares kept ready once segments have their full size.
const SPARES_MAX: usize = 2;

/// How a log is kept.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WalOptions {
    /// Where the files are.
    pub vfs: Arc<dyn Vfs>,
    /// The member whose log this is: another's is refused.
    pub member_id: u64,
    /// A fresh random number for each process. Checksums are salted with it, so that bytes from another
    /// life of a file never look valid.
    pub salt_seed: u64,
    /// Size of the first segment; each following one has double that, up to `segment_bytes`.
    pub first_segment_bytes: u64,
    /// Size of a segment of a log that has been in use for a while.
    pub segment_bytes: u64,
    /// Records that wait for a sync are written as batches of at most this size, one append at least.
    pub batch_bytes_max: usize,
    /// Data of written entries that are kept in memory for reading.
    pub cache_bytes: usize,
    /// So many entries that the tree file has already can still be read after an open, for those who are a little
    /// behind; fewer if they are large.
    pub entries_kept: u64,
}

impl WalOptions {
    /// The options that a store has unless said otherwise.
    pub fn new(vfs: Arc<dyn Vfs>, member_id: u64, salt_seed: u64) -> WalOptions {
        WalOptions {
            vfs,
            member_id,
            salt_seed,
            first_segment_bytes: 1 << 20,
            segment_bytes: 64 << 20,
            batch_bytes_max: 8 << 20,
            cache_bytes: 16 << 20,
            entries_kept: 5000,
        }
    }
}

/// The number of an append; larger is later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchNo(pub u64);

/// How far the log is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DurablePoint {
    /// Every append up to this one is durable.
    pub batch_no: BatchNo,
    /// The last index of the durable log.
    pub last_index: u64,
}

/// What a log held when it was opened. The entries are read with [`Wal::read`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Where the log begins.
    pub base: Base,
    /// The newest hard state; its commit index is at least the tree file's applied index.
    pub hard_state: HardState,
    /// The first index that can be read; `last_index + 1` if there is none.
    pub first_index: u64,
    /// The last index.
    pub last_index: u64,
    /// How the log ended.
    pub tail: Tail,
}

/// Counts since the log was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WalStats {
    /// Batches written, seals and carried states included.
    pub batches: u64,
    /// Bytes written to segments, padding included.
    pub written_bytes: u64,
    /// Syncs of segments, without those of directories.
    pub syncs: u64,
    /// Segments of the log now.
    pub segments: u64,
    /// Bytes of files that are kept ready to become segments.
    pub spare_bytes: u64,
    /// Bytes of entries held in memory.
    pub cache_bytes: u64,
}

/// A write-ahead log. `Send + Sync`; see the top of the file for who calls what.
#[derive(Debug)]
pub struct Wal {
    options: WalOptions,
    files: LogFiles,
    /// Taken before `shared`, and held over a sync.
    writer: Mutex<Writer>,
    /// Never held over I/O.
    shared: Mutex<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The log with everything appended so far.
    index: LogIndex,
    cache: EntryCache,
    batches: BatchMap,
    /// What is appended and not yet written, oldest first.
    queue: VecDeque<Pending>,
    /// Buffers of written batches, to be used again.
    buffers: Vec<Vec<u8>>,
    /// Every segment of the log, oldest first; the last is being written.
    segments: VecDeque<LiveSegment>,
    appended: BatchNo,
    durable: DurablePoint,
    /// The append that has the newest base.
    base_no: BatchNo,
    /// What is answered since a write or sync failed.
    poisoned: Option<Error>,
    next_segment_bytes: u64,
    stats: WalStats,
}

#[derive(Debug)]
struct LiveSegment {
    segment: Arc<Segment>,
    /// The largest index of any entry in it, voided ones too; 0 = none.
    max_index: u64,
}

impl Wal {
    /// True if `dir` has a log: a segment with its name.
    pub fn exists(vfs: &dyn Vfs, dir: &Path) -> Result<bool> {
        if !vfs.exists(dir).map_err(|e| Error::io("look for", dir, None, e))? {
            return Ok(false);
        }
        let files = vfs.list(dir).map_err(|e| Error::io("list", dir, None, e))?;
        Ok(files.iter().any(|path| segment::seq_of(path).is_some()))
    }

    /// Whose log `dir` has; `None` if there is no log.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::Format`] if the newest segment does not say so.
    pub fn owner(vfs: &dyn Vfs, dir: &Path) -> Result<Option<u64>> {
        if !Wal::exists(vfs, dir)? {
            return Ok(None);
        }
        let files = vfs.list(dir).map_err(|e| Error::io("list", dir, None, e))?;
        let Some(newest) = files.iter().rfind(|path| segment::seq_of(path).is_some()) else {
            return Ok(None);
        };
        let file = vfs.open(newest, OpenHow::Read).map_err(|e| Error::io("open", newest, None, e))?;
        let mut header = [0; segment::BLOCK_BYTES];
        let size = file.size().map_err(|e| Error::io("measure", newest, None, e))?;
        let bytes = header.len().min(usize::try_from(size).unwrap_or(usize::MAX));
        file.read_at(&mut header[..bytes], 0).map_err(|e| Error::io("read", newest, Some(0), e))?;
        Ok(Some(segment::SegmentHeader::decode(newest, &header[..bytes])?.member_id))
    }

    /// Makes a new log in `dir` that begins after `base`. A crash leaves no log, or this one.
    ///
    /// # Errors
    /// [`Error::Io`] with `AlreadyExists` if there is a log: it is left alone.
    pub fn create(dir: &Path, options: WalOptions, base: Base) -> Result<Wal> {
        let vfs = Arc::clone(&options.vfs);
        if Wal::exists(&*vfs, dir)? {
            return Err(Error::io("create a log in", dir, None, std::io::ErrorKind::AlreadyExists.into()));
        }
        vfs.create_dir(dir).map_err(|e| Error::io("create", dir, None, e))?;
        let files = LogFiles::new(vfs, dir);
        for stale in files.list()?.into_iter().filter(|path| segment::is_spare(path)) {
            files.remove(&stale)?;
        }
        let index = LogIndex::new(base);
        let mut shared = Shared::new(&options, index.clone());
        let start = writer::Start { seq: 1, carry: index.carry(), new_base: None, last_no: 0, chain: 0 };
        let writer = Writer::begin(&options, &files, start, &mut shared)?;
        writer.count(&mut shared);
        Ok(Wal { options, files, writer: Mutex::new(writer), shared: Mutex::new(shared) })
    }

    /// Opens the log in `dir` and holds it against what the tree file proves. Begins a new segment, cuts a
    /// torn tail off, and removes what an earlier process left behind.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where something that was durable cannot be read, with file and offset: nothing is
    /// changed then. [`Error::Format`] for the log of another member or a newer build.
    pub fn open(dir: &Path, options: WalOptions, evidence: Evidence) -> Result<(Wal, Replay)> {
        let files = LogFiles::new(Arc::clone(&options.vfs), dir);
        // The process before this one may have ended between a rename and its sync. What is built on the
        // names that are found must not outlive them.
        files.sync_dir()?;
        let listed = files.list()?;
        let (names, others): (Vec<_>, Vec<_>) =
            listed.into_iter().partition(|path| segment::seq_of(path).is_some());
        let mut handles: Vec<Option<Arc<dyn VFile>>> = vec![None; names.len()];
        if names.is_empty() {
            return Err(crate::error::Corruption::new(dir, "there is no log segment").into());
        }
        let load = |at: usize, want: Want, bytes: &mut Vec<u8>| {
            let file = match &mut handles[at] {
                Some(file) => file,
                none => none.insert(files.open(&names[at])?),
            };
            if want == Want::Whole {
                make_durable(&names[at], &**file)?;
            }
            read(&names[at], &**file, want, bytes)
        };
        let kept = options.entries_kept;
        let found = recover::recover(&names, options.member_id, Some(&evidence), kept, load)?;

        let mut shared = Shared::new(&options, found.index.clone());
        shared.batches = found.batches;
        for run in &found.run {
            let file = handles[run.file].clone().expect("each segment of the run was loaded");
            let path = names[run.file].clone();
            let segment = Arc::new(Segment { path, file, seq: run.seq, salt: run.salt, bytes: 0 });
            shared.segments.push_back(LiveSegment { segment, max_index: run.max_index });
        }
        let newest = found.run.last().expect("a recovered log has a segment");
        let sized = (2 * newest.end).next_power_of_two();
        shared.next_segment_bytes = sized.max(options.first_segment_bytes).min(options.segment_bytes);
        let start = writer::Start {
            seq: newest.seq + 1,
            carry: found.carry,
            new_base: found.new_base,
            last_no: found.last_no,
            chain: found.chain,
        };
        for stale in others.iter().filter(|path| segment::is_spare(path)) {
            files.remove(stale)?;
        }
        #[cfg(feature = "mutants")]
        if planted("wal-append-to-a-recovered-tail") {
            let writer = Writer::resume(newest.end, start, &shared);
            let replay = replay(&found.index, &evidence, found.tail);
            return Ok((
                Wal { options, files, writer: Mutex::new(writer), shared: Mutex::new(shared) },
                replay,
            ));
        }
        let writer = Writer::begin(&options, &files, start, &mut shared)?;
        writer.count(&mut shared);
        trim(&names[newest.file], handles[newest.file].as_deref(), newest.end)?;
        for leftover in &found.leftovers {
            files.remove(&names[*leftover])?;
        }
        let replay = replay(&found.index, &evidence, found.tail);
        Ok((Wal { options, files, writer: Mutex::new(writer), shared: Mutex::new(shared) }, replay))
    }

    /// The first index that can be read; `last_index + 1` if there is none.
    pub fn first_index(&self) -> u64 {
        self.shared().index.first()
    }

    /// The last index appended.
    pub fn last_index(&self) -> u64 {
        self.shared().index.last()
    }

    /// The term of `index`; known from the index before the first one to the last.
    pub fn term(&self, index: u64) -> Option<u64> {
        self.shared().index.term(index)
    }

    /// How far the log is durable.
    pub fn durable(&self) -> DurablePoint {
        self.shared().durable
    }

    /// The newest base and hard state appended.
    pub fn state(&self) -> (Base, HardState) {
        let shared = self.shared();
        (shared.index.base, shared.index.hard_state)
    }

    /// The newest segment: the one that is written. Never waits for a write.
    pub fn segment_path(&self) -> PathBuf {
        let shared = self.shared();
        shared.segments.back().expect("a log has a segment").segment.path.clone()
    }

    /// Counts since the log was opened.
    pub fn stats(&self) -> WalStats {
        let spare_bytes = self.files.spare_bytes();
        let shared = self.shared();
        WalStats {
            segments: shared.segments.len() as u64,
            cache_bytes: shared.cache.bytes() as u64,
            spare_bytes,
            ..shared.stats
        }
    }

    /// Fills and syncs a file for a later segment, as far as `budget` goes. Called from a background
    /// thread; a log without spares works, and pays for its segments while a write waits.
    pub fn prepare_spare(&self, budget: Budget) -> Result<Progress> {
        let (bytes, wanted) = {
            let shared = self.shared();
            shared.healthy()?;
            (shared.next_segment_bytes, self.spares_wanted(&shared))
        };
        self.files.prepare(bytes, wanted, budget).map_err(|e| self.poison_unless_full(e))
    }

    /// Lets go of the segments in which no entry has an index above `floor`. The caller passes the smaller
    /// of what the tree file needs (`Db::log_floor`) and what Raft needs.
    pub fn release(&self, floor: u64) -> Result<()> {
        let (retired, bytes, wanted) = {
            let mut shared = self.shared();
            shared.healthy()?;
            let early = if planted("wal-segment-released-early") { 1 } else { 0 };
            let passed = shared.segments.iter().take_while(|live| live.max_index <= floor).count() + early;
            // A base that is not durable yet may be lost, and the entries that it voids are needed then.
            let can_go = if shared.base_pending() { 0 } else { passed.min(shared.segments.len() - 1) };
            let retired: Vec<_> = shared.segments.drain(..can_go).map(|live| live.segment).collect();
            let oldest = shared.segments.front().expect("the newest segment stays").segment.seq;
            if let Some(last) = shared.batches.forget_before(oldest) {
                let first = last + 1;
                shared.index.forget_below(first);
                shared.cache.forget_below(first);
            }
            (retired, shared.next_segment_bytes, self.spares_wanted(&shared))
        };
        if retired.is_empty() {
            return Ok(());
        }
        self.files.retire(retired, bytes, wanted).map_err(|e| self.poison_unless_full(e))
    }

    fn spares_wanted(&self, shared: &Shared) -> usize {
        if shared.next_segment_bytes < self.options.segment_bytes { 1 } else { SPARES_MAX }
    }

    fn poison_unless_full(&self, error: Error) -> Error {
        if let Error::Io(failure) = &error {
            self.shared().poisoned.get_or_insert_with(|| error.poison(&failure.file));
        }
        error
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn new(options: &WalOptions, index: LogIndex) -> Shared {
        Shared {
            durable: DurablePoint { batch_no: BatchNo(0), last_index: index.last() },
            index,
            cache: EntryCache::new(options.cache_bytes),
            batches: BatchMap::default(),
            queue: VecDeque::new(),
            buffers: Vec::new(),
            segments: VecDeque::new(),
            appended: BatchNo(0),
            base_no: BatchNo(0),
            poisoned: None,
            next_segment_bytes: options.first_segment_bytes,
            stats: WalStats::default(),
        }
    }

    fn healthy(&self) -> Result<()> {
        match &self.poisoned {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// True while the newest base is appended and not durable.
    fn base_pending(&self) -> bool {
        self.durable.batch_no < self.base_no
    }
}

fn replay(index: &LogIndex, evidence: &Evidence, tail: Tail) -> Replay {
    let commit = index.hard_state.commit.max(evidence.applied_index);
    Replay {
        base: index.base,
        hard_state: HardState { commit, ..index.hard_state },
        first_index: index.first(),
        last_index: index.last(),
        tail,
    }
}

/// Has the next reading of a segment come from the medium. What is read decides what is acknowledged from here on, so
/// it must not come from a cache that the disk does not back.
fn make_durable(path: &Path, file: &dyn VFile) -> Result<()> {
    if planted("wal-recovered-tail-not-synced") {
        return Ok(());
    }
    file.sync_data().map_err(|e| Error::io("sync", path, None, e))?;
    file.drop_cache().map_err(|e| Error::io("drop the cache of", path, None, e))
}

/// Puts what is wanted of a segment into `bytes`.
fn read(path: &Path, file: &dyn VFile, want: Want, bytes: &mut Vec<u8>) -> Result<()> {
    let size = file.size().map_err(|e| Error::io("measure", path, None, e))?;
    let size = match want {
        Want::Head => size.min(segment::HEAD_BYTES),
        Want::Whole => size,
    };
    bytes.resize(usize::try_from(size).expect("a segment fits the address space"), 0);
    file.read_at(bytes, 0).map_err(|e| Error::io("read", path, Some(0), e))
}

/// Cuts the recovered segment where its last batch ends, to give back what was allocated beyond.
fn trim(path: &Path, file: Option<&dyn VFile>, end: u64) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    if file.size().map_err(|e| Error::io("measure", path, None, e))? > end {
        file.set_len(end).map_err(|e| Error::io("cut", path, Some(end), e))?;
    }
    Ok(())
}
