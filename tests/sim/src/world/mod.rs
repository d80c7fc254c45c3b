// SPDX-License-Identifier: Apache-2.0
//! One seeded run: members, their clients, disks and network, in an order and with faults that the seed draws.
//!
//! Owns      time, the disks, the clients, and the record of what everyone was told.
//! Holds     1. every entry of the log is applied by the model too, and every answer, event and read, of any
//!              member, is compared with it;
//!           2. what one member applied, every member applies, entry for entry, and again after every crash;
//!           3. an operation is in the log once at most, after everything that was acknowledged before it
//!              began; a linearizable read sees at least that;
//!           4. a lease never ends early; users, roles and the auth revision are those of the log on every member;
//!           5. a term has one leader, and its log has everything that was applied before; entries of one index and
//!              term are the same on all members, with all that comes before them; what is applied is durable at
//!              a majority;
//!           6. the size that a quota counts falls by a defragmentation alone, and a restart keeps it;
//!           7. a member whose store rotted serves nothing of that, and is whole again with its log and its votes; one
//!              whose log rotted has forgotten nothing, or does not start and is replaced;
//!           8. without faults all members come to the same state, everything is answered, and who was removed ends.
//! Never     draws from anything but its seed: a failing run is repeated from it.

mod changes;
mod clients;
mod end;
mod logs;
mod members;
mod raft;
mod record;
mod rot;
mod snapshots;
mod watch;

use crate::{
    digest::Digest,
    model::{Model, Outcome},
    net::Network,
    node::{Node, OpId, Sabotage},
    shrink,
    stats::Stats,
    swarm::{Action, Founders, Moment, Swarm},
    traffic::Traffic,
};
use cairn_core::{ClusterId, Command, MemberId, Refusal, boot::draw, state::Applied};
use cairn_engine::sim::{Fault, SplitMix};
use cairn_proto::etcdserverpb as pb;
use clients::Op;
use members::Host;
pub(crate) use raft::digest as digest_of;
use raft::{INSPECTED_MAX, Record};
use record::{Entry, Lead, LeaseLife};
use snapshots::{Late, Transfer};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write as _},
};
use watch::WatchClient;

/// A rule was broken. Run the seed again with a trace to see how.
#[derive(Clone, Debug)]
pub struct Violation {
    pub seed: u64,
    pub founders: Founders,
    pub step: u64,
    /// The steps that were taken, if not all were.
    pub taken: Option<Vec<u64>>,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { seed, founders, step, taken, what } = self;
        writeln!(f, "seed {seed} step {step}: {what}")?;
        write!(f, "repeat with: cargo run -p cairn-sim -- ")?;
        if let Founders::Of(members) = founders {
            write!(f, "--members {members} ")?;
        }
        write!(f, "--seed {seed} ")?;
        if let Some(taken) = taken {
            write!(f, "--steps {} ", shrink::listed(taken))?;
        }
        write!(f, "--trace")
    }
}

impl std::error::Error for Violation {}

/// How one step ended.
enum Ended {
    /// A member failed, as it does on a failed write, and is to be started anew.
    Failed(String),
    /// A member did not start, for what is wrong with its store.
    Damaged(String),
    /// A member did not start, for what its log lost.
    LogDamaged(String),
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
    founders: Founders,
    /// Of this step alone, so that a run can leave out steps and do the others as before.
    rng: SplitMix,
    step: u64,
    taken: Option<Vec<u64>>,
    swarm: Swarm,
    traffic: Traffic,
    trace: bool,
    /// A hash of everything that happened: equal for two runs of one seed.
    digest: Digest,
    now_ms: u64,
    hosts: Vec<Host>,
    network: Network,
    transfers: Vec<Transfer>,
    late: Option<Late>,
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
    /// The newest member that began to lead.
    lead: Option<Lead>,
    /// Since then nothing but a leader can hold the end of a lease up.
    quiet_since_ms: u64,
    /// Which entry ended the newest lease of an id.
    ended_leases: BTreeMap<i64, u64>,
    watch_clients: Vec<WatchClient>,
    hashes: BTreeMap<(i64, i64), u32>,
    cluster_id: ClusterId,
    raft: Record,
    /// The newest change of the membership that was asked for, and removals that may still be applied.
    changing: Option<OpId>,
    removals: BTreeSet<OpId>,
    /// The entry of the newest change that was applied anywhere.
    changed: u64,
    /// Which entry removed a member.
    removed: BTreeMap<u64, u64>,
    /// Things go wrong.
    faults: bool,
    /// The next crash comes when a member is there.
    moment: Option<Moment>,
    sabotage: Option<Sabotage>,
    pub stats: Stats,
}

