// SPDX-License-Identifier: Apache-2.0
//! Changes of the membership, and leadership that is given away.
//!
//! Owns      when a change enters the log, what it does here once it is applied, and who leads after this member.
//! Holds     1. a change is proposed only after the one before is applied (CL-11);
//!           2. a member that was removed ends only once a leader says that this is committed.
//! Never     judges whether a change is allowed: the state did.

use super::{
    Effects, Replica,
    conf::{ConfChange, Kind},
};
use crate::mutants::planted;
use raft::eraftpb::{self, EntryType};

impl<W, R> Replica<W, R> {
    /// A member that was removed has another one lead; when a leader says that the removal is committed, others know
    /// of it, and it can end. A leader that ended as soon as it knew may have been the only one who did.
    pub(super) fn leave(&mut self, effects: &mut Effects<W, R>) {
        let Some(removal) = self.leaving else { return };
        if self.told_commit >= removal {
            self.leaving = None;
            effects.removed = true;
        } else if self.leads()
            && !self.hands_over()
            && let Some(other) = self.best_other_voter()
        {
            self.node.transfer_leader(other);
        }
    }

    /// The next change of the membership goes into the log once the one before is applied (CL-11).
    pub(super) fn propose_change(&mut self, effects: &mut Effects<W, R>) {
        if !self.proposals.has_changes() || !self.leads() || self.leaving.is_some() {
            return;
        }
        let raft = &self.node.raft;
        if raft.has_pending_conf() || self.hands_over() {
            return;
        }
        if self.proposals.next_change_removes(raft.id)
            && let Some(other) = self.best_other_voter()
        {
            // Who commits the removal is to be there afterwards: it may be the only one who knows of it.
            self.node.transfer_leader(other);
            return;
        }
        let (data, carried) = self.proposals.next_change().expect("there is one");
        let entry = eraftpb::Entry { entry_type: EntryType::EntryConfChangeV2, data, ..Default::default() };
        self.append(vec![entry], Vec::from_iter(carried), effects);
    }

    pub(super) fn on_conf_applied(&mut self, index: u64, change: Option<ConfChange>) {
        self.change_committed = self.change_committed.max(index);
        if let Some(change) = change {
            if change.kind == Kind::Remove && change.member_id == self.node.raft.id {
                // To Raft it stays one of them until others go on without it.
                self.leaving = Some(index);
                self.on_applied(index);
                return;
            }
            let told = change.kind != Kind::Promote || !planted("promotion-not-told-to-raft");
            if let Some(for_raft) = change.to_raft().filter(|_| told) {
                // The state checked it against the members that it knows, so it fits.
                self.node
                    .apply_conf_change(&for_raft)
                    .expect("the state checked this change of the membership");
                self.drawn_for = None;
            }
            if change.kind == Kind::Remove {
                self.sending.remove(&change.member_id);
            }
        }
        self.on_applied(index);
    }

    /// Whether the lead is on its way to another. Raft gives that up after an election timeout.
    pub(super) fn hands_over(&self) -> bool {
        self.node.raft.lead_transferee.is_some()
    }

    pub(super) fn on_transfer(&mut self, to: u64) {
        if self.leads() {
            self.node.transfer_leader(to);
        }
    }

    /// A leader whose disk hangs is of no use: it can commit nothing by itself, and hears of no one who could.
    pub(super) fn on_log_hangs(&mut self, effects: &mut Effects<W, R>) {
        if self.leads() && !self.alone() {
            self.step_down(effects);
        }
    }

    /// Has the best of the other voters campaign, and leads no more.
    fn step_down(&mut self, effects: &mut Effects<W, R>) {
        if let Some(best) = self.best_other_voter() {
            self.node.raft.send_timeout_now(best);
        }
        // The messages of a leader do not wait for its own disk; those of a follower would.
        self.handle_readies(effects);
        let term = self.node.raft.term;
        self.node.raft.become_follower(term, 0);
    }

    /// The voter, but for this one, that is known to have the most of the log.
    fn best_other_voter(&self) -> Option<u64> {
        let raft = &self.node.raft;
        let voters = raft.prs().conf().to_conf_state().voters;
        let others = raft.prs().iter().filter(|(peer, _)| **peer != raft.id && voters.contains(peer));
        others.max_by_key(|(peer, progress)| (progress.matched, **peer)).map(|(peer, _)| *peer)
    }

    /// A leader that has just committed a change of the membership, and may be deposed before it handles that.
    pub(super) fn note_change(&mut self) {
        let raft = &self.node.raft;
        if self.leads() && raft.pending_conf_index <= raft.raft_log.committed {
            self.change_committed = self.change_committed.max(raft.pending_conf_index);
        }
    }

    /// Whether a change of the membership is committed, and the record of that is not durable here. Who was removed
    /// by it ends once it knows; if we lost it then, nobody who is left might know that it may lead.
    pub(super) fn owes_commit(&self, durable: u64) -> bool {
        durable < self.change_committed
    }
}
