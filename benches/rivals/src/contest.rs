// SPDX-License-Identifier: Apache-2.0
//! The comparison itself: rounds of timed work, then files after churn, reopening, and large stores.
//!
//! Owns      the order of things.
//! Holds     1. one store works at a time, and each round begins with another one;
//!           2. each round has stores of its own, which begin empty;
//!           3. no more than one large store is on the disk.
//! Never     times anything itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::entrants::{self, CAIRN, Entrant};
use crate::figures::{Measure, Sample};
use crate::floor::Floor;
use crate::journal::{Journal, Large};
use crate::machine;
use crate::protocol::{Request, Took};
use crate::report;
use crate::settings::{BATCH, DELETE_BATCH, Settings};
use crate::store::Answer;
use crate::worker::Worker;

/// Scans of one round, after the first.
const SCANS: u64 = 3;
/// Revisions that a large store is filled by at a time.
const FILL: u64 = 100_000;
/// Times that a large store is reopened.
const LARGE_REOPENS: usize = 7;

pub fn run(settings: &Settings, rivals: &[Entrant]) -> Answer<()> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/rivals");
    let target = settings.out.clone().unwrap_or(target);
    fs::create_dir_all(&target)?;
    let entrants = chosen(settings, rivals, &target)?;
    let names: Vec<&str> = entrants.iter().map(|entrant| entrant.name).collect();
    let commit = machine::commit();
    let id = format!("{} at {commit}: {}", settings.id(), names.join(" "));
    let path = target.join(format!(
        "journal-{}{}.tsv",
        settings.value_bytes,
        if settings.quick { "-quick" } else { "" }
    ));
    let journal = Journal::open(&path, &id, settings.fresh)?;
    if journal.results.rounds > 0 {
        println!("goes on after {} rounds; --fresh begins anew", journal.results.rounds);
    }
    let dir = settings.dir.clone().unwrap_or_else(|| target.join("stores"));
    let begin = Instant::now();
    let mut contest = Contest { settings, entrants: &entrants, dir: &dir, journal };
    contest.clear()?;
    contest.rounds()?;
    contest.churned()?;
    contest.large()?;
    contest.clear()?;
    let about = report::About {
        settings,
        entrants: &entrants,
        machine: machine::describe(&dir),
        date: machine::today(),
        commit,
        minutes: begin.elapsed().as_secs_f64() / 60.0,
    };
    report::write(&about, &contest.journal.results, &target)
}

/// The engine, and the rivals that are there and wanted.
fn chosen(settings: &Settings, rivals: &[Entrant], target: &Path) -> Answer<Vec<Entrant>> {
    let mut all = entrants::all(rivals);
    let wanted = |name: &str| settings.only.is_empty() || settings.only.iter().any(|only| only == name);
    if wanted(entrants::BBOLT) {
        match entrants::bbolt(target) {
            Ok(bbolt) => all.push(bbolt),
            Err(why) if settings.only.is_empty() => println!("bbolt is left out: {why}"),
            Err(why) => return Err(why.into()),
        }
    }
    if let Some(unknown) = settings.only.iter().find(|only| all.iter().all(|entrant| entrant.name != **only))
    {
        let names: Vec<&str> = all.iter().map(|entrant| entrant.name).collect();
        return Err(format!("no store {unknown:?}; there are: {}", names.join(" ")).into());
    }
    all.retain(|entrant| entrant.name == CAIRN || wanted(entrant.name));
    Ok(all)
}

struct Contest<'c> {
    settings: &'c Settings,
    entrants: &'c [Entrant],
    dir: &'c Path,
    journal: Journal,
}

