// SPDX-License-Identifier: Apache-2.0
//! The model: the whole history as one list, and every answer worked out from it the slow way.
//!
//! Owns      the list of changes, and etcd's rules written as filters over it.
//! Holds     nothing is ever thrown away: a compaction only moves a number.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use cairn_mvcc::{
    Compare, CompareResult, CompareTarget, DeleteOp, KeyRange, Op, OpError, PutOp, RangeDone, RangeOp,
    Revision, SortOrder, SortTarget, TxnOp,
};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pair {
    pub key: Bytes,
    pub create: i64,
    pub modified: i64,
    pub version: i64,
    pub value: Bytes,
    pub lease: i64,
}

fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

impl Pair {
    /// The message as protobuf writes it.
    pub fn message(&self) -> Bytes {
        let mut out = Vec::new();
        let numbers = [(2, self.create), (3, self.modified), (4, self.version)];
        let bytes = |out: &mut Vec<u8>, field: u64, bytes: &[u8]| {
            if !bytes.is_empty() {
                varint(out, field << 3 | 2);
                varint(out, bytes.len() as u64);
                out.extend_from_slice(bytes);
            }
        };
        bytes(&mut out, 1, &self.key);
        for (field, n) in numbers.into_iter().filter(|(_, n)| *n != 0) {
            varint(&mut out, field << 3);
            varint(&mut out, n as u64);
        }
        bytes(&mut out, 5, &self.value);
        if self.lease != 0 {
            varint(&mut out, 6 << 3);
            varint(&mut out, self.lease as u64);
        }
        out.into()
    }
}

#[derive(Clone, Debug)]
pub struct Change {
    pub at: Revision,
    pub key: Bytes,
    /// `None` is a delete.
    pub pair: Option<Pair>,
}

/// Why the model refuses, by the variant's name.
pub type Refusal = &'static str;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RangeAnswer {
    pub revision: i64,
    pub kvs: Vec<Bytes>,
    pub count: i64,
    pub more: bool,
}

/// What the store refuses with, in the model's words.
pub fn name(error: &OpError) -> Refusal {
    match error {
        OpError::KeyNotFound => "KeyNotFound",
        OpError::LeaseNotFound => "LeaseNotFound",
        OpError::Compacted => "Compacted",
        OpError::FutureRevision => "FutureRevision",
        OpError::Engine(error) => panic!("the engine failed: {error}"),
    }
}

/// What the store read, in the model's form.
pub fn ranged(done: RangeDone) -> RangeAnswer {
    RangeAnswer { revision: done.revision, kvs: done.kvs, count: done.count, more: done.more }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    Range(RangeAnswer),
    Put { revision: i64, prev: Option<Bytes> },
    Delete { revision: i64, deleted: i64, prev: Vec<Bytes> },
    Txn { revision: i64, succeeded: bool, responses: Vec<Answer> },
}

pub type State = BTreeMap<Bytes, Pair>;

#[derive(Clone, Debug)]
pub struct Model {
    pub changes: Vec<Change>,
    pub state: State,
    pub revision: i64,
    pub compact: i64,
    pub leases: BTreeSet<i64>,
    /// Changes of the request under way.
    own: i64,
}

impl Model {
    pub fn new() -> Model {
        Model {
            changes: Vec::new(),
            state: State::new(),
            revision: 1,
            compact: -1,
            leases: BTreeSet::new(),
            own: 0,
        }
    }

    fn under_way(&self) -> i64 {
        self.revision + i64::from(self.own > 0)
    }

    fn end(&mut self) {
        self.revision = self.under_way();
        self.own = 0;
    }

    fn change(&mut self, key: &Bytes, pair: Option<Pair>) {
        let at = Revision { main: self.revision + 1, sub: self.own };
        self.own += 1;
        match &pair {
            Some(pair) => self.state.insert(key.clone(), pair.clone()),
            None => self.state.remove(key),
        };
        self.changes.push(Change { at, key: key.clone(), pair });
    }

    pub fn state_at(&self, at: Revision) -> State {
        let mut state = State::new();
        for change in self.changes.iter().filter(|change| change.at <= at) {
            match &change.pair {
                Some(pair) => state.insert(change.key.clone(), pair.clone()),
                None => state.remove(&change.key),
            };
        }
        state
    }

    /// Checks an explicit revision of a plain range.
    pub fn readable(&self, revision: i64) -> Result<(), Refusal> {
        match revision {
            n if n <= 0 => Ok(()),
            n if n > self.revision => Err("FutureRevision"),
            n if n < self.compact => Err("Compacted"),
            _ => Ok(()),
        }
    }

    pub fn range(&self, op: &RangeOp) -> Result<RangeAnswer, Refusal> {
        self.readable(op.revision)?;
        let at = if op.revision > 0 { op.revision } else { self.revision };
        Ok(range(&self.state_at(Revision { main: at, sub: i64::MAX }), op, self.revision))
    }

    fn lease_exists(&self, lease: i64) -> bool {
        lease == 0 || self.leases.contains(&lease)
    }

