// SPDX-License-Identifier: Apache-2.0
//! Appending, and the group commit.
//!
//! Owns      the end of the newest segment: where the next batch goes, its number and its chain.
//! Holds     1. one sync is one write and one `fdatasync`, but when a segment is full;
//!           2. a segment is durable before the next one has its name;
//!           3. a full disk is found before anything is written, and leaves what is queued in the queue.
//! Never     waits for more to be appended.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::{Arc, PoisonError};

use super::batch::{self, Base, Carry, Record};
use super::files::{LogFiles, Segment, Spare};
use super::index::{BatchPlace, BatchRange};
use super::segment::{BLOCK, BLOCK_BYTES, SegmentHeader, segment_name};
use super::{BatchNo, DurablePoint, LiveSegment, RecordBatch, Shared, Wal, WalOptions};
use crate::error::{Error, Result};
use crate::failpoints::reach;
use crate::mutants::planted;

/// Most that one append can carry: a bound of the format, far above any request limit.
const APPEND_BYTES_MAX: usize = 1 << 30;

/// Buffers kept for the next batches, and the size above which one is given back instead.
const BUFFERS_MAX: usize = 4;
const BUFFER_BYTES_MAX: usize = 1 << 20;

/// Header, carried state, one seal: what a segment needs besides its batches.
const OVERHEAD_BYTES: u64 = 3 * BLOCK;

/// A batch that is not written yet.
#[derive(Debug)]
pub(super) struct Pending {
    /// The newest append in it.
    no: BatchNo,
    /// Room for the header, then the records.
    buffer: Vec<u8>,
    records: u32,
    range: BatchRange,
    /// The smallest and the largest index of any entry in it; `(u64::MAX, 0)` if it has none.
    span: (u64, u64),
    /// True if it has a base, which voids all entries before it.
    resets: bool,
    /// The log's state after it.
    end: Carry,
}

/// The end of the log on disk.
#[derive(Debug)]
pub(super) struct Writer {
    segment: Arc<Segment>,
    /// Bytes that the segment has for batches, and for a seal.
    capacity: u64,
    /// Where the next batch goes.
    offset: u64,
    last_no: u64,
    chain: u32,
    /// The newest batch known durable.
    durable_no: u64,
    /// The newest append that is written, and the log's state after it.
    written: BatchNo,
    end: Carry,
    /// True while records are written, or a segment is named, that may or may not survive.
    dirty: bool,
    /// True while anything is written that is not synced, a seal included.
    unsynced: bool,
    /// True once a later batch says that the newest one with records was durable.
    sealed: bool,
    batches: u64,
    written_bytes: u64,
    syncs: u64,
}

/// Where a log goes on.
pub(super) struct Start {
    pub(super) seq: u64,
    pub(super) carry: Carry,
    /// A base that follows the carried state at once.
    pub(super) new_base: Option<Base>,
    pub(super) last_no: u64,
    pub(super) chain: u32,
}

impl Wal {
    /// Queues `records`, in order. They can be read at once, and are durable after a sync that follows.
    /// Returns the number to compare with [`DurablePoint::batch_no`].
    ///
    /// # Errors
    /// [`Error::TooLarge`] for records beyond the format; [`Error::Poisoned`] after a failed write.
    /// Nothing is queued then.
    ///
    /// # Panics
    /// If an entry leaves a gap, or replaces one that is not in the log any more.
    pub fn append(&self, records: RecordBatch) -> Result<BatchNo> {
        let added: usize = records.iter().map(batch::record_bytes).sum();
        if added > APPEND_BYTES_MAX {
            let (bytes, bytes_max) = (added as u64, APPEND_BYTES_MAX as u64);
            return Err(Error::TooLarge { what: "append to the log", bytes, bytes_max });
        }
        let mut shared = self.shared();
        shared.healthy()?;
        let shared = &mut *shared;
        shared.appended.0 += 1;
        let room = self.options.batch_bytes_max.saturating_sub(added);
        if shared.queue.back().is_none_or(|pending| pending.buffer.len() > room) {
            let mut buffer = shared.buffers.pop().unwrap_or_default();
            batch::begin(&mut buffer);
            shared.queue.push_back(Pending {
                no: shared.appended,
                buffer,
                records: 0,
                range: BatchRange::default(),
                span: (u64::MAX, 0),
                resets: false,
                end: shared.index.carry(),
            });
        }
        let pending = shared.queue.back_mut().expect("pushed above");
        pending.no = shared.appended;
        pending.buffer.reserve(added);
        for record in records {
            batch::push_record(&mut pending.buffer, &record);
            pending.records += 1;
            match record {
                Record::Entry(entry) => {
                    let (index, term) = (entry.index, entry.term);
                    let (first, last) = (shared.index.first(), shared.index.last());
                    assert!(
                        (first..=last + 1).contains(&index),
                        "entry {index} in a log from {first} to {last}"
                    );
                    shared.index.push(index, term).unwrap_or_else(|e| panic!("entry {index}: {e:?}"));
                    pending.range.entry(index);
                    pending.span = (pending.span.0.min(index), pending.span.1.max(index));
                    shared.cache.push(entry);
                }
                Record::HardState(state) => shared.index.hard_state = state,
                Record::Base(base) => {
                    shared.index.reset(base);
                    shared.cache.clear();
                    shared.base_no = shared.appended;
                    pending.range.base();
                    pending.resets = true;
                }
            }
        }
        pending.end = shared.index.carry();
        Ok(shared.appended)
    }

