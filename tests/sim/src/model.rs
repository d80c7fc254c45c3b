// SPDX-License-Identifier: Apache-2.0
//! What the store should hold: the rules once more, as short as they can be said.
//!
//! Owns      every version of every key, the leases, the compact revision.
//! Holds     it shares no code with the store: maps, and the rules of `semantics-kv.md`. Of users it keeps the record that
//!           [`crate::users`] speaks of.
//! Never     looks at the member: it is told the entries of the log, and compared.

use crate::{digest::Digest, users::Users};
use bytes::Bytes;
use cairn_core::{
    Command,
    auth::Identity,
    replica::conf::{ConfChange, Kind},
};
use cairn_proto::{errors, etcdserverpb as pb, mvccpb::KeyValue};
use pb::request_op::Request;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

/// An answer in one form for model and member.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    Refused(&'static str),
    Range {
        revision: i64,
        kvs: Vec<KeyValue>,
        count: i64,
        more: bool,
    },
    Put {
        revision: i64,
        prev: Option<KeyValue>,
    },
    Delete {
        revision: i64,
        deleted: i64,
        prevs: Vec<KeyValue>,
    },
    Txn {
        revision: i64,
        succeeded: bool,
        responses: Vec<Outcome>,
    },
    Revision(i64),
    Grant {
        revision: i64,
        id: i64,
        ttl: i64,
    },
    /// Each alarm as its member and type.
    Alarms {
        revision: i64,
        alarms: Vec<(u64, i32)>,
    },
    /// Each member as its id, whether it learns, and its peer URLs.
    Members(Vec<(u64, bool, Vec<String>)>),
    Done,
}

impl Outcome {
    /// Mixes all of it into a digest.
    pub fn digest(&self, into: &mut Digest) {
        let mut pairs = |kvs: &[KeyValue]| {
            for kv in kvs {
                into.bytes(&kv.key);
                into.bytes(&kv.value);
                for number in [kv.create_revision, kv.mod_revision, kv.version, kv.lease] {
                    into.number(number as u64);
                }
            }
        };
        match self {
            Outcome::Range { kvs, .. } => pairs(kvs),
            Outcome::Put { prev, .. } => pairs(prev.as_slice()),
            Outcome::Delete { prevs, .. } => pairs(prevs),
            Outcome::Txn { responses, .. } => responses.iter().for_each(|response| response.digest(into)),
            _ => {}
        }
        let numbers = match self {
            Outcome::Range { revision, kvs, count, more } => {
                [*revision, kvs.len() as i64, *count, i64::from(*more)]
            }
            Outcome::Put { revision, prev } => [*revision, i64::from(prev.is_some()), 0, 1],
            Outcome::Delete { revision, deleted, prevs } => [*revision, *deleted, prevs.len() as i64, 2],
            Outcome::Txn { revision, succeeded, responses } => {
                [*revision, i64::from(*succeeded), responses.len() as i64, 3]
            }
            // The others are short.
            other => return write!(into, "{other:?}").expect("a number takes any text"),
        };
        numbers.into_iter().for_each(|number| into.number(number as u64));
    }
}

/// One change of one key: what it became, or `None` for a delete.
#[derive(Clone, PartialEq, Debug)]
pub struct Change {
    pub key: Bytes,
    pub kv: Option<KeyValue>,
}

/// See the module.
#[derive(Default)]
pub struct Model {
    /// Versions of each key by revision; `None` is a tombstone.
    keys: BTreeMap<Bytes, Vec<(i64, Option<KeyValue>)>>,
    /// The changes of revision 2 and up.
    history: Vec<Vec<Change>>,
    /// TTL, and the entry that granted it.
    leases: BTreeMap<i64, (i64, u64)>,
    pub compacted: i64,
    /// Type and member.
    alarms: BTreeSet<(i32, u64)>,
    /// Whether each member learns, and its peer URLs.
    members: BTreeMap<u64, (bool, Vec<String>)>,
    removed: BTreeSet<u64>,
    pub users: Users,
}

/// The empty store's revision (HDR-1).
const FIRST: i64 = 1;

