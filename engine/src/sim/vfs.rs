// SPDX-License-Identifier: Apache-2.0
//! The simulated disk as a file system.
//!
//! Owns      what the running code sees (the cache), what is durable, and the changes between the two in order.
//! Holds     1. cache = durable + pending changes, but for what a failed sync took out of the pending ones;
//!           2. while it records, it keeps one crash point for each change, sync and mark.
//! Never     fails by itself: only an armed [`Fault`] does.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::crash::Point;
use super::disk::{Change, Disk, Ino};
use super::fault::{Call, Fault};
use super::rng::SplitMix;
use crate::io::{FileLock, MapView, OpenHow, VFile, Vfs};

/// Outcomes of a power loss from which one is drawn.
const SELECTIONS: usize = 60;
/// Writes whose bytes are kept as a source of stale sectors.
const STALE_WRITES_MAX: usize = 32;

/// Calls made so far, for tests that bound the cost of an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Reads and the bytes they asked for.
    pub reads: u64,
    pub read_bytes: u64,
    /// Writes and the bytes they carried.
    pub writes: u64,
    pub write_bytes: u64,
    /// Bytes that were to be brought to the medium ahead of a sync.
    pub behind_bytes: u64,
    /// Syncs of files.
    pub syncs: u64,
    /// Syncs of directories.
    pub dir_syncs: u64,
    /// Syncs asked for after one had failed: there must be none.
    pub syncs_after_failure: u64,
}

/// A file system in memory that can lose power. Clones are handles to the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimVfs(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    cache: Disk,
    durable: Disk,
    pending: Vec<Arc<Change>>,
    next_ino: Ino,
    locks: BTreeSet<PathBuf>,
    recording: bool,
    points: Vec<Point>,
    phase: &'static str,
    acked: u64,
    submitted: u64,
    stale: Vec<Arc<[u8]>>,
    armed: Option<(Fault, u64)>,
    fired: bool,
    sync_failed: bool,
    punch_refused: bool,
    /// Calls made, for each fault in `Fault::ALL`.
    matching: [u64; Fault::ALL.len()],
    counters: Counters,
}

#[derive(Debug)]
struct SimFile {
    disk: SimVfs,
    ino: Ino,
    how: OpenHow,
}

#[derive(Debug)]
struct SimLock {
    disk: SimVfs,
    path: PathBuf,
}

impl FileLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.state().locks.remove(&self.path);
    }
}

impl SimVfs {
    /// An empty disk that does not record.
    pub fn new() -> SimVfs {
        SimVfs::default()
    }

    /// A disk after a power loss that left `disk`.
    pub(super) fn booted(disk: Disk, phase: &'static str, acked: u64, submitted: u64) -> SimVfs {
        let next_ino = disk.files.keys().next_back().map_or(0, |ino| ino + 1);
        let state = State {
            cache: disk.clone(),
            durable: disk,
            next_ino,
            recording: true,
            phase,
            acked,
            submitted,
            ..State::default()
        };
        SimVfs(Arc::new(Mutex::new(state)))
    }

    /// The same disk under a new process: the machine ran on, so the cache and all that is unsynced are
    /// kept; locks and armed faults are gone.
    pub fn restarted(&self) -> SimVfs {
        let state = self.state();
        SimVfs(Arc::new(Mutex::new(State {
            cache: state.cache.clone(),
            durable: state.durable.clone(),
            pending: state.pending.clone(),
            next_ino: state.next_ino,
            recording: state.recording,
            phase: state.phase,
            acked: state.acked,
            submitted: state.submitted,
            stale: state.stale.clone(),
            punch_refused: state.punch_refused,
            ..State::default()
        })))
    }

    /// The same disk after a power loss that kept nothing but what was synced.
    pub fn after_power_loss(&self) -> SimVfs {
        let state = self.state();
        SimVfs::booted(state.durable.clone(), state.phase, state.acked, state.submitted)
    }

