// SPDX-License-Identifier: Apache-2.0
//! Recovery over mutated bytes, on stable and from a seed.

use std::collections::BTreeMap;
use std::path::Path;

use cairn_engine::io::Vfs;
use cairn_engine::sim::{SimVfs, SplitMix};
use cairn_engine::wal::fuzz::{Outcome, fix_checksums, recover_any};
use cairn_engine::wal::{Evidence, Wal};

use crate::model::{History, random_records};
use crate::script::{BASE, DIR, INSTALL, options};

/// Inputs in CI, and with CAIRN_FULL=1.
const INPUTS: u64 = 30_000;
const INPUTS_FULL: u64 = 2_000_000;
const SEED: u64 = 7;

/// Logs of some segments, to start from.
fn corpus() -> Vec<Vec<Vec<u8>>> {
    (0..8)
        .map(|n| {
            let disk = SimVfs::new();
            let mut history = History::new();
            let mut rng = SplitMix::new(SEED + n);
            let wal = Wal::create(Path::new(DIR), options(&disk, n), BASE).expect("a new log");
            for _ in 0..3 + 4 * n {
                let records = random_records(history.now(), &mut rng);
                history.step(records.clone());
                wal.append(records).expect("healthy");
                if rng.one_in(2) {
                    wal.sync().expect("healthy");
                }
            }
            wal.seal().expect("healthy");
            let files = disk.list(Path::new(DIR)).expect("the directory");
            files.iter().map(|path| disk.contents(path).expect("a file")).collect()
        })
        .collect()
}

/// A place that matters more often than not: in the first bytes of a block, where headers are.
fn place(len: usize, rng: &mut SplitMix) -> usize {
    let any = rng.index(len);
    if rng.one_in(4) { any } else { (any / 4096 * 4096 + rng.index(160)).min(len - 1) }
}

fn mutate(segment: &mut Vec<u8>, rng: &mut SplitMix) {
    if segment.is_empty() {
        return;
    }
    let at = place(segment.len(), rng);
    match rng.below(9) {
        0 => segment[at] ^= 1 << rng.below(8),
        1 => segment[at] = rng.next_u64() as u8,
        2 => {
            let end = (at + 8).min(segment.len());
            let value = [0, 1, u64::MAX, u64::MAX / 2, 1 << 62, 1 << 32][rng.index(6)];
            segment[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
        }
        3 => {
            let end = (at + 4).min(segment.len());
            segment[at..end].copy_from_slice(&(rng.below(20_000) as u32).to_le_bytes()[..end - at]);
        }
        4 => segment.truncate(at),
        5 => {
            let end = (at + rng.index(5000)).min(segment.len());
            segment[at..end].fill(0);
        }
        6 => {
            let from = rng.index(segment.len()) / 4096 * 4096;
            let to = at / 4096 * 4096;
            let n = 4096.min(segment.len() - from).min(segment.len() - to);
            segment.copy_within(from..from + n, to);
        }
        7 => {
            let end = (at + rng.index(64)).min(segment.len());
            rng.fill(&mut segment[at..end]);
        }
        _ => segment.extend_from_slice(&vec![rng.next_u64() as u8; rng.index(5000)]),
    }
}

#[test]
fn recovery_reads_or_refuses_any_bytes() {
    let inputs = if std::env::var_os("CAIRN_FULL").is_some() { INPUTS_FULL } else { INPUTS };
    let corpus = corpus();
    let mut rng = SplitMix::new(SEED);
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for _ in 0..inputs {
        let mut segments = corpus[rng.index(corpus.len())].clone();
        for _ in 0..1 + rng.below(3) {
            let segment = rng.index(segments.len());
            mutate(&mut segments[segment], &mut rng);
        }
        if rng.one_in(20) {
            let (a, b) = (rng.index(segments.len()), rng.index(segments.len()));
            segments.swap(a, b);
        }
        if !rng.one_in(5) {
            fix_checksums(&mut segments);
        }
        let evidence = Evidence {
            applied_index: if rng.one_in(8) { rng.below(40) } else { 0 },
            applied_term: if rng.one_in(8) { rng.below(4) } else { 0 },
            install: INSTALL,
        };
        let outcome = match recover_any(&segments, &evidence) {
            Outcome::Log(0) => "empty log",
            Outcome::Log(_) => "log",
            Outcome::Refused => "refused",
        };
        *counts.entry(outcome).or_default() += 1;
    }
    println!("{inputs} inputs, seed {SEED}: {counts:?}");
    assert!(counts["log"] > inputs / 20 && counts["refused"] > inputs / 20, "{counts:?}");
    println!("score: log-fuzz-inputs {inputs} >={inputs} ok");
}
