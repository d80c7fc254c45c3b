// SPDX-License-Identifier: Apache-2.0
//! The table of all RPCs: what each takes and gives, how its answer is made, who may call it.
//!
//! Owns      the list that routing, permission checks and metrics go by. A path that is not here does not
//!           exist, and whoever checks permissions denies it.
//! Holds     a row for every method of the compiled services and no other (`tests/rules/methods.rs`), equal to the
//!           tables of `tests/rules/wire.md`.
//! Never     calls anything.

use Kind::{BidiStream, ServerStream, Unary};

/// One RPC. Message names are without package where they belong to the package of the service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Method {
    /// `/package.Service/Method`, the `:path` of a call.
    pub path: &'static str,
    pub kind: Kind,
    pub request: &'static str,
    pub response: &'static str,
    /// The release of etcd that has it first; empty where none is told.
    pub since: &'static str,
    pub route: Route,
    pub permission: Permission,
}

impl Method {
    /// `package.Service`.
    pub fn service(&self) -> &'static str {
        self.split().0
    }

    /// The last part of the path.
    pub fn name(&self) -> &'static str {
        self.split().1
    }

    fn split(&self) -> (&'static str, &'static str) {
        self.path.trim_start_matches('/').split_once('/').expect("every row's path has two parts")
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Unary,
    ServerStream,
    BidiStream,
}

/// How an answer is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// From this member's applied state.
    Local,
    /// As [`Route::Local`], after a quorum check where the request asks for one.
    LocalOrReadIndex,
    /// From applied state after a quorum check.
    ReadIndex,
    /// As [`Route::ReadIndex`], without the check where the request is serializable.
    ReadIndexOrLocal,
    ReadIndexThenRaft,
    /// A replicated proposal.
    Raft,
    /// A proposal if it may write, else as [`Route::ReadIndexOrLocal`].
    RaftOrReadIndex,
    /// A replicated change of the membership.
    ConfChange,
    /// By the leader; others forward it there.
    Leader,
    LeaderThenConfChange,
    /// By the leader; others refuse it.
    LeaderOnly,
    /// Of other calls: grants, transactions, reads and watches.
    Composed,
}

/// What a caller needs when authentication is on. Role root passes each of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Permission {
    /// Nothing, not even a token.
    None,
    /// A valid token, or the name of a client certificate.
    AnyUser,
    Root,
    RootOrSelf,
    RootOrHolder,
    AnyUserGetElseRoot,
    /// READ on the whole interval.
    ReadInterval,
    /// WRITE on the key; READ too with `prev_kv`; WRITE on all keys of the lease.
    PutKey,
    /// WRITE on the interval; READ too with `prev_kv`.
    DeleteInterval,
    /// The rights of every op of both lists at every depth, READ for compares.
    EachOp,
    /// READ on the interval of each watcher, refused inside the stream.
    ReadEachWatcher,
    /// WRITE on all keys attached to the lease.
    WriteAttached,
    /// A valid token, and READ on the attached keys if they are asked for.
    AnyUserReadAttached,
    /// READ on the attached keys of every lease.
    ReadAllAttached,
    /// Those of the calls it is composed of.
    AsInnerCalls,
}

const fn row(
    path: &'static str,
    kind: Kind,
    request: &'static str,
    response: &'static str,
    since: &'static str,
    route: Route,
    permission: Permission,
) -> Method {
    Method { path, kind, request, response, since, route, permission }
}