fn alarm_command(action: pb::alarm_request::AlarmAction, member_id: u64, alarm: i32) -> Command {
    Command::Alarm(pb::AlarmRequest { action: action.into(), member_id, alarm })
}

impl World {
    pub fn new(seed: u64, founders: Founders, trace: bool) -> World {
        let mut rng = SplitMix::new(seed);
        let swarm = Swarm::draw(&mut rng, founders);
        let traffic = Traffic { keys: swarm.keys, value_bytes: swarm.value_bytes };
        let mut hosts: Vec<Host> = (0..swarm.founders).map(|at| Host::founder(at, swarm.founders)).collect();
        for host in &mut hosts {
            host.rate = swarm.rates[rng.index(swarm.rates.len())];
        }
        let ids: Vec<MemberId> = hosts.iter().map(|host| MemberId(host.id)).collect();
        World {
            seed,
            founders,
            rng,
            step: 0,
            taken: None,
            traffic,
            trace,
            digest: Digest::default(),
            now_ms: 0,
            hosts,
            network: Network::new(swarm.network.clone()),
            swarm,
            transfers: Vec::new(),
            late: None,
            model: Model::new(),
            log: Vec::new(),
            ids: BTreeSet::new(),
            ops: BTreeMap::new(),
            next_op: 0,
            unread: Vec::new(),
            acked_index: 0,
            seen_revision: 1,
            leases: BTreeMap::new(),
            lead: None,
            quiet_since_ms: u64::MAX,
            ended_leases: BTreeMap::new(),
            watch_clients: (0..ids.len()).map(|_| WatchClient::default()).collect(),
            hashes: BTreeMap::new(),
            cluster_id: ClusterId::of_initial(&ids),
            raft: Record::default(),
            changing: None,
            removals: BTreeSet::new(),
            changed: 0,
            removed: BTreeMap::new(),
            faults: true,
            moment: None,
            sabotage: None,
            stats: Stats::default(),
        }
    }

    /// The same with a mistake that the checks are to find.
    pub fn sabotaged(seed: u64, founders: Founders, sabotage: Sabotage) -> World {
        World { sabotage: Some(sabotage), ..World::new(seed, founders, false) }
    }

    /// The same with these steps alone.
    pub fn with_steps(self, taken: Vec<u64>) -> World {
        World { taken: Some(taken), ..self }
    }

    /// How many steps the seed has, before its quiet end.
    pub fn steps(&self) -> u64 {
        self.swarm.steps
    }

    /// Whether clients are users, and change users.
    pub fn has_users(&self) -> bool {
        self.swarm.users
    }

    /// Whether stores rot.
    pub fn has_rot(&self) -> bool {
        self.swarm.rots()
    }

    /// Whether logs rot.
    pub fn has_log_rot(&self) -> bool {
        self.swarm.rots_logs()
    }

