// SPDX-License-Identifier: Apache-2.0
//! From the bytes of the segments to the log that they hold, or the reason to refuse.
//!
//! Owns      the rule that tells a torn tail from lost data, and all checks at open.
//! Holds     1. a block that cannot be read is only ever taken for the end if nothing proves that what was
//!              there had been durable: a later batch that says so, the next segment, the tree file's applied
//!              index, or the commit index;
//!           2. the run of segments that ends at the newest one counts; older ones are leftovers of a release;
//!           3. of a segment whose entries the tree file all has, no more is read than how it begins, so the work
//!              follows what is to be replayed and not what is kept;
//!           4. the work is bounded by the bytes given, whatever they are.
//! Never     changes anything: the caller cuts, deletes and begins the new segment.

use std::path::{Path, PathBuf};

use super::batch::{self, BATCH_HEADER_BYTES, Base, BatchHeader, Carry, Found, Records};
use super::index::{BatchMap, BatchPlace, BatchRange, LogIndex, OutOfOrder};
use super::segment::{BLOCK, BLOCK_BYTES, SegmentHeader, seq_of};
use crate::error::{Corruption, Error, FormatMismatch, Result};
use crate::marks::reach;
use crate::mutants::planted;
use crate::schema::InstallId;

/// What the tree file proves about the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The newest index whose effect is in the tree file.
    pub applied_index: u64,
    /// Its term.
    pub applied_term: u64,
    /// The install id of the tree file.
    pub install: InstallId,
}

/// How the log ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Nothing follows the last batch.
    Clean,
    /// What follows is no batch, and nothing proves that one there was ever durable: a batch that was begun
    /// before an ordinary crash, or, in a recycled segment, the middle of a batch of its former life, whose
    /// head is overwritten.
    Torn {
        /// The segment it is in.
        file: PathBuf,
        /// Where.
        offset: u64,
    },
}

/// One segment of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RunSegment {
    /// Its place in the list of files given to `recover`.
    pub(super) file: usize,
    pub(super) seq: u64,
    pub(super) salt: u64,
    /// The largest index of any entry in it, voided ones too; 0 = none.
    pub(super) max_index: u64,
    /// Where its last batch ends; 0 if it was passed over.
    pub(super) end: u64,
}

/// How much of a segment's file is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Want {
    /// The two blocks that a segment begins with, or what there is of them: header, and first batch.
    Head,
    /// All of it, as the medium has it.
    Whole,
}

/// Segments that only those need who are a little behind are read for them up to this size, all together.
const KEPT_BYTES_MAX: u64 = 64 << 20;

/// What the segments hold.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) index: LogIndex,
    pub(super) batches: BatchMap,
    pub(super) run: Vec<RunSegment>,
    /// Files, by place in the list, that are not part of the log any more.
    pub(super) leftovers: Vec<usize>,
    pub(super) tail: Tail,
    /// Number and checksum of the last batch.
    pub(super) last_no: u64,
    pub(super) chain: u32,
    /// The base to write if the tree file is of another install: the entries are void, and already gone
    /// from `index`; `carry` is the state before that.
    pub(super) new_base: Option<Base>,
    pub(super) carry: Carry,
}

/// Reads the log from `files`, of which those with other names than segments must be left out. `load` puts the
/// bytes of one into a buffer; it is asked once for how each segment of the run begins, and once for all of those that
/// have an entry beyond `entries_kept` below the applied index. Without `evidence` all are read, and the log is held
/// against itself alone.
pub(super) fn recover(
    files: &[PathBuf],
    member_id: u64,
    evidence: Option<&Evidence>,
    entries_kept: u64,
    mut load: impl FnMut(usize, Want, &mut Vec<u8>) -> Result<()>,
) -> Result<Recovered> {
    let (run, leftovers) = newest_run(files);
    if !leftovers.is_empty() {
        reach("log-leftovers");
    }
    let mut reader = Reader::new(files, member_id, leftovers);
    let mut bytes = Vec::new();
    let mut heads = Vec::with_capacity(run.len());
    for file in run {
        load(file, Want::Head, &mut bytes)?;
        heads.push(reader.head(file, &bytes)?);
    }
    let from = evidence.map_or(0, |evidence| oldest_wanted(&heads, evidence.applied_index, entries_kept));
    for (at, head) in heads.iter().enumerate() {
        match heads.get(at + 1) {
            Some(next) if at < from => reader.pass(head, next),
            next => {
                load(head.file, Want::Whole, &mut bytes)?;
                reader.segment(head.file, &bytes, next.map(|next| next.seal))?;
            }
        }
    }
    reader.finish(evidence)
}

