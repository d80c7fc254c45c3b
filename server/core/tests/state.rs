// SPDX-License-Identifier: Apache-2.0
//! Apply, as scripts: one line is one entry of the log.
//!
//! Owns      the little language of the scripts, over a store in a simulated disk.
//! Holds     every line prints what its proposer is told, and the events that it made.
//! Never     goes through Raft.

use bytes::Bytes;
use cairn_core::{
    Command, Version,
    lessor::Lessor,
    replica::{
        Committed,
        conf::{ConfChange, Kind},
        log::{EntryKind, LogEntry},
    },
    state::{Applied, Carried, Fatal, Outcome, State},
};
use cairn_engine::{Db, InstallId, Options, sim::SimVfs};
use cairn_mvcc::{EventKind, SCHEMA, SmallTree, Store};
use cairn_proto::{etcdserverpb as pb, membershippb, mvccpb};
use expect_test::{Expect, expect};
use pb::request_op::Request;
use prost::Message;
use std::{
    fmt::Write,
    path::Path,
    sync::{Arc, Mutex},
};

const MIN_TTL_S: i64 = 2;

struct World {
    db: Db,
    lessor: Arc<Mutex<Lessor>>,
    state: State,
    index: u64,
    now_ms: u64,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl World {
    fn new() -> World {
        let mut options = Options::default();
        options.vfs = Arc::new(SimVfs::new());
        let db = Db::create(Path::new("/d"), SCHEMA, InstallId(1), options).expect("a new store");
        let (lessor, state) = World::open(&db, (0, 0));
        World { db, lessor, state, index: 0, now_ms: 0 }
    }

    fn open(db: &Db, applied: (u64, u64)) -> (Arc<Mutex<Lessor>>, State) {
        let lessor = Arc::new(Mutex::new(Lessor::new(MIN_TTL_S, true)));
        let store = Store::open(db.clone()).expect("it opens");
        let state = State::open(store, lessor.clone(), applied).expect("it opens");
        lessor.lock().expect("one thread").promote(0, 0);
        (lessor, state)
    }

    fn entry(&mut self, kind: EntryKind, data: Bytes, command: Option<Command>) -> Outcome<()> {
        self.try_entry(kind, data, command).expect("it applies")
    }

    fn try_entry(
        &mut self,
        kind: EntryKind,
        data: Bytes,
        command: Option<Command>,
    ) -> Result<Outcome<()>, Fatal> {
        self.index += 1;
        let entry = LogEntry { index: self.index, term: 1, kind, data };
        let carried = command.map(|command| Carried { command: Some(command), by: None, answer: () });
        let mut outcome = Outcome::default();
        let entries = vec![Committed { entry, carried }];
        self.state.apply(self.now_ms, entries, &mut outcome, |_, _| {})?;
        Ok(outcome)
    }

    /// Why the member would end with this one.
    fn ends_with(&mut self, command: &Command) -> String {
        let data = command.encode(self.index + 1);
        let ended = self.try_entry(EntryKind::Normal, data, None);
        ended.err().expect("the member ends").to_string()
    }

    /// Applies a command from its bytes, as a follower does.
    fn apply(&mut self, command: Command, out: &mut String) {
        let data = command.encode(self.index + 1);
        let decoded = Command::decode(data.clone()).expect("it is one");
        let mut outcome = self.entry(EntryKind::Normal, data, Some(decoded));
        let told = match outcome.answers.pop().expect("one answer").1 {
            Err(refusal) => format!("error: {}", refusal.text),
            Ok(applied) => self.told(applied),
        };
        write!(out, "{told}").expect("a string takes all");
        for made in outcome.events {
            for event in &made.events {
                let sign = if event.kind == EventKind::Put { '+' } else { '-' };
                write!(out, " {sign}{}", text(&event.key)).expect("a string takes all");
            }
        }
    }

    fn told(&self, applied: Applied) -> String {
        let pair = |kv: &Bytes| {
            let kv = mvccpb::KeyValue::decode(&kv[..]).expect("a stored pair");
            let lease = if kv.lease == 0 { String::new() } else { format!(" lease {}", kv.lease) };
            format!("{}={}@{}v{}{lease}", text(&kv.key), text(&kv.value), kv.mod_revision, kv.version)
        };
        match applied {
            Applied::Put { revision, prev_kv } => {
                let prev = prev_kv.map(|kv| format!(" (was {})", pair(&kv))).unwrap_or_default();
                format!("rev {revision}{prev}")
            }
            Applied::DeleteRange { revision, deleted, prev_kvs } => {
                let prev: String = prev_kvs.iter().map(|kv| format!(" (was {})", pair(kv))).collect();
                format!("rev {revision} deleted {deleted}{prev}")
            }
            Applied::Txn(done) => {
                let reader = self.state.reader();
                let header = pb::ResponseHeader { revision: done.revision, ..Default::default() };
                let response =
                    cairn_core::convert::txn_response(done, header, &mut |d| reader.range_deferred(&d))
                        .expect("it is read");
                let part = |op: &cairn_proto::serve::ResponseOp| {
                    use cairn_proto::serve::response_op::Response::*;
                    match op.response.as_ref().expect("set") {
                        ResponsePut(r) => format!("put@{}", r.header.as_ref().expect("one").revision),
                        ResponseDeleteRange(r) => {
                            format!("del {}@{}", r.deleted, r.header.as_ref().expect("one").revision)
                        }
                        ResponseRange(r) => {
                            let kvs: Vec<String> = r.kvs.iter().map(pair).collect();
                            format!("get {kvs:?}@{}", r.header.as_ref().expect("one").revision)
                        }
                        ResponseTxn(r) => format!("txn {}", r.succeeded),
                    }
                };
                let parts: Vec<String> = response.responses.iter().map(part).collect();
                let revision = response.header.expect("one").revision;
                format!("rev {revision} {} [{}]", response.succeeded, parts.join(", "))
            }
            Applied::Compact { revision } | Applied::LeaseRevoke { revision } => format!("rev {revision}"),
            Applied::LeaseGrant { revision, id, ttl_s } => format!("rev {revision} lease {id} ttl {ttl_s}"),
            Applied::Alarm { revision, alarms } => {
                let alarms: Vec<String> =
                    alarms.iter().map(|a| format!("{}:{}", a.member_id, a.alarm)).collect();
                format!("rev {revision} alarms {alarms:?}")
            }
            Applied::Members(members) => format!("{} members", members.len()),
            Applied::Authenticate { .. } | Applied::Auth { .. } => unreachable!("no line asks for it"),
            Applied::Done => "done".to_owned(),
        }
    }

    fn run(&mut self, line: &str, out: &mut String) {
        write!(out, "{line} -> ").expect("a string takes all");
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words[at].parse::<i64>().expect("a number");
        match words[0] {
            "put" => self.apply(Command::Put(put(&words[1..])), out),
            "del" => self.apply(Command::DeleteRange(del(&words[1..])), out),
            "txn" => self.apply(Command::Txn(txn(&line[3..])), out),
            "compact" => {
                let r = pb::CompactionRequest { revision: number(1), physical: false };
                self.apply(Command::Compact(r), out);
            }
            "grant" => {
                let r = pb::LeaseGrantRequest { id: number(1), ttl: number(2) };
                self.apply(Command::LeaseGrant(r), out);
            }
            "revoke" => self.apply(Command::LeaseRevoke(pb::LeaseRevokeRequest { id: number(1) }), out),
            "end" => {
                let (id, granted_index) = (number(1), number(2) as u64);
                self.apply(Command::LeaseEnd { id, granted_index }, out);
            }
            "checkpoint" => {
                let one = pb::LeaseCheckpoint { id: number(1), remaining_ttl: number(2) };
                self.apply(
                    Command::LeaseCheckpoint(pb::LeaseCheckpointRequest { checkpoints: vec![one] }),
                    out,
                );
            }
            "alarm" => {
                let action = match words[1] {
                    "get" => 0,
                    "on" => 1,
                    "off" => 2,
                    other => other.parse().expect("a number"),
                };
                let r = pb::AlarmRequest { action, member_id: number(2) as u64, alarm: number(3) as i32 };
                self.apply(Command::Alarm(r), out);
            }
            "version" => {
                let ver = words[1].to_owned();
                self.apply(Command::ClusterVersion(membershippb::ClusterVersionSetRequest { ver }), out);
            }
            "downgrade" => {
                let ver = words.get(1).map(|ver| (*ver).to_owned());
                let r = membershippb::DowngradeInfoSetRequest {
                    enabled: ver.is_some(),
                    ver: ver.unwrap_or_default(),
                };
                self.apply(Command::Downgrade(r), out);
            }
            "later" => {
                let since = Version::parse(words[1]).expect("a version");
                self.apply(Command::Later { since }, out);
            }
            "versions" => {
                let cluster = self.state.cluster();
                let told = |version: Option<Version>| version.map_or("none".to_owned(), |v| v.to_string());
                write!(out, "{}, down to {}", told(cluster.version), told(cluster.downgrade))
                    .expect("a string takes all");
            }
            "keys" => {
                let keys = self.state.reader().keys_of_lease(number(1)).expect("it is read");
                let keys: Vec<String> = keys.iter().map(|k| text(k)).collect();
                write!(out, "{keys:?}").expect("a string takes all");
            }
            "left" => {
                let left = self.lessor.lock().expect("one thread").time_left(self.now_ms, number(1));
                write!(out, "{left:?}").expect("a string takes all");
            }
            "restart" => {
                let applied = self.state.applied();
                (self.lessor, self.state) = World::open(&self.db, applied);
                write!(out, "{} alarms", self.state.cluster().alarms.list(0).len())
                    .expect("a string takes all");
            }
            other => panic!("no such line: {other}"),
        }
        out.push('\n');
    }
}

fn put(words: &[&str]) -> pb::PutRequest {
    let mut r = pb::PutRequest { key: Bytes::from(words[0].to_owned()), ..Default::default() };
    for word in &words[1..] {
        match word.split_once('=') {
            Some(("lease", id)) => r.lease = id.parse().expect("a number"),
            None if *word == "prev" => r.prev_kv = true,
            None if *word == "ignore_value" => r.ignore_value = true,
            None if *word == "ignore_lease" => r.ignore_lease = true,
            _ => r.value = Bytes::from(word.to_string()),
        }
    }
    r
}

fn interval(word: &str) -> (Bytes, Bytes) {
    match word.split_once("..") {
        Some((key, "")) => (Bytes::from(key.to_owned()), Bytes::from_static(b"\0")),
        Some((key, end)) => (Bytes::from(key.to_owned()), Bytes::from(end.to_owned())),
        None => (Bytes::from(word.to_owned()), Bytes::new()),
    }
}

fn del(words: &[&str]) -> pb::DeleteRangeRequest {
    let (key, range_end) = interval(words[0]);
    pb::DeleteRangeRequest { key, range_end, prev_kv: words.contains(&"prev") }
}

/// `txn put a 1; del b; get a..c | get a`: the second list runs if key `a` has no version 1.
fn txn(line: &str) -> pb::TxnRequest {
    let list = |part: &str| {
        let ops = part.split(';').map(str::trim).filter(|op| !op.is_empty()).map(|op| {
            let words: Vec<&str> = op.split_whitespace().collect();
            let request = match words[0] {
                "put" => Request::RequestPut(put(&words[1..])),
                "del" => Request::RequestDeleteRange(del(&words[1..])),
                _ => {
                    let (key, range_end) = interval(words[1]);
                    let serializable = words.contains(&"serializable");
                    Request::RequestRange(pb::RangeRequest {
                        key,
                        range_end,
                        serializable,
                        ..Default::default()
                    })
                }
            };
            pb::RequestOp { request: Some(request) }
        });
        ops.collect::<Vec<_>>()
    };
    match line.split_once('|') {
        None => pb::TxnRequest { success: list(line), ..Default::default() },
        Some((success, failure)) => {
            let compare = pb::Compare {
                key: Bytes::from_static(b"a"),
                target_union: Some(pb::compare::TargetUnion::Version(1)),
                ..Default::default()
            };
            pb::TxnRequest { compare: vec![compare], success: list(success), failure: list(failure) }
        }
    }
}

fn check(script: &str, expected: Expect) {
    let mut world = World::new();
    let mut out = String::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        world.run(line, &mut out);
    }
    expected.assert_eq(&out);
}

