// SPDX-License-Identifier: Apache-2.0
//! Backup and restore: a transfer to a file, from one, or from a store straight into another.
//!
//! A backup is the part of the log that the checkpoint does not hold yet, if there is a log, and then the stream of the
//! checkpoint. So it has all that was durable when it began.
//!
//! Owns      the order in which the files of a copy become durable and get their names.
//! Holds     1. a backup has its name only once it is whole and durable;
//!           2. a directory that has a store is never restored into;
//!           3. where a log is made beside the store, it is made first: a store without its log is refused later, and
//!              a log whose store is missing as well, so a restore that was cut short never looks like a member.
//! Never     writes to the store that it copies.

use std::io::IoSlice;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::format::{FRAME_BYTES_MAX, HEADER_BYTES, Header};
use super::receive::{Installed, Receiver};
use super::send::{Position, Snapshot};
use crate::error::{Corruption, Error, Result};
use crate::io::{OpenHow, VFile, Vfs};
use crate::options::Options;
use crate::page::PAGE_BYTES;
use crate::recover::{self, FILE_NAME};
use crate::schema::{InstallId, Schema};
use crate::wal::{Base, HardState, LogPart, Wal, WalOptions};

/// What a store's file is called while it comes in.
const TEMP_NAME: &str = "incoming.tmp";

/// Bytes that are read from a backup at a time.
const READ_BYTES: usize = FRAME_BYTES_MAX / 16;

/// How far a copy is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    pub phase: Phase,
    pub pages: u64,
    /// Of all; 0 until it is known.
    pub of_pages: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    Copy,
    /// Walking the copy from its roots.
    Check,
}

/// What was written by a backup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Copied {
    /// The checkpoint.
    pub seq: u64,
    /// The newest log index that it contains, and its term.
    pub applied_index: u64,
    pub applied_term: u64,
    /// The newest index of the log's part; as the index before if there is none.
    pub last_index: u64,
    pub frames: u64,
    pub pages: u64,
    /// Of the backup.
    pub bytes: u64,
}

/// What a backup says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackupHead {
    /// The checkpoint.
    pub checkpoint: Header,
    /// What of the log is with it.
    pub log: Option<LogPart>,
    /// Where the stream begins.
    stream_at: u64,
}

/// Where a store is restored to.
#[derive(Clone, Debug)]
pub struct RestoreTo {
    /// Made if it is missing. It must not have a store.
    pub dir: PathBuf,
    pub schema: Schema,
    pub options: Options,
    /// Drawn at random by whoever restores.
    pub install: InstallId,
    /// A log to be made with the store, with what of a log is in the backup; without one, its owner makes it.
    pub log: Option<RestoreLog>,
}

/// The log of a restored store.
#[derive(Clone, Debug)]
pub struct RestoreLog {
    pub dir: PathBuf,
    /// The member whose log it is counts only where the backup does not say.
    pub options: WalOptions,
    /// Kind and data of one more entry behind those of the backup.
    pub then: Option<(u8, Bytes)>,
}

/// Writes `log`, which has to follow the checkpoint, and `snapshot` to the file `to`, which must not exist. A store
/// that runs goes on.
///
/// # Errors
/// [`Error::SnapshotEnded`] or [`Error::Overtaken`] if the store went on too far meanwhile, [`Error::Corrupt`] with the page if it is damaged;
/// an I/O error of kind `AlreadyExists`; a full disk. Then there is no file.
pub fn backup(
    snapshot: &Snapshot,
    log: Option<&LogPart>,
    vfs: &dyn Vfs,
    to: &Path,
    progress: &mut dyn FnMut(Step),
) -> Result<Copied> {
    if vfs.exists(to).map_err(|e| Error::io("look for", to, None, e))? {
        return Err(Error::io("create", to, None, std::io::ErrorKind::AlreadyExists.into()));
    }
    let temp = temp_of(to);
    let file = vfs.open(&temp, OpenHow::Create).map_err(|e| Error::io("create", &temp, None, e))?;
    let copied = write_parts(snapshot, log, &*file, &temp, progress).and_then(|copied| {
        file.sync_data().map_err(|e| Error::io("sync", &temp, None, e))?;
        vfs.rename(&temp, to).map_err(|e| Error::io("rename", &temp, None, e))?;
        Ok(copied)
    });
    if copied.is_err() {
        // The error says more than a failure to tidy up behind it.
        vfs.remove(&temp).ok();
        return copied;
    }
    sync_parent(vfs, to)?;
    copied
}

