// SPDX-License-Identifier: Apache-2.0
//! The quiet end of a run: no more faults, and everything must come to rest.
//!
//! Owns      the demands of the end.
//! Holds     one leader, all members at the same entry with the same state, every operation answered, every
//!           watcher told everything, no lease left, every store whole.
//! Never     waits for ever: rounds are counted.

use super::{
    Ended, Violation, World, alarm_command, broken, clients::Want, members::Host, watch::WatchClient,
};
use crate::node::Node;
use cairn_proto::etcdserverpb as pb;

/// Rounds of the end at most.
const ROUNDS: u64 = 400;
/// How far time goes in a round: for each exchange, and once more at most while leases run out.
const EXCHANGE_MS: u64 = 100;
const WAIT_MS: u64 = 2_000;
/// Starts that may fail in a row while no fault is armed any more.
const BOOTS_MAX: u64 = 3;
/// How often the members talk in one round: a request and its answer to and fro.
const EXCHANGES: usize = 3;

impl World {
    pub(super) fn come_to_rest(&mut self) -> Result<(), Violation> {
        self.swarm.watchers = 0;
        self.network.heal();
        self.faults = false;
        self.quiet_since_ms = self.now_ms;
        for host in &mut self.hosts {
            host.paused_until_ms = 0;
        }
        let boots_max = self.hosts.iter().map(|host| host.boots).max().unwrap_or_default() + BOOTS_MAX;
        for _ in 0..ROUNDS {
            if self.is_at_rest() {
                break;
            }
            self.wait();
            for at in 0..self.hosts.len() {
                if self.hosts[at].node.is_none() && !self.hosts[at].gone {
                    let booted = self.boot(at);
                    self.settle(at, booted)?;
                    if self.hosts[at].boots > boots_max + self.stats.installs + self.stats.rot_found {
                        return Err(self.violation(format!("member {at} does not start without faults")));
                    }
                }
            }
            self.switch_alarm_off();
            if let Some(at) =
                self.hosts.iter().position(|host| host.node.as_ref().is_some_and(|node| node.leads))
            {
                let asked = self.replace(at);
                self.settle(at, asked)?;
            }
            for _ in 0..EXCHANGES {
                self.now_ms += EXCHANGE_MS;
                self.calm()?;
            }
            // What the last ticks began ends without another one.
            for _ in 0..EXCHANGES {
                self.calm()?;
            }
            // Who is sent a snapshot may be missing for a quorum: until it has that no lease can end.
            if self.hosts.iter().any(|host| host.node.as_ref().is_some_and(Node::waits_for_a_quorum)) {
                self.quiet_since_ms = self.now_ms;
            }
            for at in 0..self.hosts.len() {
                let done = self.round(at);
                self.settle(at, done)?;
            }
        }
        for at in (0..self.hosts.len()).filter(|at| !self.hosts[*at].gone).collect::<Vec<_>>() {
            let rest = self.check_rest(at);
            self.settle(at, rest)?;
        }
        let together = self.check_together().and_then(|()| self.count_replaced());
        self.settle(0, together)
    }

    /// Time goes on to where the next lease is due, so that its end is seen when it comes.
    fn wait(&mut self) {
        let dues = self.leases.values().map(|life| self.due(life).map_or(self.now_ms, |(due_ms, ..)| due_ms));
        let due_ms = dues.min().unwrap_or(self.now_ms);
        self.now_ms = due_ms.clamp(self.now_ms, self.now_ms + WAIT_MS);
    }

    /// An alarm may hold the end of a lease up (ALARM-6).
    fn switch_alarm_off(&mut self) {
        let alarms = self.model.alarms(pb::AlarmType::None as i32);
        if !alarms.is_empty() {
            self.quiet_since_ms = self.now_ms;
        }
        let Some(&(member_id, alarm)) = alarms.first().filter(|_| self.ops.is_empty()) else { return };
        let voter = |host: &Host| host.node.as_ref().is_some_and(Node::is_voter);
        let Some(at) = self.hosts.iter().position(voter) else { return };
        let op = self.begin(at, Want::Write);
        let off = alarm_command(pb::alarm_request::AlarmAction::Deactivate, member_id, alarm);
        self.node(at).propose(op, None, off);
    }

    /// Every thread of every member has a turn, and messages arrive.
    pub(super) fn calm(&mut self) -> Result<(), Violation> {
        for at in 0..self.hosts.len() {
            let done = self.exchange(at);
            self.settle(at, done)?;
        }
        for _ in 0..8 * self.hosts.len() {
            self.deliver();
        }
        Ok(())
    }

