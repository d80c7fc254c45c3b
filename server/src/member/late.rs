// SPDX-License-Identifier: Apache-2.0
//! What a proposal that was not applied in time is told: why that may be.
//!
//! Owns      the judgement, by what was seen of leaders and connections while it waited (RT-9, LIMIT-6).
//! Never     says that it was not done: it may yet be (LIMIT-8).

use super::{Member, Refusal};
use cairn_proto::errors;
use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

/// What was seen while it waited.
struct Seen {
    /// When it was made.
    started: Instant,
    /// When the leader that is known now, or was last, took over.
    elected: Option<Instant>,
    /// As long before that nobody may have led.
    leaderless: Duration,
    has_leader: bool,
    /// Whether there has been a connection to the leader all the time; or to a quorum, if it is this member.
    connected: bool,
}

impl Seen {
    fn judge(&self) -> Refusal {
        let lost = |elected: Instant| self.started < elected && self.started + self.leaderless > elected;
        match self.elected {
            Some(elected) if lost(elected) => errors::TIMEOUT_DUE_TO_LEADER_FAIL,
            _ if self.has_leader && !self.connected => errors::TIMEOUT_DUE_TO_CONNECTION_LOST,
            _ => errors::TIMEOUT,
        }
    }
}

impl Member {
    /// Why what was proposed then is late.
    pub fn why_late(&self, started: Instant) -> Refusal {
        let shared = &self.shared;
        let (own, leader) = (shared.member_id.0, shared.raft.leader.load(Ordering::Acquire));
        let connected =
            |id: u64| id == own || shared.peers.connected_since(id).is_some_and(|since| since <= started);
        let quorum = || {
            let voters = shared.cluster().members.voters_and_learners().0;
            voters.iter().filter(|id| connected(**id)).count() > voters.len() / 2
        };
        let seen = Seen {
            started,
            elected: *shared.raft.elected.lock().expect("nothing fails under this lock"),
            leaderless: Duration::from_millis(
                2 * shared.config.election_ticks() * shared.config.heartbeat_ms,
            ),
            has_leader: leader != 0,
            connected: if leader == own { quorum() } else { connected(leader) },
        };
        seen.judge()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // rule: RT-9, LIMIT-6
    #[test]
    fn what_is_late_is_told_of_the_leader_that_was_lost_or_of_the_connection() {
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let (elected_late, elected_early) = (Some(at(11_000)), Some(at(9_000)));
        let failed = "etcdserver: request timed out, possibly due to previous leader failure";
        let cut = "etcdserver: request timed out, possibly due to connection lost";
        let late = "etcdserver: request timed out";
        for (elected, has_leader, connected, text) in [
            (elected_late, true, true, failed),
            (elected_late, true, false, failed),
            (elected_late, false, false, failed),
            (elected_early, true, true, late),
            (elected_early, true, false, cut),
            (elected_early, false, false, late),
            // So long before the election that its leader was there.
            (Some(at(12_000)), true, true, late),
            (Some(at(12_000)), true, false, cut),
            (None, false, false, late),
        ] {
            let leaderless = Duration::from_millis(2_000);
            let seen = Seen { started: at(10_000), elected, leaderless, has_leader, connected };
            let told = seen.judge();
            assert_eq!((told.code, told.text), (14, text), "{elected:?} {has_leader} {connected}");
        }
    }
}
