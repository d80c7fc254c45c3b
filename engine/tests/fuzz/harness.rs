// SPDX-License-Identifier: Apache-2.0
//! Fuzz targets of any crate over their stored corpora and over new inputs from a seed, on stable.
//!
//! Owns      the mutations, the stored corpus (`tests/fuzz/corpus/TARGET/N.bin` of the crate that includes this file;
//!           `CAIRN_BLESS=1` writes it anew), and the bound on memory.
//! Holds     1. each target takes its whole corpus;
//!           2. of the new inputs enough are taken and enough refused, else the run says nothing;
//!           3. the memory that one input takes at its peak is bounded by its size, and the addresses that all of them
//!              ask for by a constant.
//! Never     knows what a target decodes. The process is its own: what else runs in it would be counted.

use std::path::{Path, PathBuf};
use std::time::Instant;

use cairn_engine::fuzz::Target;
use cairn_engine::sim::SplitMix;

/// New inputs for each target in CI, and with CAIRN_FULL=1.
const INPUTS: u64 = 20_000;
const INPUTS_FULL: u64 = 500_000;
const SEED: u64 = 71;
/// What one input may add to the process's memory at its peak: so many times its size, and this much more.
const PEAK_TIMES_MAX: u64 = 4;
const PEAK_BYTES_MAX: u64 = 8 << 20;
/// What all inputs of a target may add to the most addresses that the process had: memory that is asked for and not
/// touched counts here.
const ADDRESSES_MAX: u64 = 64 << 20;

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target.name);
    if std::env::var_os("CAIRN_BLESS").is_some() {
        std::fs::create_dir_all(&dir).expect("a directory");
        for (n, sample) in (target.samples)().iter().enumerate() {
            std::fs::write(dir.join(format!("{n}.bin")), sample).expect("the corpus is writable");
        }
    }
    let mut paths: Vec<PathBuf> = match std::fs::read_dir(&dir) {
        Ok(entries) => entries.map(|entry| entry.expect("an entry").path()).collect(),
        Err(error) => panic!("no corpus for {}: {error}", target.name),
    };
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("an input")).collect()
}

