// SPDX-License-Identifier: Apache-2.0
//! The files of the log: making, naming, recycling and removing segments.
//!
//! Owns      the directory, and the spare files waiting to become segments.
//! Holds     1. a segment gets its name after its header and first batch are durable in it, and the name is
//!              durable before the log goes on in it;
//!           2. a spare was written by this process alone; those of others are removed at open;
//!           3. a segment is renamed to a spare, durably, before its bytes are changed.
//! Never     knows what a batch holds.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::segment::{BLOCK, spare_name};
use crate::error::{Error, Result};
use crate::io::{Budget, OpenHow, Progress, VFile, Vfs};
use crate::mutants::planted;

/// Zeros are written in pieces of this size.
const FILL_BYTES: usize = 1 << 20;
static ZEROS: [u8; FILL_BYTES] = [0; FILL_BYTES];

/// A segment that has its name.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn VFile>,
    pub(super) seq: u64,
    pub(super) salt: u64,
    /// Length of the file when this process made it; 0 for one of an earlier process, which is not recycled.
    pub(super) bytes: u64,
}

/// A file that can become a segment.
#[derive(Debug)]
pub(super) struct Spare {
    path: PathBuf,
    file: Arc<dyn VFile>,
    pub(super) bytes: u64,
    /// The salt of the batches still in it; 0 if it is all zeros.
    pub(super) former_salt: u64,
}

#[derive(Debug)]
pub(super) struct LogFiles {
    pub(super) vfs: Arc<dyn Vfs>,
    pub(super) dir: PathBuf,
    spares: Mutex<Spares>,
}

#[derive(Debug, Default)]
struct Spares {
    ready: Vec<Spare>,
    /// The one that is being filled, and how far.
    filling: Option<(Spare, u64)>,
    next_name: u64,
}

impl LogFiles {
    pub(super) fn new(vfs: Arc<dyn Vfs>, dir: &Path) -> LogFiles {
        LogFiles { vfs, dir: dir.to_path_buf(), spares: Mutex::default() }
    }

    pub(super) fn list(&self) -> Result<Vec<PathBuf>> {
        self.vfs.list(&self.dir).map_err(|e| Error::io("list", &self.dir, None, e))
    }

    pub(super) fn open(&self, path: &Path) -> Result<Arc<dyn VFile>> {
        self.vfs.open(path, OpenHow::ReadWrite).map_err(|e| Error::io("open", path, None, e))
    }

    pub(super) fn remove(&self, path: &Path) -> Result<()> {
        self.vfs.remove(path).map_err(|e| Error::io("remove", path, None, e))
    }

    pub(super) fn sync_dir(&self) -> Result<()> {
        self.vfs.sync_dir(&self.dir).map_err(|e| Error::io("sync", &self.dir, None, e))
    }

    /// A file of at least `bytes_min` for a new segment: a spare if one is ready, else a new one of `bytes`
    /// that is only allocated, because filling it would keep a write waiting.
    pub(super) fn take(&self, bytes: u64, bytes_min: u64) -> Result<Spare> {
        let mut spares = self.lock();
        if let Some(at) = spares.ready.iter().position(|spare| spare.bytes >= bytes_min) {
            return Ok(spares.ready.remove(at));
        }
        self.create(&mut spares, bytes.max(bytes_min))
    }

    /// Gives `spare` its header and first batch, which are `blocks`, and then its name.
    pub(super) fn publish(
        &self,
        spare: Spare,
        name: &str,
        seq: u64,
        salt: u64,
        blocks: &[u8],
    ) -> Result<Segment> {
        let path = self.dir.join(name);
        spare.file.write_all_at(blocks, 0).map_err(|e| Error::io("write", &spare.path, Some(0), e))?;
        if !planted("wal-segment-named-before-sync") {
            spare.file.sync_data().map_err(|e| Error::io("sync", &spare.path, None, e))?;
        }
        self.vfs.rename(&spare.path, &path).map_err(|e| Error::io("rename", &spare.path, None, e))?;
        if !planted("wal-segment-name-not-synced") {
            self.sync_dir()?;
        }
        Ok(Segment { path, file: spare.file, seq, salt, bytes: spare.bytes })
    }