    fn exchange(&mut self, at: usize) -> Result<(), Ended> {
        if self.hosts[at].node.is_none() || self.is_paused(at) {
            return Ok(());
        }
        self.replica(at)?;
        // It may have ended.
        if self.hosts[at].node.is_none() {
            return Ok(());
        }
        self.sync(at)?;
        // It may have been the moment for a crash.
        if self.hosts[at].node.is_none() {
            return Ok(());
        }
        self.replica(at)?;
        if self.hosts[at].node.is_none() {
            return Ok(());
        }
        self.state_turn(at)
    }

    fn round(&mut self, at: usize) -> Result<(), Ended> {
        if self.hosts[at].node.is_none() {
            return Ok(());
        }
        while self.node(at).catch_up()? {}
        self.watch(at)?;
        self.drain(at)?;
        while !self.unread.is_empty() {
            self.answer()?;
        }
        if self.hosts[at].rotten {
            self.scrub(at)?;
        }
        self.node(at).purge(1000, false)?;
        self.checkpoint(at)?;
        self.transfer(at)
    }

    /// Whether there is nothing to wait for: what is demanded of the end is looked at afterwards.
    fn is_at_rest(&self) -> bool {
        let rests = |host: &Host| match &host.node {
            Some(node) => {
                let removed = self.model.is_removed(host.id);
                !removed && node.is_quiet() && node.state.applied().0 == self.log.len() as u64
            }
            None => host.gone,
        };
        let leaders = self.hosts.iter().filter(|host| host.node.as_ref().is_some_and(|node| node.leads));
        let to = self.model.revision();
        let told = |client: &WatchClient| {
            client.stream.is_some() && client.watchers.iter().all(|watcher| watcher.is_told(&self.model, to))
        };
        self.ops.is_empty()
            && self.unread.is_empty()
            && self.transfers.is_empty()
            && self.model.leases().is_empty()
            && self.model.alarms(pb::AlarmType::None as i32).is_empty()
            && self.hosts.iter().all(|host| rests(host) && !host.rotten)
            && leaders.count() == 1
            && self.hosts.iter().all(|host| !host.gave_up || self.is_replaced(host))
            && self.watch_clients.iter().all(told)
    }

    fn check_rest(&mut self, at: usize) -> Result<(), Ended> {
        let Some(node) = &self.hosts[at].node else { return broken("it does not run".to_owned()) };
        if !node.is_quiet() || !self.ops.is_empty() {
            return broken(format!("{} operations are never answered", self.ops.len()));
        }
        let (applied, known) = (node.state.applied().0, self.log.len() as u64);
        if applied != known {
            return broken(format!("{applied} entries are applied of {known}"));
        }
        let revision = node.reader.revision().map_err(|e| e.to_string())?;
        if revision != self.model.revision() {
            return broken(format!("the store ends at {revision}, the model at {}", self.model.revision()));
        }
        if !self.model.leases().is_empty() {
            return broken(format!("leases never end: {:?}", self.model.leases()));
        }
        let zero = bytes::Bytes::from_static(b"\0");
        let everything = pb::RangeRequest { key: zero.clone(), range_end: zero, ..Default::default() };
        self.read_now(at, &everything, revision)?;
        self.hash(at)?;
        self.check_users(at)?;
        self.inspect(at, u64::MAX)?;
        let node = self.node(at);
        node.db.verify().map_err(|e| Ended::Broken(format!("the store is not whole: {e}")))?;
        Ok(())
    }

    fn check_together(&self) -> Result<(), Ended> {
        let nodes: Vec<_> = self.hosts.iter().filter_map(|host| host.node.as_ref()).collect();
        let leaders = nodes.iter().filter(|node| node.leads).count();
        if leaders != 1 {
            return broken(format!("{leaders} members lead"));
        }
        let first = nodes.first().expect("all run");
        if let Some(at) = self.hosts.iter().position(|host| !host.gone && self.model.is_removed(host.id)) {
            return broken(format!("member {at} was removed and runs on"));
        }
        if nodes.iter().any(|node| node.state.cluster() != first.state.cluster()) {
            return broken("they differ in members, alarms or version".to_owned());
        }
        let to = self.model.revision();
        for client in &self.watch_clients {
            if let Some(watcher) = client.watchers.iter().find(|w| !w.is_told(&self.model, to)) {
                return broken(format!("never told everything: {watcher:?} at {to}"));
            }
        }
        Ok(())
    }
}
