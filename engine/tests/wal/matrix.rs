// SPDX-License-Identifier: Apache-2.0
//! What the end of a log means: every kind of damage, with every kind of proof. The answers are the table
//! `tail-matrix.txt` beside this file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use cairn_engine::Error;
use cairn_engine::io::Vfs;
use cairn_engine::sim::SimVfs;
use cairn_engine::wal::{Evidence, HardState, Record, Tail, Wal, WalOptions};
use expect_test::expect_file;

use crate::script::{BASE, DIR, INSTALL, entry, options};

const BLOCK: usize = 4096;
/// In the newest segment: header, carried state, then entries 4 and 5 of one block and 6 of two.
const ENTRY_4: usize = 2 * BLOCK;
const ENTRY_5: usize = 3 * BLOCK;
const ENTRY_6: usize = 4 * BLOCK;
/// Entries of the newest segment, with their sizes.
const LAST: [(u64, usize); 3] = [(4, 100), (5, 100), (6, 5000)];

const DAMAGES: [&str; 12] = [
    "clean",
    "torn",
    "hole",
    "corrupt last",
    "corrupt middle",
    "corrupt both",
    "stale recycled",
    "missing oldest",
    "missing middle",
    "missing newest",
    "truncated middle",
    "truncated newest",
];
const WITNESSES: [&str; 3] = ["durable_no", "seal", "none"];
const AHEAD: [&str; 3] = ["-", "slot", "commit"];

/// One append a batch, so that several batches can share a sync and say nothing of each other.
fn narrow(disk: &SimVfs, salt: u64) -> WalOptions {
    let mut options = options(disk, salt);
    options.batch_bytes_max = 1;
    options.first_segment_bytes = 64 << 10;
    options
}

fn evidence(applied_index: u64) -> Evidence {
    Evidence { applied_index, applied_term: applied_index.min(1), install: INSTALL }
}

/// Three segments: entries 1 and 2, entry 3, and entries 4 to 6 with the witness behind them.
fn build(witness: &str, ahead: &str, salt: u64) -> SimVfs {
    let disk = SimVfs::new();
    let dir = Path::new(DIR);
    let wal = Wal::create(dir, narrow(&disk, salt), BASE).expect("a new log");
    wal.append(vec![entry(1, 1, 100), entry(2, 1, 100)]).expect("healthy");
    wal.sync().expect("healthy");
    drop(wal);
    let (wal, _) = Wal::open(dir, narrow(&disk, salt), evidence(0)).expect("whole");
    wal.append(vec![entry(3, 1, 100)]).expect("healthy");
    if ahead == "commit" {
        // Entries 4 to 6 were there once before, and committed; those below void them and are the same.
        wal.append(LAST.map(|(index, bytes)| entry(index, 1, bytes)).to_vec()).expect("healthy");
        wal.append(vec![Record::HardState(HardState { term: 1, vote: 1, commit: 6 })]).expect("healthy");
    }
    wal.sync().expect("healthy");
    drop(wal);
    let (wal, _) = Wal::open(dir, narrow(&disk, salt), evidence(0)).expect("whole");
    for (index, bytes) in LAST {
        wal.append(vec![entry(index, 1, bytes)]).expect("healthy");
        if witness == "durable_no" {
            wal.sync().expect("healthy");
        }
    }
    wal.sync().expect("healthy");
    match witness {
        "durable_no" => {
            wal.append(vec![Record::HardState(HardState { term: 1, vote: 1, commit: 0 })]).expect("healthy");
            wal.sync().expect("healthy");
        }
        "seal" => wal.seal().expect("healthy"),
        _ => {}
    }
    drop(wal);
    disk
}

fn segments(disk: &SimVfs) -> Vec<PathBuf> {
    disk.list(Path::new(DIR)).expect("the directory")
}

fn damage(disk: &SimVfs, damage: &str, other: &SimVfs) {
    let files = segments(disk);
    let newest = &files[2];
    let mut bytes = disk.contents(newest).expect("a file");
    match damage {
        "clean" => {}
        "torn" => bytes[ENTRY_6 + BLOCK..ENTRY_6 + 2 * BLOCK].fill(0),
        "hole" => bytes[ENTRY_5..ENTRY_6].fill(0),
        "corrupt last" => bytes[ENTRY_6 + 200] ^= 1,
        "corrupt middle" => bytes[ENTRY_4 + 80] ^= 1,
        "corrupt both" => {
            bytes[ENTRY_4 + 80] ^= 1;
            bytes[ENTRY_6 + 200] ^= 1;
        }
        "stale recycled" => {
            let old = other.contents(&segments(other)[2]).expect("a file");
            bytes[ENTRY_6..ENTRY_6 + 2 * BLOCK].copy_from_slice(&old[ENTRY_6..ENTRY_6 + 2 * BLOCK]);
            bytes[40..48].copy_from_slice(&old[32..40]);
            let crc = crc32fast::hash(&bytes[..BLOCK - 4]);
            bytes[BLOCK - 4..BLOCK].copy_from_slice(&crc.to_le_bytes());
        }
        "missing oldest" => return disk.remove(&files[0]).expect("removed"),
        "missing middle" => return disk.remove(&files[1]).expect("removed"),
        "missing newest" => return disk.remove(newest).expect("removed"),
        "truncated middle" => {
            let middle = disk.contents(&files[1]).expect("a file");
            return disk.plant(&files[1], &middle[..2 * BLOCK]);
        }
        "truncated newest" => bytes.truncate(ENTRY_6 + BLOCK),
        other => panic!("not a damage: {other}"),
    }
    disk.plant(newest, &bytes);
}

fn outcome(disk: &SimVfs, applied: u64) -> String {
    match Wal::open(Path::new(DIR), narrow(disk, 99), evidence(applied)) {
        Ok((wal, replay)) => {
            let tail = match replay.tail {
                Tail::Clean => "clean".into(),
                Tail::Torn { offset, .. } => format!("torn at {offset}"),
            };
            let last = wal.last_index();
            if replay.first_index <= last {
                wal.read(replay.first_index, last + 1, usize::MAX).expect("what is kept can be read");
            }
            format!("{}..={last} {tail}", replay.first_index)
        }
        Err(Error::Corrupt(damage)) => {
            let file = damage.file.file_name().map(|name| name.to_string_lossy()[15..16].to_string());
            let place =
                format!("segment {} at {}", file.unwrap_or_default(), damage.offset.unwrap_or_default());
            format!("refused, {place}: {}", damage.what)
        }
        Err(error) => panic!("not a refusal: {error}"),
    }
}

#[test]
fn the_end_of_a_log_is_cut_only_where_nothing_proves_a_loss() {
    let mut table = String::new();
    for name in DAMAGES {
        for witness in WITNESSES {
            for ahead in AHEAD {
                let disk = build(witness, ahead, 5);
                damage(&disk, name, &build(witness, ahead, 6));
                let result = outcome(&disk, if ahead == "slot" { 6 } else { 0 });
                writeln!(table, "{name:16} | {witness:10} | {ahead:6} | {result}").expect("text grows");
            }
        }
    }
    expect_file!["./tail-matrix.txt"].assert_eq(&table);
}
