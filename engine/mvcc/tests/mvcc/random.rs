// SPDX-License-Identifier: Apache-2.0
//! Random histories on two stores that checkpoint, purge and restart at different moments, compared with
//! the model and with each other.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use cairn_engine::sim::SplitMix;
use cairn_mvcc::{
    Batch, Compare, CompareResult, CompareTarget, Deferred, DeleteOp, EventKind, HistoryBudget, KeyRange, Op,
    OpDone, OpError, PurgeProgress, PutDone, PutOp, RangeEnd, RangeOp, Reader, SortOrder, SortTarget, TxnOp,
};

use crate::model::{Answer, Model, RangeAnswer, Refusal, name, ranged};
use crate::world::{Request, World};

const SEEDS: u64 = 100;
const SEEDS_FULL: u64 = 1000;
const STEPS: usize = 500;

const LEASES: [i64; 3] = [1, 7, -9];

/// Draws requests over few keys, so that they meet.
struct Draw {
    rng: SplitMix,
    keys: u64,
}

impl Draw {
    fn key(&mut self) -> Bytes {
        // Half of all draws are of three keys, whose histories outgrow their cells.
        let n = if self.rng.one_in(2) { self.rng.below(3) } else { self.rng.below(self.keys) };
        let mut key = format!("k{n:02}");
        if n % 5 == 4 {
            key.push_str(&"x".repeat(n as usize * 9));
        }
        key.into()
    }

    fn range(&mut self) -> KeyRange {
        let key = self.key();
        let end = match self.rng.below(8) {
            0..3 => RangeEnd::Single,
            3..6 => RangeEnd::Until(self.key()),
            6 => RangeEnd::Until("l".into()),
            _ => RangeEnd::FromKey,
        };
        if self.rng.one_in(6) { KeyRange::all() } else { KeyRange { key, end } }
    }

    fn value(&mut self) -> Bytes {
        let len = match self.rng.below(20) {
            0 => 0,
            1 => 1000,
            _ => 1 + self.rng.below(3),
        };
        let mut value = vec![0; len as usize];
        self.rng.fill(&mut value);
        value.iter().map(|b| b'a' + b % 4).collect()
    }

    fn revision(&mut self, model: &Model) -> i64 {
        match self.rng.below(10) {
            0..4 => 0,
            4 => self.rng.below(3) as i64 - 1,
            5 => model.revision + self.rng.below(2) as i64,
            6 => model.compact + self.rng.below(3) as i64 - 1,
            _ => self.rng.below(model.revision as u64 + 2) as i64,
        }
    }

    fn range_op(&mut self, model: &Model) -> RangeOp {
        let mut op = RangeOp::new(self.range());
        op.revision = self.revision(model);
        if self.rng.one_in(2) {
            op.limit = self.rng.below(8) as i64 - 1;
        }
        if self.rng.one_in(2) {
            op.sort_order = [SortOrder::None, SortOrder::Ascend, SortOrder::Descend][self.rng.index(3)];
            let targets = [
                SortTarget::Key,
                SortTarget::Version,
                SortTarget::Create,
                SortTarget::Mod,
                SortTarget::Value,
            ];
            op.sort_target = targets[self.rng.index(5)];
        }
        op.keys_only = self.rng.one_in(5);
        op.count_only = self.rng.one_in(8);
        if self.rng.one_in(4) {
            let mut bound = || match self.rng.below(6) {
                0..3 => 0,
                3 => -1,
                _ => self.rng.below(model.revision as u64 + 1) as i64,
            };
            (op.min_mod, op.max_mod, op.min_create, op.max_create) = (bound(), bound(), bound(), bound());
        }
        op
    }

    fn put(&mut self) -> PutOp {
        let value = if self.rng.one_in(8) { None } else { Some(self.value()) };
        let lease = match self.rng.below(10) {
            0 => None,
            1..3 => Some(LEASES[self.rng.index(3)]),
            3 => Some(99),
            _ => Some(0),
        };
        PutOp { key: self.key(), value, lease, prev_kv: self.rng.one_in(3) }
    }

    fn delete(&mut self) -> DeleteOp {
        DeleteOp { keys: self.range(), prev_kv: self.rng.one_in(3) }
    }

