// SPDX-License-Identifier: Apache-2.0
//! Logs with absurd lengths and indexes in them, under checksums that are right (S04, S05).
//!
//! Owns      the places of those numbers, as `engine/src/wal/batch.rs` lays them out.
//! Holds     such a log is an error, and reading it asks for no more memory at once than its file has.
//! Never     leaves a checksum wrong: that it would be found says nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use cairn_engine::io::Vfs;
use cairn_engine::sim::SimVfs;
use cairn_engine::wal::{Base, Entry, Evidence, HardState, LogLook, Record, Wal, WalOptions};
use cairn_engine::{Error, InstallId};

use crate::alloc::take_largest;

const DIR: &str = "/wal";
const INSTALL: InstallId = InstallId(7);
const BASE: Base = Base { index: 0, term: 0, install: INSTALL };
const BLOCK: usize = 4096;
const BATCH_HEADER: usize = 40;
const RECORD_HEADER: usize = 32;
const BATCHES: u64 = 6;
const ENTRY_KIND: u8 = 1;

fn options(disk: &SimVfs) -> WalOptions {
    let mut options = WalOptions::new(Arc::new(disk.clone()), 1, 5);
    options.first_segment_bytes = 256 << 10;
    options.segment_bytes = 256 << 10;
    options.batch_bytes_max = 32 << 10;
    options.cache_bytes = 4 << 10;
    options
}

/// What the tree file proves: all of it was durable, so nothing of it can be an unfinished write.
fn evidence() -> Evidence {
    Evidence { applied_index: 2 * BATCHES, applied_term: 1, install: INSTALL }
}

