// SPDX-License-Identifier: Apache-2.0
//! Replicas that talk to each other, over logs in memory.
//!
//! Owns      the network between them: what is sent waits until the test lets it come through.
//! Holds     each test names a promise of a replica to its peers, or to a host in a cluster.
//! Never     needs a disk, a clock or a second thread.

mod memlog;
mod timing;

use bytes::Bytes;
use cairn_core::{
    Command,
    replica::{
        Effects, Input, Leadership, Proposal, Replica, ReplicaConfig, Stopped, bootstrap_entries,
        conf::{ConfChange, Kind},
        log::{EntryKind, Log},
        peer::{MessageKind, PeerEntry, PeerMessage},
    },
};
use cairn_proto::etcdserverpb::CompactionRequest;
use memlog::MemLog;
use std::{collections::BTreeMap, sync::Arc};

struct Member {
    log: Arc<MemLog>,
    replica: Replica<&'static str, u32>,
    effects: Effects<&'static str, u32>,
    /// What was applied, and what was kept of it here.
    applied: Vec<(u64, Option<&'static str>)>,
    refused: Vec<(&'static str, &'static str)>,
    /// Reads that may be answered, and the index that they need.
    reads: Vec<(u64, u32)>,
    refused_reads: Vec<(u32, &'static str)>,
    snapshots: Vec<u64>,
    removed: bool,
    hung: bool,
}

struct Cluster {
    members: BTreeMap<u64, Member>,
    now_ms: u64,
    /// Links that are cut, from one to the other.
    cut: Vec<(u64, u64)>,
}

fn change(kind: Kind, member_id: u64) -> ConfChange {
    ConfChange { request_id: 77, kind, member_id, cluster_id: 5, member: None, learners_max: 0 }
}

fn replica(id: u64, log: &Arc<MemLog>, applied: u64, voters: Vec<u64>) -> Replica<&'static str, u32> {
    let config = ReplicaConfig {
        id,
        election_ticks: 10,
        heartbeat_ticks: 1,
        pre_vote: true,
        staggered: true,
        seed: id,
        boot_nonce: id,
        patience_ms: 7_000,
        applied,
        voters,
        learners: Vec::new(),
        promise: log.promise(),
    };
    Replica::new(config, log.clone()).expect("it fits")
}

impl Cluster {
    /// Members 1 to `n`, before any election.
    fn of(n: u64) -> Cluster {
        let founders: Vec<_> = (1..=n).map(|id| change(Kind::AddVoter, id)).collect();
        let (entries, promise) = bootstrap_entries(&founders);
        let mut cluster = Cluster { members: BTreeMap::new(), now_ms: 0, cut: Vec::new() };
        for id in 1..=n {
            let log = Arc::new(MemLog::default());
            log.append(&entries, Some(promise)).expect("memory");
            cluster.start(id, log, 0, Vec::new());
        }
        cluster.settle();
        cluster
    }

    /// The same, once member 1 leads.
    fn led(n: u64) -> Cluster {
        let mut cluster = Cluster::of(n);
        cluster.elect(1);
        cluster
    }

    fn start(&mut self, id: u64, log: Arc<MemLog>, applied: u64, voters: Vec<u64>) {
        let replica = replica(id, &log, applied, voters);
        let member = Member {
            log,
            replica,
            effects: Effects::default(),
            applied: Vec::new(),
            refused: Vec::new(),
            reads: Vec::new(),
            refused_reads: Vec::new(),
            snapshots: Vec::new(),
            removed: false,
            hung: false,
        };
        self.members.insert(id, member);
        self.step(id, Input::Applied { index: applied });
    }

    fn member(&mut self, id: u64) -> &mut Member {
        self.members.get_mut(&id).expect("it is one of them")
    }

    fn leadership(&self, id: u64) -> Leadership {
        self.members[&id].replica.leadership()
    }

    fn step(&mut self, id: u64, input: Input<&'static str, u32>) {
        let now_ms = self.now_ms;
        let member = self.member(id);
        member.replica.step(now_ms, input, &mut member.effects);
    }

