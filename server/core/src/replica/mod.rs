// SPDX-License-Identifier: Apache-2.0
//! The replica: Raft and the log, as a machine that is told what happened and says what is to be done.
//!
//! Owns      raft-rs's node, the proposals that are not committed yet, the reads that wait for an index.
//! Holds     1. an entry is handed out as committed only after it is durable here (I1 of the engine);
//!           2. a message leaves before our own sync only if the term that it carries is durable here;
//!           3. a proposal is matched with its entry by index and term, never by index alone;
//!           4. every read index is asked for with a context of its own, and what was asked under one
//!              leader is not answered under the next.
//! Never     applies, reads a clock, draws from a random source that is not seeded, or waits for a disk.

pub mod conf;
pub mod log;

use crate::{Refusal, boot::draw};
use bytes::Bytes;
use cairn_proto::errors;
use conf::ConfChange;
use log::{EntryKind, Log, LogEntry, LogError, LogStorage, Promise, from_raft};
use raft::{
    Config, RawNode, StateRole,
    eraftpb::{Entry, EntryType, Message, MessageType},
};
use std::{collections::VecDeque, sync::Arc};

/// Bytes of entries in one append message, and so in one batch of proposals that raft-rs cuts (RT-1).
const BYTES_PER_MESSAGE: u64 = 1 << 20;
/// Appends in flight to one follower (RT-1).
const MESSAGES_IN_FLIGHT: usize = 512;
/// Bytes of committed entries handed out at once.
const COMMITTED_BYTES_MAX: u64 = 4 << 20;
/// A read index that got no answer is asked for again after this: raft-rs drops some silently (RT-3).
const READ_RETRY_MS: u64 = 500;

/// What a replica starts from.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    pub id: u64,
    pub election_ticks: usize,
    pub heartbeat_ticks: usize,
    pub pre_vote: bool,
    /// What election timeouts are drawn from.
    pub seed: u64,
    /// Tells the read contexts of this boot from those of an earlier one.
    pub boot_nonce: u64,
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

/// Something that the member is asked to do through the log. `W` is what the host keeps with it.
pub struct Proposal<W> {
    pub data: Bytes,
    pub carried: W,
}

/// What happened.
pub enum Input<W, R> {
    Tick,
    Propose(Vec<Proposal<W>>),
    /// Reads that want everything that was committed before now.
    Read(Vec<R>),
    /// The log is durable up to this batch.
    Durable {
        batch: u64,
    },
    /// The state has applied up to here.
    Applied {
        index: u64,
    },
    /// The state has applied a change of the membership, or refused it.
    ConfApplied {
        index: u64,
        change: Option<ConfChange>,
    },
    /// From a peer; validated by the host.
    Received(Box<Message>),
}

/// An entry to apply.
#[derive(Debug)]
pub struct Committed<W> {
    pub entry: LogEntry,
    /// What its proposer kept, if that was this member.
    pub carried: Option<W>,
}

/// Who leads, as this member sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Leadership {
    pub term: u64,
    /// 0 if none is known.
    pub leader: u64,
    pub leads: bool,
    /// This member is the only voter, so what it has applied is all there is.
    pub alone: bool,
}

/// What is to be done, in this order: sync, send, apply, answer.
pub struct Effects<W, R> {
    /// Something was appended: the log is to be synced.
    pub sync: bool,
    pub messages: Vec<Message>,
    pub committed: Vec<Committed<W>>,
    /// These reads may be answered once this index is applied.
    pub reads: Vec<(u64, Vec<R>)>,
    pub refused: Vec<(W, Refusal)>,
    pub refused_reads: Vec<(R, Refusal)>,
    /// Rounds of reads that got no answer in time, and were asked again.
    pub slow_reads: u64,
    /// It changed.
    pub leadership: Option<Leadership>,
    /// The log takes no more: the member is to stop for this reason, and to step the replica no more.
    pub failed: Option<LogError>,
}