impl Contest<'_> {
    /// Removes whatever stores are there.
    fn clear(&self) -> Answer<()> {
        if self.dir.exists() {
            fs::remove_dir_all(self.dir)?;
        }
        fs::create_dir_all(self.dir)?;
        Ok(())
    }

    fn start(&self, entrant: &Entrant, what: &str) -> Answer<(Worker, PathBuf)> {
        let dir = self.dir.join(format!("{what}-{}", entrant.name));
        fs::create_dir_all(&dir)?;
        let worker = Worker::start(entrant, &dir, self.settings.value_bytes as usize)?;
        Ok((worker, dir))
    }

    fn rounds(&mut self) -> Answer<()> {
        let mut floor = Floor::new(self.dir, self.settings)?;
        let enough = |journal: &Journal| {
            let counted = |entrant: &Entrant| {
                Measure::ALL.map(|measure| journal.results.counted(entrant.name, measure)).into_iter().min()
            };
            self.entrants.iter().filter_map(counted).min().unwrap_or(0) >= self.settings.rounds()
        };
        while !enough(&self.journal) && self.journal.results.rounds < self.settings.rounds_max() {
            let round = self.journal.results.rounds;
            for turn in 0..self.entrants.len() {
                let entrant = &self.entrants[(turn + round) % self.entrants.len()];
                let begin = Instant::now();
                let (mut worker, dir) = self.start(entrant, "round")?;
                let mut bench = Bench { worker: &mut worker, floor: &mut floor, samples: Vec::new() };
                bench.round(self.settings, round as u64)?;
                let samples = bench.samples;
                worker.end()?;
                fs::remove_dir_all(dir)?;
                let mut rates = String::new();
                for (measure, sample) in samples {
                    rates += &format!("  {} {}", measure.name(), report::rate(1e9 / sample.ns));
                    self.journal.sample(entrant.name, measure, sample)?;
                }
                println!(
                    "round {:<2} {:<6} {:>5.1} s{rates}",
                    round + 1,
                    entrant.name,
                    begin.elapsed().as_secs_f64()
                );
            }
            self.journal.round()?;
        }
        Ok(())
    }

    /// Files after churn and idleness, then reopening those stores after kill -9.
    fn churned(&mut self) -> Answer<()> {
        if self.entrants.iter().all(|entrant| self.journal.results.sizes.contains_key(entrant.name)) {
            return Ok(());
        }
        self.clear()?;
        let mut workers = Vec::new();
        for entrant in self.entrants {
            let (mut worker, _) = self.start(entrant, "churn")?;
            worker.took(Request::Open { newest: 0 })?;
            let keys = self.settings.keys();
            worker.took(Request::Insert { first: 1, count: keys, batch: BATCH })?;
            worker.took(Request::Delete { lo: 1, hi: 1 + keys / 10 * 9, batch: DELETE_BATCH })?;
            worker.took(Request::Insert { first: 1 + keys, count: keys / 2, batch: BATCH })?;
            worker.took(Request::Scan { count: self.settings.values_live() })?;
            workers.push((entrant, worker));
        }
        println!("all stores are churned, and idle for {} s", self.settings.idle_s());
        std::thread::sleep(Duration::from_secs(self.settings.idle_s()));
        for (entrant, worker) in &mut workers {
            let size = worker.size()?;
            self.journal.size(entrant.name, size)?;
        }
        let mut newest = self.settings.keys() / 2 * 3;
        let tail = self.settings.tail();
        for _ in 0..self.settings.rounds() {
            for (entrant, worker) in &mut workers {
                worker.took(Request::Insert { first: newest + 1, count: tail, batch: BATCH })?;
                let next = self.start(entrant, "churn")?.0;
                std::mem::replace(worker, next).kill()?;
                let took = worker.took(Request::Open { newest: newest + tail })?;
                self.journal.reopen(entrant.name, false, took.ns as f64 / 1e6)?;
            }
            newest += tail;
        }
        for (entrant, worker) in workers {
            worker.end().map_err(|error| format!("{}: {error}", entrant.name))?;
        }
        self.clear()
    }

    /// Reopening stores of many revisions after kill -9.
    fn large(&mut self) -> Answer<()> {
        for entrant in self.entrants {
            if self.journal.results.reopens_ms.contains_key(&(entrant.name.to_owned(), true)) {
                continue;
            }
            self.clear()?;
            let begin = Instant::now();
            let (mut worker, _) = self.start(entrant, "large")?;
            worker.took(Request::Open { newest: 0 })?;
            let mut newest = 0;
            let patience = Duration::from_secs(self.settings.large_s);
            while newest < self.settings.large() && (entrant.name == CAIRN || begin.elapsed() < patience) {
                let count = FILL.min(self.settings.large() - newest);
                worker.took(Request::Insert { first: newest + 1, count, batch: BATCH })?;
                newest += count;
            }
            let fill_s = begin.elapsed().as_secs_f64();
            println!("large {:<6} {newest} revisions in {fill_s:.0} s", entrant.name);
            self.journal.large(entrant.name, Large { revisions: newest, fill_s })?;
            let tail = self.settings.tail();
            let mut took = Vec::new();
            for _ in 0..LARGE_REOPENS {
                worker.took(Request::Insert { first: newest + 1, count: tail, batch: BATCH })?;
                newest += tail;
                let next = self.start(entrant, "large")?.0;
                std::mem::replace(&mut worker, next).kill()?;
                took.push(worker.took(Request::Open { newest })?);
            }
            worker.kill()?;
            for Took { ns, .. } in took {
                self.journal.reopen(entrant.name, true, ns as f64 / 1e6)?;
            }
        }
        Ok(())
    }
}

/// One store's turn in a round.
struct Bench<'b> {
    worker: &'b mut Worker,
    floor: &'b mut Floor,
    samples: Vec<(Measure, Sample)>,
}

impl Bench<'_> {
    fn round(&mut self, settings: &Settings, round: u64) -> Answer<()> {
        let keys = settings.keys();
        let deleted = keys / 10 * 9;
        let again = keys / 2;
        self.worker.took(Request::Open { newest: 0 })?;
        self.sample(Measure::Insert, keys, Request::Insert { first: 1, count: keys, batch: BATCH })?;
        self.worker.took(Request::Settle)?;
        self.sample(Measure::FirstScan, keys, Request::Scan { count: keys })?;
        for _ in 0..SCANS {
            self.sample(Measure::Scan, keys, Request::Scan { count: keys })?;
        }
        let reads = settings.reads();
        let read = Request::Read { lo: 1, hi: keys + 1, count: reads, seed: round };
        self.sample(Measure::Read, reads, read)?;
        let delete = Request::Delete { lo: 1, hi: 1 + deleted, batch: DELETE_BATCH };
        self.sample(Measure::Delete, deleted, delete)?;
        let insert = Request::Insert { first: keys + 1, count: again, batch: BATCH };
        self.sample(Measure::Reinsert, again, insert)
    }

    /// Does `request`, which is `operations` of `measure`, between two floors.
    fn sample(&mut self, measure: Measure, operations: u64, request: Request) -> Answer<()> {
        let floor_before_ns = self.floor_ns(measure)?;
        let took = self.worker.took(request)?;
        let floor_after_ns = self.floor_ns(measure)?;
        let sample = Sample {
            ns: took.ns as f64 / operations as f64,
            floor_before_ns,
            floor_after_ns,
            commit_p50_us: took.commit_p50_ns as f64 / 1e3,
            commit_p99_us: took.commit_p99_ns as f64 / 1e3,
        };
        self.samples.push((measure, sample));
        Ok(())
    }

    fn floor_ns(&mut self, measure: Measure) -> Answer<f64> {
        if measure.is_write() { self.floor.write_ns() } else { Ok(self.floor.read_ns()) }
    }
}
