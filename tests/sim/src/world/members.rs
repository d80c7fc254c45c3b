// SPDX-License-Identifier: Apache-2.0
//! The members of a run: their starts and crashes, their disks, and the turns of their threads.
//!
//! Owns      what outlives a crash of a member.
//! Holds     a crash takes what a power loss may take; what is lost with it is counted as of unknown fate.
//! Never     looks at what a member says: that is held against the record.

use super::{Ended, World, broken, clients::Want, logs, rot};
use crate::{
    net::Flight,
    node::{Node, Turn},
    swarm::{Action, Founders, Moment},
};
use cairn_core::{
    ClusterId, MemberId,
    boot::{BootConfig, BootError, Start},
    replica::Input,
};
use cairn_engine::{
    io::{Budget, Vfs},
    sim::{Fault, SimVfs},
};
use cairn_mvcc::PurgeProgress;
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

pub(super) const DIR: &str = "/data/member";
pub(super) const WAL_DIR: &str = "/data/member/wal";
const TOKEN: &str = "sim";
const TICK_MS: u64 = 100;
/// A member that was removed goes on for as long, so that its peers hear what it knows (CL-4).
const FAREWELL_MS: u64 = 1_000;

/// The machine of one member.
pub(super) struct Host {
    pub vfs: SimVfs,
    pub id: u64,
    /// A fault happened in this life of the member, though another may be armed by now.
    pub faulty: bool,
    pub boots: u64,
    pub node: Option<Node>,
    /// It never comes back: it was removed, or its machine is lost.
    pub gone: bool,
    /// Its machine is lost, and it is still one of the members.
    pub lost: bool,
    /// A byte of its store changed, and nobody has noticed yet.
    pub rotten: bool,
    /// Segments of its log in which bytes changed, and what the log held before, until it starts again.
    pub log_rot: Vec<PathBuf>,
    pub log_held: Option<logs::Held>,
    /// Its log lost what it promised, so another one takes its place; which, once that was added.
    pub gave_up: bool,
    pub replaced_by: Option<u64>,
    /// It was removed and ends then.
    pub ends_ms: Option<u64>,
    pub paused_until_ms: u64,
    /// What its clock shows when a hundred milliseconds have passed.
    pub rate: u64,
    /// How far its log was durable when it went down.
    pub durable: u64,
    /// The store's size, and that of its newest slot.
    size: u64,
    size_saved: u64,
    next_tick_ms: u64,
    peer_urls: Vec<String>,
    start: Start,
}

/// Where the member at this place listens to its peers.
pub(super) fn urls(at: usize) -> Vec<String> {
    vec![format!("http://member{at}:2380")]
}

impl Host {
    fn new(id: MemberId, peer_urls: Vec<String>, start: Start) -> Host {
        Host {
            vfs: SimVfs::new(),
            id: id.0,
            faulty: false,
            boots: 0,
            node: None,
            gone: false,
            lost: false,
            rotten: false,
            log_rot: Vec::new(),
            log_held: None,
            gave_up: false,
            replaced_by: None,
            ends_ms: None,
            paused_until_ms: 0,
            rate: 100,
            durable: 0,
            size: 0,
            size_saved: 0,
            next_tick_ms: 0,
            peer_urls,
            start,
        }
    }

    /// One of those with whom the cluster begins.
    pub fn founder(at: usize, founders: usize) -> Host {
        let others = (0..founders).filter(|other| *other != at).map(urls).collect();
        Host::new(MemberId::at_bootstrap(&urls(at), TOKEN), urls(at), Start::New { others })
    }

    /// Neither store nor log are damaged, and the machine is there.
    pub fn is_whole(&self) -> bool {
        !self.rotten && !self.lost && !rot::is_aside(self) && !logs::has_rotten_log(self)
    }

    /// From now on it starts as one that was added and has nothing.
    pub fn join_again(&mut self, cluster_id: ClusterId) {
        self.start = Start::Join { member_id: MemberId(self.id), cluster_id };
    }

    /// One that was added to a cluster that runs.
    pub fn joining(id: u64, peer_urls: Vec<String>, cluster_id: ClusterId) -> Host {
        let member_id = MemberId(id);
        Host::new(member_id, peer_urls, Start::Join { member_id, cluster_id })
    }
}