    /// The same disk after a power loss that kept, dropped or tore what was not synced as `rng` has it.
    pub fn after_some_power_loss(&self, rng: &mut SplitMix) -> SimVfs {
        let point = self.point();
        let selections = point.selections(rng, SELECTIONS, 0);
        let disk = point.image(&selections[rng.index(selections.len())]);
        SimVfs::booted(disk, point.phase, point.acked, point.submitted)
    }

    /// Step `n` begins: from here on an image may show it.
    pub fn submit(&self, n: u64) {
        let mut state = self.state();
        assert!(n >= state.submitted, "steps only go forward: {} to {n}", state.submitted);
        state.submitted = n;
    }

    /// Step `n` is acknowledged: from here on every image must show it.
    pub fn ack(&self, n: u64) {
        let mut state = self.state();
        assert!(n <= state.submitted, "step {n} was not submitted");
        assert!(n >= state.acked, "an acknowledged step stays so: {} to {n}", state.acked);
        state.acked = n;
        state.record();
    }

    /// A recovery has settled on step `n`: what was submitted after it is void, and it must survive itself.
    pub fn recovered(&self, n: u64) {
        let mut state = self.state();
        assert!((state.acked..=state.submitted).contains(&n), "step {n} is neither old nor new");
        (state.acked, state.submitted) = (n, n);
        state.record();
    }

    /// Names what goes on from here, for the count of images by cause.
    pub fn phase(&self, phase: &'static str) {
        self.state().phase = phase;
    }

    /// The newest step acknowledged, and the newest submitted.
    pub fn marks(&self) -> (u64, u64) {
        let state = self.state();
        (state.acked, state.submitted)
    }

    /// Ends the recording of crash points: what follows is the test's own looking around.
    pub fn stop_recording(&self) {
        self.state().recording = false;
    }

    pub(super) fn start_recording(&self) {
        self.state().recording = true;
    }

    /// The crash points recorded so far, with one for the present moment; the recording ends.
    pub(super) fn take_points(&self) -> Vec<Point> {
        let mut state = self.state();
        state.record();
        state.recording = false;
        std::mem::take(&mut state.points)
    }

    /// One crash point for the present moment.
    pub(super) fn point(&self) -> Point {
        self.state().point()
    }

    /// Makes the `nth` call that `fault` fits fail, counting from this one as 1.
    pub fn arm(&self, fault: Fault, nth: u64) {
        let mut state = self.state();
        state.armed = Some((fault, nth));
        state.fired = false;
    }

    /// From now on this is a file system that punches no holes.
    pub fn refuse_punch(&self) {
        self.state().punch_refused = true;
    }

    /// True once the armed fault has happened.
    pub fn fault_fired(&self) -> bool {
        self.state().fired
    }

    /// How many calls so far `fault` could have hit.
    pub fn calls_for(&self, fault: Fault) -> u64 {
        self.state().matching[Fault::ALL.iter().position(|f| *f == fault).expect("ALL has every fault")]
    }

    /// Calls made so far.
    pub fn counters(&self) -> Counters {
        self.state().counters
    }

    /// The bytes of the file `path` as the running code sees them.
    pub fn contents(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.state();
        let ino = state.cache.names.get(path).ok_or(ErrorKind::NotFound)?;
        let content = &state.cache.files[ino];
        let mut bytes = vec![0; content.len() as usize];
        assert!(content.read(&mut bytes, 0), "a file holds its own length");
        Ok(bytes)
    }

    /// Puts a durable file there, replacing what had the name: for damage done behind the code's back.
    pub fn plant(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.state();
        let ino = state.next_ino;
        state.next_ino += 1;
        let changes = [
            Change::Link { path: path.to_path_buf(), ino },
            Change::Write { ino, offset: 0, bytes: bytes.into() },
        ];
        for change in &changes {
            state.cache.apply(change);
            state.durable.apply(change);
        }
        let dir = path.parent().map(Path::to_path_buf).unwrap_or_default();
        state.cache.dirs.insert(dir.clone());
        state.durable.dirs.insert(dir);
    }

