// SPDX-License-Identifier: Apache-2.0
//! Logs of a minority that rot, and the operator who puts other members in the place of theirs.
//!
//! Owns      which bytes of a log change, what the log held before, and the way from a member that does not start to a new
//!           one that votes.
//! Holds     1. one member at a time, and none while a machine is lost or a store rots: the others have all that was
//!              acknowledged;
//!           2. what changes can be told from a crash: a batch rots only once a later one says on the disk that it was
//!              durable, or behind the end of the log;
//!           3. a member that starts over such a log has forgotten nothing: no entry, no term and no vote;
//!           4. one that does not start never comes back under its id: it is removed, and a new one is added, catches up
//!              and votes.
//! Never     repairs a log.

use super::{Ended, World, broken, members::Host, members::WAL_DIR, members::urls};
use crate::node::Node;
use cairn_core::{MemberId, replica::conf::Kind};
use cairn_engine::{
    Error,
    wal::{HardState, LogLook, SegmentLook},
};
use std::{
    ops::Range,
    path::{Path, PathBuf},
};

const BLOCK_BYTES: u64 = 4096;
/// Header and first batch: a segment that has a name has had both.
const HEAD_BLOCKS: u64 = 2;

/// What a log held before it rotted.
pub(super) struct Held {
    last: u64,
    hard_state: HardState,
}

/// Where a log is to rot.
struct Place {
    path: PathBuf,
    blocks: Range<u64>,
}

/// Whether a segment of the log is there in which bytes changed.
pub(super) fn has_rotten_log(host: &Host) -> bool {
    !host.gone && host.log_rot.iter().any(|path| host.vfs.contents(path).is_ok())
}

impl World {
    /// Bytes of one block of the log change while the member is down.
    pub(super) fn rot_log(&mut self, at: usize) {
        let voters = self.model.voters();
        let minority = voters.len() >= 3 && voters.contains(&self.hosts[at].id);
        if !minority
            || !self.is_settled()
            || !self.hosts.iter().all(Host::is_whole)
            || !self.removals.is_empty()
        {
            return;
        }
        self.crash(at);
        // What a kill of the process left in the cache is on the disk by now, or lost: damage comes to what is there.
        let vfs = self.hosts[at].vfs.after_some_power_loss(&mut self.rng);
        vfs.stop_recording();
        self.hosts[at].vfs = vfs;
        self.forget_size(at);
        let Ok(look) = LogLook::open(&self.hosts[at].vfs, Path::new(WAL_DIR), || Ok(None)) else { return };
        let Some(Place { path, blocks }) = self.place_of_rot(&look) else { return };
        let block = blocks.start + self.rng.below(blocks.end - blocks.start);
        for _ in 0..[1, 4, 16][self.rng.index(3)] {
            let (offset, bit) = (block * BLOCK_BYTES + self.rng.below(BLOCK_BYTES), self.rng.below(8));
            self.hosts[at].vfs.flip(&path, offset, 1 << bit);
        }
        self.note(format_args!("block {block} of {} of member {at} rots", path.display()));
        self.hosts[at].log_rot.push(path);
        self.hosts[at].log_held = Some(Held { last: look.last_index, hard_state: look.hard_state });
        self.stats.logs_rotted += 1;
    }

    /// The oldest segment, any sealed one, anything of the newest that may rot, or its newest batch that may.
    fn place_of_rot(&mut self, look: &LogLook) -> Option<Place> {
        let (newest, sealed) = look.segments.split_last().expect("a log has a segment");
        let what = self.rng.below(4);
        if what < 2 && !sealed.is_empty() {
            let segment = if what == 0 { &sealed[0] } else { &sealed[self.rng.index(sealed.len())] };
            self.stats.logs_rotted_sealed += 1;
            return Some(self.place_in(segment, segment.end));
        }
        let mut batches = Vec::new();
        let walk = look.batches::<Error>(|segment, batch| {
            if segment.seq == newest.seq {
                batches.push((batch.batch_no, batch.durable_no, batch.offset, batch.bytes));
            }
            Ok(())
        });
        walk.ok()?;
        let durable = batches.iter().map(|(_, durable, ..)| *durable).max()?;
        let proven = batches.iter().rfind(|(no, ..)| *no <= durable);
        let blocks_of =
            |offset: u64, bytes: u64| offset / BLOCK_BYTES..(offset + bytes).div_ceil(BLOCK_BYTES);
        let last = proven.map(|(_, _, offset, bytes)| blocks_of(*offset, *bytes));
        if let Some(last) = last.clone().filter(|_| what == 3) {
            self.stats.logs_rotted_last += 1;
            return Some(Place { path: newest.path.clone(), blocks: last });
        }
        let until = last.map_or(HEAD_BLOCKS, |last| last.end.max(HEAD_BLOCKS));
        self.stats.logs_rotted_newest += 1;
        Some(self.place_in(newest, until * BLOCK_BYTES))
    }

