// SPDX-License-Identifier: Apache-2.0
//! A part of a log apart from its directory: what goes with the copy of a checkpoint.
//!
//! Owns      the entries behind one index as they count in the end, and their form as one segment.
//! Holds     1. entries are contiguous from the base on, none is voided by another, and their terms never fall;
//!           2. as bytes it is a segment like any other, so nothing else has to be read or written by its own rules;
//!           3. a log made of it is one that its member can go on with: the term it has seen is never below that of an
//!              entry, and what the checkpoint holds counts as committed.
//! Never     says what an entry's data means.

use std::path::Path;

use bytes::Bytes;

use super::batch::{self, Base, Carry, Entry, Found, HardState, Record, Records};
use super::index::LogIndex;
use super::look::{LogLook, LogRecord};
use super::segment::{BLOCK, SegmentHeader};
use super::{RecordBatch, Wal, WalOptions};
use crate::error::{Corruption, Error, Result};
use crate::schema::InstallId;

/// Data of the entries in one batch or one append, one entry at least.
const BATCH_DATA_BYTES: usize = 4 << 20;

/// Part of the salt of a part's checksums, so that it never passes for a segment of the log it came from.
const SALT: u64 = 0x7061_7274_6f66_6c6f;

/// The entries of a log behind one index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPart {
    /// Whose log it is.
    pub member_id: u64,
    /// What the checkpoint holds that these entries follow.
    pub base: Base,
    pub hard_state: HardState,
    pub entries: Vec<Entry>,
}

impl LogPart {
    /// What `look` found behind the index of `base`, which its log must reach back to.
    ///
    /// # Errors
    /// [`Error::Overtaken`] if the log went on so far that it does not, or a segment was recycled meanwhile.
    pub fn behind(look: &LogLook, base: Base) -> Result<LogPart> {
        let mut part =
            LogPart { member_id: look.member_id, base, hard_state: look.hard_state, entries: Vec::new() };
        if look.void {
            return Ok(part);
        }
        if look.first_index > base.index + 1 {
            let newest = look.segments.last().map(|segment| segment.path.clone());
            return Err(Error::Overtaken { file: newest.unwrap_or_default() });
        }
        look.batches::<Error>(|_, batch| {
            for record in &batch.records {
                match record {
                    LogRecord::Entry(entry) => part.push(entry),
                    LogRecord::Base(_) => part.entries.clear(),
                    LogRecord::HardState(_) | LogRecord::Carry(_) => {}
                }
            }
            Ok(())
        })?;
        Ok(part)
    }

    /// The index of the last entry; that of the base if there is none.
    pub fn last_index(&self) -> u64 {
        self.base.index + self.entries.len() as u64
    }

    /// Takes in an entry as a log does: it voids those of its index and above. One that the checkpoint holds is passed
    /// over, since what follows it is not to count before it comes again.
    pub(super) fn push(&mut self, entry: &Entry) {
        let Some(place) = entry.index.checked_sub(self.base.index + 1) else {
            self.entries.clear();
            return;
        };
        // Before the base is reached there may be entries of a later index, which others void in the end.
        if place <= self.entries.len() as u64 {
            self.entries.truncate(place as usize);
            self.entries.push(entry.clone());
        }
    }

    /// Appends an entry of `kind`, in the term of the one before it.
    pub fn append(&mut self, kind: u8, data: Bytes) {
        let index = self.last_index() + 1;
        let term = self.entries.last().map_or(self.base.term, |entry| entry.term).max(1);
        self.entries.push(Entry { index, term, kind, data });
    }

