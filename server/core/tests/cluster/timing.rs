// SPDX-License-Identifier: Apache-2.0
//! How long replicas wait for each other, and how much is on its way between them.
//!
//! Holds     every figure is counted in ticks, messages or bytes: there is no clock.
//! Never     needs a disk.

use super::*;
use cairn_core::replica::log::Promise;

const ELECTION_TICKS: u64 = 10;

/// Ticks until a member that hears of nobody asks for votes.
fn ticks_to_campaign(seed: u64, passed_over: usize) -> u64 {
    let founders: Vec<_> = (1..=3).map(|id| change(Kind::AddVoter, id)).collect();
    let (entries, promise) = bootstrap_entries(&founders);
    let log = Arc::new(MemLog::default());
    log.append(&entries, Some(promise)).expect("memory");
    let mut replica: Replica<(), ()> =
        Replica::new(config(seed, 3, vec![1, 2, 3], promise), log).expect("it fits");
    let mut effects = Effects::default();
    replica.step(0, Input::Applied { index: 3 }, &mut effects);
    replica.step(0, Input::FastForward { ticks: passed_over }, &mut effects);
    for tick in 1..1_000 {
        replica.step(0, Input::Tick, &mut effects);
        if effects.messages.iter().any(|message| message.kind == MessageKind::PreVote as i32) {
            return tick;
        }
    }
    panic!("it never campaigns");
}

fn config(seed: u64, applied: u64, voters: Vec<u64>, promise: Promise) -> ReplicaConfig {
    ReplicaConfig {
        id: 1,
        election_ticks: ELECTION_TICKS as usize,
        heartbeat_ticks: 1,
        pre_vote: true,
        staggered: true,
        seed,
        boot_nonce: seed,
        patience_ms: 7_000,
        applied,
        voters,
        learners: Vec::new(),
        promise,
    }
}

// rule: RT-1
#[test]
fn an_election_waits_for_one_to_two_timeouts_and_a_leader_without_a_quorum_gives_up_after_one() {
    let ticks: Vec<u64> = (0..200).map(|seed| ticks_to_campaign(seed, 0)).collect();
    let (least, most) = (ticks.iter().min().expect("some"), ticks.iter().max().expect("some"));
    assert_eq!(
        (*least, *most),
        (ELECTION_TICKS, 2 * ELECTION_TICKS - 1),
        "any of [n, 2n), as the seed has it"
    );

    let mut cluster = Cluster::led(3);
    cluster.tick(1);
    cluster.cut = vec![(2, 1), (3, 1)];
    let lost = (1..).take(100).find(|_| {
        cluster.tick(1);
        !cluster.leadership(1).leads
    });
    // Whether it hears of a quorum is looked at once a timeout.
    let lost = lost.expect("it gives up");
    assert!((ELECTION_TICKS..=2 * ELECTION_TICKS).contains(&lost), "after {lost} ticks");
}

/// Members of `n` that ask for votes once member 1 is lost, in their order, with the tick in which they do.
fn who_asks(n: u64, also_lost: u64) -> Vec<(u64, u64)> {
    let mut cluster = Cluster::led(n);
    cluster.tick(1);
    let mut asked: Vec<(u64, u64)> = Vec::new();
    for tick in 1..2 * ELECTION_TICKS {
        for id in (2..=n).filter(|id| *id != also_lost) {
            cluster.step(id, Input::Tick);
            let sent = std::mem::take(&mut cluster.member(id).effects.messages);
            let asks = sent.iter().any(|message| message.kind == MessageKind::PreVote as i32);
            if asks && asked.iter().all(|(known, _)| *known != id) {
                asked.push((id, tick));
            }
        }
    }
    asked
}

// rule: RT-1
#[test]
fn voters_that_lose_a_leader_ask_for_votes_in_turn_and_the_first_soonest() {
    let asked = who_asks(3, 0);
    assert_eq!(asked[0], (2, ELECTION_TICKS + 1), "all others have waited for a timeout by then");
    assert_eq!(asked[1].0, 3);
    assert!((15..20).contains(&asked[1].1), "{asked:?}");
    let order = |asked: Vec<(u64, u64)>| asked.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    assert_eq!(order(who_asks(5, 0)), [2, 3, 4, 5]);
    assert_eq!(order(who_asks(5, 2)), [3, 4, 5], "who is lost too is not waited for");
}