fn within(key: &[u8], from: &[u8], end: &[u8]) -> bool {
    match end {
        [] => key == from,
        [0] => key >= from,
        end => key >= from && key < end,
    }
}

impl Model {
    pub fn new() -> Model {
        Model { compacted: -1, ..Model::default() }
    }

    pub fn revision(&self) -> i64 {
        FIRST + self.history.len() as i64
    }

    /// The changes of one revision.
    pub fn changes(&self, revision: i64) -> &[Change] {
        &self.history[(revision - FIRST - 1) as usize]
    }

    pub fn leases(&self) -> Vec<i64> {
        self.leases.keys().copied().collect()
    }

    /// A key as it was at a revision.
    pub fn at(&self, key: &[u8], revision: i64) -> Option<&KeyValue> {
        let versions = self.keys.get(key)?;
        let newest = versions.iter().rev().find(|(rev, _)| *rev <= revision)?;
        newest.1.as_ref()
    }

    /// Live pairs of an interval at a revision, in key order.
    fn live(&self, from: &[u8], end: &[u8], revision: i64) -> Vec<KeyValue> {
        let keys = self.keys.keys().filter(|key| within(key, from, end));
        keys.filter_map(|key| self.at(key, revision)).cloned().collect()
    }

    /// The alarms that are on, as member and type.
    pub fn alarms(&self, alarm: i32) -> Vec<(u64, i32)> {
        let all = alarm == pb::AlarmType::None as i32;
        self.alarms.iter().filter(|(on, _)| all || *on == alarm).map(|(on, member)| (*member, *on)).collect()
    }

