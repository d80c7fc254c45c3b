// SPDX-License-Identifier: Apache-2.0
//! What peers send: messages of Raft, proposals that are handed on, and snapshots.
//!
//! Owns      which messages raft-rs is given, what a follower tells of itself, and who is sent a snapshot.
//! Holds     1. no message of a peer ends the process;
//!           2. a follower that announced itself goes on until its leader has sent what fits.
//! Never     sends: what is to go out is an effect.

use super::{
    Effects, Replica, Stopped,
    log::EntryKind,
    peer::{HOPS_MAX, Known, MessageKind, PeerMessage, Verdict, judge},
};
use crate::mutants::planted;
use raft::StateRole;
use std::collections::btree_map::Entry;

impl<W, R> Replica<W, R> {
    /// A proposal that came to another member.
    fn on_proposal_of_a_peer(&mut self, now_ms: u64, message: PeerMessage, effects: &mut Effects<W, R>) {
        let PeerMessage { from, entries, context, .. } = message;
        let leader = self.node.raft.leader_id;
        let hops = context.len() + 1;
        if leader != 0 && !self.leads() {
            if leader != from && hops <= HOPS_MAX {
                self.hand_on(leader, entries, hops, effects);
            }
            return;
        }
        for entry in entries {
            if entry.kind == EntryKind::Normal as i32 {
                self.gathered.push_of_a_peer(now_ms, entry, context.len());
            } else if self.leads() {
                self.proposals.queue_change(entry.data, None);
            }
        }
    }

    pub(super) fn on_message(&mut self, now_ms: u64, message: PeerMessage, effects: &mut Effects<W, R>) {
        let raft = &self.node.raft;
        let known = Known {
            id: raft.id,
            term: raft.term,
            leader: raft.leader_id,
            leads: self.leads(),
            last: raft.raft_log.last_index(),
            persisted: raft.raft_log.persisted,
        };
        let (from, term, commit) = (message.from, message.term, message.commit);
        let kind = match judge(&message, &known) {
            Verdict::Step(kind) => kind,
            Verdict::Drop => return,
            Verdict::Refuse(why) => {
                effects.misbehaved.push((from, why));
                return;
            }
            Verdict::Lost { commit } => {
                effects.failed = Some(Stopped::EntriesLost { commit, last: known.last });
                return;
            }
        };
        if kind == MessageKind::Propose {
            self.on_proposal_of_a_peer(now_ms, message, effects);
            return;
        }
        // One that was sent before our log began where it does is refused, and the leader learns nothing from that.
        let fits = self.announcing && raft.raft_log.match_term(message.index, message.log_term);
        // An error means a message that is of no use any more: Raft sends another.
        self.node.step(message.into_raft(kind)).ok();
        let followed = term == self.node.raft.term && from == self.node.raft.leader_id;
        self.leader_unreachable &= !followed;
        if followed && matches!(kind, MessageKind::Append | MessageKind::Heartbeat) {
            self.told_commit = self.told_commit.max(commit);
        }
        match kind {
            MessageKind::Append if followed && fits => self.announcing = false,
            MessageKind::Heartbeat if followed && self.announcing => self.announce(from, effects),
            _ => {}
        }
    }

    /// Tells the leader how far our log surely agrees with its own. One that holds us for further behind than
    /// its own log reaches would never send anything.
    fn announce(&self, leader: u64, effects: &mut Effects<W, R>) {
        let raft = &self.node.raft;
        if raft.term > self.durable_term {
            return;
        }
        effects.messages.push(PeerMessage {
            kind: MessageKind::AppendResponse as i32,
            to: leader,
            from: raft.id,
            term: raft.term,
            index: if planted("announced-what-is-not-durable") {
                raft.raft_log.last_index()
            } else {
                raft.raft_log.committed.min(raft.raft_log.persisted)
            },
            commit: raft.raft_log.committed,
            ..Default::default()
        });
    }

    /// Whether the snapshot that is here is to be installed: not if the log reaches as far by itself.
    pub(super) fn on_snapshot(&mut self, index: u64, term: u64, effects: &mut Effects<W, R>) {
        let raft = &mut self.node.raft;
        let old = index <= raft.raft_log.committed && !planted("old-snapshot-installed");
        if raft.state == StateRole::Leader || old {
            // The sender does not know that.
            self.announcing = true;
            return;
        }
        if raft.raft_log.match_term(index, term) {
            // A snapshot is of what is committed.
            raft.raft_log.maybe_commit(index, term);
            self.announcing = true;
            return;
        }
        self.installing = true;
        effects.install = true;
    }

    /// A peer that has its snapshot says so by itself, with its next answer; until then none is sent again.
    pub(super) fn on_snapshot_ended(&mut self, peer: u64, installed: bool) {
        if installed {
            self.sending.insert(peer, Some(2 * self.election_ticks));
        } else {
            self.sending.remove(&peer);
        }
    }

    pub(super) fn note_behind(&mut self, effects: &mut Effects<W, R>) {
        for peer in self.node.raft.store().take_behind() {
            if let Entry::Vacant(vacant) = self.sending.entry(peer) {
                vacant.insert(None);
                effects.snapshots.push(peer);
            }
        }
    }
}