impl<W, R> Default for Effects<W, R> {
    fn default() -> Self {
        Effects {
            sync: false,
            messages: Vec::new(),
            committed: Vec::new(),
            reads: Vec::new(),
            refused: Vec::new(),
            refused_reads: Vec::new(),
            slow_reads: 0,
            leadership: None,
            failed: None,
        }
    }
}

/// A Ready whose records are not durable yet.
struct InSync {
    ready: u64,
    batch: u64,
    term: u64,
    /// Sent once it is durable.
    held: Vec<Message>,
}

struct ReadRound<R> {
    context: u64,
    asked_ms: u64,
    waiting: Vec<R>,
}

/// See the module.
pub struct Replica<W, R> {
    node: RawNode<LogStorage>,
    log: Arc<dyn Log>,
    seed: u64,
    draws: u64,
    drawn_for: Option<(u64, StateRole)>,
    election_ticks: usize,
    timeout: usize,
    boot_nonce: u64,
    /// Entries that this member proposed and that are not committed yet, by index.
    proposed: VecDeque<(u64, u64, W)>,
    /// Proposals that wait for a leader (LIMIT-7).
    leaderless: Vec<Proposal<W>>,
    in_sync: VecDeque<InSync>,
    durable_term: u64,
    reads: VecDeque<ReadRound<R>>,
    read_contexts: u64,
    leadership: Leadership,
    applied: u64,
    /// A sole voter campaigns as soon as this is applied.
    campaign_at: Option<u64>,
}

