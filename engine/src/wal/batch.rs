// SPDX-License-Identifier: Apache-2.0
//! Batches and the records in them: what one group commit looks like on disk.
//!
//! Owns      the layout of a batch and of its records: encoding, and checked decoding.
//! Holds     1. a batch starts on a 4 KiB block and its checksums cover the segment's salt and its own offset,
//!              so it is valid in one place only;
//!           2. decoding is total: any bytes give a batch, or the reason why they are none.
//! Never     reads or writes a file, or knows which batch should come next.
//!
//! ```text
//! batch   0  magic u32             16  batch number u64               32  chain u32: CRC of the batch before
//!         4  payload bytes u32     24  newest batch known durable u64 36  CRC of salt, offset, header, payload
//!         8  records u32           12  CRC of salt, offset and the other header fields up to 36
//! record  0  data bytes u32         8  index u64                      24  kind u8, 25 entry kind u8, zeros
//!         4  CRC of the rest       16  term u64                       32  data, padded with zeros to 8 bytes
//! ```

use bytes::Bytes;

use super::segment::{u32_at, u64_at};
use crate::schema::InstallId;

const MAGIC: u32 = u32::from_le_bytes(*b"CWB1");
pub(super) const BATCH_HEADER_BYTES: usize = 40;
pub(super) const RECORD_HEADER_BYTES: usize = 32;

/// Largest index; what lies above is damage, and far enough from overflow.
const INDEX_MAX: u64 = 1 << 62;

const KIND_ENTRY: u8 = 1;
const KIND_HARD_STATE: u8 = 2;
const KIND_BASE: u8 = 3;
const KIND_CARRY: u8 = 4;
const CARRY_DATA_BYTES: usize = 6 * 8;

/// One entry of the Raft log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the log.
    pub index: u64,
    /// The term it was proposed in.
    pub term: u64,
    /// What the owner takes the data for; the log does not look.
    pub kind: u8,
    /// Any bytes.
    pub data: Bytes,
}

/// What Raft must not forget besides the entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The newest term seen.
    pub term: u64,
    /// The member voted for in that term; 0 = none.
    pub vote: u64,
    /// The newest index known to be committed.
    pub commit: u64,
}

/// Where the log begins: everything up to `index` is in the tree file that has this install id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// The newest index that the tree file held when it was made.
    pub index: u64,
    /// The term of that index.
    pub term: u64,
    /// The tree file that this log goes with.
    pub install: InstallId,
}

/// What can be appended to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Voids every earlier entry with the same index or a larger one.
    Entry(Entry),
    /// Replaces the one before.
    HardState(HardState),
    /// Voids every earlier entry: a snapshot took their place.
    Base(Base),
}

/// The state that a new segment repeats, so that the ones before it can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carry {
    /// The newest base.
    pub base: Base,
    /// The newest hard state.
    pub hard_state: HardState,
    /// The newest index before the segment.
    pub last_index: u64,
    /// Its term.
    pub last_term: u64,
}

/// A record as it is found in a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    Entry { index: u64, term: u64, kind: u8, data: &'a [u8] },
    HardState(HardState),
    Base(Base),
    Carry(Carry),
}

/// The header of a batch whose own checksum is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchHeader {
    pub(super) payload_bytes: u32,
    pub(super) records: u32,
    pub(super) batch_no: u64,
    pub(super) durable_no: u64,
    pub(super) chain: u32,
    pub(super) crc: u32,
}

/// Starts a batch in `buffer`: room for its header, to be filled by `finish`.
pub(super) fn begin(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.resize(BATCH_HEADER_BYTES, 0);
}

/// Bytes that `record` takes in a batch.
pub(super) fn record_bytes(record: &Record) -> usize {
    RECORD_HEADER_BYTES
        + match record {
            Record::Entry(entry) => entry.data.len().next_multiple_of(8),
            Record::HardState(_) | Record::Base(_) => 8,
        }
}

pub(super) fn push_record(buffer: &mut Vec<u8>, record: &Record) {
    match record {
        Record::Entry(entry) => {
            push(buffer, KIND_ENTRY, entry.kind, entry.index, entry.term, &entry.data);
        }
        Record::HardState(state) => {
            push(buffer, KIND_HARD_STATE, 0, state.commit, state.term, &state.vote.to_le_bytes());
        }
        Record::Base(base) => {
            push(buffer, KIND_BASE, 0, base.index, base.term, &base.install.0.to_le_bytes());
        }
    }
}

pub(super) fn push_carry(buffer: &mut Vec<u8>, carry: &Carry) {
    let mut data = [0; CARRY_DATA_BYTES];
    let fields = [
        carry.base.index,
        carry.base.term,
        carry.base.install.0,
        carry.hard_state.term,
        carry.hard_state.vote,
        carry.hard_state.commit,
    ];
    for (slot, field) in data.chunks_exact_mut(8).zip(fields) {
        slot.copy_from_slice(&field.to_le_bytes());
    }
    push(buffer, KIND_CARRY, 0, carry.last_index, carry.last_term, &data);
}