    /// Makes everything appended so far durable: one write and one sync, shared by all of it.
    ///
    /// # Errors
    /// [`Error::NoSpace`] if a new segment has no room: nothing is lost, what was appended stays queued, and a
    /// later call can succeed. Any other error is final, and every later call answers [`Error::Poisoned`], which
    /// is also the first answer where a write into a segment found no room.
    pub fn sync(&self) -> Result<DurablePoint> {
        self.write(true)
    }

    /// After a quiet moment: makes the newest batch one of which a later block says that it was durable, so
    /// that damage to it is told from a torn write. Writes one block, or what is queued, and syncs nothing.
    ///
    /// # Errors
    /// As [`Wal::sync`].
    pub fn seal(&self) -> Result<()> {
        self.write(false)?;
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if !writer.sealed && !writer.dirty {
            writer.write_seal().map_err(|e| self.poison_unless_full(e))?;
            writer.count(&mut self.shared());
        }
        Ok(())
    }

    fn write(&self, sync: bool) -> Result<DurablePoint> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut queue = {
            let mut shared = self.shared();
            shared.healthy()?;
            std::mem::take(&mut shared.queue)
        };
        let done = self.write_queue(&mut writer, &mut queue, sync);
        let mut shared = self.shared();
        writer.count(&mut shared);
        if let Err(error) = done {
            // What is left was not written. It goes back in front of what came in the meantime.
            while let Some(pending) = queue.pop_back() {
                shared.queue.push_front(pending);
            }
            if error.is_full() && !writer.dirty {
                return Err(error);
            }
            let poisoned = error.poison(&writer.segment.path);
            if !planted("wal-goes-on-after-a-failed-sync") {
                shared.poisoned.get_or_insert_with(|| poisoned.clone());
            }
            return Err(if error.is_full() { poisoned } else { error });
        }
        if !writer.dirty {
            shared.durable = DurablePoint { batch_no: writer.written, last_index: writer.end.last_index };
        }
        let unwritten = shared.queue.iter().map(|pending| pending.span.0).min().unwrap_or(u64::MAX);
        shared.cache.evict_below(unwritten);
        Ok(shared.durable)
    }

    fn write_queue(&self, writer: &mut Writer, queue: &mut VecDeque<Pending>, sync: bool) -> Result<()> {
        while let Some(next) = queue.front() {
            let fitting = writer.fitting(queue);
            if fitting == 0 {
                let bytes_min = next.bytes() + OVERHEAD_BYTES;
                writer.sync_all()?;
                writer.change_segment(self, bytes_min)?;
                continue;
            }
            let places = writer.write_batches(queue.make_contiguous()[..fitting].iter_mut())?;
            let mut shared = self.shared();
            for (pending, place) in queue.drain(..fitting).zip(places) {
                shared.take_written(pending, place);
            }
        }
        if sync { writer.sync() } else { Ok(()) }
    }
}

impl Pending {
    /// Bytes on disk.
    fn bytes(&self) -> u64 {
        (self.buffer.len() as u64).next_multiple_of(BLOCK)
    }
}

