// SPDX-License-Identifier: Apache-2.0
//! From the path of a call to what serves it.
//!
//! Owns      which methods there are handlers for, and the sentence for each that there is none for yet.
//! Holds     every method of `cairn_proto::methods` has a route; a path that is not there has none.
//! Never     decodes a request.

use cairn_proto::methods::{self, Method};
use std::{collections::HashMap, sync::LazyLock};

/// What serves a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rpc {
    Range,
    RangeStream,
    Put,
    DeleteRange,
    Txn,
    Compact,
    Watch,
    LeaseGrant,
    LeaseRevoke,
    LeaseKeepAlive,
    LeaseTimeToLive,
    LeaseLeases,
    MemberAdd,
    MemberRemove,
    MemberUpdate,
    MemberPromote,
    MemberList,
    Alarm,
    Status,
    Defragment,
    MoveLeader,
    Downgrade,
    Hash,
    HashKv,
    Auth(AuthRpc),
    Lock,
    Unlock,
    Campaign,
    Proclaim,
    Leader,
    Observe,
    Resign,
    HealthCheck,
    HealthList,
    HealthWatch,
    /// Not there yet: what to tell the caller.
    Missing(&'static str),
}

/// What serves a call of the Auth service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AuthRpc {
    Enable,
    Disable,
    Status,
    Authenticate,
    UserAdd,
    UserGet,
    UserList,
    UserDelete,
    UserChangePassword,
    UserGrantRole,
    UserRevokeRole,
    RoleAdd,
    RoleGet,
    RoleList,
    RoleDelete,
    RoleGrantPermission,
    RoleRevokePermission,
}

impl AuthRpc {
    fn of(name: &str) -> Option<AuthRpc> {
        Some(match name {
            "AuthEnable" => AuthRpc::Enable,
            "AuthDisable" => AuthRpc::Disable,
            "AuthStatus" => AuthRpc::Status,
            "Authenticate" => AuthRpc::Authenticate,
            "UserAdd" => AuthRpc::UserAdd,
            "UserGet" => AuthRpc::UserGet,
            "UserList" => AuthRpc::UserList,
            "UserDelete" => AuthRpc::UserDelete,
            "UserChangePassword" => AuthRpc::UserChangePassword,
            "UserGrantRole" => AuthRpc::UserGrantRole,
            "UserRevokeRole" => AuthRpc::UserRevokeRole,
            "RoleAdd" => AuthRpc::RoleAdd,
            "RoleGet" => AuthRpc::RoleGet,
            "RoleList" => AuthRpc::RoleList,
            "RoleDelete" => AuthRpc::RoleDelete,
            "RoleGrantPermission" => AuthRpc::RoleGrantPermission,
            "RoleRevokePermission" => AuthRpc::RoleRevokePermission,
            _ => return None,
        })
    }
}

/// One method and what serves it.
pub struct Route {
    /// Which of `methods::ALL`.
    pub index: usize,
    pub method: &'static Method,
    pub rpc: Rpc,
}

static ROUTES: LazyLock<HashMap<&'static str, Route>> = LazyLock::new(|| {
    let route =
        |(index, method): (usize, &'static Method)| (method.path, Route { index, method, rpc: rpc(method) });
    methods::ALL.iter().enumerate().map(route).collect()
});

/// The route of a path.
pub fn find(path: &str) -> Option<&'static Route> {
    ROUTES.get(path)
}

/// Whether any method belongs to that service.
pub fn service_exists(service: &str) -> bool {
    methods::ALL.iter().any(|method| method.service() == service)
}

