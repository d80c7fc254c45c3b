// SPDX-License-Identifier: Apache-2.0
//! What clients ask for.
//!
//! Owns      the draw of requests, each of them one that the door lets in.
//! Holds     every value is different, so that what is read names who wrote it.
//! Never     knows what the answer will be.

use crate::users;
use bytes::Bytes;
use cairn_core::{Command, door};
use cairn_engine::sim::SplitMix;
use cairn_proto::etcdserverpb as pb;
use pb::{compare::TargetUnion, request_op::Request};

/// Draws requests over a small set of keys.
pub struct Traffic {
    pub keys: u64,
    pub value_bytes: u64,
}

impl Traffic {
    fn key(&self, rng: &mut SplitMix) -> Bytes {
        Bytes::from(format!("k{:03}", rng.below(self.keys)))
    }

    /// A key and an end: mostly one key, else an interval, a from-key or everything.
    fn interval(&self, rng: &mut SplitMix) -> (Bytes, Bytes) {
        let zero = Bytes::from_static(b"\0");
        match rng.below(8) {
            0 => (self.key(rng), self.key(rng)),
            1 => (self.key(rng), zero),
            2 => (zero.clone(), zero),
            _ => (self.key(rng), Bytes::new()),
        }
    }

    fn value(&self, rng: &mut SplitMix, op: u64) -> Bytes {
        let mut value = format!("{op:016x}").into_bytes();
        value.resize(16 + rng.below(self.value_bytes + 1) as usize, b'.');
        value.into()
    }

    /// A request that goes through the log. `leases` are ids that may exist.
    pub fn write(&self, rng: &mut SplitMix, op: u64, now: i64, leases: &[i64]) -> Command {
        match rng.below(21) {
            0..8 => Command::Put(self.put(rng, op, leases)),
            8..11 => Command::DeleteRange(self.delete(rng)),
            11..16 => loop {
                let txn = self.txn(rng, op, now, leases, 0);
                if door::check_txn(&txn, 128).is_ok() {
                    return Command::Txn(txn);
                }
            },
            16 => {
                let revision = now - rng.below(20) as i64 + 1;
                Command::Compact(pb::CompactionRequest { revision, physical: false })
            }
            17 => {
                let ttl = 2 + rng.below(30) as i64;
                Command::LeaseGrant(pb::LeaseGrantRequest { ttl, id: 1 + rng.below(12) as i64 })
            }
            18 if rng.one_in(3) => Command::Alarm(self.alarm(rng)),
            _ => Command::LeaseRevoke(pb::LeaseRevokeRequest { id: 1 + rng.below(12) as i64 }),
        }
    }

    /// A change of users or roles, or a login.
    pub fn users(&self, rng: &mut SplitMix) -> Command {
        let interval = self.interval(rng);
        Command::Auth(Box::new(users::change(rng, interval)))
    }

    fn put(&self, rng: &mut SplitMix, op: u64, leases: &[i64]) -> pb::PutRequest {
        let ignore_value = rng.one_in(12);
        let ignore_lease = rng.one_in(12);
        let lease = match rng.below(4) {
            0 if !leases.is_empty() => leases[rng.index(leases.len())],
            1 => 1 + rng.below(12) as i64,
            _ => 0,
        };
        pb::PutRequest {
            key: self.key(rng),
            value: if ignore_value { Bytes::new() } else { self.value(rng, op) },
            lease: if ignore_lease { 0 } else { lease },
            prev_kv: rng.one_in(3),
            ignore_value,
            ignore_lease,
        }
    }

    fn delete(&self, rng: &mut SplitMix) -> pb::DeleteRangeRequest {
        let (key, range_end) = self.interval(rng);
        pb::DeleteRangeRequest { key, range_end, prev_kv: rng.one_in(3) }
    }