    pub fn put(&mut self, op: &PutOp) -> Result<Answer, Refusal> {
        if !op.lease.is_none_or(|lease| self.lease_exists(lease)) {
            return Err("LeaseNotFound");
        }
        if (op.value.is_none() || op.lease.is_none()) && !self.state.contains_key(&op.key) {
            return Err("KeyNotFound");
        }
        let answer = self.run_put(op);
        self.end();
        Ok(answer)
    }

    fn run_put(&mut self, op: &PutOp) -> Answer {
        let old = self.state.get(&op.key).cloned();
        let main = self.revision + 1;
        let kept = || old.clone().expect("checked before");
        let pair = Pair {
            key: op.key.clone(),
            create: old.as_ref().map_or(main, |old| old.create),
            modified: main,
            version: old.as_ref().map_or(1, |old| old.version + 1),
            value: op.value.clone().unwrap_or_else(|| kept().value),
            lease: op.lease.unwrap_or_else(|| kept().lease),
        };
        self.change(&op.key, Some(pair));
        let prev = old.filter(|_| op.prev_kv).map(|old| old.message());
        Answer::Put { revision: self.under_way(), prev }
    }

    pub fn delete(&mut self, op: &DeleteOp) -> Answer {
        let answer = self.run_delete(op);
        self.end();
        answer
    }

    fn run_delete(&mut self, op: &DeleteOp) -> Answer {
        let hit: Vec<Pair> =
            self.state.values().filter(|pair| op.keys.contains(&pair.key)).cloned().collect();
        for pair in &hit {
            self.change(&pair.key, None);
        }
        let prev = hit.iter().filter(|_| op.prev_kv).map(Pair::message).collect();
        Answer::Delete { revision: self.under_way(), deleted: hit.len() as i64, prev }
    }

    pub fn keys_of_lease(&self, lease: i64) -> Vec<Bytes> {
        self.state.values().filter(|pair| pair.lease == lease).map(|pair| pair.key.clone()).collect()
    }

    pub fn revoke(&mut self, lease: i64) -> i64 {
        self.leases.remove(&lease);
        for key in self.keys_of_lease(lease) {
            self.change(&key, None);
        }
        self.end();
        self.revision
    }

    pub fn compact(&mut self, revision: i64) -> Result<(), Refusal> {
        if revision <= self.compact {
            return Err("Compacted");
        }
        if revision > self.revision {
            return Err("FutureRevision");
        }
        self.compact = revision;
        Ok(())
    }

    pub fn txn(&mut self, op: &TxnOp) -> Result<Answer, Refusal> {
        let before = self.state.clone();
        let mut deleted = Vec::new();
        self.check(op, &before, &mut deleted)?;
        let answer = self.run(op, &before);
        self.end();
        Ok(answer)
    }

    fn check(&self, op: &TxnOp, before: &State, deleted: &mut Vec<KeyRange>) -> Result<(), Refusal> {
        for op in chosen(op, before).1 {
            match op {
                Op::Range(op) if op.revision > self.revision => return Err("FutureRevision"),
                Op::Range(op) if op.revision != 0 && op.revision < self.compact => return Err("Compacted"),
                Op::Range(_) => {}
                Op::Put(op) => {
                    let there = before.contains_key(&op.key);
                    let gone = deleted.iter().any(|keys| keys.contains(&op.key));
                    if (op.value.is_none() || op.lease.is_none()) && (!there || gone) {
                        return Err("KeyNotFound");
                    }
                    if !op.lease.is_none_or(|lease| self.lease_exists(lease)) {
                        return Err("LeaseNotFound");
                    }
                }
                Op::Delete(op) => deleted.push(op.keys.clone()),
                Op::Txn(op) => self.check(op, before, deleted)?,
            }
        }
        Ok(())
    }

    fn run(&mut self, op: &TxnOp, before: &State) -> Answer {
        let (succeeded, ops) = chosen(op, before);
        let mut responses = Vec::new();
        for op in ops {
            responses.push(match op {
                Op::Range(op) => {
                    let seen = match op.revision {
                        n if n > 0 => self.state_at(Revision { main: n, sub: i64::MAX }),
                        _ => self.state.clone(),
                    };
                    Answer::Range(range(&seen, op, self.under_way()))
                }
                Op::Put(op) => self.run_put(op),
                Op::Delete(op) => self.run_delete(op),
                Op::Txn(op) => self.run(op, before),
            });
        }
        Answer::Txn { revision: self.under_way(), succeeded, responses }
    }

    /// What watchers of `ranges` are told from `from` on.
    pub fn history(&self, ranges: &[KeyRange], from: i64) -> Vec<(Revision, bool, Bytes)> {
        let told = |change: &&Change| {
            let superseded = change.at.main == self.compact
                && self.changes.iter().any(|later| {
                    later.at.main == change.at.main && later.at > change.at && later.key == change.key
                });
            change.at.main >= from && !superseded && ranges.iter().any(|range| range.contains(&change.key))
        };
        let event = |change: &Change| match &change.pair {
            Some(pair) => (change.at, true, pair.message()),
            None => (change.at, false, tombstone(&change.key, change.at.main).message()),
        };
        self.changes.iter().filter(told).map(event).collect()
    }

