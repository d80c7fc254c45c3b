// SPDX-License-Identifier: Apache-2.0
//! Real files.
//!
//! Owns      the descriptors, and the loops over short and interrupted transfers.
//! Holds     1. one descriptor a file for writes and syncs, so no other one can consume its error;
//!           2. a sync is called once for each request: an error is passed on, never tried again;
//!           3. what it makes can be read by its owner alone (S28).
//! Never     buffers, or closes a file that has unsynced writes without its owner's word.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice};
use std::num::NonZeroU64;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{Advice, FallocateFlags, FlockOperation, OFlags};
use rustix::io::Errno;

use super::sys;
use super::{FileLock, MapView, OpenHow, VFile, Vfs};

/// Buffers given to one `pwritev`; the kernel's own limit is 1024.
const WRITE_SLICES_MAX: usize = 512;

/// Of the files and directories that are made. A umask only takes away.
const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

/// What memory, offset and length of a read past the page cache are multiples of.
const DIRECT_ALIGN: usize = 4096;

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct StdVfs;

#[derive(Debug)]
struct StdFile {
    file: File,
    path: PathBuf,
    /// The same file past the page cache; `None` inside where the system has no such thing.
    direct: OnceLock<Option<File>>,
}

impl StdFile {
    /// The file by its descriptor, because its name may have become another file's.
    fn direct(&self) -> Option<&File> {
        let open = || {
            let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            let flags = i32::try_from(OFlags::DIRECT.bits()).ok()?;
            OpenOptions::new().read(true).custom_flags(flags).open(path).ok()
        };
        self.direct.get_or_init(open).as_ref()
    }

    /// Reads past the page cache. `false` if the system refuses this file or range such a read.
    fn read_direct(&self, bytes: &mut [u8], offset: u64) -> io::Result<bool> {
        let Some(file) = self.direct() else { return Ok(false) };
        let mut room = vec![0; bytes.len() + DIRECT_ALIGN];
        let start = room.as_ptr().align_offset(DIRECT_ALIGN);
        let Some(aligned) = room.get_mut(start..start + bytes.len()) else { return Ok(false) };
        match file.read_exact_at(aligned, offset) {
            Ok(()) => {
                bytes.copy_from_slice(aligned);
                Ok(true)
            }
            // Not aligned, or past the end: an ordinary read says what it is.
            Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof) => {
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }
}

/// A descriptor under `flock`; closing it releases the lock.
#[derive(Debug)]
struct StdLock {
    _file: File,
}

impl FileLock for StdLock {}

impl Vfs for StdVfs {
    fn open(&self, path: &Path, how: OpenHow) -> io::Result<Arc<dyn VFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(how != OpenHow::Read).mode(FILE_MODE);
        match how {
            OpenHow::Read | OpenHow::ReadWrite => &mut options,
            OpenHow::Create => options.create(true),
            OpenHow::CreateNew => options.create_new(true),
        };
        Ok(Arc::new(StdFile { file: options.open(path)?, path: path.to_path_buf(), direct: OnceLock::new() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        rustix::fs::fsync(File::open(path)?)?;
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                paths.push(entry.path());
            }
        }
        paths.sort();
        Ok(paths)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let create = |path: &Path| DirBuilder::new().mode(DIR_MODE).create(path);
        match create(path) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let parent = path.parent().ok_or(e)?;
                self.create_dir(parent)?;
                create(path)?;
            }
            Err(e) => return Err(e),
        }
        // Also for one that exists: the process that made it may have died before this sync.
        match path.parent() {
            None => Ok(()),
            Some(parent) if parent.as_os_str().is_empty() => self.sync_dir(Path::new(".")),
            Some(parent) => self.sync_dir(parent),
        }
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path)?;
        interruptible(|| rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive))?;
        Ok(Box::new(StdLock { _file: file }))
    }
}

