// SPDX-License-Identifier: Apache-2.0
//! What was proposed here and is not known to be committed.
//!
//! Owns      what the host keeps with each proposal until its fate is known.
//! Holds     1. one that was proposed by this member as leader is found by index and term, never by index
//!              alone; one that went to another leader by its request id and all of its bytes;
//!           2. a proposal is made once at most: who waits in vain is told that its fate is unknown;
//!           3. no two changes of the membership are on their way at once.
//! Never     looks at Raft: it is told what became of an entry.

use super::log::{EntryKind, LogEntry};
use crate::{
    Refusal, command,
    mutants::planted,
    replica::{
        Proposal,
        conf::{ConfChange, Kind},
    },
};
use bytes::Bytes;
use cairn_proto::errors;
use std::collections::{BTreeMap, VecDeque};

/// See the module.
pub(super) struct Proposals<W> {
    /// Index, term and what was kept of entries that this member appended as leader.
    proposed: VecDeque<(u64, u64, W)>,
    /// Since when this member leads no more, while it still has entries of its own.
    deposed_ms: Option<u64>,
    /// By request id, what was sent to another leader.
    forwarded: BTreeMap<u64, Forwarded<W>>,
    /// What waits for a leader (LIMIT-7), and since when.
    leaderless: VecDeque<(u64, Proposal<W>)>,
    /// Changes of the membership that wait for the one before to be applied; who proposed them, if it was
    /// this member.
    changes: VecDeque<(Bytes, Option<(u64, W)>)>,
}

struct Forwarded<W> {
    since_ms: u64,
    data: Bytes,
    carried: W,
}

impl<W> Default for Proposals<W> {
    fn default() -> Self {
        Proposals {
            proposed: VecDeque::new(),
            deposed_ms: None,
            forwarded: BTreeMap::new(),
            leaderless: VecDeque::new(),
            changes: VecDeque::new(),
        }
    }
}

impl<W> Proposals<W> {
    pub fn len(&self) -> usize {
        self.proposed.len() + self.forwarded.len() + self.leaderless.len() + self.changes.len()
    }

    /// Entries from `first` on were appended by this member as leader of `term`. What it appended there as an
    /// earlier leader is gone here, and may still be committed by others.
    pub fn appended(
        &mut self,
        first: u64,
        term: u64,
        carried: impl IntoIterator<Item = W>,
        refused: &mut Vec<(W, Refusal)>,
    ) {
        while self.proposed.back().is_some_and(|(index, ..)| *index >= first) {
            let (_, _, waiting) = self.proposed.pop_back().expect("it is the back");
            refused.push((waiting, errors::TIMEOUT_DUE_TO_LEADER_FAIL));
        }
        self.proposed.extend((first..).zip(carried).map(|(index, carried)| (index, term, carried)));
    }

    pub fn forward(&mut self, now_ms: u64, id: u64, data: Bytes, carried: W) {
        self.forwarded.insert(id, Forwarded { since_ms: now_ms, data, carried });
    }

    pub fn wait_for_leader(&mut self, now_ms: u64, proposals: impl IntoIterator<Item = Proposal<W>>) {
        self.leaderless.extend(proposals.into_iter().map(|proposal| (now_ms, proposal)));
    }

    /// Whether any waits for a leader.
    pub fn wait(&self) -> bool {
        !self.leaderless.is_empty()
    }

    /// What waited for a leader.
    pub fn take_leaderless(&mut self) -> Vec<Proposal<W>> {
        self.leaderless.drain(..).map(|(_, proposal)| proposal).collect()
    }

    /// What was sent to another leader, but for changes of the membership.
    pub fn forwarded(&self) -> impl Iterator<Item = &Bytes> {
        let normal = |data: &&Bytes| command::request_id(data).is_some();
        self.forwarded.values().map(|forwarded| &forwarded.data).filter(normal)
    }

    pub fn queue_change(&mut self, data: Bytes, ours: Option<(u64, W)>) {
        self.changes.push_back((data, ours));
    }

    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    pub fn next_change(&mut self) -> Option<(Bytes, Option<W>)> {
        self.changes.pop_front().map(|(data, ours)| (data, ours.map(|(_, carried)| carried)))
    }

    /// Whether the next change is the removal of this member.
    pub fn next_change_removes(&self, id: u64) -> bool {
        let next = self.changes.front().and_then(|(data, _)| ConfChange::decode(data).ok());
        next.is_some_and(|change| change.kind == Kind::Remove && change.member_id == id)
    }

