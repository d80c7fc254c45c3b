// SPDX-License-Identifier: Apache-2.0
//! Clusters of real processes that are killed, stopped, cut off, slowed, misread, replaced and restarted under load, and
//! whose disks fail and rot.
//!
//! Owns      the rounds of one fault each, and the order in which they come.
//! Holds     1. clients write, read, watch and lock throughout, and nobody tells them of the fault;
//!           2. a fault falls on a count of acknowledgements drawn from the printed seed, and is healed once the rest
//!              has gone on without whom it took away;
//!           3. after each, the whole cluster goes on; in the end the history is strictly serializable, every watcher
//!              saw all of it once and in order, locks excluded each other, and all members hold the same.
//! Never     counts a page cache as a disk: the simulator takes unsynced writes away.

use std::time::Duration;

use cairn_proto::etcdserverpb::{MemberAddRequest, MemberListRequest, MemberRemoveRequest};
use cairn_tests::cluster::{self, Judged, accepted, judge, status};
use cairn_tests::load::Load;
use cairn_tests::proxy::{Direction, Net, Way};
use cairn_tests::scale::{count, score, seed, time};
use cairn_tests::server::{Program, Server};
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rustix::process::Signal;

/// Acknowledgements that show that the rest goes on without whom a fault took away.
const WITHOUT: u64 = 60;

/// With this status a member ends that cannot write.
const DISK_FAILED: i32 = 10;

/// What is done to the cluster in a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    KillLeader,
    KillFollowers,
    KillAll,
    StopLeader,
    StopFollowers,
    CutLeader,
    /// It sends, and hears nothing.
    DeafLeader,
    /// It hears, and nobody hears it.
    MuteLeader,
    OneWay,
    Slow,
    Corrupt,
    /// The disk of one member refuses every write.
    DiskRefuses,
    /// Every page of a follower's store changes while it is down.
    StoreRots,
    Replace,
    Rolling,
}

impl Fault {
    const ALL: [Fault; 15] = [
        Fault::KillLeader,
        Fault::KillFollowers,
        Fault::KillAll,
        Fault::StopLeader,
        Fault::StopFollowers,
        Fault::CutLeader,
        Fault::DeafLeader,
        Fault::MuteLeader,
        Fault::OneWay,
        Fault::Slow,
        Fault::Corrupt,
        Fault::DiskRefuses,
        Fault::StoreRots,
        Fault::Replace,
        Fault::Rolling,
    ];
}

/// What came of a cluster's rounds.
#[derive(Default)]
struct Outcome {
    rounds: usize,
    judged: Judged,
    corrupted: usize,
    /// Stores that rotted, and were replaced without an operator.
    rotted: usize,
    /// The longest times without an acknowledgement after the leader was killed, and after it was stopped.
    killed: Vec<Duration>,
    stopped: Vec<Duration>,
}

struct Field {
    net: Net,
    members: Vec<Server>,
    load: Load,
    random: ChaCha8Rng,
    outcome: Outcome,
    joined: usize,
}

impl Field {
    async fn start(size: usize, mut random: ChaCha8Rng) -> Field {
        let net = Net::default();
        let mut members = Vec::new();
        for number in 0..size {
            members.push(Server::idle_behind(Program::cairn(), &net, number).await);
        }
        Server::found_cluster(&mut members).await;
        let urls: Vec<String> = members.iter().map(Server::url).collect();
        let load = Load::start(&urls, random.random());
        Field { net, members, load, random, outcome: Outcome::default(), joined: size }
    }

    /// One fault, from its cause to its end.
    async fn round(&mut self, fault: Fault) {
        let before = self.random.random_range(50..300);
        self.goes_on(before, "before the fault").await;
        self.hurt_and_heal(fault).await;
        self.goes_on(100, "after the fault").await;
        self.outcome.rounds += 1;
    }

    async fn goes_on(&self, acknowledgements: u64, when: &str) {
        cluster::goes_on(&self.load, acknowledgements, when).await;
    }

