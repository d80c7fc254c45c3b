// SPDX-License-Identifier: Apache-2.0
//! The replica: Raft and the log, as a machine that is told what happened and says what is to be done.
//!
//! Owns      raft-rs's node, the proposals that are not committed yet, the reads that wait for an index.
//! Holds     1. an entry is handed out as committed only after it is durable here (I1 of the engine);
//!           2. a message leaves before our own sync only if the term that it carries is durable here;
//!           3. raft-rs sees no message of a peer that could end the process;
//!           4. nobody campaigns while its own log is being written;
//!           5. nobody is told that a change of the membership is committed before that is recorded here.
//! Never     applies, reads a clock, draws from a random source that is not seeded, or waits for a disk.

pub mod conf;
mod gathered;
mod io;
pub mod log;
mod membership;
pub mod peer;
mod peers;
mod proposals;
mod proposing;
mod reads;
mod turns;

use crate::mutants::planted;
use bytes::Bytes;
use cairn_proto::errors;
use conf::ConfChange;
use gathered::Gathered;
pub use io::{Committed, Effects, Input, Leadership, Proposal, Stopped};
use log::{EntryKind, Log, LogEntry, LogStorage, Promise, from_raft};
use peer::{PeerEntry, PeerMessage, gather};
use proposals::Proposals;
use raft::{
    Config, RawNode, StateRole,
    eraftpb::{self, Message},
};
use reads::Reads;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// Appends in flight to one follower (RT-1).
const MESSAGES_IN_FLIGHT: usize = 512;
/// Bytes of entries in each of them, one entry at least: so one that is far behind is read and sent 16 MiB ahead, and
/// not what the log has. What a turn appends leaves together all the same (see `peer::gather`).
const BYTES_PER_APPEND: usize = 32 << 10;
/// Bytes of committed entries handed out at once.
const COMMITTED_BYTES_MAX: u64 = 4 << 20;

/// What a replica starts from.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    pub id: u64,
    pub election_ticks: usize,
    pub heartbeat_ticks: usize,
    pub pre_vote: bool,
    /// Voters that lose a leader ask for votes one after the other, in the order of their ids; else as drawn.
    pub staggered: bool,
    /// What election timeouts are drawn from.
    pub seed: u64,
    /// Tells the read contexts of this boot from those of an earlier one.
    pub boot_nonce: u64,
    /// How long a proposal or a read waits for a leader's answer (RT-5).
    pub patience_ms: u64,
    /// What the state has applied, and the voters and learners as of then.
    pub applied: u64,
    pub voters: Vec<u64>,
    pub learners: Vec<u64>,
    /// The newest recorded term, vote and commit.
    pub promise: Promise,
}

/// Why a replica cannot start. Raft would panic, or worse.
#[derive(Debug, thiserror::Error)]
pub enum StartRefused {
    #[error("the log ends at entry {last}, but entry {known} is known to be committed: entries were lost")]
    EntriesLost { last: u64, known: u64 },
    #[error("the log begins at entry {first}, but only {applied} entries are applied")]
    Gap { first: u64, applied: u64 },
    #[error("raft: {0}")]
    Raft(String),
}

/// A Ready whose records are not durable yet.
struct InSync {
    ready: u64,
    batch: u64,
    term: u64,
    commit: u64,
    /// Sent once it is durable.
    held: Vec<PeerMessage>,
}

/// See the module.
pub struct Replica<W, R> {
    node: RawNode<LogStorage>,
    log: Arc<dyn Log>,
    seed: u64,
    draws: u64,
    /// Term, role and leader for which the timeout was drawn.
    drawn_for: Option<(u64, StateRole, u64)>,
    staggered: bool,
    election_ticks: usize,
    timeout: usize,
    patience_ms: u64,
    proposals: Proposals<W>,
    gathered: Gathered<W>,
    in_sync: VecDeque<InSync>,
    durable_term: u64,
    /// The commit that is recorded, and that of the newest record that is durable.
    recorded_commit: u64,
    durable_commit: u64,
    /// What leaders said to be committed, since the start.
    told_commit: u64,
    /// The entry that removed this member, once it is applied.
    leaving: Option<u64>,
    /// The newest change of the membership that this member knows to be committed.
    change_committed: u64,
    reads: Reads<R>,
    leadership: Leadership,
    /// The end of the log when this member became the only one, if that was in this run: members that are gone may
    /// have answered what they had of it.
    alone_after: u64,
    was_alone: bool,
    /// The leader that was known last, and its term.
    led_by: Option<(u64, u64)>,
    /// What was sent to the leader did not get there, and nothing was heard of it since.
    leader_unreachable: bool,
    applied: u64,
    /// A sole voter campaigns as soon as this is applied.
    campaign_at: Option<u64>,
    /// The leader may not know how far our log goes, as after a snapshot: it is told with each heartbeat until
    /// it sends entries.
    announcing: bool,
    /// Peers to which a snapshot is on its way; those that have it, with the ticks in which they have to say so.
    sending: BTreeMap<u64, Option<usize>>,
    /// A snapshot is being installed: this replica is at its end.
    installing: bool,
}

