// SPDX-License-Identifier: Apache-2.0
//! Proposals that a leader keeps back for the news of the next commit, and those of others that wait for a leader.
//!
//! Owns      what was proposed while entries were on their way, and for how long it may wait.
//! Holds     1. nothing waits for a commit for longer than [`HELD_MS`], and nothing at all while every entry is
//!              committed; for the end of a handover, an election timeout at most;
//!           2. what waits is in no log yet: who does not lead hands it on as if it had just come;
//!           3. it has no bytes that no member waits for: who asked was admitted there, within that one's bound.
//! Never     looks at Raft: it is told whether entries are on their way.

use super::{Proposal, peer::PeerEntry};

/// A proposal waits for the next commit for so long: one append then tells the followers of both. A commit that
/// takes longer, over a slow network, is not waited for.
pub(super) const HELD_MS: u64 = 2;
/// As many bytes are worth an append of their own.
const HELD_BYTES: usize = 256 << 10;

/// See the module.
pub(super) struct Gathered<W> {
    /// Proposed here.
    pub own: Vec<Proposal<W>>,
    /// Of other members, and how often they were handed on at most.
    pub others: Vec<PeerEntry>,
    pub hops: usize,
    bytes: usize,
    /// When the first of them has waited long enough.
    due_ms: Option<u64>,
}

impl<W> Default for Gathered<W> {
    fn default() -> Self {
        Gathered { own: Vec::new(), others: Vec::new(), hops: 0, bytes: 0, due_ms: None }
    }
}

impl<W> Gathered<W> {
    pub fn push(&mut self, now_ms: u64, proposal: Proposal<W>) {
        self.note(now_ms, proposal.data.len());
        self.own.push(proposal);
    }

    pub fn push_of_a_peer(&mut self, now_ms: u64, entry: PeerEntry, hops: usize) {
        self.note(now_ms, entry.data.len());
        self.hops = self.hops.max(hops);
        self.others.push(entry);
    }

    fn note(&mut self, now_ms: u64, bytes: usize) {
        self.bytes += bytes;
        self.due_ms.get_or_insert(now_ms + HELD_MS);
    }

    /// When it has to be asked for at the latest; `None` while nothing waits.
    pub fn due_ms(&self) -> Option<u64> {
        self.due_ms
    }

    /// Everything, if it has waited enough.
    pub fn take_due(&mut self, now_ms: u64, on_their_way: bool) -> Option<Gathered<W>> {
        let due = self.due_ms?;
        let waits = on_their_way && now_ms < due && self.bytes < HELD_BYTES;
        (!waits).then(|| std::mem::take(self))
    }

    /// Forgets what others asked for so long ago that they do not wait for it any more.
    pub fn expire(&mut self, now_ms: u64, patience_ms: u64) {
        if self.due_ms.is_some_and(|due_ms| now_ms >= due_ms.saturating_add(patience_ms)) {
            assert!(self.own.is_empty(), "what a member asks itself waits elsewhere");
            *self = Gathered::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::log::EntryKind;

    fn gathered(bytes: usize) -> Gathered<()> {
        let mut gathered = Gathered::default();
        let data = vec![0; bytes].into();
        gathered.push(5, Proposal { id: 1, kind: EntryKind::Normal, leader_only: false, data, carried: () });
        gathered.push_of_a_peer(6, PeerEntry::default(), 2);
        gathered
    }

    #[test]
    fn proposals_wait_for_a_commit_if_there_is_one_to_come_and_not_for_long() {
        assert!(Gathered::<()>::default().take_due(9, false).is_none(), "nothing waits");
        let mut waits = gathered(1);
        assert!(waits.take_due(6, true).is_none());
        assert_eq!(waits.due_ms(), Some(5 + HELD_MS), "the first one counts");
        let due = waits.take_due(5 + HELD_MS, true).expect("it waited");
        assert_eq!((due.own.len(), due.others.len(), due.hops), (1, 1, 2));
        assert_eq!(waits.due_ms(), None);
        assert!(gathered(1).take_due(6, false).is_some(), "there is nothing to wait for");
        assert!(gathered(HELD_BYTES).take_due(6, true).is_some(), "it is worth a message");

        let mut of_a_peer = Gathered::<()>::default();
        of_a_peer.push_of_a_peer(6, PeerEntry::default(), 0);
        of_a_peer.expire(6 + HELD_MS + 99, 100);
        assert_eq!(of_a_peer.others.len(), 1);
        of_a_peer.expire(6 + HELD_MS + 100, 100);
        assert_eq!((of_a_peer.others.len(), of_a_peer.due_ms()), (0, None));
    }
}