    /// Why the alarms forbid a request (ALARM-4 to ALARM-6). Of what the members ask for themselves, only the end of a
    /// lease is a write of the store.
    fn forbidden(&self, command: &Command) -> Option<&'static str> {
        let (writes, grows) = match command {
            Command::Put(_) | Command::LeaseGrant(_) => (true, true),
            Command::Txn(r) => (true, puts(r)),
            Command::DeleteRange(_) | Command::Compact(_) | Command::LeaseRevoke(_) => (true, false),
            // One that is no longer that lease is told so first.
            Command::LeaseEnd { id, granted_index } => {
                (self.leases.get(id).is_some_and(|(_, index)| index == granted_index), false)
            }
            _ => (false, false),
        };
        let on = |alarm: pb::AlarmType| !self.alarms(alarm as i32).is_empty();
        if writes && on(pb::AlarmType::Corrupt) {
            Some(errors::CORRUPT.text)
        } else if grows && on(pb::AlarmType::Nospace) {
            Some(errors::NO_SPACE.text)
        } else {
            None
        }
    }

    fn alarm(&mut self, r: &pb::AlarmRequest) -> Outcome {
        use pb::alarm_request::AlarmAction;
        let one = (r.alarm, r.member_id);
        let alarms = match AlarmAction::try_from(r.action).expect("generated actions are known") {
            AlarmAction::Get => self.alarms(r.alarm),
            AlarmAction::Activate => {
                self.alarms.insert(one);
                vec![(r.member_id, r.alarm)]
            }
            AlarmAction::Deactivate if self.alarms.remove(&one) => vec![(r.member_id, r.alarm)],
            AlarmAction::Deactivate => Vec::new(),
        };
        Outcome::Alarms { revision: self.revision(), alarms }
    }

    /// The voters, by id.
    pub fn voters(&self) -> Vec<u64> {
        self.members.iter().filter(|(_, (learns, _))| !learns).map(|(id, _)| *id).collect()
    }

    pub fn learners(&self) -> Vec<u64> {
        self.members.iter().filter(|(_, (learns, _))| *learns).map(|(id, _)| *id).collect()
    }

    pub fn is_removed(&self, id: u64) -> bool {
        self.removed.contains(&id)
    }

    /// Why a change of the membership is refused (CL-2). Raft has no cluster without a voter.
    fn refuses(&self, change: &ConfChange) -> Option<&'static str> {
        let id = change.member_id;
        let known = self.members.get(&id);
        let adds = matches!(change.kind, Kind::AddVoter | Kind::AddLearner);
        let urls = urls_of(change);
        let taken = |(other, (_, theirs)): (&u64, &(bool, Vec<String>))| {
            *other != id && theirs.iter().any(|url| urls.contains(url))
        };
        let brings_urls = adds || change.kind == Kind::Update;
        let full = self.learners().len() as u32 >= change.learners_max && change.learners_max > 0;
        if self.removed.contains(&id) || (!adds && known.is_none()) {
            Some(errors::MEMBER_NOT_FOUND.text)
        } else if adds && known.is_some() {
            Some(errors::MEMBER_EXIST.text)
        } else if brings_urls && self.members.iter().any(taken) {
            Some(errors::PEER_URL_EXIST.text)
        } else if change.kind == Kind::AddLearner && full {
            Some(errors::TOO_MANY_LEARNERS.text)
        } else if change.kind == Kind::Promote && known.is_some_and(|(learns, _)| !learns) {
            Some(errors::MEMBER_NOT_LEARNER.text)
        } else if change.kind == Kind::Remove && self.voters() == [id] {
            Some(errors::MEMBER_NOT_ENOUGH_STARTED.text)
        } else {
            None
        }
    }

    /// Applies a change of the membership.
    pub fn change(&mut self, change: &ConfChange) -> Outcome {
        if let Some(text) = self.refuses(change) {
            return Outcome::Refused(text);
        }
        let id = change.member_id;
        match change.kind {
            Kind::AddVoter | Kind::AddLearner => {
                self.members.insert(id, (change.kind == Kind::AddLearner, urls_of(change)));
            }
            Kind::Remove => {
                self.members.remove(&id);
                self.removed.insert(id);
            }
            Kind::Promote => self.members.get_mut(&id).expect("it is known").0 = false,
            Kind::Update => self.members.get_mut(&id).expect("it is known").1 = urls_of(change),
        }
        let all = self.members.iter().map(|(id, (learns, urls))| (*id, *learns, urls.clone()));
        Outcome::Members(all.collect())
    }

    /// Applies the entry `index`, which `by` asked for: the outcome that its proposer is to get.
    pub fn apply(&mut self, index: u64, by: Option<&Identity>, command: &Command) -> Outcome {
        let keys_of = |lease| self.attached(lease);
        let forbidden = self.forbidden(command).or_else(|| self.users.forbid(by, command, &keys_of));
        if let Some(text) = forbidden {
            return Outcome::Refused(text);
        }
        match command {
            Command::Put(r) => self.alone(&Request::RequestPut(r.clone())),
            Command::DeleteRange(r) => self.alone(&Request::RequestDeleteRange(r.clone())),
            Command::Txn(r) => self.txn(r),
            Command::Compact(r) if r.revision <= self.compacted => Outcome::Refused(errors::COMPACTED.text),
            Command::Compact(r) if r.revision > self.revision() => Outcome::Refused(errors::FUTURE_REV.text),
            Command::Compact(r) => {
                self.compacted = r.revision;
                Outcome::Revision(self.revision())
            }
            Command::LeaseGrant(r) if self.leases.contains_key(&r.id) => {
                Outcome::Refused(errors::LEASE_EXIST.text)
            }
            Command::LeaseGrant(r) => {
                self.leases.insert(r.id, (r.ttl, index));
                Outcome::Grant { revision: self.revision(), id: r.id, ttl: r.ttl }
            }
            Command::LeaseRevoke(r) => self.end_lease(r.id),
            // A lease that was granted anew is another one.
            Command::LeaseEnd { id, granted_index } => match self.leases.get(id) {
                Some((_, index)) if index == granted_index => self.end_lease(*id),
                _ => Outcome::Refused(errors::LEASE_NOT_FOUND.text),
            },
            Command::LeaseCheckpoint(_) | Command::ClusterVersion(_) | Command::MemberAttributes(_) => {
                Outcome::Done
            }
            Command::Downgrade(_) | Command::Later { .. } => {
                unreachable!("no simulated member is of another version")
            }
            Command::Alarm(r) => self.alarm(r),
            Command::Skip { .. } => unreachable!("no simulated member is restored from a backup"),
            Command::Auth(command) => self.users.apply(index, self.revision(), by, command),
        }
    }

    /// The keys on a lease, in their order.
    fn attached(&self, lease: i64) -> Vec<Bytes> {
        let live = self.live(b"\0", b"\0", self.revision()).into_iter();
        live.filter(|kv| kv.lease == lease).map(|kv| kv.key).collect()
    }

    fn end_lease(&mut self, id: i64) -> Outcome {
        if self.leases.remove(&id).is_none() {
            return Outcome::Refused(errors::LEASE_NOT_FOUND.text);
        }
        let changes = self.attached(id).into_iter().map(|key| Change { key, kv: None }).collect();
        self.commit(changes);
        Outcome::Revision(self.revision())
    }

    fn alone(&mut self, request: &Request) -> Outcome {
        let before = self.revision();
        if let Err(text) = self.check(request) {
            return Outcome::Refused(text);
        }
        let mut changes = Vec::new();
        let outcome = self.run(request, &BTreeMap::new(), before, &mut changes);
        self.commit(changes);
        outcome
    }

    fn txn(&mut self, r: &pb::TxnRequest) -> Outcome {
        let before = self.revision();
        // Every level's branch is chosen before anything runs (TXN-14).
        let mut chosen = BTreeMap::new();
        self.choose(r, &mut chosen);
        if let Err(text) = self.check_path(r, &chosen, &mut Vec::new()) {
            return Outcome::Refused(text);
        }
        let mut changes = Vec::new();
        let outcome = self.run_txn(r, &chosen, before, &mut changes);
        self.commit(changes);
        match outcome {
            Outcome::Txn { succeeded, responses, .. } => {
                Outcome::Txn { revision: self.revision(), succeeded, responses }
            }
            other => other,
        }
    }

    fn choose(&self, r: &pb::TxnRequest, chosen: &mut BTreeMap<*const pb::TxnRequest, bool>) {
        let holds = r.compare.iter().all(|c| self.holds(c));
        chosen.insert(r, holds);
        for op in if holds { &r.success } else { &r.failure } {
            if let Some(Request::RequestTxn(nested)) = &op.request {
                self.choose(nested, chosen);
            }
        }
    }

    fn holds(&self, c: &pb::Compare) -> bool {
        use pb::compare::{CompareResult, CompareTarget, TargetUnion};
        let now = self.revision();
        let mut kvs = self.live(&c.key, &c.range_end, now);
        if kvs.is_empty() {
            if c.target == CompareTarget::Value as i32 {
                return false;
            }
            kvs.push(KeyValue::default());
        }
        kvs.iter().all(|kv| {
            let order = match c.target_union.clone() {
                Some(TargetUnion::Value(v)) => kv.value.cmp(&v),
                Some(TargetUnion::Version(n)) => kv.version.cmp(&n),
                Some(TargetUnion::CreateRevision(n)) => kv.create_revision.cmp(&n),
                Some(TargetUnion::ModRevision(n)) => kv.mod_revision.cmp(&n),
                Some(TargetUnion::Lease(n)) => kv.lease.cmp(&n),
                None => unreachable!("generated compares have an operand"),
            };
            match CompareResult::try_from(c.result).expect("generated results are known") {
                CompareResult::Equal => order.is_eq(),
                CompareResult::Greater => order.is_gt(),
                CompareResult::Less => order.is_lt(),
                CompareResult::NotEqual => order.is_ne(),
            }
        })
    }

    /// The checks of one request on its own.
    fn check(&self, request: &Request) -> Result<(), &'static str> {
        match request {
            Request::RequestPut(r) => {
                self.check_lease(r)?;
                self.check_kept(r, &[])
            }
            Request::RequestRange(r) if r.revision > self.revision() => Err(errors::FUTURE_REV.text),
            Request::RequestRange(r) if r.revision > 0 && r.revision < self.compacted => {
                Err(errors::COMPACTED.text)
            }
            _ => Ok(()),
        }
    }

    fn check_lease(&self, r: &pb::PutRequest) -> Result<(), &'static str> {
        let granted = r.lease == 0 || self.leases.contains_key(&r.lease);
        if granted { Ok(()) } else { Err(errors::LEASE_NOT_FOUND.text) }
    }

    /// A put that keeps value or lease needs its key, which no earlier delete of the same transaction may
    /// have taken (PUT-4, TXN-27).
    fn check_kept(&self, r: &pb::PutRequest, deleted: &[(Bytes, Bytes)]) -> Result<(), &'static str> {
        let gone = deleted.iter().any(|(from, end)| within(&r.key, from, end));
        let exists = !gone && self.at(&r.key, self.revision()).is_some();
        let keeps = r.ignore_lease || r.ignore_value;
        if keeps && !exists { Err(errors::KEY_NOT_FOUND.text) } else { Ok(()) }
    }

    fn check_path(
        &self,
        r: &pb::TxnRequest,
        chosen: &BTreeMap<*const pb::TxnRequest, bool>,
        deleted: &mut Vec<(Bytes, Bytes)>,
    ) -> Result<(), &'static str> {
        let ops = if chosen[&std::ptr::from_ref(r)] { &r.success } else { &r.failure };
        ops.iter().try_for_each(|op| match op.request.as_ref().expect("generated ops are set") {
            Request::RequestTxn(nested) => self.check_path(nested, chosen, deleted),
            Request::RequestDeleteRange(r) => {
                deleted.push((r.key.clone(), r.range_end.clone()));
                Ok(())
            }
            // In a transaction the key is looked for before the lease.
            Request::RequestPut(r) => {
                self.check_kept(r, deleted)?;
                self.check_lease(r)
            }
            request => self.check(request),
        })
    }

    fn run_txn(
        &self,
        r: &pb::TxnRequest,
        chosen: &BTreeMap<*const pb::TxnRequest, bool>,
        before: i64,
        changes: &mut Vec<Change>,
    ) -> Outcome {
        let succeeded = chosen[&std::ptr::from_ref(r)];
        let ops = if succeeded { &r.success } else { &r.failure };
        let run = |op: &pb::RequestOp| {
            self.run(op.request.as_ref().expect("generated ops are set"), chosen, before, changes)
        };
        let responses = ops.iter().map(run).collect();
        // A nested header is all zero (HDR-9).
        Outcome::Txn { revision: 0, succeeded, responses }
    }

    /// Runs one request on top of what ran before it in the same revision.
    fn run(
        &self,
        request: &Request,
        chosen: &BTreeMap<*const pb::TxnRequest, bool>,
        before: i64,
        changes: &mut Vec<Change>,
    ) -> Outcome {
        let main = before + 1;
        match request {
            Request::RequestTxn(r) => self.run_txn(r, chosen, before, changes),
            Request::RequestRange(r) => {
                let revision = before + i64::from(!changes.is_empty());
                let kvs = if r.revision > 0 {
                    self.live(&r.key, &r.range_end, r.revision)
                } else {
                    self.overlaid(&r.key, &r.range_end, before, changes)
                };
                cut(r, kvs, revision)
            }
            Request::RequestPut(r) => {
                let prev = self.overlaid(&r.key, b"", before, changes).pop();
                let old = prev.clone().unwrap_or_default();
                let kv = KeyValue {
                    key: r.key.clone(),
                    create_revision: if old.version == 0 { main } else { old.create_revision },
                    mod_revision: main,
                    version: old.version + 1,
                    value: if r.ignore_value { old.value } else { r.value.clone() },
                    lease: if r.ignore_lease { old.lease } else { r.lease },
                };
                changes.push(Change { key: r.key.clone(), kv: Some(kv) });
                Outcome::Put { revision: main, prev: prev.filter(|_| r.prev_kv) }
            }
            Request::RequestDeleteRange(r) => {
                let found = self.overlaid(&r.key, &r.range_end, before, changes);
                changes.extend(found.iter().map(|kv| Change { key: kv.key.clone(), kv: None }));
                let revision = before + i64::from(!changes.is_empty());
                let deleted = found.len() as i64;
                Outcome::Delete { revision, deleted, prevs: if r.prev_kv { found } else { Vec::new() } }
            }
        }
    }

    fn overlaid(&self, from: &[u8], end: &[u8], before: i64, changes: &[Change]) -> Vec<KeyValue> {
        let pairs = self.live(from, end, before).into_iter().map(|kv| (kv.key.clone(), kv));
        let mut pairs: BTreeMap<Bytes, KeyValue> = pairs.collect();
        for change in changes.iter().filter(|change| within(&change.key, from, end)) {
            match &change.kv {
                Some(kv) => pairs.insert(change.key.clone(), kv.clone()),
                None => pairs.remove(&change.key),
            };
        }
        pairs.into_values().collect()
    }

    fn commit(&mut self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let main = self.revision() + 1;
        for change in &changes {
            self.keys.entry(change.key.clone()).or_default().push((main, change.kv.clone()));
        }
        self.history.push(changes);
    }

    /// What a range asked at store revision `now` answers.
    pub fn range(&self, r: &pb::RangeRequest, now: i64, compacted: i64) -> Outcome {
        if r.revision > now {
            return Outcome::Refused(errors::FUTURE_REV.text);
        }
        if r.revision > 0 && r.revision < compacted {
            return Outcome::Refused(errors::COMPACTED.text);
        }
        let at = if r.revision > 0 { r.revision } else { now };
        cut(r, self.live(&r.key, &r.range_end, at), now)
    }
}