/// The segment from which on all are read. An entry above the index that was the last when a segment began is in that
/// segment or in a later one.
fn oldest_wanted(heads: &[Head], applied: u64, entries_kept: u64) -> usize {
    let begun_by = |index: u64| heads.iter().rposition(|head| head.carry.last_index <= index);
    let mut from = begun_by(applied).unwrap_or(0);
    let mut room = KEPT_BYTES_MAX;
    let kept_from = applied.saturating_sub(entries_kept);
    while from > 0 && heads[from].carry.last_index > kept_from {
        let Some(left) = room.checked_sub(heads[from - 1].header.file_bytes) else { break };
        (from, room) = (from - 1, left);
    }
    if planted("wal-read-from-one-segment-late") { (from + 1).min(heads.len() - 1) } else { from }
}

/// The files of the contiguous run of seqs that ends at the newest, ascending, and all others.
pub(super) fn newest_run(files: &[PathBuf]) -> (Vec<usize>, Vec<usize>) {
    let mut by_seq: Vec<(u64, usize)> =
        files.iter().enumerate().filter_map(|(at, path)| Some((seq_of(path)?, at))).collect();
    by_seq.sort_unstable();
    let mut start = by_seq.len().saturating_sub(1);
    while start > 0 && by_seq[start - 1].0.checked_add(1) == Some(by_seq[start].0) {
        start -= 1;
    }
    let place = |(_, at): &(u64, usize)| *at;
    (by_seq[start..].iter().map(place).collect(), by_seq[..start].iter().map(place).collect())
}

/// The first batch of a segment, which is durable before the segment has its name: it fixes where the
/// segment before it ends.
#[derive(Clone, Copy)]
struct Seal {
    batch_no: u64,
    chain: u32,
}

/// How a segment begins.
struct Head {
    /// Its place in the list of files.
    file: usize,
    header: SegmentHeader,
    seal: Seal,
    carry: Carry,
}

struct Reader<'a> {
    files: &'a [PathBuf],
    member_id: u64,
    index: Option<LogIndex>,
    batches: BatchMap,
    run: Vec<RunSegment>,
    leftovers: Vec<usize>,
    tail: Tail,
    last_no: u64,
    chain: u32,
}

