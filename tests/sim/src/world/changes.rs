// SPDX-License-Identifier: Apache-2.0
//! Changes of the membership, and what becomes of the machines.
//!
//! Owns      what an operator asks for, under the conditions that the member who is asked knows (SR-1 to SR-5, CL-8).
//! Holds     1. one change is asked for at a time; what became of one whose member crashed stays unknown;
//!           2. a machine is lost only while most voters are left, whatever changes are on their way, and whatever of
//!              them a crash makes the others forget;
//!           3. who was removed ends, as soon as it or its peers know.
//! Never     decides what a change does: the model and the members say so.

use super::{Ended, World, clients::Want, logs::has_rotten_log, members::Host, members::urls};
use crate::model::Outcome;
use cairn_core::{
    MemberId,
    replica::conf::{ConfChange, Kind},
};
use cairn_proto::membershippb::{Member, RaftAttributes};

/// Members that join in one run.
const JOINS_MAX: usize = 5;

impl World {
    /// A client asks this member for a change.
    pub(super) fn change(&mut self, at: usize) -> Result<(), Ended> {
        match self.draw_change() {
            Some((kind, id, peer_urls)) => self.ask_for(at, kind, id, peer_urls),
            None => Ok(()),
        }
    }

    /// Asks this member for a change, unless another one is on its way or it would refuse.
    pub(super) fn ask_for(
        &mut self,
        at: usize,
        kind: Kind,
        id: u64,
        peer_urls: Vec<String>,
    ) -> Result<(), Ended> {
        let changing = self.changing.is_some_and(|op| self.ops.contains_key(&op));
        if changing || self.is_busy() || !self.node(at).is_voter() || !self.may_change(at, kind, id) {
            return Ok(());
        }
        let op = self.begin(at, Want::Write);
        let raft_attributes = Some(RaftAttributes { peer_urls, is_learner: kind == Kind::AddLearner });
        let member = Member { id, raft_attributes, member_attributes: None };
        let brings = !matches!(kind, Kind::Remove | Kind::Promote);
        let change = ConfChange {
            request_id: op,
            kind,
            member_id: id,
            cluster_id: 0,
            member: brings.then_some(member),
            learners_max: self.swarm.learners_max,
        };
        self.changing = Some(op);
        if kind == Kind::Remove {
            self.removals.insert(op);
        }
        self.note(format_args!("op {op} at member {at}: {kind:?} {id:x}"));
        self.node(at).propose_change(op, &change);
        Ok(())
    }

    fn draw_change(&mut self) -> Option<(Kind, u64, Vec<String>)> {
        let (voters, learners) = (self.model.voters(), self.model.learners());
        let any = |rng: &mut cairn_engine::sim::SplitMix, ids: &[u64]| {
            if ids.is_empty() { None } else { Some(ids[rng.index(ids.len())]) }
        };
        let known: Vec<u64> = self.hosts.iter().map(|host| host.id).collect();
        let lost = self.hosts.iter().find(|host| host.lost || has_rotten_log(host)).map(|host| host.id);
        let place = self.hosts.len();
        // Now and then its URLs are another's.
        let at = if self.rng.one_in(6) { self.rng.index(place) } else { place };
        let fresh = |kind| (kind, MemberId::at_bootstrap(&urls(at), &self.now_ms.to_string()).0, urls(at));
        let room = place < self.swarm.founders + JOINS_MAX && voters.len() + learners.len() < 8;
        match self.rng.below(12) {
            0..3 if room => Some(fresh(Kind::AddLearner)),
            3 if room && lost.is_none() => Some(fresh(Kind::AddVoter)),
            4..7 => Some((Kind::Promote, any(&mut self.rng, &learners)?, Vec::new())),
            // A lost machine is the one to remove.
            7..9 => Some((Kind::Remove, lost.or_else(|| any(&mut self.rng, &voters))?, Vec::new())),
            9 if lost.is_none() => Some((Kind::Remove, any(&mut self.rng, &learners)?, Vec::new())),
            10 => {
                let (id, to) = (any(&mut self.rng, &voters)?, self.rng.index(place + 1));
                Some((Kind::Update, id, urls(100 + to)))
            }
            // What cannot be: an id that is there, or was removed; URLs that another has; a promoted voter.
            11 => {
                let id = any(&mut self.rng, &known)?;
                let (kind, at) = match self.rng.below(3) {
                    0 => (Kind::AddVoter, place + 50),
                    1 => (Kind::AddLearner, self.rng.index(place)),
                    _ => (Kind::Promote, 0),
                };
                let exists = voters.contains(&id) || learners.contains(&id) || self.model.is_removed(id);
                (exists && !(kind == Kind::Promote && learners.contains(&id))).then(|| (kind, id, urls(at)))
            }
            _ => None,
        }
    }

