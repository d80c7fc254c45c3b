// SPDX-License-Identifier: Apache-2.0
//! `engine bench`: what the engine does on a disk, beside what the disk does.
//!
//! Owns      a scratch member, the phases over it, and their figures.
//! Holds     1. the floor is the same bytes in the same batches, summed, appended and synced, and nothing else;
//!           2. an insert counts once its batch is durable in the log and visible in the store, as a member answers it,
//!              with checkpoints beside it on a thread, as a member makes them;
//!           3. the scratch directory goes when the command ends.
//! Never     runs in a directory that is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cairn_engine::io::{Budget, OpenHow, Progress as Step};
use cairn_engine::wal::{Base, Entry, HardState, Record, Wal, WalOptions};
use cairn_engine::{Db, Error, InstallId, Options};
use cairn_mvcc::{KeyRange, OpError, PutOp, RangeEnd, RangeOp, SCHEMA, Store, Stored};
use serde::Serialize;

use super::vfs;
use crate::bytes::{grouped, size};
use crate::cli;
use crate::outcome::{Failure, Outcome, Verdict};
use crate::output::{Column, Output, Table, left, right};
use crate::progress::{Progress, Unit};

/// The scratch directory.
const SCRATCH: &str = "engine-bench";

/// Bytes of a log segment that the floor's file has at least.
const FLOOR_BYTES_MIN: u64 = 1 << 20;

const MEMBER_ID: u64 = 1;

#[derive(Serialize)]
struct Report {
    dir: String,
    keys: u64,
    value_bytes: u64,
    batch: u64,
    phases: Vec<Phase>,
    /// Of the tree file, after all.
    file_bytes: u64,
    used_bytes: u64,
}

/// The figures of one phase.
#[derive(Serialize)]
struct Phase {
    name: &'static str,
    keys: u64,
    seconds: f64,
    keys_per_second: f64,
    bytes_per_second: f64,
    /// Of one batch, or of one read; a scan is one.
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
}

const COLUMNS: &[Column] = &[
    left("PHASE"),
    right("KEYS"),
    right("SECONDS"),
    right("KEYS/S"),
    right("BYTES/S"),
    right("P50"),
    right("P99"),
    right("LONGEST"),
];

/// A directory that goes with this.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is told by the next run, which refuses.
        fs::remove_dir_all(&self.0).ok();
    }
}

/// The times of one phase.
struct Clock {
    began: Instant,
    last: Instant,
    times_ns: Vec<u64>,
}

impl Clock {
    fn new() -> Clock {
        let now = Instant::now();
        Clock { began: now, last: now, times_ns: Vec::new() }
    }

    fn lap(&mut self) {
        let now = Instant::now();
        self.times_ns.push((now - self.last).as_nanos() as u64);
        self.last = now;
    }

    fn phase(mut self, name: &'static str, keys: u64, bytes: u64) -> Phase {
        let seconds = (self.last - self.began).as_secs_f64().max(1e-9);
        self.times_ns.sort_unstable();
        let at = |part: f64| {
            let place =
                ((self.times_ns.len() as f64 * part) as usize).min(self.times_ns.len().saturating_sub(1));
            self.times_ns.get(place).copied().unwrap_or(0) as f64 / 1e3
        };
        Phase {
            name,
            keys,
            seconds,
            keys_per_second: keys as f64 / seconds,
            bytes_per_second: bytes as f64 / seconds,
            p50_us: at(0.5),
            p99_us: at(0.99),
            max_us: at(1.0),
        }
    }
}

struct Load {
    keys: u64,
    value: Bytes,
    batch: u64,
}