    /// One member's disk and state do what they were asked.
    fn work(&mut self, id: u64) {
        let member = self.member(id);
        member.effects.sync = false;
        let batch = member.log.batches();
        if !member.hung {
            self.step(id, Input::Durable { batch });
        }
        let member = self.member(id);
        for committed in std::mem::take(&mut member.effects.committed) {
            let index = committed.entry.index;
            self.member(id).applied.push((index, committed.carried));
            if committed.entry.kind == EntryKind::Normal {
                self.step(id, Input::Applied { index });
            } else {
                let change = ConfChange::decode(&committed.entry.data).expect("a change");
                self.step(id, Input::ConfApplied { index, change: Some(change) });
            }
        }
        let member = self.member(id);
        let effects = &mut member.effects;
        member.refused.extend(effects.refused.drain(..).map(|(what, why)| (what, why.text)));
        let reads = effects.reads.drain(..);
        member.reads.extend(reads.flat_map(|(index, all)| all.into_iter().map(move |read| (index, read))));
        member.refused_reads.extend(effects.refused_reads.drain(..).map(|(read, why)| (read, why.text)));
        member.snapshots.append(&mut effects.snapshots);
        member.removed |= effects.removed;
    }

    /// Messages go back and forth until nobody has any.
    fn settle(&mut self) {
        for _ in 0..200 {
            let ids: Vec<u64> = self.members.keys().copied().collect();
            for id in &ids {
                self.work(*id);
            }
            let sent: Vec<PeerMessage> =
                ids.iter().flat_map(|id| std::mem::take(&mut self.member(*id).effects.messages)).collect();
            if sent.is_empty() {
                return;
            }
            for message in sent {
                let link = (message.from, message.to);
                if !self.cut.contains(&link) && self.members.contains_key(&message.to) {
                    self.step(message.to, Input::Received(Box::new(message)));
                }
            }
        }
        panic!("they never come to rest");
    }

    fn tick(&mut self, id: u64) {
        self.now_ms += 100;
        self.step(id, Input::Tick);
        self.settle();
    }

    /// Ticks one member until it leads, and the others until they no more refuse to hear of it.
    fn elect(&mut self, id: u64) {
        let others: Vec<u64> = self.members.keys().copied().filter(|other| *other != id).collect();
        for round in 0..60 {
            if self.leadership(id).leads {
                return;
            }
            self.tick(id);
            for other in others.iter().filter(|_| round < 10) {
                if ![0, id].contains(&self.leadership(*other).leader) {
                    self.tick(*other);
                }
            }
        }
        panic!("member {id} does not lead");
    }

    fn propose(&mut self, id: u64, what: &'static str, leader_only: bool) {
        // The revision makes its bytes unlike any other's.
        let number = what.bytes().fold(0, |sum: u64, b| sum.wrapping_mul(31) + u64::from(b));
        let revision = number as i64;
        let data = Command::Compact(CompactionRequest { revision, physical: false }).encode(number);
        let proposal = Proposal { id: number, kind: EntryKind::Normal, leader_only, data, carried: what };
        self.step(id, Input::Propose(vec![proposal]));
    }

    fn carried(&self, id: u64) -> Vec<&'static str> {
        self.members[&id].applied.iter().filter_map(|(_, carried)| *carried).collect()
    }

    fn last(&self, id: u64) -> u64 {
        self.members[&id].log.last_index()
    }
}

#[test]
fn founders_elect_one_leader_and_apply_the_same() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, "a", false);
    cluster.settle();
    cluster.tick(1);
    for id in 1..=3 {
        let Leadership { leader, leads, alone, .. } = cluster.leadership(id);
        assert_eq!((leader, leads, alone), (1, id == 1, false));
        assert_eq!(cluster.last(id), cluster.last(1));
        assert_eq!(cluster.members[&id].applied.len() as u64, cluster.last(1));
    }
    assert_eq!(cluster.carried(1), ["a"], "who proposed it is told");
    assert_eq!(cluster.carried(2), [""; 0]);
}

