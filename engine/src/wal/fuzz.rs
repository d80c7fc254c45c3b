// SPDX-License-Identifier: Apache-2.0
//! The bodies of the log's fuzz targets: any bytes as a header, a batch, or segments, with their checksums made right
//! again.
//!
//! Owns      the repair of checksums after a mutation, and what must hold for every input.
//! Holds     1. recovery ends, without a panic, for any bytes; a log that it accepts can be read back whole;
//!           2. whatever it refuses, it says which file.
//! Never     part of a release: it is here because the layout is.

use std::path::{Path, PathBuf};

use super::batch::{self, BATCH_HEADER_BYTES, RECORD_HEADER_BYTES, Records};
use super::recover::{Evidence, Recovered, Want, recover};
use super::segment::{BLOCK, BLOCK_BYTES, SegmentHeader, segment_name, u32_at, u64_at};
use crate::error::Error;

/// The member whose log the inputs pretend to be.
pub const MEMBER_ID: u64 = 1;

/// What the batches of inputs are salted with, and where they lie.
const PLACE: (u64, u64) = (0x5a17, BLOCK);

/// Decodes the header block of a segment. True if it is one.
pub fn segment_header(input: &[u8]) -> bool {
    match SegmentHeader::decode(Path::new("fuzz"), input) {
        Ok(_) => true,
        Err(Error::Corrupt(_) | Error::Format(_)) => false,
        Err(other) => panic!("decoding does no I/O: {other}"),
    }
}

/// Decodes a batch and its records. True if all of it is good.
pub fn batch(input: &[u8]) -> bool {
    let (salt, offset) = PLACE;
    let Ok((header, payload)) = batch::decode(input, salt, offset) else { return false };
    let mut records = 0;
    let whole = Records::new(&header, payload).all(|record| {
        records += 1;
        record.is_ok()
    });
    assert!(records <= input.len() / RECORD_HEADER_BYTES + 1, "{records} records in {} bytes", input.len());
    whole
}

/// Makes the checksums of a batch right for [`batch`].
pub fn fix_batch(input: &mut [u8]) {
    if input.len() < BATCH_HEADER_BYTES {
        return;
    }
    fix_records(&mut input[BATCH_HEADER_BYTES..]);
    let [records, chain] = [8, 32].map(|at| u32_at(input, at));
    let [no, durable] = [16, 24].map(|at| u64_at(input, at));
    batch::finish(input, PLACE, records, no, durable, chain);
}

/// The first batch of a segment, as an input of [`batch`].
pub fn first_batch(segment: &[u8]) -> Option<Vec<u8>> {
    let batch = segment.get(BLOCK_BYTES..)?;
    let end = BATCH_HEADER_BYTES + u32_at(batch.get(..BATCH_HEADER_BYTES)?, 4) as usize;
    let mut input = batch.get(..end)?.to_vec();
    fix_batch(&mut input);
    Some(input)
}

/// What became of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A log was found; the number of its live entries.
    Log(u64),
    /// The input was refused.
    Refused,
}

/// Recovers a log from `segments`, numbered from 1.
///
/// # Panics
/// If recovery breaks one of its promises: that is what the fuzz looks for.
pub fn recover_any(segments: &[Vec<u8>], evidence: &Evidence) -> Outcome {
    let names: Vec<PathBuf> =
        (1..=segments.len() as u64).map(|seq| Path::new("fuzz").join(segment_name(seq, 1))).collect();
    let all = outcome(segments, &names, evidence, u64::MAX);
    let tail = outcome(segments, &names, evidence, 0);
    if let (Outcome::Log(all), Outcome::Log(tail)) = (all, tail) {
        assert!(tail <= all, "{tail} entries of a log that has {all}");
    }
    tail
}

