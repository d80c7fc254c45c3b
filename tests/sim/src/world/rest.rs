// SPDX-License-Identifier: Apache-2.0
//! The quiet end of a run.
//!
//! Owns      the rounds without faults, and what must be true after them.
//! Holds     everything is answered, every watcher told everything, every lease over, and the store whole.
//! Never     draws a fault.

use super::{BOOTS_MAX, Ended, Violation, World, alarm_command, broken};
use cairn_proto::etcdserverpb as pb;

impl World {
    /// No more faults: the member starts, everything is answered, every watcher is told everything, leases
    /// run out, and the store is whole.
    pub(super) fn come_to_rest(&mut self) -> Result<(), Violation> {
        const ROUNDS: u64 = 400;
        self.swarm.watchers = 0;
        for round in 0..ROUNDS {
            if self.node.is_none() {
                let booted = self.boot();
                self.settle(booted)?;
                if self.boots > self.stats.crashes + BOOTS_MAX {
                    return Err(self.violation("it does not start without faults".to_owned()));
                }
                continue;
            }
            // An alarm may hold the end of a lease up (ALARM-6).
            if let Some(&(member_id, alarm)) = self.model.alarms(pb::AlarmType::None as i32).first()
                && self.ops.is_empty()
            {
                let op = self.begin(None);
                let off = alarm_command(pb::alarm_request::AlarmAction::Deactivate, member_id, alarm);
                self.node().propose(op, off);
            }
            // The first half of the rounds lets leases run out.
            self.now_ms += if round < ROUNDS / 2 { 500 } else { 1 };
            let round = self.round();
            self.settle(round)?;
        }
        let rest = self.check_rest();
        self.settle(rest)
    }

    fn round(&mut self) -> Result<(), Ended> {
        self.replica()?;
        self.sync()?;
        self.replica()?;
        self.state_turn()?;
        while self.node().catch_up()? {}
        if self.stream.is_none() {
            self.watch()?;
        }
        self.drain()?;
        while !self.unread.is_empty() {
            self.answer()?;
        }
        self.node().purge(1000, false)?;
        self.checkpoint()
    }

    fn check_rest(&mut self) -> Result<(), Ended> {
        let node = self.node.as_ref().expect("it was started");
        if !node.is_quiet() || !self.ops.is_empty() {
            return broken(format!("{} operations are never answered", self.ops.len()));
        }
        let revision = node.reader.revision().map_err(|e| e.to_string())?;
        if revision != self.model.revision() {
            return broken(format!("the store ends at {revision}, the model at {}", self.model.revision()));
        }
        if let Some(watcher) = self.watchers.iter().find(|w| !w.is_told(&self.model, revision)) {
            return broken(format!("never told everything: {watcher:?} at {revision}"));
        }
        if !self.model.leases().is_empty() {
            return broken(format!("leases never end: {:?}", self.model.leases()));
        }
        let zero = bytes::Bytes::from_static(b"\0");
        let everything = pb::RangeRequest { key: zero.clone(), range_end: zero, ..Default::default() };
        self.read_now(&everything, revision)?;
        self.hash()?;
        let node = self.node.as_ref().expect("it was started");
        node.db.verify().map_err(|e| Ended::Broken(format!("the store is not whole: {e}")))?;
        Ok(())
    }
}