// rule: RT-2
#[test]
fn ticks_that_a_start_passes_over_shorten_the_first_wait_and_no_later_one() {
    let ticks: Vec<u64> = (0..200).map(|seed| ticks_to_campaign(seed, 9)).collect();
    let (least, most) = (ticks.iter().min().expect("some"), ticks.iter().max().expect("some"));
    assert_eq!((*least, *most), (1, ELECTION_TICKS), "what is left is as random as ever");

    // Who follows a leader goes on waiting for it.
    let mut cluster = Cluster::led(3);
    cluster.tick(1);
    cluster.step(2, Input::FastForward { ticks: 9 });
    for _ in 0..9 {
        cluster.step(2, Input::Tick);
        assert_eq!(cluster.leadership(2).leader, 1);
        assert!(cluster.member(2).effects.messages.iter().all(|m| m.kind != MessageKind::PreVote as i32));
    }
}

#[test]
fn what_comes_together_is_one_append_and_one_message_to_each_peer() {
    let mut cluster = Cluster::led(3);
    cluster.tick(1);
    let (log, last) = (cluster.member(1).log.clone(), cluster.last(1));
    let (batches, now_ms) = (log.batches(), cluster.now_ms);
    let leader = cluster.member(1);
    for id in 1..=5 {
        let proposals = Input::Propose(vec![put(id, 1)]);
        leader.replica.take_in(now_ms, proposals, &mut leader.effects);
    }
    assert_eq!((log.batches(), leader.effects.messages.len()), (batches, 0), "nothing before its end");
    leader.replica.settle(now_ms, &mut leader.effects);
    assert_eq!(log.batches(), batches + 1);
    let sent = std::mem::take(&mut leader.effects.messages);
    let told: Vec<_> = sent.iter().map(|m| (m.to, m.index, m.entries.len())).collect();
    assert_eq!(told, [(2, last, 5), (3, last, 5)]);

    // What a follower takes in at once it syncs and acknowledges at once.
    let follower = cluster.member(2);
    let batches = follower.log.batches();
    for at in 0..5 {
        let PeerMessage { index, ref entries, .. } = sent[0];
        let entries = vec![entries[at].clone()];
        let index = index + at as u64;
        let log_term = sent[0].log_term;
        let part = PeerMessage { index, entries, log_term, ..sent[0].clone() };
        follower.replica.take_in(now_ms, Input::Received(Box::new(part)), &mut follower.effects);
    }
    follower.replica.settle(now_ms, &mut follower.effects);
    assert_eq!(follower.log.batches(), batches + 1);
    assert!(follower.effects.messages.is_empty(), "nothing is durable yet");
    cluster.work(2);
    let answers = &cluster.member(2).effects.messages;
    assert_eq!(answers.iter().map(|m| (m.to, m.index)).collect::<Vec<_>>(), [(1, last + 5)]);
}

/// The appends with entries that member 1 has for member 2.
fn appends(cluster: &mut Cluster) -> Vec<PeerMessage> {
    cluster.work(1);
    let sent = std::mem::take(&mut cluster.member(1).effects.messages);
    let is_append =
        |m: &PeerMessage| m.to == 2 && m.kind == MessageKind::Append as i32 && !m.entries.is_empty();
    sent.into_iter().filter(is_append).collect()
}

fn put(id: u64, bytes: usize) -> Proposal<&'static str> {
    let put = cairn_proto::etcdserverpb::PutRequest {
        key: "k".into(),
        value: vec![b'v'; bytes].into(),
        ..Default::default()
    };
    let data = Command::Put(put).encode(id);
    Proposal { id, kind: EntryKind::Normal, leader_only: false, data, carried: "put" }
}

/// Time passes until the leader appends it.
fn propose(cluster: &mut Cluster, id: u64, bytes: usize) {
    cluster.step(1, Input::Propose(vec![put(id, bytes)]));
    let leader = cluster.member(1);
    if let Some(due_ms) = leader.replica.due_ms() {
        leader.replica.settle(due_ms, &mut leader.effects);
        cluster.now_ms = due_ms;
    }
}

