// SPDX-License-Identifier: Apache-2.0
//! One seeded run: members, their clients, disks and network, in an order and with faults that the seed draws.
//!
//! Owns      time, the disks, the clients, and the record of what everyone was told.
//! Holds     1. every entry of the log is applied by the model too, and every answer, event and read, of any
//!              member, is compared with it;
//!           2. what one member applied, every member applies, entry for entry, and again after every crash;
//!           3. an operation is in the log once at most, after everything that was acknowledged before it
//!              began; a linearizable read sees at least that;
//!           4. a lease never ends early;
//!           5. a term has one leader;
//!           6. the size that a quota counts falls by a defragmentation alone, and a restart keeps it;
//!           7. without faults all members come to the same state, and everything is answered.
//! Never     draws from anything but its seed: a failing run is repeated from it.

mod clients;
mod end;
mod members;
mod record;
mod snapshots;
mod watch;

use crate::{
    model::{Model, Outcome},
    net::Network,
    node::{Node, OpId, Sabotage},
    stats::Stats,
    swarm::{Action, Moment, Swarm},
    traffic::Traffic,
};
use cairn_core::{Command, Refusal, state::Applied};
use cairn_engine::sim::{Fault, SplitMix};
use cairn_proto::etcdserverpb as pb;
use clients::Op;
use members::Host;
use record::{Entry, LeaseLife};
use snapshots::Transfer;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};
use watch::WatchClient;

/// A rule was broken. Run the seed again with a trace to see how.
#[derive(Clone, Debug)]
pub struct Violation {
    pub seed: u64,
    pub members: usize,
    pub step: u64,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { seed, members, step, what } = self;
        writeln!(f, "seed {seed} step {step}: {what}")?;
        write!(f, "repeat with: cargo run -p cairn-sim -- --members {members} --seed {seed} --trace")
    }
}

impl std::error::Error for Violation {}

/// How one step ended.
enum Ended {
    /// A member failed, as it does on a failed write, and is to be started anew.
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

/// An answer whose ranges are not read yet: from which member, what it is, what it should be.
struct Unread {
    at: usize,
    got: Result<Applied, Refusal>,
    expected: Outcome,
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
    hosts: Vec<Host>,
    network: Network,
    transfers: Vec<Transfer>,
    model: Model,
    /// Every entry that was applied, from index 1.
    log: Vec<Entry>,
    /// Ids of requests in the log.
    ids: BTreeSet<u64>,
    ops: BTreeMap<OpId, Op>,
    next_op: OpId,
    unread: Vec<Unread>,
    acked_index: u64,
    seen_revision: i64,
    leases: BTreeMap<i64, LeaseLife>,
    watch_clients: Vec<WatchClient>,
    hashes: BTreeMap<(i64, i64), u32>,
    /// Who led each term.
    leaders: BTreeMap<u64, usize>,
    /// The next crash comes when a member is there.
    moment: Option<Moment>,
    sabotage: Option<Sabotage>,
    pub stats: Stats,
}

fn alarm_command(action: pb::alarm_request::AlarmAction, member_id: u64, alarm: i32) -> Command {
    Command::Alarm(pb::AlarmRequest { action: action.into(), member_id, alarm })
}

impl World {
    pub fn new(seed: u64, members: usize, trace: bool) -> World {
        let mut rng = SplitMix::new(seed);
        let swarm = Swarm::draw(&mut rng, members);
        let traffic = Traffic { keys: swarm.keys, value_bytes: swarm.value_bytes };
        World {
            seed,
            rng,
            traffic,
            trace,
            digest: 0xcbf2_9ce4_8422_2325,
            now_ms: 0,
            hosts: (0..members).map(|at| Host::new(at, members)).collect(),
            network: Network::new(swarm.network.clone()),
            swarm,
            transfers: Vec::new(),
            model: Model::new(),
            log: Vec::new(),
            ids: BTreeSet::new(),
            ops: BTreeMap::new(),
            next_op: 0,
            unread: Vec::new(),
            acked_index: 0,
            seen_revision: 1,
            leases: BTreeMap::new(),
            watch_clients: (0..members).map(|_| WatchClient::default()).collect(),
            hashes: BTreeMap::new(),
            leaders: BTreeMap::new(),
            moment: None,
            sabotage: None,
            stats: Stats::default(),
        }
    }