fn rpc(method: &Method) -> Rpc {
    match (method.service(), method.name()) {
        ("etcdserverpb.KV", "Range") => Rpc::Range,
        ("etcdserverpb.KV", "RangeStream") => Rpc::RangeStream,
        ("etcdserverpb.KV", "Put") => Rpc::Put,
        ("etcdserverpb.KV", "DeleteRange") => Rpc::DeleteRange,
        ("etcdserverpb.KV", "Txn") => Rpc::Txn,
        ("etcdserverpb.KV", "Compact") => Rpc::Compact,
        ("etcdserverpb.Watch", "Watch") => Rpc::Watch,
        ("etcdserverpb.Lease", "LeaseGrant") => Rpc::LeaseGrant,
        ("etcdserverpb.Lease", "LeaseRevoke") => Rpc::LeaseRevoke,
        ("etcdserverpb.Lease", "LeaseKeepAlive") => Rpc::LeaseKeepAlive,
        ("etcdserverpb.Lease", "LeaseTimeToLive") => Rpc::LeaseTimeToLive,
        ("etcdserverpb.Lease", "LeaseLeases") => Rpc::LeaseLeases,
        ("etcdserverpb.Cluster", "MemberList") => Rpc::MemberList,
        ("etcdserverpb.Cluster", "MemberAdd") => Rpc::MemberAdd,
        ("etcdserverpb.Cluster", "MemberRemove") => Rpc::MemberRemove,
        ("etcdserverpb.Cluster", "MemberUpdate") => Rpc::MemberUpdate,
        ("etcdserverpb.Cluster", "MemberPromote") => Rpc::MemberPromote,
        ("etcdserverpb.Maintenance", "Alarm") => Rpc::Alarm,
        ("etcdserverpb.Maintenance", "Status") => Rpc::Status,
        ("etcdserverpb.Maintenance", "Defragment") => Rpc::Defragment,
        ("etcdserverpb.Maintenance", "Hash") => Rpc::Hash,
        ("etcdserverpb.Maintenance", "HashKV") => Rpc::HashKv,
        ("etcdserverpb.Maintenance", "Snapshot") => Rpc::Missing(
            "snapshots in etcd's format are not there yet: copy the data directory of a stopped member",
        ),
        ("etcdserverpb.Maintenance", "MoveLeader") => Rpc::MoveLeader,
        ("etcdserverpb.Maintenance", "Downgrade") => Rpc::Downgrade,
        ("etcdserverpb.Auth", name) => Rpc::Auth(AuthRpc::of(name).expect("every method has a handler")),
        ("v3lockpb.Lock", "Lock") => Rpc::Lock,
        ("v3lockpb.Lock", "Unlock") => Rpc::Unlock,
        ("v3electionpb.Election", "Campaign") => Rpc::Campaign,
        ("v3electionpb.Election", "Proclaim") => Rpc::Proclaim,
        ("v3electionpb.Election", "Leader") => Rpc::Leader,
        ("v3electionpb.Election", "Observe") => Rpc::Observe,
        ("v3electionpb.Election", "Resign") => Rpc::Resign,
        ("grpc.health.v1.Health", "Check") => Rpc::HealthCheck,
        ("grpc.health.v1.Health", "List") => Rpc::HealthList,
        ("grpc.health.v1.Health", "Watch") => Rpc::HealthWatch,
        (service, name) => unreachable!("{service}/{name} is in the table of methods and has no route"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_has_a_route_or_a_sentence() {
        for method in methods::ALL {
            let route = find(method.path).expect("a route");
            assert_eq!(route.method, method);
            if let Rpc::Missing(sentence) = route.rpc {
                assert!(sentence.contains("yet"), "{sentence}");
            }
        }
        let missing = methods::ALL.iter().filter(|method| matches!(rpc(method), Rpc::Missing(_))).count();
        assert_eq!(missing, 1, "the README and COMPATIBILITY.md tell what is missing");
        for path in [
            "/etcdserverpb.KV/range",
            "//etcdserverpb.KV/Range",
            "/etcdserverpb.KV%2fRange",
            "/etcdserverpb.KV/",
        ] {
            assert!(find(path).is_none(), "{path}");
        }
    }
}
