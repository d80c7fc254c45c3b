// SPDX-License-Identifier: Apache-2.0
//! The bytes of a client's requests, as far as they go before anything is looked up.
//!
//! Holds     1. what decodes comes back from its own bytes;
//!           2. a request that passes the door comes back from its form in the log: one that did not would stop
//!              every replay.

use super::{describe::Descriptors, world::World};
use bytes::Bytes;
use cairn_core::{
    Command,
    auth::{command::AuthCommand, needs, needs::Grants, rights::Rights},
    convert, door,
    replica::log::EntryKind,
};
use cairn_engine::{fuzz::Target, sim::SplitMix};
use cairn_proto::{
    authpb::{Permission, permission::Type},
    errors::WireError,
    etcdserverpb as pb, health, methods, v3electionpb, v3lockpb,
};
use pb::request_op::Request;
use prost::Message;

const TXN_OPS_MAX: usize = 128;

/// What a request's bytes go through; true if they are taken.
type Body = fn(&[u8]) -> bool;

macro_rules! requests {
    ($($module:ident::$message:ident => $check:expr;)*) => {
        /// Every message that a method takes.
        const REQUESTS: &[(&str, Body)] =
            &[$((stringify!($message), |bytes| request::<$module::$message>(bytes, $check)),)*];
    };
}

/// Nothing is asked of it before it is looked up.
fn any<M>(_: M) -> bool {
    true
}

/// It travels in the log as it came.
fn logged(command: Command) -> bool {
    let again = Command::decode(command.encode(7)).expect("what is proposed is read again");
    assert_eq!(again, command);
    true
}

fn auth(command: AuthCommand) -> bool {
    logged(Command::Auth(Box::new(command)))
}

requests! {
    pb::RangeRequest => |r| {
        let good = door::check_range(&r).is_ok();
        assert!(good || door::check_range_stream(&r).is_err());
        convert::range_op(r);
        good
    };
    pb::PutRequest => |r| door::check_put(&r).is_ok() && door::put_cost(&r) > 0 && logged(Command::Put(r));
    pb::DeleteRangeRequest => |r| door::check_delete_range(&r).is_ok() && logged(Command::DeleteRange(r));
    pb::TxnRequest => |r| door::check_txn(&r, TXN_OPS_MAX).is_ok() && logged(Command::Txn(r));
    pb::CompactionRequest => |r| logged(Command::Compact(r));
    pb::WatchRequest => any;
    pb::LeaseGrantRequest => |r| logged(Command::LeaseGrant(r));
    pb::LeaseRevokeRequest => |r| logged(Command::LeaseRevoke(r));
    pb::LeaseKeepAliveRequest => any;
    pb::LeaseTimeToLiveRequest => any;
    pb::LeaseLeasesRequest => any;
    pb::MemberAddRequest => any;
    pb::MemberRemoveRequest => any;
    pb::MemberUpdateRequest => any;
    pb::MemberListRequest => any;
    pb::MemberPromoteRequest => any;
    pb::AlarmRequest => |r| logged(Command::Alarm(r));
    pb::StatusRequest => any;
    pb::DefragmentRequest => any;
    pb::HashRequest => any;
    pb::HashKvRequest => any;
    pb::SnapshotRequest => any;
    pb::MoveLeaderRequest => any;
    pb::DowngradeRequest => any;
    pb::AuthEnableRequest => |r| auth(AuthCommand::Enable(r));
    pb::AuthDisableRequest => |r| auth(AuthCommand::Disable(r));
    pb::AuthStatusRequest => any;
    pb::AuthenticateRequest => any;
    pb::AuthUserAddRequest => |r| auth(AuthCommand::UserAdd(r));
    pb::AuthUserGetRequest => any;
    pb::AuthUserListRequest => any;
    pb::AuthUserDeleteRequest => |r| auth(AuthCommand::UserDelete(r));
    pb::AuthUserChangePasswordRequest => |r| auth(AuthCommand::UserChangePassword(r));
    pb::AuthUserGrantRoleRequest => |r| auth(AuthCommand::UserGrantRole(r));
    pb::AuthUserRevokeRoleRequest => |r| auth(AuthCommand::UserRevokeRole(r));
    pb::AuthRoleAddRequest => |r| auth(AuthCommand::RoleAdd(r));
    pb::AuthRoleGetRequest => any;
    pb::AuthRoleListRequest => any;
    pb::AuthRoleDeleteRequest => |r| auth(AuthCommand::RoleDelete(r));
    pb::AuthRoleGrantPermissionRequest => |r| auth(AuthCommand::RoleGrantPermission(r));
    pb::AuthRoleRevokePermissionRequest => |r| auth(AuthCommand::RoleRevokePermission(r));
    v3lockpb::LockRequest => any;
    v3lockpb::UnlockRequest => any;
    v3electionpb::CampaignRequest => any;
    v3electionpb::ProclaimRequest => any;
    v3electionpb::LeaderRequest => any;
    v3electionpb::ResignRequest => any;
    health::HealthCheckRequest => any;
    health::HealthListRequest => any;
}

