// SPDX-License-Identifier: Apache-2.0
//! A store that is half empty is made small while a writer and readers run: what they wait for, with and without.
//!
//! Owns      two stores alike, of which one shrinks, the load that goes to both by turns, and the figures of both.
//! Holds     1. turns alternate and are equally long, and in each a checkpoint is made, so that what else the machine
//!              does falls on both;
//!           2. time for which a thread has no CPU does not count;
//!           3. what fails the test is counted: the goal, and how many entries one hold of a lock walked. Times are
//!              printed beside their goal.

use std::fs::File;
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cairn_engine::io::{Budget, Progress, StdVfs};
use cairn_engine::sim::SplitMix;
use cairn_engine::{
    Aim, CommitMeta, Db, HOLD_ENTRIES_MAX, InstallId, LONG_HOLD_NS, Lock, Options, PurgeRequest, Schema,
    Shrinking, Stats, Stopwatch, TreeDef, TreeKind,
};

use crate::model::{key, runs};

fn one(_: &[u8], _: &[u8]) -> u64 {
    1
}

const LOG: TreeDef = TreeDef { id: 1, name: "log", kind: TreeKind::Append, leaf_pages: 8, weight: one };
const MAP: TreeDef = TreeDef { id: 2, name: "map", kind: TreeKind::Ordered, leaf_pages: 2, weight: one };
const SCHEMA: Schema = &[LOG, MAP];

/// The store before half of it is purged.
const BYTES: u64 = 64 << 20;
const BYTES_FULL: u64 = 2 << 30;

const VALUE_BYTES: usize = 1024;
const ENTRIES_A_COMMIT: u64 = 8;
const COMMIT_BYTES: u64 = ENTRIES_A_COMMIT * VALUE_BYTES as u64;

/// Between one read and the next.
const READER_REST: Duration = Duration::from_micros(200);
/// What the writer adds while it runs.
const WRITER_BYTES_S: u64 = 2 << 20;
const WRITER_BYTES_S_FULL: u64 = 8 << 20;
/// Work of one step of a checkpoint, as the daemon has it.
const STEP: Budget = Budget::bytes(4 << 20);
/// A turn is at least this long.
const TURN_MIN: Duration = Duration::from_millis(100);
/// The twin that shrinks; the other is the first.
const SHRINKS: usize = 1;
const TURNS_MAX: u64 = 1000;

const STALL_TIMES_MAX: f64 = 1.5;
/// The size of the file, in what is used of it.
const GOAL: f64 = 1.25;

/// Time that goes on while the thread that asks runs or waits for something, and stands while it is ready to run and has
/// no CPU: on a busy machine that is most of what a call takes, and not the store's doing.
#[derive(Debug)]
struct Clock(Instant);

thread_local! {
    static SCHEDSTAT: Option<File> = File::open("/proc/thread-self/schedstat").ok();
}

/// How long this thread had no CPU; zero where the system does not tell.
fn without_cpu_ns() -> u64 {
    let mut text = [0; 64];
    let read = SCHEDSTAT.with(|file| file.as_ref().and_then(|file| file.read_at(&mut text, 0).ok()));
    let text = std::str::from_utf8(&text[..read.unwrap_or(0)]).ok();
    text.and_then(|text| text.split(' ').nth(1)?.parse().ok()).unwrap_or(0)
}

impl Stopwatch for Clock {
    fn now_ns(&self) -> u64 {
        (self.0.elapsed().as_nanos() as u64).saturating_sub(without_cpu_ns())
    }
}

/// How long the calls of one thread took, to the store that keeps its size and to the one that shrinks.
#[derive(Default)]
struct Latencies([Vec<u64>; 2]);

impl Latencies {
    fn add(&mut self, other: Latencies) {
        for (all, some) in self.0.iter_mut().zip(other.0) {
            all.extend(some);
        }
    }

    /// The latency that the given share of calls stays within, in microseconds.
    fn quantile(&mut self, twin: usize, share: f64) -> f64 {
        let calls = &mut self.0[twin];
        calls.sort_unstable();
        let at = ((calls.len() as f64 * share) as usize).min(calls.len() - 1);
        calls[at] as f64 / 1000.0
    }
}

/// A store of which the older half was purged, so that what lives is the upper half of the file.
struct Twin {
    db: Db,
    /// Commits whose entries live: a window that moves with the writer.
    live: u64,
    keys: u64,
    value: Bytes,
}

