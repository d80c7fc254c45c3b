// SPDX-License-Identifier: Apache-2.0
//! Reading a log that is not one's own to change: also one that is written meanwhile.
//!
//! Owns      the check of a log beside its writer, and the walk over its batches.
//! Holds     1. no file is opened for writing, made, synced, cut or removed;
//!           2. what is found wrong is damage only if the next reading, begun after that one's end, finds exactly the
//!              same: what a batch proves to have been durable was whole in the cache before that batch was, so a
//!              reading that begins later sees it;
//!           3. a walk hands out what is whole, batch by batch, and ends where the chain does.
//! Never     says what an entry's data means.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::Wal;
use super::batch::{self, BATCH_HEADER_BYTES, Base, Carry, Entry, Found, HardState, Records};
use super::recover::{self, Evidence, Tail, Want, newest_run};
use super::segment::{BLOCK, HEAD_BYTES, SegmentHeader, is_spare, seq_of};
use crate::error::{Corruption, Error, Result};
use crate::io::{OpenHow, VFile, Vfs};

/// How often a log is read anew before a reading is given up.
const LOOKS_MAX: u32 = 20;

/// A log as it was found.
#[derive(Clone, Debug)]
pub struct LogLook {
    /// Whose log it is.
    pub member_id: u64,
    /// Oldest first.
    pub segments: Vec<SegmentLook>,
    /// Files, with their sizes, that are no part of the log: spares, and what a release left behind.
    pub others: Vec<(PathBuf, u64)>,
    pub base: Base,
    pub hard_state: HardState,
    /// The first index that has an entry; `last_index + 1` if there is none.
    pub first_index: u64,
    pub last_index: u64,
    /// Number of the last batch.
    pub last_batch: u64,
    /// The tree file is of another install: none of the entries counts.
    pub void: bool,
    pub tail: Tail,
}

/// One segment of a log.
#[derive(Clone, Debug)]
pub struct SegmentLook {
    pub path: PathBuf,
    pub seq: u64,
    /// Length of the file.
    pub file_bytes: u64,
    /// Where its last batch ends.
    pub end: u64,
    /// The largest index of any entry in it, voided ones too; 0 = none.
    pub max_index: u64,
    file: Arc<dyn VFile>,
}

/// One batch of a log.
#[derive(Clone, Debug)]
pub struct BatchLook {
    pub batch_no: u64,
    /// The newest batch that was known durable when this one was built.
    pub durable_no: u64,
    pub offset: u64,
    /// Header and records, without the padding.
    pub bytes: u64,
    /// None in a seal.
    pub records: Vec<LogRecord>,
}

/// One record of a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogRecord {
    Entry(Entry),
    HardState(HardState),
    Base(Base),
    /// What a segment repeats of those before it.
    Carry(Carry),
}

struct Reading<'v> {
    vfs: &'v dyn Vfs,
    names: Vec<PathBuf>,
    handles: Vec<Option<(Arc<dyn VFile>, u64)>>,
    others: Vec<(PathBuf, u64)>,
}

impl LogLook {
    /// Reads the log in `dir` and holds it against what `evidence` gives, which is asked anew for each reading.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where something that was durable cannot be read, [`Error::Format`] for a newer build's
    /// log; what `evidence` answers; [`Error::Overtaken`] if no two readings in a row agree.
    pub fn open(
        vfs: &dyn Vfs,
        dir: &Path,
        mut evidence: impl FnMut() -> Result<Option<Evidence>>,
    ) -> Result<LogLook> {
        let mut before: Option<String> = None;
        for _ in 0..LOOKS_MAX {
            let error = match evidence().and_then(|evidence| Reading::start(vfs, dir)?.finish(dir, evidence))
            {
                Ok(look) => return Ok(look),
                Err(error) if may_pass(&error) => error,
                Err(error) => return Err(error),
            };
            let text = error.to_string();
            if before.as_ref() == Some(&text) {
                return Err(error);
            }
            before = Some(text);
        }
        Err(Error::Overtaken { file: dir.to_path_buf() })
    }