fn write_parts(
    snapshot: &Snapshot,
    log: Option<&LogPart>,
    file: &dyn VFile,
    path: &Path,
    progress: &mut dyn FnMut(Step),
) -> Result<Copied> {
    file.set_len(0).map_err(|e| Error::io("cut", path, None, e))?;
    let header = snapshot.header();
    let mut bytes = 0;
    let mut write = |piece: &[u8]| {
        let written = file.write_at(&[IoSlice::new(piece)], bytes);
        bytes += piece.len() as u64;
        written.map_err(|e| Error::io("write", path, Some(bytes - piece.len() as u64), e))
    };
    if let Some(log) = log {
        assert!(follows(log, header), "the log's part follows the checkpoint that it goes with");
        write(&log.encode())?;
    }
    let mut stream = snapshot.stream();
    while let Some(piece) = stream.next()? {
        write(piece)?;
        let pages = stream.position().pages;
        progress(Step { phase: Phase::Copy, pages, of_pages: header.pages });
    }
    let Position { frames, pages, .. } = stream.position();
    let (applied_index, applied_term) = (header.meta.applied_index, header.meta.applied_term);
    let last_index = log.map_or(applied_index, LogPart::last_index);
    Ok(Copied { seq: header.seq, applied_index, applied_term, last_index, frames, pages, bytes })
}

fn follows(log: &LogPart, header: &Header) -> bool {
    (log.base.index, log.base.term) == (header.meta.applied_index, header.meta.applied_term)
}

/// What the backup `from` says of itself. Of the stream only the header is read.
///
/// # Errors
/// As [`restore`], for what is read.
pub fn read_head(vfs: &dyn Vfs, from: &Path) -> Result<BackupHead> {
    let file = vfs.open(from, OpenHow::Read).map_err(|e| Error::io("open", from, None, e))?;
    let size = file.size().map_err(|e| Error::io("measure", from, None, e))?;
    let read = |at: u64, bytes: u64| {
        let mut buf = vec![0; usize::try_from(bytes.min(size.saturating_sub(at))).unwrap_or(usize::MAX)];
        file.read_at(&mut buf, at).map_err(|e| Error::io("read", from, Some(at), e)).map(|()| buf)
    };
    let part_bytes = LogPart::encoded_bytes(from, &read(0, PAGE_BYTES as u64)?)?;
    let log = part_bytes.map(|bytes| LogPart::decode(from, &read(0, bytes)?)).transpose()?;
    let stream_at = part_bytes.unwrap_or(0);
    let head = read(stream_at, HEADER_BYTES as u64)?;
    let short = || Corruption::new(from, "a backup ends inside the header of its stream").at(size);
    let checkpoint = Header::decode(head.first_chunk().ok_or_else(short)?);
    let checkpoint = checkpoint.map_err(|refused| refused.in_file(from))?;
    if log.as_ref().is_some_and(|log| !follows(log, &checkpoint)) {
        return Err(Corruption::new(from, "the log's part does not follow the checkpoint").at(0).into());
    }
    Ok(BackupHead { checkpoint, log, stream_at })
}

/// Makes a store of the backup `from`.
///
/// # Errors
/// [`Error::Corrupt`] if the backup is not whole, [`Error::Format`] if it is of a newer build; an I/O error of kind
/// `AlreadyExists` if there is a store or a log; [`Error::Locked`]. Then there is no store.
pub fn restore(from: &Path, to: &RestoreTo, progress: &mut dyn FnMut(Step)) -> Result<Installed> {
    let BackupHead { mut log, stream_at, .. } = read_head(&*to.options.vfs, from)?;
    if let (Some(part), Some((kind, data))) = (&mut log, to.log.as_ref().and_then(|log| log.then.clone())) {
        part.append(kind, data);
    }
    let restored = into_store(to, log.as_ref(), progress, |receiver, progress| {
        feed(from, stream_at, receiver, progress)
    });
    restored.map_err(|error| match error {
        Error::Transfer(broken) => {
            let what = format!("{} behind frame {}", broken.what, broken.frames);
            let damage = Corruption::new(from, what);
            damage
                .mismatch(format_args!("{:#x}", broken.expected), format_args!("{:#x}", broken.found))
                .into()
        }
        other => other,
    })
}