impl Twin {
    fn half_empty(dir: &Path, bytes: u64) -> Twin {
        let mut options = Options::default();
        options.vfs = Arc::new(StdVfs);
        options.stopwatch = Some(Arc::new(Clock(Instant::now())));
        options.purge_bytes = u64::MAX;
        let commits = bytes / COMMIT_BYTES;
        let db = Db::create(dir, SCHEMA, InstallId(31), options).expect("a new store");
        let value = Bytes::from(vec![7; VALUE_BYTES]);
        let twin = Twin { db, live: commits / 2, keys: commits, value };
        for n in 0..commits {
            twin.commit(n);
            if twin.db.overlay_bytes() > 16 << 20 {
                twin.checkpoint();
            }
        }
        twin.checkpoint();
        twin.purge();
        while twin.db.tidy_due() {
            twin.db.checkpoint().expect("makes a checkpoint");
        }
        assert_eq!(twin.db.purges_waiting(), 0);
        let stats = twin.db.stats();
        assert!(stats.file_bytes * 10 > stats.used_bytes * 17, "half empty: {stats:?}");
        twin
    }

    /// Commit `n` adds entries to the log, and sets as many keys of the map: at first each of them, then some.
    fn commit(&self, n: u64) {
        let mut txn = self.db.begin().expect("healthy");
        let mut rng = SplitMix::new(n);
        for sub in 0..ENTRIES_A_COMMIT {
            txn.append(&LOG, key(n, sub), self.value.clone());
            let nth = n * ENTRIES_A_COMMIT + sub;
            let (name, fresh) = if nth < self.keys { (nth, 1) } else { (rng.below(self.keys), 0) };
            txn.put(&MAP, &name.to_be_bytes(), self.value.slice(..64), fresh);
        }
        let meta = CommitMeta { applied_index: n, applied_term: 1, owner: Bytes::new() };
        txn.commit(meta, n).expect("commits");
    }

    /// A point read of either tree, a count of the map from some key on, and a short scan.
    fn read(&self, rng: &mut SplitMix) {
        let view = self.db.view();
        let n = view.stamp() - rng.below(self.live / 2);
        let value = view.get(&LOG, &key(n, n % ENTRIES_A_COMMIT)).expect("reads").expect("lives");
        assert_eq!(value.len(), VALUE_BYTES);
        let name = rng.below(self.keys).to_be_bytes();
        assert!(view.get(&MAP, &name).expect("reads").is_some());
        let (lo, hi) = (Bound::Included(&name[..]), Bound::Unbounded);
        let (weight, _) = view.weight(&MAP, lo, hi).expect("weighs");
        assert_eq!(weight, self.keys - u64::from_be_bytes(name), "all keys from this one on");
        let from = view.stamp() - self.live / 2 - rng.below(self.live / 4);
        let mut cursor = view.cursor(&LOG);
        cursor.seek(&key(from, 0));
        for nth in 0..20 {
            let (found, _) = cursor.next().expect("walks").expect("lives");
            assert_eq!(found, key(from + nth / ENTRIES_A_COMMIT, nth % ENTRIES_A_COMMIT));
        }
    }

    fn purge(&self) {
        let view = self.db.view();
        let below = PurgeRequest::Below(key(view.stamp().saturating_sub(self.live), 0));
        self.db.purge(&LOG, below, view.seq());
    }

    fn checkpoint(&self) {
        self.db.freeze().expect("freezes");
        while self.db.checkpoint_step(STEP).expect("goes on") == Progress::More {}
    }
}

/// Two stores alike, one of which shrinks, and who reads and writes them by turns.
struct Load {
    twins: [Twin; 2],
    /// Whose turn it is: of the one that shrinks or the other.
    turn: AtomicUsize,
    ended: AtomicBool,
}

/// Ends the load, also when what it waits for failed.
struct End<'l>(&'l AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Load {
    /// Calls until the load ends, the store whose turn it is, and measures each call.
    fn measure(&self, rest: Duration, mut call: impl FnMut(usize)) -> Latencies {
        let mut latencies = Latencies::default();
        let clock = Clock(Instant::now());
        while !self.ended.load(Ordering::Acquire) {
            let turn = self.turn.load(Ordering::Acquire);
            let begin_ns = clock.now_ns();
            call(turn);
            latencies.0[turn].push(clock.now_ns().saturating_sub(begin_ns));
            std::thread::sleep(rest);
        }
        latencies
    }