/// All RPCs, in the order of the rules' page.
#[rustfmt::skip]
pub const ALL: &[Method] = &[
    row("/etcdserverpb.KV/Range", Unary, "RangeRequest", "RangeResponse", "3.0", Route::ReadIndexOrLocal, Permission::ReadInterval),
    row("/etcdserverpb.KV/RangeStream", ServerStream, "RangeRequest", "RangeStreamResponse", "3.7", Route::ReadIndexOrLocal, Permission::ReadInterval),
    row("/etcdserverpb.KV/Put", Unary, "PutRequest", "PutResponse", "3.0", Route::Raft, Permission::PutKey),
    row("/etcdserverpb.KV/DeleteRange", Unary, "DeleteRangeRequest", "DeleteRangeResponse", "3.0", Route::Raft, Permission::DeleteInterval),
    row("/etcdserverpb.KV/Txn", Unary, "TxnRequest", "TxnResponse", "3.0", Route::RaftOrReadIndex, Permission::EachOp),
    row("/etcdserverpb.KV/Compact", Unary, "CompactionRequest", "CompactionResponse", "3.0", Route::Raft, Permission::Root),
    row("/etcdserverpb.Watch/Watch", BidiStream, "WatchRequest", "WatchResponse", "3.0", Route::Local, Permission::ReadEachWatcher),
    row("/etcdserverpb.Lease/LeaseGrant", Unary, "LeaseGrantRequest", "LeaseGrantResponse", "3.0", Route::Raft, Permission::AnyUser),
    row("/etcdserverpb.Lease/LeaseRevoke", Unary, "LeaseRevokeRequest", "LeaseRevokeResponse", "3.0", Route::Raft, Permission::WriteAttached),
    row("/etcdserverpb.Lease/LeaseKeepAlive", BidiStream, "LeaseKeepAliveRequest", "LeaseKeepAliveResponse", "3.0", Route::Leader, Permission::WriteAttached),
    row("/etcdserverpb.Lease/LeaseTimeToLive", Unary, "LeaseTimeToLiveRequest", "LeaseTimeToLiveResponse", "3.1", Route::Leader, Permission::AnyUserReadAttached),
    row("/etcdserverpb.Lease/LeaseLeases", Unary, "LeaseLeasesRequest", "LeaseLeasesResponse", "3.3", Route::Local, Permission::ReadAllAttached),
    row("/etcdserverpb.Cluster/MemberAdd", Unary, "MemberAddRequest", "MemberAddResponse", "3.0", Route::ConfChange, Permission::Root),
    row("/etcdserverpb.Cluster/MemberRemove", Unary, "MemberRemoveRequest", "MemberRemoveResponse", "3.0", Route::ConfChange, Permission::Root),
    row("/etcdserverpb.Cluster/MemberUpdate", Unary, "MemberUpdateRequest", "MemberUpdateResponse", "3.0", Route::ConfChange, Permission::Root),
    row("/etcdserverpb.Cluster/MemberList", Unary, "MemberListRequest", "MemberListResponse", "3.0", Route::LocalOrReadIndex, Permission::AnyUser),
    row("/etcdserverpb.Cluster/MemberPromote", Unary, "MemberPromoteRequest", "MemberPromoteResponse", "3.4", Route::LeaderThenConfChange, Permission::Root),
    row("/etcdserverpb.Maintenance/Alarm", Unary, "AlarmRequest", "AlarmResponse", "3.0", Route::Raft, Permission::AnyUserGetElseRoot),
    row("/etcdserverpb.Maintenance/Status", Unary, "StatusRequest", "StatusResponse", "3.0", Route::Local, Permission::AnyUser),
    row("/etcdserverpb.Maintenance/Defragment", Unary, "DefragmentRequest", "DefragmentResponse", "3.0", Route::Local, Permission::Root),
    row("/etcdserverpb.Maintenance/Hash", Unary, "HashRequest", "HashResponse", "3.0", Route::Local, Permission::Root),
    row("/etcdserverpb.Maintenance/HashKV", Unary, "HashKVRequest", "HashKVResponse", "3.3", Route::Local, Permission::Root),
    row("/etcdserverpb.Maintenance/Snapshot", ServerStream, "SnapshotRequest", "SnapshotResponse", "3.3", Route::Local, Permission::Root),
    row("/etcdserverpb.Maintenance/MoveLeader", Unary, "MoveLeaderRequest", "MoveLeaderResponse", "3.3", Route::LeaderOnly, Permission::Root),
    row("/etcdserverpb.Maintenance/Downgrade", Unary, "DowngradeRequest", "DowngradeResponse", "3.5", Route::ReadIndexThenRaft, Permission::Root),
    row("/etcdserverpb.Auth/AuthEnable", Unary, "AuthEnableRequest", "AuthEnableResponse", "3.0", Route::Raft, Permission::Root),
    row("/etcdserverpb.Auth/AuthDisable", Unary, "AuthDisableRequest", "AuthDisableResponse", "3.0", Route::Raft, Permission::Root),
    row("/etcdserverpb.Auth/AuthStatus", Unary, "AuthStatusRequest", "AuthStatusResponse", "3.5", Route::Raft, Permission::None),
    row("/etcdserverpb.Auth/Authenticate", Unary, "AuthenticateRequest", "AuthenticateResponse", "3.0", Route::ReadIndexThenRaft, Permission::None),
    row("/etcdserverpb.Auth/UserAdd", Unary, "AuthUserAddRequest", "AuthUserAddResponse", "3.0", Route::Raft, Permission::Root),
    row("/etcdserverpb.Auth/UserGet", Unary, "AuthUserGetRequest", "AuthUserGetResponse", "3.0", Route::Raft, Permission::RootOrSelf),
    row("/etcdserverpb.Auth/UserList", Unary, "AuthUserListRequest", "AuthUserListResponse", "3.0", Route::Raft, Permission::Root),
    row("/etcdserverpb.Auth/UserDelete", Unary, "AuthUserDeleteRequest", "AuthUserDeleteResponse", "3.0", Route::Raft, Permission::Root),
    row("/etcdserverpb.Auth/UserChangePassword", Unary, "AuthUserChangePasswordRequest", "AuthUserChangePasswordResponse", "3.0", Route::Raft, Permission::Root),
    row("/etcdserverpb.Auth/UserGrantRole", Unary, "AuthUserGrantRoleRequest", "AuthUserGrantRoleResponse", "3.0", Route::Raft, Permission::Root),
    row("/etcdserverpb.Auth/UserRevokeRole", Unary, "AuthUserRevokeRoleRequest", "AuthUserRevokeRoleResponse", "3.0", Route::Raft, Permission::Root),
    row("/etcdserverpb.Auth/RoleAdd", Unary, "AuthRoleAddRequest", "AuthRoleAddResponse", "3.0", Route::Raft, Permission::Root),
    row("/etcdserverpb.Auth/RoleGet", Unary, "AuthRoleGetRequest", "AuthRoleGetResponse", "3.0", Route::Raft, Permission::RootOrHolder),
    row("/etcdserverpb.Auth/RoleList", Unary, "AuthRoleListRequest", "AuthRoleListResponse", "3.0", Route::Raft, Permission::Root),
    row("/etcdserverpb.Auth/RoleDelete", Unary, "AuthRoleDeleteRequest", "AuthRoleDeleteResponse", "3.0", Route::Raft, Permission::Root),
    row("/etcdserverpb.Auth/RoleGrantPermission", Unary, "AuthRoleGrantPermissionRequest", "AuthRoleGrantPermissionResponse", "3.0", Route::Raft, Permission::Root),
    row("/etcdserverpb.Auth/RoleRevokePermission", Unary, "AuthRoleRevokePermissionRequest", "AuthRoleRevokePermissionResponse", "3.0", Route::Raft, Permission::Root),
    row("/v3lockpb.Lock/Lock", Unary, "LockRequest", "LockResponse", "", Route::Composed, Permission::AsInnerCalls),
    row("/v3lockpb.Lock/Unlock", Unary, "UnlockRequest", "UnlockResponse", "", Route::Raft, Permission::AsInnerCalls),
    row("/v3electionpb.Election/Campaign", Unary, "CampaignRequest", "CampaignResponse", "", Route::Composed, Permission::AsInnerCalls),
    row("/v3electionpb.Election/Proclaim", Unary, "ProclaimRequest", "ProclaimResponse", "", Route::Raft, Permission::AsInnerCalls),
    row("/v3electionpb.Election/Leader", Unary, "LeaderRequest", "LeaderResponse", "", Route::ReadIndex, Permission::AsInnerCalls),
    row("/v3electionpb.Election/Observe", ServerStream, "LeaderRequest", "LeaderResponse", "", Route::Composed, Permission::AsInnerCalls),
    row("/v3electionpb.Election/Resign", Unary, "ResignRequest", "ResignResponse", "", Route::Raft, Permission::AsInnerCalls),
    row("/grpc.health.v1.Health/Check", Unary, "HealthCheckRequest", "HealthCheckResponse", "", Route::Local, Permission::None),
    row("/grpc.health.v1.Health/List", Unary, "HealthListRequest", "HealthListResponse", "", Route::Local, Permission::None),
    row("/grpc.health.v1.Health/Watch", ServerStream, "HealthCheckRequest", "HealthCheckResponse", "", Route::Local, Permission::None),
];

/// The method of a call's path; `None` for one that does not exist.
pub fn find(path: &str) -> Option<&'static Method> {
    ALL.iter().find(|m| m.path == path)
}