fn push(buffer: &mut Vec<u8>, kind: u8, entry_kind: u8, index: u64, term: u64, data: &[u8]) {
    let mut header = [0; RECORD_HEADER_BYTES];
    header[0..4].copy_from_slice(&(data.len() as u32).to_le_bytes());
    header[8..16].copy_from_slice(&index.to_le_bytes());
    header[16..24].copy_from_slice(&term.to_le_bytes());
    header[24] = kind;
    header[25] = entry_kind;
    let crc = record_crc(&header, data);
    header[4..8].copy_from_slice(&crc.to_le_bytes());
    buffer.extend_from_slice(&header);
    buffer.extend_from_slice(data);
    buffer.resize(buffer.len().next_multiple_of(8), 0);
}

pub(super) fn record_crc(header: &[u8], data: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header[0..4]);
    crc.update(&header[8..]);
    crc.update(data);
    crc.finalize()
}

/// Fills in the header of the batch in `buffer`, for its place at `offset` of the segment with `salt`, and
/// returns its checksum: the chain of the batch after it.
pub(super) fn finish(
    buffer: &mut [u8],
    (salt, offset): (u64, u64),
    records: u32,
    batch_no: u64,
    durable_no: u64,
    chain: u32,
) -> u32 {
    let (header, payload) = buffer.split_at_mut(BATCH_HEADER_BYTES);
    header[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    header[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    header[8..12].copy_from_slice(&records.to_le_bytes());
    header[16..24].copy_from_slice(&batch_no.to_le_bytes());
    header[24..32].copy_from_slice(&durable_no.to_le_bytes());
    header[32..36].copy_from_slice(&chain.to_le_bytes());
    let header_crc = header_crc(header, salt, offset);
    header[12..16].copy_from_slice(&header_crc.to_le_bytes());
    let crc = batch_crc(header, payload, salt, offset);
    header[36..40].copy_from_slice(&crc.to_le_bytes());
    crc
}

fn header_crc(header: &[u8], salt: u64, offset: u64) -> u32 {
    let mut crc = salted(salt, offset);
    crc.update(&header[0..12]);
    crc.update(&header[16..36]);
    crc.finalize()
}

fn batch_crc(header: &[u8], payload: &[u8], salt: u64, offset: u64) -> u32 {
    let mut crc = salted(salt, offset);
    crc.update(&header[0..36]);
    crc.update(payload);
    crc.finalize()
}

fn salted(salt: u64, offset: u64) -> crc32fast::Hasher {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&salt.to_le_bytes());
    crc.update(&offset.to_le_bytes());
    crc
}

/// Why bytes are not a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotABatch {
    /// Nothing here says that a batch was begun.
    NoHeader,
    /// The header is whole, and what should follow it is not.
    BadPayload,
}

/// The header at the start of `bytes`, which were found at `offset`.
pub(super) fn decode_header(bytes: &[u8], salt: u64, offset: u64) -> Option<BatchHeader> {
    let header = bytes.first_chunk::<BATCH_HEADER_BYTES>()?;
    if u32_at(header, 0) != MAGIC || u32_at(header, 12) != header_crc(header, salt, offset) {
        return None;
    }
    Some(BatchHeader {
        payload_bytes: u32_at(header, 4),
        records: u32_at(header, 8),
        batch_no: u64_at(header, 16),
        durable_no: u64_at(header, 24),
        chain: u32_at(header, 32),
        crc: u32_at(header, 36),
    })
}

/// The batch at the start of `bytes`: its header and its payload, both checked.
pub(super) fn decode(bytes: &[u8], salt: u64, offset: u64) -> Result<(BatchHeader, &[u8]), NotABatch> {
    let header = decode_header(bytes, salt, offset).ok_or(NotABatch::NoHeader)?;
    let (head, rest) = bytes.split_at(BATCH_HEADER_BYTES);
    let payload = rest.get(..header.payload_bytes as usize).ok_or(NotABatch::BadPayload)?;
    if header.crc != batch_crc(head, payload, salt, offset) {
        return Err(NotABatch::BadPayload);
    }
    Ok((header, payload))
}

/// The records of a payload, in order. After the first error there are no more.
pub(super) struct Records<'a> {
    rest: &'a [u8],
    left: u32,
}

