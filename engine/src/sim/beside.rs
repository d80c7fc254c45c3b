// SPDX-License-Identifier: Apache-2.0
//! A disk for looks from outside, on which something else happens meanwhile.
//!
//! Owns      when that happens: before each block that is read.
//! Holds     a look changes nothing.
//! Never     decides what happens: who makes it says.

use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::SimVfs;
use crate::io::{FileLock, MapView, OpenHow, VFile, Vfs};

const BLOCK: usize = 4096;

/// What happens, told where the next block is read.
type Step = Mutex<Box<dyn FnMut(u64) + Send>>;

/// See the module.
#[derive(Clone)]
pub struct Beside {
    disk: SimVfs,
    step: Arc<Step>,
}

impl Beside {
    /// `step` is called before each block that is read, with its offset in its file.
    pub fn new(disk: SimVfs, step: impl FnMut(u64) + Send + 'static) -> Beside {
        Beside { disk, step: Arc::new(Mutex::new(Box::new(step))) }
    }
}

struct BesideFile {
    file: Arc<dyn VFile>,
    step: Arc<Step>,
}

impl fmt::Debug for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Beside")
    }
}

impl fmt::Debug for BesideFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BesideFile")
    }
}

fn changes<T>() -> io::Result<T> {
    panic!("a look changes nothing");
}

impl Vfs for Beside {
    fn open(&self, path: &Path, how: OpenHow) -> io::Result<Arc<dyn VFile>> {
        assert_eq!(how, OpenHow::Read, "{}", path.display());
        Ok(Arc::new(BesideFile { file: self.disk.open(path, how)?, step: Arc::clone(&self.step) }))
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        changes()
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        changes()
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        changes()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.disk.list(path)
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        changes()
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn FileLock>> {
        changes()
    }
}

impl VFile for BesideFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        for (n, block) in bytes.chunks_mut(BLOCK).enumerate() {
            let at = offset + (n * BLOCK) as u64;
            (self.step.lock().expect("no step panics"))(at);
            self.file.read_at(block, at)?;
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn write_at(&self, _: &[IoSlice<'_>], _: u64) -> io::Result<()> {
        changes()
    }

    fn sync_data(&self) -> io::Result<()> {
        changes()
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        changes()
    }

    fn allocate(&self, _: u64, _: u64) -> io::Result<()> {
        changes()
    }

    fn punch(&self, _: u64, _: u64) -> io::Result<()> {
        changes()
    }

    fn drop_cache(&self) -> io::Result<()> {
        changes()
    }

    fn map(&self, _: u64) -> io::Result<Option<MapView>> {
        changes()
    }
}