impl World {
    pub(super) fn boot(&mut self, at: usize) -> Result<(), Ended> {
        if !self.has_store(at)? {
            return Ok(());
        }
        let host = &mut self.hosts[at];
        host.boots += 1;
        let vfs: Arc<dyn Vfs> = Arc::new(host.vfs.clone());
        let config = BootConfig {
            dir: PathBuf::from(DIR),
            wal_dir: PathBuf::from(WAL_DIR),
            peer_urls: host.peer_urls.clone(),
            cluster_token: TOKEN.to_owned(),
            start: host.start.clone(),
            force_new_cluster: false,
            heartbeat_ms: TICK_MS,
            election_ms: 10 * TICK_MS,
            pre_vote: true,
            lease_checkpoints: true,
            seed: self.rng.next_u64(),
            options: self.swarm.options(vfs.clone()),
            wal_options: self.swarm.wal_options(vfs),
        };
        // The member's own requests are numbered by member and boot.
        let own = ((at as u64) << 16) + host.boots;
        let booted = Node::boot(config, self.swarm.hub.clone(), own, self.sabotage);
        let node = booted.map_err(|e| {
            let why = format!("start: {e}");
            match e {
                BootError::LogDamaged(_) => Ended::LogDamaged(why),
                e if e.is_of_store() => Ended::Damaged(why),
                _ => Ended::Failed(why),
            }
        })?;
        self.check_held(at, &node)?;
        let (last, known) = (node.wal.last_index(), self.log.len() as u64);
        if self.founders == Founders::Of(1) && last < known {
            return broken(format!("the log ends at {last}, but {known} entries were applied"));
        }
        let (size, saved) = (node.db.size(), self.hosts[at].size_saved);
        // Damage may have made it begin with an older checkpoint.
        if size < saved && !self.hosts[at].rotten {
            return broken(format!("the size is {size} after a start, and was {saved}"));
        }
        self.hosts[at].size = size;
        self.note(format_args!("member {at} started: applied {:?}, log to {last}", node.state.applied()));
        let (id, removed) = (node.id, node.state.cluster().members.is_removed(node.id));
        self.hosts[at].node = Some(node);
        if id != self.hosts[at].id {
            return broken(format!("it started as {id:x}, and is {:x}", self.hosts[at].id));
        }
        if removed {
            self.note(format_args!("member {at} was removed, and waits to be told"));
        }
        self.check_users(at)
    }

    /// The process ends; what its clients wait for is of unknown fate.
    pub(super) fn stop(&mut self, at: usize) {
        if let Some(node) = self.hosts[at].node.take() {
            self.hosts[at].durable = node.wal.durable().last_index;
        }
        self.close_streams(at);
        self.unread.retain(|unread| unread.at != at);
        let before = self.ops.len();
        self.ops.retain(|_, op| op.at != at);
        self.stats.unknown += (before - self.ops.len()) as u64;
        self.network.forget(at);
    }

    pub(super) fn crash(&mut self, at: usize) {
        self.stats.crashes += 1;
        self.stop(at);
        self.drop_transfers(at);
        // Deadlines are kept by the leader's clock, which starts anew: a lease may live longer, never less.
        let how = self.rng.below(3);
        let host = &mut self.hosts[at];
        // What only the cache had may be gone: the newest slot, too.
        if how != 0 || host.faulty || host.vfs.fault_fired() {
            host.size_saved = 0;
        }
        host.vfs = match how {
            0 => host.vfs.restarted(),
            1 => host.vfs.after_power_loss(),
            _ => host.vfs.after_some_power_loss(&mut self.rng),
        };
        host.vfs.stop_recording();
        host.faulty = false;
        // What it held is what a start began to write on, too.
        host.log_held = None;
        self.note(format_args!("crash of member {at} of kind {how}"));
    }

    /// The process is stopped and goes on later, as if nothing had been.
    pub(super) fn pause(&mut self, at: usize) {
        let for_ms = [200, 1_500, 6_000][self.rng.index(3)];
        self.hosts[at].paused_until_ms = self.now_ms + for_ms;
        self.stats.pauses += 1;
        self.note(format_args!("member {at} is paused for {for_ms} ms"));
    }