    fn compare(&mut self, model: &Model) -> Compare {
        let n = self.rng.below(model.revision as u64 + 1) as i64;
        let target = match self.rng.below(9) {
            0..2 => CompareTarget::Version(n % 3),
            2 => CompareTarget::Create(n),
            3..5 => CompareTarget::Mod(n),
            5..7 => CompareTarget::Value(self.value()),
            7 => CompareTarget::Lease(LEASES[self.rng.index(3)]),
            _ => CompareTarget::Unknown,
        };
        let results = [
            CompareResult::Equal,
            CompareResult::NotEqual,
            CompareResult::Greater,
            CompareResult::Less,
            CompareResult::Unknown,
        ];
        Compare { keys: self.range(), target, result: results[self.rng.index(5)] }
    }

    fn txn(&mut self, model: &Model, depth: u64, read_only: bool) -> TxnOp {
        let compares = (0..self.rng.below(3)).map(|_| self.compare(model)).collect();
        let mut ops = || -> Vec<Op> {
            (0..self.rng.below(5))
                .map(|_| match self.rng.below(if read_only { 2 } else { 7 }) {
                    0..2 => Op::Range(self.range_op(model)),
                    2..5 => Op::Put(self.put()),
                    5 => Op::Delete(self.delete()),
                    _ if depth > 0 => Op::Txn(self.txn(model, depth - 1, false)),
                    _ => Op::Put(self.put()),
                })
                .collect()
        };
        TxnOp { compares, success: ops(), failure: ops() }
    }
}

/// An answer in the model's form; its ranges are answered now, and kept to be asked for again.
fn answered(reader: &Reader, done: OpDone, keep: &mut dyn FnMut(Deferred, RangeAnswer)) -> Answer {
    match done {
        OpDone::Range(deferred) => {
            let answer = ranged(reader.range_deferred(&deferred).expect("held"));
            keep(deferred, answer.clone());
            Answer::Range(answer)
        }
        OpDone::Put(done) => Answer::Put { revision: done.revision, prev: done.prev_kv },
        OpDone::Delete(done) => {
            Answer::Delete { revision: done.revision, deleted: done.deleted, prev: done.prev_kvs }
        }
        OpDone::Txn(done) => {
            let (revision, succeeded) = (done.revision, done.succeeded);
            let responses = done.responses.into_iter().map(|done| answered(reader, done, keep)).collect();
            Answer::Txn { revision, succeeded, responses }
        }
    }
}

