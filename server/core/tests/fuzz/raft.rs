// SPDX-License-Identifier: Apache-2.0
//! Any messages of peers, stepped into one of three replicas between ticks, syncs and applied entries.
//!
//! Owns      the replica of an input, over a log in memory, and a cluster of three whose traffic the samples are.
//! Holds     1. no message ends the process, whatever it says;
//!           2. what was handed out as committed is durable, follows what came before it, and stays in the log.
//! Never     judges a message: the replica does.

use super::{
    memlog::MemLog,
    program::{Program, push_piece},
};
use bytes::Bytes;
use cairn_core::{
    Command,
    replica::{
        Effects, Input, Proposal, Replica, ReplicaConfig, Stopped, bootstrap_entries,
        conf::{ConfChange, Kind},
        log::{EntryKind, Log},
        peer::{MessageKind, PeerMessage},
    },
    state::members::Members,
};
use cairn_engine::fuzz::Target;
use cairn_proto::{etcdserverpb::CompactionRequest, membershippb};
use prost::Message as _;
use std::sync::Arc;

pub const STEP: Target = Target { name: "raft-step", run, fix: |_| {}, samples, anchors: super::spread };

/// Steps of one input.
const STEPS_MAX: usize = 400;
/// The member whose replica an input drives.
const US: u64 = 1;
const MEMBERS: [u64; 3] = [1, 2, 3];

/// One member without a disk.
struct Member {
    id: u64,
    log: Arc<MemLog>,
    replica: Replica<u64, u64>,
    effects: Effects<u64, u64>,
    members: Members,
    now_ms: u64,
    /// Entries that were handed out, and the newest batch of the log that is durable.
    committed: Vec<(u64, u64)>,
    durable: u64,
    drawn: u64,
    /// What was done, as a program, where somebody wants to know.
    told: Vec<u8>,
}

/// What a step of a program is; 1 is a message too, made one of the term that the replica is in, or near it.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Op {
    Message = 0,
    Tick = 2,
    Durable = 3,
    Apply = 4,
    Propose = 5,
    Read = 6,
}

fn founders() -> [ConfChange; 3] {
    MEMBERS.map(|member_id| {
        let url = format!("http://m{member_id}:1");
        let raft_attributes = membershippb::RaftAttributes { peer_urls: vec![url], is_learner: false };
        let member = membershippb::Member {
            id: member_id,
            raft_attributes: Some(raft_attributes),
            ..Default::default()
        };
        ConfChange {
            request_id: 0,
            kind: Kind::AddVoter,
            member_id,
            cluster_id: 5,
            member: Some(member),
            learners_max: 1,
        }
    })
}

impl Member {
    fn new(id: u64) -> Member {
        let log = Arc::new(MemLog::default());
        let (entries, promise) = bootstrap_entries(&founders());
        log.append(&entries, Some(promise)).expect("memory");
        let config = ReplicaConfig {
            id,
            election_ticks: 10,
            heartbeat_ticks: 1,
            pre_vote: true,
            staggered: true,
            seed: id,
            boot_nonce: id,
            patience_ms: 7_000,
            applied: 0,
            voters: Vec::new(),
            learners: Vec::new(),
            promise,
        };
        let replica = Replica::new(config, log.clone()).expect("it fits");
        let mut member = Member {
            id,
            log,
            replica,
            effects: Effects::default(),
            members: Members::default(),
            now_ms: 0,
            committed: Vec::new(),
            durable: 0,
            drawn: 0,
            told: Vec::new(),
        };
        member.step(Input::Applied { index: 0 });
        member.durable();
        member.apply();
        member.durable();
        member.told.clear();
        member
    }

    fn step(&mut self, input: Input<u64, u64>) {
        self.replica.step(self.now_ms, input, &mut self.effects);
    }

    fn tick(&mut self) {
        self.told.push(Op::Tick as u8);
        self.now_ms += 100;
        self.step(Input::Tick);
    }

    fn durable(&mut self) {
        self.told.push(Op::Durable as u8);
        self.durable = self.log.batches();
        self.effects.sync = false;
        self.step(Input::Durable { batch: self.durable });
    }

    /// Applies what was handed out; false if one of the entries is of no version.
    fn apply(&mut self) -> bool {
        self.told.push(Op::Apply as u8);
        for committed in std::mem::take(&mut self.effects.committed) {
            let entry = committed.entry;
            let index = entry.index;
            let last = self.committed.last().map_or(0, |(index, _)| *index);
            assert_eq!(index, last + 1, "entries are handed out in order, each once");
            self.committed.push((index, entry.term));
            if entry.kind == EntryKind::Normal {
                self.step(Input::Applied { index });
                continue;
            }
            let Ok(change) = ConfChange::decode(&entry.data) else { return false };
            let good = self.members.check(&change).is_ok();
            if good {
                self.members.apply(&change);
            }
            self.step(Input::ConfApplied { index, change: good.then_some(change) });
        }
        true
    }

    fn propose(&mut self) {
        self.told.push(Op::Propose as u8);
        self.drawn += 1;
        let id = self.id << 32 | self.drawn;
        let compaction = CompactionRequest { revision: id as i64, physical: false };
        let data = Command::Compact(compaction).encode(id);
        let proposal = Proposal { id, kind: EntryKind::Normal, leader_only: false, data, carried: id };
        self.step(Input::Propose(vec![proposal]));
    }

