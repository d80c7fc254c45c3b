// SPDX-License-Identifier: Apache-2.0
//! The body of the recovery fuzz: any bytes as segments, with their checksums made right again.
//!
//! Owns      the repair of checksums after a mutation, and what must hold for every input.
//! Holds     1. recovery ends, without a panic, for any bytes; a log that it accepts can be read back whole;
//!           2. whatever it refuses, it says which file.
//! Never     part of a release: it is here because the layout is.

use std::path::{Path, PathBuf};

use super::batch::{self, BATCH_HEADER_BYTES, RECORD_HEADER_BYTES, Records};
use super::recover::{Evidence, Recovered, recover};
use super::segment::{BLOCK, BLOCK_BYTES, segment_name, u32_at, u64_at};
use crate::error::Error;

/// The member whose log the inputs pretend to be.
pub const MEMBER_ID: u64 = 1;

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
    let mut loads = 0;
    let found = recover(&names, MEMBER_ID, Some(evidence), |at| {
        loads += 1;
        Ok(segments[at].clone())
    });
    assert!(loads <= segments.len(), "{loads} loads of {} segments", segments.len());
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