fn urls_of(change: &ConfChange) -> Vec<String> {
    let raft = change.member.as_ref().and_then(|member| member.raft_attributes.as_ref());
    raft.map(|attributes| attributes.peer_urls.clone()).unwrap_or_default()
}

/// Whether a put stands anywhere in a transaction.
fn puts(r: &pb::TxnRequest) -> bool {
    r.success.iter().chain(&r.failure).any(|op| match &op.request {
        Some(Request::RequestPut(_)) => true,
        Some(Request::RequestTxn(nested)) => puts(nested),
        _ => false,
    })
}

/// What a range makes of the pairs of its interval: filters, order, limit, keys_only and count_only (KV-11 to KV-22).
fn cut(r: &pb::RangeRequest, mut kvs: Vec<KeyValue>, revision: i64) -> Outcome {
    use pb::range_request::{SortOrder, SortTarget};
    let count = kvs.len() as i64;
    if r.count_only {
        return Outcome::Range { revision, kvs: Vec::new(), count, more: false };
    }
    let (order, target) = (r.sort_order(), r.sort_target());
    let limit = if r.limit > 0 { r.limit as usize } else { usize::MAX };
    let filters =
        [r.min_mod_revision, r.max_mod_revision, r.min_create_revision, r.max_create_revision] != [0; 4];
    // Without an order of its own it reads no further than the limit needs (KV-18).
    if order == SortOrder::None && target != SortTarget::Key && !filters {
        kvs.truncate(limit.saturating_add(1));
    }
    let within = |at: i64, min: i64, max: i64| (min == 0 || at >= min) && (max == 0 || at <= max);
    kvs.retain(|kv| {
        within(kv.mod_revision, r.min_mod_revision, r.max_mod_revision)
            && within(kv.create_revision, r.min_create_revision, r.max_create_revision)
    });
    kvs.sort_by(|a, b| {
        let ascending = match target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.cmp(&b.value),
        };
        if order == SortOrder::Descend { ascending.reverse() } else { ascending }
    });
    let more = kvs.len() > limit;
    kvs.truncate(limit);
    if r.keys_only {
        for kv in &mut kvs {
            kv.value = Bytes::new();
            // KV-15: who sorts by value has read the pair, and tells its lease.
            if target != SortTarget::Value {
                kv.lease = 0;
            }
        }
    }
    Outcome::Range { revision, kvs, count, more }
}
