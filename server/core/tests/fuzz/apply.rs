// SPDX-License-Identifier: Apache-2.0
//! Any entries of the log, applied.
//!
//! Holds     1. entries applied one by one and all at once leave the same;
//!           2. a restart finds what entries left, whatever was in them.

use super::{program::Program, program::push_piece, spread, world::World};
use bytes::Bytes;
use cairn_core::{
    Command, Version,
    auth::command::AuthCommand,
    replica::{
        conf::{ConfChange, Kind},
        log::EntryKind,
    },
};
use cairn_engine::fuzz::Target;
use cairn_proto::{
    authpb::{Permission, UserAddOptions},
    etcdserverpb as pb, membershippb,
};
use pb::request_op::Request;

/// Entries of one input.
const ENTRIES_MAX: usize = 32;

pub const ENTRIES: Target = Target { name: "apply-entries", run, fix: |_| {}, samples, anchors: spread };

fn run(input: &[u8]) -> bool {
    let mut program = Program::new(input);
    let mut entries = Vec::new();
    while let Some(kind) = program.next()
        && entries.len() < ENTRIES_MAX
    {
        let kind = if kind % 4 == 3 { EntryKind::ConfChangeV2 } else { EntryKind::Normal };
        entries.push((kind, Bytes::copy_from_slice(program.piece())));
    }
    let mut one_by_one = World::new();
    let good = entries.iter().take_while(|entry| one_by_one.apply(std::slice::from_ref(*entry))).count();
    // An entry of no version ends a member, and what it was in the middle of is not kept.
    if good < entries.len() {
        entries.truncate(good);
        one_by_one = World::new();
        entries.iter().for_each(|entry| assert!(one_by_one.apply(std::slice::from_ref(entry))));
    }
    let mut at_once = World::new();
    assert!(at_once.apply(&entries), "an entry that was good alone");
    let whole = at_once.whole();
    assert_eq!(whole, one_by_one.whole());
    let done = one_by_one.done;
    assert_eq!(whole, one_by_one.reopened().whole(), "after a restart");
    done > 1
}

fn change(kind: Kind, member_id: u64, url: &str) -> (EntryKind, Bytes) {
    let raft_attributes = membershippb::RaftAttributes { peer_urls: vec![url.into()], is_learner: false };
    let member =
        membershippb::Member { id: member_id, raft_attributes: Some(raft_attributes), ..Default::default() };
    let member = (kind != Kind::Remove && kind != Kind::Promote).then_some(member);
    let change = ConfChange { request_id: 3, kind, member_id, cluster_id: 5, member, learners_max: 1 };
    (EntryKind::ConfChangeV2, change.encode())
}

fn put(key: &'static str, lease: i64) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: "value".into(), lease, prev_kv: true, ..Default::default() }
}

fn auth_commands() -> Vec<AuthCommand> {
    let (root, user) = (|| "root".to_owned(), || "u".to_owned());
    let perm = Permission { perm_type: 2, key: "a".into(), range_end: "m".into() };
    let options = Some(UserAddOptions { no_password: true });
    let hash = || "aGFzaA==".to_owned();
    vec![
        AuthCommand::UserAdd(pb::AuthUserAddRequest {
            name: root(),
            hashed_password: hash(),
            ..Default::default()
        }),
        AuthCommand::UserAdd(pb::AuthUserAddRequest { name: user(), options, ..Default::default() }),
        AuthCommand::RoleAdd(pb::AuthRoleAddRequest { name: root() }),
        AuthCommand::RoleAdd(pb::AuthRoleAddRequest { name: user() }),
        AuthCommand::RoleGrantPermission(pb::AuthRoleGrantPermissionRequest {
            name: user(),
            perm: Some(perm),
        }),
        AuthCommand::UserGrantRole(pb::AuthUserGrantRoleRequest { user: root(), role: root() }),
        AuthCommand::UserGrantRole(pb::AuthUserGrantRoleRequest { user: user(), role: user() }),
        AuthCommand::UserChangePassword(pb::AuthUserChangePasswordRequest {
            name: user(),
            hashed_password: hash(),
            ..Default::default()
        }),
        AuthCommand::RoleRevokePermission(pb::AuthRoleRevokePermissionRequest {
            role: user(),
            key: "a".into(),
            range_end: "m".into(),
        }),
        AuthCommand::UserRevokeRole(pb::AuthUserRevokeRoleRequest { name: user(), role: user() }),
        AuthCommand::RoleDelete(pb::AuthRoleDeleteRequest { role: user() }),
        AuthCommand::UserDelete(pb::AuthUserDeleteRequest { name: user() }),
        AuthCommand::Enable(pb::AuthEnableRequest {}),
        AuthCommand::Authenticate(pb::InternalAuthenticateRequest {
            name: root(),
            password: String::new(),
            simple_token: "letters".into(),
        }),
    ]
}

