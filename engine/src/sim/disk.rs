// SPDX-License-Identifier: Apache-2.0
//! The state of a simulated disk, and the changes that lead from one to the next.
//!
//! Owns      names, the files they stand for, and how each change acts on them, whole or torn.
//! Holds     1. a name and a file are separate: a change to one can reach the disk without the other;
//!           2. a torn write changes whole 512-byte sectors of its own range, and nothing else.
//! Never     decides what a crash keeps: that is `crash`.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::content::Content;

/// The unit in which a disk writes or does not write.
pub(super) const SECTOR_BYTES: u64 = 512;

/// A file's number, which outlives its names.
pub(super) type Ino = u64;

#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    pub(super) files: BTreeMap<Ino, Arc<Content>>,
    pub(super) names: BTreeMap<PathBuf, Ino>,
    pub(super) dirs: BTreeSet<PathBuf>,
}

/// One change, as the code under test asked for it.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Write { ino: Ino, offset: u64, bytes: Arc<[u8]> },
    SetLen { ino: Ino, len: u64 },
    Allocate { ino: Ino, end: u64 },
    Punch { ino: Ino, offset: u64, bytes: u64 },
    Link { path: PathBuf, ino: Ino },
    Unlink { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf, ino: Ino },
}

/// What became of one sector of a torn write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sector {
    New,
    Old,
    Zeros,
    /// Bytes that were written somewhere, some time ago.
    Stale(Arc<[u8]>),
}

impl Change {
    /// The file whose sync makes this change durable.
    pub(super) fn file(&self) -> Option<Ino> {
        match self {
            Change::Write { ino, .. }
            | Change::SetLen { ino, .. }
            | Change::Allocate { ino, .. }
            | Change::Punch { ino, .. } => Some(*ino),
            _ => None,
        }
    }

    /// True if the sync of `dir` makes this change durable.
    pub(super) fn is_in_dir(&self, dir: &Path) -> bool {
        match self {
            Change::Link { path, .. } | Change::Unlink { path } => path.parent() == Some(dir),
            Change::Rename { to, .. } => to.parent() == Some(dir),
            _ => false,
        }
    }

    /// For a write, its range cut at sectors.
    pub(super) fn sectors(&self) -> Vec<Range<u64>> {
        let Change::Write { offset, bytes, .. } = self else { return Vec::new() };
        let end = offset + bytes.len() as u64;
        let mut cuts = Vec::new();
        let mut at = *offset;
        while at < end {
            let next = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
            cuts.push(at..next);
            at = next;
        }
        cuts
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Write { ino, offset, bytes } => write!(f, "write #{ino} {offset}+{}", bytes.len()),
            Change::SetLen { ino, len } => write!(f, "set_len #{ino} {len}"),
            Change::Allocate { ino, end } => write!(f, "allocate #{ino} to {end}"),
            Change::Punch { ino, offset, bytes } => write!(f, "punch #{ino} {offset}+{bytes}"),
            Change::Link { path, ino } => write!(f, "create {} #{ino}", path.display()),
            Change::Unlink { path } => write!(f, "remove {}", path.display()),
            Change::Rename { from, to, .. } => write!(f, "rename {} {}", from.display(), to.display()),
        }
    }
}

impl Disk {
    /// Carries out the whole change.
    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { ino, offset, bytes } => self.file_mut(*ino).write(bytes, *offset),
            Change::SetLen { ino, len } => self.file_mut(*ino).set_len(*len),
            Change::Allocate { ino, end } => {
                let file = self.file_mut(*ino);
                if file.len() < *end {
                    file.set_len(*end);
                }
            }
            Change::Punch { ino, offset, bytes } => self.file_mut(*ino).zero(*offset, *bytes),
            Change::Link { path, ino } => {
                self.file_mut(*ino);
                self.names.insert(path.clone(), *ino);
            }
            Change::Unlink { path } => {
                self.names.remove(path);
            }
            Change::Rename { from, to, ino } => {
                self.file_mut(*ino);
                self.names.remove(from);
                self.names.insert(to.clone(), *ino);
            }
        }
    }

    /// Carries out a write of which each sector fared as `fates` says. Sectors that keep their old bytes
    /// do not grow the file.
    pub(super) fn apply_torn(&mut self, change: &Change, fates: &[Sector]) {
        let Change::Write { ino, offset, bytes } = change else {
            unreachable!("only writes are torn: {change}");
        };
        let zeros = [0; SECTOR_BYTES as usize];
        for (range, fate) in change.sectors().into_iter().zip(fates) {
            let n = (range.end - range.start) as usize;
            let from = (range.start - offset) as usize;
            let source = match fate {
                Sector::Old => continue,
                Sector::New => &bytes[from..from + n],
                Sector::Zeros => &zeros[..n],
                Sector::Stale(stale) => &stale[..n.min(stale.len())],
            };
            self.file_mut(*ino).write(source, range.start);
        }
    }

    /// The same for disks on which every path reads the same.
    pub(super) fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (path, ino) in &self.names {
            path.hash(&mut hasher);
            self.files[ino].hash().hash(&mut hasher);
        }
        hasher.finish()
    }

    /// The file `ino`, made when its creation itself was lost and only a later change reached the disk.
    fn file_mut(&mut self, ino: Ino) -> &mut Content {
        Arc::make_mut(self.files.entry(ino).or_default())
    }
}