    /// Looks at the alarms, or switches one on.
    fn alarm(&self, rng: &mut SplitMix) -> pb::AlarmRequest {
        use pb::{AlarmType, alarm_request::AlarmAction};
        let (action, alarm) = match rng.below(6) {
            0 | 1 => (AlarmAction::Get, AlarmType::None),
            2 => (AlarmAction::Get, AlarmType::Nospace),
            3 | 4 => (AlarmAction::Activate, AlarmType::Nospace),
            _ => (AlarmAction::Activate, AlarmType::Corrupt),
        };
        pb::AlarmRequest { action: action.into(), member_id: 1 + rng.below(3), alarm: alarm.into() }
    }

    pub fn range(&self, rng: &mut SplitMix, now: i64) -> pb::RangeRequest {
        let (key, range_end) = self.interval(rng);
        let sorted = rng.one_in(3);
        let (sort_order, sort_target) = match sorted {
            true => (rng.below(3) as i32, rng.below(5) as i32),
            false => (0, 0),
        };
        let mut bound = || if sorted && rng.one_in(6) { now - rng.below(30) as i64 } else { 0 };
        let (min_mod_revision, max_mod_revision) = (bound(), bound());
        let (min_create_revision, max_create_revision) = (bound(), bound());
        pb::RangeRequest {
            sort_order,
            sort_target,
            min_mod_revision,
            max_mod_revision,
            min_create_revision,
            max_create_revision,
            key,
            range_end,
            limit: if rng.one_in(3) { 1 + rng.below(5) as i64 } else { 0 },
            revision: if rng.one_in(3) { (now - rng.below(30) as i64 + 2).max(0) } else { 0 },
            keys_only: rng.one_in(6),
            count_only: rng.one_in(6),
            ..Default::default()
        }
    }

    fn txn(&self, rng: &mut SplitMix, op: u64, now: i64, leases: &[i64], depth: u64) -> pb::TxnRequest {
        let compare = (0..rng.below(3)).map(|_| self.compare(rng, now)).collect();
        let list = |rng: &mut SplitMix| {
            let ops = (0..rng.below(4)).map(|_| {
                let request = match rng.below(6) {
                    0 | 1 => Request::RequestPut(self.put(rng, op, leases)),
                    2 => Request::RequestDeleteRange(self.delete(rng)),
                    3 if depth < 3 => Request::RequestTxn(self.txn(rng, op, now, leases, depth + 1)),
                    _ => Request::RequestRange(self.range(rng, now)),
                };
                pb::RequestOp { request: Some(request) }
            });
            ops.collect::<Vec<_>>()
        };
        let (success, failure) = (list(rng), list(rng));
        pb::TxnRequest { compare, success, failure }
    }

    fn compare(&self, rng: &mut SplitMix, now: i64) -> pb::Compare {
        let (key, range_end) = self.interval(rng);
        let revision = now - rng.below(10) as i64;
        let (target, union) = match rng.below(5) {
            0 => (0, TargetUnion::Version(rng.below(4) as i64)),
            1 => (1, TargetUnion::CreateRevision(if rng.one_in(2) { 0 } else { revision })),
            2 => (2, TargetUnion::ModRevision(if rng.one_in(2) { 0 } else { revision })),
            3 => (3, TargetUnion::Value(self.value(rng, rng.clone().below(50)))),
            _ => (4, TargetUnion::Lease(rng.below(12) as i64)),
        };
        pb::Compare { result: rng.below(4) as i32, target, key, range_end, target_union: Some(union) }
    }

    pub fn watch(&self, rng: &mut SplitMix, now: i64) -> pb::WatchCreateRequest {
        let (key, mut range_end) = self.interval(rng);
        if range_end.len() > 1 && range_end <= key {
            range_end = Bytes::new();
        }
        let start_revision = match rng.below(4) {
            0 => 0,
            1 => now + 1 + rng.below(20) as i64,
            _ => (now - rng.below(60) as i64).max(1),
        };
        let filters = if rng.one_in(5) { vec![rng.below(2) as i32] } else { Vec::new() };
        pb::WatchCreateRequest {
            key,
            range_end,
            start_revision,
            progress_notify: rng.one_in(2),
            filters,
            prev_kv: rng.one_in(2),
            fragment: rng.one_in(2),
            ..Default::default()
        }
    }
}