    /// Every batch, oldest first, as far as the log was read.
    ///
    /// # Errors
    /// What `each` answers; [`Error::Overtaken`] if a segment was recycled meanwhile.
    pub fn batches<E: From<Error>>(
        &self,
        mut each: impl FnMut(&SegmentLook, &BatchLook) -> Result<(), E>,
    ) -> Result<(), E> {
        for segment in &self.segments {
            let bytes = read(&segment.path, &*segment.file, segment.end)?;
            let overtaken = || Error::Overtaken { file: segment.path.clone() };
            let header = SegmentHeader::decode(&segment.path, &bytes).map_err(|_| overtaken())?;
            if header.seq != segment.seq {
                return Err(overtaken().into());
            }
            let mut offset = BLOCK;
            while offset < segment.end {
                let (batch, next) =
                    batch_at(&segment.path, &bytes, header.salt, offset)?.ok_or_else(overtaken)?;
                each(segment, &batch)?;
                offset = next;
            }
        }
        Ok(())
    }

    /// What is whole of a log, damaged or not: every batch, with the number of its segment, from the oldest segment up
    /// to the first batch that cannot be read. Answers where that is, if another segment shows that the log went on.
    ///
    /// # Errors
    /// What `each` answers; files that cannot be read at all.
    pub fn whole_batches<E: From<Error>>(
        vfs: &dyn Vfs,
        dir: &Path,
        mut each: impl FnMut(u64, &BatchLook) -> Result<(), E>,
    ) -> Result<Option<Corruption>, E> {
        let mut reading = Reading::start(vfs, dir)?;
        let (run, _) = newest_run(&reading.names);
        let mut chain = None;
        let mut end: Option<Corruption> = None;
        for file in run {
            let bytes = reading.load(file, Want::Whole)?;
            let path = &reading.names[file];
            let (seq, salt) = match SegmentHeader::decode(path, &bytes) {
                Ok(header) => (header.seq, header.salt),
                Err(Error::Corrupt(damage)) => return Ok(Some(end.unwrap_or(*damage))),
                Err(other) => return Err(other.into()),
            };
            let mut offset = BLOCK;
            loop {
                let rest = bytes.get(offset as usize..).unwrap_or_default();
                let header = batch::decode_header(rest, salt, offset).filter(|found| {
                    chain.is_none_or(|chain| chain == (found.batch_no.wrapping_sub(1), found.chain))
                });
                let Some(header) = header else { break };
                let (batch, next) = match batch_at(path, &bytes, salt, offset) {
                    Ok(Some(found)) => found,
                    Ok(None) => break,
                    Err(Error::Corrupt(damage)) => return Ok(Some(*damage)),
                    Err(other) => return Err(other.into()),
                };
                each(seq, &batch)?;
                chain = Some((header.batch_no, header.crc));
                offset = next;
            }
            let broken = Corruption::new(path, "a batch that the next segment follows").at(offset);
            if offset == BLOCK {
                return Ok(Some(end.unwrap_or(broken)));
            }
            end = Some(broken);
        }
        Ok(None)
    }
}