/// A log of some batches of two entries and a hard state each, and its one segment.
fn written() -> (PathBuf, Vec<u8>) {
    let disk = SimVfs::new();
    let wal = Wal::create(Path::new(DIR), options(&disk), BASE).expect("a new log");
    for batch in 0..BATCHES {
        let entry = |index| Record::Entry(Entry { index, term: 1, kind: 0, data: Bytes::from(vec![7; 100]) });
        let state = Record::HardState(HardState { term: 1, vote: 1, commit: 2 * batch });
        wal.append(vec![entry(2 * batch + 1), entry(2 * batch + 2), state]).expect("healthy");
        wal.sync().expect("healthy");
    }
    wal.seal().expect("healthy");
    let path = disk.list(Path::new(DIR)).expect("the directory").remove(0);
    let bytes = disk.contents(&path).expect("a file");
    (path, bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

/// Where batches begin.
fn batches(segment: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut at = BLOCK;
    while at + BATCH_HEADER <= segment.len() && segment[at..].starts_with(b"CWB1") {
        found.push(at);
        at = (at + BATCH_HEADER + u32_at(segment, at + 4)).next_multiple_of(BLOCK);
    }
    found
}

/// Where the entries of a batch begin.
fn entries(segment: &[u8], batch: usize) -> Vec<usize> {
    let end = batch + BATCH_HEADER + u32_at(segment, batch + 4);
    let mut found = Vec::new();
    let mut at = batch + BATCH_HEADER;
    while at < end {
        if segment[at + 24] == ENTRY_KIND {
            found.push(at);
        }
        at += (RECORD_HEADER + u32_at(segment, at)).next_multiple_of(8);
    }
    found
}

/// Makes the checksums of a record right, over as much of its data as there is.
fn fix_record(segment: &mut [u8], at: usize, len: usize) {
    let end = (at + RECORD_HEADER + len).min(segment.len());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&segment[at..at + 4]);
    crc.update(&segment[at + 8..end]);
    put(segment, at + 4, crc.finalize().to_le_bytes());
}

/// Makes the checksums of a batch right, and of those that follow, each of which names the one before.
fn fix_batches(segment: &mut [u8], from: usize, starts: &[usize]) {
    let salt: [u8; 8] = segment[32..40].try_into().expect("eight bytes");
    let mut chain = None;
    for &at in starts.iter().filter(|start| **start >= from) {
        if let Some(chain) = chain {
            put(segment, at + 32, u32::to_le_bytes(chain));
        }
        let salted = || {
            let mut crc = crc32fast::Hasher::new();
            crc.update(&salt);
            crc.update(&(at as u64).to_le_bytes());
            crc
        };
        let mut head = salted();
        head.update(&segment[at..at + 12]);
        head.update(&segment[at + 16..at + 36]);
        put(segment, at + 12, head.finalize().to_le_bytes());
        let end = (at + BATCH_HEADER + u32_at(segment, at + 4)).min(segment.len());
        let mut whole = salted();
        whole.update(&segment[at..at + 36]);
        whole.update(&segment[at + BATCH_HEADER..end]);
        let crc = whole.finalize();
        put(segment, at + 36, crc.to_le_bytes());
        chain = Some(crc);
    }
}

/// Opens a log of this one segment, and looks at it as the tools do. Gives what an open says of it.
fn opened(path: &Path, segment: &[u8]) -> String {
    let disk = SimVfs::new();
    disk.create_dir(Path::new(DIR)).expect("a directory");
    disk.plant(path, segment);
    take_largest();
    let result = Wal::open(Path::new(DIR), options(&disk), evidence());
    let look = LogLook::open(&disk, Path::new(DIR), || Ok(Some(evidence())));
    let whole = LogLook::whole_batches(&disk, Path::new(DIR), |_, _| Ok::<_, Error>(()));
    let largest = take_largest();
    assert!(largest <= segment.len(), "{largest} bytes at once for a file of {}", segment.len());
    assert_eq!(look.is_ok(), result.is_ok(), "{look:?}");
    whole.expect("a file that is there is read as far as it is whole");
    match result {
        Err(Error::Corrupt(damage)) => damage.to_string(),
        Err(other) => panic!("not damage, but {other}"),
        Ok((wal, _)) => format!("opened up to {}", wal.last_index()),
    }
}

#[test]
fn s04_a_record_whose_length_is_absurd_is_an_error_and_takes_no_memory() {
    let (path, segment) = written();
    let starts = batches(&segment);
    assert_eq!(opened(&path, &segment), format!("opened up to {}", 2 * BATCHES), "as it was written");
    let lengths = [u32::MAX, u32::MAX - 7, 1 << 31, i32::MAX as u32, 1 << 30, 256 << 10, 40_000, 4_000];
    let mut tried = 0;
    for &batch in starts.iter().filter(|batch| !entries(&segment, **batch).is_empty()) {
        for length in lengths {
            // Of a record.
            for entry in entries(&segment, batch) {
                let mut damaged = segment.clone();
                put(&mut damaged, entry, length.to_le_bytes());
                fix_record(&mut damaged, entry, length as usize);
                fix_batches(&mut damaged, batch, &starts);
                let told = opened(&path, &damaged);
                assert!(told.contains("damaged"), "{length} at {entry}: {told}");
                tried += 1;
            }
            // Of the batch itself.
            let mut damaged = segment.clone();
            put(&mut damaged, batch + 4, length.to_le_bytes());
            fix_batches(&mut damaged, batch, &[batch]);
            let told = opened(&path, &damaged);
            assert!(told.contains("damaged"), "{length} at {batch}: {told}");
            // And its count of records.
            let mut damaged = segment.clone();
            put(&mut damaged, batch + 8, length.to_le_bytes());
            fix_batches(&mut damaged, batch, &starts);
            let told = opened(&path, &damaged);
            assert!(told.contains("damaged"), "{length} records at {batch}: {told}");
            tried += 2;
        }
    }
    println!("{tried} logs with an absurd length");
    assert!(tried >= 8 * 6 * 4, "{tried}");
}

#[test]
fn s05_an_entry_whose_index_is_absurd_is_an_error_and_takes_no_memory() {
    let (path, segment) = written();
    let starts = batches(&segment);
    let mut tried = 0;
    for &batch in &starts {
        for entry in entries(&segment, batch) {
            let index = u64::from_le_bytes(segment[entry + 8..entry + 16].try_into().expect("eight bytes"));
            for absurd in [u64::MAX, 1 << 63, (1 << 62) + 1, 1 << 62, 1 << 40, 1 << 32, index + 1_000] {
                let mut damaged = segment.clone();
                put(&mut damaged, entry + 8, absurd.to_le_bytes());
                let len = u32_at(&segment, entry);
                fix_record(&mut damaged, entry, len);
                fix_batches(&mut damaged, batch, &starts);
                let told = opened(&path, &damaged);
                assert!(told.contains("damaged"), "{absurd} for {index}: {told}");
                tried += 1;
            }
        }
    }
    println!("{tried} logs with an absurd index");
    assert!(tried >= 7 * 2 * 6, "{tried}");
}
