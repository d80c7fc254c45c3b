// SPDX-License-Identifier: Apache-2.0
//! One member: the daemon's threads, each as a call that the seed orders.
//!
//! Owns      the machines, and the queues between them.
//! Holds     what the daemon's threads promise: published, then applied, then the watchers, then the answers.
//! Never     draws or decides: the world does.

use bytes::Bytes;
use cairn_core::{
    Command, Refusal,
    auth::Identity,
    boot::{BootConfig, BootError, Booted, boot},
    lessor::{CHECKPOINTS_PER_ENTRY, Lessor},
    replica::{
        Committed, Effects, Input, Leadership, Proposal, Replica, Stopped, conf::ConfChange, log::EntryKind,
        peer::PeerMessage,
    },
    state::{Applied, Carried, Outcome, State},
    watch::{Caught, HistoryError, Hub, HubOptions, Plan, ReaderHistory, Step},
};
use cairn_engine::{
    Db, Error, Scrub,
    io::{Budget, Progress},
    wal::Wal,
};
use cairn_mvcc::{OpError, PurgeBudget, PurgeProgress, Reader};
use cairn_proto::etcdserverpb as pb;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};

/// A request of a client, or 0 for the member's own.
pub type OpId = u64;
pub type Kept = Carried<OpId>;

/// Time that a revoke gets before it is tried again, and that requests get.
const REQUEST_TIMEOUT_MS: u64 = 7_000;
/// The first id of the member's own requests.
const OWN_IDS: u64 = 1 << 40;

/// Where the catching up of watchers stands.
enum CatchUp {
    Idle,
    Planned(Plan),
    Read(Caught),
}

/// What a turn of the state came to.
pub struct Turn {
    pub entries: Vec<Committed<()>>,
    pub outcome: Outcome<OpId>,
    /// Reads that may be made now.
    pub reads: Vec<OpId>,
    /// Which proposals the entries were.
    pub ops: Vec<(u64, OpId)>,
}

pub struct Node {
    pub db: Db,
    pub wal: Arc<Wal>,
    pub state: State,
    pub lessor: Arc<Mutex<Lessor>>,
    pub reader: Reader,
    pub hub: Hub,
    pub id: u64,
    replica: Replica<Kept, OpId>,
    effects: Effects<Kept, OpId>,
    proposals: Vec<Proposal<Kept>>,
    reads: Vec<OpId>,
    durable: Option<u64>,
    conf: Vec<(u64, Option<ConfChange>)>,
    /// What came from peers, and what else the replica is to be told.
    inputs: Vec<Input<Kept, OpId>>,
    /// What goes to peers.
    pub outbox: Vec<PeerMessage>,
    /// Peers that need a snapshot.
    pub behind: Vec<u64>,
    /// What should never be: messages that were refused, entries that a disk lost.
    pub accused: Vec<String>,
    /// It was removed, and is to end.
    pub removed: bool,
    committed: VecDeque<Committed<Kept>>,
    waiting: BTreeMap<u64, Vec<OpId>>,
    pub leadership: Leadership,
    pub leads: bool,
    applied: u64,
    catchup: CatchUp,
    own_ids: u64,
    pub refused: Vec<(OpId, Refusal)>,
    pub refused_reads: Vec<(OpId, Refusal)>,
    next_scan_ms: u64,
    /// A checkpoint was begun.
    freezing: bool,
    /// The newest batch that the log's thread knows to be durable.
    synced: u64,
    /// A mistake that the checks are to find.
    sabotage: Option<Sabotage>,
}

/// Mistakes of a host, with which the simulator itself is tested.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sabotage {
    /// Durability is told before the sync.
    DurableBeforeSync,
    /// A linearizable read is answered at once by a member that does not lead yet.
    ReadBeforeLead,
    /// Now and then the hub is not told of a batch.
    WatchersForgotten,
    /// Leases are looked at with a clock that is ahead.
    ClockAhead,
    /// What a client proposes is proposed twice.
    ProposedTwice,
    /// A leader answers reads without asking whether it still leads.
    ReadByLeader,
    /// A member whose store is damaged comes back under its id with an empty directory.
    RepairedWithoutItsLog,
}

impl Sabotage {
    /// All of them, by name.
    pub const ALL: [(&str, Sabotage); 5] = [
        ("host-durable-before-sync", Sabotage::DurableBeforeSync),
        ("host-read-before-lead", Sabotage::ReadBeforeLead),
        ("host-watchers-forgotten", Sabotage::WatchersForgotten),
        ("host-clock-ahead", Sabotage::ClockAhead),
        ("host-proposed-twice", Sabotage::ProposedTwice),
    ];