struct Run {
    draw: Draw,
    model: Model,
    worlds: [World; 2],
    kept: Vec<(usize, Deferred, RangeAnswer)>,
    /// Histories that are never compacted outgrow the cells.
    compacts: bool,
    done: BTreeMap<&'static str, u64>,
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut rng = SplitMix::new(seed);
        let keys = [5, 12, 40][rng.index(3)];
        Run {
            draw: Draw { rng, keys },
            model: Model::new(),
            worlds: [World::new(), World::new()],
            kept: Vec::new(),
            compacts: !seed.is_multiple_of(3),
            done: BTreeMap::new(),
        }
    }

    fn step(&mut self) {
        let what = match self.draw.rng.below(100) {
            0..30 => self.put(),
            30..36 => self.delete(),
            36..50 => self.txn(),
            50..54 => self.lease(),
            54..57 => self.compact(),
            57..70 => self.range(),
            70..74 => self.read_txn(),
            74..78 => self.stream(),
            78..83 => self.history(),
            83..85 => self.hash(),
            85..90 => self.figures(),
            90..92 => self.ask_again(),
            92..97 => self.purge(),
            97 => self.checkpoint(),
            98 => self.reopen(),
            _ => self.lose_power(),
        };
        *self.done.entry(what).or_default() += 1;
    }

    /// Applies one request to both stores; gives what both answered.
    fn apply(
        &mut self,
        request: impl Fn(&mut Batch<'_>, &dyn Fn(i64) -> bool) -> Result<OpDone, OpError> + 'static,
    ) -> Result<Answer, Refusal> {
        let request: Request = Arc::new(request);
        let mut answers = Vec::new();
        let mut events = Vec::new();
        for (which, world) in self.worlds.iter_mut().enumerate() {
            let (done, new) = world.log(&request);
            events.push(new);
            let reader = world.reader();
            let mut keep = |deferred, answer| self.kept.push((which, deferred, answer));
            answers.push(done.map(|done| answered(&reader, done, &mut keep)).map_err(|e| name(&e)));
        }
        assert_eq!(events[0], events[1], "both stores tell watchers the same");
        assert_eq!(answers[0], answers[1], "both stores answer the same");
        answers.remove(0)
    }

    fn put(&mut self) -> &'static str {
        let op = self.draw.put();
        let again = op.clone();
        let got = self.apply(move |batch, leases| batch.put(&again, leases).map(OpDone::Put));
        assert_eq!(got, self.model.put(&op), "{op:?}");
        "put"
    }

    fn delete(&mut self) -> &'static str {
        let op = self.draw.delete();
        let again = op.clone();
        let got = self.apply(move |batch, _| batch.delete_range(&again).map(OpDone::Delete));
        assert_eq!(got, Ok(self.model.delete(&op)), "{op:?}");
        "delete"
    }

    fn txn(&mut self) -> &'static str {
        let op = self.draw.txn(&self.model, 3, false);
        let again = op.clone();
        let got = self.apply(move |batch, leases| batch.txn(&again, leases).map(OpDone::Txn));
        assert_eq!(got, self.model.txn(&op), "{op:?}");
        if got.is_err() { "refused txn" } else { "txn" }
    }

    fn lease(&mut self) -> &'static str {
        let lease = LEASES[self.draw.rng.index(3)];
        if self.model.leases.insert(lease) {
            self.worlds.iter_mut().for_each(|world| {
                world.leases.insert(lease);
            });
            return "grant";
        }
        for world in &mut self.worlds {
            assert_eq!(world.reader().keys_of_lease(lease).expect("reads"), self.model.keys_of_lease(lease));
            world.leases.remove(&lease);
        }
        let got = self.apply(move |batch, _| {
            let keys = batch.keys_of_lease(lease)?;
            batch.delete_keys(&keys).map(OpDone::Delete)
        });
        let want = self.model.revoke(lease);
        assert!(matches!(got, Ok(Answer::Delete { revision, .. }) if revision == want), "{got:?}");
        "revoke"
    }

    fn compact(&mut self) -> &'static str {
        if !self.compacts {
            return self.put();
        }
        if self.draw.rng.one_in(20) {
            return self.skip();
        }
        let revision = match self.draw.rng.below(6) {
            0 => self.model.revision,
            1 => self.draw.rng.below(self.model.revision as u64 + 2) as i64,
            _ => self.model.compact + self.draw.rng.below(40) as i64,
        };
        let got = self.apply(move |batch, _| {
            batch.compact(revision)?;
            Ok(OpDone::Put(PutDone { revision: batch.revision(), prev_kv: None }))
        });
        let want = self.model.compact(revision).map(|()| self.model.revision);
        let want = want.map(|revision| Answer::Put { revision, prev: None });
        assert_eq!(got, want, "compact {revision}");
        "compact"
    }

    fn skip(&mut self) -> &'static str {
        let by = 1 + self.draw.rng.below(20);
        let got = self.apply(move |batch, _| {
            batch.skip(by)?;
            Ok(OpDone::Put(PutDone { revision: batch.revision(), prev_kv: None }))
        });
        self.model.revision += by as i64;
        let want = self.model.compact(self.model.revision).map(|()| self.model.revision);
        let want = want.map(|revision| Answer::Put { revision, prev: None });
        assert_eq!(got, want, "skip {by}");
        "compact"
    }

    fn range(&mut self) -> &'static str {
        let op = self.draw.range_op(&self.model);
        let want = self.model.range(&op);
        for world in &self.worlds {
            let got = world.reader().range(&op).map(ranged).map_err(|error| name(&error));
            assert_eq!(got, want, "{op:?}");
        }
        "range"
    }

    fn read_txn(&mut self) -> &'static str {
        let op = self.draw.txn(&self.model, 0, true);
        let want = self.model.clone().txn(&op);
        for (which, world) in self.worlds.iter().enumerate() {
            let reader = world.reader();
            let mut keep = |deferred, answer| self.kept.push((which, deferred, answer));
            let got = reader.txn(&op).map_err(|error| name(&error));
            let got = got.map(|done| answered(&reader, OpDone::Txn(done), &mut keep));
            assert_eq!(got, want, "{op:?}");
        }
        "read txn"
    }

    fn stream(&mut self) -> &'static str {
        let mut op = self.draw.range_op(&self.model);
        op = RangeOp {
            sort_order: SortOrder::None,
            sort_target: SortTarget::Key,
            min_mod: 0,
            max_mod: 0,
            min_create: 0,
            max_create: 0,
            ..op
        };
        let want = self.model.range(&op);
        for world in &self.worlds {
            let reader = world.reader();
            let mut stream = match reader.range_stream(&op) {
                Ok(stream) => stream,
                Err(error) => {
                    assert_eq!(Err(name(&error)), want, "{op:?}");
                    continue;
                }
            };
            let mut got = RangeAnswer { revision: 0, kvs: Vec::new(), count: 0, more: false };
            let mut ended = false;
            while let Some(chunk) =
                reader.range_chunk(&mut stream, self.draw.rng.index(9)).expect("nothing is compacted")
            {
                assert!(!ended, "a chunk follows the last");
                got.kvs.extend(chunk.kvs);
                if let Some(totals) = chunk.totals {
                    ended = true;
                    (got.revision, got.count, got.more) = (totals.revision, totals.count, totals.more);
                }
            }
            assert_eq!(Ok(got), want, "{op:?}");
        }
        "stream"
    }

    fn history(&mut self) -> &'static str {
        let ranges: Vec<KeyRange> = (0..1 + self.draw.rng.below(2)).map(|_| self.draw.range()).collect();
        let from = self.draw.revision(&self.model).max(1);
        let budget = HistoryBudget {
            entries: 1 + self.draw.rng.index(30),
            revisions: 1 + self.draw.rng.index(20),
            bytes: 1 + self.draw.rng.index(4000),
        };
        let want = self.model.history(&ranges, from);
        for world in &self.worlds {
            let (mut got, mut next) = (Vec::new(), from);
            while next <= self.model.revision {
                match world.reader().history(&ranges, next, i64::MAX, budget) {
                    Err(error) => {
                        assert_eq!(name(&error), "Compacted");
                        assert!(from < self.model.compact && next == from, "{from}");
                        return "compacted history";
                    }
                    Ok(done) => {
                        assert!(done.next > next, "history stands still at {next}");
                        next = done.next;
                        got.extend(done.revisions);
                    }
                }
            }
            assert!(from >= self.model.compact, "history below the compact revision");
            let flat = got.iter().flat_map(|revision| {
                revision.events.iter().map(|event| {
                    let at = cairn_mvcc::Revision { main: revision.main, sub: event.sub };
                    (at, event.kind == EventKind::Put, event.kv.clone())
                })
            });
            assert_eq!(flat.collect::<Vec<_>>(), want, "{ranges:?} from {from}");
        }
        "history"
    }

    fn hash(&mut self) -> &'static str {
        let revision = self.draw.revision(&self.model).max(0);
        for world in &self.worlds {
            let done = match world.reader().hash_kv(revision) {
                Ok(done) => done,
                Err(error) => {
                    assert_eq!(Err(name(&error)), self.model.readable(revision), "hash {revision}");
                    continue;
                }
            };
            let remembered = done.compact_revision != self.model.compact;
            if !remembered {
                assert_eq!(self.model.readable(revision), Ok(()), "hash {revision}");
            }
            let want = self.model.hash(done.hash_revision, done.compact_revision, remembered);
            assert_eq!(done.hash, want, "{done:?}");
            assert_eq!(done.revision, self.model.revision);
        }
        "hash"
    }

    fn figures(&mut self) -> &'static str {
        let key = self.draw.key();
        let revision = self.draw.revision(&self.model).max(1);
        let want = self.model.readable(revision).map(|()| {
            let at = cairn_mvcc::Revision { main: revision, sub: i64::MAX };
            self.model.state_at(at).get(&key).map(|pair| pair.message())
        });
        for world in &self.worlds {
            let reader = world.reader();
            let figures = (reader.revision(), reader.compact_revision(), reader.live_bytes());
            let figures = (figures.0.expect("reads"), figures.1.expect("reads"), figures.2.expect("reads"));
            assert_eq!(figures, (self.model.revision, self.model.compact, self.model.live_bytes()));
            assert_eq!(reader.get_at(&key, revision).map_err(|error| name(&error)), want);
        }
        "figures"
    }

    /// A held range gives the same answer for as long as it is held.
    fn ask_again(&mut self) -> &'static str {
        if self.kept.is_empty() {
            return "nothing to ask again";
        }
        let (which, deferred, want) = self.kept.swap_remove(self.draw.rng.index(self.kept.len()));
        match self.worlds[which].reader().range_deferred(&deferred) {
            Ok(got) => assert_eq!(ranged(got), want, "{deferred:?}"),
            Err(error) => {
                assert_eq!(name(&error), "Compacted");
                assert!(!deferred.hold.is_intact(), "an intact hold is enough");
                return "broken hold";
            }
        }
        "ask again"
    }

    fn purge(&mut self) -> &'static str {
        let which = self.draw.rng.index(2);
        let break_holds = self.draw.rng.one_in(10);
        let entries = 1 + self.draw.rng.index(60);
        if self.draw.rng.one_in(8) {
            self.kept.clear();
        }
        match self.worlds[which].purge_step(entries, break_holds) {
            PurgeProgress::Idle => "idle purge",
            PurgeProgress::More => "purge",
            PurgeProgress::Held(_) => "held purge",
            PurgeProgress::AwaitsCheckpoint => "waiting purge",
            PurgeProgress::Done(_) => "purge done",
        }
    }

    fn checkpoint(&mut self) -> &'static str {
        let which = self.draw.rng.index(2);
        self.worlds[which].checkpoint();
        "checkpoint"
    }

    fn reopen(&mut self) -> &'static str {
        let which = self.draw.rng.index(2);
        self.kept.clear();
        self.worlds[which].reopen();
        "reopen"
    }

    fn lose_power(&mut self) -> &'static str {
        let which = self.draw.rng.index(2);
        self.kept.clear();
        if self.worlds[which].lose_power() > 0 { "power loss" } else { "power loss of nothing" }
    }

    /// Everything purged and folded on both: the files hold what the model says is kept.
    fn finish(&mut self) {
        self.compacts = true;
        self.compact();
        self.kept.clear();
        for world in &mut self.worlds {
            world.purge();
            world.checkpoint();
            world.db().verify().expect("whole");
        }
        for _ in 0..10 {
            self.range();
            self.stream();
            self.hash();
            self.history();
        }
    }
}

