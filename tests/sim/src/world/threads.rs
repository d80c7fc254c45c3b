// SPDX-License-Identifier: Apache-2.0
//! The threads of the member, one step at a time, and what each step must come to.
//!
//! Owns      the comparison of entries, events, answers, hashes and leases with the model.
//! Holds     what was applied once is applied again after every crash, entry for entry.
//! Never     draws what clients ask for.

use super::{Ended, Entry, LeaseLife, Op, TICK_MS, World, broken};
use crate::{
    model::Outcome,
    node::{self, OpId, Turn},
    swarm::Moment,
};
use cairn_core::{
    Command, Refusal,
    replica::log::{EntryKind, LogEntry},
    state::Applied,
};
use cairn_engine::io::Budget;
use cairn_mvcc::{EventKind, PurgeProgress, RevisionEvents};
use cairn_proto::{errors, etcdserverpb as pb};
use std::{collections::BTreeMap, sync::Arc};

impl World {
    pub(super) fn replica(&mut self) -> Result<(), Ended> {
        let now_ms = self.now_ms;
        let tick = now_ms >= self.next_tick_ms;
        if tick {
            self.next_tick_ms = now_ms + TICK_MS;
        }
        self.node().replica_turn(now_ms, tick)?;
        let refused = std::mem::take(&mut self.node().refused);
        for (op, refusal) in refused {
            self.note(format_args!("op {op} refused: {refusal}"));
            self.ops.remove(&op);
            self.stats.refused += 1;
        }
        for (op, _) in std::mem::take(&mut self.node().refused_reads) {
            self.ops.remove(&op);
        }
        Ok(())
    }

    pub(super) fn sync(&mut self) -> Result<(), Ended> {
        let room = self.node().sync()?;
        if !room {
            self.note(format_args!("no room for the log"));
        }
        let node = self.node();
        if node.wal.durable().last_index > node.state.applied().0 {
            self.crash_at(Moment::DurableNotApplied);
        }
        Ok(())
    }

    pub(super) fn state_turn(&mut self) -> Result<(), Ended> {
        let max = [1, 3, 1000][self.rng.index(3)];
        let now_ms = self.now_ms;
        let turn = self.node().state_turn(now_ms, max)?;
        let Turn { entries, outcome, reads, ops } = turn;
        let mut index_of = BTreeMap::new();
        for (index, op) in ops {
            index_of.insert(op, index);
        }
        let mut revisions = Vec::new();
        for committed in entries {
            revisions.extend(self.take_entry(committed.entry)?);
        }
        self.check_events(&outcome.events, &revisions)?;
        self.node().db.raise_size();
        self.check_size()?;
        if !outcome.answers.is_empty() && self.crash_at(Moment::AppliedNotAnswered) {
            return Ok(());
        }
        for (op, result) in outcome.answers {
            if op != 0 {
                self.take_answer(op, index_of[&op], result)?;
            }
        }
        for op in reads {
            let Some(Op { after_revision, range: Some(range), .. }) = self.ops.remove(&op) else { continue };
            self.read_now(&range, after_revision)?;
        }
        Ok(())
    }

    /// An entry is applied: for the first time, or again after a crash. Gives the revision that it made.
    fn take_entry(&mut self, entry: LogEntry) -> Result<Option<i64>, Ended> {
        let mix = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
        let digest = entry.data.iter().fold(entry.term, mix);
        let before = self.log.len() as u64;
        if let Some(known) = self.log.get(entry.index as usize - 1) {
            if (known.term, known.digest) != (entry.term, digest) {
                return broken(format!("entry {} is another one after a crash", entry.index));
            }
            return Ok(known.made);
        }
        if entry.index != before + 1 {
            return broken(format!("entry {} is applied after {before}", entry.index));
        }
        self.stats.entries += 1;
        let revision = self.model.revision();
        let mut outcome = None;
        if entry.kind == EntryKind::Normal && !entry.data.is_empty() {
            let whole = <pb::InternalRaftRequest as prost::Message>::decode(entry.data.clone());
            let id = whole.ok().and_then(|r| r.header).map_or(0, |header| header.id);
            if !self.ids.insert(id) {
                return broken(format!("request {id} is in the log twice"));
            }
            let command = Command::decode(entry.data.clone()).map_err(|e| Ended::Broken(e.to_string()))?;
            let expected = self.model.apply(entry.index, &command);
            self.note(format_args!("entry {} of request {id} -> {expected:?}", entry.index));
            self.follow_lease(&command, &expected)?;
            match (&command, &expected) {
                (Command::Compact(_), Outcome::Revision(_)) => self.stats.compactions += 1,
                (Command::Alarm(r), _) if r.action == pb::alarm_request::AlarmAction::Activate as i32 => {
                    self.stats.alarms += 1;
                }
                (_, Outcome::Refused(text))
                    if [errors::NO_SPACE.text, errors::CORRUPT.text].contains(text) =>
                {
                    self.stats.forbidden += 1;
                }
                _ => {}
            }
            outcome = Some(expected);
        }
        let made = (self.model.revision() > revision).then(|| self.model.revision());
        self.log.push(Entry { term: entry.term, digest, outcome, made });
        Ok(made)
    }