impl VFile for StdFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }

    fn read_medium(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        if self.read_direct(bytes, offset)? {
            return Ok(());
        }
        // Where a clean page is given up, the next read fetches it again.
        rustix::fs::fadvise(&self.file, offset, NonZeroU64::new(bytes.len() as u64), Advice::DontNeed)?;
        self.read_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        write_whole(bytes, offset, |slices, at| Ok(rustix::io::pwritev(&self.file, slices, at)?))
    }

    fn write_behind(&self, offset: u64, bytes: u64) -> io::Result<()> {
        match sys::begin_writeback(&self.file, offset, bytes) {
            Err(e) if is_unsupported(&e) => Ok(()),
            done => done,
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        // An interrupted fdatasync has not reported on the data, so asking again hides nothing.
        interruptible(|| rustix::fs::fdatasync(&self.file))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        match interruptible(|| rustix::fs::fallocate(&self.file, FallocateFlags::empty(), offset, bytes)) {
            Err(e) if is_unsupported(&e) => {
                let end = offset + bytes;
                if self.size()? < end { self.set_len(end) } else { Ok(()) }
            }
            done => done,
        }
    }

    fn punch(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match interruptible(|| rustix::fs::fallocate(&self.file, flags, offset, bytes)) {
            Err(e) if is_unsupported(&e) => Err(io::ErrorKind::Unsupported.into()),
            done => done,
        }
    }

    fn drop_cache(&self) -> io::Result<()> {
        Ok(rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed)?)
    }

    fn map(&self, reserve: u64) -> io::Result<Option<MapView>> {
        MapView::new(&self.file, &self.path, reserve).map(Some)
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error())
        || error.kind() == io::ErrorKind::Unsupported
}

/// Calls again for as long as a signal cuts the call short.
fn interruptible(mut call: impl FnMut() -> rustix::io::Result<()>) -> io::Result<()> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return Ok(done?),
        }
    }
}

