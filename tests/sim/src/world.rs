// SPDX-License-Identifier: Apache-2.0
//! One seeded run: a member, its clients and its disk, in an order and with faults that the seed draws.
//!
//! Owns      time, the disk, the clients, and the record of what everyone was told.
//! Holds     1. every entry of the log is applied by the model too, and every answer, event and read is
//!              compared with it;
//!           2. what was applied once is in the log again after every crash, entry for entry;
//!           3. an operation is in the log once at most, after everything that was acknowledged before it
//!              began; a linearizable read sees at least that;
//!           4. a lease never ends early.
//! Never     draws from anything but its seed: a failing run is repeated from it.

use crate::{
    model::{Model, Outcome},
    node::{self, Node, OpId, Sabotage, Turn},
    swarm::{Action, Swarm},
    traffic::Traffic,
    watcher::Watcher,
};
use cairn_core::{
    Command, Refusal,
    boot::BootConfig,
    lessor::KeepAlive,
    replica::log::{EntryKind, LogEntry},
    state::Applied,
    watch::{Out, Outbox, StreamId},
};
use cairn_engine::{
    io::{Budget, Vfs},
    sim::{Fault, SimVfs, SplitMix},
};
use cairn_mvcc::{EventKind, PurgeProgress, RevisionEvents};
use cairn_proto::etcdserverpb as pb;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    sync::Arc,
};

/// How much was done, for floors.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Stats {
    pub steps: u64,
    pub entries: u64,
    pub acked: u64,
    pub unknown: u64,
    pub refused: u64,
    pub reads: u64,
    pub events: u64,
    pub resumed: u64,
    pub cut_off: u64,
    pub crashes: u64,
    pub failures: u64,
    pub checkpoints: u64,
    pub compactions: u64,
    pub purges: u64,
    pub expired: u64,
    pub hashes: u64,
}

impl Stats {
    pub fn add(&mut self, other: &Stats) {
        let Stats {
            steps,
            entries,
            acked,
            unknown,
            refused,
            reads,
            events,
            resumed,
            cut_off,
            crashes,
            failures,
            checkpoints,
            compactions,
            purges,
            expired,
            hashes,
        } = other;
        self.steps += steps;
        self.entries += entries;
        self.acked += acked;
        self.unknown += unknown;
        self.refused += refused;
        self.reads += reads;
        self.events += events;
        self.resumed += resumed;
        self.cut_off += cut_off;
        self.crashes += crashes;
        self.failures += failures;
        self.checkpoints += checkpoints;
        self.compactions += compactions;
        self.purges += purges;
        self.expired += expired;
        self.hashes += hashes;
    }
}

/// A rule was broken. Run the seed again with a trace to see how.
#[derive(Clone, Debug)]
pub struct Violation {
    pub seed: u64,
    pub step: u64,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {} step {}: {}", self.seed, self.step, self.what)
    }
}

impl std::error::Error for Violation {}

/// An operation of a client under way.
struct Op {
    /// The newest index that anyone had been answered for when it began.
    after_index: u64,
    /// The newest revision that anyone had seen then.
    after_revision: i64,
    /// What a read asks for.
    range: Option<pb::RangeRequest>,
}

/// An entry of the log as it was applied first.
struct Entry {
    term: u64,
    digest: u64,
    /// What its proposer is to be told.
    outcome: Option<Outcome>,
    /// The revision that it made.
    made: Option<i64>,
}

/// What is known of a lease's life.
struct LeaseLife {
    ttl_s: i64,
    renewed_ms: u64,
}

struct Stream {
    id: StreamId,
    outbox: Arc<Outbox>,
}

/// How one step ended.
enum Ended {
    /// The member failed, as it does on a failed write, and is to be started anew.
    Failed(String),
    Broken(String),
}

impl From<String> for Ended {
    fn from(why: String) -> Ended {
        Ended::Failed(why)
    }
}

impl From<cairn_engine::Error> for Ended {
    fn from(error: cairn_engine::Error) -> Ended {
        Ended::Failed(error.to_string())
    }
}

fn broken<T>(what: String) -> Result<T, Ended> {
    Err(Ended::Broken(what))
}

