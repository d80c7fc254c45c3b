// SPDX-License-Identifier: Apache-2.0
//! Clients that write, read and renew leases, each through any member.
//!
//! Owns      the operations under way, and what had been told to anyone when each began.
//! Holds     1. an operation ends with an answer, a refusal or a crash; only the first says what happened;
//!           2. what anyone was told, everyone who asks later must see.
//! Never     asks twice: what got no answer may have been done.

use super::{Ended, Unread, World, alarm_command, broken};
use crate::{
    digest,
    model::Outcome,
    node::{self, OpId},
};
use cairn_core::{Command, Refusal, auth::Identity, door, lessor::KeepAlive, state::Applied};
use cairn_proto::etcdserverpb as pb;

/// For so long a lease may be ending once it is due.
const ENDING_MS: u64 = 2_000;
/// The time of one that takes its id.
const ANEW_TTL_S: i64 = 30;

/// What a client waits for.
pub(super) enum Want {
    Write,
    Range(pb::RangeRequest),
    KeepAlive(i64),
}

/// An operation of a client under way.
pub(super) struct Op {
    /// The member that was asked.
    pub at: usize,
    pub want: Want,
    /// The newest index that anyone had been answered for when it began.
    pub after_index: u64,
    /// The newest revision that anyone had seen then.
    pub after_revision: i64,
    pub began_ms: u64,
}

impl World {
    pub(super) fn begin(&mut self, at: usize, want: Want) -> OpId {
        self.next_op += 1;
        let op = Op {
            at,
            want,
            after_index: self.acked_index,
            after_revision: self.seen_revision,
            began_ms: self.now_ms,
        };
        self.ops.insert(self.next_op, op);
        self.next_op
    }

    pub(super) fn is_busy(&self) -> bool {
        self.ops.len() as u64 >= self.swarm.clients
    }

    pub(super) fn write(&mut self, at: usize) -> Result<(), Ended> {
        if self.is_busy() || !self.node(at).is_voter() {
            return Ok(());
        }
        if let Some(id) = self.ending_lease()
            && self.rng.one_in(4)
        {
            return self.grant_anew(at, id);
        }
        let op = self.begin(at, Want::Write);
        let alarms = self.model.alarms(pb::AlarmType::None as i32);
        let command = if !alarms.is_empty() && self.rng.one_in(8) {
            let (member_id, alarm) = alarms[self.rng.index(alarms.len())];
            alarm_command(pb::alarm_request::AlarmAction::Deactivate, member_id, alarm)
        } else {
            let leases = self.model.leases();
            let change = self.swarm.users && self.rng.one_in(8);
            if change {
                self.traffic.users(&mut self.rng)
            } else {
                self.traffic.write(&mut self.rng, op, self.model.revision(), &leases)
            }
        };
        let Some(command) = self.within_quota(at, command) else {
            self.ops.remove(&op);
            return Ok(());
        };
        let by = if self.swarm.users { self.model.users.sender(&mut self.rng) } else { None };
        self.note_command(op, at, by.as_ref(), &command);
        self.node(at).propose(op, by, command);
        Ok(())
    }

    /// A lease whose end may be under way.
    fn ending_lease(&self) -> Option<i64> {
        let ends = |life| {
            let due = self.due(life).map(|(due_ms, ..)| due_ms);
            due.is_some_and(|due_ms| (due_ms..due_ms + ENDING_MS).contains(&self.now_ms))
        };
        self.leases.iter().find(|(_, life)| ends(life)).map(|(id, _)| *id)
    }

    /// A lease is revoked, and its id given to another one at once: the end of the old one must not hit that.
    fn grant_anew(&mut self, at: usize, id: i64) -> Result<(), Ended> {
        let grant = Command::LeaseGrant(pb::LeaseGrantRequest { ttl: ANEW_TTL_S, id });
        let Some(grant) = self.within_quota(at, grant) else { return Ok(()) };
        let by = if self.swarm.users { self.model.users.sender(&mut self.rng) } else { None };
        for command in [Command::LeaseRevoke(pb::LeaseRevokeRequest { id }), grant] {
            let op = self.begin(at, Want::Write);
            self.note_command(op, at, by.as_ref(), &command);
            self.node(at).propose(op, by.clone(), command);
        }
        self.stats.leases_anew += 1;
        Ok(())
    }

    /// The command, if there is room for it; else the alarm in its place, once (ALARM-2).
    fn within_quota(&mut self, at: usize, command: Command) -> Option<Command> {
        let cost = match &command {
            Command::Put(r) => door::put_cost(r),
            Command::Txn(r) => door::txn_cost(r),
            Command::LeaseGrant(_) => door::lease_grant_cost(),
            _ => 0,
        };
        let quota_bytes = self.swarm.quota_bytes;
        let node = self.node(at);
        if cost == 0 || node.db.size() + cost < quota_bytes {
            return Some(command);
        }
        // Alarms are of members 1 and up.
        let (member, alarm) = (at as u64 + 1, pb::AlarmType::Nospace);
        let raised = node.state.cluster().alarms.is_on(member, alarm);
        self.stats.over_quota += 1;
        (!raised).then(|| alarm_command(pb::alarm_request::AlarmAction::Activate, member, alarm as i32))
    }

