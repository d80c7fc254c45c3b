// SPDX-License-Identifier: Apache-2.0
//! What Raft promises, held against what the members have.
//!
//! Owns      who led which term, and every entry of any log that was looked at.
//! Holds     1. election safety: a term has one leader;
//!           2. leader completeness: its log has every entry of earlier terms that anyone applied;
//!           3. log matching: entries of one index and term are the same, and follow the same;
//!           4. what is applied is durable at a majority of the voters.
//! Never     asks a replica: it looks at logs.

use super::{Ended, World, broken};
use cairn_core::replica::log::Log;
use std::collections::BTreeMap;

/// Entries of one log that are looked at in one go.
pub(super) const INSPECTED_MAX: u64 = 40;

/// What was seen so far.
#[derive(Default)]
pub(super) struct Record {
    /// Who led each term.
    leaders: BTreeMap<u64, usize>,
    /// By index and term: the term of the entry before, and a digest of this one.
    entries: BTreeMap<(u64, u64), (u64, u64)>,
    /// The voters before the newest change of them.
    pub voters_before: Vec<u64>,
}

pub(crate) fn digest(term: u64, data: &[u8]) -> u64 {
    data.iter().fold(term, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

impl World {
    pub(super) fn see_leader(&mut self, at: usize) -> Result<(), Ended> {
        let leadership = self.node(at).leadership;
        if !leadership.leads {
            return Ok(());
        }
        match self.raft.leaders.get(&leadership.term) {
            Some(known) if *known == at => return Ok(()),
            Some(known) => return broken(format!("leads term {} like member {known}", leadership.term)),
            None => {}
        }
        self.raft.leaders.insert(leadership.term, at);
        self.stats.elections += 1;
        self.note(format_args!("member {at} leads term {}", leadership.term));
        // It may hear of its votes late: what later leaders committed is not its own.
        let last = self.log.partition_point(|entry| entry.term < leadership.term) as u64;
        let Some(newest) = last.checked_sub(1).map(|at| self.log[at as usize].term) else { return Ok(()) };
        let has = self.node(at).wal.term(last);
        if has == Some(newest) {
            return Ok(());
        }
        broken(format!("leads, but has term {has:?} at {last}, where entry of term {newest} was applied"))
    }

    /// An entry that is applied for the first time is durable at most voters, by the voters of now or those before.
    pub(super) fn check_majority(&self, index: u64, term: u64) -> Result<(), Ended> {
        let has = |id: &&u64| {
            let Some(host) = self.hosts.iter().find(|host| host.id == **id) else { return false };
            match &host.node {
                Some(node) => {
                    let gone = node.wal.first_index() > index;
                    let durable = node.wal.durable().last_index >= index;
                    durable && (gone || node.wal.term(index) == Some(term))
                }
                None => host.durable >= index,
            }
        };
        let most = |voters: &[u64]| 2 * voters.iter().filter(has).count() > voters.len();
        let (now, before) = (self.model.voters(), &self.raft.voters_before);
        // The first entries are committed by promise.
        if index <= self.swarm.founders as u64 || most(&now) || most(before) {
            return Ok(());
        }
        broken(format!("entry {index} of term {term} is applied, and no majority has it"))
    }

    /// Holds the newest entries of a log against those of all logs that were seen.
    pub(super) fn inspect(&mut self, at: usize, entries_max: u64) -> Result<(), Ended> {
        let wal = self.node(at).wal.clone();
        let (first, last) = (wal.first_index(), wal.last_index());
        let from = first.max((last + 1).saturating_sub(entries_max));
        let mut before = wal.term(from - 1);
        let mut next = from;
        while next <= last {
            let read = Log::entries(&*wal, next, last + 1, usize::MAX).map_err(|e| e.to_string())?;
            for entry in read {
                let found = (before.unwrap_or_default(), digest(entry.term, &entry.data));
                // Of the entry before the first one the term may be forgotten.
                if before.is_some() {
                    let known = *self.raft.entries.entry((entry.index, entry.term)).or_insert(found);
                    if known != found {
                        let (index, term) = (entry.index, entry.term);
                        return broken(format!(
                            "entry {index} of term {term} is not the same on two members"
                        ));
                    }
                    self.stats.matched += 1;
                }
                before = Some(entry.term);
                next = entry.index + 1;
            }
        }
        Ok(())
    }
}
