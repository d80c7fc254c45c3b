// SPDX-License-Identifier: Apache-2.0
//! What is asked of the replicas: at each leader, at each entry that is committed, and at the quiet end.
//!
//! Owns      the checks of one leader a term, one history, durability at a majority, and rest.
//! Never     changes what it looks at, but for the quiet end, which lets everything through, and the places of those who join or go.

use super::{Cluster, Peer, ROUNDS, TICK_MS, log::MemLog};
use crate::world::digest_of;
use cairn_core::replica::{
    Input,
    conf::{ConfChange, Kind},
    log::{EntryKind, Log, LogEntry},
};

impl Cluster {
    pub(super) fn see_leader(&mut self, at: usize, term: u64) -> Result<(), String> {
        let id = self.peers[at].id;
        match self.leaders.insert(term, id) {
            Some(known) if known == id => return Ok(()),
            Some(known) => return Err(format!("{id} leads term {term} like {known}")),
            None => {}
        }
        self.stats.elections += 1;
        let index = self.log.partition_point(|one| one.0 < term) as u64;
        let newest = index.checked_sub(1).map(|at| self.log[at as usize].0);
        let has = self.peers[at].log.term(index);
        if newest.is_some() && has != newest {
            return Err(format!(
                "{id} leads term {term} without entry {index}: it has {has:?}, not {newest:?}"
            ));
        }
        Ok(())
    }

    /// An entry is applied, by the first or by another.
    pub(super) fn take_entry(&mut self, entry: &LogEntry) -> Result<(), String> {
        let found = (entry.term, digest_of(entry.term, &entry.data));
        if let Some(known) = self.log.get(entry.index as usize - 1) {
            if *known != found {
                return Err(format!("entry {} is another one than it was", entry.index));
            }
            return Ok(());
        }
        self.mark(found.1);
        self.stats.entries += 1;
        self.check_majority(entry)?;
        self.log.push(found);
        let id = match entry.kind {
            EntryKind::ConfChangeV2 => {
                let change = ConfChange::decode(&entry.data).map_err(|e| e.to_string())?;
                if self.members.check(&change).is_ok() {
                    self.voters_before = self.members.voters_and_learners().0;
                    self.members.apply(&change);
                    self.stats.changes += u64::from(change.request_id != 0);
                    if change.kind == Kind::Remove {
                        self.removed.insert(change.member_id, entry.index);
                    }
                    let adds = matches!(change.kind, Kind::AddVoter | Kind::AddLearner);
                    if adds && !self.peers.iter().any(|peer| peer.id == change.member_id) {
                        self.peers.push(Peer::new(change.member_id, MemLog::default()));
                    }
                }
                change.request_id
            }
            _ if entry.data.is_empty() => 0,
            _ => cairn_core::command::request_id(&entry.data).unwrap_or_default(),
        };
        if id != 0 && !self.ids.insert(id) {
            return Err(format!("proposal {id} is in the log twice"));
        }
        Ok(())
    }

    fn check_majority(&self, entry: &LogEntry) -> Result<(), String> {
        let has = |id: &&u64| {
            let peer = self.peers.iter().find(|peer| peer.id == **id);
            peer.is_some_and(|peer| {
                let term = peer.log.durable_term(entry.index);
                peer.log.durable_last() >= entry.index && (term == Some(entry.term) || term == Some(u64::MAX))
            })
        };
        let most = |voters: &[u64]| 2 * voters.iter().filter(has).count() > voters.len();
        let now = self.members.voters_and_learners().0;
        if now.is_empty() || most(&now) || most(&self.voters_before) {
            return Ok(());
        }
        Err(format!("entry {} of term {} is applied, and no majority has it", entry.index, entry.term))
    }

    /// No more faults.
    pub(super) fn end(&mut self) -> Result<(), String> {
        self.network.heal();
        self.peers.iter_mut().for_each(|peer| peer.hung_until_ms = 0);
        for round in 0..ROUNDS {
            self.now_ms += TICK_MS;
            for at in 0..self.peers.len() {
                if self.peers[at].gone {
                    continue;
                }
                if self.end_removed(at) {
                    continue;
                }
                if self.peers[at].replica.is_none() {
                    self.boot(at)?;
                }
                self.step(at, Input::Tick)?;
            }
            for _ in 0..4 {
                for _ in 0..20 * self.peers.len() {
                    self.deliver()?;
                }
                for at in 0..self.peers.len() {
                    if self.peers[at].replica.is_some() {
                        self.sync(at);
                        self.tell_durable(at)?;
                        self.apply(at)?;
                    }
                }
            }
            if round > ROUNDS / 2 && self.is_at_rest() {
                return Ok(());
            }
        }
        let of = |peer: &Peer| {
            let replica = peer.replica.as_ref().map(|r| (r.committed(), r.proposals(), r.leadership()));
            format!(
                "{}: applied {}, log to {}, {replica:?}",
                peer.id,
                peer.applied.index,
                peer.log.last_index()
            )
        };
        let all: Vec<_> = self.peers.iter().filter(|peer| !peer.gone).map(of).collect();
        let (voters, learners) = self.members.voters_and_learners();
        let all = all.join("\n");
        Err(format!(
            "{} entries, voters {voters:?}, learners {learners:?}, and no rest:\n{all}",
            self.log.len()
        ))
    }

    pub(super) fn is_at_rest(&self) -> bool {
        let running: Vec<&Peer> = self.peers.iter().filter(|peer| peer.replica.is_some()).collect();
        let leads = |peer: &&&Peer| peer.replica.as_ref().is_some_and(|r| r.leadership().leads);
        let quiet = |peer: &&Peer| {
            peer.applied.index == self.log.len() as u64
                && peer.applied.members == self.members
                && peer.replica.as_ref().is_some_and(|r| r.proposals() == 0)
        };
        running.iter().filter(leads).count() == 1 && running.iter().all(quiet)
    }
}