    pub(super) fn read(&mut self, at: usize) -> Result<(), Ended> {
        if self.is_busy() {
            return Ok(());
        }
        let range = self.traffic.range(&mut self.rng, self.model.revision());
        // A learner answers no other reads (LR-2).
        if self.rng.one_in(4) || !self.node(at).is_voter() {
            return self.read_now(at, &range, 0);
        }
        if self.node(at).reads_alone() && self.rng.one_in(2) {
            let after = self.seen_revision;
            return self.read_now(at, &range, after);
        }
        let op = self.begin(at, Want::Range(range));
        self.node(at).read_index(op);
        Ok(())
    }

    pub(super) fn read_now(&mut self, at: usize, range: &pb::RangeRequest, after: i64) -> Result<(), Ended> {
        let node = self.node(at);
        let now = node.reader.revision().map_err(|e| e.to_string())?;
        let compacted = node.reader.compact_revision().map_err(|e| e.to_string())?;
        let got = match node.reader.range(&cairn_core::convert::range_op(range.clone())) {
            Ok(done) => node::range(done),
            Err(error) => Outcome::Refused(cairn_core::convert::refusal(error)?.text),
        };
        self.stats.reads += 1;
        let bounds = range.min_mod_revision
            | range.max_mod_revision
            | range.min_create_revision
            | range.max_create_revision;
        self.stats.sorted += u64::from(range.sort_order | range.sort_target != 0 || bounds != 0);
        if now < after {
            return broken(format!("a linearizable read at {now} after {after} was seen"));
        }
        let expected = self.model.range(range, now, compacted);
        let number = digest::of(|digest| got.digest(digest));
        self.note_long(number, format_args!("member {at} reads {range:?} -> {got:?}"));
        if got != expected {
            return broken(format!("read {range:?}\n     got {got:?}\nexpected {expected:?}"));
        }
        self.seen_revision = self.seen_revision.max(now);
        Ok(())
    }

    fn note_command(&mut self, op: OpId, at: usize, by: Option<&Identity>, command: &Command) {
        let number = digest::of(|digest| digest.bytes(&command.encode_by(op, by)));
        self.note_long(number, format_args!("op {op} at member {at} of {by:?}: {command:?}"));
    }

    /// A keep-alive is answered by a member that made sure that it leads.
    pub(super) fn keep_alive(&mut self, at: usize) -> Result<(), Ended> {
        let ids = self.model.leases();
        if ids.is_empty() || self.is_busy() || !self.node(at).is_voter() {
            return Ok(());
        }
        let id = ids[self.rng.index(ids.len())];
        if self.node(at).reads_alone() {
            return self.renew(at, id, self.now_ms);
        }
        let op = self.begin(at, Want::KeepAlive(id));
        self.node(at).read_index(op);
        Ok(())
    }

    /// Renews a lease for a client that asked at `asked_ms`: from then on it counts on the whole time.
    pub(super) fn renew(&mut self, at: usize, id: i64, asked_ms: u64) -> Result<(), Ended> {
        let now_ms = self.clock(at);
        let kept = self.node(at).lessor.lock().expect("one thread").keep_alive(now_ms, id);
        self.note(format_args!("member {at} keeps alive {id} -> {kept:?}"));
        let applied = self.node(at).state.applied().0;
        let ended = self.ended_leases.get(&id).is_some_and(|end| *end <= applied);
        if matches!(kept, KeepAlive::Renewed { .. }) && ended {
            return broken(format!("lease {id} is renewed, and ended before"));
        }
        if let (KeepAlive::Renewed { ttl_s }, Some(life)) = (kept, self.leases.get_mut(&id)) {
            if ttl_s != life.ttl_s {
                return broken(format!("lease {id} is renewed for {ttl_s} s in place of {} s", life.ttl_s));
            }
            life.renewed_ms = life.renewed_ms.max(asked_ms);
            life.counted_ms = self.now_ms;
        }
        Ok(())
    }

    pub(super) fn take_answer(
        &mut self,
        at: usize,
        op: OpId,
        index: u64,
        got: Result<Applied, Refusal>,
    ) -> Result<(), Ended> {
        let Some(Op { after_index, .. }) = self.ops.remove(&op) else {
            return broken(format!("op {op} is answered, and nobody waits for it"));
        };
        if index <= after_index {
            return broken(format!("op {op} is entry {index}, but began after {after_index} was answered"));
        }
        let expected = self.log[index as usize - 1].outcome.clone().expect("a request has an outcome");
        self.acked_index = self.acked_index.max(index);
        self.stats.acked += 1;
        self.stats.answered_by_followers += u64::from(!self.node(at).leadership.leads);
        if let Outcome::Put { revision, .. }
        | Outcome::Delete { revision, .. }
        | Outcome::Txn { revision, .. }
        | Outcome::Grant { revision, .. }
        | Outcome::Revision(revision) = &expected
        {
            self.seen_revision = self.seen_revision.max(*revision);
        }
        self.unread.push(Unread { at, got, expected });
        if self.rng.one_in(2) { self.answer() } else { Ok(()) }
    }

    /// Reads the ranges of an answer and holds it against the model's.
    pub(super) fn answer(&mut self) -> Result<(), Ended> {
        if self.unread.is_empty() {
            return Ok(());
        }
        let next = self.rng.index(self.unread.len());
        let Unread { at, got, expected } = self.unread.swap_remove(next);
        let reader = self.node(at).reader.clone();
        let got = node::outcome(got, &reader).map_err(|e| Ended::Failed(e.to_string()))?;
        if got != expected {
            return broken(format!("     got {got:?}\nexpected {expected:?}"));
        }
        Ok(())
    }
}