    /// Changes that other members handed on to this one, which does not lead any more.
    pub fn take_changes_of_others(&mut self) -> impl Iterator<Item = Bytes> {
        self.take_changes(false).into_iter().map(|(data, _)| data)
    }

    /// Takes the changes of this member, or those of the others, and leaves the rest in their order.
    fn take_changes(&mut self, ours: bool) -> VecDeque<(Bytes, Option<(u64, W)>)> {
        let all = std::mem::take(&mut self.changes);
        let (taken, left) = all.into_iter().partition(|(_, own)| own.is_some() == ours);
        self.changes = left;
        taken
    }

    /// This member leads no more: its own changes that are not in the log yet, to be proposed to the next leader.
    pub fn deposed(&mut self, now_ms: u64) -> Vec<Proposal<W>> {
        self.deposed_ms = Some(now_ms);
        let own = self.take_changes(true).into_iter();
        let own = own.filter_map(|(data, ours)| ours.map(|(id, w)| (id, data, w)));
        own.map(|(id, data, carried)| Proposal {
            id,
            kind: EntryKind::ConfChangeV2,
            leader_only: false,
            data,
            carried,
        })
        .collect()
    }

    /// This member leads again, with a log that ends at `last`: what it appended behind that is gone for ever.
    pub fn elected(&mut self, last: u64, refused: &mut Vec<(W, Refusal)>) {
        self.deposed_ms = None;
        while self.proposed.back().is_some_and(|(index, ..)| *index > last) {
            let (.., waiting) = self.proposed.pop_back().expect("it is the back");
            refused.push((waiting, errors::TIMEOUT_DUE_TO_LEADER_FAIL));
        }
    }

    /// What was kept of an entry that is committed, if this member proposed it.
    pub fn committed(&mut self, entry: &LogEntry, refused: &mut Vec<(W, Refusal)>) -> Option<W> {
        while let Some((index, term, _)) = self.proposed.front() {
            if *index > entry.index {
                break;
            }
            let by_index = planted("kept-request-found-by-index-alone") && *index == entry.index;
            let ours = (*index, *term) == (entry.index, entry.term) || by_index;
            let (_, _, waiting) = self.proposed.pop_front().expect("it is the front");
            if ours {
                return Some(waiting);
            }
            // Another leader's entry took this place, so ours can never be committed.
            refused.push((waiting, errors::LEADER_CHANGED));
        }
        if self.forwarded.is_empty() {
            return None;
        }
        let id = match entry.kind {
            EntryKind::Normal => command::request_id(&entry.data)?,
            _ => ConfChange::decode(&entry.data).ok()?.request_id,
        };
        self.forwarded.get(&id).filter(|forwarded| forwarded.data == entry.data)?;
        self.forwarded.remove(&id).map(|forwarded| forwarded.carried)
    }

    /// Gives up what waits for longer than `patience_ms`.
    pub fn expire(&mut self, now_ms: u64, patience_ms: u64, refused: &mut Vec<(W, Refusal)>) {
        let late = |since_ms: u64| now_ms >= since_ms.saturating_add(patience_ms);
        while self.leaderless.front().is_some_and(|(since_ms, _)| late(*since_ms)) {
            let (_, proposal) = self.leaderless.pop_front().expect("it is the front");
            refused.push((proposal.carried, errors::CONTEXT_DEADLINE_EXCEEDED));
        }
        let lost = self.forwarded.extract_if(.., |_, forwarded| late(forwarded.since_ms));
        refused.extend(lost.map(|(_, forwarded)| (forwarded.carried, errors::TIMEOUT)));
        if self.deposed_ms.is_some_and(late) {
            self.deposed_ms = None;
            let orphans = self.proposed.drain(..);
            refused.extend(orphans.map(|(.., waiting)| (waiting, errors::TIMEOUT_DUE_TO_LEADER_FAIL)));
        }
    }

    /// Everything, when the member stops.
    pub fn drain(&mut self) -> Vec<W> {
        let mut all: Vec<W> = self.leaderless.drain(..).map(|(_, proposal)| proposal.carried).collect();
        all.extend(self.proposed.drain(..).map(|(.., carried)| carried));
        all.extend(std::mem::take(&mut self.forwarded).into_values().map(|forwarded| forwarded.carried));
        all.extend(self.changes.drain(..).filter_map(|(_, ours)| ours.map(|(_, carried)| carried)));
        all
    }
}
