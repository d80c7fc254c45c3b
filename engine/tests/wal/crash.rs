// SPDX-License-Identifier: Apache-2.0
//! A log that loses power at every moment, and that meets every failure of a call.

use std::cell::RefCell;
use std::path::Path;

use cairn_engine::InstallId;
use cairn_engine::io::Budget;
use cairn_engine::sim::{Explorer, Failure, Limits, SimVfs, SplitMix};
use cairn_engine::wal::{Base, Record, Wal};

use crate::model::{History, random_records};
use crate::script::{BASE, DIR, entry, options, reopening};

/// Random workloads in CI, and with CAIRN_FULL=1.
const RUNS: u64 = 50;
const RUNS_FULL: u64 = 1500;
const STEPS: u64 = 40;
/// Images that a run of the CI size must reach.
const IMAGES_MIN: u64 = 10_000;
const CAUSES_MIN: u64 = 300;

pub fn runs() -> u64 {
    if std::env::var_os("CAIRN_FULL").is_some() { RUNS_FULL } else { RUNS }
}

/// Appends, syncs, changes segments, releases and restarts at random. Ends early when a call fails.
fn random_workload(disk: &SimVfs, history: &RefCell<History>, seed: u64) {
    let mut rng = SplitMix::new(seed);
    disk.phase("in-creation");
    let Ok(mut wal) = Wal::create(Path::new(DIR), options(disk, seed), BASE) else { return };
    for round in 0..STEPS {
        let done = match rng.below(20) {
            0 => wal.seal(),
            1 => {
                disk.phase("in-spare");
                wal.prepare_spare(Budget::bytes(1 + rng.below(100_000))).map(|_| ())
            }
            2 | 3 => {
                disk.phase("in-release");
                let floor = apply_some(disk, &mut history.borrow_mut(), &mut rng);
                wal.release(floor)
            }
            4 if round > 4 => {
                disk.phase("in-restart");
                drop(wal);
                let Ok(reopened) = restart(disk, &mut history.borrow_mut(), seed + 1000 * round) else {
                    return;
                };
                wal = reopened;
                Ok(())
            }
            5 if rng.one_in(3) => {
                disk.phase("in-install");
                install(disk, &wal, &mut history.borrow_mut())
            }
            n => {
                let records = random_records(history.borrow().now(), &mut rng);
                let step = history.borrow_mut().step(records.clone());
                disk.phase("in-append");
                disk.submit(step);
                let appended = wal.append(records).map(|_| ());
                if n < 9 {
                    appended
                } else {
                    disk.phase(if nearly_full(&wal) { "in-segment-change" } else { "in-append" });
                    appended.and_then(|()| wal.sync()).map(|_| disk.ack(step))
                }
            }
        };
        if done.is_err() {
            return;
        }
    }
}

/// True if the next sync is likely to need a new segment: the newest has less than 12 KiB left.
fn nearly_full(wal: &Wal) -> bool {
    wal.stats().written_bytes % (32 << 10) > (20 << 10)
}

/// The tree file takes in some of the acknowledged log; returns what may be released.
fn apply_some(disk: &SimVfs, history: &mut History, rng: &mut SplitMix) -> u64 {
    let (acked, submitted) = disk.marks();
    if acked != submitted {
        return 0;
    }
    let mut state = history.now().clone();
    let from = state.applied.0.max(state.base.index);
    let index = from + rng.below(state.last() - from + 1);
    state.applied = (index, if index == from { state.applied.1 } else { state.term(index) });
    let step = history.push(state, Vec::new());
    disk.submit(step);
    disk.ack(step);
    index
}

/// A new process on the same machine: what it finds is acknowledged from then on.
fn restart(disk: &SimVfs, history: &mut History, seed: u64) -> Result<Wal, ()> {
    let (acked, submitted) = disk.marks();
    let evidence = history.states[acked as usize].evidence();
    let (wal, replay) = Wal::open(Path::new(DIR), reopening(disk, seed), evidence).map_err(|_| ())?;
    let found = (acked..=submitted)
        .rev()
        .find(|n| history.states[*n as usize].differs(&wal, replay.hard_state, &evidence).is_none())
        .expect("a restart finds one of the steps");
    let state = history.states[found as usize].clone();
    let step = history.push(state, Vec::new());
    disk.submit(step);
    disk.ack(step);
    Ok(wal)
}