impl<W, R> Replica<W, R> {
    /// Starts Raft over a log that was just opened.
    ///
    /// # Errors
    /// If the log and the state do not fit together.
    pub fn new(config: ReplicaConfig, log: Arc<dyn Log>) -> Result<Replica<W, R>, StartRefused> {
        let mut promise = config.promise;
        promise.commit = promise.commit.max(config.applied);
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
            max_size_per_msg: BYTES_PER_MESSAGE,
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
            election_ticks: config.election_ticks,
            timeout: config.election_ticks,
            boot_nonce: config.boot_nonce,
            proposed: VecDeque::new(),
            leaderless: Vec::new(),
            in_sync: VecDeque::new(),
            durable_term: promise.term,
            reads: VecDeque::new(),
            read_contexts: 0,
            leadership: Leadership { term: promise.term, ..Leadership::default() },
            applied: config.applied,
            campaign_at: Some(promise.commit),
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

    /// Proposals that are neither committed nor refused.
    pub fn proposals(&self) -> usize {
        self.proposed.len() + self.leaderless.len()
    }

    /// Gives up what waits: the member stops.
    pub fn drain(&mut self, effects: &mut Effects<W, R>) {
        let waiting = self.leaderless.drain(..).map(|p| p.carried);
        let waiting = waiting.chain(self.proposed.drain(..).map(|(_, _, carried)| carried));
        effects.refused.extend(waiting.map(|carried| (carried, errors::STOPPED)));
        self.refuse_reads(errors::STOPPED, effects);
    }

    /// Advances by one input; the caller performs the effects.
    pub fn step(&mut self, now_ms: u64, input: Input<W, R>, effects: &mut Effects<W, R>) {
        match input {
            Input::Tick => self.on_tick(now_ms, effects),
            Input::Propose(proposals) => self.on_propose(proposals, effects),
            Input::Read(reads) => self.on_read(now_ms, reads),
            Input::Durable { batch } => self.on_durable(batch, effects),
            Input::Applied { index } => self.on_applied(index),
            Input::ConfApplied { index, change } => self.on_conf_applied(index, change),
            Input::Received(message) => self.on_message(*message),
        }
        self.keep_timeout();
        self.campaign_if_alone();
        self.handle_readies(effects);
        self.note_leadership(now_ms, effects);
    }

    fn on_tick(&mut self, now_ms: u64, effects: &mut Effects<W, R>) {
        // raft-rs asserts that who becomes leader has persisted its log; so nobody's time to campaign runs
        // while its own log is being written.
        let unpersisted = self.node.raft.raft_log.persisted < self.node.raft.raft_log.last_index();
        if self.node.raft.state == StateRole::Leader || !unpersisted {
            self.node.tick();
        }
        let stale = |round: &ReadRound<R>| now_ms >= round.asked_ms + READ_RETRY_MS;
        let slow = self.reads.iter().filter(|round| stale(round)).count();
        if slow > 0 {
            effects.slow_reads += slow as u64;
            let waiting = self.reads.drain(..).flat_map(|round| round.waiting).collect();
            self.on_read(now_ms, waiting);
        }
    }

    /// Everything that waits becomes one message to Raft: one append, one sync.
    fn on_propose(&mut self, proposals: Vec<Proposal<W>>, effects: &mut Effects<W, R>) {
        if self.node.raft.state != StateRole::Leader {
            self.leaderless.extend(proposals);
            return;
        }
        let (mut entries, mut carried) =
            (Vec::with_capacity(proposals.len()), Vec::with_capacity(proposals.len()));
        for proposal in proposals {
            entries.push(Entry {
                entry_type: EntryType::EntryNormal,
                data: proposal.data,
                ..Default::default()
            });
            carried.push(proposal.carried);
        }
        if entries.is_empty() {
            return;
        }
        let first = self.node.raft.raft_log.last_index() + 1;
        let term = self.node.raft.term;
        let mut message = Message { from: self.node.raft.id, entries: entries.into(), ..Default::default() };
        message.set_msg_type(MessageType::MsgPropose);
        match self.node.raft.step(message) {
            Ok(()) => {
                let indexes = first..;
                self.proposed.extend(indexes.zip(carried).map(|(index, carried)| (index, term, carried)));
            }
            Err(_) => effects.refused.extend(carried.into_iter().map(|c| (c, errors::PROPOSAL_DROPPED))),
        }
    }

    /// One round serves all reads that wait at this moment.
    fn on_read(&mut self, now_ms: u64, waiting: Vec<R>) {
        if waiting.is_empty() {
            return;
        }
        self.read_contexts += 1;
        let context = self.read_contexts;
        let mut bytes = Vec::with_capacity(16);
        bytes.extend_from_slice(&self.boot_nonce.to_be_bytes());
        bytes.extend_from_slice(&context.to_be_bytes());
        self.node.read_index(bytes);
        self.reads.push_back(ReadRound { context, asked_ms: now_ms, waiting });
    }

    fn on_durable(&mut self, batch: u64, effects: &mut Effects<W, R>) {
        let mut ready = None;
        while let Some(front) = self.in_sync.front() {
            if front.batch > batch {
                break;
            }
            let done = self.in_sync.pop_front().expect("it is the front");
            self.durable_term = self.durable_term.max(done.term);
            effects.messages.extend(done.held);
            ready = Some(done.ready);
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

    fn on_conf_applied(&mut self, index: u64, change: Option<ConfChange>) {
        if let Some(change) = change {
            // The state checked it against the members that it knows, so it fits.
            self.node
                .apply_conf_change(&change.to_raft())
                .expect("the state checked this change of the membership");
        }
        self.on_applied(index);
    }

    fn on_message(&mut self, message: Message) {
        // An error means a message that is of no use any more: Raft sends another.
        self.node.step(message).ok();
    }

    fn campaign_if_alone(&mut self) {
        let due = self.campaign_at.is_some_and(|at| at <= self.applied);
        let alone = self.alone();
        if due && alone && self.node.raft.promotable() {
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
                effects.failed = Some(error);
                return;
            }
            for state in ready.take_read_states() {
                self.on_read_state(state.index, &state.request_ctx, effects);
            }
            let committed = ready.take_committed_entries();
            self.hand_out(committed, effects);
            if !self.persist(ready, effects) {
                return;
            }
        }
    }

    /// Appends what a Ready wants recorded; its messages go now or when it is durable.
    /// False if the log takes no more.
    fn persist(&mut self, mut ready: raft::Ready, effects: &mut Effects<W, R>) -> bool {
        let entries: Vec<LogEntry> = ready.take_entries().into_iter().map(from_raft).collect();
        let mut at_once = ready.take_messages();
        let mut held = ready.take_persisted_messages();
        let term = self.node.raft.term;
        if term > self.durable_term {
            held.append(&mut at_once);
        }
        effects.messages.append(&mut at_once);
        let number = ready.number();
        if ready.must_sync() {
            // A moved commit alone is no reason to write: it rides along here, as a proof for recovery.
            let hs = self.node.raft.hard_state();
            let promise = Promise { term: hs.term, vote: hs.vote, commit: hs.commit };
            let batch = match self.log.append(&entries, Some(promise)) {
                Ok(batch) => batch,
                Err(error) => {
                    effects.failed = Some(error);
                    return false;
                }
            };
            self.in_sync.push_back(InSync { ready: number, batch, term, held });
            effects.sync = true;
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

    fn hand_out(&mut self, committed: Vec<Entry>, effects: &mut Effects<W, R>) {
        effects.committed.reserve(committed.len());
        for entry in committed {
            let entry = from_raft(entry);
            let mut carried = None;
            while let Some((index, term, _)) = self.proposed.front() {
                if *index > entry.index {
                    break;
                }
                let ours = (*index, *term) == (entry.index, entry.term);
                let (_, _, waiting) = self.proposed.pop_front().expect("it is the front");
                if ours {
                    carried = Some(waiting);
                } else {
                    // Another leader's entry took this place, so ours can never be committed.
                    effects.refused.push((waiting, errors::LEADER_CHANGED));
                }
            }
            effects.committed.push(Committed { entry, carried });
        }
    }

    fn on_read_state(&mut self, index: u64, context: &[u8], effects: &mut Effects<W, R>) {
        let (nonce, counter) = context.split_at(context.len().min(8));
        if nonce != self.boot_nonce.to_be_bytes() {
            return;
        }
        let counter = counter.try_into().map(u64::from_be_bytes).ok();
        if let Some(at) = self.reads.iter().position(|round| Some(round.context) == counter) {
            let round = self.reads.remove(at).expect("just found");
            effects.reads.push((index, round.waiting));
        }
    }

    fn refuse_reads(&mut self, refusal: Refusal, effects: &mut Effects<W, R>) {
        let waiting = self.reads.drain(..).flat_map(|round| round.waiting);
        effects.refused_reads.extend(waiting.map(|read| (read, refusal)));
    }

    fn note_leadership(&mut self, now_ms: u64, effects: &mut Effects<W, R>) {
        let raft = &self.node.raft;
        let leads = raft.state == StateRole::Leader;
        let now = Leadership { term: raft.term, leader: raft.leader_id, leads, alone: self.alone() };
        if now == self.leadership {
            return;
        }
        let before = std::mem::replace(&mut self.leadership, now);
        effects.leadership = Some(now);
        if before.leader != 0 && (before.leader, before.term) != (now.leader, now.term) {
            self.refuse_reads(errors::LEADER_CHANGED, effects);
        }
        if leads && !before.leads {
            let waiting = std::mem::take(&mut self.leaderless);
            self.step(now_ms, Input::Propose(waiting), effects);
        }
    }

    /// raft-rs draws election timeouts from the thread's own source. Ours come from the seed, one for each
    /// term and role, so that two runs of one seed agree.
    fn keep_timeout(&mut self) {
        let now = (self.node.raft.term, self.node.raft.state);
        if self.drawn_for != Some(now) {
            self.drawn_for = Some(now);
            self.draws += 1;
            let spread = draw(self.seed, self.draws) % self.election_ticks as u64;
            self.timeout = self.election_ticks + spread as usize;
        }
        self.node.raft.set_randomized_election_timeout(self.timeout);
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