    async fn hurt_and_heal(&mut self, fault: Fault) {
        let without = "while others are away";
        let leader = self.leader().await;
        match fault {
            Fault::KillLeader => {
                self.load.longest_gap();
                self.members[leader].kill();
                self.goes_on(WITHOUT, without).await;
                self.outcome.killed.push(self.load.longest_gap());
                self.members[leader].restart().await;
            }
            Fault::StopLeader => {
                self.load.longest_gap();
                self.members[leader].signal(Signal::STOP);
                self.goes_on(WITHOUT, without).await;
                self.outcome.stopped.push(self.load.longest_gap());
                self.members[leader].signal(Signal::CONT);
            }
            Fault::KillFollowers => {
                let gone = self.minority(leader);
                gone.iter().for_each(|member| self.members[*member].kill());
                self.goes_on(WITHOUT, without).await;
                for member in gone {
                    self.members[member].restart().await;
                }
            }
            Fault::StopFollowers => {
                let gone = self.minority(leader);
                gone.iter().for_each(|member| self.members[*member].signal(Signal::STOP));
                self.goes_on(WITHOUT, without).await;
                gone.iter().for_each(|member| self.members[*member].signal(Signal::CONT));
            }
            Fault::KillAll => {
                self.members.iter_mut().for_each(Server::kill);
                self.members.iter_mut().for_each(Server::begin);
                for member in &mut self.members {
                    member.begun().await;
                }
            }
            Fault::CutLeader => {
                let ways = [self.from(leader), self.to(leader)].concat();
                self.while_so(&ways, Way::Held).await;
            }
            Fault::DeafLeader => self.while_so(&self.to(leader), Way::Held).await,
            Fault::MuteLeader => self.while_so(&self.from(leader), Way::Held).await,
            Fault::OneWay => {
                let from = self.random.random_range(0..self.members.len());
                let ways = self.from(from);
                let one = ways[self.random.random_range(0..ways.len())];
                self.while_so(&[one], Way::Held).await;
            }
            Fault::Slow => {
                let delay = Duration::from_millis(self.random.random_range(5..40));
                self.while_so(&self.all(), Way::Slow(delay)).await;
            }
            Fault::Corrupt => {
                let before = self.net.corrupted();
                self.net.corrupt(self.all());
                self.goes_on(WITHOUT, "over links that change a bit").await;
                self.net.heal();
                assert!(self.net.corrupted() > before, "nothing went over the links");
            }
            Fault::DiskRefuses => {
                let member = self.random.random_range(0..self.members.len());
                self.members[member].refuse_writes();
                let status = self.members[member].ended().await;
                assert_eq!(status.code(), Some(DISK_FAILED), "of a member whose disk refuses writes");
                self.goes_on(WITHOUT, without).await;
                self.members[member].restart().await;
            }
            Fault::StoreRots => {
                let member = self.minority(leader)[0];
                self.members[member].kill();
                self.members[member].rot_store();
                self.goes_on(WITHOUT, without).await;
                // It answers once it has another store.
                self.members[member].restart().await;
                self.outcome.rotted += 1;
            }
            Fault::Replace => {
                let old = self.minority(leader)[0];
                self.replace(old, leader).await;
            }
            Fault::Rolling => {
                for member in 0..self.members.len() {
                    let status = self.members[member].stop().await;
                    let asked = status.code().is_none_or(|code| code == 0 || code == 143);
                    assert!(asked, "a member that is asked to end: {status}");
                    self.members[member].restart().await;
                }
            }
        }
    }

    /// Followers, as many as can be done without.
    fn minority(&mut self, leader: usize) -> Vec<usize> {
        let mut followers: Vec<usize> = (0..self.members.len()).filter(|member| *member != leader).collect();
        followers.shuffle(&mut self.random);
        followers.truncate((self.members.len() - 1) / 2);
        followers
    }

    fn all(&self) -> Vec<Direction> {
        (0..self.members.len()).flat_map(|member| self.from(member)).collect()
    }

    fn from(&self, member: usize) -> Vec<Direction> {
        (0..self.members.len()).filter(|other| *other != member).map(|other| (member, other)).collect()
    }

    fn to(&self, member: usize) -> Vec<Direction> {
        self.from(member).into_iter().map(|(from, to)| (to, from)).collect()
    }

    async fn while_so(&self, ways: &[Direction], way: Way) {
        self.net.set(ways.iter().copied(), way);
        self.goes_on(WITHOUT, "with links that are not as they should be").await;
        self.net.heal();
    }