// rule: RT-5
#[test]
fn a_follower_hands_proposals_on_and_answers_them_itself() {
    let mut cluster = Cluster::led(3);
    cluster.propose(2, "a", false);
    cluster.settle();
    cluster.tick(1);
    assert_eq!(cluster.carried(2), ["a"]);
    assert_eq!(cluster.carried(1), [""; 0]);
}

// rule: LEASE-6
#[test]
fn what_only_a_leader_may_ask_for_is_not_handed_on() {
    let mut cluster = Cluster::led(3);
    cluster.propose(2, "end of a lease", true);
    cluster.settle();
    assert_eq!(cluster.member(2).refused, [("end of a lease", "etcdserver: not leader")]);
    assert!(cluster.members.values().all(|m| m.applied.iter().all(|(_, carried)| carried.is_none())));
}

// rule: LIMIT-6, LIMIT-7
#[test]
fn a_proposal_waits_for_a_leader_and_is_given_up_when_its_time_is_over() {
    let mut cluster = Cluster::of(3);
    cluster.propose(2, "early", false);
    cluster.elect(1);
    cluster.tick(1);
    assert_eq!(cluster.carried(2), ["early"]);

    cluster.cut = vec![(2, 1), (2, 3)];
    cluster.propose(2, "lost", false);
    cluster.settle();
    cluster.now_ms += 7_000;
    cluster.step(2, Input::Tick);
    cluster.work(2);
    assert_eq!(cluster.member(2).refused, [("lost", "etcdserver: request timed out")]);
}

// rule: LIMIT-7
#[test]
fn what_is_asked_when_the_leader_is_gone_waits_for_the_next() {
    // A leader that is killed breaks its connections; one that is stopped is silent.
    for killed in [true, false] {
        let mut cluster = Cluster::led(3);
        cluster.cut = vec![(1, 2), (1, 3), (2, 1), (3, 1)];
        if killed {
            cluster.step(2, Input::Unreachable { peer: 1 });
        } else {
            for _ in 0..6 {
                cluster.tick(2);
            }
        }
        assert_eq!(cluster.leadership(2).leader, 1, "as far as it knows");
        cluster.propose(2, "after", false);
        cluster.settle();
        cluster.elect(3);
        cluster.tick(3);
        assert_eq!(cluster.carried(2), ["after"], "killed: {killed}");
        assert!(cluster.member(2).refused.is_empty());
    }
}

#[test]
fn what_waits_for_a_leader_that_seemed_to_be_gone_goes_to_it_when_it_is_heard_again() {
    let mut cluster = Cluster::led(3);
    cluster.step(2, Input::Unreachable { peer: 3 });
    cluster.propose(2, "no leader was lost", false);
    cluster.settle();
    cluster.tick(1);
    assert_eq!(cluster.carried(2), ["no leader was lost"]);

    cluster.step(2, Input::Unreachable { peer: 1 });
    cluster.propose(2, "waits", false);
    cluster.settle();
    assert_eq!(cluster.last(1), cluster.last(2));
    assert_eq!(cluster.member(2).replica.proposals(), 1);
    cluster.tick(1);
    cluster.tick(1);
    assert_eq!(cluster.carried(2), ["no leader was lost", "waits"], "with the next heartbeat");
    assert_eq!(cluster.carried(1), [""; 0]);
}

// rule: KV-24, RT-3
#[test]
fn a_follower_reads_at_the_index_of_the_leader() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, "a", false);
    cluster.settle();
    let last = cluster.last(1);
    cluster.step(3, Input::Read(vec![1, 2]));
    cluster.settle();
    assert_eq!(cluster.member(3).reads, [(last, 1), (last, 2)]);
}

// rule: KV-25, RT-3
#[test]
fn a_leader_that_is_cut_off_answers_no_read() {
    let mut cluster = Cluster::led(3);
    cluster.cut = vec![(1, 2), (1, 3), (2, 1), (3, 1)];
    cluster.step(1, Input::Read(vec![1]));
    cluster.settle();
    assert!(cluster.member(1).reads.is_empty());
    for _ in 0..80 {
        cluster.tick(1);
    }
    assert!(!cluster.leadership(1).leads, "it lost its quorum");
    assert!(cluster.member(1).reads.is_empty());
    assert_eq!(cluster.member(1).refused_reads, [(1, "etcdserver: request timed out")]);
}