    fn read(&mut self) {
        self.told.push(Op::Read as u8);
        self.drawn += 1;
        self.step(Input::Read(vec![self.drawn]));
    }

    fn receive(&mut self, message: PeerMessage) {
        self.told.push(Op::Message as u8);
        push_piece(&mut self.told, &message.encode_to_vec());
        self.step(Input::Received(Box::new(message)));
    }

    /// What holds after each step, whatever came.
    fn look(&self) {
        for (index, term) in &self.committed {
            assert_eq!(self.log.term(*index), Some(*term), "committed entry {index} is gone from the log");
        }
        assert!(self.replica.committed() <= self.log.last_index());
        let led = self.replica.leadership();
        assert!(!led.leads || led.leader == self.id, "{led:?}");
    }
}

fn run(input: &[u8]) -> bool {
    let mut member = Member::new(US);
    let mut program = Program::new(input);
    let mut taken = 0;
    for _ in 0..STEPS_MAX {
        let Some(op) = program.next() else { break };
        match op % 8 {
            0 | 1 => {
                let Ok(mut message) = PeerMessage::decode(program.piece()) else { continue };
                if op % 2 == 1 {
                    near(&mut message, op, member.replica.leadership().term);
                }
                let refused = member.effects.misbehaved.len();
                member.receive(message);
                taken += usize::from(member.effects.misbehaved.len() == refused);
            }
            2 => member.tick(),
            3 => member.durable(),
            4 => {
                if !member.apply() {
                    break;
                }
            }
            5 => member.propose(),
            6 => member.read(),
            // A time in which an election comes.
            _ => (0..10).for_each(|_| member.tick()),
        }
        member.look();
        member.effects.messages.clear();
        member.effects.misbehaved.clear();
        match member.effects.failed.take() {
            None if member.effects.removed => break,
            None => {}
            // What it was told leaves no other choice.
            Some(Stopped::EntriesLost { commit, last }) => {
                assert!(commit > last);
                break;
            }
            Some(Stopped::Log(error)) => panic!("a log in memory does not fail: {error}"),
        }
    }
    taken > 5
}

/// Makes a message one that comes from a peer now: most others are of a term that is long over.
fn near(message: &mut PeerMessage, op: u8, term: u64) {
    message.to = US;
    message.from = if op & 8 == 0 { 2 } else { 3 };
    let termless = matches!(message.kind(), Some(MessageKind::Propose | MessageKind::ReadIndex));
    let term = term + u64::from(op >> 6) % 3;
    message.term = if termless { 0 } else { term };
    message.log_term = message.log_term.min(message.term);
    for entry in &mut message.entries {
        entry.term = if termless { 0 } else { entry.term.min(term) };
    }
}

/// Lets three members talk until none has anything to say.
fn settle(members: &mut [Member; 3]) {
    for _ in 0..100 {
        let mut sent = Vec::new();
        for member in members.iter_mut() {
            member.durable();
            assert!(member.apply());
            sent.append(&mut member.effects.messages);
        }
        if sent.is_empty() {
            return;
        }
        for message in sent {
            members[message.to as usize - 1].receive(message);
        }
    }
    panic!("they never come to rest");
}

/// Ticks one member until it leads, and the others until they no more refuse to hear of it.
fn elect(members: &mut [Member; 3], id: usize) {
    for round in 0..60 {
        if members[id].replica.leadership().leads {
            return;
        }
        members[id].tick();
        settle(members);
        for other in (0..3).filter(|other| *other != id && round < 10) {
            if ![0, id as u64 + 1].contains(&members[other].replica.leadership().leader) {
                members[other].tick();
                settle(members);
            }
        }
    }
    panic!("member {} does not lead", id + 1);
}

/// What member 1 lived through: led by another, leading itself, given the leadership, and back again.
fn samples() -> Vec<Vec<u8>> {
    let lives: [fn(&mut [Member; 3]); 4] = [
        |members| elect(members, 1),
        |members| elect(members, 0),
        |members| {
            elect(members, 2);
            members[2].step(Input::Transfer { to: US });
            settle(members);
        },
        |members| {
            elect(members, 0);
            members[0].step(Input::Transfer { to: 2 });
            settle(members);
        },
    ];
    let live = |begin: fn(&mut [Member; 3])| {
        let mut members = MEMBERS.map(Member::new);
        settle(&mut members);
        begin(&mut members);
        for _ in 0..3 {
            (0..3).for_each(|id| members[id].propose());
            settle(&mut members);
            (0..3).for_each(|id| members[id].read());
            settle(&mut members);
            (0..3).for_each(|id| members[id].tick());
            settle(&mut members);
        }
        let told = std::mem::take(&mut members[0].told);
        assert!(told.len() < 20_000);
        told
    };
    lives.into_iter().map(live).collect()
}

/// The samples are what they are meant to be: each is taken, and in each there is an entry of a later term.
pub fn check_samples() {
    for sample in samples() {
        assert!(run(&sample));
        let mut program = Program::new(&sample);
        let mut last = Bytes::new();
        while let Some(op) = program.next() {
            if op == Op::Message as u8 {
                last = Bytes::copy_from_slice(program.piece());
            }
        }
        assert!(PeerMessage::decode(last).expect("a message").term > 1);
    }
}