fn feed(from: &Path, stream_at: u64, receiver: &mut Receiver, progress: &mut dyn FnMut(Step)) -> Result<()> {
    let vfs = receiver.vfs();
    let file = vfs.open(from, OpenHow::Read).map_err(|e| Error::io("open", from, None, e))?;
    let size = file.size().map_err(|e| Error::io("measure", from, None, e))?;
    let mut buf = vec![0; READ_BYTES];
    let mut at = stream_at;
    while at < size {
        let some = &mut buf[..usize::try_from(size - at).unwrap_or(usize::MAX).min(READ_BYTES)];
        file.read_at(some, at).map_err(|e| Error::io("read", from, Some(at), e))?;
        receiver.push(some)?;
        at += some.len() as u64;
        progress(step_of(receiver));
    }
    Ok(())
}

/// Makes a store of `snapshot` in another directory, without a file between them.
///
/// # Errors
/// As [`backup`] and [`restore`].
pub fn clone_store(snapshot: &Snapshot, to: &RestoreTo, progress: &mut dyn FnMut(Step)) -> Result<Installed> {
    into_store(to, None, progress, |receiver, progress| {
        let mut stream = snapshot.stream();
        while let Some(piece) = stream.next()? {
            receiver.push(piece)?;
            progress(step_of(receiver));
        }
        Ok(())
    })
}

fn step_of(receiver: &Receiver) -> Step {
    let of_pages = receiver.header().map_or(0, |header| header.pages);
    Step { phase: Phase::Copy, pages: receiver.position().pages, of_pages }
}

fn into_store(
    to: &RestoreTo,
    log: Option<&LogPart>,
    progress: &mut dyn FnMut(Step),
    transfer: impl FnOnce(&mut Receiver, &mut dyn FnMut(Step)) -> Result<()>,
) -> Result<Installed> {
    let vfs = &to.options.vfs;
    vfs.create_dir(&to.dir).map_err(|e| Error::io("create", &to.dir, None, e))?;
    let _lock = recover::lock(&to.dir, &to.options)?;
    let path = to.dir.join(FILE_NAME);
    let taken = |path: &Path| Error::io("create", path, None, std::io::ErrorKind::AlreadyExists.into());
    if recover::exists(&path, &to.options)? {
        return Err(taken(&path));
    }
    if let Some(log) = &to.log
        && Wal::exists(&**vfs, &log.dir)?
    {
        return Err(taken(&log.dir));
    }
    let mut receiver = Receiver::new(&to.dir.join(TEMP_NAME), to.options.clone())?;
    let installed =
        transfer(&mut receiver, progress).and_then(|()| install(&mut receiver, to, log, &path, progress));
    if installed.is_err() {
        // The error says more than a failure to tidy up behind it.
        receiver.abandon().ok();
    }
    installed
}

fn install(
    receiver: &mut Receiver,
    to: &RestoreTo,
    part: Option<&LogPart>,
    path: &Path,
    progress: &mut dyn FnMut(Step),
) -> Result<Installed> {
    let of_pages = step_of(receiver).of_pages;
    let mut seen = |pages| progress(Step { phase: Phase::Check, pages, of_pages });
    let received = receiver.verify(to.schema, &mut seen)?;
    if let Some(log) = &to.log {
        let meta = received.meta();
        let nothing = LogPart {
            member_id: log.options.member_id,
            base: Base { index: meta.applied_index, term: meta.applied_term, install: to.install },
            hard_state: HardState::default(),
            entries: Vec::new(),
        };
        part.unwrap_or(&nothing).make_log(&log.dir, log.options.clone(), to.install)?;
    }
    received.install(path, to.install)
}

fn temp_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".tmp");
    PathBuf::from(name)
}

/// Makes the name `path` durable.
pub(super) fn sync_parent(vfs: &dyn Vfs, path: &Path) -> Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    vfs.sync_dir(dir).map_err(|e| Error::io("sync", dir, None, e))
}
