// SPDX-License-Identifier: Apache-2.0
//! The file system as the engine sees it.
//!
//! Owns      the two traits that the real files and the simulated disk implement.
//! Holds     1. reads and writes are positional and whole: `Ok` means every byte was moved;
//!           2. a name is durable after `sync_dir` of its directory, a byte after `sync_data` of its file;
//!           3. an error of `write_at`, `sync_data`, `set_len` or `sync_dir` leaves the durable state unknown.
//! Never     hides a failure of a sync, or answers from anything but the file.

use std::{fmt, io, io::IoSlice, path::Path, path::PathBuf, sync::Arc};

use super::MapView;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenHow {
    /// An existing file, for reading alone.
    Read,
    /// An existing file, for reading and writing.
    ReadWrite,
    /// For reading and writing; made if it does not exist, kept as it is if it does.
    Create,
    /// A new file, for reading and writing; an error if the name is taken.
    CreateNew,
}

/// Held for as long as the lock is. Dropping it releases the lock.
pub trait FileLock: Send + Sync + fmt::Debug {}

/// Names: opening, moving, removing, and making those durable.
pub trait Vfs: Send + Sync + fmt::Debug {
    /// Opens `path`.
    fn open(&self, path: &Path, how: OpenHow) -> io::Result<Arc<dyn VFile>>;
    /// Gives the file `from` the name `to`, replacing what had it. Durable after `sync_dir`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes the name of a file. Open handles go on working. Durable after `sync_dir`.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in the directory `path` durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// The paths of the files in the directory `path`, sorted by name.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
    /// Makes the directory `path` and its missing parents, and makes their names durable.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// True if something has this name.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Takes the exclusive lock on `path`, making the file if needed. Does not wait:
    /// `WouldBlock` if another holder, in this process or another, has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>>;
}

/// An open file.
pub trait VFile: Send + Sync + fmt::Debug {
    /// Fills `bytes` from `offset`; `UnexpectedEof` if the file ends before.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
    /// As [`read_at`](VFile::read_at), but from the medium and not from the system's memory, as far as the system
    /// can be told so.
    fn read_medium(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_at(bytes, offset)
    }
    /// Writes all of `bytes` at `offset`, growing the file if needed.
    fn write_at(&self, bytes: &[IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Has the system begin to bring the range to the medium, without waiting: a later sync then finds little left to
    /// do. Makes nothing durable. Nothing happens where the system cannot be told so.
    fn write_behind(&self, _offset: u64, _bytes: u64) -> io::Result<()> {
        Ok(())
    }
    /// Makes the bytes and the length durable. After an error, nothing may be concluded from a later success.
    fn sync_data(&self) -> io::Result<()>;
    /// Cuts the file, or grows it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// The length in bytes. Never authoritative: see the formats.
    fn size(&self) -> io::Result<u64>;
    /// Reserves space for the range, growing the file if needed; new bytes read as zeros. A full disk
    /// is reported here and not by a later write, where the file system can promise that; where it
    /// cannot reserve at all, the file only grows.
    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()>;
    /// Gives the range back to the file system; it reads as zeros. `Unsupported` where it cannot.
    fn punch(&self, offset: u64, bytes: u64) -> io::Result<()>;
    /// Lets the system forget cached copies of clean pages, so that the next read asks the medium.
    fn drop_cache(&self) -> io::Result<()>;
    /// Maps the file for reading, with `reserve` bytes of addresses so that it can grow under the map.
    /// `None` where this kind of file has no memory map: read with `read_at` instead.
    fn map(&self, reserve: u64) -> io::Result<Option<MapView>>;
}

impl dyn VFile {
    /// Writes one buffer at `offset`.
    pub fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_at(&[IoSlice::new(bytes)], offset)
    }
}