// rule: KV-25
#[test]
fn a_read_that_waits_while_another_takes_the_lead_is_refused() {
    let mut cluster = Cluster::led(3);
    cluster.cut = vec![(3, 1)];
    cluster.step(3, Input::Read(vec![1]));
    cluster.settle();
    cluster.step(1, Input::Transfer { to: 2 });
    cluster.settle();
    assert!(cluster.leadership(2).leads);
    assert_eq!(cluster.member(3).refused_reads, [(1, "etcdserver: leader changed")]);
    assert!(cluster.member(3).reads.is_empty());
}

// rule: KV-24
#[test]
fn who_is_left_alone_is_so_once_it_applied_what_the_others_may_have_answered() {
    let mut cluster = Cluster::led(2);
    cluster.tick(1);
    let removal = ConfChange { request_id: 9, ..change(Kind::Remove, 2) };
    let (kind, data) = (EntryKind::ConfChangeV2, removal.encode());
    let proposal = Proposal { id: 9, kind, leader_only: false, data, carried: "removal" };
    cluster.step(1, Input::Propose(vec![proposal]));
    cluster.propose(1, "seen by both", false);
    cluster.now_ms += 10;
    cluster.step(1, Input::Applied { index: 0 });
    let last = cluster.last(1);
    // Both entries are committed, and member 2 may have applied them; member 1 is slower.
    for _ in 0..3 {
        for (from, to) in [(1, 2), (2, 1)] {
            let sent = std::mem::take(&mut cluster.member(from).effects.messages);
            for message in sent {
                cluster.step(to, Input::Received(Box::new(message)));
            }
            let batch = cluster.member(to).log.batches();
            cluster.step(to, Input::Durable { batch });
        }
    }
    assert_eq!(cluster.member(1).replica.committed(), last);
    cluster.step(1, Input::ConfApplied { index: last - 1, change: Some(removal) });
    assert!(!cluster.leadership(1).alone, "a read here would miss what was answered there");
    cluster.step(1, Input::Applied { index: last });
    assert!(cluster.leadership(1).alone);
}

#[test]
fn what_a_cut_off_leader_appended_is_refused_when_others_took_its_place() {
    let mut cluster = Cluster::led(3);
    cluster.cut = vec![(1, 2), (1, 3), (2, 1), (3, 1)];
    cluster.propose(1, "gone", false);
    cluster.settle();
    for _ in 0..25 {
        cluster.tick(1);
    }
    cluster.elect(2);
    cluster.propose(2, "kept", false);
    cluster.propose(2, "kept too", false);
    cluster.settle();
    cluster.cut.clear();
    for _ in 0..5 {
        cluster.tick(2);
    }
    assert_eq!(cluster.member(1).refused, [("gone", "etcdserver: leader changed")]);
    assert_eq!(cluster.last(1), cluster.last(2));
}

#[test]
fn what_a_leader_appended_before_it_was_deposed_is_refused_when_it_leads_again() {
    let mut cluster = Cluster::led(3);
    cluster.cut = vec![(1, 2), (1, 3), (2, 1), (3, 1)];
    for what in ["first", "second", "third", "fourth"] {
        cluster.propose(1, what, false);
    }
    cluster.settle();
    cluster.elect(2);
    cluster.cut.clear();
    cluster.tick(2);
    assert_eq!(cluster.last(1), cluster.last(2), "what it appended has made room");
    cluster.step(2, Input::Transfer { to: 1 });
    cluster.settle();
    assert!(cluster.leadership(1).leads);
    let refused: Vec<&str> = cluster.member(1).refused.iter().map(|(what, _)| *what).collect();
    assert_eq!(refused.len(), 4, "nobody waits for an entry that will never be: {refused:?}");
    assert!(cluster.members[&1].applied.iter().all(|(_, carried)| carried.is_none()));
}