    /// The part as a segment.
    pub fn encode(&self) -> Vec<u8> {
        let salt = self.base.install.0 ^ SALT;
        let mut out = vec![0; BLOCK as usize];
        let (mut no, mut chain) = (0, 0);
        let mut put = |out: &mut Vec<u8>, buffer: &mut [u8], records: u32| {
            no += 1;
            chain = batch::finish(buffer, (salt, out.len() as u64), records, no, no - 1, chain);
            out.extend_from_slice(buffer);
            out.resize(out.len().next_multiple_of(BLOCK as usize), 0);
        };
        let mut buffer = Vec::new();
        batch::begin(&mut buffer);
        let (last_index, last_term) = (self.base.index, self.base.term);
        let carry = Carry { base: self.base, hard_state: self.hard_state, last_index, last_term };
        batch::push_carry(&mut buffer, &carry);
        put(&mut out, &mut buffer, 1);
        for records in self.batches() {
            batch::begin(&mut buffer);
            records.iter().for_each(|record| batch::push_record(&mut buffer, record));
            put(&mut out, &mut buffer, records.len() as u32);
        }
        let (member_id, file_bytes) = (self.member_id, out.len() as u64);
        let header = SegmentHeader { member_id, seq: 1, salt, former_salt: 0, file_bytes };
        out[..BLOCK as usize].copy_from_slice(&header.encode());
        out
    }

    /// The length of the part that `bytes` of `file` begin with; `None` if they begin with anything else.
    pub(crate) fn encoded_bytes(file: &Path, bytes: &[u8]) -> Result<Option<u64>> {
        if !SegmentHeader::is_begun(bytes) {
            return Ok(None);
        }
        SegmentHeader::decode(file, bytes).map(|header| Some(header.file_bytes))
    }

    /// Reads back what [`encode`](LogPart::encode) wrote.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Format`].
    pub fn decode(file: &Path, bytes: &[u8]) -> Result<LogPart> {
        let header = SegmentHeader::decode(file, bytes)?;
        if header.file_bytes != bytes.len() as u64 {
            let damage = Corruption::new(file, "length of the log's part").at(bytes.len() as u64);
            return Err(damage.mismatch(header.file_bytes, bytes.len()).into());
        }
        let mut found: Option<(LogPart, LogIndex)> = None;
        let (mut offset, mut last) = (BLOCK, (0, 0));
        while offset < header.file_bytes {
            let damaged = |what: &str| Error::from(Corruption::new(file, what).at(offset));
            let decoded = batch::decode(&bytes[offset as usize..], header.salt, offset);
            let (batch, payload) = decoded.map_err(|_| damaged("checksum of a batch of the log's part"))?;
            if (batch.batch_no, batch.chain) != (last.0 + 1, last.1) {
                return Err(damaged("chain of the batches of the log's part"));
            }
            last = (batch.batch_no, batch.crc);
            for record in Records::new(&batch, payload) {
                match (record.map_err(damaged)?, &mut found) {
                    (Found::Carry(carry), None) => {
                        if (carry.base.index, carry.base.term) != (carry.last_index, carry.last_term) {
                            return Err(damaged("where the log's part begins"));
                        }
                        let (member_id, hard_state) = (header.member_id, carry.hard_state);
                        let part = LogPart { member_id, base: carry.base, hard_state, entries: Vec::new() };
                        found = Some((part, LogIndex::from_carry(&carry)));
                    }
                    (Found::Entry { index, term, kind, data }, Some((part, log))) => {
                        if index != log.last() + 1 || log.push(index, term).is_err() {
                            return Err(damaged("order of the entries of the log's part"));
                        }
                        part.entries.push(Entry { index, term, kind, data: Bytes::copy_from_slice(data) });
                    }
                    _ => return Err(damaged("a record that is no entry in the log's part")),
                }
            }
            offset += (batch::BATCH_HEADER_BYTES as u64 + payload.len() as u64).next_multiple_of(BLOCK);
        }
        let nothing = || Corruption::new(file, "the log's part has no batch").at(offset).into();
        found.map(|(part, _)| part).ok_or_else(nothing)
    }