    /// A lease that the member ends by itself has had its whole time (LEASE-6, R21 of the test plan).
    fn follow_lease(&mut self, command: &Command, outcome: &Outcome) -> Result<(), Ended> {
        match (command, outcome) {
            (Command::LeaseGrant(r), Outcome::Grant { .. }) => {
                self.leases.insert(r.id, LeaseLife { ttl_s: r.ttl, renewed_ms: self.now_ms });
            }
            (Command::LeaseRevoke(r), Outcome::Revision(_)) => {
                self.leases.remove(&r.id);
            }
            (Command::LeaseEnd { id, .. }, Outcome::Revision(_)) => {
                let life = self.leases.remove(id).expect("the model knew it");
                let ends_ms = life.renewed_ms + life.ttl_s as u64 * 1000;
                if self.now_ms < ends_ms {
                    return broken(format!("lease {id} ended {} ms early", ends_ms - self.now_ms));
                }
                self.stats.expired += 1;
            }
            _ => {}
        }
        Ok(())
    }

    fn check_events(&self, events: &[Arc<RevisionEvents>], revisions: &[i64]) -> Result<(), Ended> {
        let mains: Vec<i64> = events.iter().map(|e| e.main).collect();
        if mains != revisions {
            return broken(format!("revisions {mains:?} in place of {revisions:?}"));
        }
        for made in events {
            let changes = self.model.changes(made.main);
            let same = made.events.len() == changes.len()
                && made.events.iter().zip(changes).all(|(event, change)| {
                    let kv = (event.kind == EventKind::Put).then(|| node::pair(&event.kv));
                    event.key == change.key && kv == change.kv
                });
            if !same {
                return broken(format!("events {made:?}\nin place of {changes:?}"));
            }
        }
        Ok(())
    }

    fn take_answer(&mut self, op: OpId, index: u64, result: Result<Applied, Refusal>) -> Result<(), Ended> {
        let Some(Op { after_index, .. }) = self.ops.remove(&op) else {
            return broken(format!("op {op} is answered, and nobody waits for it"));
        };
        if index <= after_index {
            return broken(format!("op {op} is entry {index}, but began after {after_index} was answered"));
        }
        let expected = self.log[index as usize - 1].outcome.clone().expect("a request has an outcome");
        self.acked_index = self.acked_index.max(index);
        self.stats.acked += 1;
        if let Outcome::Put { revision, .. }
        | Outcome::Delete { revision, .. }
        | Outcome::Txn { revision, .. }
        | Outcome::Grant { revision, .. }
        | Outcome::Revision(revision) = &expected
        {
            self.seen_revision = self.seen_revision.max(*revision);
        }
        self.unread.push((result, expected));
        if self.rng.one_in(2) { self.answer() } else { Ok(()) }
    }

    /// Reads the ranges of an answer and holds it against the model's.
    pub(super) fn answer(&mut self) -> Result<(), Ended> {
        if self.unread.is_empty() {
            return Ok(());
        }
        let at = self.rng.index(self.unread.len());
        let (result, expected) = self.unread.swap_remove(at);
        let node = self.node.as_ref().expect("the caller saw that it runs");
        let got = node::outcome(result, &node.reader).map_err(|e| Ended::Failed(e.to_string()))?;
        if got != expected {
            return broken(format!("     got {got:?}\nexpected {expected:?}"));
        }
        Ok(())
    }

    pub(super) fn checkpoint(&mut self) -> Result<(), Ended> {
        let bytes = [1, 4 << 10, u64::MAX][self.rng.index(3)];
        let confirm = self.rng.one_in(3);
        let done = self.node().checkpoint(Budget::bytes(bytes), confirm)?;
        self.stats.checkpoints += u64::from(done);
        self.note(format_args!("checkpoint step of {bytes} bytes: done {done}"));
        self.check_size()?;
        if done {
            self.size_saved = self.size;
        } else if self.node().is_in_checkpoint() {
            self.crash_at(Moment::InCheckpoint);
        }
        Ok(())
    }

    pub(super) fn purge(&mut self) -> Result<(), Ended> {
        let entries = [1, 10, 1000][self.rng.index(3)];
        let progress = self.node().purge(entries, false)?;
        self.stats.purges += u64::from(matches!(progress, PurgeProgress::Done(_)));
        self.note(format_args!("purge: {progress:?}"));
        if matches!(progress, PurgeProgress::More | PurgeProgress::AwaitsCheckpoint) {
            self.crash_at(Moment::InCompaction);
        }
        Ok(())
    }

    pub(super) fn defragment(&mut self) -> Result<(), Ended> {
        self.node().defragment()?;
        let size = self.node().db.size();
        self.size = size;
        // Which slot is the newest, and with which of the two sizes, is the checkpoints' matter.
        self.size_saved = 0;
        self.stats.defragmentations += 1;
        self.note(format_args!("defragmented: {size} bytes"));
        Ok(())
    }

    /// The hash of a revision depends on what is stored alone: it is the same after every crash, checkpoint
    /// and purge.
    pub(super) fn hash(&mut self) -> Result<(), Ended> {
        let reader = self.node().reader.clone();
        let done = match reader.hash_kv(0) {
            Ok(done) => done,
            Err(error) => return Err(Ended::Failed(error.to_string())),
        };
        self.stats.hashes += 1;
        let key = (done.hash_revision, done.compact_revision);
        self.note(format_args!("hash of {key:?}: {}", done.hash));
        let known = *self.hashes.entry(key).or_insert(done.hash);
        if known == done.hash {
            Ok(())
        } else {
            broken(format!("hash of {key:?}: {} after {known}", done.hash))
        }
    }
}