// rule: KV-24
#[test]
fn a_sole_voter_answers_by_itself_only_while_it_has_no_learner() {
    let mut cluster = Cluster::led(1);
    assert!(cluster.leadership(1).alone);
    let data = change(Kind::AddLearner, 2).encode();
    let kind = EntryKind::ConfChangeV2;
    let proposal = Proposal { id: 77, kind, leader_only: false, data, carried: "add" };
    cluster.step(1, Input::Propose(vec![proposal]));
    cluster.settle();
    let Leadership { leads, alone, .. } = cluster.leadership(1);
    assert_eq!(
        (leads, alone),
        (true, false),
        "a learner may have shown what this member has not applied yet"
    );
}

// rule: MT-8
#[test]
fn leadership_moves_to_whom_it_is_given() {
    let mut cluster = Cluster::led(3);
    cluster.step(1, Input::Transfer { to: 3 });
    cluster.settle();
    assert!(cluster.leadership(3).leads && !cluster.leadership(1).leads);
}

#[test]
fn a_leader_whose_log_hangs_gives_up_and_does_not_campaign_until_it_is_written() {
    let mut cluster = Cluster::led(3);
    cluster.member(1).hung = true;
    cluster.propose(1, "a", false);
    cluster.settle();
    cluster.step(1, Input::LogHangs);
    assert!(!cluster.leadership(1).leads);
    cluster.settle();
    assert!(cluster.leadership(2).leads || cluster.leadership(3).leads, "another took over at once");
    cluster.cut = vec![(1, 2), (1, 3), (2, 1), (3, 1)];
    let term = cluster.leadership(1).term;
    for _ in 0..50 {
        cluster.tick(1);
    }
    assert_eq!(cluster.leadership(1).term, term);
}

// rule: CL-4
#[test]
fn a_removed_member_is_told_and_the_rest_go_on() {
    let mut cluster = Cluster::led(3);
    let remove = change(Kind::Remove, 3);
    let data = remove.encode();
    let kind = EntryKind::ConfChangeV2;
    let proposal = Proposal { id: 77, kind, leader_only: false, data, carried: "remove" };
    cluster.step(2, Input::Propose(vec![proposal]));
    cluster.settle();
    cluster.tick(1);
    assert_eq!(cluster.carried(2), ["remove"]);
    assert!(cluster.member(3).removed && !cluster.member(1).removed);
    cluster.members.remove(&3);
    cluster.propose(1, "a", false);
    cluster.settle();
    assert_eq!(cluster.carried(1), ["a"]);
}

// rule: CL-4
#[test]
fn a_leader_that_is_to_be_removed_hands_over_first() {
    let mut cluster = Cluster::led(3);
    let data = change(Kind::Remove, 1).encode();
    let kind = EntryKind::ConfChangeV2;
    let proposal = Proposal { id: 77, kind, leader_only: false, data, carried: "remove" };
    cluster.step(1, Input::Propose(vec![proposal]));
    cluster.settle();
    assert!(!cluster.leadership(1).leads, "it hands over before it proposes that");
    cluster.tick(2);
    cluster.tick(3);
    assert_eq!(cluster.carried(1), ["remove"]);
    assert!(cluster.member(1).removed && !cluster.leadership(1).leads);
    assert!(cluster.leadership(2).leads || cluster.leadership(3).leads);
}

// rule: CL-11
#[test]
fn changes_of_the_membership_follow_each_other() {
    let mut cluster = Cluster::led(3);
    for (id, learner) in [(1, 4), (2, 5)] {
        let change = ConfChange { request_id: learner, ..change(Kind::AddLearner, learner) };
        let kind = EntryKind::ConfChangeV2;
        let data = change.encode();
        let proposal = Proposal { id: learner, kind, leader_only: false, data, carried: "add" };
        cluster.step(id, Input::Propose(vec![proposal]));
    }
    cluster.settle();
    cluster.tick(1);
    assert_eq!((cluster.carried(1), cluster.carried(2)), (vec!["add"], vec!["add"]));
    assert_eq!(cluster.members[&1].replica.progress().count(), 5);
}

