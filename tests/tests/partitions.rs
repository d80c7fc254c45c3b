// SPDX-License-Identifier: Apache-2.0
//! Members in network namespaces of their own, between which packets get lost: in one direction, on a link that is down
//! under connections that stand, around a ring. No proxy of the loopback can do that: its sockets always answer.
//!
//! Owns      the rounds of one fault each.
//! Holds     1. clients reach every member throughout, unless its own link is down;
//!           2. after each fault the whole cluster goes on, and in the end the verdict is that of the other rounds;
//!           3. namespaces and links are gone at the end.
//! Never     runs where the machine does not allow it: that is a skip.

use std::time::{Duration, Instant};

use cairn_proto::etcdserverpb::RangeRequest;
use cairn_tests::cluster::{goes_on, judge, leader};
use cairn_tests::load::Load;
use cairn_tests::namespaces::{Namespaces, names};
use cairn_tests::scale::{count, score, seed, time};
use cairn_tests::server::{Program, Server};
use cairn_tests::tools::not_here;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

const MEMBERS: usize = 3;
/// Acknowledgements that show that the rest goes on.
const WITHOUT: u64 = 40;
/// How long a fault lasts at least: more than an election timeout.
const FELT: Duration = Duration::from_millis(1_500);
/// And one under which nobody can go on, or that connections that stand are to feel.
const WHILE: Duration = Duration::from_secs(3);
/// What was on its way when nobody could go on any more is there by then.
const UNDER_WAY: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// Nobody hears the leader, who hears all.
    MuteLeader,
    /// The leader hears nobody, and all hear it.
    DeafLeader,
    /// One follower does not hear the leader.
    OneWayToFollower,
    /// The leader does not hear one follower.
    OneWayToLeader,
    /// Between the followers, one does not hear the other.
    OneWayBetweenFollowers,
    /// The leader is alone, and clients reach it.
    LeaderAlone,
    /// Each hears one of the two others, and is heard by the other one.
    Ring,
    LeaderLinkDown,
    FollowerLinkDown,
    AllLinksDown,
}

impl Fault {
    const ALL: [Fault; 10] = [
        Fault::MuteLeader,
        Fault::DeafLeader,
        Fault::OneWayToFollower,
        Fault::OneWayToLeader,
        Fault::OneWayBetweenFollowers,
        Fault::LeaderAlone,
        Fault::Ring,
        Fault::LeaderLinkDown,
        Fault::FollowerLinkDown,
        Fault::AllLinksDown,
    ];

    /// Whether two members are left that hear each other.
    fn leaves_a_quorum(self) -> bool {
        !matches!(self, Fault::Ring | Fault::AllLinksDown)
    }
}

/// Members end before their namespaces.
struct Field {
    load: Load,
    members: Vec<Server>,
    net: Namespaces,
    random: ChaCha8Rng,
    longest: Duration,
}

impl Field {
    async fn start(net: Namespaces, mut random: ChaCha8Rng) -> Field {
        let member = |n| Server::idle_within(Program::cairn(), net.host(n), net.within(n));
        let mut members: Vec<Server> = (0..MEMBERS).map(member).collect();
        Server::found_cluster(&mut members).await;
        let urls: Vec<String> = members.iter().map(Server::url).collect();
        let load = Load::start(&urls, random.random());
        Field { load, members, net, random, longest: Duration::ZERO }
    }