    /// HASH-3 to HASH-9. `of_compaction`: as a compaction at `revision` leaves it.
    pub fn hash(&self, revision: i64, compact: i64, of_compaction: bool) -> u32 {
        let end = |main| Revision { main, sub: i64::MAX };
        let is_last = |change: &Change, at: Revision| {
            !self
                .changes
                .iter()
                .any(|later| later.key == change.key && later.at > change.at && later.at <= at)
        };
        let mut any_live = !self.state_at(end(revision)).is_empty();
        if of_compaction {
            any_live |= self.changes.iter().any(|change| {
                change.at.main == revision && change.pair.is_none() && is_last(change, end(revision))
            });
        }
        // What a purge at `compact` has taken is never in a hash.
        let horizon = end(if any_live { revision } else { compact });
        let mut crc = crc32c(0, b"key");
        for change in self.changes.iter().filter(|change| change.at.main <= revision) {
            if change.at.main <= compact && (change.pair.is_none() || !is_last(change, horizon)) {
                continue;
            }
            crc = crc32c(crc, &change.at.main.to_be_bytes());
            crc = crc32c(crc, b"_");
            crc = crc32c(crc, &change.at.sub.to_be_bytes());
            match &change.pair {
                Some(pair) => crc = crc32c(crc, &pair.message()),
                None => {
                    crc = crc32c(crc, b"t");
                    crc = crc32c(crc, &tombstone(&change.key, 0).message());
                }
            }
        }
        crc
    }

    /// Stored bytes of the newest revision of each live key: revision, mark, message.
    pub fn live_bytes(&self) -> i64 {
        self.state.values().map(|pair| 17 + pair.message().len() as i64).sum()
    }
}

fn tombstone(key: &Bytes, modified: i64) -> Pair {
    Pair { key: key.clone(), create: 0, modified, version: 0, value: Bytes::new(), lease: 0 }
}

/// CRC-32C a bit at a time.
fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    let mut crc = !crc;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

fn chosen<'t>(op: &'t TxnOp, before: &State) -> (bool, &'t [Op]) {
    let succeeded = op.compares.iter().all(|compare| holds(compare, before));
    (succeeded, if succeeded { &op.success } else { &op.failure })
}

fn holds(compare: &Compare, before: &State) -> bool {
    let hit: Vec<&Pair> = before.values().filter(|pair| compare.keys.contains(&pair.key)).collect();
    if hit.is_empty() {
        let missing = tombstone(&Bytes::new(), 0);
        return !matches!(compare.target, CompareTarget::Value(_)) && satisfies(compare, &missing);
    }
    hit.into_iter().all(|pair| satisfies(compare, pair))
}

fn satisfies(compare: &Compare, pair: &Pair) -> bool {
    let order = match &compare.target {
        CompareTarget::Version(n) => pair.version.cmp(n),
        CompareTarget::Create(n) => pair.create.cmp(n),
        CompareTarget::Mod(n) => pair.modified.cmp(n),
        CompareTarget::Value(value) => pair.value.cmp(value),
        CompareTarget::Lease(n) => pair.lease.cmp(n),
        CompareTarget::Unknown => std::cmp::Ordering::Equal,
    };
    match compare.result {
        CompareResult::Equal => order.is_eq(),
        CompareResult::NotEqual => order.is_ne(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
        CompareResult::Unknown => true,
    }
}

/// KV-10 to KV-22 over a state.
pub fn range(state: &State, op: &RangeOp, revision: i64) -> RangeAnswer {
    let mut pairs: Vec<Pair> = state.values().filter(|pair| op.keys.contains(&pair.key)).cloned().collect();
    let count = pairs.len() as i64;
    if op.count_only {
        return RangeAnswer { revision, kvs: Vec::new(), count, more: false };
    }
    let limit = if op.limit > 0 { op.limit as usize } else { usize::MAX };
    let filters = [op.min_mod, op.max_mod, op.min_create, op.max_create];
    if op.sort_order == SortOrder::None && filters == [0; 4] {
        pairs.truncate(limit.saturating_add(1));
    }
    pairs.retain(|pair| {
        (op.min_mod == 0 || pair.modified >= op.min_mod)
            && (op.max_mod == 0 || pair.modified <= op.max_mod)
            && (op.min_create == 0 || pair.create >= op.min_create)
            && (op.max_create == 0 || pair.create <= op.max_create)
    });
    let compare = |a: &Pair, b: &Pair| match op.sort_target {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create.cmp(&b.create),
        SortTarget::Mod => a.modified.cmp(&b.modified),
        SortTarget::Value => a.value.cmp(&b.value),
    };
    match op.sort_order {
        SortOrder::Descend => pairs.sort_by(|a, b| compare(b, a)),
        _ => pairs.sort_by(compare),
    }
    let more = pairs.len() > limit;
    pairs.truncate(limit);
    for pair in pairs.iter_mut().filter(|_| op.keys_only) {
        pair.value = Bytes::new();
        if op.sort_target != SortTarget::Value {
            pair.lease = 0;
        }
    }
    RangeAnswer { revision, kvs: pairs.iter().map(Pair::message).collect(), count, more }
}
