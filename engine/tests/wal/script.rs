// SPDX-License-Identifier: Apache-2.0
//! A log driven by lines of text, so that cases read like the specification.
//!
//! ```text
//! entries 3..6 t2 100     append entries 3, 4 and 5 of term 2 with 100 bytes each, in one append
//! hard t2 v1 c5           append a hard state: term, vote, commit
//! base 9 t3 i8            append a base: index, term, install id
//! sync | seal             as they are
//! spare                   prepare one spare, all of it
//! full                    the next write finds no room on the disk
//! read 3 6 [bytes]        read entries
//! term 4 | log            the term of an index | first and last index
//! release 5               let go of segments up to index 5
//! reopen [5 t2] [i8]      a new process: open with this evidence (applied index and term, install id)
//! crash [5 t2] [i8]       a power loss that keeps what was synced, then open
//! files                   the names of the log's files and their sizes in blocks
//! ```

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use cairn_engine::io::{Budget, Vfs};
use cairn_engine::sim::{Fault, SimVfs};
use cairn_engine::wal::{Base, Entry, Evidence, HardState, Record, Replay, Tail, Wal, WalOptions};
use cairn_engine::{Error, InstallId};
use expect_test::Expect;

pub const DIR: &str = "/wal";
pub const INSTALL: InstallId = InstallId(7);
pub const BASE: Base = Base { index: 0, term: 0, install: INSTALL };

/// Small segments: changes of segment after a few batches. With an odd seed they do not grow, so that
/// released ones are fit to be recycled.
pub fn options(disk: &SimVfs, salt_seed: u64) -> WalOptions {
    let mut options = WalOptions::new(Arc::new(disk.clone()), 1, salt_seed);
    options.first_segment_bytes = 32 << 10;
    options.segment_bytes = if salt_seed % 2 == 1 { 32 << 10 } else { 64 << 10 };
    options.batch_bytes_max = 16 << 10;
    options.cache_bytes = 4 << 10;
    options
}

/// The same for a log that is there: few entries are kept beyond what the tree file lacks, or none, so that the oldest
/// segments are passed over.
pub fn reopening(disk: &SimVfs, salt_seed: u64) -> WalOptions {
    let mut options = options(disk, salt_seed);
    options.entries_kept = salt_seed % 4;
    options
}

/// The data of an entry: any bytes that follow from its index, term and size.
pub fn data(index: u64, term: u64, bytes: usize) -> Bytes {
    (0..bytes).map(|i| (index * 31 + term * 7 + i as u64) as u8).collect()
}

pub fn entry(index: u64, term: u64, bytes: usize) -> Record {
    Record::Entry(Entry { index, term, kind: (index % 3) as u8, data: data(index, term, bytes) })
}

pub fn describe(opened: &Result<(Wal, Replay), Error>) -> String {
    match opened {
        Err(error) => format!("refused: {}", error.to_string().split(';').next().unwrap_or_default()),
        Ok((_, replay)) => {
            let HardState { term, vote, commit } = replay.hard_state;
            let tail = match &replay.tail {
                Tail::Clean => "clean".into(),
                Tail::Torn { offset, .. } => format!("torn at {offset}"),
            };
            format!("{}..={} t{term} v{vote} c{commit} {tail}", replay.first_index, replay.last_index)
        }
    }
}

pub fn check(script: &str, expect: Expect) {
    let mut disk = SimVfs::new();
    let mut wal = Some(Wal::create(Path::new(DIR), options(&disk, 0), BASE).expect("a new log"));
    let mut processes = 1;
    let mut out = String::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| -> u64 {
            words[at].trim_start_matches(|c: char| c.is_ascii_alphabetic()).parse().expect("a number")
        };
        let answer = if matches!(words[0], "reopen" | "crash") {
            drop(wal.take());
            disk = if words[0] == "crash" { disk.after_power_loss() } else { disk.restarted() };
            processes += 1;
            let install = words
                .iter()
                .find(|word| word.starts_with('i'))
                .map(|word| InstallId(word[1..].parse().expect("a number")));
            let (applied_index, applied_term) = if words.get(2).is_some_and(|w| w.starts_with('t')) {
                (number(1), number(2))
            } else {
                (0, 0)
            };
            let evidence = Evidence { applied_index, applied_term, install: install.unwrap_or(INSTALL) };
            let opened = Wal::open(Path::new(DIR), options(&disk, 2 * processes), evidence);
            let text = describe(&opened);
            wal = opened.ok().map(|(wal, _)| wal);
            text
        } else {
            run(wal.as_ref().expect("an open log"), &disk, &words, number)
        };
        writeln!(out, "{line} -> {answer}").expect("text grows");
    }
    drop(wal);
    expect.assert_eq(&out);
}

fn run(wal: &Wal, disk: &SimVfs, words: &[&str], number: impl Fn(usize) -> u64) -> String {
    let told = |result: Result<String, Error>| result.unwrap_or_else(|e| format!("error: {e}"));
    match words[0] {
        "entries" => {
            let (lo, hi) = words[1].split_once("..").expect("a range");
            let range = lo.parse::<u64>().expect("a number")..hi.parse().expect("a number");
            let records = range.map(|i| entry(i, number(2), number(3) as usize)).collect();
            told(wal.append(records).map(|no| format!("append {}", no.0)))
        }
        "hard" => {
            let state = HardState { term: number(1), vote: number(2), commit: number(3) };
            told(wal.append(vec![Record::HardState(state)]).map(|no| format!("append {}", no.0)))
        }
        "base" => {
            let base = Base { index: number(1), term: number(2), install: InstallId(number(3)) };
            told(wal.append(vec![Record::Base(base)]).map(|no| format!("append {}", no.0)))
        }
        "sync" => {
            let before = wal.stats();
            told(wal.sync().map(|point| {
                let after = wal.stats();
                let (syncs, batches) = (after.syncs - before.syncs, after.batches - before.batches);
                format!(
                    "append {} durable, last {}: {batches} batches, {syncs} syncs",
                    point.batch_no.0, point.last_index
                )
            }))
        }
        "full" => {
            disk.arm(Fault::NoSpace, 1);
            "ok".into()
        }
        "seal" => told(wal.seal().map(|()| "ok".into())),
        "spare" => told(wal.prepare_spare(Budget::UNBOUNDED).map(|progress| format!("{progress:?}"))),
        "release" => told(wal.release(number(1)).map(|()| format!("{} segments", wal.stats().segments))),
        "term" => wal.term(number(1)).map_or("unknown".into(), |term| term.to_string()),
        "log" => format!("{}..={}", wal.first_index(), wal.last_index()),
        "read" => {
            let bytes_max = words.get(3).map_or(usize::MAX, |_| number(3) as usize);
            let reads = disk.counters().reads;
            told(wal.read(number(1), number(2), bytes_max).map(|entries| {
                for e in &entries {
                    assert_eq!(e.data, data(e.index, e.term, e.data.len()), "entry {}", e.index);
                }
                let texts: Vec<_> = entries.iter().map(|e| format!("{}t{}", e.index, e.term)).collect();
                format!("{} ({} reads)", texts.join(" "), disk.counters().reads - reads)
            }))
        }
        "files" => {
            let files = disk.list(Path::new(DIR)).expect("the directory");
            let texts = files.iter().map(|path| {
                let name = path.file_name().expect("a name").to_string_lossy().into_owned();
                let short = name.trim_start_matches('0').replace("-00000000000000", "-");
                format!("{short} {}", disk.contents(path).expect("a file").len() / 4096)
            });
            texts.collect::<Vec<_>>().join(", ")
        }
        other => panic!("not a command: {other}"),
    }
}