    /// Those that are mistakes of a host among others, by name.
    pub const OF_CLUSTERS: [(&str, Sabotage); 6] = [
        ("cluster-durable-before-sync", Sabotage::DurableBeforeSync),
        ("cluster-read-without-asking", Sabotage::ReadBeforeLead),
        ("cluster-read-by-leader", Sabotage::ReadByLeader),
        ("cluster-clock-ahead", Sabotage::ClockAhead),
        ("cluster-proposed-twice", Sabotage::ProposedTwice),
        ("cluster-repaired-without-its-log", Sabotage::RepairedWithoutItsLog),
    ];
}

impl Node {
    /// Starts a member; `boots` counts its starts, so that its own requests get ids of their own.
    pub fn boot(
        config: BootConfig,
        hub: HubOptions,
        boots: u64,
        sabotage: Option<Sabotage>,
    ) -> Result<Node, BootError> {
        let Booted { member_id, db, wal, state, lessor, replica, .. } = boot(config)?;
        let reader = state.reader();
        let revision = reader.revision().map_err(|e| BootError::State(e.into()))?;
        Ok(Node {
            id: member_id.0,
            db,
            wal,
            hub: Hub::new(revision, hub),
            applied: state.applied().0,
            state,
            lessor,
            reader,
            replica,
            effects: Effects::default(),
            proposals: Vec::new(),
            reads: Vec::new(),
            durable: None,
            conf: Vec::new(),
            inputs: Vec::new(),
            outbox: Vec::new(),
            behind: Vec::new(),
            accused: Vec::new(),
            removed: false,
            committed: VecDeque::new(),
            waiting: BTreeMap::new(),
            leadership: Leadership::default(),
            leads: false,
            catchup: CatchUp::Idle,
            own_ids: OWN_IDS * (1 + boots),
            refused: Vec::new(),
            refused_reads: Vec::new(),
            next_scan_ms: 0,
            freezing: false,
            synced: 0,
            sabotage,
        })
    }

    /// Proposes what `by` asks for.
    pub fn propose(&mut self, op: OpId, by: Option<Identity>, command: Command) {
        if self.sabotage == Some(Sabotage::ProposedTwice) && op.is_multiple_of(50) {
            self.proposals.push(proposal(op, by.clone(), command.clone(), 0));
        }
        self.proposals.push(proposal(op, by, command, op));
    }

    pub fn propose_change(&mut self, op: OpId, change: &ConfChange) {
        self.proposals.push(Proposal {
            id: op,
            kind: EntryKind::ConfChangeV2,
            leader_only: false,
            data: change.encode(),
            carried: Carried { command: None, by: None, answer: op },
        });
    }

    /// Voters and learners with the last entry that each is known to have, on the leader.
    pub fn progress(&self) -> BTreeMap<u64, u64> {
        self.replica.progress().collect()
    }

    /// Up to here it knows what is committed, also after a crash.
    pub fn durable_commit(&self) -> u64 {
        self.replica.durable_commit()
    }

    /// Whether this member leads, and has in its log what is not committed.
    pub fn waits_for_a_quorum(&self) -> bool {
        self.leadership.leads && self.wal.last_index() > self.replica.committed()
    }

    /// Whether this member serves clients: learners, and those that were not told yet that they are members, do
    /// not (LR-2).
    pub fn is_voter(&self) -> bool {
        self.state.cluster().members.voters_and_learners().0.contains(&self.id)
    }

    /// Whether a linearizable read may be made at once: a sole voter that leads has applied all there is.
    pub fn reads_alone(&self) -> bool {
        match self.sabotage {
            Some(Sabotage::ReadBeforeLead) => true,
            Some(Sabotage::ReadByLeader) => self.leads,
            _ => self.leads && self.leadership.alone,
        }
    }

    /// Something that the replica is to be told with its next turn.
    pub fn tell(&mut self, input: Input<Kept, OpId>) {
        self.inputs.push(input);
    }

    /// A snapshot is here, whole and checked. True if it is to be installed: then this node is at its end.
    pub fn snapshot_received(&mut self, now_ms: u64, index: u64, term: u64) -> Result<bool, String> {
        self.replica.step(now_ms, Input::SnapshotReceived { index, term }, &mut self.effects);
        let install = std::mem::take(&mut self.effects.install);
        self.perform()?;
        Ok(install)
    }