    /// Makes a log in `dir` that goes with the store of number `install`, whose checkpoint this part follows.
    ///
    /// # Errors
    /// As [`Wal::create`] and [`Wal::sync`].
    pub fn make_log(&self, dir: &Path, options: WalOptions, install: InstallId) -> Result<Wal> {
        let options = WalOptions { member_id: self.member_id, ..options };
        let wal = Wal::create(dir, options, Base { install, ..self.base })?;
        let last_term = self.entries.last().map_or(self.base.term, |entry| entry.term);
        let HardState { term, vote, commit } = self.hard_state;
        // A vote counts in its own term alone.
        let vote = if term < last_term { 0 } else { vote };
        let commit = commit.clamp(self.base.index, self.last_index());
        let hard_state = HardState { term: term.max(last_term), vote, commit };
        for records in self.batches() {
            wal.append(records)?;
            wal.sync()?;
        }
        wal.append(vec![Record::HardState(hard_state)])?;
        wal.sync()?;
        wal.seal()?;
        Ok(wal)
    }

    /// The entries in batches of a bounded size.
    fn batches(&self) -> impl Iterator<Item = RecordBatch> {
        let mut rest = self.entries.iter().peekable();
        std::iter::from_fn(move || {
            let mut records = vec![Record::Entry(rest.next()?.clone())];
            let mut bytes = 0;
            while let Some(entry) = rest.next_if(|entry| bytes + entry.data.len() <= BATCH_DATA_BYTES) {
                bytes += entry.data.len() + batch::RECORD_HEADER_BYTES;
                records.push(Record::Entry(entry.clone()));
            }
            Some(records)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64, bytes: usize) -> Entry {
        Entry { index, term, kind: 0, data: vec![index as u8; bytes].into() }
    }

    fn part(entries: Vec<Entry>) -> LogPart {
        let base = Base { index: 10, term: 2, install: InstallId(7) };
        LogPart { member_id: 9, base, hard_state: HardState { term: 4, vote: 9, commit: 11 }, entries }
    }

    fn file() -> &'static Path {
        Path::new("/b")
    }

    #[test]
    fn a_part_reads_back_and_any_flipped_byte_is_damage() {
        for entries in
            [vec![], vec![entry(11, 3, 5), entry(12, 4, 0), entry(13, 4, 3 << 20), entry(14, 4, 2 << 20)]]
        {
            let part = part(entries);
            let bytes = part.encode();
            assert_eq!(LogPart::decode(file(), &bytes).expect("good"), part);
            assert_eq!(LogPart::encoded_bytes(file(), &bytes).expect("good"), Some(bytes.len() as u64));
            assert_eq!(LogPart::encoded_bytes(file(), b"CAIRNSNP").expect("none"), None);
        }
        let small = part(vec![entry(11, 3, 5), entry(12, 4, 9)]).encode();
        for cut in [BLOCK as usize, small.len() - BLOCK as usize] {
            assert!(LogPart::decode(file(), &small[..cut]).is_err());
        }
        // A batch of one carry, and one of two entries. The padding behind them is part of neither.
        let covered = (0..BLOCK as usize + 120).chain(2 * BLOCK as usize..2 * BLOCK as usize + 128);
        for at in covered {
            let mut bad = small.clone();
            bad[at] ^= 4;
            assert!(LogPart::decode(file(), &bad).is_err(), "byte {at}");
        }
    }

    #[test]
    fn an_entry_voids_those_of_its_index_and_above() {
        let mut part = part(Vec::new());
        for (index, term) in [(9, 2), (10, 2), (11, 2), (12, 2), (13, 2), (12, 3), (14, 3)] {
            part.push(&entry(index, term, 0));
        }
        let kept: Vec<_> = part.entries.iter().map(|entry| (entry.index, entry.term)).collect();
        assert_eq!(kept, [(11, 2), (12, 3)]);
        part.append(4, Bytes::from_static(b"x"));
        let last = Entry { index: 13, term: 3, kind: 4, data: Bytes::from_static(b"x") };
        assert_eq!((part.last_index(), part.entries.last()), (13, Some(&last)));
        part.push(&entry(10, 3, 0));
        assert_eq!(part.last_index(), 10, "what followed the old entry is void");
        part.append(0, Bytes::new());
        assert_eq!(part.entries, [entry(11, 2, 0)].map(|entry| Entry { data: Bytes::new(), ..entry }));
    }
}