    /// Runs the whole seed: faults first, then a quiet end in which everything must come to rest.
    ///
    /// # Errors
    /// The first broken rule.
    pub fn run(&mut self) -> Result<u64, Violation> {
        if self.trace {
            println!("{:#?}", self.swarm);
        }
        let all = 0..self.swarm.steps;
        let taken = self.taken.clone().unwrap_or_else(|| all.collect());
        for step in taken {
            self.step = step;
            self.stats.steps += 1;
            self.rng = SplitMix::new(draw(self.seed, step));
            let action = self.swarm.action(&mut self.rng);
            let at = self.any_member();
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
        self.step = self.swarm.steps;
        self.rng = SplitMix::new(draw(self.seed, self.step));
        self.come_to_rest()?;
        self.stats.simulated_ms = self.now_ms;
        Ok(self.digest.value())
    }

    /// A member that was not removed or lost: running, down or paused.
    fn any_member(&mut self) -> usize {
        loop {
            let at = self.rng.index(self.hosts.len());
            if !self.hosts[at].gone {
                return at;
            }
        }
    }

    /// What the clock of a member shows.
    fn clock(&self, at: usize) -> u64 {
        self.now_ms * self.hosts[at].rate / 100
    }

    fn is_paused(&self, at: usize) -> bool {
        self.now_ms < self.hosts[at].paused_until_ms
    }

    /// A rule is broken at this step.
    pub fn violation(&self, what: String) -> Violation {
        let World { seed, founders, step, ref taken, .. } = *self;
        Violation { seed, founders, step, taken: taken.clone(), what }
    }

    /// Something happened.
    fn note(&mut self, what: fmt::Arguments<'_>) {
        self.digest.write_fmt(what).expect("a number takes any text");
        self.trace(what);
    }

    /// The same of something whose text is long: its number is mixed in, and the text is made for a trace alone.
    fn note_long(&mut self, number: u64, what: fmt::Arguments<'_>) {
        self.digest.number(number);
        self.trace(what);
    }

    fn trace(&self, what: fmt::Arguments<'_>) {
        if self.trace {
            println!("{:6} {:8} ms  {what}", self.step, self.now_ms);
        }
    }

    /// A failed member is started again, as a supervisor would.
    fn settle(&mut self, at: usize, done: Result<(), Ended>) -> Result<(), Violation> {
        if let Some(node) = &mut self.hosts[at].node
            && let Some(what) = node.accused.pop()
        {
            return Err(self.violation(format!("member {at}: {what}")));
        }
        let damaged = matches!(done, Err(Ended::Damaged(_)));
        match done {
            Ok(()) => Ok(()),
            Err(Ended::Broken(what)) => Err(self.violation(format!("member {at}: {what}"))),
            Err(Ended::LogDamaged(why)) if logs::has_rotten_log(&self.hosts[at]) => {
                self.stats.failures += 1;
                self.note(format_args!("member {at} failed: {why}"));
                self.crash(at);
                self.give_up(at);
                Ok(())
            }
            Err(Ended::Failed(why) | Ended::Damaged(why) | Ended::LogDamaged(why)) => {
                let found = self.finds_rot(at, damaged, &why);
                let host = &self.hosts[at];
                if !host.faulty && !host.vfs.fault_fired() && !found {
                    return Err(self.violation(format!("member {at} failed without a fault: {why}")));
                }
                self.stats.failures += 1;
                self.note(format_args!("member {at} failed: {why}"));
                self.crash(at);
                if found {
                    self.set_aside(at);
                }
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
            _ if self.is_paused(at) => return Ok(()),
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
            Action::Change => self.change(at),
            Action::Pause => {
                self.pause(at);
                Ok(())
            }
            Action::Lose => {
                self.lose(at);
                Ok(())
            }
            Action::Inspect => self.inspect(at, INSPECTED_MAX),
            Action::Rot => {
                self.rot(at);
                Ok(())
            }
            Action::Scrub => self.scrub(at),
            Action::RotLog => {
                self.rot_log(at);
                Ok(())
            }
            Action::Replace => self.replace(at),
            Action::Time | Action::Partition | Action::Calm => unreachable!("done above"),
        }
    }

    fn node(&mut self, at: usize) -> &mut Node {
        self.hosts[at].node.as_mut().expect("the caller saw that it runs")
    }
}