    /// Turns by turns, until the one that shrinks is as small as it should be. Answers how many of each, and its
    /// figures then.
    fn turns(&self) -> (u64, Stats) {
        let _end = End(&self.ended);
        let clock = Instant::now();
        for turns in 1..TURNS_MAX {
            let mut length = TURN_MIN;
            let mut small = None;
            for (turn, twin) in self.twins.iter().enumerate().rev() {
                self.turn.store(turn, Ordering::Release);
                let begin = Instant::now();
                if turn == SHRINKS {
                    let now_ms = clock.elapsed().as_millis() as u64;
                    let answer = twin.db.shrink(now_ms, Aim::Goal).expect("goes on");
                    small = (answer == Shrinking::Done).then(|| twin.db.stats());
                }
                twin.purge();
                twin.checkpoint();
                length = length.max(begin.elapsed());
                std::thread::sleep(length.saturating_sub(begin.elapsed()));
            }
            if let Some(stats) = small {
                return (turns, stats);
            }
        }
        panic!("no end to it: {:?}", self.twins[SHRINKS].db.stats());
    }
}

/// Prints a figure as the scorecard wants it.
fn score(name: &str, value: f64, most: f64) {
    let verdict = if value <= most { "ok" } else { "miss" };
    println!("score: {name} {value:.2} <={most} {verdict}");
}

#[test]
fn a_half_empty_store_shrinks_beside_a_writer_and_readers_whose_stalls_do_not_grow() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let bytes = runs(BYTES, BYTES_FULL);
    let twins = ["stays", "shrinks"].map(|name| Twin::half_empty(&dir.path().join(name), bytes));
    let load = Load { twins, turn: AtomicUsize::new(SHRINKS), ended: AtomicBool::new(false) };
    let before = load.twins[SHRINKS].db.stats();
    let rest =
        Duration::from_secs_f64(COMMIT_BYTES as f64 / runs(WRITER_BYTES_S, WRITER_BYTES_S_FULL) as f64);
    let (mut writer, mut readers, (turns, small)) = std::thread::scope(|scope| {
        let load = &load;
        let writer = scope.spawn(move || {
            let mut next = [bytes / COMMIT_BYTES; 2];
            load.measure(rest, |turn| {
                load.twins[turn].commit(next[turn]);
                next[turn] += 1;
            })
        });
        let readers = [1, 2].map(|seed| {
            let mut rng = SplitMix::new(seed);
            scope.spawn(move || load.measure(READER_REST, |turn| load.twins[turn].read(&mut rng)))
        });
        let turns = load.turns();
        let mut latencies = Latencies::default();
        for reader in readers {
            latencies.add(reader.join().expect("a reader"));
        }
        (writer.join().expect("the writer"), latencies, turns)
    });
    let after = load.twins[SHRINKS].db.stats();
    println!(
        "{} MiB with {} in use, then {} with {}, in {turns} turns beside {} commits",
        before.file_bytes >> 20,
        before.used_bytes >> 20,
        small.file_bytes >> 20,
        small.used_bytes >> 20,
        after.commits - before.commits
    );
    for (who, latencies) in [("writer", &mut writer), ("readers", &mut readers)] {
        for (share, name) in [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9"), (1.0, "longest")] {
            let [without, with] = [0, SHRINKS].map(|twin| latencies.quantile(twin, share));
            println!("{who} {name}: {without:.0} us without, {with:.0} us with");
        }
        assert!(latencies.0.iter().all(|calls| calls.len() > 20), "the {who} had turns with both");
        let [without, with] = [0, SHRINKS].map(|twin| latencies.quantile(twin, 1.0));
        score(&format!("shrink_{who}_longest_stall"), with / without, STALL_TIMES_MAX);
    }
    for lock in Lock::ALL {
        let held_ms = after.locks.of(lock).longest_ns as f64 / 1e6;
        score(&format!("shrink_{}_longest_hold_ms", lock.name()), held_ms, LONG_HOLD_NS as f64 / 1e6);
    }
    score("shrink_entries_a_hold", after.locks.entries_max as f64, HOLD_ENTRIES_MAX as f64);
    let per_live = small.file_bytes as f64 / small.used_bytes as f64;
    score("shrink_file_per_live", per_live, GOAL);
    assert!(per_live <= GOAL, "{small:?}");
    assert!(after.locks.entries_max <= HOLD_ENTRIES_MAX, "{:?}", after.locks);
    load.twins.iter().for_each(|twin| drop(twin.db.verify().expect("whole")));
}
