// SPDX-License-Identifier: Apache-2.0
//! Election timeouts: drawn from the seed, and one voter after the other.
//!
//! Owns      how long a member waits for its leader before it asks for votes.
//! Holds     a timeout stays the same for one term, role and leader, and is below two election timeouts.
//! Never     draws from a source that two runs of one seed do not share.

use super::Replica;
use crate::boot::draw;
use raft::StateRole;

impl<W, R> Replica<W, R> {
    /// raft-rs draws election timeouts from the thread's own source. Ours come from the seed, one for each
    /// term, role and leader, so that two runs of one seed agree.
    pub(super) fn keep_timeout(&mut self) {
        let raft = &self.node.raft;
        let now = (raft.term, raft.state, raft.leader_id);
        if self.drawn_for != Some(now) {
            self.drawn_for = Some(now);
            self.draws += 1;
            let drawn = draw(self.seed, self.draws);
            let follows = raft.state == StateRole::Follower && raft.leader_id != 0;
            let spread = match self.turn_after(raft.leader_id) {
                Some(turn) if follows && self.staggered => turn.spread(drawn, self.election_ticks as u64),
                _ => drawn % self.election_ticks as u64,
            };
            self.timeout = self.election_ticks + spread as usize;
        }
        self.node.raft.set_randomized_election_timeout(self.timeout);
    }

    /// This voter's place among those that would go on without `leader`.
    fn turn_after(&self, leader: u64) -> Option<Turn> {
        let (voters, id) = (self.node.raft.prs().conf().voters().ids(), self.node.raft.id);
        let others = || voters.iter().filter(|voter| *voter != leader);
        let before = |voter: &u64| voter.wrapping_sub(leader) < id.wrapping_sub(leader);
        others()
            .any(|voter| voter == id)
            .then(|| Turn { place: others().filter(before).count() as u64, of: others().count() as u64 })
    }
}

/// Whose turn it is to ask for votes when a leader is lost. Each voter has a part of the second election timeout:
/// two that ask at once may both fail, and the first part begins soonest.
struct Turn {
    place: u64,
    of: u64,
}

impl Turn {
    /// Ticks by which an election timeout is longer than it must be.
    fn spread(&self, drawn: u64, election_ticks: u64) -> u64 {
        if self.place == 0 {
            // The clocks of two members are up to a tick apart, and one whose own wait is shorter than a timeout
            // refuses its vote.
            return 1.min(election_ticks - 1);
        }
        let part = (election_ticks / self.of).max(1);
        election_ticks * self.place / self.of + drawn % part
    }
}
