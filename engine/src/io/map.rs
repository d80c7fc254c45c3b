// SPDX-License-Identifier: Apache-2.0
//! A file seen as memory, for reading.
//!
//! Owns      one read-only shared mapping, reserved far past the end of the file so that it never moves.
//! Holds     1. the mapping lives as long as any `MapView` or `MapBytes` of it;
//!           2. no byte that a `MapBytes` covers is written, punched or cut while it lives: the engine never
//!              rewrites a page that a checkpoint or a reader can reach (I3 of the storage design);
//!           3. bytes are handed out only after `probe` said that they can be read.
//! Never     writes through the mapping, or interprets what it holds.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::io::Errno;

use super::sys::{self, MapRegistration};

/// A whole file, mapped. Clones share the mapping.
#[derive(Clone, Debug)]
pub struct MapView(Arc<Mapping>);

#[derive(Debug)]
struct Mapping {
    /// Declared before `map`, so that the handler forgets the addresses before they are unmapped.
    _registration: Option<MapRegistration>,
    map: MmapRaw,
    file: File,
    path: PathBuf,
    /// Set once the kernel said that it has no `MADV_POPULATE_READ` (before 5.14).
    probe_by_read: AtomicBool,
}

/// Some bytes of a mapped file. Keeps the mapping alive, and costs one reference count.
#[derive(Clone, Debug)]
pub struct MapBytes {
    map: Arc<Mapping>,
    offset: usize,
    len: usize,
}

impl MapView {
    /// Maps `file` with `reserve` bytes of addresses, or half of that, and so on, where the process may
    /// not have so many; an error when not even the file itself fits.
    pub(super) fn new(file: &File, path: &Path, reserve: u64) -> io::Result<MapView> {
        let file = file.try_clone()?;
        let needed = file.metadata()?.len().max(sys::kernel_page_bytes());
        let mut reserve = reserve.max(needed);
        let map = loop {
            let bytes = usize::try_from(reserve).map_err(|_| io::ErrorKind::OutOfMemory)?;
            match MmapOptions::new().len(bytes).map_raw_read_only(&file) {
                Ok(map) => break map,
                Err(e) if e.raw_os_error() == Some(Errno::NOMEM.raw_os_error()) && reserve > needed => {
                    reserve = (reserve / 2).max(needed);
                }
                Err(e) => return Err(e),
            }
        };
        map.advise(Advice::Random)?;
        map.advise(Advice::DontDump)?;
        let registration = MapRegistration::new(map.as_ptr() as usize, map.len(), path);
        Ok(MapView(Arc::new(Mapping {
            _registration: registration,
            map,
            file,
            path: path.to_path_buf(),
            probe_by_read: AtomicBool::new(false),
        })))
    }

    /// Bytes of addresses that are reserved. A file that outgrows this needs a new map.
    pub fn reserved(&self) -> u64 {
        self.0.map.len() as u64
    }

    /// The mapped file.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Makes sure that the range can be read, by bringing it into memory: what would be a `SIGBUS` at the
    /// first touch becomes an error here. Costs one system call; to be done once for each page.
    pub fn probe(&self, offset: u64, len: usize) -> io::Result<()> {
        let at = self.0.checked(offset, len);
        if !self.0.probe_by_read.load(Ordering::Relaxed) {
            match self.0.map.advise_range(Advice::PopulateRead, at, len) {
                Ok(()) => return Ok(()),
                Err(e) if e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                    self.0.probe_by_read.store(true, Ordering::Relaxed);
                }
                // The range cannot be read as memory. A read tells why: the end of the file, or the disk.
                Err(e) => {
                    self.0.read_each_page(offset, len)?;
                    return match self.0.map.advise_range(Advice::PopulateRead, at, len) {
                        Ok(()) => Ok(()),
                        Err(_) => Err(e),
                    };
                }
            }
        }
        self.0.read_each_page(offset, len)
    }

    /// Tells the kernel that the range is wanted soon. A hint: it reads ahead, and reports nothing.
    pub fn will_need(&self, offset: u64, len: usize) -> io::Result<()> {
        let at = self.0.checked(offset, len);
        self.0.map.advise_range(Advice::WillNeed, at, len)
    }

    /// The bytes of the range, which the caller has probed and which invariant 2 covers.
    ///
    /// # Panics
    /// If the range is not inside the reservation.
    #[inline]
    pub fn slice(&self, offset: u64, len: usize) -> MapBytes {
        let offset = self.0.checked(offset, len);
        MapBytes { map: Arc::clone(&self.0), offset, len }
    }
}

