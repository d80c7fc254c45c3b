// SPDX-License-Identifier: Apache-2.0
//! Stores of a minority that rot, and how their members get other ones.
//!
//! Owns      which byte changes, and the way from damage that was found to a store of a peer.
//! Holds     1. one member at a time, and none while a machine is lost: the others have all that was acknowledged;
//!           2. nobody repairs by hand: what is found sets the store aside, and a start without one asks a peer;
//!           3. what was found, or met by no read, is counted, so that a run knows how much it showed.
//! Never     decides whether a store of a peer fits: the core does.

use super::{Ended, World, broken, members::DIR, members::Host, members::WAL_DIR};
use crate::node::Sabotage;
use cairn_core::repair::{self, Fit, KnownLog};
use cairn_engine::{
    Error, InstallId,
    io::{Budget, Vfs as _},
    snapshot::Receiver,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

const PAGE_BYTES: u64 = 4096;

impl World {
    /// Bytes of pages that were written change while the member is down.
    pub(super) fn rot(&mut self, at: usize) {
        let voters = self.model.voters();
        let minority = voters.len() >= 3 && voters.contains(&self.hosts[at].id);
        let all_whole = self.hosts.iter().all(Host::is_whole);
        if !minority || !all_whole || !self.removals.is_empty() {
            return;
        }
        self.crash(at);
        let path = repair::store_file(Path::new(DIR));
        let bytes = self.hosts[at].vfs.contents(&path).expect("a member that ran has a store");
        let used: Vec<u64> = (0..bytes.len() as u64 / PAGE_BYTES)
            .filter(|page| {
                let page = &bytes[(page * PAGE_BYTES) as usize..][..PAGE_BYTES as usize];
                page.iter().any(|byte| *byte != 0)
            })
            .collect();
        for _ in 0..[1, 4, 16][self.rng.index(3)] {
            let page = used[self.rng.index(used.len())];
            let (offset, bit) = (page * PAGE_BYTES + self.rng.below(PAGE_BYTES), self.rng.below(8));
            self.hosts[at].vfs.flip(&path, offset, 1 << bit);
            self.note(format_args!("byte {offset} of the store of member {at} rots"));
        }
        self.hosts[at].rotten = true;
        self.forget_size(at);
        self.stats.rotted += 1;
    }

    /// A member looks whether all of its store is as it was written.
    pub(super) fn scrub(&mut self, at: usize) -> Result<(), Ended> {
        self.node(at).scrub()?;
        if std::mem::take(&mut self.hosts[at].rotten) {
            self.stats.rot_unmet += 1;
            self.note(format_args!("what rotted in the store of member {at} is not in use"));
        }
        Ok(())
    }

    /// Whether a member failed because it met what rotted.
    pub(super) fn finds_rot(&self, at: usize, at_start: bool, why: &str) -> bool {
        let named = format!("{} is damaged", repair::store_file(Path::new(DIR)).display());
        self.hosts[at].rotten && (at_start || why.contains(&named))
    }

    pub(super) fn set_aside(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        host.rotten = false;
        repair::set_aside(&host.vfs, Path::new(DIR)).expect("no fault is armed after a crash");
        self.forget_size(at);
        self.stats.rot_found += 1;
        self.note(format_args!("member {at} sets its store aside"));
    }

    /// Whether the member can start: one whose store is aside asks a peer for another one first.
    pub(super) fn has_store(&mut self, at: usize) -> Result<bool, Ended> {
        if !is_aside(&self.hosts[at]) {
            return Ok(true);
        }
        let runs = |from: &usize| *from != at && self.hosts[*from].node.is_some() && !self.is_paused(*from);
        let reached: Vec<usize> =
            (0..self.hosts.len()).filter(runs).filter(|from| !self.network.is_cut(*from, at)).collect();
        if reached.is_empty() {
            return Ok(false);
        }
        let from = reached[self.rng.index(reached.len())];
        let vfs = self.hosts[at].vfs.clone();
        let known = KnownLog::read(&vfs, Path::new(WAL_DIR))?;
        let Ok(mut receiver) = self.copy(from, at)? else { return Ok(false) };
        let received = receiver.verify(cairn_mvcc::SCHEMA, &mut |_| ())?;
        let (index, term) = (received.meta().applied_index, received.meta().applied_term);
        match known.fit(index, term, InstallId(self.rng.next_u64())) {
            Fit::Install(install) => {
                let cut = self.faults && self.rng.one_in(4);
                if cut {
                    self.arm(at);
                }
                received.install(&repair::store_file(Path::new(DIR)), install)?;
                self.stats.repaired += 1;
                self.note(format_args!("member {at} has the store of {from} as of {index}"));
                if self.sabotage == Some(Sabotage::RepairedWithoutItsLog) {
                    self.forget_log(at);
                }
                Ok(true)
            }
            Fit::TooOld { wanted } => {
                self.note(format_args!("the store of {from} ends at {index}, before {wanted}"));
                let (kept, hold) = (self.swarm.log_kept, self.held_by_transfers(from));
                // A failure of its disk is met by its next own step.
                drop(self.node(from).checkpoint(Budget::UNBOUNDED, false, kept, hold));
                Ok(false)
            }
            Fit::Foreign => broken(format!("the store of {from} is of another history")),
        }
    }

    /// The newest checkpoint of `from`, beside the place of a store of `at`; or why `from` has none to give.
    fn copy(&mut self, from: usize, at: usize) -> Result<Result<Receiver, Error>, Ended> {
        let options = self.swarm.options(Arc::new(self.hosts[at].vfs.clone()));
        let snapshot = match self.node(from).db.snapshot() {
            Ok(snapshot) => snapshot,
            Err(error) => return Ok(Err(error)),
        };
        let mut receiver = Receiver::new(&PathBuf::from(DIR).join("incoming.tmp"), options)?;
        let mut stream = snapshot.resume(receiver.position());
        loop {
            match stream.next() {
                Ok(Some(bytes)) => receiver.push(bytes)?,
                Ok(None) => return Ok(Ok(receiver)),
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    /// The mistake of an operator: another store, and nothing of what was promised.
    fn forget_log(&mut self, at: usize) {
        let vfs = &self.hosts[at].vfs;
        let names = vfs.list(Path::new(WAL_DIR)).expect("it is there");
        names.iter().chain([&repair::store_file(Path::new(DIR))]).for_each(|name| {
            vfs.remove(name).expect("no fault is armed");
        });
        self.hosts[at].join_again(self.cluster_id);
    }
}

/// Whether the store was set aside, and no other has taken its place.
pub(super) fn is_aside(host: &Host) -> bool {
    repair::is_aside(&host.vfs, Path::new(DIR)).expect("names are in memory")
}