#[test]
fn what_is_proposed_while_entries_are_on_their_way_goes_out_with_the_news_of_their_commit() {
    let mut cluster = Cluster::led(3);
    cluster.tick(1);
    let last = cluster.last(1);
    let ask = |cluster: &mut Cluster, id| cluster.step(1, Input::Propose(vec![put(id, 1)]));
    ask(&mut cluster, 1);
    let first = appends(&mut cluster);
    assert_eq!(first[0].entries.len(), 1, "there is nothing to wait for");
    ask(&mut cluster, 2);
    ask(&mut cluster, 3);
    let data = put(4, 1).data;
    let entries = vec![PeerEntry { data, ..Default::default() }];
    let kind = MessageKind::Propose as i32;
    let of_a_peer = PeerMessage { kind, to: 1, from: 3, entries, ..Default::default() };
    cluster.step(1, Input::Received(Box::new(of_a_peer)));
    assert!(appends(&mut cluster).is_empty(), "it may be committed any moment");
    assert_eq!((cluster.last(1), cluster.member(1).replica.proposals()), (last + 1, 3));

    cluster.step(2, Input::Received(Box::new(first[0].clone())));
    cluster.work(2);
    for answer in std::mem::take(&mut cluster.member(2).effects.messages) {
        cluster.step(1, Input::Received(Box::new(answer)));
    }
    let both = appends(&mut cluster);
    let told: Vec<_> = both.iter().map(|m| (m.commit, m.entries.len())).collect();
    assert_eq!(told, [(last + 1, 3)]);
    assert_eq!(cluster.member(1).replica.due_ms(), None);

    // No answer comes.
    ask(&mut cluster, 5);
    let due_ms = cluster.member(1).replica.due_ms().expect("it waits");
    assert_eq!(due_ms, cluster.now_ms + 2);
    cluster.step(1, Input::Applied { index: 0 });
    assert!(appends(&mut cluster).is_empty());
    cluster.now_ms = due_ms;
    cluster.step(1, Input::Applied { index: 0 });
    assert_eq!(appends(&mut cluster)[0].entries.len(), 1);
}

// rule: LEASE-6
#[test]
fn what_is_asked_while_the_lead_is_handed_over_waits_for_the_end_of_that() {
    for done in [true, false] {
        let mut cluster = Cluster::led(3);
        cluster.tick(1);
        cluster.cut = vec![(1, 2)];
        cluster.propose(1, "before", false);
        cluster.settle();
        if done {
            // It is told to lead as soon as it has this.
            cluster.cut.clear();
        }
        cluster.step(1, Input::Transfer { to: 2 });
        cluster.propose(1, "here", false);
        cluster.propose(1, "end of a lease", true);
        cluster.propose(3, "through a follower", false);
        assert_eq!(cluster.member(1).replica.due_ms(), None, "time alone changes nothing");
        cluster.settle();
        let leader = if done { 2 } else { 1 };
        for _ in 0..12 {
            cluster.tick(leader);
        }
        assert_eq!(cluster.leadership(3).leader, leader);
        assert_eq!(cluster.carried(3), ["through a follower"]);
        let (carried, refused) = (cluster.carried(1), cluster.member(1).refused.clone());
        if done {
            assert_eq!(carried, ["before", "here"]);
            assert_eq!(refused, [("end of a lease", "etcdserver: not leader")], "the next leader ends it");
        } else {
            assert_eq!(carried, ["before", "here", "end of a lease"]);
            assert_eq!(refused, []);
        }
    }
}

// rule: LEASE-6
#[test]
fn what_a_leader_kept_back_goes_to_the_next_one() {
    let mut cluster = Cluster::led(3);
    cluster.tick(1);
    cluster.cut = vec![(1, 2), (1, 3)];
    cluster.propose(1, "on its way", false);
    cluster.propose(1, "kept back", false);
    cluster.propose(1, "end of a lease", true);
    let entries = vec![PeerEntry { data: put(4, 1).data, ..Default::default() }];
    let kind = MessageKind::Propose as i32;
    let of_a_peer = PeerMessage { kind, to: 1, from: 3, entries, ..Default::default() };
    cluster.step(1, Input::Received(Box::new(of_a_peer)));
    cluster.settle();
    let term = cluster.leadership(1).term + 1;
    let kind = MessageKind::Heartbeat as i32;
    let other = PeerMessage { kind, to: 1, from: 2, term, ..Default::default() };
    cluster.step(1, Input::Received(Box::new(other)));
    cluster.work(1);
    assert_eq!(cluster.leadership(1).leader, 2);
    let sent = std::mem::take(&mut cluster.member(1).effects.messages);
    let handed = sent.iter().filter(|m| (m.kind, m.to) == (MessageKind::Propose as i32, 2));
    let handed: Vec<_> = handed.map(|m| (m.entries.len(), m.context.len())).collect();
    assert_eq!(handed, [(1, 1), (1, 0)], "the peer's has been handed on before");
    assert_eq!(cluster.member(1).refused, [("end of a lease", "etcdserver: not leader")]);
}