/// See the module.
pub struct World {
    seed: u64,
    rng: SplitMix,
    swarm: Swarm,
    traffic: Traffic,
    trace: bool,
    /// A hash of everything that happened: equal for two runs of one seed.
    digest: u64,
    now_ms: u64,
    next_tick_ms: u64,
    vfs: SimVfs,
    /// A fault happened in this life of the member, though another may be armed by now.
    faulty: bool,
    boots: u64,
    node: Option<Node>,
    model: Model,
    /// Every entry that was applied, from index 1.
    log: Vec<Entry>,
    /// Ids of requests in the log.
    ids: BTreeSet<u64>,
    ops: BTreeMap<OpId, Op>,
    next_op: OpId,
    /// Answers that wait for their ranges to be read.
    unread: Vec<(Result<Applied, Refusal>, Outcome)>,
    acked_index: u64,
    seen_revision: i64,
    leases: BTreeMap<i64, LeaseLife>,
    stream: Option<Stream>,
    watchers: Vec<Watcher>,
    hashes: BTreeMap<(i64, i64), u32>,
    sabotage: Option<Sabotage>,
    pub stats: Stats,
}

const DIR: &str = "/data/member";
const WAL_DIR: &str = "/data/member/wal";
const TICK_MS: u64 = 100;
/// Starts that may fail in a row while no fault is armed any more.
const BOOTS_MAX: u64 = 3;

impl World {
    pub fn new(seed: u64, trace: bool) -> World {
        let mut rng = SplitMix::new(seed);
        let swarm = Swarm::draw(&mut rng);
        let traffic = Traffic { keys: swarm.keys, value_bytes: swarm.value_bytes };
        World {
            seed,
            rng,
            swarm,
            traffic,
            trace,
            digest: 0xcbf2_9ce4_8422_2325,
            now_ms: 0,
            next_tick_ms: 0,
            vfs: SimVfs::new(),
            faulty: false,
            boots: 0,
            node: None,
            model: Model::new(),
            log: Vec::new(),
            ids: BTreeSet::new(),
            ops: BTreeMap::new(),
            next_op: 0,
            unread: Vec::new(),
            acked_index: 0,
            seen_revision: 1,
            leases: BTreeMap::new(),
            stream: None,
            watchers: Vec::new(),
            hashes: BTreeMap::new(),
            sabotage: None,
            stats: Stats::default(),
        }
    }

    /// The same with a mistake that the checks are to find.
    pub fn sabotaged(seed: u64, sabotage: Sabotage) -> World {
        World { sabotage: Some(sabotage), ..World::new(seed, false) }
    }

    /// Runs the whole seed: faults first, then a quiet end in which everything must come to rest.
    ///
    /// # Errors
    /// The first broken rule.
    pub fn run(&mut self) -> Result<u64, Violation> {
        if self.trace {
            println!("{:#?}", self.swarm);
        }
        for _ in 0..self.swarm.steps {
            self.stats.steps += 1;
            let action = self.swarm.action(&mut self.rng);
            let done = self.act(action);
            self.settle(done)?;
        }
        self.faulty |= self.vfs.fault_fired();
        self.vfs.arm(Fault::Read, u64::MAX);
        self.come_to_rest()?;
        Ok(self.digest)
    }

    fn violation(&self, what: String) -> Violation {
        Violation { seed: self.seed, step: self.stats.steps, what }
    }

    fn note(&mut self, what: fmt::Arguments<'_>) {
        let text = what.to_string();
        for byte in text.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.trace {
            println!("{:6} {:8} ms  {text}", self.stats.steps, self.now_ms);
        }
    }

    /// A failed member is started again, as a supervisor would.
    fn settle(&mut self, done: Result<(), Ended>) -> Result<(), Violation> {
        match done {
            Ok(()) => Ok(()),
            Err(Ended::Broken(what)) => Err(self.violation(what)),
            Err(Ended::Failed(why)) => {
                if !self.faulty && !self.vfs.fault_fired() {
                    return Err(self.violation(format!("the member failed without a fault: {why}")));
                }
                self.stats.failures += 1;
                self.note(format_args!("the member failed: {why}"));
                self.crash();
                Ok(())
            }
        }
    }

    fn act(&mut self, action: Action) -> Result<(), Ended> {
        if self.node.is_none() {
            return self.boot();
        }
        match action {
            Action::Write => self.write(),
            Action::Read => self.read(),
            Action::Replica => self.replica(),
            Action::Sync => self.sync(),
            Action::State => self.state_turn(),
            Action::Time => {
                let ms = [1, 30, 100, 700, 3_000][self.rng.index(5)];
                self.now_ms += ms;
                Ok(())
            }
            Action::Checkpoint => self.checkpoint(),
            Action::Purge => self.purge(),
            Action::Watch => self.watch(),
            Action::Drain => self.drain(),
            Action::CatchUp => Ok(self.node().catch_up().map(drop)?),
            Action::Answer => self.answer(),
            Action::KeepAlive => self.keep_alive(),
            Action::Hash => self.hash(),
            Action::Fault => {
                self.arm();
                Ok(())
            }
            Action::Crash => {
                self.crash();
                Ok(())
            }
        }
    }

