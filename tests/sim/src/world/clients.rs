// SPDX-License-Identifier: Apache-2.0
//! What clients do: writes within the quota, reads, renewals of leases.
//!
//! Owns      what an operation knew when it began.
//! Holds     a linearizable read sees at least what anyone was told before it began.
//! Never     looks into the store: it asks, and compares with the model.

use super::{Ended, Op, SELF, World, alarm_command, broken};
use crate::{
    model::Outcome,
    node::{self, OpId},
};
use cairn_core::{Command, door, lessor::KeepAlive};
use cairn_proto::etcdserverpb as pb;

impl World {
    pub(super) fn begin(&mut self, range: Option<pb::RangeRequest>) -> OpId {
        self.next_op += 1;
        let op = Op { after_index: self.acked_index, after_revision: self.seen_revision, range };
        self.ops.insert(self.next_op, op);
        self.next_op
    }

    pub(super) fn write(&mut self) -> Result<(), Ended> {
        if self.ops.len() as u64 >= self.swarm.clients {
            return Ok(());
        }
        let op = self.begin(None);
        let alarms = self.model.alarms(pb::AlarmType::None as i32);
        let command = if !alarms.is_empty() && self.rng.one_in(8) {
            let (member_id, alarm) = alarms[self.rng.index(alarms.len())];
            alarm_command(pb::alarm_request::AlarmAction::Deactivate, member_id, alarm)
        } else {
            let leases = self.model.leases();
            self.traffic.write(&mut self.rng, op, self.model.revision(), &leases)
        };
        let Some(command) = self.within_quota(command) else {
            self.ops.remove(&op);
            return Ok(());
        };
        self.note(format_args!("op {op}: {command:?}"));
        self.node().propose(op, command);
        Ok(())
    }

    /// The command, if there is room for it; else the alarm in its place, once (ALARM-2).
    fn within_quota(&mut self, command: Command) -> Option<Command> {
        let cost = match &command {
            Command::Put(r) => door::put_cost(r),
            Command::Txn(r) => door::txn_cost(r),
            Command::LeaseGrant(_) => door::lease_grant_cost(),
            _ => 0,
        };
        let node = self.node.as_ref().expect("the caller saw that it runs");
        if cost == 0 || node.db.size() + cost < self.swarm.quota_bytes {
            return Some(command);
        }
        self.stats.over_quota += 1;
        let alarm = pb::AlarmType::Nospace;
        let raised = node.state.cluster().alarms.is_on(SELF, alarm);
        (!raised).then(|| alarm_command(pb::alarm_request::AlarmAction::Activate, SELF, alarm as i32))
    }

    pub(super) fn read(&mut self) -> Result<(), Ended> {
        if self.ops.len() as u64 >= self.swarm.clients {
            return Ok(());
        }
        let range = self.traffic.range(&mut self.rng, self.model.revision());
        if self.rng.one_in(4) {
            return self.read_now(&range, 0);
        }
        if self.node().reads_alone() && self.rng.one_in(2) {
            let after = self.seen_revision;
            return self.read_now(&range, after);
        }
        let op = self.begin(Some(range));
        self.node().read_index(op);
        Ok(())
    }

    pub(super) fn read_now(&mut self, range: &pb::RangeRequest, after: i64) -> Result<(), Ended> {
        let node = self.node.as_ref().expect("the caller saw that it runs");
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
        self.note(format_args!("read {range:?} -> {got:?}"));
        if got != expected {
            return broken(format!("read {range:?}\n     got {got:?}\nexpected {expected:?}"));
        }
        self.seen_revision = self.seen_revision.max(now);
        Ok(())
    }

    pub(super) fn keep_alive(&mut self) -> Result<(), Ended> {
        let ids = self.model.leases();
        if ids.is_empty() {
            return Ok(());
        }
        let id = ids[self.rng.index(ids.len())];
        let now_ms = self.now_ms;
        let kept = self.node().lessor.lock().expect("one thread").keep_alive(now_ms, id);
        self.note(format_args!("keep alive {id} -> {kept:?}"));
        if let (KeepAlive::Renewed { ttl_s }, Some(life)) = (kept, self.leases.get_mut(&id)) {
            if ttl_s != life.ttl_s {
                return broken(format!("lease {id} is renewed for {ttl_s} s in place of {} s", life.ttl_s));
            }
            life.renewed_ms = now_ms;
        }
        Ok(())
    }
}