    /// What the member that is asked looks at before it proposes a change.
    fn may_change(&self, at: usize, kind: Kind, id: u64) -> bool {
        let node = self.hosts[at].node.as_ref().expect("the caller saw that it runs");
        let (voters, learners) = node.state.cluster().members.voters_and_learners();
        let place = |id: u64| self.hosts.iter().position(|host| host.id == id);
        let started = |id: &&u64| place(**id).is_some_and(|at| self.hosts[at].boots > 0);
        let connected = |id: &&u64| {
            place(**id).is_some_and(|other| {
                let runs = self.hosts[other].node.is_some() && !self.is_paused(other);
                other == at || runs && !self.network.is_cut(at, other) && !self.network.is_cut(other, at)
            })
        };
        let n = voters.len();
        let connected_voters = voters.iter().filter(connected).count();
        match kind {
            Kind::AddVoter | Kind::AddLearner => {
                let s = voters.iter().filter(started).count();
                let enough = kind == Kind::AddLearner || (s == 1 && n == 1) || s > n.div_ceil(2);
                enough && (n == 1 || connected_voters > n.div_ceil(2))
            }
            Kind::Remove if learners.contains(&id) => true,
            Kind::Remove => {
                let others = voters.iter().filter(|voter| **voter != id);
                let s = others.clone().filter(started).count();
                let down = id != node.id && !connected(&&id);
                s > others.count() / 2 && (down || connected_voters > 1 + n.saturating_sub(1) / 2)
            }
            Kind::Promote if voters.contains(&id) => true,
            Kind::Promote => {
                let progress = node.progress();
                let known = |id: u64| progress.get(&id).copied().unwrap_or_default();
                node.leads && known(id) * 10 >= known(node.id) * 9
            }
            Kind::Update => true,
        }
    }

    /// A change is applied for the first time.
    pub(super) fn follow_change(&mut self, index: u64, change: &ConfChange, outcome: &Outcome) {
        self.removals.remove(&change.request_id);
        if !matches!(outcome, Outcome::Members(_)) {
            self.stats.changes_refused += 1;
            return;
        }
        self.changed = index;
        let id = change.member_id;
        let place = self.hosts.iter().position(|host| host.id == id);
        match (change.kind, place) {
            (Kind::AddVoter | Kind::AddLearner, None) => {
                let raft = change.member.as_ref().and_then(|member| member.raft_attributes.clone());
                let peer_urls = raft.unwrap_or_default().peer_urls;
                let mut host = Host::joining(id, peer_urls, self.cluster_id);
                host.rate = self.swarm.rates[self.rng.index(self.swarm.rates.len())];
                self.hosts.push(host);
                self.stats.joined += 1;
                self.take_place(id);
            }
            (Kind::Promote, _) => self.stats.promoted += 1,
            (Kind::Remove, Some(at)) => {
                self.stats.removed += 1;
                self.removed.insert(id, index);
                self.hosts[at].lost = false;
            }
            _ => {}
        }
    }

    /// Voters do not take in a member that they know as removed, and tell it so (CL-5): as soon as a crash does not
    /// make them forget it.
    pub(super) fn is_told_of_its_removal(&mut self, at: usize) -> bool {
        let id = self.hosts[at].id;
        let other = self.rng.index(self.hosts.len());
        let reached = !self.is_paused(other) && !self.network.is_cut(at, other);
        let Some(removal) = self.removed.get(&id) else { return false };
        let peer = self.hosts[other].node.as_ref().filter(|peer| reached && other != at && peer.is_voter());
        peer.is_some_and(|peer| {
            peer.state.cluster().members.is_removed(id) && peer.durable_commit() >= *removal
        })
    }

    pub(super) fn end_removed(&mut self, at: usize) {
        self.note(format_args!("member {at} was removed and ends"));
        self.stop(at);
        self.drop_transfers(at);
        self.hosts[at].gone = true;
    }

    /// Whether every voter knows the newest change, also after a crash: one that has forgotten it counts votes as
    /// before it, and one that was just added may have nothing yet.
    pub(super) fn is_settled(&self) -> bool {
        let voters = self.model.voters();
        let knows = |host: &Host| host.node.as_ref().is_some_and(|n| n.durable_commit() >= self.changed);
        voters.iter().all(|id| self.hosts.iter().any(|host| host.id == *id && knows(host)))
    }

    /// A machine breaks, with its disk. Most voters are left, whatever is decided next.
    pub(super) fn lose(&mut self, at: usize) {
        let voters = self.model.voters();
        let enough = voters.len() >= 3 && voters.contains(&self.hosts[at].id);
        // Until it is removed no other voter is; but a removal that is on its way may still come.
        if !enough
            || !self.is_settled()
            || !self.removals.is_empty()
            || self.hosts.iter().any(|host| host.lost || has_rotten_log(host))
        {
            return;
        }
        self.crash(at);
        self.hosts[at].gone = true;
        self.hosts[at].lost = true;
        self.stats.lost += 1;
        self.note(format_args!("member {at} is lost"));
    }
}
