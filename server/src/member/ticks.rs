// SPDX-License-Identifier: Apache-2.0
//! How long a member that starts waits before it asks for votes (`--initial-election-tick-advance`, RT-2).
//!
//! Owns      the ticks that are passed over once there is somebody to vote.
//! Never     has anybody campaign: what is left of the wait is as random as ever.

use super::{Level, Member, shared::ReplicaMessage};
use std::time::Duration;

/// How long another member is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);

impl Member {
    /// Passes over most of the first wait for a leader; `fresh` is a member that was made by this start.
    pub async fn advance_ticks(&self, wanted: bool, fresh: bool) {
        let shared = &self.shared;
        let election_ticks = shared.config.election_ticks();
        let known = async {
            // One that has data and applied nothing yet knows nobody.
            while !self.has_peers() && shared.cluster().members.is_empty() {
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::select! {
            _ = tokio::time::timeout(PATIENCE, known) => {}
            _ = shared.wait_ended() => return,
        }
        if !self.has_peers() {
            // Who is alone campaigns at once.
            return self.say_ticks(
                "started as single-node; fast-forwarding election ticks",
                election_ticks.saturating_sub(1),
            );
        }
        if !wanted {
            let fields = [("election-ticks", election_ticks.to_string())];
            return shared.log(Level::Info, "skipping initial election tick advance", &fields);
        }
        let connected = async {
            while shared.peers.counts().1 == 0 {
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::select! {
            connected = tokio::time::timeout(PATIENCE, connected) => if connected.is_err() { return },
            _ = shared.wait_ended() => return,
        }
        let ticks = election_ticks.saturating_sub(if fresh { 1 } else { 2 });
        self.say_ticks("initialized peer connections; fast-forwarding election ticks", ticks);
        // A closed queue means that the member ends.
        shared.replica.push(ReplicaMessage::FastForward(ticks as usize)).ok();
    }

    fn say_ticks(&self, message: &str, ticks: u64) {
        let config = &self.shared.config;
        let fields = [
            ("local-member-id", self.shared.member_id.to_string()),
            ("forward-ticks", ticks.to_string()),
            ("forward-duration", format!("{}ms", ticks * config.heartbeat_ms)),
            ("election-ticks", config.election_ticks().to_string()),
        ];
        self.shared.log(Level::Info, message, &fields);
    }
}