    /// Flips the bits of `mask` in one durable byte of a file that exists.
    pub fn flip(&self, path: &Path, offset: u64, mask: u8) {
        let mut state = self.state();
        let ino = *state.cache.names.get(path).expect("the file exists");
        let mut byte = [0];
        assert!(state.cache.files[&ino].read(&mut byte, offset), "the byte is inside the file");
        let change = Change::Write { ino, offset, bytes: [byte[0] ^ mask].into() };
        state.cache.apply(&change);
        state.durable.apply(&change);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is a failed test already; what it left is still worth reporting.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn point(&self) -> Point {
        Point {
            durable: self.durable.clone(),
            pending: self.pending.clone(),
            stale: self.stale.clone(),
            phase: self.phase,
            acked: self.acked,
            submitted: self.submitted,
        }
    }

    fn record(&mut self) {
        if self.recording {
            let point = self.point();
            self.points.push(point);
        }
    }

    /// Counts the call, and answers the fault that hits it.
    fn enter(&mut self, call: Call) -> Option<Fault> {
        for (fault, count) in Fault::ALL.iter().zip(&mut self.matching) {
            *count += u64::from(fault.fits(call));
        }
        let (fault, nth) = self.armed.filter(|(fault, _)| fault.fits(call))?;
        if nth > 1 {
            self.armed = Some((fault, nth - 1));
            return None;
        }
        self.armed = None;
        self.fired = true;
        Some(fault)
    }

    /// Fails a call that does nothing when it fails.
    fn enter_or_fail(&mut self, call: Call) -> io::Result<()> {
        match self.enter(call) {
            None => Ok(()),
            Some(Fault::NoSpace) => Err(ErrorKind::StorageFull.into()),
            Some(_) => Err(eio()),
        }
    }

    fn change(&mut self, change: Change) {
        self.cache.apply(&change);
        if let Change::Write { bytes, .. } = &change {
            if self.stale.len() == STALE_WRITES_MAX {
                self.stale.remove(0);
            }
            self.stale.push(Arc::clone(bytes));
        }
        self.pending.push(Arc::new(change));
        self.record();
    }

    /// Makes durable the pending changes that `covers` picks, in their order.
    fn sync(&mut self, covers: impl Fn(&Change) -> bool, of_names: bool) -> io::Result<()> {
        if self.sync_failed {
            self.counters.syncs_after_failure += 1;
        }
        let fault = match self.enter(Call::Sync) {
            Some(Fault::SyncKeepsCache) if of_names => Some(Fault::SyncOnce),
            fault => fault,
        };
        if fault.is_some() {
            self.sync_failed = true;
            self.record();
        }
        if fault == Some(Fault::SyncOnce) {
            return Err(eio());
        }
        let (covered, rest): (Vec<_>, Vec<_>) = self.pending.drain(..).partition(|change| covers(change));
        self.pending = rest;
        match fault {
            None => {
                for change in &covered {
                    self.durable.apply(change);
                }
                self.record();
                Ok(())
            }
            Some(Fault::SyncRevertsCache) => {
                self.cache = self.durable.clone();
                for change in &self.pending {
                    self.cache.apply(change);
                }
                Err(eio())
            }
            Some(_) => Err(eio()),
        }
    }

    /// What a read finds once the clean pages of `ino` are gone from memory.
    fn drop_cache(&mut self, ino: Ino) {
        let mut fresh = Disk::default();
        if let Some(content) = self.durable.files.get(&ino) {
            fresh.files.insert(ino, Arc::clone(content));
        }
        for change in self.pending.iter().filter(|change| change.file() == Some(ino)) {
            fresh.apply(change);
        }
        self.cache.files.insert(ino, fresh.files.remove(&ino).unwrap_or_default());
    }
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())
}