// rule: R27 of the test plan
#[test]
fn a_member_whose_disk_lost_entries_stops() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, "a", false);
    cluster.settle();
    cluster.tick(1);
    let empty = Arc::new(MemLog::default());
    cluster.start(3, empty, 0, Vec::new());
    cluster.tick(1);
    let failed = cluster.member(3).effects.failed.take();
    assert!(matches!(failed, Some(Stopped::EntriesLost { last: 0, .. })), "{failed:?}");
}

#[test]
fn who_is_too_far_behind_is_sent_a_snapshot_and_goes_on_from_it() {
    let mut cluster = Cluster::led(3);
    cluster.cut = vec![(3, 1), (1, 3), (3, 2), (2, 3)];
    for what in ["a", "b", "c"] {
        cluster.propose(1, what, false);
        cluster.settle();
    }
    let (index, term) = (cluster.last(1), cluster.leadership(1).term);
    cluster.member(1).log.forget(index);
    cluster.cut.clear();
    for _ in 0..3 {
        cluster.tick(1);
    }
    assert_eq!(cluster.member(1).snapshots, [3], "asked for once");

    cluster.step(3, Input::SnapshotReceived { index, term });
    assert!(cluster.member(3).effects.install);
    let log = Arc::new(MemLog::behind((index, term), cluster.member(3).log.promise()));
    cluster.start(3, log, index, vec![1, 2, 3]);
    // What the leader had sent before it knew comes now, and fits nowhere.
    let kind = MessageKind::Append as i32;
    let late =
        PeerMessage { kind, to: 3, from: 1, term, index: index + 5, log_term: term, ..Default::default() };
    cluster.step(3, Input::Received(Box::new(late)));
    cluster.step(1, Input::SnapshotEnded { peer: 3, installed: true });
    cluster.propose(1, "d", false);
    cluster.settle();
    for _ in 0..3 {
        cluster.tick(1);
    }
    assert_eq!(cluster.last(3), cluster.last(1), "it follows from where the snapshot ends");
    assert_eq!(cluster.member(1).snapshots, [3]);
}

#[test]
fn a_snapshot_that_the_log_reaches_by_itself_is_not_installed() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, "a", false);
    cluster.settle();
    let (index, term) = (cluster.last(3), cluster.leadership(1).term);
    cluster.step(3, Input::SnapshotReceived { index, term });
    assert!(!cluster.member(3).effects.install);
    cluster.work(3);
    assert_eq!(cluster.members[&3].replica.committed(), index, "it says that this is committed");
}

#[test]
fn a_message_that_nobody_may_send_is_told_and_changes_nothing() {
    let mut cluster = Cluster::led(3);
    let term = cluster.leadership(1).term;
    let kind = MessageKind::AppendResponse as i32;
    let ack = PeerMessage { kind, to: 1, from: 2, term, index: 1_000, ..Default::default() };
    let append = PeerMessage {
        kind: MessageKind::Append as i32,
        to: 3,
        from: 1,
        term,
        index: 1_000,
        context: Bytes::new(),
        ..Default::default()
    };
    // Who knows of more than there is must be the leader, and in this term that is another.
    let kind = MessageKind::Heartbeat as i32;
    let beat = PeerMessage { kind, to: 3, from: 2, term, commit: 1_000, ..Default::default() };
    cluster.step(1, Input::Received(Box::new(ack)));
    cluster.step(3, Input::Received(Box::new(append)));
    cluster.step(3, Input::Received(Box::new(beat)));
    assert_eq!(cluster.member(1).effects.misbehaved.len(), 1);
    assert_eq!(cluster.member(3).effects.misbehaved.len(), 2);
    assert!(cluster.member(3).effects.failed.is_none(), "nobody stops for that");
    cluster.propose(1, "a", false);
    cluster.settle();
    assert_eq!(cluster.carried(1), ["a"]);
}