    /// Crashes if this is the moment that was waited for.
    fn crash_at(&mut self, at: usize, moment: Moment) -> bool {
        let now = self.moment == Some(moment);
        if now {
            self.moment = None;
            self.stats.crashes_at[moment as usize] += 1;
            self.note(format_args!("{moment:?}"));
            self.crash(at);
        }
        now
    }

    /// Only a defragmentation lowers the size (QU-5), and another store.
    fn check_size(&mut self, at: usize) -> Result<(), Ended> {
        let size = self.node(at).db.size();
        let before = std::mem::replace(&mut self.hosts[at].size, size);
        if size < before { broken(format!("the size fell from {before} to {size}")) } else { Ok(()) }
    }

    /// The store is another one: nothing is known of its size.
    pub(super) fn forget_size(&mut self, at: usize) {
        self.hosts[at].size_saved = 0;
    }

    pub(super) fn arm(&mut self, at: usize) {
        let fault = Fault::ALL[self.rng.index(Fault::ALL.len())];
        let nth = 1 + self.rng.below(40);
        let host = &mut self.hosts[at];
        host.faulty |= host.vfs.fault_fired();
        host.vfs.arm(fault, nth);
        self.note(format_args!("member {at}: {fault:?} at call {nth}"));
    }

    /// A voter is asked to lead, or the log is said to hang.
    pub(super) fn disturb(&mut self, at: usize, action: Action) {
        let to = self.hosts[self.rng.index(self.hosts.len())].node.as_ref().map(|node| node.id);
        let input = match (action, to) {
            (Action::Lead, Some(to)) => Input::Transfer { to },
            (Action::Hang, _) => Input::LogHangs,
            _ => return,
        };
        self.note(format_args!("member {at} is told: {action:?}"));
        self.node(at).tell(input);
    }

    // ---- the threads ----

    pub(super) fn replica(&mut self, at: usize) -> Result<(), Ended> {
        let now_ms = self.clock(at);
        if self.hosts[at].ends_ms.is_some_and(|due| now_ms >= due) {
            self.end_removed(at);
            return Ok(());
        }
        let host = &mut self.hosts[at];
        let tick = now_ms >= host.next_tick_ms;
        if tick {
            host.next_tick_ms = now_ms + TICK_MS;
            if self.is_told_of_its_removal(at) {
                self.end_removed(at);
                return Ok(());
            }
        }
        let end = |node: &Node| (node.wal.last_index(), node.wal.term(node.wal.last_index()));
        let (last, term) = end(self.node(at));
        let turned = self.node(at).replica_turn(now_ms, tick);
        self.send(at);
        turned?;
        self.stats.truncations += u64::from(self.node(at).wal.term(last) != term);
        if self.node(at).removed {
            self.hosts[at].ends_ms.get_or_insert(now_ms + FAREWELL_MS);
        }
        self.see_leader(at)?;
        for (op, refusal) in std::mem::take(&mut self.node(at).refused) {
            self.note(format_args!("op {op} refused: {refusal}"));
            self.ops.remove(&op);
            self.stats.refused += 1;
        }
        for (op, _) in std::mem::take(&mut self.node(at).refused_reads) {
            self.ops.remove(&op);
        }
        for peer in std::mem::take(&mut self.node(at).behind) {
            self.begin_transfer(at, peer)?;
        }
        Ok(())
    }

    fn send(&mut self, from: usize) {
        for message in std::mem::take(&mut self.node(from).outbox) {
            let Some(to) = self.place_of(message.to) else { continue };
            if !self.network.send(&mut self.rng, Flight { from, to, message }) {
                let peer = self.hosts[to].node.as_ref().map_or(0, |node| node.id);
                self.node(from).tell(Input::Unreachable { peer });
            }
        }
    }

    /// Where the member with this id runs; `None` while it does not.
    pub(super) fn place_of(&self, id: u64) -> Option<usize> {
        self.hosts.iter().position(|host| host.node.as_ref().is_some_and(|node| node.id == id))
    }