impl Mapping {
    /// `offset` as an index into the mapping; the whole range lies inside.
    fn checked(&self, offset: u64, len: usize) -> usize {
        let end = offset.checked_add(len as u64);
        assert!(
            end.is_some_and(|end| end <= self.map.len() as u64),
            "{len} bytes at {offset} of {} end past the {} reserved",
            self.path.display(),
            self.map.len()
        );
        offset as usize
    }

    /// Reads one byte of each kernel page that the range touches, and its last byte.
    fn read_each_page(&self, offset: u64, len: usize) -> io::Result<()> {
        let Some(last) = (offset + len as u64).checked_sub(1).filter(|_| len > 0) else { return Ok(()) };
        let page = sys::kernel_page_bytes();
        let mut byte = [0];
        let mut at = offset;
        while at < last {
            self.file.read_exact_at(&mut byte, at)?;
            at = (at / page + 1) * page;
        }
        self.file.read_exact_at(&mut byte, last)
    }
}

impl Deref for MapBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        debug_assert!(self.offset + self.len <= self.map.map.len());
        // SAFETY: `offset + len` lies inside the mapping (checked in `slice`), which lives as long as
        // `self.map`. It is readable memory: the caller probed it (invariant 3), and a page that fails
        // later raises SIGBUS, which ends the process. Nobody changes these bytes while `self` lives
        // (invariant 2), so there is no `&mut` to them and no write behind the compiler's back.
        unsafe { std::slice::from_raw_parts(self.map.map.as_ptr().add(self.offset), self.len) }
    }
}

impl AsRef<[u8]> for MapBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{OpenHow, StdVfs, VFile, Vfs};

    fn file_of(bytes: &[u8]) -> (tempfile::TempDir, Arc<dyn VFile>) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = StdVfs.open(&dir.path().join("f"), OpenHow::CreateNew).expect("a file");
        file.write_all_at(bytes, 0).expect("write");
        (dir, file)
    }

    #[test]
    fn what_is_written_later_shows_through_the_map_without_a_new_one() {
        let (_dir, file) = file_of(b"abc");
        let map = file.map(1 << 40).expect("map").expect("real files have maps");
        map.probe(0, 3).expect("readable");
        assert_eq!(&*map.slice(0, 3), b"abc");
        let far = 64 << 20;
        file.write_all_at(b"far", far).expect("grow");
        map.probe(far, 3).expect("readable");
        let bytes = map.slice(far, 3);
        drop(map);
        assert_eq!(&*bytes, b"far", "the bytes keep the map alive");
    }

    #[test]
    fn a_probe_past_the_end_is_an_error_by_either_way() {
        let (_dir, file) = file_of(&[7; 4096]);
        let map = file.map(1 << 30).expect("map").expect("real files have maps");
        let past = 1 << 20;
        assert_eq!(map.probe(past, 4096).expect_err("past").kind(), io::ErrorKind::UnexpectedEof);
        map.0.probe_by_read.store(true, Ordering::Relaxed);
        assert_eq!(map.probe(past, 4096).expect_err("past").kind(), io::ErrorKind::UnexpectedEof);
        map.probe(0, 4096).expect("inside");
        map.probe(100, 0).expect("nothing asked");
        map.will_need(0, 4096).expect("hint");
    }

    #[test]
    fn a_reservation_that_the_process_cannot_have_is_halved_until_it_fits() {
        let (_dir, file) = file_of(&[7; 10]);
        let map = file.map(1 << 60).expect("map").expect("real files have maps");
        assert!(map.reserved() < 1 << 60, "the address space is smaller than that");
        assert!(map.reserved() >= 1 << 30);
    }

    #[test]
    #[should_panic(expected = "end past")]
    fn a_range_outside_the_reservation_is_refused() {
        let (_dir, file) = file_of(&[7; 10]);
        let map = file.map(4096).expect("map").expect("real files have maps");
        map.slice(map.reserved() - 1, 2);
    }
}
