// SPDX-License-Identifier: Apache-2.0
//! Damage in memory: each byte of a log flipped in turn.

use std::collections::BTreeMap;
use std::path::Path;

use cairn_engine::Error;
use cairn_engine::io::Vfs;
use cairn_engine::sim::{SimVfs, SplitMix};
use cairn_engine::wal::{Tail, Wal, WalOptions};

use crate::model::{History, random_records};
use crate::script::{BASE, DIR, options};

/// Bytes of the log in CI, and with CAIRN_FULL=1.
const LOG_BYTES: u64 = 64 << 10;
const LOG_BYTES_FULL: u64 = 1 << 20;
const SEED: u64 = 42;

fn log_bytes() -> u64 {
    if std::env::var_os("CAIRN_FULL").is_some() { LOG_BYTES_FULL } else { LOG_BYTES }
}

/// Two segments of half the size each, so that one is sealed by the other and one by a seal.
fn wal_options(disk: &SimVfs, bytes: u64) -> WalOptions {
    let mut options = options(disk, SEED);
    options.first_segment_bytes = bytes / 2;
    options.segment_bytes = bytes / 2;
    options
}

/// A log filled to `bytes`, with the newest batch as `seal` says.
fn build(bytes: u64, seal: bool) -> (SimVfs, History) {
    let disk = SimVfs::new();
    let mut history = History::new();
    let mut rng = SplitMix::new(SEED);
    let wal = Wal::create(Path::new(DIR), wal_options(&disk, bytes), BASE).expect("a new log");
    while wal.stats().written_bytes < bytes - (24 << 10) {
        for _ in 0..4 {
            let records = random_records(history.now(), &mut rng);
            history.step(records.clone());
            wal.append(records).expect("healthy");
        }
        wal.sync().expect("healthy");
    }
    assert_eq!(wal.stats().segments, 2, "both segments are in use");
    if seal {
        wal.seal().expect("healthy");
    }
    (disk.restarted(), history)
}

/// Opens a damaged log, and names the outcome. Panics for one that is none of the allowed.
fn outcome(disk: &SimVfs, bytes: u64, history: &History, place: &str) -> &'static str {
    let evidence = history.now().evidence();
    let (wal, replay) = match Wal::open(Path::new(DIR), wal_options(disk, bytes), evidence) {
        Ok(opened) => opened,
        Err(Error::Corrupt(damage)) => {
            assert!(damage.file.starts_with(DIR), "{place}: {damage} names no file of the log");
            assert!(damage.offset.is_some(), "{place}: {damage} names no offset");
            return "refused";
        }
        Err(error) => panic!("{place}: {error}"),
    };
    let differs = |n: usize| history.states[n].differs(&wal, replay.hard_state, &evidence);
    let newest = history.states.len() - 1;
    match differs(newest) {
        None => "equal",
        Some(difference) => {
            assert!(matches!(replay.tail, Tail::Torn { .. }), "{place}: {difference} and no torn tail");
            assert!(
                (0..newest).any(|n| differs(n).is_none()),
                "{place}: {difference}, and no earlier step either"
            );
            "torn"
        }
    }
}

/// Flips one byte after the other of the newest `files` files, and counts the outcomes.
pub fn flip_each(bytes: u64, seal: bool, files: usize) -> BTreeMap<&'static str, u64> {
    let (disk, history) = build(bytes, seal);
    let mut rng = SplitMix::new(SEED);
    let mut outcomes = BTreeMap::new();
    for path in disk.list(Path::new(DIR)).expect("the directory").iter().rev().take(files) {
        let content = disk.contents(path).expect("a file");
        for at in 0..content.len() {
            let damaged = disk.restarted();
            damaged.stop_recording();
            damaged.flip(path, at as u64, 1 + rng.below(255) as u8);
            let place = format!("{} byte {at}", path.display());
            *outcomes.entry(outcome(&damaged, bytes, &history, &place)).or_default() += 1;
        }
    }
    println!("{bytes} bytes, seal {seal}, seed {SEED}: {outcomes:?}");
    outcomes
}

#[test]
fn a_flipped_byte_of_a_sealed_log_changes_nothing_or_is_named() {
    let outcomes = flip_each(log_bytes(), true, 2);
    assert_eq!(outcomes.get("torn"), None, "a loss in a sealed log passed for a crash");
    println!("score: log-bytes-flipped {} >={} ok", log_bytes(), log_bytes());
    assert!(outcomes["refused"] > log_bytes() / 2 && outcomes["equal"] > 0, "{outcomes:?}");
}

#[test]
fn a_flipped_byte_of_the_newest_batch_without_a_seal_is_a_torn_tail() {
    let outcomes = flip_each(LOG_BYTES, false, 1);
    assert!(outcomes["torn"] > 40 && outcomes["refused"] > 1000, "{outcomes:?}");
}