/// Changes an input in one place, which matters more often than not.
fn mutate(target: &Target, input: &mut Vec<u8>, others: &[Vec<u8>], rng: &mut SplitMix) {
    if input.is_empty() {
        input.resize(1 + rng.index(100), 0);
    }
    let len = input.len();
    let anchors = (target.anchors)(input);
    let near = (anchors[rng.index(anchors.len())] + rng.index(80)).min(len - 1);
    let at = if rng.one_in(4) { rng.index(len) } else { near };
    let width = [1, 2, 4, 8][rng.index(4)].min(len - at);
    match rng.below(10) {
        0 => input[at] ^= 1 << rng.below(8),
        1 => input[at] = rng.next_u64() as u8,
        2 => {
            let value = [0, 1, u64::MAX, u64::MAX / 2, 1 << 62, 1 << 32, 1 << 47][rng.index(7)];
            input[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        }
        3 | 4 => input[at..at + width].copy_from_slice(&rng.below(300).to_le_bytes()[..width]),
        5 => {
            let by = rng.below(3).wrapping_sub(1) as u8;
            input[at] = input[at].wrapping_add(by);
        }
        6 => {
            let (from, n) = (rng.index(len), 1 + rng.index(64));
            let n = n.min(len - from).min(len - at);
            input.copy_within(from..from + n, at);
        }
        7 => {
            // A page of another input, or of this one.
            let other = &others[rng.index(others.len())];
            let (from, to) = (rng.index(other.len()) / 4096 * 4096, at / 4096 * 4096);
            let n = 4096.min(other.len() - from).min(len - to);
            input[to..to + n].copy_from_slice(&other[from..from + n]);
        }
        8 => {
            let end = (at + rng.index(64)).min(len);
            rng.fill(&mut input[at..end]);
        }
        _ if rng.one_in(2) => input.truncate(at),
        _ => input.resize(len + rng.index(5000), rng.next_u64() as u8),
    }
}

/// A figure of this process in bytes.
fn figure(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a figure of memory");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib << 10
}

fn status() -> String {
    std::fs::read_to_string("/proc/self/status").expect("a status")
}

/// What is resident, and the most that was since the last call.
fn memory() -> (u64, u64) {
    let status = status();
    let figures = (figure(&status, "VmRSS:"), figure(&status, "VmHWM:"));
    // The peak counts from here on.
    std::fs::write("/proc/self/clear_refs", "5").expect("a process may forget its own peak");
    figures
}

/// Runs one target. Answers how many of the new inputs were taken, and the most memory that one took.
fn run(target: &Target, inputs: u64) -> (u64, u64) {
    let corpus = corpus(target);
    assert!(!corpus.is_empty(), "{}: the corpus is empty", target.name);
    for (n, input) in corpus.iter().enumerate() {
        assert!((target.run)(input), "{}: stored input {n} is not taken", target.name);
        let mut fixed = input.clone();
        (target.fix)(&mut fixed);
        assert!((target.run)(&fixed), "{}: the repair breaks stored input {n}", target.name);
    }
    let mut rng = SplitMix::new(SEED);
    let (mut taken, mut most) = (0, 0);
    for n in 0..inputs {
        let mut input = corpus[rng.index(corpus.len())].clone();
        for _ in 0..1 + rng.below(3) {
            mutate(target, &mut input, &corpus, &mut rng);
        }
        if !rng.one_in(4) {
            (target.fix)(&mut input);
        }
        let (before, _) = memory();
        let outcome = std::panic::catch_unwind(|| (target.run)(&input));
        let (_, peak) = memory();
        // First, for the text of a panic takes more memory than any input may.
        let Ok(good) = outcome else {
            let path = std::env::temp_dir().join(format!("cairn-fuzz-{}-{n}.bin", target.name));
            std::fs::write(&path, &input).expect("the input is kept");
            panic!("{}: input {n} of seed {SEED} panics; it is {}", target.name, path.display());
        };
        let grown = peak.saturating_sub(before);
        let bound = input.len() as u64 * PEAK_TIMES_MAX + PEAK_BYTES_MAX;
        assert!(grown <= bound, "{}: input {n} of seed {SEED} takes {grown} bytes", target.name);
        most = most.max(grown);
        taken += u64::from(good);
    }
    (taken, most)
}

/// Runs every target, or the one that `CAIRN_FUZZ` names, and prints what came of each. `row` is how the figures of
/// the scorecard begin, and `count` how many targets there are at least.
pub fn run_all(targets: &[Target], row: &str, count: usize) {
    let full = std::env::var_os("CAIRN_FULL").is_some_and(|value| value == "1");
    let inputs = if full { INPUTS_FULL } else { INPUTS };
    let only = std::env::var("CAIRN_FUZZ").ok();
    println!("{inputs} new inputs each, seed {SEED}");
    for target in targets.iter().filter(|target| only.as_deref().is_none_or(|name| name == target.name)) {
        let begin = Instant::now();
        let before = figure(&status(), "VmPeak:");
        let (taken, most) = run(target, inputs);
        let addresses = figure(&status(), "VmPeak:") - before;
        println!(
            "{:20} {taken:6} taken, {:6} refused, at most {:5} KiB for one, {:5.1} s",
            target.name,
            inputs - taken,
            most >> 10,
            begin.elapsed().as_secs_f64()
        );
        assert!(addresses <= ADDRESSES_MAX, "{}: {addresses} bytes were asked for", target.name);
        assert!(taken >= inputs / 100 && taken <= inputs / 100 * 99, "{}: {taken} taken", target.name);
    }
    assert!(targets.len() >= count, "{} targets", targets.len());
    println!("score: {row}-targets {} >={count} ok", targets.len());
    println!("score: {row}-inputs-each {inputs} >={inputs} ok");
}
