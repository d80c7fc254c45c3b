// SPDX-License-Identifier: Apache-2.0
//! Random requests, valid and invalid, over a small set of keys so that they meet each other.
//!
//! Owns      the random source, and what it must know of the store: its revisions.
//! Holds     1. no request whose answer etcd leaves open: sorts that could tie have at most
//!              [`STABLE_SORT_MAX`] results, leases neither expire nor change order in a run;
//!           2. no request that ends an etcd 3.5.1 process (an unknown sort target; TXN-27; a nested put that
//!              fails when applied).
//! Never     knows which keys exist: the reference does.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use bytes::Bytes;
use cairn_proto::etcdserverpb::compare::TargetUnion;
use cairn_proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, HashKvRequest, LeaseGrantRequest, LeaseKeepAliveRequest,
    LeaseRevokeRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op,
};
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::answer::{Answer, Reply, Request};
use super::edges::edges;

/// In byte order.
const KEYS: [&[u8]; 12] =
    [b"\0", b"a", b"a\0", b"aa", b"ab", b"b", b"c", b"k/1", b"k/2", b"k/3", b"m\xff", b"\xff"];

/// Never put.
const ABSENT: &[u8] = b"zz";

const LEASES: [i64; 8] = [1, 2, 3, 7, 1000, -5, i64::MAX, i64::MIN];
const UNKNOWN_LEASE: i64 = 99;

/// Go's sort keeps the order of equal values for so few (KV-19).
const STABLE_SORT_MAX: usize = 6;

const DEPTH_MAX: usize = 3;

/// What of a transaction may be refused when it is applied. One kind at a time: which of two errors comes
/// first is not a rule.
#[derive(Clone, Copy, PartialEq)]
enum Flaw {
    None,
    Range,
    Put,
}

#[derive(Debug)]
pub struct Generator {
    rng: ChaCha8Rng,
    now: i64,
    compacted: i64,
    granted: Vec<i64>,
    /// Revisions of past compactions, of which a later etcd may remember the hash.
    compactions: Vec<i64>,
    /// Requests that belong together; they go before anything random.
    planned: VecDeque<Request>,
}

impl Generator {
    pub fn new(seed: u64) -> Generator {
        Generator {
            rng: ChaCha8Rng::seed_from_u64(seed),
            now: 1,
            compacted: -1,
            granted: Vec::new(),
            compactions: Vec::new(),
            planned: edges().into(),
        }
    }

    /// The next request.
    #[expect(clippy::should_implement_trait, reason = "it needs observe() in between, so it is no iterator")]
    pub fn next(&mut self) -> Request {
        if let Some(request) = self.planned.pop_front() {
            return request;
        }
        match self.rng.random_range(0..1000) {
            0..300 => Request::Range(self.range(true, Flaw::Range)),
            300..520 => Request::Put(self.put(true)),
            520..600 => Request::Delete(self.delete(true)),
            600..850 => Request::Txn(self.txn()),
            850..865 => self.compact(),
            865..900 => Request::HashKv(HashKvRequest { revision: self.hashed() }),
            900..935 => Request::Grant(LeaseGrantRequest { ttl: self.ttl(), id: self.lease() }),
            935..940 => Request::GrantAny(LeaseGrantRequest { ttl: self.ttl(), id: 0 }),
            940..955 => Request::Revoke(LeaseRevokeRequest { id: self.lease() }),
            955..970 => Request::KeepAlive(LeaseKeepAliveRequest { id: self.lease() }),
            970..990 => {
                let (id, keys) = (self.lease(), self.chance(50));
                Request::TimeToLive(LeaseTimeToLiveRequest { id, keys })
            }
            _ => Request::Leases,
        }
    }