impl Vfs for SimVfs {
    fn open(&self, path: &Path, how: OpenHow) -> io::Result<Arc<dyn VFile>> {
        let mut state = self.state();
        state.enter_or_fail(Call::Name)?;
        let ino = match (state.cache.names.get(path), how) {
            (Some(_), OpenHow::CreateNew) => return Err(ErrorKind::AlreadyExists.into()),
            (Some(ino), _) => *ino,
            (None, OpenHow::Read | OpenHow::ReadWrite) => return Err(ErrorKind::NotFound.into()),
            (None, OpenHow::Create | OpenHow::CreateNew) => {
                if !path.parent().is_some_and(|dir| state.cache.dirs.contains(dir)) {
                    return Err(ErrorKind::NotFound.into());
                }
                let ino = state.next_ino;
                state.next_ino += 1;
                state.change(Change::Link { path: path.to_path_buf(), ino });
                ino
            }
        };
        drop(state);
        Ok(Arc::new(SimFile { disk: self.clone(), ino, how }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.enter_or_fail(Call::Name)?;
        let ino = *state.cache.names.get(from).ok_or(ErrorKind::NotFound)?;
        state.change(Change::Rename { from: from.to_path_buf(), to: to.to_path_buf(), ino });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.enter_or_fail(Call::Name)?;
        if !state.cache.names.contains_key(path) {
            return Err(ErrorKind::NotFound.into());
        }
        state.change(Change::Unlink { path: path.to_path_buf() });
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.counters.dir_syncs += 1;
        state.sync(|change| change.is_in_dir(path), true)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.state();
        if !state.cache.dirs.contains(path) {
            return Err(ErrorKind::NotFound.into());
        }
        Ok(state.cache.names.keys().filter(|name| name.parent() == Some(path)).cloned().collect())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.enter_or_fail(Call::Name)?;
        for dir in path.ancestors() {
            state.cache.dirs.insert(dir.to_path_buf());
            state.durable.dirs.insert(dir.to_path_buf());
        }
        Ok(())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.state();
        Ok(state.cache.names.contains_key(path) || state.cache.dirs.contains(path))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        if !self.state().locks.insert(path.to_path_buf()) {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock { disk: self.clone(), path: path.to_path_buf() }))
    }
}

impl SimFile {
    fn writable(&self) -> io::Result<()> {
        if self.how == OpenHow::Read { Err(ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    }

    fn resize(&self, change: Change) -> io::Result<()> {
        self.writable()?;
        let mut state = self.disk.state();
        state.enter_or_fail(Call::Resize)?;
        // Room inside the file changes nothing that a crash could take away.
        if !matches!(change, Change::Allocate { ino, end } if end <= state.cache.files[&ino].len()) {
            state.change(change);
        }
        Ok(())
    }
}

impl VFile for SimFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.counters.reads += 1;
        state.counters.read_bytes += bytes.len() as u64;
        state.enter_or_fail(Call::Read)?;
        if state.cache.files[&self.ino].read(bytes, offset) {
            Ok(())
        } else {
            Err(ErrorKind::UnexpectedEof.into())
        }
    }

    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.writable()?;
        let bytes: Vec<u8> = slices.iter().map(|slice| &slice[..]).collect::<Vec<_>>().concat();
        let mut state = self.disk.state();
        state.counters.writes += 1;
        state.counters.write_bytes += bytes.len() as u64;
        match state.enter(Call::Write) {
            None => {
                state.change(Change::Write { ino: self.ino, offset, bytes: bytes.into() });
                Ok(())
            }
            Some(Fault::ShortWrite) => {
                let half = bytes[..bytes.len() / 2].into();
                state.change(Change::Write { ino: self.ino, offset, bytes: half });
                Err(eio())
            }
            Some(Fault::NoSpace) => Err(ErrorKind::StorageFull.into()),
            Some(_) => Err(eio()),
        }
    }

