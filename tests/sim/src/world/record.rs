// SPDX-License-Identifier: Apache-2.0
//! What was applied, by anyone, held against the model.
//!
//! Owns      the one log that all members must follow, and what follows from it.
//! Holds     see [`super::World`].
//! Never     drives a member.

use super::{Ended, World, broken, raft};
use crate::{digest, model::Outcome, node, users};
use cairn_core::{
    Command,
    replica::{
        conf::ConfChange,
        log::{EntryKind, LogEntry},
    },
};
use cairn_mvcc::{EventKind, RevisionEvents};
use cairn_proto::{errors, etcdserverpb as pb};
use std::sync::Arc;

/// An entry of the log as it was applied first.
pub(super) struct Entry {
    pub term: u64,
    digest: u64,
    /// What its proposer is to be told.
    pub outcome: Option<Outcome>,
    /// The revision that it made.
    made: Option<i64>,
}

/// What is known of a lease's life.
pub(super) struct LeaseLife {
    pub ttl_s: i64,
    pub renewed_ms: u64,
    /// The entry that granted it.
    pub index: u64,
    /// When the leader began to count its time at the latest.
    pub counted_ms: u64,
}

/// Who leads, by what it has applied, and since when.
#[derive(Clone, Copy)]
pub(super) struct Lead {
    at: usize,
    since_ms: u64,
}

