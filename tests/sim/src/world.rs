// SPDX-License-Identifier: Apache-2.0
//! One seeded run: a member, its clients and its disk, in an order and with faults that the seed draws.
//!
//! Owns      time, the disk, the clients, and the record of what everyone was told.
//! Holds     1. every entry of the log is applied by the model too, and every answer, event and read is
//!              compared with it;
//!           2. what was applied once is in the log again after every crash, entry for entry;
//!           3. an operation is in the log once at most, after everything that was acknowledged before it
//!              began; a linearizable read sees at least that;
//!           4. a lease never ends early;
//!           5. the size that a quota counts falls by a defragmentation alone, and a restart keeps it.
//! Never     draws from anything but its seed: a failing run is repeated from it.

mod clients;
mod rest;
mod threads;
mod watchers;

use crate::{
    model::{Model, Outcome},
    node::{Node, OpId, Sabotage},
    stats::Stats,
    swarm::{Action, Moment, Swarm},
    traffic::Traffic,
    watcher::Watcher,
};
use cairn_core::{
    Command, Refusal,
    boot::{BootConfig, Start},
    state::Applied,
    watch::{Outbox, StreamId},
};
use cairn_engine::{
    io::Vfs,
    sim::{Fault, SimVfs, SplitMix},
};
use cairn_proto::etcdserverpb as pb;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    sync::Arc,
};

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
    /// The next crash comes when the member is there.
    moment: Option<Moment>,
    /// The store's size, and that of its newest slot.
    size: u64,
    size_saved: u64,
    sabotage: Option<Sabotage>,
    pub stats: Stats,
}

const DIR: &str = "/data/member";
const WAL_DIR: &str = "/data/member/wal";
const TICK_MS: u64 = 100;
/// The member for which the quota raises its alarm.
const SELF: u64 = 1;
/// Starts that may fail in a row while no fault is armed any more.
const BOOTS_MAX: u64 = 3;

fn alarm_command(action: pb::alarm_request::AlarmAction, member_id: u64, alarm: i32) -> Command {
    Command::Alarm(pb::AlarmRequest { action: action.into(), member_id, alarm })
}

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
            moment: None,
            size: 0,
            size_saved: 0,
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
        self.moment = None;
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
            Action::CrashAt => {
                self.moment = Some(Moment::ALL[self.rng.index(Moment::ALL.len())]);
                Ok(())
            }
            Action::Defragment => self.defragment(),
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
            start: Start::New { others: Vec::new() },
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
        let size = node.db.size();
        if size < self.size_saved {
            return broken(format!("the size is {size} after a start, and was {}", self.size_saved));
        }
        self.size = size;
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
        // What only the cache had may be gone: the newest slot, too.
        if how != 0 || self.faulty || self.vfs.fault_fired() {
            self.size_saved = 0;
        }
        self.vfs = match how {
            0 => self.vfs.restarted(),
            1 => self.vfs.after_power_loss(),
            _ => self.vfs.after_some_power_loss(&mut self.rng),
        };
        self.vfs.stop_recording();
        self.faulty = false;
        self.note(format_args!("crash of kind {how}"));
    }

    /// Crashes if this is the moment that was waited for.
    fn crash_at(&mut self, moment: Moment) -> bool {
        let now = self.moment == Some(moment);
        if now {
            self.moment = None;
            self.stats.crashes_at[moment as usize] += 1;
            self.note(format_args!("{moment:?}"));
            self.crash();
        }
        now
    }

    /// Only a defragmentation lowers the size (QU-5).
    fn check_size(&mut self) -> Result<(), Ended> {
        let (size, before) = (self.node().db.size(), self.size);
        self.size = size;
        if size < before { broken(format!("the size fell from {before} to {size}")) } else { Ok(()) }
    }

    fn arm(&mut self) {
        let fault = Fault::ALL[self.rng.index(Fault::ALL.len())];
        let nth = 1 + self.rng.below(40);
        self.faulty |= self.vfs.fault_fired();
        self.vfs.arm(fault, nth);
        self.note(format_args!("{fault:?} at call {nth}"));
    }
}