fn outcome(segments: &[Vec<u8>], names: &[PathBuf], evidence: &Evidence, entries_kept: u64) -> Outcome {
    let mut loads = [0, 0];
    let found = recover(names, MEMBER_ID, Some(evidence), entries_kept, |at, want, bytes| {
        loads[usize::from(want == Want::Whole)] += 1;
        bytes.clone_from(&segments[at]);
        Ok(())
    });
    assert!(loads.iter().all(|n| *n <= segments.len()), "{loads:?} loads of {} segments", segments.len());
    match found {
        Ok(found) => Outcome::Log(read_back(&found, segments)),
        Err(Error::Corrupt(damage)) => {
            assert!(damage.file.starts_with("fuzz") || segments.is_empty(), "{damage} names no file");
            Outcome::Refused
        }
        Err(Error::Format(mismatch)) => {
            assert!(mismatch.file.starts_with("fuzz"), "{mismatch} names no file");
            Outcome::Refused
        }
        Err(other) => panic!("recovery does no I/O: {other}"),
    }
}

/// Every live entry is in the batch that the map names for it, and every index has a term.
fn read_back(found: &Recovered, segments: &[Vec<u8>]) -> u64 {
    let (first, last) = (found.index.first(), found.index.last());
    assert!(found.index.term(first - 1).is_some(), "the term before the first entry is known");
    let mut term = 0;
    for index in first..=last {
        let now = found.index.term(index).expect("every live index has a term");
        assert!(now >= term, "terms do not fall: {term} to {now} at {index}");
        term = now;
        let place = found.batches.find(index).expect("every live entry has a batch");
        let run =
            found.run.iter().find(|run| run.seq == place.seq).expect("a batch is in a segment of the run");
        let bytes = &segments[run.file][place.offset as usize..place.offset as usize + place.bytes];
        let (header, payload) = batch::decode(bytes, run.salt, place.offset).expect("the batch was good");
        let holds = Records::new(&header, payload).any(|record| {
            matches!(record, Ok(batch::Found::Entry { index: i, term: t, .. }) if i == index && t == now)
        });
        assert!(holds, "entry {index} is not in its batch");
    }
    (last + 1).saturating_sub(first)
}

/// Makes the checksums of mutated segments right again, so that what lies behind them is reached: those of
/// the header blocks, of each batch and record whose lengths still fit, and the chain from batch to batch.
pub fn fix_checksums(segments: &mut [Vec<u8>]) {
    let mut chain = None;
    for segment in segments {
        fix_segment(segment, &mut chain);
    }
}

fn fix_segment(segment: &mut [u8], chain: &mut Option<u32>) {
    if segment.len() < BLOCK_BYTES {
        return;
    }
    let crc = crc32fast::hash(&segment[..BLOCK_BYTES - 4]);
    segment[BLOCK_BYTES - 4..BLOCK_BYTES].copy_from_slice(&crc.to_le_bytes());
    let salt = u64_at(segment, 32);
    let mut offset = BLOCK_BYTES;
    while offset + BATCH_HEADER_BYTES <= segment.len() {
        let payload = u32_at(segment, offset + 4) as usize;
        let end = offset + BATCH_HEADER_BYTES + payload;
        if end > segment.len() || u32_at(segment, offset) == 0 {
            return;
        }
        fix_records(&mut segment[offset + BATCH_HEADER_BYTES..end]);
        let records = u32_at(segment, offset + 8);
        let (no, durable) = (u64_at(segment, offset + 16), u64_at(segment, offset + 24));
        let before = chain.unwrap_or_else(|| u32_at(segment, offset + 32));
        let place = (salt, offset as u64);
        *chain = Some(batch::finish(&mut segment[offset..end], place, records, no, durable, before));
        offset = end.next_multiple_of(BLOCK as usize);
    }
}

fn fix_records(mut payload: &mut [u8]) {
    while payload.len() >= RECORD_HEADER_BYTES {
        let end = RECORD_HEADER_BYTES + u32_at(payload, 0) as usize;
        if end > payload.len() {
            return;
        }
        let crc = batch::record_crc(&payload[..RECORD_HEADER_BYTES], &payload[RECORD_HEADER_BYTES..end]);
        payload[4..8].copy_from_slice(&crc.to_le_bytes());
        let next = end.next_multiple_of(8).min(payload.len());
        payload = &mut payload[next..];
    }
}