    pub fn read_index(&mut self, op: OpId) {
        self.reads.push(op);
    }

    fn propose_own(&mut self, command: Command) {
        self.own_ids += 1;
        let proposal = proposal(self.own_ids, None, command, 0);
        self.proposals.push(Proposal { leader_only: true, ..proposal });
    }

    /// What the replica's thread does with one look at its queue.
    pub fn replica_turn(&mut self, now_ms: u64, tick: bool) -> Result<(), String> {
        let (replica, effects) = (&mut self.replica, &mut self.effects);
        let mut step = |input| replica.take_in(now_ms, input, effects);
        if let Some(batch) = self.durable.take() {
            step(Input::Durable { batch });
        }
        let index = self.state.applied().0;
        if index > self.applied && self.conf.is_empty() {
            self.applied = index;
            step(Input::Applied { index });
        }
        for (index, change) in self.conf.drain(..) {
            step(Input::ConfApplied { index, change });
        }
        for input in self.inputs.drain(..) {
            step(input);
        }
        if !self.reads.is_empty() {
            step(Input::Read(std::mem::take(&mut self.reads)));
        }
        if !self.proposals.is_empty() {
            step(Input::Propose(std::mem::take(&mut self.proposals)));
        }
        if tick {
            step(Input::Tick);
        }
        replica.settle(now_ms, effects);
        self.perform()
    }

    fn perform(&mut self) -> Result<(), String> {
        let effects = &mut self.effects;
        let refused = effects.misbehaved.drain(..).map(|(from, why)| format!("from {from:x}: {why}"));
        self.accused.extend(refused);
        if let Some(why) = effects.failed.take() {
            if let Stopped::EntriesLost { .. } = why {
                self.accused.push(why.to_string());
            }
            return Err(why.to_string());
        }
        effects.sync = false;
        self.removed |= std::mem::take(&mut effects.removed);
        self.outbox.append(&mut effects.messages);
        self.behind.append(&mut effects.snapshots);
        if let Some(leadership) = effects.leadership.take() {
            if self.leadership.leads && !leadership.leads {
                self.lessor.lock().expect("one thread").demote();
                self.leads = false;
            }
            self.leadership = leadership;
        }
        self.committed.extend(effects.committed.drain(..));
        for (index, waiting) in effects.reads.drain(..) {
            self.waiting.entry(index).or_default().extend(waiting);
        }
        self.refused.extend(effects.refused.drain(..).map(|(kept, refusal)| (kept.answer, refusal)));
        self.refused_reads.append(&mut effects.refused_reads);
        Ok(())
    }