impl<W, R> Replica<W, R> {
    /// Starts Raft over a log that was just opened.
    ///
    /// # Errors
    /// If the log and the state do not fit together.
    pub fn new(config: ReplicaConfig, log: Arc<dyn Log>) -> Result<Replica<W, R>, StartRefused> {
        let mut promise = config.promise;
        if !planted("commit-behind-applied-at-open") {
            promise.commit = promise.commit.max(config.applied);
        }
        let (first, last) = (log.first_index(), log.last_index());
        if promise.commit > last {
            return Err(StartRefused::EntriesLost { last, known: promise.commit });
        }
        if first > config.applied + 1 {
            return Err(StartRefused::Gap { first, applied: config.applied });
        }
        let storage = LogStorage::new(log.clone(), promise, config.voters, config.learners);
        let raft_config = Config {
            id: config.id,
            election_tick: config.election_ticks,
            heartbeat_tick: config.heartbeat_ticks,
            applied: config.applied,
            max_size_per_msg: BYTES_PER_APPEND as u64,
            max_inflight_msgs: MESSAGES_IN_FLIGHT,
            check_quorum: true,
            pre_vote: config.pre_vote,
            max_committed_size_per_ready: COMMITTED_BYTES_MAX,
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node =
            RawNode::new(&raft_config, storage, &logger).map_err(|e| StartRefused::Raft(e.to_string()))?;
        let mut replica = Replica {
            node,
            log,
            seed: config.seed,
            draws: 0,
            drawn_for: None,
            staggered: config.staggered,
            election_ticks: config.election_ticks,
            timeout: config.election_ticks,
            patience_ms: config.patience_ms,
            proposals: Proposals::default(),
            gathered: Gathered::default(),
            in_sync: VecDeque::new(),
            durable_term: promise.term,
            recorded_commit: promise.commit,
            durable_commit: promise.commit,
            told_commit: 0,
            leaving: None,
            change_committed: 0,
            reads: Reads::new(config.boot_nonce),
            leadership: Leadership { term: promise.term, ..Leadership::default() },
            alone_after: 0,
            was_alone: true,
            led_by: None,
            leader_unreachable: false,
            applied: config.applied,
            campaign_at: Some(promise.commit),
            announcing: true,
            sending: BTreeMap::new(),
            installing: false,
        };
        replica.keep_timeout();
        Ok(replica)
    }

    pub fn leadership(&self) -> Leadership {
        self.leadership
    }

    /// The highest committed entry that this member knows of.
    pub fn committed(&self) -> u64 {
        self.node.raft.raft_log.committed
    }

    /// Up to here a restart knows again what is committed.
    pub fn durable_commit(&self) -> u64 {
        self.durable_commit
    }

    /// The last entry that the state is known to have applied: entries after it are still read from the log.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Proposals that are neither committed nor refused.
    pub fn proposals(&self) -> usize {
        self.proposals.len() + self.gathered.own.len()
    }

    /// When [`Replica::settle`] is to be called at the latest, if nothing comes before; `None` if nothing is due.
    pub fn due_ms(&self) -> Option<u64> {
        self.gathered.due_ms().filter(|_| self.leads() && !self.hands_over())
    }

    /// Voters and learners with the last entry that each is known to have, on the leader.
    pub fn progress(&self) -> impl Iterator<Item = (u64, u64)> {
        let leads = self.node.raft.state == StateRole::Leader;
        self.node.raft.prs().iter().filter(move |_| leads).map(|(id, progress)| (*id, progress.matched))
    }

    /// Gives up what waits: the member stops.
    pub fn drain(&mut self, effects: &mut Effects<W, R>) {
        let waiting = self.proposals.drain().into_iter();
        effects.refused.extend(waiting.map(|carried| (carried, errors::STOPPED)));
        let gathered = std::mem::take(&mut self.gathered).own.into_iter();
        effects.refused.extend(gathered.map(|proposal| (proposal.carried, errors::STOPPED)));
        let reads = self.reads.drain().into_iter();
        effects.refused_reads.extend(reads.map(|read| (read, errors::STOPPED)));
    }

    /// Advances by one input; the caller performs the effects.
    pub fn step(&mut self, now_ms: u64, input: Input<W, R>, effects: &mut Effects<W, R>) {
        self.take_in(now_ms, input, effects);
        self.settle(now_ms, effects);
    }

    /// Takes in one of several inputs that came together. What follows from all of them is known after
    /// [`Replica::settle`]: one append to the log, and one message to each peer, for as many as there were.
    pub fn take_in(&mut self, now_ms: u64, input: Input<W, R>, effects: &mut Effects<W, R>) {
        if self.installing {
            return;
        }
        match input {
            Input::Tick => self.on_tick(now_ms, effects),
            Input::Propose(proposals) => self.on_propose(now_ms, proposals, effects),
            Input::Read(reads) if planted("read-answered-by-a-new-leader") && self.leads() => {
                effects.reads.push((self.committed(), reads));
            }
            Input::Read(reads) => self.on_read(now_ms, reads),
            Input::Durable { batch } => self.on_durable(batch, effects),
            Input::Applied { index } => self.on_applied(index),
            Input::ConfApplied { index, change } => self.on_conf_applied(index, change),
            Input::Received(message) => self.on_message(now_ms, *message, effects),
            Input::Unreachable { peer } => {
                self.leader_unreachable |= peer == self.node.raft.leader_id;
                self.node.report_unreachable(peer);
            }
            Input::SnapshotEnded { peer, installed } => self.on_snapshot_ended(peer, installed),
            Input::SnapshotReceived { index, term } => self.on_snapshot(index, term, effects),
            Input::Transfer { to } => self.on_transfer(to),
            Input::FastForward { ticks } => self.on_fast_forward(ticks),
            Input::LogHangs => self.on_log_hangs(effects),
        }
        self.keep_timeout();
        self.note_change();
        self.note_leadership(now_ms, effects);
    }

    /// Ends a turn of inputs; the caller performs the effects.
    pub fn settle(&mut self, now_ms: u64, effects: &mut Effects<W, R>) {
        if self.installing {
            return;
        }
        loop {
            self.campaign_if_alone();
            self.leave(effects);
            self.propose_waiting(now_ms, effects);
            self.propose_change(effects);
            self.propose_gathered(now_ms, effects);
            self.handle_readies(effects);
            self.note_behind(effects);
            if !self.note_leadership(now_ms, effects) || effects.failed.is_some() {
                break;
            }
        }
        gather(&mut effects.messages);
    }

    /// Whether everything that Raft has is durable here.
    fn is_persisted(&self) -> bool {
        self.node.raft.raft_log.persisted >= self.node.raft.raft_log.last_index()
    }

    fn leads(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    fn on_tick(&mut self, now_ms: u64, effects: &mut Effects<W, R>) {
        // Before Raft's own tick, with which it may lose the lead and still has its own.
        if !self.leads() {
            self.gathered.expire(now_ms, self.patience_ms);
        }
        // raft-rs asserts that who becomes leader has persisted its log; so nobody's time to campaign runs
        // while its own log is being written.
        if self.leads() || self.is_persisted() || planted("campaign-during-a-write-of-the-log") {
            self.node.tick();
        }
        let mut late = Vec::new();
        effects.slow_reads += self.reads.tick(now_ms, self.patience_ms, &mut late);
        effects.refused_reads.extend(late.into_iter().map(|read| (read, errors::TIMEOUT)));
        self.proposals.expire(now_ms, self.patience_ms, &mut effects.refused);
        let (first, progress) = (self.log.first_index(), self.node.raft.prs());
        self.sending.retain(|peer, ticks| {
            let caught_up = progress.get(*peer).is_none_or(|progress| progress.matched + 1 >= first);
            match ticks {
                None => true,
                Some(_) if caught_up => false,
                Some(ticks) => {
                    *ticks -= 1;
                    *ticks > 0
                }
            }
        });
        self.ask(now_ms);
    }

    /// Nothing else that is counted in ticks is there before a leader is.
    fn on_fast_forward(&mut self, ticks: usize) {
        if self.node.raft.leader_id == 0 && self.is_persisted() {
            for _ in 0..ticks {
                self.node.tick();
            }
        }
    }

    /// One round serves all reads that wait at this moment.
    fn on_read(&mut self, now_ms: u64, reads: Vec<R>) {
        self.reads.push(now_ms, reads);
        self.ask(now_ms);
    }

    fn ask(&mut self, now_ms: u64) {
        if let Some(context) = self.reads.begin(now_ms) {
            self.node.read_index(context);
        }
    }

    fn on_durable(&mut self, batch: u64, effects: &mut Effects<W, R>) {
        let mut ready = None;
        while let Some(front) = self.in_sync.front() {
            if front.batch > batch {
                break;
            }
            let done = self.in_sync.pop_front().expect("it is the front");
            self.durable_term = self.durable_term.max(done.term);
            self.durable_commit = self.durable_commit.max(done.commit);
            effects.messages.extend(done.held);
            ready = ready.max(Some(done.ready));
        }
        if let Some(ready) = ready {
            self.node.on_persist_ready(ready);
        }
    }

    fn on_applied(&mut self, index: u64) {
        if index > self.applied {
            self.applied = index;
            self.node.advance_apply_to(index);
        }
    }

    fn campaign_if_alone(&mut self) {
        if self.campaign_at.is_none_or(|at| at > self.applied) {
            return;
        }
        if !self.alone() {
            self.campaign_at = None;
        } else if self.node.raft.promotable() && self.is_persisted() {
            self.campaign_at = None;
            self.node.campaign().expect("Raft takes its own message");
        }
    }

    fn alone(&self) -> bool {
        let voters = self.node.raft.prs().conf().voters().ids();
        let mut voters = voters.iter();
        voters.next() == Some(self.node.raft.id) && voters.next().is_none()
    }

    fn handle_readies(&mut self, effects: &mut Effects<W, R>) {
        while self.node.has_ready() {
            let mut ready = self.node.ready();
            if let Some(error) = self.node.raft.store().take_failure() {
                effects.failed = Some(error.into());
                return;
            }
            for state in ready.take_read_states() {
                if let Some(reads) = self.reads.answered(&state.request_ctx) {
                    effects.reads.push((state.index, reads));
                }
            }
            let committed = ready.take_committed_entries();
            self.hand_out(committed, effects);
            if !self.persist(ready, effects) {
                return;
            }
        }
        if self.owes_commit(self.recorded_commit) {
            self.record(&[], 0, Vec::new(), effects);
        }
    }

    /// Appends entries with what is promised by now. False if the log takes no more.
    fn record(
        &mut self,
        entries: &[LogEntry],
        ready: u64,
        held: Vec<PeerMessage>,
        effects: &mut Effects<W, R>,
    ) -> bool {
        let hs = self.node.raft.hard_state();
        let vote = if planted("vote-forgotten") { 0 } else { hs.vote };
        let promise = Promise { term: hs.term, vote, commit: hs.commit };
        let batch = match self.log.append(entries, Some(promise)) {
            Ok(batch) => batch,
            Err(error) => {
                effects.failed = Some(error.into());
                return false;
            }
        };
        self.recorded_commit = hs.commit;
        self.in_sync.push_back(InSync { ready, batch, term: hs.term, commit: hs.commit, held });
        effects.sync = true;
        true
    }

    /// Appends what a Ready wants recorded; its messages go now or when it is durable.
    /// False if the log takes no more.
    fn persist(&mut self, mut ready: raft::Ready, effects: &mut Effects<W, R>) -> bool {
        let entries: Vec<LogEntry> = ready.take_entries().into_iter().map(from_raft).collect();
        let of_peers = |messages: Vec<Message>| messages.into_iter().map(PeerMessage::from_raft);
        let mut at_once: Vec<_> = of_peers(ready.take_messages()).collect();
        let mut held: Vec<_> = of_peers(ready.take_persisted_messages()).collect();
        let term = self.node.raft.term;
        self.note_change();
        let early = planted("messages-before-their-term-is-durable");
        if (term > self.durable_term && !early) || self.owes_commit(self.durable_commit) {
            held.append(&mut at_once);
        }
        if planted("acknowledged-before-the-sync") {
            at_once.append(&mut held);
        }
        if let Some(before) = self.in_sync.back_mut() {
            if planted("messages-sent-with-the-write-before-theirs") {
                before.held.append(&mut held);
            }
            let candidate = matches!(self.node.raft.state, StateRole::PreCandidate | StateRole::Candidate);
            if candidate && planted("campaign-during-a-write-of-the-log") {
                at_once.append(&mut held);
            }
        }
        effects.messages.append(&mut at_once);
        let number = ready.number();
        if ready.must_sync() || self.owes_commit(self.recorded_commit) {
            // A moved commit alone is no reason to write: it rides along here, as a proof for recovery.
            if !self.record(&entries, number, held, effects) {
                return false;
            }
        } else if let Some(last) = self.in_sync.back_mut() {
            last.ready = number;
            last.held.append(&mut held);
        } else {
            effects.messages.append(&mut held);
        }
        self.node.advance_append_async(ready);
        if self.in_sync.is_empty() {
            self.node.on_persist_ready(number);
        }
        true
    }

    fn hand_out(&mut self, committed: Vec<eraftpb::Entry>, effects: &mut Effects<W, R>) {
        effects.committed.reserve(committed.len());
        for entry in committed {
            let entry = from_raft(entry);
            let carried = self.proposals.committed(&entry, &mut effects.refused);
            effects.committed.push(Committed { entry, carried });
        }
    }

    /// True if something was proposed, which is to be handled.
    fn note_leadership(&mut self, now_ms: u64, effects: &mut Effects<W, R>) -> bool {
        let alone = self.alone() && self.node.raft.prs().conf().learners().is_empty();
        let raft = &self.node.raft;
        if alone && !self.was_alone {
            self.alone_after = raft.raft_log.last_index();
        }
        self.was_alone = alone;
        let leads = raft.state == StateRole::Leader;
        let alone = alone && self.applied >= self.alone_after;
        let now = Leadership { term: raft.term, leader: raft.leader_id, leads, alone };
        if now == self.leadership {
            return false;
        }
        let before = std::mem::replace(&mut self.leadership, now);
        effects.leadership = Some(now);
        self.leader_unreachable = false;
        if planted("proposed-again-to-the-next-leader") && now.leader != 0 && !leads {
            let entry = |data: &Bytes| PeerEntry { data: data.clone(), ..Default::default() };
            let entries: Vec<PeerEntry> = self.proposals.forwarded().map(entry).collect();
            if !entries.is_empty() {
                self.hand_on(now.leader, entries, 0, effects);
            }
        }
        if now.leader != 0 {
            let led = Some((now.leader, now.term));
            // Where there is no leader reads wait for one, as long as their patience lasts (KV-25).
            if std::mem::replace(&mut self.led_by, led).is_some_and(|before| led != Some(before)) {
                let asked = self.reads.abort();
                effects.refused_reads.extend(asked.map(|read| (read, errors::LEADER_CHANGED)));
            }
        }
        let mut again = Vec::new();
        if before.leads && !leads {
            again.append(&mut self.proposals.deposed(now_ms));
            again.append(&mut self.gathered.own);
        }
        if leads {
            let last = self.node.raft.raft_log.last_index();
            self.proposals.elected(last, &mut effects.refused);
        }
        if now.leader != 0 && !leads {
            self.hand_on_gathered(effects);
            let entry = |data| PeerEntry { kind: EntryKind::ConfChangeV2 as i32, data, ..Default::default() };
            let orphans: Vec<PeerEntry> = self.proposals.take_changes_of_others().map(entry).collect();
            if !orphans.is_empty() {
                self.hand_on(now.leader, orphans, 1, effects);
            }
        }
        let proposes = !again.is_empty() || now.leader != 0 && self.proposals.wait();
        self.on_propose(now_ms, again, effects);
        proposes
    }
}

/// The first entries of a new cluster: one change of the membership for each initial member, and the
/// promise that they are committed. Every initial member makes the same ones.
pub fn bootstrap_entries(changes: &[ConfChange]) -> (Vec<LogEntry>, Promise) {
    let entry = |(at, change): (usize, &ConfChange)| LogEntry {
        index: at as u64 + 1,
        term: 1,
        kind: EntryKind::ConfChangeV2,
        data: change.encode(),
    };
    let entries: Vec<LogEntry> = changes.iter().enumerate().map(entry).collect();
    let commit = entries.len() as u64;
    (entries, Promise { term: 1, vote: 0, commit })
}
