// SPDX-License-Identifier: Apache-2.0
//! A store that is written between the first bytes that a look at it reads and the next.
//!
//! Owns      a disk that has something done between two reads.
//! Holds     the look begins anew: pages that were written again are not its store's damage.

use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use cairn_engine::inspect::Store;
use cairn_engine::io::{FileLock, MapView, OpenHow, VFile, Vfs};
use cairn_engine::sim::SimVfs;

use crate::model::{Commit, SCHEMA, create};

const DIR: &str = "/member";
/// The last of the four positions of the ring, which are read in order and followed by the roots.
const LAST_SLOT_AT: u64 = 5 * 4096;
/// After so many checkpoints every slot is another, and pages of the ones before are written again.
const CHECKPOINTS: u64 = 8;

type Meanwhile = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

/// A disk to read from. What is done meanwhile is done once, after the ring was read.
struct Reading {
    disk: SimVfs,
    meanwhile: Meanwhile,
}

struct File {
    file: Arc<dyn VFile>,
    meanwhile: Meanwhile,
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reading")
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("File")
    }
}

fn read_only<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Vfs for Reading {
    fn open(&self, path: &Path, how: OpenHow) -> io::Result<Arc<dyn VFile>> {
        let (file, meanwhile) = (self.disk.open(path, how)?, Arc::clone(&self.meanwhile));
        Ok(Arc::new(File { file, meanwhile }))
    }
    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        read_only()
    }
    fn remove(&self, _: &Path) -> io::Result<()> {
        read_only()
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        read_only()
    }
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.disk.list(path)
    }
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        read_only()
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }
    fn lock(&self, _: &Path) -> io::Result<Box<dyn FileLock>> {
        read_only()
    }
}

impl VFile for File {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(bytes, offset)?;
        if offset == LAST_SLOT_AT {
            let meanwhile = self.meanwhile.lock().expect("no panic").take();
            meanwhile.into_iter().for_each(|done| done());
        }
        Ok(())
    }
    fn write_at(&self, _: &[IoSlice<'_>], _: u64) -> io::Result<()> {
        read_only()
    }
    fn sync_data(&self) -> io::Result<()> {
        read_only()
    }
    fn set_len(&self, _: u64) -> io::Result<()> {
        read_only()
    }
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
    fn allocate(&self, _: u64, _: u64) -> io::Result<()> {
        read_only()
    }
    fn punch(&self, _: u64, _: u64) -> io::Result<()> {
        read_only()
    }
    fn drop_cache(&self) -> io::Result<()> {
        Ok(())
    }
    fn map(&self, _: u64) -> io::Result<Option<MapView>> {
        Ok(None)
    }
}

#[test]
fn a_store_that_is_written_between_its_slots_and_its_roots_is_opened_anew() {
    const SEED: u64 = 7;
    let disk = SimVfs::new();
    let db = create(Arc::new(disk.clone()), Path::new(DIR)).expect("a new store");
    let mut applied = 0;
    let mut checkpoint = move || {
        for _ in 0..10 {
            applied += 1;
            Commit::new(SEED, applied, true).run(&db, true).expect("commits");
        }
        db.checkpoint().expect("makes a checkpoint");
    };
    (0..CHECKPOINTS).for_each(|_| checkpoint());
    let meanwhile = move || (0..CHECKPOINTS).for_each(|_| checkpoint());
    let meanwhile: Meanwhile = Arc::new(Mutex::new(Some(Box::new(meanwhile))));
    let reading: Arc<dyn Vfs> = Arc::new(Reading { disk, meanwhile: Arc::clone(&meanwhile) });
    let store = Store::open(&reading, Path::new(DIR), SCHEMA).expect("nothing is damaged");
    assert!(meanwhile.lock().expect("no panic").is_none(), "it was written meanwhile");
    let newest = store.slot().seq;
    assert!(newest > 2 * CHECKPOINTS - 1, "it is the store as it is now: {newest}");
    assert!(store.refused().is_none());
}
