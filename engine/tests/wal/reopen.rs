// SPDX-License-Identifier: Apache-2.0
//! What it costs to open a log, and what can be read then: it follows what is to be replayed, not what is kept.

use std::path::Path;

use cairn_engine::Error;
use cairn_engine::sim::SimVfs;
use cairn_engine::wal::{Evidence, Replay, Wal, WalOptions};

use crate::script::{BASE, DIR, INSTALL, data, entry, options};

/// Segments of 32 KiB: a head of two blocks, five entries of one block each, and room for a seal.
const SEGMENT_BYTES: u64 = 32 << 10;
const ENTRY_BYTES: usize = 3000;
const ENTRIES_A_SEGMENT: u64 = 5;
const ENTRIES: u64 = 200;
const HEAD_BYTES: u64 = 8 << 10;

fn options_of(disk: &SimVfs, seed: u64, entries_kept: u64) -> WalOptions {
    let mut options = options(disk, 2 * seed + 1);
    options.entries_kept = entries_kept;
    options
}

/// A log of which nothing was ever released.
fn log() -> SimVfs {
    let disk = SimVfs::new();
    let wal = Wal::create(Path::new(DIR), options_of(&disk, 0, 0), BASE).expect("a new log");
    for index in 1..=ENTRIES {
        wal.append(vec![entry(index, 1 + index / 50, ENTRY_BYTES)]).expect("appends");
        wal.sync().expect("syncs");
    }
    assert!(wal.stats().segments > ENTRIES / ENTRIES_A_SEGMENT - 10, "{:?}", wal.stats());
    disk
}

/// A new process that opens the log for a tree file that has all up to `applied`; and the bytes that it read.
fn reopen(disk: &SimVfs, applied: u64, entries_kept: u64) -> Result<(Wal, Replay, u64), Error> {
    let disk = disk.restarted();
    let evidence = Evidence { applied_index: applied, applied_term: 1 + applied / 50, install: INSTALL };
    let evidence = if applied == 0 { Evidence { applied_term: 0, ..evidence } } else { evidence };
    let before = disk.counters().read_bytes;
    let (wal, replay) = Wal::open(Path::new(DIR), options_of(&disk, 1, entries_kept), evidence)?;
    let read_bytes = disk.counters().read_bytes - before;
    Ok((wal, replay, read_bytes))
}

fn check_entries(wal: &Wal) {
    let (first, last) = (wal.first_index(), wal.last_index());
    assert_eq!(last, ENTRIES);
    for found in wal.read(first, last + 1, usize::MAX).expect("reads") {
        assert_eq!(found.term, 1 + found.index / 50);
        assert_eq!(found.data, data(found.index, found.term, ENTRY_BYTES), "entry {}", found.index);
    }
}

#[test]
fn what_the_tree_file_has_is_not_read_again() {
    let disk = log();
    let (wal, _, all_bytes) = reopen(&disk, 0, 0).expect("opens");
    // The newest segment is what this process has begun.
    let segments = wal.stats().segments - 1;
    assert_eq!(wal.first_index(), 1);
    println!("applied  first index  bytes read");
    for applied in [0, 1, 50, 99, 100, 150, 199, 200] {
        let (wal, replay, bytes) = reopen(&disk, applied, 0).expect("opens");
        let first = wal.first_index();
        println!("{applied:>7}  {first:>11}  {bytes:>10}");
        assert_eq!((replay.first_index, replay.last_index), (first, ENTRIES));
        assert!(first <= applied + 1, "entry {} is to be replayed", applied + 1);
        assert!(applied < first + ENTRIES_A_SEGMENT + 1, "no segment more than those is read");
        check_entries(&wal);
        let behind = (ENTRIES - applied).div_ceil(ENTRIES_A_SEGMENT) + 1;
        assert!(
            bytes <= segments * HEAD_BYTES + behind * SEGMENT_BYTES,
            "{bytes} bytes for {behind} segments"
        );
        assert_eq!(wal.stats().segments, segments + 1, "what the checkpoint before may need stays");
        wal.release(applied).expect("releases");
        assert!(wal.stats().segments <= behind + 1, "what was passed over can go: {:?}", wal.stats());
        check_entries(&wal);
    }
    let (_, _, last_bytes) = reopen(&disk, ENTRIES, 0).expect("opens");
    assert!(last_bytes * 3 < all_bytes, "{last_bytes} bytes of {all_bytes}");
}

#[test]
fn entries_that_others_may_want_are_kept() {
    let disk = log();
    for kept in [1, 20, 70, 1000] {
        let (wal, _, _) = reopen(&disk, 150, kept).expect("opens");
        let wanted = 151_u64.saturating_sub(kept);
        assert!(wal.first_index() <= wanted.max(1), "{kept} kept, and the first is {}", wal.first_index());
        assert!(wal.first_index() + ENTRIES_A_SEGMENT + 1 > wanted, "and hardly more");
        check_entries(&wal);
    }
}

#[test]
fn damage_to_what_is_not_read_is_found_by_whoever_needs_it() {
    let disk = log();
    let segments = Wal::open(Path::new(DIR), options_of(&disk.restarted(), 1, 0), evidence(ENTRIES));
    drop(segments.expect("opens"));
    let first = Path::new(DIR).join("0000000000000001-0000000000000001.wal");
    disk.flip(&first, 17_000, 1);
    let (wal, ..) = reopen(&disk, ENTRIES, 0).expect("nothing in it is needed");
    check_entries(&wal);
    let error = reopen(&disk, 2, 0).map(|_| ()).expect_err("the third entry is");
    assert!(error.to_string().contains("0000000000000001-0000000000000001.wal is damaged"), "{error}");
    // How a segment begins is looked at in any case.
    disk.flip(&first, 100, 1);
    let error = reopen(&disk, ENTRIES, 0).map(|_| ()).expect_err("its header is wrong");
    assert!(error.to_string().contains("checksum of the segment header"), "{error}");
}

fn evidence(applied: u64) -> Evidence {
    Evidence { applied_index: applied, applied_term: 1 + applied / 50, install: INSTALL }
}