impl<'a> Records<'a> {
    pub(super) fn new(header: &BatchHeader, payload: &'a [u8]) -> Records<'a> {
        Records { rest: payload, left: header.records }
    }

    fn take(&mut self) -> Result<Found<'a>, &'static str> {
        let header = self.rest.first_chunk::<RECORD_HEADER_BYTES>().ok_or("a record ends past its batch")?;
        let len = u32_at(header, 0) as usize;
        let rest = &self.rest[RECORD_HEADER_BYTES..];
        let data = rest.get(..len).ok_or("a record's data end past its batch")?;
        if u32_at(header, 4) != record_crc(header, data) {
            return Err("checksum of a record");
        }
        self.rest = rest.get(len.next_multiple_of(8)..).ok_or("a record's padding ends past its batch")?;
        let (index, term) = (u64_at(header, 8), u64_at(header, 16));
        if index > INDEX_MAX {
            return Err("an index out of range");
        }
        match header[24] {
            KIND_ENTRY => Ok(Found::Entry { index, term, kind: header[25], data }),
            KIND_HARD_STATE if len == 8 => {
                Ok(Found::HardState(HardState { term, vote: u64_at(data, 0), commit: index }))
            }
            KIND_BASE if len == 8 => {
                Ok(Found::Base(Base { index, term, install: InstallId(u64_at(data, 0)) }))
            }
            KIND_CARRY if len == CARRY_DATA_BYTES => Ok(Found::Carry(Carry {
                base: Base {
                    index: u64_at(data, 0),
                    term: u64_at(data, 8),
                    install: InstallId(u64_at(data, 16)),
                },
                hard_state: HardState {
                    term: u64_at(data, 24),
                    vote: u64_at(data, 32),
                    commit: u64_at(data, 40),
                },
                last_index: index,
                last_term: term,
            })),
            _ => Err("a record of an unknown kind"),
        }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Found<'a>, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            let trailing = !self.rest.is_empty();
            self.rest = &[];
            return trailing.then_some(Err("bytes after the last record of a batch"));
        }
        let found = self.take();
        self.left = if found.is_ok() { self.left - 1 } else { 0 };
        if found.is_err() {
            self.rest = &[];
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut buffer = Vec::new();
        begin(&mut buffer);
        let entry = Entry { index: 5, term: 2, kind: 1, data: Bytes::from_static(b"hello") };
        push_record(&mut buffer, &Record::Entry(entry));
        push_record(&mut buffer, &Record::HardState(HardState { term: 2, vote: 9, commit: 4 }));
        push_record(&mut buffer, &Record::Base(Base { index: 7, term: 3, install: InstallId(11) }));
        finish(&mut buffer, (77, 8192), 3, 6, 5, 0xabcd);
        buffer
    }

    #[test]
    fn a_batch_reads_back_in_its_place_and_nowhere_else() {
        let bytes = sample();
        let (header, payload) = decode(&bytes, 77, 8192).expect("valid");
        assert_eq!((header.batch_no, header.durable_no, header.chain), (6, 5, 0xabcd));
        let records: Result<Vec<_>, _> = Records::new(&header, payload).collect();
        assert_eq!(
            records.expect("valid"),
            [
                Found::Entry { index: 5, term: 2, kind: 1, data: b"hello" },
                Found::HardState(HardState { term: 2, vote: 9, commit: 4 }),
                Found::Base(Base { index: 7, term: 3, install: InstallId(11) }),
            ]
        );
        assert_eq!(decode(&bytes, 78, 8192), Err(NotABatch::NoHeader), "another segment");
        assert_eq!(decode(&bytes, 77, 4096), Err(NotABatch::NoHeader), "another offset");
        assert_eq!(decode(&bytes[..bytes.len() - 1], 77, 8192), Err(NotABatch::BadPayload), "cut short");
    }

    #[test]
    fn every_flipped_bit_of_a_batch_is_noticed() {
        let bytes = sample();
        for at in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[at / 8] ^= 1 << (at % 8);
            assert!(decode(&bad, 77, 8192).is_err(), "bit {at}");
        }
    }

    #[test]
    fn a_carry_reads_back() {
        let carry = Carry {
            base: Base { index: 1, term: 2, install: InstallId(3) },
            hard_state: HardState { term: 4, vote: 5, commit: 6 },
            last_index: 7,
            last_term: 8,
        };
        let mut buffer = Vec::new();
        begin(&mut buffer);
        push_carry(&mut buffer, &carry);
        finish(&mut buffer, (1, 4096), 1, 1, 0, 0);
        let (header, payload) = decode(&buffer, 1, 4096).expect("valid");
        assert_eq!(Records::new(&header, payload).next(), Some(Ok(Found::Carry(carry))));
    }

    #[test]
    fn a_count_that_does_not_fit_the_payload_is_an_error_and_the_end() {
        let bytes = sample();
        let (header, payload) = decode(&bytes, 77, 8192).expect("valid");
        for (records, why) in
            [(2, "bytes after the last record of a batch"), (4, "a record ends past its batch")]
        {
            let mut found = Records::new(&BatchHeader { records, ..header }, payload);
            assert_eq!(found.find_map(Result::err), Some(why));
            assert!(found.next().is_none());
        }
    }
}
