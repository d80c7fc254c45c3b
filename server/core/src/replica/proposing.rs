// SPDX-License-Identifier: Apache-2.0
//! The way of proposals: into the log of this member if it leads, else to who does.
//!
//! Owns      which proposals become one entry of Raft's log after another, and which leave for the leader.
//! Holds     1. a proposal reaches the log at most once;
//!           2. a request that only a leader may make is never handed on to another;
//!           3. nothing is sent to a leader that cannot be reached, or was not heard for half an election timeout: it
//!              waits until that one is heard again, or another.
//! Never     answers: who waits is told when the entry is applied, or by whoever drops it.

use super::{
    BYTES_PER_APPEND, Proposal, Replica,
    gathered::Gathered,
    io::Effects,
    log::EntryKind,
    peer::{BYTES_PER_MESSAGE, HOPS_MAX, MessageKind, PeerEntry, PeerMessage},
};
use crate::mutants::planted;
use bytes::Bytes;
use cairn_proto::errors;
use raft::eraftpb::{self, EntryType, Message, MessageType};

impl<W, R> Replica<W, R> {
    /// What a leader is asked waits for the end of the turn; what another is asked goes to the leader.
    pub(super) fn on_propose(
        &mut self,
        now_ms: u64,
        proposals: Vec<Proposal<W>>,
        effects: &mut Effects<W, R>,
    ) {
        if self.leads() {
            for proposal in proposals {
                match proposal.kind {
                    EntryKind::Normal => self.gathered.push(now_ms, proposal),
                    _ => self.proposals.queue_change(proposal.data, Some((proposal.id, proposal.carried))),
                }
            }
            return;
        }
        let refuse = |p: &Proposal<W>| p.leader_only && !planted("deposed-leader-ends-leases");
        let (alone, others): (Vec<_>, Vec<_>) = proposals.into_iter().partition(refuse);
        effects.refused.extend(alone.into_iter().map(|p| (p.carried, errors::NOT_LEADER)));
        match self.reachable_leader() {
            None => self.proposals.wait_for_leader(now_ms, others),
            Some(leader) => self.forward(now_ms, leader, others, effects),
        }
    }

    /// What waited is proposed as soon as there is somebody to propose it to.
    pub(super) fn propose_waiting(&mut self, now_ms: u64, effects: &mut Effects<W, R>) {
        if self.proposals.wait() && self.reachable_leader().is_some() {
            let waiting = self.proposals.take_leaderless();
            self.on_propose(now_ms, waiting, effects);
        }
    }

    /// The leader, unless it seems to be gone: what is sent to it then is lost, and who asked learns nothing for as long
    /// as a request may take, though there may be another leader within an election timeout.
    fn reachable_leader(&self) -> Option<u64> {
        let raft = &self.node.raft;
        let silent = self.leader_unreachable || 2 * raft.election_elapsed > self.election_ticks;
        Some(raft.leader_id).filter(|leader| *leader != 0 && (self.leads() || !silent))
    }

    /// Everything that waits becomes one message to Raft: one append, one sync. While entries are on their way to
    /// followers it waits a moment for the news that they are committed, which the same message then brings. While the
    /// lead is handed over Raft takes nothing: it waits until that is done, for the next leader, or did not come to be.
    pub(super) fn propose_gathered(&mut self, now_ms: u64, effects: &mut Effects<W, R>) {
        if !self.leads() || self.hands_over() {
            return;
        }
        let raft = &self.node.raft;
        let has_followers = raft.prs().iter().nth(1).is_some();
        let on_their_way = raft.raft_log.committed < raft.raft_log.last_index();
        let Some(due) = self.gathered.take_due(now_ms, has_followers && on_their_way) else { return };
        let own = due.own.into_iter().map(|proposal| (proposal.data, Some(proposal.carried)));
        let others = due.others.into_iter().map(|entry| (entry.data, None));
        // Raft sends one append for each proposal, so none is to have more than fits.
        let (mut entries, mut carried, mut bytes) = (Vec::new(), Vec::new(), 0);
        for (data, kept) in own.chain(others) {
            if bytes + data.len() > BYTES_PER_APPEND && !entries.is_empty() {
                self.append(std::mem::take(&mut entries), std::mem::take(&mut carried), effects);
                bytes = 0;
            }
            bytes += data.len();
            entries.push(eraftpb::Entry { entry_type: EntryType::EntryNormal, data, ..Default::default() });
            carried.extend(kept);
        }
        self.append(entries, carried, effects);
    }

    /// This member does not lead, and knows who does: what it has of others is for that one.
    pub(super) fn hand_on_gathered(&mut self, effects: &mut Effects<W, R>) {
        let Gathered { own, others, hops, .. } = std::mem::take(&mut self.gathered);
        assert!(own.is_empty(), "its own were taken when it stopped leading");
        if hops < HOPS_MAX && !others.is_empty() {
            self.hand_on(self.node.raft.leader_id, others, hops + 1, effects);
        }
    }

    pub(super) fn append(
        &mut self,
        entries: Vec<eraftpb::Entry>,
        carried: Vec<W>,
        effects: &mut Effects<W, R>,
    ) {
        if entries.is_empty() {
            return;
        }
        let first = self.node.raft.raft_log.last_index() + 1;
        let term = self.node.raft.term;
        let mut message = Message { from: self.node.raft.id, entries: entries.into(), ..Default::default() };
        message.set_msg_type(MessageType::MsgPropose);
        match self.node.raft.step(message) {
            Ok(()) => self.proposals.appended(first, term, carried, &mut effects.refused),
            Err(_) => effects.refused.extend(carried.into_iter().map(|c| (c, errors::PROPOSAL_DROPPED))),
        }
    }

    /// As etcd does: a proposal goes to the leader, once, and is answered here when it is applied here.
    fn forward(
        &mut self,
        now_ms: u64,
        leader: u64,
        proposals: Vec<Proposal<W>>,
        effects: &mut Effects<W, R>,
    ) {
        let mut entries = Vec::new();
        let mut bytes = 0;
        for Proposal { id, kind, data, carried, .. } in proposals {
            if bytes + data.len() > BYTES_PER_MESSAGE && !entries.is_empty() {
                self.hand_on(leader, std::mem::take(&mut entries), 0, effects);
                bytes = 0;
            }
            bytes += data.len();
            entries.push(PeerEntry { kind: kind as i32, data: data.clone(), ..Default::default() });
            self.proposals.forward(now_ms, id, data, carried);
        }
        if !entries.is_empty() {
            self.hand_on(leader, entries, 0, effects);
        }
    }

    pub(super) fn hand_on(
        &self,
        leader: u64,
        entries: Vec<PeerEntry>,
        hops: usize,
        effects: &mut Effects<W, R>,
    ) {
        effects.messages.push(PeerMessage {
            kind: MessageKind::Propose as i32,
            to: leader,
            from: self.node.raft.id,
            entries,
            context: Bytes::from(vec![1; hops]),
            ..Default::default()
        });
    }
}