/// Writes every byte of `bytes` at `offset` through `write`, which may write less than it is given.
fn write_whole(
    bytes: &[IoSlice<'_>],
    mut offset: u64,
    mut write: impl FnMut(&[IoSlice<'_>], u64) -> io::Result<usize>,
) -> io::Result<()> {
    let mut slices = bytes.to_vec();
    let mut rest = &mut slices[..];
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        let some = &rest[..rest.len().min(WRITE_SLICES_MAX)];
        match write(some, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                offset += n as u64;
                IoSlice::advance_slices(&mut rest, n);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// Runs `write_whole` of "abc", "", "defgh" at 10 against scripted answers; returns what landed.
    fn scripted(script: &[io::Result<usize>]) -> (io::Result<()>, Vec<(u64, Vec<u8>)>) {
        let mut calls = script.iter();
        let mut landed = Vec::new();
        let done = write_whole(
            &[IoSlice::new(b"abc"), IoSlice::new(b""), IoSlice::new(b"defgh")],
            10,
            |slices, at| match calls.next().expect("no more calls than the script has") {
                Ok(n) => {
                    let all: Vec<u8> = slices.iter().flat_map(|s| s.iter().copied()).collect();
                    landed.push((at, all[..*n].to_vec()));
                    Ok(*n)
                }
                Err(e) => Err(e.kind().into()),
            },
        );
        assert!(calls.next().is_none(), "the whole script was used");
        (done, landed)
    }

    #[test]
    fn short_and_interrupted_writes_are_continued_where_they_stopped() {
        let (done, landed) = scripted(&[Ok(2), Err(io::ErrorKind::Interrupted.into()), Ok(4), Ok(2)]);
        done.expect("every byte was taken");
        assert_eq!(landed, [(10, b"ab".to_vec()), (12, b"cdef".to_vec()), (16, b"gh".to_vec())]);
    }

    #[test]
    fn a_failed_write_is_not_tried_again() {
        let (done, landed) = scripted(&[Ok(1), Err(io::ErrorKind::StorageFull.into())]);
        assert_eq!(done.expect_err("the error is passed on").kind(), io::ErrorKind::StorageFull);
        assert_eq!(landed.len(), 1);
        let (done, _) = scripted(&[Ok(0)]);
        assert_eq!(done.expect_err("nothing was written").kind(), io::ErrorKind::WriteZero);
    }

    #[test]
    fn a_second_lock_is_refused_at_once_and_granted_after_release() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("LOCK");
        let held = StdVfs.lock(&path).expect("first lock");
        assert_eq!(StdVfs.lock(&path).expect_err("held").kind(), io::ErrorKind::WouldBlock);
        drop(held);
        StdVfs.lock(&path).expect("free again");
    }

    #[test]
    fn the_medium_reads_as_what_was_written_whatever_the_system_can() {
        let on_disk = tempfile::tempdir().expect("a temporary directory");
        let in_memory = tempfile::tempdir_in("/dev/shm").expect("one in memory");
        for dir in [on_disk.path(), in_memory.path()] {
            let (path, moved) = (dir.join("f"), dir.join("g"));
            let file = StdVfs.open(&path, OpenHow::CreateNew).expect("create");
            let bytes: Vec<u8> = (0..40_000u32).map(|n| (n / 7) as u8).collect();
            file.write_all_at(&bytes, 0).expect("write");
            StdVfs.rename(&path, &moved).expect("rename");
            StdVfs.open(&path, OpenHow::CreateNew).expect("another file of that name");
            for (at, len) in
                [(0, 4096), (8192, 16_384), (32_768, 4096), (36_864, 3136), (5, 100), (4000, 9000)]
            {
                let mut read = vec![0; len];
                file.read_medium(&mut read, at as u64).expect("read");
                assert!(read == bytes[at..at + len], "{len} bytes at {at}");
            }
            file.write_all_at(b"later", 4096).expect("write");
            let mut read = vec![0; 4096];
            file.read_medium(&mut read, 4096).expect("read");
            assert_eq!(&read[..5], b"later", "also what is not synced");
            let past = file.read_medium(&mut read, 36_864).expect_err("past the end");
            assert_eq!(past.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn files_do_what_the_trait_says() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let deep = dir.path().join("a/b/c");
        StdVfs.create_dir(&deep).expect("with parents");
        StdVfs.create_dir(&deep).expect("again is fine");
        let path = deep.join("x");
        let file = StdVfs.open(&path, OpenHow::CreateNew).expect("new");
        let mode = |path: &Path| fs::metadata(path).expect("made").permissions().mode() & 0o777;
        assert_eq!((mode(&deep), mode(&path)), (DIR_MODE, FILE_MODE));
        assert!(StdVfs.open(&path, OpenHow::CreateNew).is_err());
        file.write_at(&[IoSlice::new(b"he"), IoSlice::new(b"llo")], 3).expect("write");
        file.sync_data().expect("sync");
        let mut bytes = [9; 8];
        file.read_at(&mut bytes, 0).expect("read");
        assert_eq!(&bytes, b"\0\0\0hello");
        assert_eq!(
            file.read_at(&mut bytes, 1).expect_err("past the end").kind(),
            io::ErrorKind::UnexpectedEof
        );
        file.allocate(0, 8192).expect("allocate");
        assert_eq!(file.size().expect("length"), 8192);
        file.set_len(4096).expect("cut");
        match file.punch(0, 4096) {
            Ok(()) => {
                file.read_at(&mut bytes, 0).expect("read");
                assert_eq!(bytes, [0; 8]);
            }
            Err(e) => assert_eq!(e.kind(), io::ErrorKind::Unsupported),
        }
        file.drop_cache().expect("advice");
        StdVfs.rename(&path, &deep.join("y")).expect("rename");
        StdVfs.sync_dir(&deep).expect("sync");
        assert_eq!(StdVfs.list(&deep).expect("list"), [deep.join("y")]);
        assert!(!StdVfs.exists(&path).expect("exists"));
        StdVfs.remove(&deep.join("y")).expect("remove");
        assert!(StdVfs.list(&deep).expect("list").is_empty());
    }
}