impl<'a> Reader<'a> {
    fn new(files: &'a [PathBuf], member_id: u64, leftovers: Vec<usize>) -> Reader<'a> {
        Reader {
            files,
            member_id,
            index: None,
            batches: BatchMap::default(),
            run: Vec::new(),
            leftovers,
            tail: Tail::Clean,
            last_no: 0,
            chain: 0,
        }
    }

    fn header(&self, file: usize, bytes: &[u8]) -> Result<SegmentHeader> {
        let path = &self.files[file];
        let header = SegmentHeader::decode(path, bytes)?;
        if Some(header.seq) != seq_of(path) {
            let renamed = Corruption::new(path, "the segment's number differs from its name").at(0);
            return Err(renamed.mismatch(seq_of(path).unwrap_or(0), header.seq).into());
        }
        if header.member_id != self.member_id {
            return Err(Error::from(FormatMismatch {
                file: path.clone(),
                what: "the member that wrote this log".into(),
                found: format!("{:x}", header.member_id),
                supported: format!("the log of member {:x}", self.member_id),
            }));
        }
        Ok(header)
    }

    fn head(&self, file: usize, bytes: &[u8]) -> Result<Head> {
        let header = self.header(file, bytes)?;
        let damaged = |what: &str| Error::from(Corruption::new(&self.files[file], what).at(BLOCK));
        let first = bytes.get(BLOCK_BYTES..).unwrap_or_default();
        let (first, payload) =
            batch::decode(first, header.salt, BLOCK).map_err(|_| damaged("the first batch of a segment"))?;
        match Records::new(&first, payload).next() {
            Some(Ok(Found::Carry(carry))) => {
                let seal = Seal { batch_no: first.batch_no, chain: first.chain };
                Ok(Head { file, header, seal, carry })
            }
            _ => Err(damaged("a segment does not begin with the state carried over")),
        }
    }

    /// Passes over a segment whose entries are of no use any more. It is kept for the checkpoint before the newest.
    fn pass(&mut self, head: &Head, next: &Head) {
        reach("log-passed-over");
        let Head { file, header: SegmentHeader { seq, salt, .. }, .. } = *head;
        // What it has above that was void before the next segment began.
        let max_index = next.carry.last_index;
        self.run.push(RunSegment { file, seq, salt, max_index, end: 0 });
    }

    /// Reads one segment of the run, up to the seal that the next one is, or to its end if it is the newest.
    fn segment(&mut self, file: usize, bytes: &[u8], seal: Option<Seal>) -> Result<()> {
        let header = self.header(file, bytes)?;
        if seal.is_none() && (bytes.len() as u64) < header.file_bytes {
            let short = "the newest segment was cut, or the one after it is missing: its length";
            let short = Corruption::new(&self.files[file], short).at(bytes.len() as u64);
            return Err(short.mismatch(header.file_bytes, bytes.len()).into());
        }
        let Head { seal: first, .. } = self.head(file, bytes)?;
        if self.index.is_none() {
            // Nothing is known of the batches before the oldest segment that is read: its first one is the beginning.
            self.last_no = first.batch_no.wrapping_sub(1);
            self.chain = first.chain;
        }
        self.run.push(RunSegment { file, seq: header.seq, salt: header.salt, max_index: 0, end: BLOCK });
        let mut offset = BLOCK;
        while seal.is_none_or(|seal| self.last_no.wrapping_add(1) != seal.batch_no) {
            let rest = bytes.get(offset as usize..).unwrap_or_default();
            match batch::decode(rest, header.salt, offset) {
                Ok((batch, payload))
                    if batch.batch_no == self.last_no.wrapping_add(1) && batch.chain == self.chain =>
                {
                    self.batch(file, offset, &batch, payload)?;
                    offset += ((BATCH_HEADER_BYTES + payload.len()) as u64).next_multiple_of(BLOCK);
                }
                _ if seal.is_some() => return Err(self.lost(file, offset, "the segment after it").into()),
                _ => {
                    self.tail = self.tail_at(file, bytes, offset, &header)?;
                    break;
                }
            }
        }
        if let Some(seal) = seal.filter(|seal| seal.chain != self.chain) {
            let chain = Corruption::new(
                &self.files[file],
                "the last batch is not the one that the next segment follows",
            );
            let chain = chain
                .at(offset)
                .mismatch(format_args!("{:#010x}", seal.chain), format_args!("{:#010x}", self.chain));
            return Err(chain.into());
        }
        self.run.last_mut().expect("pushed above").end = offset;
        Ok(())
    }

    /// What the unreadable block at `offset` of the newest segment means.
    fn tail_at(&self, file: usize, bytes: &[u8], offset: u64, header: &SegmentHeader) -> Result<Tail> {
        let lost_no = self.last_no.wrapping_add(1);
        let rest = bytes.get(offset as usize..).unwrap_or_default();
        let mut later = false;
        for (n, block) in rest.chunks(BLOCK_BYTES).enumerate() {
            let at = offset + n as u64 * BLOCK;
            if let Some(found) = batch::decode_header(block, header.salt, at) {
                later |= n > 0;
                if found.durable_no >= lost_no && !planted("wal-loss-taken-for-a-torn-tail") {
                    return Err(self.lost(file, offset, "a batch after it").into());
                }
            }
        }
        let block = &rest[..rest.len().min(BLOCK_BYTES)];
        let never_begun = block.iter().all(|b| *b == 0)
            || batch::decode_header(block, header.former_salt, offset)
                .is_some_and(|_| header.former_salt != 0);
        if never_begun && !later {
            reach("log-clean");
            return Ok(Tail::Clean);
        }
        reach("log-torn");
        Ok(Tail::Torn { file: self.files[file].clone(), offset })
    }

    fn lost(&self, file: usize, offset: u64, witness: &str) -> Corruption {
        let no = self.last_no.wrapping_add(1);
        Corruption::new(
            &self.files[file],
            format!("batch {no} was durable, as {witness} proves, and cannot be read"),
        )
        .at(offset)
    }

    fn batch(&mut self, file: usize, offset: u64, header: &BatchHeader, payload: &[u8]) -> Result<()> {
        let path: &Path = &self.files[file];
        let damaged = |what: String| Error::from(Corruption::new(path, what).at(offset));
        let segment = self.run.last_mut().expect("a batch is in a segment");
        let mut range = BatchRange::default();
        let mut records = Records::new(header, payload);
        if offset == BLOCK {
            match records.next() {
                Some(Ok(Found::Carry(carry))) => match &self.index {
                    None => self.index = Some(LogIndex::from_carry(&carry)),
                    Some(index) if index.carry() == carry => {}
                    Some(_) => {
                        return Err(damaged("the state carried over differs from the log before it".into()));
                    }
                },
                _ => return Err(damaged("a segment does not begin with the state carried over".into())),
            }
        }
        let index = self.index.as_mut().expect("the first batch of the run sets it");
        #[cfg(feature = "mutants")]
        let before = (index.clone(), self.batches.clone());
        for record in records {
            match record.map_err(|what| damaged(format!("{what}, in batch {}", header.batch_no)))? {
                Found::Entry { index: i, term, .. } => {
                    if i <= index.last() {
                        reach("log-replaced");
                    }
                    index.push(i, term).map_err(|e| damaged(out_of_order(i, term, e)))?;
                    segment.max_index = segment.max_index.max(i);
                    range.entry(i);
                }
                Found::HardState(state) => index.hard_state = state,
                Found::Base(base) => {
                    index.reset(base);
                    self.batches.void_from(1);
                    range.base();
                }
                Found::Carry(_) => return Err(damaged("a carried state inside a segment".into())),
            }
        }
        if let Some((first, last)) = range.0 {
            let bytes = BATCH_HEADER_BYTES + payload.len();
            self.batches.push(BatchPlace { seq: segment.seq, offset, bytes, first, last });
        }
        #[cfg(feature = "mutants")]
        if planted("wal-voided-entries-revived") && range.0.is_some_and(|(_, last)| last < before.0.last()) {
            index.revive(&before.0);
            self.batches.revive(&before.1);
        }
        self.last_no = header.batch_no;
        self.chain = header.crc;
        Ok(())
    }

    /// Holds the log against what the tree file proves.
    fn finish(self, evidence: Option<&Evidence>) -> Result<Recovered> {
        let (Some(mut index), Some(first), Some(last)) = (self.index, self.run.first(), self.run.last())
        else {
            let dir = self.files.first().and_then(|file| file.parent()).unwrap_or(Path::new("."));
            return Err(Corruption::new(dir, "there is no log segment").into());
        };
        let at_end = |what: String| Error::from(Corruption::new(&self.files[last.file], what).at(last.end));
        let carry = index.carry();
        let mut new_base = None;
        if let Some(evidence) = evidence
            .filter(|evidence| evidence.install != index.base.install && !planted("wal-install-not-noticed"))
        {
            let (applied, term) = (evidence.applied_index, evidence.applied_term);
            let base = Base { index: applied, term, install: evidence.install };
            reach("log-rebased");
            index.reset(base);
            new_base = Some(base);
        }
        if let Some(applied) = evidence.map(|e| e.applied_index).filter(|applied| *applied > index.last()) {
            let last = index.last();
            return Err(at_end(format!(
                "the log ends at index {last}, and the tree file holds index {applied}"
            )));
        }
        if index.hard_state.commit > index.last() {
            let (commit, last) = (index.hard_state.commit, index.last());
            return Err(at_end(format!("the log ends at index {last}, and index {commit} was committed")));
        }
        if let Some(Evidence { applied_index: applied, applied_term: theirs, .. }) = evidence {
            if let Some(term) = index.term(*applied).filter(|term| term != theirs) {
                return Err(at_end(format!(
                    "index {applied} has term {term} in the log and term {theirs} in the tree file"
                )));
            }
            if index.first() > applied.saturating_add(1) {
                let gap = format!(
                    "the log begins at index {}, and the tree file ends at {applied}: a segment before this one is missing",
                    index.first()
                );
                return Err(Corruption::new(&self.files[first.file], gap).at(0).into());
            }
        }
        let batches = if new_base.is_some() { BatchMap::default() } else { self.batches };
        Ok(Recovered {
            index,
            batches,
            run: self.run,
            leftovers: self.leftovers,
            tail: self.tail,
            last_no: self.last_no,
            chain: self.chain,
            new_base,
            carry,
        })
    }
}

fn out_of_order(index: u64, term: u64, why: OutOfOrder) -> String {
    match why {
        OutOfOrder::Gap { last } => format!("an entry of index {index} follows index {last}"),
        OutOfOrder::TermBack { before } => {
            format!("the entry of index {index} has term {term}, and the one before it term {before}")
        }
    }
}