impl Load {
    fn key(n: u64) -> Bytes {
        // In no order: an odd factor visits each once.
        format!("bench/{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).into()
    }

    fn key_bytes(&self) -> u64 {
        (Load::key(0).len() + self.value.len()) as u64
    }

    fn batches(&self) -> impl Iterator<Item = std::ops::Range<u64>> {
        let (keys, batch) = (self.keys, self.batch);
        (0..keys).step_by(batch as usize).map(move |from| from..keys.min(from + batch))
    }
}

pub fn run(args: &cli::Bench, output: &mut Output) -> Outcome {
    if !args.dir.is_dir() {
        return Err(Failure::Unable(format!("{} is no directory", args.dir.display())));
    }
    let dir = args.dir.join(SCRATCH);
    fs::create_dir(&dir).map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => {
            let dir = dir.display();
            Failure::Unable(format!(
                "{dir} is there: another bench is at work, or was cut short; remove it if none is"
            ))
        }
        _ => Failure::io("make", &dir, &e),
    })?;
    let scratch = Scratch(dir);
    let value = vec![b'v'; usize::try_from(args.value_bytes).unwrap_or(usize::MAX)];
    let load = Load { keys: args.keys, value: value.into(), batch: args.batch };
    let mut phases = vec![floor(&scratch.0, &load)?];
    let (wal, db, mut store) = make(&scratch.0)?;
    phases.push(insert(&wal, &db, &mut store, &load)?);
    db.checkpoint()?;
    phases.push(reads(&store, &load)?);
    phases.push(scan(&db, &load)?);
    let stats = db.stats();
    let report = Report {
        dir: args.dir.display().to_string(),
        keys: load.keys,
        value_bytes: load.value.len() as u64,
        batch: load.batch,
        phases,
        file_bytes: stats.file_bytes,
        used_bytes: stats.used_bytes,
    };
    drop((wal, db, store, scratch));
    if output.json {
        output.json(&report)?;
    } else {
        print(&report, output)?;
    }
    Ok(Verdict::Sound)
}

/// The same bytes in the same batches: summed, appended to a file that is written before, and synced.
fn floor(dir: &Path, load: &Load) -> Outcome<Phase> {
    let path = dir.join("floor");
    let failed = |e: std::io::Error| Failure::io("write", &path, &e);
    let file = vfs().open(&path, OpenHow::CreateNew).map_err(failed)?;
    let bytes = (load.keys * load.key_bytes()).next_multiple_of(FLOOR_BYTES_MIN);
    let zeros = vec![0; FLOOR_BYTES_MIN as usize];
    for at in (0..bytes).step_by(zeros.len()) {
        file.write_all_at(&zeros, at).map_err(failed)?;
    }
    file.sync_data().map_err(failed)?;
    let mut progress = Progress::new("writing the floor", Unit::Things("keys"), load.keys);
    let mut clock = Clock::new();
    let mut at = 0;
    let mut buffer = Vec::new();
    for batch in load.batches() {
        buffer.clear();
        let keys = batch.end - batch.start;
        for n in batch {
            buffer.extend_from_slice(&Load::key(n));
            buffer.extend_from_slice(&load.value);
        }
        let sum = crc32fast::hash(&buffer);
        buffer[..4].copy_from_slice(&sum.to_le_bytes());
        file.write_all_at(&buffer, at).map_err(failed)?;
        file.sync_data().map_err(failed)?;
        at += buffer.len() as u64;
        clock.lap();
        progress.tick(keys);
    }
    Ok(clock.phase("floor", load.keys, load.keys * load.key_bytes()))
}

fn make(dir: &Path) -> Outcome<(Wal, Db, Store)> {
    let (install, options) = (InstallId(1), WalOptions::new(vfs(), MEMBER_ID, 1));
    let wal = Wal::create(&dir.join("wal"), options, Base { index: 0, term: 1, install })?;
    let db = Db::create(dir, SCHEMA, install, Options::default())?;
    let store = Store::open(db.clone())?;
    Ok((wal, db, store))
}

fn insert(wal: &Wal, db: &Db, store: &mut Store, load: &Load) -> Outcome<Phase> {
    let mut progress = Progress::new("inserting", Unit::Things("keys"), load.keys);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let checkpoints = scope.spawn(|| checkpoints(wal, db, &stop));
        let inserted = batches(wal, db, store, load, &mut progress);
        stop.store(true, Ordering::Release);
        let beside = checkpoints.join().expect("the thread does not panic");
        let clock = inserted?;
        beside?;
        Ok(clock.phase("insert", load.keys, load.keys * load.key_bytes()))
    })
}

fn batches(wal: &Wal, db: &Db, store: &mut Store, load: &Load, progress: &mut Progress) -> Outcome<Clock> {
    let mut clock = Clock::new();
    let mut index = 0;
    for batch in load.batches() {
        let keys = batch.end - batch.start;
        let mut records = Vec::with_capacity(keys as usize + 1);
        for n in batch.clone() {
            index += 1;
            let data = [&Load::key(n)[..], &load.value].concat().into();
            records.push(Record::Entry(Entry { index, term: 1, kind: 0, data }));
        }
        records.push(Record::HardState(HardState { term: 1, vote: MEMBER_ID, commit: index }));
        wal.append(records)?;
        db.log_durable(wal.sync()?.last_index);
        let mut txn = store.batch()?;
        for n in batch {
            let value = Some(load.value.clone());
            let put = PutOp { key: Load::key(n), value, lease: Some(0), prev_kv: false };
            txn.put(&put, &|_| true).map_err(failed)?;
        }
        txn.commit(index, 1)?;
        clock.lap();
        progress.tick(keys);
    }
    Ok(clock)
}