// rule: HDR-2, HDR-5, HDR-10, KV-1, KV-3, KV-9, KV-10, KV-11, KV-12, KV-13, KV-14, KV-15, KV-16, KV-17, KV-18, KV-19,
// KV-20, KV-21, KV-22, KV-27, PUT-1, PUT-9, DEL-2, DEL-4, REV-4, TXN-7, TXN-14, TXN-15, TXN-18, TXN-19, COMPACT-3,
// COMPACT-4, HASH-6, HASH-7, HASH-9
#[test]
fn two_stores_and_the_model_agree_whatever_is_purged_folded_and_reopened_when() {
    let full = std::env::var_os("CAIRN_FULL").is_some();
    let seeds = if full { SEEDS_FULL } else { SEEDS };
    let first: u64 = std::env::var("CAIRN_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut done: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in first..first + seeds {
        println!("seed {seed}");
        let mut run = Run::new(seed);
        for _ in 0..STEPS {
            run.step();
        }
        run.finish();
        for (what, n) in run.done {
            *done.entry(what).or_default() += n;
        }
    }
    println!("{seeds} seeds: {done:?}");
    for what in [
        "put",
        "txn",
        "refused txn",
        "range",
        "stream",
        "history",
        "hash",
        "ask again",
        "purge done",
        "power loss",
    ] {
        let floor = seeds / 2;
        assert!(done.get(what).is_some_and(|&n| n >= floor), "{what} was done less than {floor} times");
    }
    println!("score: mvcc-random-seeds {seeds} >={seeds} ok");
}