    /// Another member, with an empty directory, in the place of one that is removed.
    async fn replace(&mut self, old: usize, through: usize) {
        let id = status(&self.members[old]).await.expect("it runs").1;
        let mut cluster = self.members[through].client().await.cluster;
        // Changes are refused while members that were just started are not yet connected to for long.
        accepted(async || cluster.clone().member_remove(MemberRemoveRequest { id }).await).await;
        assert!(self.members[old].ended().await.success(), "who is removed ends as if asked to");

        let mut new = Server::idle_behind(Program::cairn(), &self.net, old).await;
        let add = MemberAddRequest { peer_urls: vec![new.peer_url()], is_learner: false };
        accepted(async || cluster.clone().member_add(add.clone()).await).await;
        let name = format!("m{}", self.joined);
        self.joined += 1;
        let list = cluster.member_list(MemberListRequest { linearizable: true }).await.expect("a list");
        let named = |member: &cairn_proto::etcdserverpb::Member| {
            let own = member.peer_urls == [new.peer_url()];
            format!("{}={}", if own { &name } else { &member.name }, member.peer_urls[0])
        };
        let all = list.into_inner().members.iter().map(named).collect::<Vec<_>>().join(",");
        new.give([
            format!("--name={name}"),
            format!("--initial-cluster={all}"),
            "--initial-cluster-state=existing".to_owned(),
        ]);
        new.begin();
        new.begun().await;
        self.load.moved(old, &new.url());
        self.members[old] = new;
    }

    async fn leader(&self) -> usize {
        cluster::leader(&self.members).await
    }

    /// Ends the load, and judges all that was seen.
    async fn end(mut self) -> Outcome {
        let mut outcome = self.outcome;
        outcome.judged = judge(self.load, &self.members, Vec::new()).await;
        outcome.corrupted = self.net.corrupted();
        for member in &mut self.members {
            member.kill();
        }
        outcome
    }
}

/// Every fault once, and then by chance.
fn faults(rounds: usize, random: &mut ChaCha8Rng) -> Vec<Fault> {
    let mut faults = Fault::ALL.to_vec();
    faults.shuffle(random);
    while faults.len() < rounds {
        faults.push(Fault::ALL[random.random_range(0..Fault::ALL.len())]);
    }
    faults.truncate(rounds);
    faults
}

async fn rounds(size: usize, rounds: usize, random: &mut ChaCha8Rng) -> Outcome {
    let mut field = Field::start(size, ChaCha8Rng::seed_from_u64(random.random())).await;
    for (round, fault) in faults(rounds, random).into_iter().enumerate() {
        println!("{size} members, round {round}: {fault:?}, {} acknowledged", field.load.acknowledged());
        field.round(fault).await;
    }
    field.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_lose_nothing_and_show_one_order_whatever_is_done_to_their_processes() {
    let mut random = ChaCha8Rng::seed_from_u64(seed());
    let (of_three, of_five) = (count(15, 40), count(5, 20));
    let three = rounds(3, of_three, &mut random).await;
    let five = rounds(5, of_five, &mut random).await;

    let both = |of: fn(&Outcome) -> usize| of(&three) + of(&five);
    for (name, of) in [
        ("write gap after kill -9 of the leader", [&three.killed, &five.killed]),
        ("write gap after SIGSTOP of the leader", [&three.stopped, &five.stopped]),
    ] {
        if let Some(longest) = of.into_iter().flatten().max() {
            time(name, *longest, Duration::from_secs(2));
        }
    }
    println!(
        "without an answer: {} landed, {} did not",
        both(|o| o.judged.checked.landed),
        both(|o| o.judged.checked.lost)
    );
    let total = of_three + of_five;
    let shown = [
        score("rounds of faults of real processes", both(|o| o.rounds), total),
        score("changes placed in the order of revisions", both(|o| o.judged.checked.writes), total * 200),
        score("reads placed in the order of revisions", both(|o| o.judged.checked.reads), total * 50),
        score("events that watchers saw", both(|o| o.judged.watched), total * 600),
        score("changes under a lock", both(|o| o.judged.guarded), total),
        score("bits changed between members", both(|o| o.corrupted), 1),
        score("stores that rotted and were replaced", both(|o| o.rotted), 1),
    ];
    assert!(shown.iter().all(|ok| *ok), "the load lost its weight");
}