    async fn round(&mut self, fault: Fault) {
        goes_on(&self.load, WITHOUT, "before the fault").await;
        let leader = leader(&self.members).await;
        let one = (leader + self.random.random_range(1..MEMBERS)) % MEMBERS;
        let other = MEMBERS - leader - one;
        self.load.longest_gap();
        let lost: &[(usize, usize)] = match fault {
            Fault::MuteLeader => &[(leader, one), (leader, other)],
            Fault::DeafLeader => &[(one, leader), (other, leader)],
            Fault::OneWayToFollower => &[(leader, one)],
            Fault::OneWayToLeader => &[(one, leader)],
            Fault::OneWayBetweenFollowers => &[(one, other)],
            Fault::LeaderAlone => &[(leader, one), (leader, other), (one, leader), (other, leader)],
            Fault::Ring => &[(leader, one), (one, other), (other, leader)],
            Fault::LeaderLinkDown | Fault::FollowerLinkDown | Fault::AllLinksDown => &[],
        };
        let down: &[usize] = match fault {
            Fault::LeaderLinkDown => &[leader],
            Fault::FollowerLinkDown => &[one],
            Fault::AllLinksDown => &[leader, one, other],
            _ => &[],
        };
        let begin = Instant::now();
        lost.iter().for_each(|(from, to)| self.net.lose(*from, *to));
        down.iter().for_each(|member| self.net.take_down(*member));
        if fault.leaves_a_quorum() {
            goes_on(&self.load, WITHOUT, "while packets get lost").await;
            self.longest = self.longest.max(self.load.longest_gap());
            let least = if down.is_empty() { FELT } else { WHILE };
            tokio::time::sleep(least.saturating_sub(begin.elapsed())).await;
        } else {
            tokio::time::sleep(UNDER_WAY).await;
            let before = self.load.acknowledged();
            tokio::time::sleep(WHILE.saturating_sub(begin.elapsed())).await;
            assert_eq!(self.load.acknowledged(), before, "{fault:?}: a write that no quorum has");
        }
        self.net.heal();
        goes_on(&self.load, 100, "after the fault").await;
        println!("{fault:?}: {:?}", begin.elapsed());
    }
}

/// Whether a member answers a linearizable read.
async fn answers(member: &Server) -> bool {
    let mut client = member.client().await;
    let read = RangeRequest { key: "k".into(), ..Default::default() };
    tokio::time::timeout(WHILE, client.kv.range(read)).await.is_ok_and(|read| read.is_ok())
}

/// The network does what the rounds take it to do: otherwise they would show nothing.
async fn check_network(field: &mut Field) {
    for member in &field.members {
        assert!(answers(member).await, "{} is not reached", member.url());
    }
    // A follower that is alone answers no linearizable read, and has connections that stand.
    let leader = leader(&field.members).await;
    let alone = (leader + 1) % MEMBERS;
    for other in (0..MEMBERS).filter(|other| *other != alone) {
        field.net.lose(alone, other);
    }
    assert!(!answers(&field.members[alone]).await, "a member that nobody hears answers");
    assert!(answers(&field.members[leader]).await, "the others do not");
    field.net.heal();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_whose_packets_get_lost_lose_nothing_and_show_one_order() {
    let net = match Namespaces::make(MEMBERS) {
        Ok(net) => net,
        Err(why) => return not_here(&format!("no network namespaces: {why}")),
    };
    let mut random = ChaCha8Rng::seed_from_u64(seed());
    let mut field = Field::start(net, ChaCha8Rng::seed_from_u64(random.random())).await;
    check_network(&mut field).await;
    let mut faults = Fault::ALL.to_vec();
    faults.shuffle(&mut random);
    let rounds = count(Fault::ALL.len(), 40);
    while faults.len() < rounds {
        faults.push(Fault::ALL[random.random_range(0..Fault::ALL.len())]);
    }
    for fault in faults {
        field.round(fault).await;
    }
    let Field { load, mut members, net, longest, .. } = field;
    let judged = judge(load, &members, Vec::new()).await;
    println!("{judged:?}");
    time("longest write gap while packets get lost", longest, Duration::from_secs(3));
    assert!(score("rounds of packets lost between namespaces", rounds, Fault::ALL.len()));
    assert!(judged.checked.writes > rounds * 100, "the load lost its weight: {judged:?}");
    members.iter_mut().for_each(Server::kill);
    drop(net);
    let left = names(Some(std::process::id())).expect("they are told");
    assert!(left.is_empty(), "{left:?} are left");
}