fn request<M: Message + Default + PartialEq + std::fmt::Debug>(bytes: &[u8], check: fn(M) -> bool) -> bool {
    let Ok(message) = M::decode(bytes) else { return false };
    let again = M::decode(message.encode_to_vec().as_slice()).expect("its own bytes");
    assert_eq!(again, message);
    check(message)
}

/// The first byte says which request; the rest is its bytes.
pub const REQUEST: Target = Target {
    name: "request-message",
    run: |input| {
        let Some((which, bytes)) = input.split_first() else { return false };
        REQUESTS[usize::from(*which) % REQUESTS.len()].1(bytes)
    },
    fix: |_| {},
    samples: || {
        let (descriptors, mut rng) = (Descriptors::read(), SplitMix::new(3));
        let rpcs = descriptors.rpcs();
        let sample = |(which, (name, body)): (usize, &(&str, Body))| {
            let rpc = rpcs.iter().find(|rpc| is_named(&rpc.request, name)).expect("a request of an RPC");
            let mut draw = || descriptors.message(&rpc.request, &mut |below| rng.index(below));
            // Of those that pass the door the longest says most.
            let drawn = (0..200).map(|_| draw()).filter(|bytes| body(bytes));
            let message = drawn.max_by_key(|bytes| bytes.len().min(200)).expect("one passes the door");
            [&[which as u8][..], &message].concat()
        };
        REQUESTS.iter().enumerate().map(sample).collect()
    },
    anchors: |_| vec![0],
};

/// Names differ in the case of some letters: `HashKV` is `HashKv` in Rust.
fn is_named(full: &str, name: &str) -> bool {
    full.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case(name))
}

/// Every request of the table of methods is a target.
pub fn check_table() {
    for method in methods::ALL {
        assert!(REQUESTS.iter().any(|(name, _)| is_named(method.request, name)), "{}", method.request);
    }
}

pub const TXN: Target =
    Target { name: "txn-tree", run: txn, fix: |_| {}, samples: txns, anchors: super::spread };

fn txn(input: &[u8]) -> bool {
    let Ok(request) = pb::TxnRequest::decode(input) else { return false };
    let shape = door::check_txn(&request, TXN_OPS_MAX);
    let path = door::txn_path(&request);
    let cost = door::txn_cost(&request);
    if path != door::TxnPath::Propose {
        assert_eq!(cost, 0, "what only reads costs nothing");
    }
    let perm = Permission { perm_type: Type::Readwrite as i32, key: "a".into(), range_end: "n".into() };
    let rights = Rights::of(false, [&perm].into_iter());
    let attached =
        &mut |lease: i64| Ok::<Vec<Bytes>, WireError>(if lease == 7 { vec!["z".into()] } else { vec![] });
    // A right to everything covers what a right to a part does.
    if needs::txn(&Grants::Only(&rights), &request, attached).is_ok() {
        assert!(needs::txn(&Grants::Everything, &request, attached).is_ok());
    }
    if shape.is_err() {
        return false;
    }
    convert::txn_op(request.clone());
    let command = Command::Txn(request);
    let data = command.encode(7);
    assert_eq!(Command::decode(data.clone()).expect("it passed the door"), command);
    let mut world = World::new();
    assert!(world.apply(&[(EntryKind::Normal, data)]), "it passed the door");
    true
}

fn txns() -> Vec<Vec<u8>> {
    let op = |request| pb::RequestOp { request: Some(request) };
    let put = |key: &'static str, lease| {
        let put = pb::PutRequest { key: key.into(), value: "v".into(), lease, ..Default::default() };
        op(Request::RequestPut(put))
    };
    let delete = |key: &'static str, end: &'static str| {
        op(Request::RequestDeleteRange(pb::DeleteRangeRequest {
            key: key.into(),
            range_end: end.into(),
            prev_kv: true,
        }))
    };
    let range = |key: &'static str, end: &'static str| {
        let range =
            pb::RangeRequest { key: key.into(), range_end: end.into(), limit: 3, ..Default::default() };
        op(Request::RequestRange(range))
    };
    let compare = |target: i32, union| pb::Compare {
        result: 1,
        target,
        key: "b".into(),
        range_end: "c".into(),
        target_union: Some(union),
    };
    use pb::compare::TargetUnion;
    let flat = pb::TxnRequest {
        compare: vec![compare(0, TargetUnion::Version(3)), compare(3, TargetUnion::Value("x".into()))],
        success: vec![put("a", 0), range("b", "c"), delete("d", "e")],
        failure: vec![range("a", ""), range("\0", "\0")],
    };
    let nest = |depth: usize, innermost: &pb::TxnRequest| {
        (0..depth).fold(innermost.clone(), |inner, n| pb::TxnRequest {
            success: vec![op(Request::RequestTxn(inner))],
            failure: if n % 2 == 0 { vec![put("x", 7)] } else { Vec::new() },
            ..Default::default()
        })
    };
    let reads = pb::TxnRequest { success: vec![range("a", "b")], ..Default::default() };
    [flat.clone(), nest(2, &flat), nest(door::TXN_DEPTH_MAX, &reads), reads]
        .iter()
        .map(Message::encode_to_vec)
        .collect()
}
