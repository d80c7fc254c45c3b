// SPDX-License-Identifier: Apache-2.0
//! Replicas alone, over logs in memory: what Raft promises, at a tenth of the cost of whole members.
//!
//! Owns      the replicas, their logs, and a state that is no more than the entries that were applied.
//! Holds     1. a term has one leader; what one replica commits, all commit, and it is durable at a majority;
//!           2. a proposal is in the log once at most; a read waits for everything that was answered before it began;
//!           3. no message is refused, and no entry is missed, while no disk lies;
//!           4. without faults everything comes to rest: one leader, one log, nothing that waits.
//! Never     draws from anything but its seed.

mod log;
mod promises;

use crate::{
    net::{Flight, Network},
    swarm::NetworkOptions,
};
use cairn_core::{
    Command,
    replica::{
        Committed, Effects, Input, Proposal, Replica, ReplicaConfig, bootstrap_entries,
        conf::{ConfChange, Kind},
        log::{EntryKind, Log},
    },
    state::members::Members,
};
use cairn_engine::sim::SplitMix;
use cairn_proto::{
    etcdserverpb::CompactionRequest,
    membershippb::{Member, RaftAttributes},
};
use log::MemLog;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

const STEPS: u64 = 2_500;
const TICK_MS: u64 = 100;
const ELECTION_TICKS: usize = 10;
const PATIENCE_MS: u64 = 7_000;
/// How long a member goes on that was removed.
const FAREWELL_MS: u64 = 1_000;
/// For how long a disk hangs: long enough for elections without its member.
const HANG_MS: u64 = 4_000;
/// Rounds of the quiet end.
const ROUNDS: u64 = 300;
/// Members that a cluster may grow to.
const MEMBERS_MAX: usize = 7;

/// How much was done, for floors.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct BareStats {
    pub entries: u64,
    pub answered: u64,
    pub reads: u64,
    pub elections: u64,
    pub crashes: u64,
    pub installs: u64,
    pub changes: u64,
    pub truncations: u64,
    pub simulated_ms: u64,
}

impl BareStats {
    pub fn add(&mut self, other: &BareStats) {
        let BareStats {
            entries,
            answered,
            reads,
            elections,
            crashes,
            installs,
            changes,
            truncations,
            simulated_ms,
        } = other;
        self.entries += entries;
        self.answered += answered;
        self.reads += reads;
        self.elections += elections;
        self.crashes += crashes;
        self.installs += installs;
        self.changes += changes;
        self.truncations += truncations;
        self.simulated_ms += simulated_ms;
    }
}

/// What a replica's state comes to: how far it is, and who the members are.
#[derive(Clone, Default)]
struct Applied {
    index: u64,
    term: u64,
    members: Members,
}

/// A read knows what it has to see at least.
type Bare = Replica<u64, u64>;

struct Peer {
    id: u64,
    log: Arc<MemLog>,
    replica: Option<Box<Bare>>,
    effects: Effects<u64, u64>,
    committed: VecDeque<Committed<u64>>,
    applied: Applied,
    /// What a crash brings back.
    saved: Applied,
    /// Of this boot: batches of the log that are durable, and were not told yet.
    durable: Option<u64>,
    /// Its disk does nothing until then.
    hung_until_ms: u64,
    /// It was removed and ends then.
    ends_ms: Option<u64>,
    gone: bool,
}

/// See the module.
pub struct Cluster {
    rng: SplitMix,
    now_ms: u64,
    peers: Vec<Peer>,
    network: Network,
    /// Term and digest of everything that was applied by anyone, from index 1.
    log: Vec<(u64, u64)>,
    ids: BTreeSet<u64>,
    next_id: u64,
    answered: u64,
    leaders: BTreeMap<u64, u64>,
    members: Members,
    voters_before: Vec<u64>,
    /// Who sent something in this step while its log had something to sync, and how seldom it crashes then.
    sent: Option<usize>,
    crash_in: u64,
    /// Which entry removed a member.
    removed: BTreeMap<u64, u64>,
    kept: u64,
    /// Inputs may wait for others, to be handled in one turn.
    gathers: bool,
    /// Voters that lose a leader have turns. Without them more ask at once, and other mistakes show.
    staggers: bool,
    /// The first voter stays the only one, with learners: it wins in the step that raises its term, before anything is
    /// synced.
    lone: bool,
    digest: u64,
    weights: [u64; 12],
    stats: BareStats,
}

