// SPDX-License-Identifier: Apache-2.0
//! The one error of the engine: what happened, where, and what the operator can do about it.
//!
//! Owns      the variants a caller acts on, and the sentence each of them prints.
//! Holds     1. an error names its place: the file, and the offset or page where there is one;
//!           2. bytes from disk earn an error, never a panic.
//! Never     retries, logs, or decides whether the process goes on.

use std::{fmt, io, path::Path, path::PathBuf, sync::Arc};

/// `Result` with the engine's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the engine refused or stopped. Cheap to clone, because a failure is told to every waiter.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Bytes on disk are not what was written there.
    #[error("{0}")]
    Corrupt(Box<Corruption>),
    /// The system refused a read, write or sync.
    #[error("{0}")]
    Io(Box<IoFailure>),
    /// No room for `file`. Nothing was written; deletes and compaction can still run.
    #[error("no space left on the device for {}: free some space, or compact and delete keys", file.display())]
    NoSpace { file: PathBuf },
    /// An earlier write or sync of `file` failed, so what is durable is unknown. Final for this process.
    /// `full` if there was no room for it.
    #[error(
        "writes stopped because an earlier write or sync of {} failed{}, then restart; acknowledged data is replayed",
        file.display(),
        if *full { " for want of space: free some" } else { ": check the disk" }
    )]
    Poisoned { file: PathBuf, full: bool },
    /// Another process holds the data directory.
    #[error("{} is locked by another process: stop that process, or choose another data directory", file.display())]
    Locked { file: PathBuf },
    /// A whole file of a kind or version this build does not know.
    #[error("{0}")]
    Format(Box<FormatMismatch>),
    /// A key, value or record that the format cannot hold.
    #[error("{what} of {bytes} bytes exceeds the limit of {bytes_max}: split it or make it smaller")]
    TooLarge { what: &'static str, bytes: u64, bytes_max: u64 },
    /// What came of a snapshot is not what was sent. Nothing of it was kept: it is to be sent again from where its
    /// receiver is.
    #[error("{0}")]
    Transfer(Box<BrokenTransfer>),
    /// The pages of a snapshot may be written again, so there is no more of it.
    #[error("the snapshot of checkpoint {seq} has ended: {why}; begin a new one")]
    SnapshotEnded { seq: u64, why: &'static str },
    /// Keys that a tree's caller promised in order were not. Nothing that was written counts.
    #[error(
        "keys given to tree {tree} are out of order: report this as a bug; the store on disk is as before"
    )]
    OutOfOrder { tree: u8 },
    /// Whoever writes `file` went on so far that what was being read may have been written again. Not damage.
    #[error("{} was written again while it was read: look again, or stop whoever writes it", file.display())]
    Overtaken { file: PathBuf },
}

/// Where damage was found, and what was expected there. Optional fields are left out of the text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Corruption {
    /// The damaged file.
    pub file: PathBuf,
    /// Byte offset of the damage in `file`.
    pub offset: Option<u64>,
    /// Page number, for the tree file.
    pub page: Option<u64>,
    /// Name or number of the tree that the page belongs to.
    pub tree: Option<String>,
    /// What is wrong, as a phrase: "checksum of batch 7".
    pub what: String,
    /// The value that was expected.
    pub expected: Option<String>,
    /// The value that was found.
    pub found: Option<String>,
}

impl Corruption {
    /// Damage in `file`, described by `what`.
    pub fn new(file: &Path, what: impl Into<String>) -> Self {
        Corruption { file: file.to_path_buf(), what: what.into(), ..Self::default() }
    }

    /// The byte offset of the damage.
    pub fn at(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }

    /// The page of the damage. `offset` stays what it is.
    pub fn page(mut self, page: u64) -> Self {
        self.page = Some(page);
        self
    }

    /// The tree that the damaged page belongs to.
    pub fn tree(mut self, tree: impl fmt::Display) -> Self {
        self.tree = Some(tree.to_string());
        self
    }

    /// The two values that should have been equal.
    pub fn mismatch(mut self, expected: impl fmt::Display, found: impl fmt::Display) -> Self {
        self.expected = Some(expected.to_string());
        self.found = Some(found.to_string());
        self
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is damaged", self.file.display())?;
        if let Some(offset) = self.offset {
            write!(f, " at offset {offset}")?;
        }
        if let Some(page) = self.page {
            write!(f, ", page {page}")?;
        }
        if let Some(tree) = &self.tree {
            write!(f, ", tree {tree}")?;
        }
        write!(f, ": {}", self.what)?;
        if let Some(expected) = &self.expected {
            write!(f, ", expected {expected}")?;
        }
        if let Some(found) = &self.found {
            write!(f, ", found {found}")?;
        }
        f.write_str("; keep the file for inspection and restore this member from a peer or a backup")
    }
}

impl From<Corruption> for Error {
    fn from(corruption: Corruption) -> Self {
        Error::Corrupt(Box::new(corruption))
    }
}