impl Shared {
    /// Remembers where a batch went, and keeps its buffer for the next.
    fn take_written(&mut self, pending: Pending, place: BatchPlace) {
        let live = self.segments.back_mut().expect("a log has a segment");
        live.max_index = live.max_index.max(pending.span.1);
        if pending.resets {
            self.batches.void_from(1);
        }
        if let Some((first, last)) = pending.range.0 {
            self.batches.push(BatchPlace { first, last, ..place });
        }
        if self.buffers.len() < BUFFERS_MAX && pending.buffer.capacity() <= BUFFER_BYTES_MAX {
            self.buffers.push(pending.buffer);
        }
    }
}

impl Writer {
    /// Begins a log, or the first segment of this process after those that it found.
    pub(super) fn begin(
        options: &WalOptions,
        files: &LogFiles,
        start: Start,
        shared: &mut Shared,
    ) -> Result<Writer> {
        let spare = files.take(shared.next_segment_bytes, OVERHEAD_BYTES)?;
        let (live, first) = name_segment(options, files, &start, spare)?;
        let writer = Writer::at(Arc::clone(&live.segment), live.segment.bytes, 2 * BLOCK, &start, first);
        shared.grow_segments(options, live);
        Ok(writer)
    }

    /// The mistake of going on in a recovered segment.
    #[cfg(feature = "mutants")]
    pub(super) fn resume(end: u64, start: Start, shared: &Shared) -> Writer {
        let segment = Arc::clone(&shared.segments.back().expect("a log has a segment").segment);
        let capacity = segment.file.size().expect("the size was read before");
        let last = (start.last_no, start.chain);
        Writer::at(segment, capacity, end, &start, last)
    }

    fn at(segment: Arc<Segment>, capacity: u64, offset: u64, start: &Start, last: (u64, u32)) -> Writer {
        let base = start.new_base;
        let end = base.map_or(start.carry, |base| Carry {
            base,
            last_index: base.index,
            last_term: base.term,
            ..start.carry
        });
        Writer {
            segment,
            capacity,
            offset,
            last_no: last.0,
            chain: last.1,
            durable_no: last.0,
            written: BatchNo(0),
            end,
            dirty: false,
            unsynced: false,
            sealed: true,
            batches: 1,
            written_bytes: 2 * BLOCK,
            syncs: 1,
        }
    }

    /// How many batches at the front of `queue` fit the segment, with room for a seal after them.
    fn fitting(&self, queue: &VecDeque<Pending>) -> usize {
        let mut end = self.offset + BLOCK;
        queue
            .iter()
            .take_while(|pending| {
                end += pending.bytes();
                end <= self.capacity
            })
            .count()
    }