fn change_of(kind: Kind, id: u64, request_id: u64) -> ConfChange {
    let attributes = RaftAttributes { peer_urls: vec![format!("http://{id}")], is_learner: false };
    let member = Member { id, raft_attributes: Some(attributes), member_attributes: None };
    let brings = matches!(kind, Kind::AddVoter | Kind::AddLearner);
    ConfChange {
        request_id,
        kind,
        member_id: id,
        cluster_id: 5,
        member: brings.then_some(member),
        learners_max: 2,
    }
}

/// Runs one seed; gives what was done, and the digest of the run.
///
/// # Errors
/// The first broken rule.
pub fn run(seed: u64) -> Result<(BareStats, u64), String> {
    let mut cluster = Cluster::new(seed);
    let told = |what: String| {
        format!("seed {seed}: {what}\nrepeat with: cargo run -p cairn-sim -- --raft --seed {seed}")
    };
    cluster.run().map_err(told)?;
    Ok((cluster.stats, cluster.digest))
}

/// Runs seeds from `first` on; one in a hundred twice, to see that the runs agree.
///
/// # Errors
/// The first broken rule, or a seed whose two runs differ.
pub fn run_seeds(first: u64, count: u64) -> Result<BareStats, String> {
    let mut all = BareStats::default();
    for seed in first..first + count {
        let (stats, digest) = run(seed)?;
        if seed.is_multiple_of(100) && run(seed)?.1 != digest {
            return Err(format!("seed {seed}: two runs of one seed differ"));
        }
        all.add(&stats);
    }
    Ok(all)
}

impl Peer {
    fn new(id: u64, log: MemLog) -> Peer {
        Peer {
            id,
            log: Arc::new(log),
            replica: None,
            effects: Effects::default(),
            committed: VecDeque::new(),
            applied: Applied::default(),
            saved: Applied::default(),
            durable: None,
            hung_until_ms: 0,
            ends_ms: None,
            gone: false,
        }
    }
}

impl Cluster {
    fn new(seed: u64) -> Cluster {
        let mut rng = SplitMix::new(seed);
        let founders = [3, 3, 3, 5, 1, 1, 2, 4][rng.index(8)];
        let changes: Vec<_> = (1..=founders).map(|id| change_of(Kind::AddVoter, id, 0)).collect();
        let (entries, promise) = bootstrap_entries(&changes);
        let peers = (1..=founders).map(|id| Peer::new(id, MemLog::new(&entries, promise))).collect();
        let options = NetworkOptions {
            lost: [0, 0, 100, 10][rng.index(4)],
            doubled: [0, 50, 5][rng.index(3)],
            reordered: rng.one_in(2),
            tells: rng.one_in(2),
        };
        let mut or_never = |weight: u64| if rng.one_in(4) { 0 } else { weight };
        let rare = [or_never(2), or_never(3), or_never(2), or_never(6), or_never(10)];
        let [partition, crash, transfer, change, trim] = rare;
        Cluster {
            now_ms: 0,
            peers,
            network: Network::new(options),
            log: Vec::new(),
            ids: BTreeSet::new(),
            next_id: 0,
            answered: 0,
            leaders: BTreeMap::new(),
            members: Members::default(),
            voters_before: Vec::new(),
            sent: None,
            crash_in: [30, 300, u64::MAX][rng.index(3)],
            removed: BTreeMap::new(),
            kept: [0, 3, 50][rng.index(3)],
            gathers: rng.one_in(2),
            staggers: rng.one_in(2),
            lone: founders == 1,
            digest: 0xcbf2_9ce4_8422_2325,
            weights: [
                200,
                60,
                [60, 10][rng.index(2)],
                [60, 10][rng.index(2)],
                100,
                40,
                20,
                partition,
                crash,
                transfer,
                change,
                trim,
            ],
            stats: BareStats::default(),
            rng,
        }
    }

    fn mark(&mut self, what: u64) {
        self.digest = (self.digest ^ what).wrapping_mul(0x0100_0000_01b3);
    }