fn samples() -> Vec<Vec<u8>> {
    let op = |request| pb::RequestOp { request: Some(request) };
    let delete = pb::DeleteRangeRequest { key: "a".into(), range_end: "z".into(), prev_kv: true };
    let inner = pb::TxnRequest { success: vec![op(Request::RequestPut(put("t", 0)))], ..Default::default() };
    let compare = pb::Compare { key: "a".into(), range_end: "z".into(), ..Default::default() };
    let read = pb::RangeRequest { key: "a".into(), range_end: "\0".into(), ..Default::default() };
    let txn = pb::TxnRequest {
        compare: vec![compare],
        success: vec![op(Request::RequestDeleteRange(delete.clone())), op(Request::RequestRange(read))],
        failure: vec![op(Request::RequestTxn(inner))],
    };
    let checkpoint = pb::LeaseCheckpoint { id: 7, remaining_ttl: 50 };
    let attributes = membershippb::Attributes { name: "n".into(), client_urls: vec!["http://a:1".into()] };
    let keys = [
        Command::LeaseGrant(pb::LeaseGrantRequest { id: 7, ttl: 60 }),
        Command::Put(put("a", 7)),
        Command::Put(put("b", 0)),
        Command::Txn(txn.clone()),
        Command::DeleteRange(delete),
        Command::LeaseCheckpoint(pb::LeaseCheckpointRequest { checkpoints: vec![checkpoint] }),
        Command::Compact(pb::CompactionRequest { revision: 3, physical: true }),
        Command::Alarm(pb::AlarmRequest { action: 1, member_id: 9, alarm: 1 }),
        Command::Alarm(pb::AlarmRequest { action: 2, member_id: 9, alarm: 1 }),
        Command::LeaseEnd { id: 7, granted_index: 1 },
        Command::LeaseRevoke(pb::LeaseRevokeRequest { id: 7 }),
        Command::ClusterVersion(membershippb::ClusterVersionSetRequest { ver: "3.7.0".into() }),
        Command::Downgrade(membershippb::DowngradeInfoSetRequest { enabled: true, ver: "3.6.0".into() }),
        Command::ClusterVersion(membershippb::ClusterVersionSetRequest { ver: "3.6.0".into() }),
        Command::Downgrade(membershippb::DowngradeInfoSetRequest::default()),
        Command::Later { since: Version::new(3, 8) },
    ];
    let normal = |command: Command| (EntryKind::Normal, command.encode(11));
    let users = auth_commands().into_iter().map(|command| normal(Command::Auth(Box::new(command))));
    let members = vec![
        change(Kind::AddVoter, 1, "http://a:1"),
        change(Kind::AddVoter, 2, "http://b:1"),
        change(Kind::AddLearner, 3, "http://c:1"),
        normal(Command::MemberAttributes(membershippb::ClusterMemberAttrSetRequest {
            member_id: 2,
            member_attributes: Some(attributes),
        })),
        change(Kind::Update, 2, "http://d:1"),
        change(Kind::Promote, 3, ""),
        change(Kind::Remove, 1, ""),
        normal(Command::Put(put("a", 0))),
        normal(Command::Txn(txn)),
    ];
    [keys.map(normal).to_vec(), users.collect(), members].iter().map(|entries| program(entries)).collect()
}

fn program(entries: &[(EntryKind, Bytes)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, data) in entries {
        out.push(if *kind == EntryKind::Normal { 0 } else { 3 });
        push_piece(&mut out, data);
    }
    out
}