    /// Nothing is durable for it, so nothing happens.
    fn write_behind(&self, _: u64, bytes: u64) -> io::Result<()> {
        self.disk.state().counters.behind_bytes += bytes;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.counters.syncs += 1;
        state.sync(|change| change.file() == Some(self.ino), false)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.resize(Change::SetLen { ino: self.ino, len })
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.state().cache.files[&self.ino].len())
    }

    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.resize(Change::Allocate { ino: self.ino, end: offset + bytes })
    }

    fn punch(&self, offset: u64, bytes: u64) -> io::Result<()> {
        if self.disk.state().punch_refused {
            return Err(ErrorKind::Unsupported.into());
        }
        self.resize(Change::Punch { ino: self.ino, offset, bytes })
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.disk.state().drop_cache(self.ino);
        Ok(())
    }

    fn map(&self, _reserve: u64) -> io::Result<Option<MapView>> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk_with(bytes: &[u8]) -> (SimVfs, Arc<dyn VFile>) {
        let disk = SimVfs::new();
        disk.create_dir(Path::new("/d")).expect("directory");
        let file = disk.open(Path::new("/d/f"), OpenHow::CreateNew).expect("create");
        file.write_all_at(bytes, 0).expect("write");
        (disk, file)
    }

    fn text(disk: &SimVfs) -> String {
        match disk.contents(Path::new("/d/f")) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(_) => "no file".into(),
        }
    }

    #[test]
    fn a_power_loss_keeps_what_was_synced_and_a_restart_keeps_all() {
        let (disk, file) = disk_with(b"one");
        assert_eq!(text(&disk.after_power_loss()), "no file");
        file.sync_data().expect("sync");
        assert_eq!(text(&disk.after_power_loss()), "no file", "the name is not durable yet");
        disk.sync_dir(Path::new("/d")).expect("sync");
        file.write_all_at(b"two", 0).expect("write");
        assert_eq!(text(&disk.after_power_loss()), "one");
        assert_eq!(text(&disk.restarted()), "two");
    }

    #[test]
    fn the_three_ways_in_which_a_sync_fails() {
        for (fault, shown, after_drop, second_sync_keeps) in [
            (Fault::SyncKeepsCache, "two", "one", "one"),
            (Fault::SyncRevertsCache, "one", "one", "one"),
            (Fault::SyncOnce, "two", "two", "two"),
        ] {
            let (disk, file) = disk_with(b"one");
            disk.sync_dir(Path::new("/d")).expect("sync");
            file.sync_data().expect("sync");
            file.write_all_at(b"two", 0).expect("write");
            disk.arm(fault, 1);
            file.sync_data().expect_err("armed");
            assert!(disk.fault_fired());
            assert_eq!(text(&disk), shown, "{fault:?}");
            assert_eq!(disk.counters().syncs_after_failure, 0);
            file.sync_data().expect("the error is reported once");
            assert_eq!(disk.counters().syncs_after_failure, 1);
            assert_eq!(text(&disk.after_power_loss()), second_sync_keeps, "{fault:?}");
            file.drop_cache().expect("drop");
            assert_eq!(text(&disk), after_drop, "{fault:?}");
        }
    }

    #[test]
    fn the_armed_call_fails_and_no_other() {
        let (disk, file) = disk_with(b"");
        disk.arm(Fault::ShortWrite, 2);
        file.write_all_at(b"aaaa", 0).expect("first");
        file.write_all_at(b"bbbb", 0).expect_err("second");
        assert_eq!(text(&disk), "bbaa");
        file.write_all_at(b"cccc", 0).expect("third");
        disk.arm(Fault::NoSpace, 1);
        assert_eq!(file.allocate(0, 10).expect_err("full").kind(), ErrorKind::StorageFull);
        disk.arm(Fault::Read, 1);
        file.read_at(&mut [0], 0).expect_err("armed");
        assert_eq!(disk.calls_for(Fault::Read), 1);
    }
}
