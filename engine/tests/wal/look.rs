// SPDX-License-Identifier: Apache-2.0
//! Looking at a log from outside: it says what an open would say, and what is written beside it is not damage.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use cairn_engine::Error;
use cairn_engine::io::{Budget, Progress, Vfs};
use cairn_engine::sim::{Beside, SimVfs, SplitMix};
use cairn_engine::wal::{Evidence, HardState, LogLook, LogRecord, Record, Wal};

use crate::script::{BASE, DIR, INSTALL, entry, options};

const BLOCK: usize = 4096;

/// The next thing that a member does with its log.
fn work(wal: &Wal, applied: &Mutex<u64>, rng: &mut SplitMix) {
    let last = wal.last_index();
    match rng.below(12) {
        0 => wal.seal().expect("seals"),
        1 => {
            wal.prepare_spare(Budget::UNBOUNDED).map(|_: Progress| ()).expect("prepares");
        }
        2 => {
            let durable = wal.durable().last_index;
            let mut applied = applied.lock().expect("no one panics");
            *applied = durable;
            wal.release(durable.saturating_sub(rng.below(20))).expect("releases");
        }
        3 => {
            let commit = wal.durable().last_index;
            wal.append(vec![Record::HardState(HardState { term: 1, vote: 1, commit })]).expect("appends");
        }
        n => {
            let records = (last + 1..=last + 1 + rng.below(4)).map(|i| entry(i, 1, 50 + rng.index(9000)));
            wal.append(records.collect()).expect("appends");
            if n > 5 {
                wal.sync().expect("syncs");
            }
        }
    }
}

#[test]
fn a_log_that_is_written_released_and_recycled_beside_a_look_is_never_called_damaged() {
    let (mut whole, mut given_up, mut batches) = (0, 0, 0);
    for seed in 1..=80u64 {
        let disk = SimVfs::new();
        let wal = Arc::new(Wal::create(Path::new(DIR), options(&disk, 2 * seed + 1), BASE).expect("new"));
        let applied = Arc::new(Mutex::new(0));
        let mut rng = SplitMix::new(seed);
        for _ in 0..100 {
            work(&wal, &applied, &mut rng);
        }
        wal.sync().expect("syncs");
        let (pace, writer, now) = (1 + rng.below(40), Arc::clone(&wal), Arc::clone(&applied));
        let beside = Beside::new(disk, move |_| {
            if rng.one_in(pace) {
                work(&writer, &now, &mut rng);
            }
        });
        for _ in 0..5 {
            let durable = wal.durable().last_index;
            let looked = LogLook::open(&beside, Path::new(DIR), || {
                let applied_index = *applied.lock().expect("no one panics");
                Ok(Some(Evidence {
                    applied_index,
                    applied_term: u64::from(applied_index > 0),
                    install: INSTALL,
                }))
            });
            let look = match looked {
                Ok(look) => look,
                Err(Error::Overtaken { .. }) => {
                    given_up += 1;
                    continue;
                }
                Err(error) => panic!("seed {seed}: {error}"),
            };
            assert!(look.last_index >= durable, "seed {seed}: {} after {durable}", look.last_index);
            whole += 1;
            match look.batches(|_, batch| {
                batches += u64::from(batch.bytes > 0);
                Ok::<_, Error>(())
            }) {
                Ok(()) | Err(Error::Overtaken { .. }) => {}
                Err(error) => panic!("seed {seed}: {error}"),
            }
        }
    }
    println!("{whole} looks, {given_up} given up, {batches} batches read");
    assert!(whole > 200 && batches > 1000, "{whole} {batches}");
}

/// A log of a few segments, and the files that it is in.
fn some_log(seed: u64) -> (SimVfs, Vec<(PathBuf, Vec<u8>)>) {
    let disk = SimVfs::new();
    let wal = Wal::create(Path::new(DIR), options(&disk, 2 * seed), BASE).expect("new");
    let mut rng = SplitMix::new(seed);
    let applied = Mutex::new(0);
    for _ in 0..60 {
        work(&wal, &applied, &mut rng);
    }
    wal.sync().expect("syncs");
    drop(wal);
    let files = disk.list(Path::new(DIR)).expect("lists").into_iter();
    let files = files.map(|path| (path.clone(), disk.contents(&path).expect("is there"))).collect();
    (disk, files)
}

#[test]
fn a_look_at_a_damaged_log_says_what_an_open_would_say() {
    let (mut refused, mut torn) = (0, 0);
    for seed in 1..=400u64 {
        let (_, files) = some_log(seed % 8);
        let mut rng = SplitMix::new(seed);
        let disk = SimVfs::new();
        for (path, bytes) in &files {
            disk.plant(path, bytes);
        }
        let (path, bytes) = &files[rng.index(files.len())];
        disk.flip(path, rng.below(bytes.len() as u64), 1 << rng.below(8));
        let evidence = Evidence { applied_index: rng.below(40), applied_term: 1, install: INSTALL };
        let evidence =
            if evidence.applied_index == 0 { Evidence { applied_term: 0, ..evidence } } else { evidence };
        let beside = Beside::new(disk.clone(), |_| ());
        let look = LogLook::open(&beside, Path::new(DIR), || Ok(Some(evidence)));
        let look = look.map(|look| (look.first_index, look.last_index, look.tail));
        let open = Wal::open(Path::new(DIR), options(&disk, 3), evidence);
        let open = open.map(|(_, replay)| (replay.first_index, replay.last_index, replay.tail));
        let text = |found: &Result<_, Error>| format!("{:?}", found.as_ref().map_err(ToString::to_string));
        assert_eq!(text(&look), text(&open), "seed {seed}");
        refused += u64::from(open.is_err());
        torn += u64::from(matches!(open, Ok((_, _, cairn_engine::wal::Tail::Torn { .. }))));
    }
    println!("{refused} refused, {torn} torn");
    assert!(refused > 50, "{refused}");
}

#[test]
fn what_is_whole_of_a_damaged_log_is_all_that_comes_before_the_damage() {
    let disk = SimVfs::new();
    let wal = Wal::create(Path::new(DIR), options(&disk, 2), BASE).expect("new");
    for index in 1..=60 {
        wal.append(vec![entry(index, 1, 3000)]).expect("appends");
        wal.sync().expect("syncs");
    }
    drop(wal);
    let all = |disk: &SimVfs| {
        let mut indexes = Vec::new();
        let end = LogLook::whole_batches(disk, Path::new(DIR), |_, batch| {
            indexes.extend(batch.records.iter().filter_map(|record| match record {
                LogRecord::Entry(entry) => Some(entry.index),
                _ => None,
            }));
            Ok::<_, Error>(())
        });
        (indexes, end.expect("reads"))
    };
    let (whole, end) = all(&disk);
    assert!(whole.len() == 60 && end.is_none(), "{} {end:?}", whole.len());
    let files = disk.list(Path::new(DIR)).expect("lists");
    let segments: Vec<_> = files.iter().filter(|path| path.extension().is_some()).collect();
    assert!(segments.len() > 2, "{}", segments.len());
    let path = segments[1];
    disk.flip(path, 2 * BLOCK as u64 + 50, 1);
    let (left, end) = all(&disk);
    assert!(!left.is_empty() && left.len() < whole.len() && whole.starts_with(&left));
    let end = end.expect("a segment follows");
    assert_eq!((&end.file, end.offset), (path, Some(2 * BLOCK as u64)), "{end}");
}