    fn run(&mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            let at = self.rng.index(self.peers.len());
            let total: u64 = self.weights.iter().sum();
            let mut drawn = self.rng.below(total);
            let mut action = 0;
            while drawn >= self.weights[action] {
                drawn -= self.weights[action];
                action += 1;
            }
            self.sent = None;
            self.act(at, action)?;
            // Who sends before it syncs may lose what it said.
            if let Some(at) = self.sent.take()
                && self.rng.one_in(self.crash_in)
                && self.peers[at].replica.is_some()
            {
                self.crash(at);
            }
        }
        self.end()?;
        self.stats.simulated_ms = self.now_ms;
        Ok(())
    }

    fn act(&mut self, at: usize, action: usize) -> Result<(), String> {
        if action == 7 {
            let members = self.peers.len();
            self.network.partition(&mut self.rng, members);
            return Ok(());
        }
        if self.peers[at].gone {
            return Ok(());
        }
        if self.peers[at].replica.is_none() {
            return self.boot(at);
        }
        match action {
            0 => {
                for _ in 0..1 + self.rng.below(6) {
                    self.deliver()?;
                }
                Ok(())
            }
            1 => {
                self.now_ms += self.rng.below(60);
                if self.end_removed(at) { Ok(()) } else { self.take_in(at, Input::Tick) }
            }
            2 => {
                // What was appended after a sync is not durable when that one is told.
                if self.peers[at].durable.is_none() || self.rng.one_in(2) {
                    self.sync(at);
                }
                self.tell_durable(at)
            }
            3 => {
                self.sync(at);
                Ok(())
            }
            4 => self.apply(at),
            5 => self.propose(at),
            6 => {
                let needed = self.answered;
                self.take_in(at, Input::Read(vec![needed]))
            }
            8 => {
                self.crash(at);
                Ok(())
            }
            9 if self.rng.one_in(3) => {
                if self.rng.one_in(2) {
                    self.peers[at].hung_until_ms = self.now_ms + HANG_MS;
                }
                self.step(at, Input::LogHangs)
            }
            9 => {
                let to = self.peers[self.rng.index(self.peers.len())].id;
                self.step(at, Input::Transfer { to })
            }
            10 => self.change(at),
            _ => {
                self.save(at);
                Ok(())
            }
        }
    }

    fn boot(&mut self, at: usize) -> Result<(), String> {
        let (seed, boot_nonce) = (self.rng.next_u64(), self.rng.next_u64());
        let peer = &mut self.peers[at];
        let (mut voters, learners) = peer.saved.members.voters_and_learners();
        if peer.saved.members.is_removed(peer.id) {
            voters.push(peer.id);
        }
        let config = ReplicaConfig {
            id: peer.id,
            election_ticks: ELECTION_TICKS,
            heartbeat_ticks: 1,
            pre_vote: true,
            staggered: self.staggers,
            seed,
            boot_nonce,
            patience_ms: PATIENCE_MS,
            applied: peer.saved.index,
            voters,
            learners,
            promise: peer.log.promise(),
        };
        peer.applied = peer.saved.clone();
        peer.effects = Effects::default();
        peer.committed.clear();
        peer.durable = None;
        let replica =
            Replica::new(config, peer.log.clone()).map_err(|e| format!("{} starts: {e}", peer.id))?;
        peer.replica = Some(Box::new(replica));
        Ok(())
    }

    fn crash(&mut self, at: usize) {
        self.stats.crashes += 1;
        let peer = &mut self.peers[at];
        peer.replica = None;
        peer.log = Arc::new(peer.log.crashed(&mut self.rng));
        self.network.forget(at);
    }

    fn leave(&mut self, at: usize) {
        self.peers[at].replica = None;
        self.peers[at].gone = true;
        self.network.forget(at);
    }

    /// Handles an input now, or in one turn with what comes next to the same replica.
    fn take_in(&mut self, at: usize, input: Input<u64, u64>) -> Result<(), String> {
        if !self.gathers || self.rng.one_in(2) {
            return self.step(at, input);
        }
        let peer = &mut self.peers[at];
        peer.replica.as_mut().expect("it runs").take_in(self.now_ms, input, &mut peer.effects);
        Ok(())
    }

    fn step(&mut self, at: usize, input: Input<u64, u64>) -> Result<(), String> {
        let now_ms = self.now_ms;
        let peer = &mut self.peers[at];
        let (last, term) = (peer.log.last_index(), peer.log.term(peer.log.last_index()));
        peer.replica.as_mut().expect("it runs").step(now_ms, input, &mut peer.effects);
        self.stats.truncations += u64::from(peer.log.term(last) != term);
        self.perform(at)
    }

    fn perform(&mut self, at: usize) -> Result<(), String> {
        let peer = &mut self.peers[at];
        let id = peer.id;
        let effects = &mut peer.effects;
        if let Some((from, why)) = effects.misbehaved.pop() {
            return Err(format!("{id} refused a message of {from}: {why}"));
        }
        if let Some(why) = effects.failed.take() {
            return Err(format!("{id} stops: {why}"));
        }
        effects.sync = false;
        effects.refused.clear();
        effects.refused_reads.clear();
        peer.committed.extend(effects.committed.drain(..));
        for (index, reads) in effects.reads.drain(..) {
            if let Some(needed) = reads.iter().find(|needed| **needed > index) {
                return Err(format!("{id} reads at {index}, and {needed} was answered before"));
            }
            self.stats.reads += reads.len() as u64;
        }
        let removed = std::mem::take(&mut effects.removed);
        let leadership = effects.leadership.take();
        let messages = std::mem::take(&mut effects.messages);
        let snapshots = std::mem::take(&mut effects.snapshots);
        if let Some(leadership) = leadership.filter(|leadership| leadership.leads) {
            self.see_leader(at, leadership.term)?;
        }
        if !messages.is_empty() && self.peers[at].log.is_behind() {
            self.sent = Some(at);
        }
        for message in messages {
            let Some(to) = self.place_of(message.to) else { continue };
            let peer = message.to;
            self.mark(peer << 32 ^ message.term << 8 ^ message.kind as u64);
            let sent = self.network.send(&mut self.rng, Flight { from: at, to, message });
            if !sent && self.peers[at].replica.is_some() {
                self.step(at, Input::Unreachable { peer })?;
            }
        }
        for peer in snapshots {
            self.send_snapshot(at, peer)?;
        }
        if removed {
            self.peers[at].ends_ms.get_or_insert(self.now_ms + FAREWELL_MS);
        }
        Ok(())
    }

    /// A member that was removed ends a while after it knows, or when a peer says so.
    fn end_removed(&mut self, at: usize) -> bool {
        let Peer { id, ends_ms, .. } = self.peers[at];
        let removal = self.removed.get(&id).copied().unwrap_or(u64::MAX);
        let told = |(other, peer): (usize, &Peer)| {
            let hears = other != at && !self.network.is_cut(at, other);
            let votes = peer.applied.members.voters_and_learners().0.contains(&peer.id);
            let knows = peer.replica.as_ref().is_some_and(|replica| replica.durable_commit() >= removal);
            hears && votes && knows && peer.applied.members.is_removed(id)
        };
        let ends = ends_ms.is_some_and(|due| due <= self.now_ms) || self.peers.iter().enumerate().any(told);
        if ends {
            self.leave(at);
        }
        ends
    }

    fn place_of(&self, id: u64) -> Option<usize> {
        self.peers.iter().position(|peer| peer.id == id && peer.replica.is_some())
    }

    fn deliver(&mut self) -> Result<(), String> {
        let Some(Flight { to, message, .. }) = self.network.next(&mut self.rng) else { return Ok(()) };
        let peer = &self.peers[to];
        if peer.replica.is_none() || peer.applied.members.is_removed(message.from) {
            return Ok(());
        }
        self.take_in(to, Input::Received(Box::new(message)))
    }

    fn sync(&mut self, at: usize) {
        if self.now_ms < self.peers[at].hung_until_ms {
            return;
        }
        let batch = self.peers[at].log.sync();
        self.peers[at].durable = Some(batch);
    }

    fn tell_durable(&mut self, at: usize) -> Result<(), String> {
        match self.peers[at].durable.take() {
            Some(batch) => self.take_in(at, Input::Durable { batch }),
            None => Ok(()),
        }
    }

    fn apply(&mut self, at: usize) -> Result<(), String> {
        let max = [1, 5, 1000][self.rng.index(3)];
        for _ in 0..max {
            let Some(Committed { entry, carried }) = self.peers[at].committed.pop_front() else { break };
            let (index, term) = (entry.index, entry.term);
            let applied = &mut self.peers[at].applied;
            if index != applied.index + 1 {
                return Err(format!("entry {index} is applied after {}", applied.index));
            }
            (applied.index, applied.term) = (index, term);
            self.take_entry(&entry)?;
            if carried.is_some() {
                self.answered = self.answered.max(index);
                self.stats.answered += 1;
            }
            if entry.kind == EntryKind::ConfChangeV2 {
                let change = ConfChange::decode(&entry.data).map_err(|e| e.to_string())?;
                let members = &mut self.peers[at].applied.members;
                let change = members.check(&change).is_ok().then_some(change);
                if let Some(change) = &change {
                    members.apply(change);
                }
                self.step(at, Input::ConfApplied { index, change })?;
            } else {
                self.step(at, Input::Applied { index })?;
            }
            if self.peers[at].replica.is_none() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn propose(&mut self, at: usize) -> Result<(), String> {
        let proposals = (0..1 + self.rng.below(3)).map(|_| {
            let id = self.next_id();
            let data =
                Command::Compact(CompactionRequest { revision: id as i64, physical: false }).encode(id);
            Proposal { id, kind: EntryKind::Normal, leader_only: self.rng.one_in(8), data, carried: id }
        });
        let proposals = proposals.collect();
        self.take_in(at, Input::Propose(proposals))
    }

    fn change(&mut self, at: usize) -> Result<(), String> {
        let (voters, learners) = self.peers[at].applied.members.voters_and_learners();
        let runs = |id: &&u64| self.place_of(**id).is_some();
        // As the check of a member does it: there are enough to go on.
        let enough = self.lone || voters.iter().filter(runs).count() > voters.len().div_ceil(2);
        let room = self.peers.len() < MEMBERS_MAX && enough;
        let fresh = self.peers.len() as u64 + 1;
        let (kind, member) = match self.rng.below(6) {
            0 if room && !self.lone => (Kind::AddVoter, fresh),
            0..=2 if room => (Kind::AddLearner, fresh),
            3 if self.lone => return Ok(()),
            3 if !learners.is_empty() && enough => (Kind::Promote, learners[self.rng.index(learners.len())]),
            4 if voters.len() > 1 && enough => (Kind::Remove, voters[self.rng.index(voters.len())]),
            5 if !learners.is_empty() => (Kind::Remove, learners[self.rng.index(learners.len())]),
            _ => return Ok(()),
        };
        let id = self.next_id();
        let data = change_of(kind, member, id).encode();
        let proposal = Proposal { id, kind: EntryKind::ConfChangeV2, leader_only: false, data, carried: id };
        self.step(at, Input::Propose(vec![proposal]))
    }

    /// The state so far outlives a crash, and the log is let go up to there.
    fn save(&mut self, at: usize) {
        let peer = &mut self.peers[at];
        // What is applied of a log is durable there before the state that holds it is.
        if peer.log.durable_last() < peer.applied.index {
            return;
        }
        peer.saved = peer.applied.clone();
        let told = peer.replica.as_ref().expect("it runs").applied();
        peer.log.forget(peer.saved.index.min(told).saturating_sub(self.kept));
    }

    fn send_snapshot(&mut self, from: usize, peer: u64) -> Result<(), String> {
        let Applied { index, term, members } = self.peers[from].saved.clone();
        let reached = self.place_of(peer).filter(|to| !self.network.is_cut(from, *to) && !self.rng.one_in(4));
        let Some(to) = reached.filter(|_| index > 0) else {
            return self.step(from, Input::SnapshotEnded { peer, installed: false });
        };
        self.step(to, Input::SnapshotReceived { index, term })?;
        if std::mem::take(&mut self.peers[to].effects.install) {
            self.stats.installs += 1;
            let receiver = &mut self.peers[to];
            receiver.replica = None;
            receiver.saved = Applied { index, term, members };
            // A crash keeps what was promised as far as it was durable.
            let promise = receiver.log.crashed(&mut self.rng).promise();
            receiver.log = Arc::new(MemLog::after((index, term), promise));
            self.network.forget(to);
            self.boot(to)?;
        }
        self.step(from, Input::SnapshotEnded { peer, installed: true })
    }
}