/// A snapshot takes the place of the log: the tree file first, then the base.
fn install(disk: &SimVfs, wal: &Wal, history: &mut History) -> cairn_engine::Result<()> {
    let mut state = history.now().clone();
    let base = Base {
        index: state.last() + 10,
        term: state.term(state.last()) + 1,
        install: InstallId(state.install.0 + 1),
    };
    let synced = wal.sync()?;
    let before = history.states.len() as u64 - 1;
    disk.ack(before);
    assert_eq!(synced.last_index, state.last());
    state.install = base.install;
    state.applied = (base.index, base.term);
    state.apply(&[Record::Base(base)]);
    let step = history.push(state, vec![Record::Base(base)]);
    disk.submit(step);
    // The tree file is in place: from here on a restart makes the base by itself.
    disk.ack(step);
    wal.append(vec![Record::Base(base)])?;
    wal.sync()?;
    Ok(())
}

pub fn explore(explorer: &mut Explorer, seed: u64) -> Result<(), Failure> {
    let history = RefCell::new(History::new());
    explorer.run(
        |disk| random_workload(disk, &history, seed),
        |disk, acked, submitted| history.borrow().check(disk, acked, submitted),
    )
}

#[test]
fn no_acknowledged_step_is_lost_by_any_crash() {
    let mut explorer = Explorer::new(1, Limits::default());
    for seed in 0..runs() {
        explore(&mut explorer, seed).unwrap_or_else(|failure| panic!("workload {seed}: {failure}"));
    }
    let report = explorer.report();
    println!("{} workloads from seed 0: {report}", runs());
    println!("score: log-crash-images {} >={IMAGES_MIN} ok", report.distinct);
    assert!(report.distinct >= IMAGES_MIN, "{report}");
    for cause in ["torn", "dropped", "reordered", "in-recovery", "in-segment-change", "in-append"] {
        assert!(report.of(cause) >= CAUSES_MIN, "{cause}: {report}");
    }
}

/// A short scenario in which every call can be made to fail.
fn scenario(disk: &SimVfs, history: &RefCell<History>) {
    *history.borrow_mut() = History::new();
    let Ok(wal) = Wal::create(Path::new(DIR), options(disk, 1), BASE) else { return };
    for i in 1..=6 {
        let records = vec![entry(i, 1, 7000)];
        let step = history.borrow_mut().step(records.clone());
        disk.submit(step);
        if wal.append(records).is_err() || wal.sync().is_err() {
            // What an owner may still do: ask again, prepare, release. None of it may touch the disk.
            let again = wal.sync();
            assert!(again.is_err() || again.is_ok_and(|point| point.last_index == i));
            return;
        }
        disk.ack(step);
        if i == 2 && wal.prepare_spare(Budget::UNBOUNDED).is_err() {
            return;
        }
        if i == 5 {
            let step = {
                let mut history = history.borrow_mut();
                let mut state = history.now().clone();
                state.applied = (3, 1);
                history.push(state, Vec::new())
            };
            disk.submit(step);
            disk.ack(step);
            if wal.release(3).is_err() || wal.read(wal.first_index(), 6, usize::MAX).is_err() {
                return;
            }
        }
    }
}

pub fn explore_faults(explorer: &mut Explorer) -> Result<u64, Failure> {
    let history = RefCell::new(History::new());
    explorer.run_faults(
        |disk| scenario(disk, &history),
        |disk, acked, submitted| history.borrow().check(disk, acked, submitted),
    )
}

#[test]
fn after_any_failed_call_nothing_acknowledged_is_lost_and_no_sync_is_tried_again() {
    let limits = Limits { images_per_point: 40, recovery_one_in: 0, ..Limits::default() };
    let mut explorer = Explorer::new(2, limits);
    let runs = explore_faults(&mut explorer).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{runs} failures: {}", explorer.report());
    assert!(runs >= 60, "{runs} failures");
}