    /// Tells what the reference answered, so that later requests can be near the truth.
    pub fn observe(&mut self, request: &Request, answer: &Answer) {
        let header = match answer {
            Ok(Reply::Range(r)) => {
                let probe = matches!(self.planned.front(), Some(Request::HashKv(_)));
                if probe && r.count == 0 {
                    self.planned.clear(); // HASH-9 treats a compaction where nothing lives apart: not here
                }
                r.header
            }
            Ok(Reply::Put(r)) => r.header,
            Ok(Reply::Delete(r)) => r.header,
            Ok(Reply::Txn(r)) => r.header,
            Ok(Reply::Revoke(r)) => r.header,
            Ok(_) | Err(_) => None,
        };
        self.now = header.map_or(self.now, |h| h.revision);
        match (request, answer) {
            (Request::Compact(r), Ok(_)) => {
                self.compacted = r.revision;
                self.compactions.push(r.revision);
            }
            (Request::Grant(r), Ok(_)) => self.granted.push(r.id),
            (Request::Revoke(r), Ok(_)) => self.granted.retain(|id| *id != r.id),
            _ => {}
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_ratio(percent, 100)
    }

    fn key(&mut self) -> Bytes {
        Bytes::from_static(KEYS.choose(&mut self.rng).expect("there are keys"))
    }

    /// A key and a range end; the key may be empty only where the caller wants refusals too.
    fn interval(&mut self, may_be_empty: bool) -> (Bytes, Bytes) {
        let key = self.key();
        match self.rng.random_range(0..100) {
            0..45 => (key, Bytes::new()),
            45..72 => (key, self.key()),
            72..82 => (key.clone(), prefix_end(&key)),
            82..90 => (key, Bytes::from_static(b"\0")),
            90..94 => (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")),
            94..97 => (Bytes::from_static(ABSENT), Bytes::new()),
            _ if may_be_empty => (Bytes::new(), self.key()),
            _ => (key, Bytes::new()),
        }
    }

    fn revision(&mut self) -> i64 {
        let (now, compacted) = (self.now, self.compacted);
        let near = [0, 0, -1, 1, compacted - 1, compacted, compacted + 1, now - 1, now, now + 1, now + 1000];
        if self.chance(60) {
            *near.choose(&mut self.rng).expect("there are some")
        } else {
            self.rng.random_range(self.readable())
        }
    }

    /// HASH-12: of negative revisions there is no rule.
    fn hashed(&mut self) -> i64 {
        match self.compactions.choose(&mut self.rng).copied() {
            Some(revision) if self.chance(25) => revision,
            _ => self.revision().max(0),
        }
    }

    /// Revisions at which a read works.
    fn readable(&self) -> RangeInclusive<i64> {
        self.compacted.max(1)..=self.now
    }

    fn range(&mut self, plain: bool, flaw: Flaw) -> RangeRequest {
        let (key, range_end) = self.interval(plain);
        let mut range = RangeRequest { key, range_end, ..RangeRequest::default() };
        range.limit = *[0, 0, 0, 1, 2, 3, 5, 100, -1].choose(&mut self.rng).expect("there are some");
        if self.chance(40) {
            range.revision = match flaw {
                Flaw::Range => self.revision(),
                _ => self.rng.random_range(self.readable()),
            };
        }
        range.serializable = self.chance(20);
        range.keys_only = self.chance(15);
        range.count_only = self.chance(8);
        if self.chance(20) {
            let bound = |rng: &mut ChaCha8Rng| {
                if rng.random_ratio(1, 2) { 0 } else { rng.random_range(-1..=self.now + 1) }
            };
            range.min_mod_revision = bound(&mut self.rng);
            range.max_mod_revision = bound(&mut self.rng);
            range.min_create_revision = bound(&mut self.rng);
            range.max_create_revision = bound(&mut self.rng);
        }
        if self.chance(50) {
            range.sort_order = self.rng.random_range(0..=2);
            range.sort_target = self.rng.random_range(0..=4);
            if may_tie(&range) {
                range.sort_target = 0;
            }
        }
        if plain && self.chance(2) {
            range.sort_order = *[3, -1, 77].choose(&mut self.rng).expect("there are some");
        }
        range
    }

    fn value(&mut self) -> Bytes {
        match self.rng.random_range(0..10) {
            0 => Bytes::new(),
            1 => {
                let mut bytes = vec![0; self.rng.random_range(1..300)];
                self.rng.fill(bytes.as_mut_slice());
                bytes.into()
            }
            _ => format!("v{}", self.rng.random_range(0..10)).into(),
        }
    }

    /// A put; one that is `free` may also be refused when it is applied.
    fn put(&mut self, free: bool) -> PutRequest {
        let key = if free && self.chance(2) { Bytes::new() } else { self.key() };
        let mut put =
            PutRequest { key, value: self.value(), prev_kv: self.chance(30), ..PutRequest::default() };
        if self.chance(35) {
            put.lease = match self.granted.choose(&mut self.rng).copied() {
                Some(id) if !(free && self.chance(10)) => id,
                _ if free => UNKNOWN_LEASE,
                _ => 0,
            };
        }
        if free && self.chance(12) {
            put.ignore_value = true;
            if self.chance(85) {
                put.value = Bytes::new();
            }
        }
        if free && self.chance(12) {
            put.ignore_lease = true;
            if self.chance(85) {
                put.lease = 0;
            }
        }
        put
    }

    fn delete(&mut self, may_be_empty: bool) -> DeleteRangeRequest {
        let (key, range_end) = self.interval(may_be_empty);
        DeleteRangeRequest { key, range_end, prev_kv: self.chance(40) }
    }

    fn txn(&mut self) -> TxnRequest {
        let flaw = match self.rng.random_range(0..10) {
            0 => Flaw::Range,
            1 | 2 => Flaw::Put,
            _ => Flaw::None,
        };
        let only_ranges = self.chance(15);
        self.nested(1, flaw, only_ranges)
    }

    fn nested(&mut self, depth: usize, flaw: Flaw, only_ranges: bool) -> TxnRequest {
        let compares = self.rng.random_range(0..=2);
        let compare = (0..compares).map(|_| self.compare()).collect();
        let success = self.ops(depth, flaw, only_ranges);
        let failure = self.ops(depth, flaw, only_ranges);
        TxnRequest { compare, success, failure }
    }

    fn ops(&mut self, depth: usize, flaw: Flaw, only_ranges: bool) -> Vec<RequestOp> {
        let n = self.rng.random_range(0..=3);
        (0..n).map(|_| RequestOp { request: self.op(depth, flaw, only_ranges) }).collect()
    }

    fn op(&mut self, depth: usize, flaw: Flaw, only_ranges: bool) -> Option<request_op::Request> {
        let kind = if only_ranges { 0 } else { self.rng.random_range(0..200) };
        Some(match kind {
            0..60 => request_op::Request::RequestRange(self.range(false, flaw)),
            60..130 => {
                let free = flaw == Flaw::Put && depth == 1;
                request_op::Request::RequestPut(self.put(free))
            }
            130..165 => {
                let mut delete = self.delete(false);
                if flaw == Flaw::Put && delete.range_end == b"\0".as_slice() {
                    delete.range_end = Bytes::new();
                }
                request_op::Request::RequestDeleteRange(delete)
            }
            165..199 if depth < DEPTH_MAX => {
                request_op::Request::RequestTxn(self.nested(depth + 1, flaw, only_ranges))
            }
            165..199 => request_op::Request::RequestPut(self.put(false)),
            _ => return None,
        })
    }

    fn compare(&mut self) -> Compare {
        let (key, mut range_end) = self.interval(true);
        if self.chance(70) {
            range_end = Bytes::new();
        }
        let mut compare = Compare {
            key,
            range_end,
            result: self.rng.random_range(0..=3),
            target: self.rng.random_range(0..=4),
            target_union: None,
        };
        let operand = if self.chance(93) { compare.target } else { self.rng.random_range(0..=5) };
        let revision = if self.chance(30) { 0 } else { self.rng.random_range(0..=self.now + 1) };
        compare.target_union = match operand {
            0 => Some(TargetUnion::Version(self.rng.random_range(0..4))),
            1 => Some(TargetUnion::CreateRevision(revision)),
            2 => Some(TargetUnion::ModRevision(revision)),
            3 => Some(TargetUnion::Value(self.value())),
            4 => Some(TargetUnion::Lease(if self.chance(50) { 0 } else { self.lease() })),
            _ => None,
        };
        if self.chance(1) {
            compare.result = 9;
        }
        if self.chance(1) {
            compare.target = 9;
        }
        compare
    }

    /// A compaction, with what makes its outcome the same on both servers: first the hash that it leaves
    /// remembered, afterwards a second one that waits for it.
    fn compact(&mut self) -> Request {
        let revision = match self.rng.random_range(0..10) {
            0..6 if self.now > self.compacted + 1 => {
                self.rng.random_range(self.compacted.max(1) + 1..=self.now)
            }
            6 => self.now,
            _ => self.revision(),
        };
        // HASH-12: what a compaction at 0 leaves remembered is no rule.
        let revision = if revision == 0 && self.compacted < 0 { -1 } else { revision };
        let physical = self.chance(60);
        let compact = |physical| Request::Compact(CompactionRequest { revision, physical });
        if revision <= self.compacted.max(0) || revision > self.now {
            return compact(physical);
        }
        let everything = Bytes::from_static(b"\0");
        let probe = RangeRequest {
            key: everything.clone(),
            range_end: everything,
            revision,
            count_only: true,
            ..RangeRequest::default()
        };
        self.planned.extend([Request::HashKv(HashKvRequest { revision }), compact(physical), compact(true)]);
        Request::Range(probe)
    }

    fn lease(&mut self) -> i64 {
        match self.granted.choose(&mut self.rng).copied() {
            Some(id) if self.chance(50) => id,
            _ if self.chance(15) => UNKNOWN_LEASE,
            _ => *LEASES.choose(&mut self.rng).expect("there are leases"),
        }
    }

    /// Long enough for any run, and so far apart that no run changes the order of expiry.
    fn ttl(&mut self) -> i64 {
        match self.rng.random_range(0..20) {
            0 => 9_000_000_000,
            1 => 9_000_000_001,
            _ => 100_000 * self.rng.random_range(1..100),
        }
    }
}

/// Whether the answer could depend on how a sort treats equal values.
fn may_tie(range: &RangeRequest) -> bool {
    let filtered = [
        range.min_mod_revision,
        range.max_mod_revision,
        range.min_create_revision,
        range.max_create_revision,
    ];
    let cut_before_sort =
        range.sort_order == 0 && filtered == [0; 4] && (1..STABLE_SORT_MAX as i64).contains(&range.limit);
    range.sort_target != 0 && !cut_before_sort && covered(&range.key, &range.range_end) > STABLE_SORT_MAX
}

fn covered(key: &[u8], end: &[u8]) -> usize {
    match end {
        [] => 1,
        [0] => KEYS.iter().filter(|k| **k >= key).count(),
        _ => KEYS.iter().filter(|k| **k >= key && **k < end).count(),
    }
}

/// KV-5.
fn prefix_end(key: &[u8]) -> Bytes {
    let mut end = key.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(b"\0")
}