    fn node(&mut self) -> &mut Node {
        self.node.as_mut().expect("the caller saw that it runs")
    }

    // ---- life and death ----

    fn boot(&mut self) -> Result<(), Ended> {
        self.boots += 1;
        let vfs: Arc<dyn Vfs> = Arc::new(self.vfs.clone());
        let config = BootConfig {
            dir: PathBuf::from(DIR),
            wal_dir: PathBuf::from(WAL_DIR),
            peer_urls: vec!["http://localhost:2380".to_owned()],
            cluster_token: "sim".to_owned(),
            heartbeat_ms: TICK_MS,
            election_ms: 10 * TICK_MS,
            pre_vote: true,
            lease_checkpoints: true,
            seed: self.rng.next_u64(),
            options: self.swarm.options(vfs.clone()),
            wal_options: self.swarm.wal_options(vfs),
        };
        let booted = Node::boot(config, self.swarm.hub.clone(), self.boots, self.sabotage);
        let node = booted.map_err(|e| Ended::Failed(format!("start: {e}")))?;
        let (last, known) = (node.wal.last_index(), self.log.len() as u64);
        if last < known {
            return broken(format!("the log ends at {last}, but {known} entries were applied"));
        }
        self.note(format_args!("started: applied {:?}, log to {last}", node.state.applied()));
        self.node = Some(node);
        Ok(())
    }

    fn crash(&mut self) {
        self.stats.crashes += 1;
        self.node = None;
        self.stream = None;
        self.unread.clear();
        self.stats.unknown += self.ops.len() as u64;
        self.ops.clear();
        // Deadlines are kept by the leader's clock, which starts anew: a lease may live longer, never less.
        let how = self.rng.below(3);
        self.vfs = match how {
            0 => self.vfs.restarted(),
            1 => self.vfs.after_power_loss(),
            _ => self.vfs.after_some_power_loss(&mut self.rng),
        };
        self.vfs.stop_recording();
        self.faulty = false;
        self.note(format_args!("crash of kind {how}"));
    }

    fn arm(&mut self) {
        let fault = Fault::ALL[self.rng.index(Fault::ALL.len())];
        let nth = 1 + self.rng.below(40);
        self.faulty |= self.vfs.fault_fired();
        self.vfs.arm(fault, nth);
        self.note(format_args!("{fault:?} at call {nth}"));
    }

    // ---- clients ----

    fn begin(&mut self, range: Option<pb::RangeRequest>) -> OpId {
        self.next_op += 1;
        let op = Op { after_index: self.acked_index, after_revision: self.seen_revision, range };
        self.ops.insert(self.next_op, op);
        self.next_op
    }

    fn write(&mut self) -> Result<(), Ended> {
        if self.ops.len() as u64 >= self.swarm.clients {
            return Ok(());
        }
        let op = self.begin(None);
        let leases = self.model.leases();
        let command = self.traffic.write(&mut self.rng, op, self.model.revision(), &leases);
        self.note(format_args!("op {op}: {command:?}"));
        self.node().propose(op, command);
        Ok(())
    }

    fn read(&mut self) -> Result<(), Ended> {
        if self.ops.len() as u64 >= self.swarm.clients {
            return Ok(());
        }
        let range = self.traffic.range(&mut self.rng, self.model.revision());
        if self.rng.one_in(4) {
            return self.read_now(&range, 0);
        }
        if self.node().reads_alone() && self.rng.one_in(2) {
            let after = self.seen_revision;
            return self.read_now(&range, after);
        }
        let op = self.begin(Some(range));
        self.node().read_index(op);
        Ok(())
    }