// rule: RT-1
#[test]
fn at_most_512_appends_are_on_their_way_to_a_follower_and_each_has_at_most_one_mebibyte() {
    let mut cluster = Cluster::led(3);
    cluster.tick(1);
    let mut sent = Vec::new();
    for id in 1..=700 {
        propose(&mut cluster, id, 1);
        sent.append(&mut appends(&mut cluster));
    }
    assert_eq!(sent.len(), 512, "the follower has answered none");

    let mut cluster = Cluster::led(3);
    cluster.tick(1);
    cluster.cut = vec![(1, 2)];
    for id in 1..=6 {
        propose(&mut cluster, id, 300 << 10);
    }
    cluster.settle();
    cluster.cut.clear();
    // What was lost is sent anew, as much at once as fits.
    cluster.step(1, Input::Unreachable { peer: 2 });
    let mut sent = Vec::new();
    for _ in 0..20 {
        cluster.now_ms += 100;
        cluster.step(1, Input::Tick);
        cluster.work(1);
        for message in std::mem::take(&mut cluster.member(1).effects.messages) {
            sent.push(message.clone());
            cluster.step(message.to, Input::Received(Box::new(message)));
        }
        for id in [2, 3] {
            cluster.work(id);
            for message in std::mem::take(&mut cluster.member(id).effects.messages) {
                cluster.step(message.to, Input::Received(Box::new(message)));
            }
        }
    }
    assert_eq!(cluster.last(2), cluster.last(1));
    let to_second = sent.iter().filter(|m| m.to == 2 && m.entries.len() > 1);
    let bytes: Vec<usize> = to_second.map(|m| m.entries.iter().map(|entry| entry.data.len()).sum()).collect();
    assert!(!bytes.is_empty() && bytes.iter().all(|bytes| *bytes <= 1 << 20), "{bytes:?}");
}

#[test]
fn what_is_on_its_way_to_a_follower_that_is_far_behind_is_bounded_and_what_is_new_is_not_cut() {
    let mut cluster = Cluster::led(3);
    cluster.tick(1);
    cluster.cut = vec![(1, 2)];
    for id in 1..=1_500 {
        propose(&mut cluster, id, 16 << 10);
        if id % 100 == 0 {
            cluster.settle();
        }
    }
    cluster.settle();
    cluster.step(1, Input::Unreachable { peer: 2 });
    cluster.cut.clear();
    let (mut on_their_way, mut answered) = (0, false);
    // One append is answered; what then leaves is not.
    for _ in 0..4 {
        cluster.step(1, Input::Tick);
        for message in std::mem::take(&mut cluster.member(1).effects.messages) {
            if message.to == 2 && !answered {
                answered = !message.entries.is_empty();
                cluster.step(2, Input::Received(Box::new(message)));
            }
        }
        cluster.work(2);
        for message in std::mem::take(&mut cluster.member(2).effects.messages) {
            cluster.step(1, Input::Received(Box::new(message)));
        }
        let sent = cluster.member(1).effects.messages.iter().filter(|m| m.to == 2);
        let bytes: usize = sent.flat_map(|m| &m.entries).map(|entry| entry.data.len()).sum();
        on_their_way = on_their_way.max(bytes);
    }
    assert!((8 << 20..=16 << 20).contains(&on_their_way), "{on_their_way} bytes");

    let mut cluster = Cluster::led(3);
    cluster.tick(1);
    let leader = cluster.members.get_mut(&1).expect("it leads");
    let many = (1..=10).map(|id| put(id, 30 << 10)).collect();
    leader.replica.step(0, Input::Propose(many), &mut leader.effects);
    let sent = appends(&mut cluster);
    assert_eq!(sent.iter().map(|m| m.entries.len()).collect::<Vec<_>>(), [10]);
}

// rule: CL-12
#[test]
fn a_change_of_the_membership_waits_at_its_leader_for_as_long_as_its_caller_does() {
    let mut cluster = Cluster::led(1);
    cluster.member(1).hung = true;
    for (id, learner) in [(5, 2), (6, 3)] {
        let data = ConfChange { request_id: id, ..change(Kind::AddLearner, learner) }.encode();
        let kind = EntryKind::ConfChangeV2;
        let proposal = Proposal { id, kind, leader_only: false, data, carried: "add" };
        cluster.step(1, Input::Propose(vec![proposal]));
    }
    // Ten times as long as a read or a write through another member waits.
    for _ in 0..700 {
        cluster.now_ms += 100;
        cluster.step(1, Input::Tick);
        cluster.work(1);
    }
    assert!(cluster.member(1).refused.is_empty(), "{:?}", cluster.member(1).refused);
    cluster.member(1).hung = false;
    cluster.settle();
    cluster.tick(1);
    assert_eq!(cluster.carried(1), ["add", "add"]);
}