    /// The same with a mistake that the checks are to find.
    pub fn sabotaged(seed: u64, members: usize, sabotage: Sabotage) -> World {
        World { sabotage: Some(sabotage), ..World::new(seed, members, false) }
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
            let at = self.rng.index(self.hosts.len());
            if action == Action::Calm {
                self.calm()?;
                continue;
            }
            let done = self.act(at, action);
            self.settle(at, done)?;
        }
        for host in &mut self.hosts {
            host.faulty |= host.vfs.fault_fired();
            host.vfs.arm(Fault::Read, u64::MAX);
        }
        self.moment = None;
        self.come_to_rest()?;
        Ok(self.digest)
    }

    fn violation(&self, what: String) -> Violation {
        Violation { seed: self.seed, members: self.hosts.len(), step: self.stats.steps, what }
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
    fn settle(&mut self, at: usize, done: Result<(), Ended>) -> Result<(), Violation> {
        if let Some(node) = &mut self.hosts[at].node
            && let Some(what) = node.accused.pop()
        {
            return Err(self.violation(format!("member {at}: {what}")));
        }
        match done {
            Ok(()) => Ok(()),
            Err(Ended::Broken(what)) => Err(self.violation(format!("member {at}: {what}"))),
            Err(Ended::Failed(why)) => {
                let host = &self.hosts[at];
                if !host.faulty && !host.vfs.fault_fired() {
                    return Err(self.violation(format!("member {at} failed without a fault: {why}")));
                }
                self.stats.failures += 1;
                self.note(format_args!("member {at} failed: {why}"));
                self.crash(at);
                Ok(())
            }
        }
    }

    /// What is drawn for the member `at`, or for the network and the clients as a whole.
    fn act(&mut self, at: usize, action: Action) -> Result<(), Ended> {
        match action {
            Action::Time => {
                let times = &self.swarm.times_ms;
                self.now_ms += times[self.rng.index(times.len())];
                return Ok(());
            }
            Action::Partition => {
                let members = self.hosts.len();
                let what = self.network.partition(&mut self.rng, members);
                self.stats.partitions += 1;
                self.note(format_args!("network: {what}"));
                return Ok(());
            }
            _ if self.hosts[at].node.is_none() => return self.boot(at),
            _ => {}
        }
        match action {
            Action::Write => self.write(at),
            Action::Read => self.read(at),
            Action::Replica => self.replica(at),
            Action::Sync => self.sync(at),
            Action::State => self.state_turn(at),
            Action::Checkpoint => self.checkpoint(at),
            Action::Purge => self.purge(at),
            Action::Watch => self.watch(at),
            Action::Drain => self.drain(at),
            Action::CatchUp => Ok(self.node(at).catch_up().map(drop)?),
            Action::Answer => self.answer(),
            Action::KeepAlive => self.keep_alive(at),
            Action::Hash => self.hash(at),
            Action::Deliver => {
                self.deliver();
                Ok(())
            }
            Action::Transfer => self.transfer(at),
            Action::Lead | Action::Hang => {
                self.disturb(at, action);
                Ok(())
            }
            Action::Fault => {
                self.arm(at);
                Ok(())
            }
            Action::Crash => {
                self.crash(at);
                Ok(())
            }
            Action::CrashAt => {
                self.moment = Some(Moment::ALL[self.rng.index(Moment::ALL.len())]);
                Ok(())
            }
            Action::Defragment => self.defragment(at),
            Action::Time | Action::Partition | Action::Calm => unreachable!("done above"),
        }
    }

    fn node(&mut self, at: usize) -> &mut Node {
        self.hosts[at].node.as_mut().expect("the caller saw that it runs")
    }
}