    fn read_now(&mut self, range: &pb::RangeRequest, after: i64) -> Result<(), Ended> {
        let node = self.node.as_ref().expect("the caller saw that it runs");
        let now = node.reader.revision().map_err(|e| e.to_string())?;
        let compacted = node.reader.compact_revision().map_err(|e| e.to_string())?;
        let got = match node.reader.range(&cairn_core::convert::range_op(range.clone())) {
            Ok(done) => node::range(done),
            Err(error) => Outcome::Refused(cairn_core::convert::refusal(error)?.text),
        };
        self.stats.reads += 1;
        if now < after {
            return broken(format!("a linearizable read at {now} after {after} was seen"));
        }
        let expected = self.model.range(range, now, compacted);
        self.note(format_args!("read {range:?} -> {got:?}"));
        if got != expected {
            return broken(format!("read {range:?}\n     got {got:?}\nexpected {expected:?}"));
        }
        self.seen_revision = self.seen_revision.max(now);
        Ok(())
    }

    fn keep_alive(&mut self) -> Result<(), Ended> {
        let ids = self.model.leases();
        if ids.is_empty() {
            return Ok(());
        }
        let id = ids[self.rng.index(ids.len())];
        let now_ms = self.now_ms;
        let kept = self.node().lessor.lock().expect("one thread").keep_alive(now_ms, id);
        self.note(format_args!("keep alive {id} -> {kept:?}"));
        if let (KeepAlive::Renewed { ttl_s }, Some(life)) = (kept, self.leases.get_mut(&id)) {
            if ttl_s != life.ttl_s {
                return broken(format!("lease {id} is renewed for {ttl_s} s in place of {} s", life.ttl_s));
            }
            life.renewed_ms = now_ms;
        }
        Ok(())
    }

    // ---- the member's threads ----