    /// In a segment up to `end`; now and then behind all that it has.
    fn place_in(&mut self, segment: &SegmentLook, end: u64) -> Place {
        let behind = segment.end.div_ceil(BLOCK_BYTES)..segment.file_bytes / BLOCK_BYTES;
        let blocks =
            if behind.is_empty() || !self.rng.one_in(8) { 0..end.div_ceil(BLOCK_BYTES) } else { behind };
        Place { path: segment.path.clone(), blocks }
    }

    /// A member started: over a log that rotted, only if it has all that it had.
    pub(super) fn check_held(&mut self, at: usize, node: &Node) -> Result<(), Ended> {
        let Some(Held { last, hard_state }) = self.hosts[at].log_held.take() else { return Ok(()) };
        let (_, now) = node.wal.state();
        let forgot = node.wal.last_index() < last
            || (now.term, now.vote) != (hard_state.term, hard_state.vote)
            || now.commit < hard_state.commit;
        if forgot {
            let ends = node.wal.last_index();
            return broken(format!(
                "it starts over a log that rotted, to {ends} with {now:?}, and had {last} with {hard_state:?}"
            ));
        }
        self.stats.logs_unharmed += 1;
        self.note(format_args!("what rotted in the log of member {at} was of no more use"));
        Ok(())
    }

    /// What the member promised may be lost: it never comes back.
    pub(super) fn give_up(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        host.log_rot.clear();
        (host.gone, host.lost, host.gave_up) = (true, true, true);
        self.stats.logs_lost += 1;
        self.note(format_args!("member {at} is to be added anew"));
    }

    /// An operator asks this member for the next step from a member that was given up to one in its place.
    pub(super) fn replace(&mut self, at: usize) -> Result<(), Ended> {
        let Some(host) = self.hosts.iter().find(|host| host.gave_up && !self.is_replaced(host)) else {
            return Ok(());
        };
        let learners = self.model.learners();
        let crowded = self.swarm.learners_max > 0 && learners.len() >= self.swarm.learners_max as usize;
        // A member that is down is removed before another one is added (SR-2).
        let lost = self.hosts.iter().find(|host| host.lost);
        let (kind, id, peer_urls) = match self.replacement(host) {
            _ if lost.is_some() => (Kind::Remove, lost.map_or(0, |host| host.id), Vec::new()),
            Some(id) => (Kind::Promote, id, Vec::new()),
            None if crowded => (Kind::Promote, learners[0], Vec::new()),
            None => {
                let urls = urls(self.hosts.len());
                let id = MemberId::at_bootstrap(&urls, &self.now_ms.to_string()).0;
                (Kind::AddLearner, id, urls)
            }
        };
        self.ask_for(at, kind, id, peer_urls)
    }

    /// Who was added in the place of this one, and not removed since.
    fn replacement(&self, host: &Host) -> Option<u64> {
        host.replaced_by.filter(|id| !self.model.is_removed(*id))
    }

    /// Whether another votes in the place of this one.
    pub(super) fn is_replaced(&self, host: &Host) -> bool {
        let voters = self.model.voters();
        !voters.contains(&host.id) && self.replacement(host).is_some_and(|id| voters.contains(&id))
    }

    /// A member was added: in the place of one that was given up, if there is one.
    pub(super) fn take_place(&mut self, id: u64) {
        let at = self.hosts.iter().position(|host| host.gave_up && self.replacement(host).is_none());
        if let Some(at) = at {
            self.hosts[at].replaced_by = Some(id);
        }
    }

    /// At the end nobody is missing.
    pub(super) fn count_replaced(&mut self) -> Result<(), Ended> {
        let given_up: Vec<bool> =
            self.hosts.iter().filter(|host| host.gave_up).map(|host| self.is_replaced(host)).collect();
        if given_up.contains(&false) {
            return broken("a member whose log was damaged is not replaced".to_owned());
        }
        self.stats.logs_replaced += given_up.len() as u64;
        Ok(())
    }
}