    /// What the log's thread does: where nothing came since the last sync, the newest batch is sealed. False if there was
    /// no room.
    pub fn sync(&mut self) -> Result<bool, Error> {
        if self.sabotage == Some(Sabotage::DurableBeforeSync) {
            self.durable = Some(u64::MAX);
            self.db.log_durable(self.wal.last_index());
            return Ok(true);
        }
        match self.wal.sync() {
            Ok(point) => {
                self.db.log_durable(point.last_index);
                self.durable = self.durable.max(Some(point.batch_no.0));
                if std::mem::replace(&mut self.synced, point.batch_no.0) < point.batch_no.0 {
                    return Ok(true);
                }
                match self.wal.seal() {
                    Ok(()) | Err(Error::NoSpace { .. }) => Ok(true),
                    Err(error) => Err(error),
                }
            }
            Err(Error::NoSpace { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What the state's thread does with at most `max` of the entries that wait.
    pub fn state_turn(&mut self, now_ms: u64, max: usize) -> Result<Turn, String> {
        let take = max.min(self.committed.len());
        let batch: Vec<Committed<Kept>> = self.committed.drain(..take).collect();
        let entries = batch.iter().map(|c| Committed { entry: c.entry.clone(), carried: None }).collect();
        let ops =
            batch.iter().filter_map(|c| c.carried.as_ref().map(|k| (c.entry.index, k.answer))).collect();
        let mut outcome = Outcome::default();
        self.state.apply(now_ms, batch, &mut outcome, |_, _| {}).map_err(|e| e.to_string())?;
        let forgotten = self.sabotage == Some(Sabotage::WatchersForgotten)
            && outcome.events.last().is_some_and(|e| e.main % 20 == 0);
        if !outcome.events.is_empty() && !forgotten {
            let history = history(&self.reader);
            self.hub.publish(&outcome.events, &history).map_err(|e| e.to_string())?;
        }
        let (index, term) = self.state.applied();
        if self.leadership.leads && term == self.leadership.term && !self.leads {
            self.leads = true;
            self.lessor.lock().expect("one thread").promote(now_ms, 1_000);
        }
        self.conf.append(&mut outcome.conf);
        let mut reads = Vec::new();
        while let Some(first) = self.waiting.first_entry() {
            if *first.key() > index {
                break;
            }
            reads.extend(first.remove());
        }
        self.timers(now_ms);
        Ok(Turn { entries, outcome, reads, ops })
    }

    fn timers(&mut self, now_ms: u64) {
        self.hub.tick(now_ms);
        if now_ms < self.next_scan_ms {
            return;
        }
        self.next_scan_ms = now_ms + cairn_core::lessor::SCAN_INTERVAL_MS;
        let ahead_ms = if self.sabotage == Some(Sabotage::ClockAhead) { 1_000 } else { 0 };
        let now_ms = now_ms + ahead_ms;
        let (expired, due) = {
            let mut lessor = self.lessor.lock().expect("one thread");
            (
                lessor.expired(now_ms, REQUEST_TIMEOUT_MS),
                lessor.checkpoints_due(now_ms, CHECKPOINTS_PER_ENTRY),
            )
        };
        for (id, granted_index) in expired {
            self.propose_own(Command::LeaseEnd { id, granted_index });
        }
        if !due.is_empty() {
            let one = |(id, remaining_ttl)| pb::LeaseCheckpoint { id, remaining_ttl };
            let checkpoints = due.into_iter().map(one).collect();
            self.propose_own(Command::LeaseCheckpoint(pb::LeaseCheckpointRequest { checkpoints }));
        }
    }

    /// A part of a checkpoint. True if one was finished. The log keeps what comes after `hold`, and `kept`
    /// entries for followers that are a little behind.
    pub fn checkpoint(&mut self, budget: Budget, confirm: bool, kept: u64, hold: u64) -> Result<bool, Error> {
        let full = |error: Error| match error {
            Error::NoSpace { .. } => Ok(Progress::More),
            error => Err(error),
        };
        self.wal.prepare_spare(budget).or_else(full).map(drop)?;
        self.db.log_durable(self.wal.durable().last_index);
        self.freezing |= self.db.freeze()?;
        let done = self.db.checkpoint_step(budget).or_else(full)? == Progress::Done;
        let made = done && std::mem::take(&mut self.freezing);
        if made {
            if confirm {
                self.db.confirm()?;
            }
            let floor = self.replica.applied().saturating_sub(kept).min(hold);
            self.wal.release(self.db.log_floor().min(floor))?;
        }
        Ok(made)
    }

    /// The fold of everything, after which nothing counts that can be reused.
    pub fn defragment(&mut self, kept: u64, hold: u64) -> Result<(), Error> {
        while !self.checkpoint(Budget::UNBOUNDED, false, kept, hold)? {
            if !self.freezing {
                break;
            }
        }
        self.db.lower_size();
        Ok(())
    }

    /// Whether a checkpoint was begun and has not ended.
    pub fn is_in_checkpoint(&self) -> bool {
        self.freezing
    }

    /// Reads all that the newest checkpoint needs from the medium.
    pub fn scrub(&self) -> Result<(), Error> {
        let mut scrub = Scrub::default();
        loop {
            let step = self.db.scrub(&mut scrub, Budget::UNBOUNDED);
            if let Some(damage) = step.damage.into_iter().next() {
                return Err(damage.error);
            }
            if step.pass_ended {
                return Ok(());
            }
        }
    }

    pub fn purge(&mut self, entries: usize, break_holds: bool) -> Result<PurgeProgress, Error> {
        self.state.store_mut().purge_step(PurgeBudget { entries, break_holds })
    }

    /// One of the three steps of catching up.
    pub fn catch_up(&mut self) -> Result<bool, String> {
        let history = history(&self.reader);
        let fail = |e: HistoryError| e.to_string();
        let mut busy = true;
        self.catchup = match std::mem::replace(&mut self.catchup, CatchUp::Idle) {
            CatchUp::Idle => match self.hub.plan(&history).map_err(fail)? {
                Step::Read(plan) => CatchUp::Planned(plan),
                Step::Again => CatchUp::Idle,
                Step::Idle => {
                    busy = false;
                    CatchUp::Idle
                }
            },
            CatchUp::Planned(plan) => CatchUp::Read(plan.read(&history).map_err(fail)?),
            CatchUp::Read(caught) => {
                self.hub.deliver(caught, &history).map_err(fail)?;
                CatchUp::Idle
            }
        };
        Ok(busy)
    }

    /// Nothing is on its way.
    pub fn is_quiet(&self) -> bool {
        self.proposals.is_empty()
            && self.reads.is_empty()
            && self.durable.is_none()
            && self.committed.is_empty()
            && self.conf.is_empty()
            && self.waiting.is_empty()
            && self.inputs.is_empty()
            && self.wal.durable().last_index == self.state.applied().0
    }
}

fn proposal(id: u64, by: Option<Identity>, command: Command, answer: OpId) -> Proposal<Kept> {
    let data = command.encode_by(id, by.as_ref());
    let carried = Carried { command: Some(command), by, answer };
    Proposal { id, kind: EntryKind::Normal, leader_only: false, data, carried }
}

/// Small budgets, so that plans end early and are made again.
fn history(reader: &Reader) -> ReaderHistory {
    ReaderHistory { reader: reader.clone(), entries_max: 50, revisions_max: 20 }
}

/// What a member answered, in the form that the model uses; ranges of transactions are answered by `reader`.
pub fn outcome(result: Result<Applied, Refusal>, reader: &Reader) -> Result<crate::model::Outcome, OpError> {
    use crate::model::Outcome as O;
    Ok(match result {
        Err(refusal) => O::Refused(refusal.text),
        Ok(Applied::Put { revision, prev_kv }) => O::Put { revision, prev: prev_kv.map(|kv| pair(&kv)) },
        Ok(Applied::DeleteRange { revision, deleted, prev_kvs }) => {
            O::Delete { revision, deleted, prevs: prev_kvs.iter().map(pair).collect() }
        }
        Ok(Applied::Txn(done)) => txn(done, reader, true)?,
        Ok(
            Applied::Compact { revision }
            | Applied::LeaseRevoke { revision }
            | Applied::Auth { revision }
            | Applied::Authenticate { revision, .. },
        ) => O::Revision(revision),
        Ok(Applied::Alarm { revision, alarms }) => {
            let alarms = alarms.iter().map(|one| (one.member_id, one.alarm)).collect();
            O::Alarms { revision, alarms }
        }
        Ok(Applied::LeaseGrant { revision, id, ttl_s }) => O::Grant { revision, id, ttl: ttl_s },
        Ok(Applied::Members(members)) => {
            let one = |member: cairn_proto::membershippb::Member| {
                let raft = member.raft_attributes.unwrap_or_default();
                (member.id, raft.is_learner, raft.peer_urls)
            };
            O::Members(members.into_iter().map(one).collect())
        }
        Ok(Applied::Done) => O::Done,
    })
}

fn txn(done: cairn_mvcc::TxnDone, reader: &Reader, outer: bool) -> Result<crate::model::Outcome, OpError> {
    use crate::model::Outcome as O;
    use cairn_mvcc::OpDone;
    let mut responses = Vec::new();
    for response in done.responses {
        responses.push(match response {
            OpDone::Range(deferred) => range(reader.range_deferred(&deferred)?),
            OpDone::Put(done) => O::Put { revision: done.revision, prev: done.prev_kv.map(|kv| pair(&kv)) },
            OpDone::Delete(done) => O::Delete {
                revision: done.revision,
                deleted: done.deleted,
                prevs: done.prev_kvs.iter().map(pair).collect(),
            },
            OpDone::Txn(done) => txn(done, reader, false)?,
        });
    }
    // Of a nested one no revision is sent.
    let revision = if outer { done.revision } else { 0 };
    Ok(O::Txn { revision, succeeded: done.succeeded, responses })
}

pub fn range(done: cairn_mvcc::RangeDone) -> crate::model::Outcome {
    let kvs = done.kvs.iter().map(pair).collect();
    crate::model::Outcome::Range { revision: done.revision, kvs, count: done.count, more: done.more }
}

pub fn pair(kv: &Bytes) -> cairn_proto::mvccpb::KeyValue {
    prost::Message::decode(&kv[..]).expect("a stored pair is a message")
}