    fn replica(&mut self) -> Result<(), Ended> {
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

    fn sync(&mut self) -> Result<(), Ended> {
        let room = self.node().sync()?;
        if !room {
            self.note(format_args!("no room for the log"));
        }
        Ok(())
    }

    fn state_turn(&mut self) -> Result<(), Ended> {
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
            if matches!((&command, &expected), (Command::Compact(_), Outcome::Revision(_))) {
                self.stats.compactions += 1;
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
    fn answer(&mut self) -> Result<(), Ended> {
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

    fn checkpoint(&mut self) -> Result<(), Ended> {
        let bytes = [1, 4 << 10, u64::MAX][self.rng.index(3)];
        let confirm = self.rng.one_in(3);
        let done = self.node().checkpoint(Budget::bytes(bytes), confirm)?;
        self.stats.checkpoints += u64::from(done);
        self.note(format_args!("checkpoint step of {bytes} bytes: done {done}"));
        Ok(())
    }

    fn purge(&mut self) -> Result<(), Ended> {
        let entries = [1, 10, 1000][self.rng.index(3)];
        let progress = self.node().purge(entries, false)?;
        self.stats.purges += u64::from(matches!(progress, PurgeProgress::Done(_)));
        self.note(format_args!("purge: {progress:?}"));
        Ok(())
    }

    /// The hash of a revision depends on what is stored alone: it is the same after every crash, checkpoint
    /// and purge.
    fn hash(&mut self) -> Result<(), Ended> {
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

    // ---- watchers ----

    /// Opens the stream if there is none, and resumes or adds a watcher, cancels one, or asks for progress.
    fn watch(&mut self) -> Result<(), Ended> {
        let now_ms = self.now_ms;
        if self.stream.is_none() {
            let (id, outbox) = self.node().hub.open_stream(now_ms, Arc::new(|| ()));
            self.stream = Some(Stream { id, outbox });
            self.watchers.retain(|watcher| !watcher.ended);
            for at in 0..self.watchers.len() {
                // Ids are the client's from here on, so that they are known before the answer.
                self.watchers[at].resume(at as i64 + 1);
                self.stats.resumed += 1;
                self.create(at)?;
            }
            return Ok(());
        }
        let id = self.stream.as_ref().expect("it is open").id;
        let now = self.node().reader.revision().map_err(|e| e.to_string())?;
        match self.rng.below(8) {
            0 => self.node().hub.progress(id),
            1 if !self.watchers.is_empty() => {
                let at = self.rng.index(self.watchers.len());
                let watch_id = self.watchers[at].watch_id;
                self.note(format_args!("cancel watcher {watch_id}"));
                self.node().hub.cancel(id, watch_id, now);
            }
            _ if self.watchers.iter().filter(|w| !w.ended).count() < self.swarm.watchers => {
                let request = self.traffic.watch(&mut self.rng, self.model.revision());
                self.watchers.push(Watcher::new(request, self.watchers.len() as i64 + 1));
                self.create(self.watchers.len() - 1)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn create(&mut self, at: usize) -> Result<(), Ended> {
        let id = self.stream.as_ref().expect("it is open").id;
        let now = self.node().reader.revision().map_err(|e| e.to_string())?;
        let watcher = &self.watchers[at];
        let request = pb::WatchCreateRequest { watch_id: watcher.watch_id, ..watcher.request.clone() };
        self.note(format_args!("watch {request:?}"));
        self.node().hub.create(id, &request, now);
        Ok(())
    }

    /// The client reads some of what its stream has.
    fn drain(&mut self) -> Result<(), Ended> {
        let Some(stream) = &self.stream else { return Ok(()) };
        let outbox = stream.outbox.clone();
        for _ in 0..[1, 5, 100][self.rng.index(3)] {
            let Some(out) = outbox.pop() else { break };
            self.take_response(&out)?;
        }
        Ok(())
    }

    fn take_response(&mut self, out: &Out) -> Result<(), Ended> {
        self.note(format_args!("response {out:?}"));
        let watch_id = match out {
            Out::Created { watch_id, .. }
            | Out::Canceled { watch_id, .. }
            | Out::Compacted { watch_id, .. }
            | Out::Events { watch_id, .. }
            | Out::Progress { watch_id, .. } => *watch_id,
            Out::Refused { reason, .. } => return broken(format!("a create was refused: {reason}")),
        };
        let compacted = self.model.compacted;
        let all = watch_id == -1;
        let mut told = 0;
        // A progress of the stream is about the watchers that were there when it was asked for.
        let meant = |w: &&mut Watcher| w.watch_id == watch_id || (all && w.created && !w.ended);
        for watcher in self.watchers.iter_mut().filter(meant) {
            // A second cancel follows the end by compaction (WATCH-22).
            if watcher.ended && matches!(out, Out::Canceled { .. }) {
                continue;
            }
            let before = watcher.events;
            let taken = watcher.take(out, &self.model, compacted);
            taken.map_err(|what| Ended::Broken(format!("watcher {watch_id}: {what}")))?;
            told += watcher.events - before;
        }
        self.stats.events += told;
        self.stats.cut_off += u64::from(matches!(out, Out::Compacted { .. }));
        Ok(())
    }

    // ---- the end ----

    /// No more faults: the member starts, everything is answered, every watcher is told everything, leases
    /// run out, and the store is whole.
    fn come_to_rest(&mut self) -> Result<(), Violation> {
        const ROUNDS: u64 = 400;
        self.swarm.watchers = 0;
        for round in 0..ROUNDS {
            if self.node.is_none() {
                let booted = self.boot();
                self.settle(booted)?;
                if self.boots > self.stats.crashes + BOOTS_MAX {
                    return Err(self.violation("it does not start without faults".to_owned()));
                }
                continue;
            }
            // The first half of the rounds lets leases run out.
            self.now_ms += if round < ROUNDS / 2 { 500 } else { 1 };
            let round = self.round();
            self.settle(round)?;
        }
        let rest = self.check_rest();
        self.settle(rest)
    }

    fn round(&mut self) -> Result<(), Ended> {
        self.replica()?;
        self.sync()?;
        self.replica()?;
        self.state_turn()?;
        while self.node().catch_up()? {}
        if self.stream.is_none() {
            self.watch()?;
        }
        self.drain()?;
        while !self.unread.is_empty() {
            self.answer()?;
        }
        self.node().purge(1000, false)?;
        self.checkpoint()
    }

    fn check_rest(&mut self) -> Result<(), Ended> {
        let node = self.node.as_ref().expect("it was started");
        if !node.is_quiet() || !self.ops.is_empty() {
            return broken(format!("{} operations are never answered", self.ops.len()));
        }
        let revision = node.reader.revision().map_err(|e| e.to_string())?;
        if revision != self.model.revision() {
            return broken(format!("the store ends at {revision}, the model at {}", self.model.revision()));
        }
        if let Some(watcher) = self.watchers.iter().find(|w| !w.is_told(&self.model, revision)) {
            return broken(format!("never told everything: {watcher:?} at {revision}"));
        }
        if !self.model.leases().is_empty() {
            return broken(format!("leases never end: {:?}", self.model.leases()));
        }
        let zero = bytes::Bytes::from_static(b"\0");
        let everything = pb::RangeRequest { key: zero.clone(), range_end: zero, ..Default::default() };
        self.read_now(&everything, revision)?;
        self.hash()?;
        let node = self.node.as_ref().expect("it was started");
        node.db.verify().map_err(|e| Ended::Broken(format!("the store is not whole: {e}")))?;
        Ok(())
    }
}