// rule: HDR-1, HDR-2, HDR-5, HDR-6, DEL-3
#[test]
fn the_revision_grows_with_changes_and_with_nothing_else() {
    check(
        "put a 1
         del a
         del a
         txn get a
         txn put a 1; put b 2; del c
         txn del c
         compact 4
         grant 1 10
         revoke 1
         alarm get 0 0
         put k v lease=9
         put a 1",
        expect![[r#"
            put a 1 -> rev 2 +a
            del a -> rev 3 deleted 1 -a
            del a -> rev 3 deleted 0
            txn get a -> rev 3 true [get []@3]
            txn put a 1; put b 2; del c -> rev 4 true [put@4, put@4, del 0@4] +a +b
            txn del c -> rev 4 true [del 0@4]
            compact 4 -> rev 4
            grant 1 10 -> rev 4 lease 1 ttl 10
            revoke 1 -> rev 4
            alarm get 0 0 -> rev 4 alarms []
            put k v lease=9 -> error: etcdserver: requested lease not found
            put a 1 -> rev 5 +a
        "#]],
    );
}

// rule: HDR-8, HDR-10, TXN-32, DEL-5
#[test]
fn inside_a_transaction_revisions_follow_its_changes() {
    check(
        "put a 1
         txn get a; del x; put b 2; get a..c serializable; del a prev
         txn put a 1 | get b; put a 2",
        expect![[r#"
            put a 1 -> rev 2 +a
            txn get a; del x; put b 2; get a..c serializable; del a prev -> rev 3 true [get ["a=1@2v1"]@2, del 0@2, put@3, get ["a=1@2v1", "b=2@3v1"]@3, del 1@3] +b -a
            txn put a 1 | get b; put a 2 -> rev 4 false [get ["b=2@3v1"]@3, put@4] +a
        "#]],
    );
}

// rule: LEASE-1, LEASE-2, LEASE-3, LEASE-16, LEASE-17, LEASE-18, LEASE-30
#[test]
fn leases_are_granted_once_and_revoked_with_their_keys_in_order() {
    check(
        "grant -7 10
         grant -7 10
         grant 8 9000000000
         grant 9 9000000001
         put b 1 lease=-7
         put a 1 lease=-7
         put c 1 lease=8
         revoke -7
         revoke -7
         revoke 10
         grant 11 5
         revoke 11",
        expect![[r#"
            grant -7 10 -> rev 1 lease -7 ttl 10
            grant -7 10 -> error: etcdserver: lease already exists
            grant 8 9000000000 -> rev 1 lease 8 ttl 9000000000
            grant 9 9000000001 -> error: etcdserver: too large lease TTL
            put b 1 lease=-7 -> rev 2 +b
            put a 1 lease=-7 -> rev 3 +a
            put c 1 lease=8 -> rev 4 +c
            revoke -7 -> rev 5 -a -b
            revoke -7 -> error: etcdserver: requested lease not found
            revoke 10 -> error: etcdserver: requested lease not found
            grant 11 5 -> rev 5 lease 11 ttl 5
            revoke 11 -> rev 5
        "#]],
    );
}

// rule: LEASE-21, LEASE-28, LEASE-29, PUT-6, PUT-8, DEL-5
#[test]
fn a_key_hangs_on_the_lease_of_its_last_put_also_after_a_restart() {
    check(
        "grant 1 10
         grant 2 10
         put a 1 lease=1
         put b 1 lease=1
         put c 1 lease=1
         put d 1 lease=1
         put a 2 lease=2
         put b 2
         put c 2 ignore_lease
         del d
         keys 1
         keys 2
         restart
         keys 1
         revoke 1
         keys 2
         revoke 2",
        expect![[r#"
            grant 1 10 -> rev 1 lease 1 ttl 10
            grant 2 10 -> rev 1 lease 2 ttl 10
            put a 1 lease=1 -> rev 2 +a
            put b 1 lease=1 -> rev 3 +b
            put c 1 lease=1 -> rev 4 +c
            put d 1 lease=1 -> rev 5 +d
            put a 2 lease=2 -> rev 6 +a
            put b 2 -> rev 7 +b
            put c 2 ignore_lease -> rev 8 +c
            del d -> rev 9 deleted 1 -d
            keys 1 -> ["c"]
            keys 2 -> ["a"]
            restart -> 0 alarms
            keys 1 -> ["c"]
            revoke 1 -> rev 10 -c
            keys 2 -> ["a"]
            revoke 2 -> rev 11 -a
        "#]],
    );
}

// rule: LEASE-5, LEASE-10, LEASE-27
#[test]
fn a_restart_gives_leases_their_recorded_time_and_at_least_the_minimum() {
    check(
        "grant 1 1000
         grant 2 1
         checkpoint 1 700
         checkpoint 5 700
         restart
         left 1
         left 2
         checkpoint 1 0
         restart
         left 1",
        expect![[r#"
            grant 1 1000 -> rev 1 lease 1 ttl 1000
            grant 2 1 -> rev 1 lease 2 ttl 1
            checkpoint 1 700 -> done
            checkpoint 5 700 -> done
            restart -> 0 alarms
            left 1 -> Some(TimeLeft { ttl_s: 700, granted_ttl_s: 1000 })
            left 2 -> Some(TimeLeft { ttl_s: 2, granted_ttl_s: 2 })
            checkpoint 1 0 -> done
            restart -> 0 alarms
            left 1 -> Some(TimeLeft { ttl_s: 1000, granted_ttl_s: 1000 })
        "#]],
    );
}

// rule: LEASE-7
#[test]
fn the_end_of_a_lease_does_not_hit_a_later_one_of_the_same_id() {
    check(
        "grant 1 10
         revoke 1
         grant 1 10
         put a 1 lease=1
         end 1 1
         restart
         end 1 1
         end 1 3",
        expect![[r#"
            grant 1 10 -> rev 1 lease 1 ttl 10
            revoke 1 -> rev 1
            grant 1 10 -> rev 1 lease 1 ttl 10
            put a 1 lease=1 -> rev 2 +a
            end 1 1 -> error: etcdserver: requested lease not found
            restart -> 0 alarms
            end 1 1 -> error: etcdserver: requested lease not found
            end 1 3 -> rev 3 -a
        "#]],
    );
}

// rule: ALARM-3, ALARM-4, ALARM-5, ALARM-6, ALARM-7
#[test]
fn alarms_forbid_what_they_forbid_until_they_are_switched_off() {
    check(
        "put a 1
         alarm on 7 1
         alarm on 7 1
         alarm on 7 0
         put a 2
         grant 1 10
         txn put a 2 | get a
         txn del a | get a
         del x
         compact 1
         restart
         put a 2
         alarm on 7 2
         alarm get 0 0
         alarm get 0 2
         del a
         compact 2
         revoke 1
         txn del a | get a
         put a 2
         alarm off 7 2
         alarm off 7 2
         put a 2
         alarm off 7 1
         put a 2
         alarm 9 7 1",
        expect![[r#"
            put a 1 -> rev 2 +a
            alarm on 7 1 -> rev 2 alarms ["7:1"]
            alarm on 7 1 -> rev 2 alarms ["7:1"]
            alarm on 7 0 -> rev 2 alarms []
            put a 2 -> error: etcdserver: mvcc: database space exceeded
            grant 1 10 -> error: etcdserver: mvcc: database space exceeded
            txn put a 2 | get a -> error: etcdserver: mvcc: database space exceeded
            txn del a | get a -> rev 3 true [del 1@3] -a
            del x -> rev 3 deleted 0
            compact 1 -> rev 3
            restart -> 1 alarms
            put a 2 -> error: etcdserver: mvcc: database space exceeded
            alarm on 7 2 -> rev 3 alarms ["7:2"]
            alarm get 0 0 -> rev 3 alarms ["7:1", "7:2"]
            alarm get 0 2 -> rev 3 alarms ["7:2"]
            del a -> error: etcdserver: corrupt cluster
            compact 2 -> error: etcdserver: corrupt cluster
            revoke 1 -> error: etcdserver: corrupt cluster
            txn del a | get a -> error: etcdserver: corrupt cluster
            put a 2 -> error: etcdserver: corrupt cluster
            alarm off 7 2 -> rev 3 alarms ["7:2"]
            alarm off 7 2 -> rev 3 alarms []
            put a 2 -> error: etcdserver: mvcc: database space exceeded
            alarm off 7 1 -> rev 3 alarms ["7:1"]
            put a 2 -> rev 4 +a
            alarm 9 7 1 -> error: etcdserver: unknown method
        "#]],
    );
}

#[test]
fn a_refused_entry_moves_the_applied_index_like_any_other() {
    let mut world = World::new();
    let mut out = String::new();
    world.run("put k v lease=9", &mut out);
    world.run("revoke 3", &mut out);
    assert_eq!(world.state.applied(), (2, 1));
    assert_eq!(world.db.view().meta().applied_index, 2, "in the same transaction as the data");
}

#[test]
fn members_come_with_the_first_entry_and_survive_a_restart() {
    let mut world = World::new();
    let raft_attributes =
        membershippb::RaftAttributes { peer_urls: vec!["http://a".into()], is_learner: false };
    let record =
        membershippb::Member { id: 7, raft_attributes: Some(raft_attributes), member_attributes: None };
    let change = ConfChange {
        request_id: 0,
        kind: Kind::AddVoter,
        member_id: 7,
        cluster_id: 5,
        member: Some(record),
        learners_max: 0,
    };
    let outcome = world.entry(EntryKind::ConfChangeV2, change.encode(), None);
    assert_eq!(outcome.conf, [(1, Some(change.clone()))]);
    let again = world.entry(EntryKind::ConfChangeV2, change.encode(), None);
    assert_eq!(again.conf, [(2, None)], "a member is added once");
    let set = membershippb::ClusterMemberAttrSetRequest {
        member_id: 7,
        member_attributes: Some(membershippb::Attributes { name: "n".into(), client_urls: vec![] }),
    };
    let mut out = String::new();
    world.apply(Command::MemberAttributes(set), &mut out);
    world.apply(
        Command::ClusterVersion(membershippb::ClusterVersionSetRequest { ver: "3.7.0".into() }),
        &mut out,
    );
    world.run("restart", &mut out);
    let cluster = world.state.cluster();
    assert_eq!(cluster.cluster_id.map(|id| id.0), Some(5));
    assert_eq!(cluster.version, Some(Version::OWN));
    let member = cluster.members.get(7).expect("it is there");
    assert_eq!(member.member_attributes.as_ref().map(|a| a.name.as_str()), Some("n"));
    assert_eq!(cluster.members.voters_and_learners(), (vec![7], vec![]));
}

// rule: VE-2, VE-5, VE-6, VE-7
#[test]
fn the_version_of_a_cluster_goes_up_and_only_by_a_downgrade_down() {
    check(
        "versions\ndowngrade 3.6\nversion x\nversion 3.0.0\nversion 3.7.0\nversion 3.7.0\nversion 3.6.0\n\
         downgrade\ndowngrade 3.7\ndowngrade 3.5\ndowngrade x\ndowngrade 3.6\ndowngrade 3.6\nrestart\nversions\n\
         version 3.5.0\nversion 3.6.0\nversion 3.7.0\ndowngrade 3.5\nrestart\nversions\ndowngrade\nversion 3.7.0\n\
         versions\nrestart\nversions",
        expect![[r#"
            versions -> none, down to none
            downgrade 3.6 -> error: etcdserver: cluster version not found during downgrade
            version x -> error: etcdserver: wrong downgrade target version format
            version 3.0.0 -> done
            version 3.7.0 -> done
            version 3.7.0 -> done
            version 3.6.0 -> error: etcdserver: invalid downgrade target version
            downgrade -> error: etcdserver: no inflight downgrade job
            downgrade 3.7 -> error: etcdserver: invalid downgrade target version
            downgrade 3.5 -> error: etcdserver: invalid downgrade target version
            downgrade x -> error: etcdserver: wrong downgrade target version format
            downgrade 3.6 -> done
            downgrade 3.6 -> error: etcdserver: cluster has a downgrade job in progress
            restart -> 0 alarms
            versions -> 3.7.0, down to 3.6.0
            version 3.5.0 -> error: etcdserver: invalid downgrade target version
            version 3.6.0 -> done
            version 3.7.0 -> error: etcdserver: invalid downgrade target version
            downgrade 3.5 -> error: etcdserver: cluster has a downgrade job in progress
            restart -> 0 alarms
            versions -> 3.6.0, down to 3.6.0
            downgrade -> done
            version 3.7.0 -> done
            versions -> 3.7.0, down to none
            restart -> 0 alarms
            versions -> 3.7.0, down to none
        "#]],
    );
}

// rule: VE-3
#[test]
fn a_member_that_is_older_than_its_cluster_ends_and_does_not_start() {
    let above = Version::new(Version::OWN.major, Version::OWN.minor + 1);
    let set = Command::ClusterVersion(membershippb::ClusterVersionSetRequest { ver: above.to_string() });
    let mut world = World::new();
    let why = "invalid downgrade; server version is lower than determined cluster version";
    assert!(world.ends_with(&set).starts_with(why));

    // As the version after this one would have left it.
    let mut store = Store::open(world.db.clone()).expect("it opens");
    let mut batch = store.batch().expect("a batch");
    batch.small_put(SmallTree::Meta, b"cluster_version", Bytes::from(above.to_string())).expect("it is put");
    batch.commit(1, 1).expect("it is written");
    let opened = State::open(store, world.lessor.clone(), (1, 1));
    assert!(opened.err().expect("it does not open").to_string().starts_with(why));
}

#[test]
fn a_request_of_a_later_version_is_passed_over_until_the_cluster_is_of_it() {
    check(
        "later 3.8\nversion 3.6.0\nlater 3.8\nput a 1\nversions",
        expect![[r#"
            later 3.8 -> error: etcdserver: not capable
            version 3.6.0 -> done
            later 3.8 -> error: etcdserver: not capable
            put a 1 -> rev 2 +a
            versions -> 3.6.0, down to none
        "#]],
    );
    let mut world = World::new();
    let mut out = String::new();
    world.run("version 3.7.0", &mut out);
    // No member sends it: what is known to this version is no later one.
    let why = world.ends_with(&Command::Later { since: Version::OWN });
    assert_eq!(why, "entry 2 of the log: a request that members of version 3.7 know");
}
