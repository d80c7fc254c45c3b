// SPDX-License-Identifier: Apache-2.0
//! The first block of a log segment, and the names of the files in the log's directory.
//!
//! Owns      the layout of the header block and of file names.
//! Holds     1. the checksum covers the whole block and sits in the same place in every format, so damage
//!              and a newer format are told apart;
//!           2. a file named `.wal` has had a good header since before it had that name.
//! Never     reads or writes a file.
//!
//! ```text
//!  0  magic "CAIRNWAL"      16  member id u64     40  salt of the file's former life u64, 0 = none
//!  8  format u32            24  segment seq u64   48  length of the file u64, then zeros
//! 12  feature flags u32     32  salt u64        4092  CRC-32 of the 4092 bytes before
//! ```

use std::path::Path;

use crate::error::{Corruption, FormatMismatch, Result};

/// The unit in which the log is written: header, and start of every batch.
pub(super) const BLOCK_BYTES: usize = 4096;
pub(super) const BLOCK: u64 = BLOCK_BYTES as u64;
/// What is written before a segment has its name: its header, and its first batch, which fits one block.
pub(super) const HEAD_BYTES: u64 = 2 * BLOCK;

const MAGIC: &[u8; 8] = b"CAIRNWAL";
const FORMAT: u32 = 1;
/// Names of the feature flags that this build knows, by bit. Format 1 has none.
const FEATURES: [&str; 0] = [];
/// Largest number of a segment; a larger one in a name is not ours, and far enough from overflow.
const SEQ_MAX: u64 = 1 << 62;
const CRC_AT: usize = BLOCK_BYTES - 4;

/// What the header block of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) member_id: u64,
    pub(super) seq: u64,
    /// Part of every checksum in the segment, so that bytes of another segment never look valid.
    pub(super) salt: u64,
    /// The salt of the batches that the file held before it was recycled; 0 if it was new.
    pub(super) former_salt: u64,
    /// The length of the file. It is cut only once the next segment is durable, so a newest segment that
    /// is shorter has lost something.
    pub(super) file_bytes: u64,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        block[0..8].copy_from_slice(MAGIC);
        block[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        block[16..24].copy_from_slice(&self.member_id.to_le_bytes());
        block[24..32].copy_from_slice(&self.seq.to_le_bytes());
        block[32..40].copy_from_slice(&self.salt.to_le_bytes());
        block[40..48].copy_from_slice(&self.former_salt.to_le_bytes());
        block[48..56].copy_from_slice(&self.file_bytes.to_le_bytes());
        let crc = crc32fast::hash(&block[..CRC_AT]);
        block[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        block
    }

    /// True if `bytes` begin as a segment does, whole or not.
    pub(super) fn is_begun(bytes: &[u8]) -> bool {
        bytes.starts_with(MAGIC)
    }

    /// Reads the header from the start of the segment `file`, and refuses what this build cannot read.
    pub(super) fn decode(file: &Path, bytes: &[u8]) -> Result<SegmentHeader> {
        let Some(block) = bytes.first_chunk::<BLOCK_BYTES>() else {
            let short = Corruption::new(file, "the segment ends inside its header").at(bytes.len() as u64);
            return Err(short.mismatch(BLOCK_BYTES, bytes.len()).into());
        };
        let (found, expected) = (u32_at(block, CRC_AT), crc32fast::hash(&block[..CRC_AT]));
        if &block[0..8] != MAGIC || found != expected {
            let crc = Corruption::new(file, "checksum of the segment header").at(0);
            return Err(crc.mismatch(format_args!("{expected:#010x}"), format_args!("{found:#010x}")).into());
        }
        let mismatch = |what: String, found: String, supported: String| {
            Err(FormatMismatch { file: file.to_path_buf(), what, found, supported }.into())
        };
        let format = u32_at(block, 8);
        if format != FORMAT {
            return mismatch("the log's format".into(), format.to_string(), FORMAT.to_string());
        }
        let unknown = u32_at(block, 12) >> FEATURES.len() << FEATURES.len();
        if unknown != 0 {
            let bit = unknown.trailing_zeros();
            return mismatch(format!("the log's feature flag {bit}"), "set".into(), "no such flag".into());
        }
        Ok(SegmentHeader {
            member_id: u64_at(block, 16),
            seq: u64_at(block, 24),
            salt: u64_at(block, 32),
            former_salt: u64_at(block, 40),
            file_bytes: u64_at(block, 48),
        })
    }
}

/// The name of segment `seq`, begun when `first_index` was the next index.
pub(super) fn segment_name(seq: u64, first_index: u64) -> String {
    format!("{seq:016x}-{first_index:016x}.wal")
}

/// The seq in a segment's name; `None` for any other file.
pub(super) fn seq_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?.strip_suffix(".wal")?;
    let (seq, first_index) = name.split_once('-')?;
    let hex = |s: &str| s.len() == 16 && s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if !hex(seq) || !hex(first_index) {
        return None;
    }
    u64::from_str_radix(seq, 16).ok().filter(|seq| *seq <= SEQ_MAX)
}

/// The name of a file that is not yet, or no longer, part of the log.
pub(super) fn spare_name(n: u64) -> String {
    format!("spare-{n}")
}

/// True for a name that `spare_name` makes.
pub(super) fn is_spare(path: &Path) -> bool {
    let number = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("spare-"));
    number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: SegmentHeader =
        SegmentHeader { member_id: 1, seq: 2, salt: 3, former_salt: 4, file_bytes: 5 };

    fn refused(change: impl FnOnce(&mut [u8; BLOCK_BYTES]), fix_crc: bool) -> String {
        let mut block = HEADER.encode();
        change(&mut block);
        if fix_crc {
            let crc = crc32fast::hash(&block[..CRC_AT]);
            block[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        }
        SegmentHeader::decode(Path::new("a.wal"), &block).expect_err("refused").to_string()
    }

    #[test]
    fn a_header_reads_back_and_any_flipped_bit_is_damage() {
        let block = HEADER.encode();
        assert_eq!(SegmentHeader::decode(Path::new("a.wal"), &block).expect("good"), HEADER);
        for at in 0..BLOCK_BYTES {
            let text = refused(|block| block[at] ^= 1, false);
            assert!(
                text.starts_with("a.wal is damaged at offset 0: checksum of the segment header"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_newer_format_and_an_unknown_flag_are_refused_by_name() {
        assert!(
            refused(|block| block[8] = 2, true)
                .starts_with("a.wal: the log's format is 2, this build reads 1")
        );
        assert!(refused(|block| block[13] = 2, true).starts_with("a.wal: the log's feature flag 9 is set"));
    }

    #[test]
    fn names_are_read_back_and_strangers_are_left_alone() {
        assert_eq!(seq_of(Path::new("d").join(segment_name(255, 7)).as_path()), Some(255));
        for stranger in ["x.wal", "00000000000000ff.wal", "00000000000000fF-0000000000000007.wal", "spare-1"]
        {
            assert_eq!(seq_of(Path::new(stranger)), None, "{stranger}");
        }
        assert!(is_spare(Path::new("d/spare-12")));
        assert!(!is_spare(Path::new("d/spare-")) && !is_spare(Path::new("d/spare-x")));
    }
}