/// A system call that failed on a file.
#[derive(Debug, Clone)]
pub struct IoFailure {
    /// The call, as a verb: "read", "write", "sync".
    pub op: &'static str,
    /// The file or directory it was made on.
    pub file: PathBuf,
    /// Byte offset, where the call has one.
    pub offset: Option<u64>,
    /// The system's answer.
    pub source: Arc<io::Error>,
}

impl fmt::Display for IoFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}", self.op, self.file.display())?;
        if let Some(offset) = self.offset {
            write!(f, " at offset {offset}")?;
        }
        write!(f, ": {}; ", self.source)?;
        f.write_str(match self.source.kind() {
            io::ErrorKind::NotFound => "check the path and that the data directory is mounted",
            io::ErrorKind::PermissionDenied => "check the owner and mode of the data directory",
            io::ErrorKind::ReadOnlyFilesystem => "mount the file system writable",
            _ => "check the disk and the kernel log, then restart",
        })
    }
}

/// A file that is whole and still not ours to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatMismatch {
    /// The file.
    pub file: PathBuf,
    /// What differs, as a phrase: "format", "feature flag".
    pub what: String,
    /// What the file says.
    pub found: String,
    /// What this build reads.
    pub supported: String,
}

impl fmt::Display for FormatMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} is {}, this build reads {}; nothing was changed: use the build that wrote the file, or another data directory",
            self.file.display(),
            self.what,
            self.found,
            self.supported
        )
    }
}

impl From<FormatMismatch> for Error {
    fn from(mismatch: FormatMismatch) -> Self {
        Error::Format(Box::new(mismatch))
    }
}

/// Where a stream of a snapshot stopped being one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenTransfer {
    /// Frames that were taken before.
    pub frames: u64,
    /// What is wrong, as a phrase: "checksum of a frame".
    pub what: &'static str,
    pub expected: u64,
    pub found: u64,
}

impl fmt::Display for BrokenTransfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the stream of a snapshot is broken behind frame {}: {}, expected {:#x}, found {:#x}; send it again from there",
            self.frames, self.what, self.expected, self.found
        )
    }
}

impl From<BrokenTransfer> for Error {
    fn from(broken: BrokenTransfer) -> Self {
        Error::Transfer(Box::new(broken))
    }
}

impl Error {
    /// The error for a failed system call `op` on `file`; a full disk becomes [`Error::NoSpace`].
    pub fn io(op: &'static str, file: &Path, offset: Option<u64>, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Error::NoSpace { file: file.to_path_buf() }
            }
            _ => Error::Io(Box::new(IoFailure {
                op,
                file: file.to_path_buf(),
                offset,
                source: Arc::new(source),
            })),
        }
    }

    /// What every write and sync of `file` answers after one of them failed of `self`.
    pub(crate) fn poison(&self, file: &Path) -> Error {
        Error::Poisoned { file: file.to_path_buf(), full: self.is_full() }
    }

    /// The same, with the tree that the damage is in.
    pub(crate) fn in_tree(self, tree: &str) -> Error {
        match self {
            Error::Corrupt(mut place) => {
                place.tree = Some(tree.to_owned());
                Error::Corrupt(place)
            }
            other => other,
        }
    }

    /// True if there was no room on the disk, now or at the write or sync after which there are no others.
    pub fn is_full(&self) -> bool {
        matches!(self, Error::NoSpace { .. } | Error::Poisoned { full: true, .. })
    }

    /// True if the bytes on disk are at fault, so that trying again cannot help.
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Error::Corrupt(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_says_what_where_and_what_to_do() {
        let file = Path::new("d/x.wal");
        let corrupt: Error =
            Corruption::new(file, "checksum of batch 7").at(4096).page(1).tree("rev").mismatch(1, 2).into();
        assert_eq!(
            corrupt.to_string(),
            "d/x.wal is damaged at offset 4096, page 1, tree rev: checksum of batch 7, expected 1, found 2; \
             keep the file for inspection and restore this member from a peer or a backup"
        );
        let read = Error::io("read", file, Some(8), io::Error::from(io::ErrorKind::PermissionDenied));
        assert_eq!(
            read.to_string(),
            "cannot read d/x.wal at offset 8: permission denied; check the owner and mode of the data directory"
        );
        let full = Error::io("write", file, None, io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(
            full.to_string(),
            "no space left on the device for d/x.wal: free some space, or compact and delete keys"
        );
        assert_eq!(
            full.poison(file).to_string(),
            "writes stopped because an earlier write or sync of d/x.wal failed for want of space: free some, \
             then restart; acknowledged data is replayed"
        );
        assert_eq!(
            read.poison(file).to_string(),
            "writes stopped because an earlier write or sync of d/x.wal failed: check the disk, then restart; \
             acknowledged data is replayed"
        );
        assert!(full.poison(file).is_full() && !read.poison(file).is_full());
    }
}
