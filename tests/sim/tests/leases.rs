// SPDX-License-Identifier: Apache-2.0
//! Leases whose ends cannot be committed for a while.
//!
//! Owns      three members with disks in memory, and a network between them that a test cuts.
//! Holds     once revokes are committed again, the list of leases drains within a bound that is computed, not tried.
//! Never     waits: time is what the test says it is.

use cairn_core::{
    Command,
    auth::{
        Identity, ROOT,
        command::{AuthCommand, encode_base64},
    },
    boot::{BootConfig, Start},
    lessor::{REVOKES_PER_SCAN, SCAN_INTERVAL_MS},
    replica::Input,
    watch::HubOptions,
};
use cairn_engine::{Options, io::Vfs, sim::SimVfs, wal::WalOptions};
use cairn_mvcc::SmallTree;
use cairn_proto::etcdserverpb as pb;
use cairn_sim::node::Node;
use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

const TICK_MS: u64 = 100;
const ELECTION_MS: u64 = 1_000;
const REQUEST_TIMEOUT_MS: u64 = 7_000;
const TTL_MS: u64 = 5_000;
/// More than one scan gives up, and more than may end in one second after a change of leader.
const LEASES: u64 = 1_600;
const EXPIRIES_PER_SECOND: u64 = 750;
/// For how long nothing can be revoked.
const STUCK_MS: u64 = 60_000;

/// Why revokes are stuck.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stuck {
    /// Nobody reaches anybody: there is no leader.
    NoQuorum,
    /// The leader hears nobody, and the others elect one who cannot reach the third.
    LeaderCutOff,
    /// An alarm refuses every revoke.
    Alarm,
    /// A new leader every second, each of whom gives every lease its time again.
    LeadersChange,
    /// The leader's disk does nothing, and the one after it has its own follower's disk stuck.
    DisksHang,
}

struct Trio {
    nodes: Vec<Node>,
    /// Each from one to another.
    cut: BTreeSet<(usize, usize)>,
    hung: BTreeSet<usize>,
    now_ms: u64,
    ops: u64,
}

fn urls(at: usize) -> Vec<String> {
    vec![format!("http://member{at}:2380")]
}

impl Trio {
    fn new() -> Trio {
        let node = |at: usize| {
            let vfs: Arc<dyn Vfs> = Arc::new(SimVfs::new());
            let mut options = Options::default();
            options.vfs = vfs.clone();
            let others = (0..3).filter(|other| *other != at).map(urls).collect();
            let config = BootConfig {
                dir: PathBuf::from("/data/member"),
                wal_dir: PathBuf::from("/data/member/wal"),
                peer_urls: urls(at),
                cluster_token: "leases".to_owned(),
                start: Start::New { others },
                force_new_cluster: false,
                heartbeat_ms: TICK_MS,
                election_ms: ELECTION_MS,
                pre_vote: true,
                lease_checkpoints: true,
                seed: 7 + at as u64,
                options,
                wal_options: WalOptions::new(vfs, 0, 0),
            };
            Node::boot(config, HubOptions::default(), at as u64, None).expect("a new member")
        };
        let nodes = (0..3).map(node).collect();
        Trio { nodes, cut: BTreeSet::new(), hung: BTreeSet::new(), now_ms: 0, ops: 0 }
    }

    /// One heartbeat: everybody works, and what is sent arrives, until nobody sends any more.
    fn beat(&mut self) {
        self.now_ms += TICK_MS;
        for exchange in 0..6 {
            for at in 0..3 {
                let node = &mut self.nodes[at];
                node.replica_turn(self.now_ms, exchange == 0).expect("it goes on");
                if !self.hung.contains(&at) {
                    node.sync().expect("memory");
                }
                node.replica_turn(self.now_ms, false).expect("it goes on");
                let turn = node.state_turn(self.now_ms, usize::MAX).expect("it applies");
                drop(turn);
                for message in std::mem::take(&mut node.outbox) {
                    let to = self.nodes.iter().position(|node| node.id == message.to).expect("a member");
                    if !self.cut.contains(&(at, to)) {
                        self.nodes[to].tell(Input::Received(Box::new(message)));
                    }
                }
            }
        }
    }

    fn run(&mut self, for_ms: u64) {
        for _ in 0..for_ms / TICK_MS {
            self.beat();
        }
    }

    fn leader(&mut self) -> usize {
        for _ in 0..100 {
            if let Some(at) = self.nodes.iter().position(|node| node.leads) {
                return at;
            }
            self.beat();
        }
        panic!("nobody leads");
    }

    fn propose(&mut self, commands: impl IntoIterator<Item = Command>, by: Option<&Identity>) {
        let at = self.leader();
        for command in commands {
            self.ops += 1;
            self.nodes[at].propose(self.ops, by.cloned(), command);
        }
        self.beat();
    }

    fn leases(&self, at: usize) -> u64 {
        self.nodes[at].lessor.lock().expect("one thread").len() as u64
    }

    fn cut_off(&mut self, at: usize) {
        self.cut.extend((0..3).filter(|other| *other != at).flat_map(|other| [(at, other), (other, at)]));
    }

    fn alarm(&mut self, action: pb::alarm_request::AlarmAction) {
        let alarm = pb::AlarmType::Corrupt as i32;
        let alarm = pb::AlarmRequest { action: action as i32, member_id: 1, alarm };
        self.propose([Command::Alarm(alarm)], None);
    }
}

fn users() -> Vec<Command> {
    let name = || ROOT.to_owned();
    let hashed_password = encode_base64(b"hash");
    let user = pb::AuthUserAddRequest { name: name(), hashed_password, ..Default::default() };
    [
        AuthCommand::UserAdd(user),
        AuthCommand::UserGrantRole(pb::AuthUserGrantRoleRequest { user: name(), role: name() }),
        AuthCommand::Enable(pb::AuthEnableRequest {}),
    ]
    .map(|command| Command::Auth(Box::new(command)))
    .into()
}