    /// Some messages arrive. Those of a member that was removed are not taken (CL-5).
    pub(super) fn deliver(&mut self) {
        for _ in 0..[1, 1, 4, 16][self.rng.index(4)] {
            let Some(Flight { to, message, .. }) = self.network.next(&mut self.rng) else { return };
            let takes = |node: &&mut Node| !node.state.cluster().members.is_removed(message.from);
            if let Some(node) = self.hosts[to].node.as_mut().filter(takes) {
                node.tell(Input::Received(Box::new(message)));
                self.stats.delivered += 1;
            }
        }
    }

    pub(super) fn sync(&mut self, at: usize) -> Result<(), Ended> {
        let room = self.node(at).sync()?;
        if !room {
            self.note(format_args!("member {at}: no room for the log"));
        }
        let node = self.node(at);
        if node.wal.durable().last_index > node.state.applied().0 {
            self.crash_at(at, Moment::DurableNotApplied);
        }
        Ok(())
    }

    pub(super) fn state_turn(&mut self, at: usize) -> Result<(), Ended> {
        let max = [1, 3, 1000][self.rng.index(3)];
        let now_ms = self.clock(at);
        let (led, applied) = (self.node(at).leads, self.node(at).state.applied().0);
        let turn = self.node(at).state_turn(now_ms, max)?;
        let Turn { entries, outcome, reads, ops } = turn;
        let index_of: BTreeMap<_, _> = ops.into_iter().map(|(index, op)| (op, index)).collect();
        let mut revisions = Vec::new();
        for committed in entries {
            revisions.extend(self.take_entry(committed.entry)?);
        }
        self.see_lead(at, led, applied);
        self.check_events(&outcome.events, &revisions)?;
        self.node(at).db.raise_size();
        self.check_size(at)?;
        if !outcome.answers.is_empty() && self.crash_at(at, Moment::AppliedNotAnswered) {
            return Ok(());
        }
        for (op, result) in outcome.answers {
            if op != 0 {
                self.take_answer(at, op, index_of[&op], result)?;
            }
        }
        for op in reads {
            let Some(op) = self.ops.remove(&op) else { continue };
            match op.want {
                Want::Write => {}
                Want::Range(range) => self.read_now(at, &range, op.after_revision)?,
                Want::KeepAlive(id) => self.renew(at, id, op.began_ms)?,
            }
        }
        Ok(())
    }

    pub(super) fn checkpoint(&mut self, at: usize) -> Result<(), Ended> {
        let bytes = [1, 4 << 10, u64::MAX][self.rng.index(3)];
        let confirm = self.rng.one_in(3);
        let (kept, hold) = (self.swarm.log_kept, self.held_by_transfers(at));
        let done = self.node(at).checkpoint(Budget::bytes(bytes), confirm, kept, hold)?;
        self.stats.checkpoints += u64::from(done);
        self.note(format_args!("member {at}: checkpoint step of {bytes} bytes: done {done}"));
        self.check_size(at)?;
        if done {
            self.hosts[at].size_saved = self.hosts[at].size;
        } else if self.node(at).is_in_checkpoint() {
            self.crash_at(at, Moment::InCheckpoint);
        }
        Ok(())
    }

    pub(super) fn purge(&mut self, at: usize) -> Result<(), Ended> {
        let entries = [1, 10, 1000][self.rng.index(3)];
        let progress = self.node(at).purge(entries, false)?;
        self.stats.purges += u64::from(matches!(progress, PurgeProgress::Done(_)));
        self.note(format_args!("member {at}: purge: {progress:?}"));
        if matches!(progress, PurgeProgress::More | PurgeProgress::AwaitsCheckpoint) {
            self.crash_at(at, Moment::InCompaction);
        }
        Ok(())
    }

    pub(super) fn defragment(&mut self, at: usize) -> Result<(), Ended> {
        let (kept, hold) = (self.swarm.log_kept, self.held_by_transfers(at));
        self.node(at).defragment(kept, hold)?;
        let size = self.node(at).db.size();
        self.hosts[at].size = size;
        // Which slot is the newest, and with which of the two sizes, is the checkpoints' matter.
        self.hosts[at].size_saved = 0;
        self.stats.defragmentations += 1;
        self.note(format_args!("member {at} defragmented: {size} bytes"));
        Ok(())
    }
}