    /// Prepares one spare of `bytes`, as far as `budget` goes, unless `wanted` are ready.
    pub(super) fn prepare(&self, bytes: u64, wanted: usize, budget: Budget) -> Result<Progress> {
        let mut spares = self.lock();
        if spares.filling.is_none() {
            if spares.ready.len() >= wanted {
                return Ok(Progress::Done);
            }
            let spare = self.create(&mut spares, bytes)?;
            spares.filling = Some((spare, 0));
        }
        let Some((spare, filled)) = spares.filling.take() else { return Ok(Progress::Done) };
        // The lock is not held during the writing: a segment change must not wait for it.
        drop(spares);
        let end = spare.bytes.min(filled.saturating_add(budget.bytes.max(BLOCK)));
        if let Err(e) = fill(&spare, filled, end) {
            self.remove(&spare.path)?;
            return Err(e);
        }
        let mut spares = self.lock();
        if end == spare.bytes {
            spares.ready.push(spare);
            return Ok(if spares.ready.len() < wanted { Progress::More } else { Progress::Done });
        }
        spares.filling = Some((spare, end));
        Ok(Progress::More)
    }

    /// Removes the oldest segments of the log, ascending; keeps up to `wanted` of them, that nobody reads
    /// and that have at least `bytes`, as spares.
    pub(super) fn retire(&self, segments: Vec<Arc<Segment>>, bytes: u64, wanted: usize) -> Result<()> {
        let mut recycled = Vec::new();
        for segment in segments {
            let mut spares = self.lock();
            let wants_more = spares.ready.len() + recycled.len() < wanted;
            match Arc::try_unwrap(segment) {
                Ok(segment) if wants_more && segment.bytes >= bytes => {
                    let path = self.dir.join(spare_name(spares.next_name));
                    spares.next_name += 1;
                    drop(spares);
                    self.vfs
                        .rename(&segment.path, &path)
                        .map_err(|e| Error::io("rename", &segment.path, None, e))?;
                    let Segment { file, bytes, salt, .. } = segment;
                    recycled.push(Spare { path, file, bytes, former_salt: salt });
                }
                Ok(segment) => self.remove(&segment.path)?,
                Err(read) => self.remove(&read.path)?,
            }
        }
        if !recycled.is_empty() && !planted("wal-recycled-before-its-name-is-gone") {
            self.sync_dir()?;
        }
        self.lock().ready.append(&mut recycled);
        Ok(())
    }

    /// Bytes in files that are not part of the log.
    pub(super) fn spare_bytes(&self) -> u64 {
        let spares = self.lock();
        let filling = spares.filling.iter().map(|(spare, _)| spare.bytes);
        spares.ready.iter().map(|spare| spare.bytes).chain(filling).sum()
    }

    /// A new file of `bytes` under a spare's name. A full disk leaves nothing behind.
    fn create(&self, spares: &mut Spares, bytes: u64) -> Result<Spare> {
        let path = self.dir.join(spare_name(spares.next_name));
        spares.next_name += 1;
        let file =
            self.vfs.open(&path, OpenHow::CreateNew).map_err(|e| Error::io("create", &path, None, e))?;
        if let Err(e) = file.allocate(0, bytes) {
            self.remove(&path)?;
            return Err(Error::io("allocate", &path, Some(0), e));
        }
        Ok(Spare { path, file, bytes, former_salt: 0 })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Spares> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes zeros to a part of `spare`, and syncs them at once, so that no later sync of the log has to wait
/// behind all of them.
fn fill(spare: &Spare, from: u64, end: u64) -> Result<()> {
    let mut at = from;
    while at < end {
        let n = (end - at).min(FILL_BYTES as u64);
        let zeros = &ZEROS[..n as usize];
        spare.file.write_all_at(zeros, at).map_err(|e| Error::io("write", &spare.path, Some(at), e))?;
        at += n;
    }
    spare.file.sync_data().map_err(|e| Error::io("sync", &spare.path, None, e))
}
