// SPDX-License-Identifier: Apache-2.0
//! The replica over a log in memory that says by itself what is durable.
//!
//! Owns      the log, and the order in which it becomes durable.
//! Holds     each test names a promise of the replica to its host.
//! Never     needs a disk or a second thread.

#[path = "cluster/memlog.rs"]
#[allow(dead_code)] // the tests of clusters ask for more
mod memlog;

use bytes::Bytes;
use cairn_core::replica::{
    Effects, Input, Proposal, Replica, ReplicaConfig, StartRefused, bootstrap_entries,
    conf::{ConfChange, Kind},
    log::{EntryKind, Log},
};
use memlog::MemLog;
use std::sync::Arc;

const ID: u64 = 7;

struct Host {
    log: Arc<MemLog>,
    replica: Replica<&'static str, u32>,
    effects: Effects<&'static str, u32>,
    applied: Vec<(u64, u64, String, Option<&'static str>)>,
}

fn config(log: &MemLog, applied: u64, voters: Vec<u64>) -> ReplicaConfig {
    let promise = log.promise();
    ReplicaConfig {
        id: ID,
        election_ticks: 10,
        heartbeat_ticks: 1,
        pre_vote: true,
        staggered: true,
        seed: 1,
        boot_nonce: 99,
        patience_ms: 7_000,
        applied,
        voters,
        learners: Vec::new(),
        promise,
    }
}

impl Host {
    fn open(log: Arc<MemLog>, applied: u64) -> Host {
        let voters = if applied == 0 { Vec::new() } else { vec![ID] };
        let replica = Replica::new(config(&log, applied, voters), log.clone()).expect("it fits");
        let mut host = Host { log, replica, effects: Effects::default(), applied: Vec::new() };
        host.step(Input::Applied { index: applied });
        host
    }

    /// A new cluster of one, up to the moment when it leads.
    fn fresh() -> Host {
        let log = Arc::new(MemLog::default());
        let change = ConfChange {
            request_id: 0,
            kind: Kind::AddVoter,
            member_id: ID,
            cluster_id: 5,
            member: None,
            learners_max: 0,
        };
        let (entries, promise) = bootstrap_entries(&[change]);
        log.append(&entries, Some(promise)).expect("memory");
        let mut host = Host::open(log, 0);
        host.apply();
        host.sync();
        host.apply();
        assert!(host.replica.leadership().leads);
        host
    }

    fn step(&mut self, input: Input<&'static str, u32>) {
        self.replica.step(0, input, &mut self.effects);
    }

    /// Everything appended so far becomes durable.
    fn sync(&mut self) {
        let batch = self.log.batches();
        self.effects.sync = false;
        self.step(Input::Durable { batch });
    }

    /// Applies what was handed out.
    fn apply(&mut self) {
        for committed in std::mem::take(&mut self.effects.committed) {
            let entry = committed.entry;
            let index = entry.index;
            if entry.kind == EntryKind::Normal {
                let text = String::from_utf8(entry.data.to_vec()).expect("text");
                self.applied.push((index, entry.term, text, committed.carried));
                self.step(Input::Applied { index });
            } else {
                let change = ConfChange::decode(&entry.data).expect("a change");
                self.step(Input::ConfApplied { index, change: Some(change) });
            }
        }
    }

    fn propose(&mut self, texts: &[&'static str]) {
        let proposal = |t: &&'static str| Proposal {
            id: 1,
            kind: EntryKind::Normal,
            leader_only: false,
            data: Bytes::from_static(t.as_bytes()),
            carried: *t,
        };
        self.step(Input::Propose(texts.iter().map(proposal).collect()));
    }
}

#[test]
fn nothing_is_committed_before_it_is_durable() {
    let mut host = Host::fresh();
    let before = host.applied.len();
    host.propose(&["a", "b"]);
    assert!(host.effects.sync);
    assert!(host.effects.committed.is_empty(), "not durable yet");
    host.sync();
    host.apply();
    let applied: Vec<_> =
        host.applied[before..].iter().map(|(_, _, text, carried)| (&text[..], *carried)).collect();
    assert_eq!(applied, [("a", Some("a")), ("b", Some("b"))]);
}

#[test]
fn proposals_of_one_moment_are_one_batch() {
    let mut host = Host::fresh();
    let batches = host.log.batches();
    host.propose(&["a"; 300]);
    assert_eq!(host.log.batches(), batches + 1);
    host.propose(&["b"]);
    host.sync();
    host.apply();
    assert_eq!(host.applied.iter().filter(|(_, _, t, _)| !t.is_empty()).count(), 301, "one sync covers both");
}

#[test]
fn a_sole_voter_leads_again_after_a_restart_and_replays_from_what_was_applied() {
    let mut host = Host::fresh();
    host.propose(&["a", "b", "c"]);
    host.sync();
    host.apply();
    let (index, term, ..) = host.applied.iter().find(|(_, _, t, _)| t == "b").expect("applied").clone();

    let mut again = Host::open(host.log.clone(), index);
    again.apply();
    again.sync();
    again.apply();
    assert!(again.replica.leadership().leads && again.replica.leadership().alone);
    assert!(again.replica.leadership().term > term, "a new term for each start");
    let texts: Vec<&str> = again.applied.iter().map(|(_, _, text, _)| &text[..]).collect();
    assert_eq!(texts, ["c", ""], "what was not applied, and the entry of the new term");
}

// rule: LIMIT-7
#[test]
fn a_proposal_without_a_leader_waits_for_one() {
    let mut host = Host::fresh();
    let mut again = Host::open(host.log.clone(), 0);
    again.propose(&["early"]);
    assert!(again.effects.refused.is_empty());
    again.apply();
    again.sync();
    again.apply();
    again.sync();
    again.apply();
    assert!(again.applied.iter().any(|(.., carried)| *carried == Some("early")));
    host.propose(&[]);
}

// rule: KV-24
#[test]
fn reads_of_one_moment_share_a_round_and_see_what_is_committed() {
    let mut host = Host::fresh();
    host.propose(&["a"]);
    host.sync();
    let committed = host.replica.committed();
    host.step(Input::Read(vec![1, 2, 3]));
    let reads = std::mem::take(&mut host.effects.reads);
    assert_eq!(reads, [(committed, vec![1, 2, 3])]);
}

#[test]
fn a_read_before_the_first_entry_of_the_term_is_asked_for_again() {
    let log = Host::fresh().log;
    let mut again = Host::open(log, 0);
    again.step(Input::Read(vec![1]));
    again.apply();
    assert!(again.effects.reads.is_empty(), "no entry of this term is committed");
    again.sync();
    again.apply();
    again.replica.step(500, Input::Tick, &mut again.effects);
    let reads: Vec<u32> = again.effects.reads.drain(..).flat_map(|(_, waiting)| waiting).collect();
    let refused = again.effects.refused_reads.len();
    assert_eq!(reads.len() + refused, 1, "answered once or told that the leader changed");
}

#[test]
fn lost_entries_and_gaps_are_refused_before_raft_sees_them() {
    let log = Host::fresh().log;
    let last = log.last_index();
    let lost = Replica::<(), ()>::new(config(&log, last + 5, vec![ID]), log.clone());
    assert!(matches!(lost, Err(StartRefused::EntriesLost { .. })));
}

// rule: RT-10
#[test]
fn stopping_refuses_what_waits() {
    let mut host = Host::fresh();
    host.propose(&["a"]);
    let mut effects = Effects::default();
    host.replica.drain(&mut effects);
    assert_eq!(effects.refused.len(), 1);
    assert_eq!(effects.refused[0].1.text, "etcdserver: server stopped");
}