/// Leases are stuck for a minute; then, how long it takes until nobody has one.
fn drain_ms(stuck: Stuck, auth: bool) -> u64 {
    let mut trio = Trio::new();
    if auth {
        trio.propose(users(), None);
    }
    let leader = trio.leader();
    let revision = trio.nodes[leader].state.auth_cell().auth().revision();
    let root = auth.then(|| Identity { user: ROOT.into(), revision });
    let ids = 1..=LEASES as i64;
    let ttl = (TTL_MS / 1_000) as i64;
    let grants = ids.clone().map(|id| Command::LeaseGrant(pb::LeaseGrantRequest { id, ttl }));
    trio.propose(grants, root.as_ref());
    let put = |id: i64| {
        let key = format!("{id:05}").into_bytes().into();
        Command::Put(pb::PutRequest { key, lease: id, ..Default::default() })
    };
    trio.propose(ids.map(put), root.as_ref());
    trio.run(1_000);
    assert_eq!((0..3).map(|at| trio.leases(at)).collect::<Vec<_>>(), [LEASES; 3]);
    assert_eq!(trio.nodes[2].state.auth_cell().auth().enabled(), auth);

    let leader = trio.leader();
    match stuck {
        Stuck::NoQuorum => (0..3).for_each(|at| trio.cut_off(at)),
        Stuck::LeaderCutOff => {
            trio.cut_off(leader);
            trio.hung.insert((leader + 1) % 3);
        }
        Stuck::DisksHang => trio.hung.extend([leader, (leader + 1) % 3]),
        Stuck::Alarm => trio.alarm(pb::alarm_request::AlarmAction::Activate),
        Stuck::LeadersChange => {}
    }
    for second in 0..STUCK_MS / 1_000 {
        trio.run(1_000);
        if stuck == Stuck::LeadersChange {
            let leader = trio.leader();
            let to = trio.nodes[(leader + 1 + second as usize % 2) % 3].id;
            trio.nodes[leader].tell(Input::Transfer { to });
        }
    }
    assert!((0..3).all(|at| trio.leases(at) == LEASES), "{stuck:?}: some ended");

    trio.cut.clear();
    trio.hung.clear();
    if stuck == Stuck::Alarm {
        trio.alarm(pb::alarm_request::AlarmAction::Deactivate);
    }
    let cured_ms = trio.now_ms;
    while (0..3).any(|at| trio.leases(at) > 0) {
        assert!(trio.now_ms < cured_ms + 2 * STUCK_MS, "{stuck:?}: they never end");
        trio.beat();
    }
    trio.run(1_000);
    for node in &trio.nodes {
        assert_eq!(node.reader.small_scan(SmallTree::Lease).expect("it is read"), [], "{stuck:?}");
        assert!(node.reader.keys_of_lease(1).expect("it is read").is_empty(), "{stuck:?}");
        let zero = bytes::Bytes::from_static(b"\0");
        let all = pb::RangeRequest { key: zero.clone(), range_end: zero, ..Default::default() };
        let left = node.reader.range(&cairn_core::convert::range_op(all)).expect("it is read");
        assert_eq!(left.count, 0, "{stuck:?}");
    }
    trio.now_ms - cured_ms
}

/// An election by members that do not agree at once; the whole time again, and the election timeout on top; a revoke
/// that was on its way when it got stuck, until it is tried again; and the leases in their slices.
fn bound_ms() -> u64 {
    let elections = 4 * ELECTION_MS;
    let scans = (LEASES / REVOKES_PER_SCAN as u64 + 2) * SCAN_INTERVAL_MS;
    elections + TTL_MS + ELECTION_MS + REQUEST_TIMEOUT_MS + LEASES / EXPIRIES_PER_SECOND * 1_000 + scans
}

// rule: LEASE-6, LEASE-8, LEASE-9
#[test]
fn r20_leases_whose_revokes_were_stuck_are_all_gone_within_a_bound() {
    use Stuck::*;
    for stuck in [NoQuorum, LeaderCutOff, Alarm, LeadersChange, DisksHang] {
        for auth in [false, true] {
            let took_ms = drain_ms(stuck, auth);
            println!("{stuck:?}, auth {auth}: {took_ms} ms");
            assert!(took_ms <= bound_ms(), "{stuck:?}, auth {auth}: {took_ms} ms, not {}", bound_ms());
        }
    }
}

// rule: LEASE-6
#[test]
fn a_lease_that_runs_out_in_a_handover_ends_as_soon_as_that_is_over() {
    let mut trio = Trio::new();
    let ttl = (TTL_MS / 1_000) as i64;
    trio.propose([Command::LeaseGrant(pb::LeaseGrantRequest { id: 1, ttl })], None);
    trio.run(TTL_MS - 2 * TICK_MS);
    assert_eq!((0..3).map(|at| trio.leases(at)).collect::<Vec<_>>(), [1; 3]);

    // The next leader is never told that it is one. Until an election timeout is over nothing can be proposed.
    let leader = trio.leader();
    let next = (leader + 1) % 3;
    let to = trio.nodes[next].id;
    trio.cut.insert((leader, next));
    trio.nodes[leader].tell(Input::Transfer { to });
    trio.run(2 * TICK_MS + SCAN_INTERVAL_MS);
    assert_eq!(trio.leases(leader), 1, "its end waits");
    assert!(trio.nodes[leader].leads);

    trio.run(ELECTION_MS);
    assert!(trio.nodes[leader].leads, "the same leader still");
    assert_eq!(trio.leases(leader), 0, "not only when a request has no time left");
}