impl<'v> Reading<'v> {
    fn start(vfs: &'v dyn Vfs, dir: &Path) -> Result<Reading<'v>> {
        let listed = vfs.list(dir).map_err(|e| Error::io("list", dir, None, e))?;
        let (names, strangers): (Vec<_>, Vec<_>) =
            listed.into_iter().partition(|path| seq_of(path).is_some());
        if names.is_empty() {
            return Err(Corruption::new(dir, "there is no log segment").into());
        }
        let mut reading = Reading { vfs, handles: vec![None; names.len()], names, others: Vec::new() };
        for spare in strangers.into_iter().filter(|path| is_spare(path)) {
            let (_, bytes) = reading.open(&spare)?;
            reading.others.push((spare, bytes));
        }
        Ok(reading)
    }

    fn open(&self, path: &Path) -> Result<(Arc<dyn VFile>, u64)> {
        let file = self.vfs.open(path, OpenHow::Read).map_err(|e| Error::io("open", path, None, e))?;
        let bytes = file.size().map_err(|e| Error::io("measure", path, None, e))?;
        Ok((file, bytes))
    }

    fn load(&mut self, at: usize, want: Want) -> Result<Vec<u8>> {
        let (file, size) = self.open(&self.names[at])?;
        let wanted = if want == Want::Head { size.min(HEAD_BYTES) } else { size };
        let bytes = read(&self.names[at], &*file, wanted)?;
        self.handles[at] = Some((file, size));
        Ok(bytes)
    }

    fn finish(mut self, dir: &Path, evidence: Option<Evidence>) -> Result<LogLook> {
        let owner = Wal::owner(self.vfs, dir)?;
        let member_id = owner.ok_or_else(|| Corruption::new(dir, "there is no log segment"))?;
        let names = self.names.clone();
        // All of it is looked at, whatever the tree file has.
        let found = recover::recover(&names, member_id, evidence.as_ref(), u64::MAX, |at, want, bytes| {
            *bytes = self.load(at, want)?;
            Ok(())
        })?;
        for leftover in &found.leftovers {
            let (_, bytes) = self.open(&names[*leftover])?;
            self.others.push((names[*leftover].clone(), bytes));
        }
        let segments = found.run.iter().map(|run| {
            let (file, file_bytes) =
                self.handles[run.file].clone().expect("each segment of the run was loaded");
            let (path, seq, end) = (names[run.file].clone(), run.seq, run.end);
            SegmentLook { path, seq, file_bytes, end, max_index: run.max_index, file }
        });
        Ok(LogLook {
            member_id,
            segments: segments.collect(),
            others: self.others,
            base: found.index.base,
            hard_state: found.index.hard_state,
            first_index: found.index.first(),
            last_index: found.index.last(),
            last_batch: found.last_no,
            void: found.new_base.is_some(),
            tail: found.tail,
        })
    }
}

/// Whether an error may come of reading beside a writer.
fn may_pass(error: &Error) -> bool {
    use std::io::ErrorKind::{NotFound, UnexpectedEof};
    match error {
        Error::Corrupt(_) => true,
        Error::Io(failure) => matches!(failure.source.kind(), NotFound | UnexpectedEof),
        _ => false,
    }
}

fn read(path: &Path, file: &dyn VFile, bytes: u64) -> Result<Vec<u8>> {
    let mut out = vec![0; usize::try_from(bytes).expect("a segment fits the address space")];
    file.read_at(&mut out, 0).map_err(|e| Error::io("read", path, Some(0), e))?;
    Ok(out)
}

/// The batch at `offset` and where the next one begins; `None` if there is none.
pub(super) fn batch_at(
    path: &Path,
    bytes: &[u8],
    salt: u64,
    offset: u64,
) -> Result<Option<(BatchLook, u64)>> {
    let rest = bytes.get(offset as usize..).unwrap_or_default();
    let Ok((header, payload)) = batch::decode(rest, salt, offset) else { return Ok(None) };
    let records = Records::new(&header, payload).map(|record| {
        let damaged =
            |what| Corruption::new(path, format!("{what}, in batch {}", header.batch_no)).at(offset);
        Ok(match record.map_err(damaged)? {
            Found::Entry { index, term, kind, data } => {
                LogRecord::Entry(Entry { index, term, kind, data: Bytes::copy_from_slice(data) })
            }
            Found::HardState(state) => LogRecord::HardState(state),
            Found::Base(base) => LogRecord::Base(base),
            Found::Carry(carry) => LogRecord::Carry(carry),
        })
    });
    let bytes = (BATCH_HEADER_BYTES + payload.len()) as u64;
    let batch = BatchLook {
        batch_no: header.batch_no,
        durable_no: header.durable_no,
        offset,
        bytes,
        records: records.collect::<Result<_>>()?,
    };
    Ok(Some((batch, offset + bytes.next_multiple_of(BLOCK))))
}