impl World {
    /// An entry is applied: for the first time, or again after a crash. Gives the revision that it made.
    pub(super) fn take_entry(&mut self, entry: LogEntry) -> Result<Option<i64>, Ended> {
        let digest = raft::digest(entry.term, &entry.data);
        let before = self.log.len() as u64;
        if let Some(known) = self.log.get(entry.index as usize - 1) {
            if (known.term, known.digest) != (entry.term, digest) {
                return broken(format!("entry {} is another one than it was", entry.index));
            }
            return Ok(known.made);
        }
        if entry.index != before + 1 {
            return broken(format!("entry {} is applied after {before}", entry.index));
        }
        self.stats.entries += 1;
        self.check_majority(entry.index, entry.term)?;
        let revision = self.model.revision();
        let mut outcome = None;
        if entry.kind == EntryKind::ConfChangeV2 {
            let change = ConfChange::decode(&entry.data).map_err(|e| Ended::Broken(e.to_string()))?;
            if change.request_id != 0 && !self.ids.insert(change.request_id) {
                return broken(format!("change {} is in the log twice", change.request_id));
            }
            self.raft.voters_before = self.model.voters();
            let expected = self.model.change(&change);
            let (index, kind, id) = (entry.index, change.kind, change.member_id);
            self.note(format_args!("entry {index}: {kind:?} {id:x} -> {expected:?}"));
            self.follow_change(index, &change, &expected);
            outcome = Some(expected);
        }
        if entry.kind == EntryKind::Normal && !entry.data.is_empty() {
            let whole = <pb::InternalRaftRequest as prost::Message>::decode(entry.data.clone());
            let id = whole.ok().and_then(|r| r.header).map_or(0, |header| header.id);
            if !self.ids.insert(id) {
                return broken(format!("request {id} is in the log twice"));
            }
            let decoded = Command::decode_by(entry.data.clone());
            let (command, by) = decoded.map_err(|e| Ended::Broken(e.to_string()))?;
            let expected = self.model.apply(entry.index, by.as_ref(), &command);
            let number = digest::of(|digest| expected.digest(digest));
            self.note_long(number, format_args!("entry {} of request {id} -> {expected:?}", entry.index));
            self.follow_lease(entry.index, &command, &expected)?;
            match (&command, &expected) {
                (Command::Compact(_), Outcome::Revision(_)) => self.stats.compactions += 1,
                (Command::Alarm(r), _) if r.action == pb::alarm_request::AlarmAction::Activate as i32 => {
                    self.stats.alarms += 1;
                }
                (Command::Auth(_), Outcome::Revision(_)) => self.stats.users_changed += 1,
                (_, Outcome::Refused(text)) if users::is_of_rights(text) => self.stats.without_rights += 1,
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
    fn follow_lease(&mut self, index: u64, command: &Command, outcome: &Outcome) -> Result<(), Ended> {
        match (command, outcome) {
            (Command::LeaseGrant(r), Outcome::Grant { .. }) => {
                self.ended_leases.remove(&r.id);
                let (renewed_ms, counted_ms) = (self.now_ms, self.now_ms);
                self.leases.insert(r.id, LeaseLife { ttl_s: r.ttl, renewed_ms, index, counted_ms });
            }
            (Command::LeaseRevoke(r), Outcome::Revision(_)) => {
                self.leases.remove(&r.id);
                self.ended_leases.insert(r.id, index);
            }
            (Command::LeaseEnd { id, .. }, Outcome::Revision(_)) => {
                let life = self.leases.remove(id).expect("the model knew it");
                self.ended_leases.insert(*id, index);
                // Its time is that of the clocks of leaders.
                let fastest = self.hosts.iter().map(|host| host.rate).max().expect("there are members");
                let (lived_ms, ttl_ms) =
                    ((self.now_ms - life.renewed_ms) * fastest / 100, life.ttl_s as u64 * 1000);
                if lived_ms < ttl_ms {
                    return broken(format!("lease {id} ended {} ms early", ttl_ms - lived_ms));
                }
                self.stats.expired += 1;
                self.time_end(&life);
            }
            _ => {}
        }
        Ok(())
    }

    /// How late a lease ended, where nothing but its leader could hold that up: from its grant or renewal there on, or
    /// since that member leads (LEASE-8).
    fn time_end(&mut self, life: &LeaseLife) {
        let Some((due_ms, begun_ms, rate)) = self.due(life) else { return };
        if due_ms <= self.quiet_since_ms {
            return;
        }
        let late_ms = ((self.now_ms - begun_ms) * rate / 100).saturating_sub(life.ttl_s as u64 * 1000);
        self.note(format_args!("a lease ended {late_ms} ms after its time"));
        self.stats.leases_timed += 1;
        self.stats.lease_late_ms = self.stats.lease_late_ms.max(late_ms);
    }

    /// When a lease is due if its leader gives it no more than its time, since when that counts, and how fast that
    /// leader's clock is; `None` if nobody leads.
    pub(super) fn due(&self, life: &LeaseLife) -> Option<(u64, u64, u64)> {
        let Lead { at, since_ms } = self.lead?;
        let host = &self.hosts[at];
        host.node.as_ref().filter(|node| node.leads)?;
        let begun_ms = life.counted_ms.max(since_ms);
        Some((begun_ms + life.ttl_s as u64 * 100_000 / host.rate, begun_ms, host.rate))
    }

    /// A member applied up to somewhere, and may lead since then; it led before or not.
    pub(super) fn see_lead(&mut self, at: usize, led: bool, applied_before: u64) {
        if !self.node(at).leads {
            return;
        }
        if !led {
            self.lead = Some(Lead { at, since_ms: self.now_ms });
        }
        let applied = self.node(at).state.applied().0;
        for life in self.leases.values_mut() {
            if (applied_before + 1..=applied).contains(&life.index) {
                life.counted_ms = self.now_ms;
            }
        }
    }

    pub(super) fn check_events(
        &self,
        events: &[Arc<RevisionEvents>],
        revisions: &[i64],
    ) -> Result<(), Ended> {
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

    /// Users, roles, rights and the auth revision follow from the log alone (R03 of the test plan).
    pub(super) fn check_users(&mut self, at: usize) -> Result<(), Ended> {
        let node = self.node(at);
        let (applied, _) = node.state.applied();
        let held = users::held(node)?;
        let due = self.model.users.after(applied);
        self.stats.users_held += u64::from(self.model.users.enabled());
        if held == due { Ok(()) } else { broken(format!("after {applied}: {held:?}\nin place of {due:?}")) }
    }

    /// The hash of a revision depends on what is stored alone: it is the same at every member, after every crash,
    /// checkpoint and purge.
    pub(super) fn hash(&mut self, at: usize) -> Result<(), Ended> {
        let reader = self.node(at).reader.clone();
        let done = match reader.hash_kv(0) {
            Ok(done) => done,
            Err(error) => return Err(Ended::Failed(error.to_string())),
        };
        self.check_users(at)?;
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