/// Checkpoints, spares and releases, as a member's threads make them.
fn checkpoints(wal: &Wal, db: &Db, stop: &AtomicBool) -> Result<(), Error> {
    let began = Instant::now();
    while !stop.load(Ordering::Acquire) {
        if db.checkpoint_due(began.elapsed().as_millis() as u64).is_some() {
            db.checkpoint()?;
            wal.release(db.log_floor())?;
        }
        while let Step::More = wal.prepare_spare(Budget::bytes(8 << 20))? {}
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn reads(store: &Store, load: &Load) -> Outcome<Phase> {
    let reader = store.reader();
    let mut progress = Progress::new("reading", Unit::Things("keys"), load.keys);
    let mut clock = Clock::new();
    let mut bytes = 0;
    // A step that shares no factor with the number of keys visits each once, in another order than they came.
    let step = (load.keys * 2 / 3..).find(|step| gcd(*step, load.keys) == 1).unwrap_or(1).max(1);
    let mut n = 0;
    for _ in 0..load.keys {
        n = (n + step) % load.keys;
        let keys = KeyRange { key: Load::key(n), end: RangeEnd::Single };
        let found = reader.range(&RangeOp::new(keys)).map_err(failed)?;
        let kv = found.kvs.first();
        bytes += kv.map_or(0, |kv| kv.len() as u64);
        if kv.is_none() {
            return Err(Failure::Damage(format!("key {n} was inserted and is not there")));
        }
        clock.lap();
        progress.tick(1);
    }
    Ok(clock.phase("point read", load.keys, bytes))
}

fn scan(db: &Db, load: &Load) -> Outcome<Phase> {
    let stored = Stored::new(db.view())?;
    let all = KeyRange { key: Bytes::from_static(b"bench/"), end: RangeEnd::FromKey };
    let mut progress = Progress::new("scanning", Unit::Things("keys"), load.keys);
    let mut clock = Clock::new();
    let (mut keys, mut bytes) = (0, 0);
    let scanned = stored.keys::<OpError>(&all, 0, |kv| {
        keys += 1;
        bytes += (kv.key.len() + kv.value.len()) as u64;
        progress.tick(1);
        Ok(std::ops::ControlFlow::Continue(()))
    });
    scanned.map_err(failed)?;
    clock.lap();
    if keys != load.keys {
        return Err(Failure::Damage(format!("{keys} of {} keys are there", load.keys)));
    }
    Ok(clock.phase("scan", keys, bytes))
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn failed(error: OpError) -> Failure {
    match error {
        OpError::Engine(error) => error.into(),
        other => Failure::Unable(other.to_string()),
    }
}

fn micros(us: f64) -> String {
    match us {
        us if us < 1_000.0 => format!("{us:.1} us"),
        us if us < 1_000_000.0 => format!("{:.1} ms", us / 1e3),
        us => format!("{:.1} s", us / 1e6),
    }
}

fn print(report: &Report, output: &mut Output) -> Outcome<()> {
    let mut table = Table::new(COLUMNS);
    for phase in &report.phases {
        let cells = vec![
            phase.name.to_owned(),
            grouped(phase.keys),
            format!("{:.2}", phase.seconds),
            grouped(phase.keys_per_second as u64),
            size(phase.bytes_per_second as u64),
            micros(phase.p50_us),
            micros(phase.p99_us),
            micros(phase.max_us),
        ];
        table.row(output, cells)?;
    }
    table.end(output)?;
    output.line("")?;
    let Report { batch, value_bytes, .. } = report;
    output.line(&format!(
        "batches of {} keys with values of {}; times are of one batch, one read, one scan",
        grouped(*batch),
        size(*value_bytes)
    ))?;
    let [floor, insert] = [0, 1].map(|n| report.phases[n].keys_per_second);
    output.line(&format!(
        "insert at {:.2} of the floor, which appends and syncs the same bytes and does nothing else",
        insert / floor
    ))?;
    let used = size(report.used_bytes);
    output.line(&format!("the file has {}, {used} of it in use", size(report.file_bytes)))
}