    /// Writes batches one after the other, with one call.
    fn write_batches<'a>(
        &mut self,
        batches: impl Iterator<Item = &'a mut Pending>,
    ) -> Result<Vec<BatchPlace>> {
        let mut places = Vec::new();
        let mut slices = Vec::new();
        let start = self.offset;
        for pending in batches {
            self.last_no += 1;
            let bytes = pending.buffer.len();
            let place = (self.segment.salt, self.offset);
            let (no, durable) = (self.last_no, self.durable_no);
            self.chain = batch::finish(&mut pending.buffer, place, pending.records, no, durable, self.chain);
            pending.buffer.resize(bytes.next_multiple_of(BLOCK_BYTES), 0);
            places.push(BatchPlace { seq: self.segment.seq, offset: self.offset, bytes, first: 0, last: 0 });
            self.offset += pending.buffer.len() as u64;
            self.written = pending.no;
            self.end = pending.end;
            slices.push(IoSlice::new(&pending.buffer));
        }
        // Set before the write, because one that fails has done who knows what.
        self.dirty = true;
        self.unsynced = true;
        self.sealed = false;
        self.segment
            .file
            .write_at(&slices, start)
            .map_err(|e| Error::io("write", &self.segment.path, Some(start), e))?;
        self.batches += places.len() as u64;
        self.written_bytes += self.offset - start;
        Ok(places)
    }

    /// Makes the records that are written durable. A seal alone is not worth a sync.
    fn sync(&mut self) -> Result<()> {
        if self.dirty { self.sync_all() } else { Ok(()) }
    }

    fn sync_all(&mut self) -> Result<()> {
        if !self.unsynced {
            return Ok(());
        }
        if !planted("wal-sync-skipped") {
            reach("walBeforeSync");
            self.segment.file.sync_data().map_err(|e| Error::io("sync", &self.segment.path, None, e))?;
            reach("walAfterSync");
        }
        self.syncs += 1;
        self.dirty = false;
        self.unsynced = false;
        self.durable_no = self.last_no;
        Ok(())
    }

    /// Writes an empty batch, whose header says what is durable.
    fn write_seal(&mut self) -> Result<()> {
        assert!(self.offset + BLOCK <= self.capacity, "each segment keeps room for a seal");
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        batch::begin(&mut block);
        let (no, place) = (self.last_no + 1, (self.segment.salt, self.offset));
        let chain = batch::finish(&mut block, place, 0, no, self.durable_no, self.chain);
        block.resize(BLOCK_BYTES, 0);
        self.segment
            .file
            .write_all_at(&block, self.offset)
            .map_err(|e| Error::io("write", &self.segment.path, Some(self.offset), e))?;
        // Only now: a disk without room for it leaves the log as it is, and the next batch goes here.
        (self.last_no, self.chain) = (no, chain);
        self.offset += BLOCK;
        self.unsynced = true;
        self.sealed = true;
        self.batches += 1;
        self.written_bytes += BLOCK;
        Ok(())
    }

    /// Goes on in a new segment with room for `bytes_min`. The present one is durable.
    fn change_segment(&mut self, wal: &Wal, bytes_min: u64) -> Result<()> {
        assert!(!self.unsynced, "a segment is durable before the next one exists");
        let bytes = wal.shared().next_segment_bytes;
        let start = Start {
            seq: self.segment.seq + 1,
            carry: self.end,
            new_base: None,
            last_no: self.last_no,
            chain: self.chain,
        };
        let spare = wal.files.take(bytes, bytes_min)?;
        // From here to the end, a failure leaves a file that may or may not be the next segment.
        self.dirty = true;
        let (live, (last_no, chain)) = name_segment(&wal.options, &wal.files, &start, spare)?;
        self.dirty = false;
        self.capacity = live.segment.bytes;
        self.segment = Arc::clone(&live.segment);
        self.offset = 2 * BLOCK;
        (self.last_no, self.chain, self.durable_no) = (last_no, chain, last_no);
        self.sealed = true;
        self.batches += 1;
        self.written_bytes += 2 * BLOCK;
        self.syncs += 1;
        wal.shared().grow_segments(&wal.options, live);
        Ok(())
    }

    pub(super) fn count(&self, shared: &mut Shared) {
        shared.stats.batches = self.batches;
        shared.stats.written_bytes = self.written_bytes;
        shared.stats.syncs = self.syncs;
    }
}

impl Shared {
    fn grow_segments(&mut self, options: &WalOptions, live: LiveSegment) {
        self.next_segment_bytes = (2 * live.segment.bytes).min(options.segment_bytes);
        self.segments.push_back(live);
    }
}

/// Gives `spare` a header and the carried state as its first batch, makes both durable, and then names it.
/// Returns the number and the checksum of that batch.
fn name_segment(
    options: &WalOptions,
    files: &LogFiles,
    start: &Start,
    spare: Spare,
) -> Result<(LiveSegment, (u64, u32))> {
    let salt = salt(options.salt_seed, start.seq);
    let header = SegmentHeader {
        member_id: options.member_id,
        seq: start.seq,
        salt,
        former_salt: spare.former_salt,
        file_bytes: spare.bytes,
    };
    let mut first = Vec::with_capacity(BLOCK_BYTES);
    batch::begin(&mut first);
    batch::push_carry(&mut first, &start.carry);
    let mut records = 1;
    if let Some(base) = start.new_base {
        batch::push_record(&mut first, &Record::Base(base));
        records += 1;
    }
    // What was written so far is durable: this batch says so for the one before it.
    let (no, durable_no) = (start.last_no + 1, start.last_no);
    let crc = batch::finish(&mut first, (salt, BLOCK), records, no, durable_no, start.chain);
    first.resize(BLOCK_BYTES, 0);
    let blocks = [&header.encode()[..], &first].concat();
    let name = segment_name(start.seq, start.carry.last_index + 1);
    let segment = files.publish(spare, &name, start.seq, salt, &blocks)?;
    Ok((LiveSegment { segment: Arc::new(segment), max_index: 0 }, (no, crc)))
}

/// A salt for segment `seq` (one step of SplitMix64), so that no two segments of a process share one.
fn salt(seed: u64, seq: u64) -> u64 {
    let mut z = seed ^ seq.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) | 1
}
