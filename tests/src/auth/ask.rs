// SPDX-License-Identifier: Apache-2.0
//! A request, who asks, the sending of it, and the answer as text.
//!
//! Owns      the masks: ids and terms of headers, letters and number of a token, remaining seconds, and what
//!           etcd 3.5.1 has no field for.
//! Never     repeats a request.

use cairn_proto::authpb::{Permission, UserAddOptions};
use cairn_proto::etcdserverpb as pb;
use cairn_proto::etcdserverpb::watch_request::RequestUnion;
use tokio_stream::StreamExt as _;
use tonic::{Request, Status};

use crate::answers::Failure;
use crate::client::Client;

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    Nobody,
    /// With a token that was never given.
    Garbage,
    /// With the token of a login, good or not any more.
    Slot(usize),
}

#[derive(Clone, PartialEq, Debug)]
pub enum Ask {
    Enable,
    Disable,
    AuthStatus,
    Login { user: String, password: String, slot: usize },
    UserAdd { name: String, password: String, no_password: bool },
    UserDelete(String),
    Password { name: String, password: String },
    GrantRole { user: String, role: String },
    RevokeRole { user: String, role: String },
    UserGet(String),
    UserList,
    RoleAdd(String),
    RoleDelete(String),
    RoleGet(String),
    RoleList,
    Permit { role: String, perm: Option<Permission> },
    Forbid { role: String, perm: Permission },
    Range(pb::RangeRequest),
    Put(pb::PutRequest),
    Delete(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact,
    Grant { id: i64 },
    Revoke { id: i64 },
    KeepAlive { id: i64 },
    TimeToLive { id: i64, keys: bool },
    Leases,
    Members,
    Alarms,
    Disarm,
    MemberStatus,
    Hash,
    Watch(pb::WatchCreateRequest),
}

pub type Answer = Result<String, Failure>;

impl Ask {
    /// The answer, and the token in it.
    pub async fn send(&self, client: &Client, token: Option<&str>) -> (Answer, Option<String>) {
        let mut given = None;
        let answer = self.call(client.clone(), token, &mut given).await;
        (answer.map_err(Failure::from), given)
    }

    async fn call(
        &self,
        mut client: Client,
        token: Option<&str>,
        given: &mut Option<String>,
    ) -> Result<String, Status> {
        macro_rules! ask {
            ($service:ident.$method:ident($message:expr)) => {{
                let mut response = client.$service.$method(with(token, $message)).await?.into_inner();
                mask(&mut response.header);
                response
            }};
        }
        Ok(match self.clone() {
            Ask::Enable => format!("{:?}", ask!(auth.auth_enable(pb::AuthEnableRequest {}))),
            Ask::Disable => format!("{:?}", ask!(auth.auth_disable(pb::AuthDisableRequest {}))),
            Ask::AuthStatus => format!("{:?}", ask!(auth.auth_status(pb::AuthStatusRequest {}))),
            Ask::Login { user: name, password, .. } => {
                let response = ask!(auth.authenticate(pb::AuthenticateRequest { name, password }));
                let shape = response.token.split_once('.').map(|(letters, _)| letters.len());
                *given = Some(response.token);
                format!("{:?} token of {shape:?} letters", response.header)
            }
            Ask::UserAdd { name, password, no_password } => {
                let options = no_password.then_some(UserAddOptions { no_password });
                let r = pb::AuthUserAddRequest { name, password, options, ..Default::default() };
                format!("{:?}", ask!(auth.user_add(r)))
            }
            Ask::UserDelete(name) => {
                format!("{:?}", ask!(auth.user_delete(pb::AuthUserDeleteRequest { name })))
            }
            Ask::Password { name, password } => {
                let r = pb::AuthUserChangePasswordRequest { name, password, ..Default::default() };
                format!("{:?}", ask!(auth.user_change_password(r)))
            }
            Ask::GrantRole { user, role } => {
                format!("{:?}", ask!(auth.user_grant_role(pb::AuthUserGrantRoleRequest { user, role })))
            }
            Ask::RevokeRole { user: name, role } => {
                format!("{:?}", ask!(auth.user_revoke_role(pb::AuthUserRevokeRoleRequest { name, role })))
            }
            Ask::UserGet(name) => format!("{:?}", ask!(auth.user_get(pb::AuthUserGetRequest { name }))),
            Ask::UserList => format!("{:?}", ask!(auth.user_list(pb::AuthUserListRequest {}))),
            Ask::RoleAdd(name) => format!("{:?}", ask!(auth.role_add(pb::AuthRoleAddRequest { name }))),
            Ask::RoleDelete(role) => {
                format!("{:?}", ask!(auth.role_delete(pb::AuthRoleDeleteRequest { role })))
            }
            Ask::RoleGet(role) => format!("{:?}", ask!(auth.role_get(pb::AuthRoleGetRequest { role }))),
            Ask::RoleList => format!("{:?}", ask!(auth.role_list(pb::AuthRoleListRequest {}))),
            Ask::Permit { role: name, perm } => {
                let r = pb::AuthRoleGrantPermissionRequest { name, perm };
                format!("{:?}", ask!(auth.role_grant_permission(r)))
            }
            Ask::Forbid { role, perm: Permission { key, range_end, .. } } => {
                let r = pb::AuthRoleRevokePermissionRequest { role, key, range_end };
                format!("{:?}", ask!(auth.role_revoke_permission(r)))
            }
            Ask::Range(r) => format!("{:?}", ask!(kv.range(r))),
            Ask::Put(r) => format!("{:?}", ask!(kv.put(r))),
            Ask::Delete(r) => format!("{:?}", ask!(kv.delete_range(r))),
            Ask::Txn(r) => format!("{:?}", ask!(kv.txn(r))),
            Ask::Compact => {
                format!("{:?}", ask!(kv.compact(pb::CompactionRequest { revision: 1, physical: false })))
            }
            Ask::Grant { id } => {
                format!("{:?}", ask!(lease.lease_grant(pb::LeaseGrantRequest { ttl: 100_000, id })))
            }
            Ask::Revoke { id } => format!("{:?}", ask!(lease.lease_revoke(pb::LeaseRevokeRequest { id }))),
            Ask::KeepAlive { id } => {
                let renewals = tokio_stream::iter([pb::LeaseKeepAliveRequest { id }]);
                let mut stream = client.lease.lease_keep_alive(with(token, renewals)).await?.into_inner();
                let mut response = stream.message().await?.ok_or_else(|| Status::unknown("ended"))?;
                mask(&mut response.header);
                format!("{response:?}")
            }
            Ask::TimeToLive { id, keys } => {
                let mut response = ask!(lease.lease_time_to_live(pb::LeaseTimeToLiveRequest { id, keys }));
                response.ttl = response.ttl.signum();
                response.keys.sort_unstable();
                format!("{response:?}")
            }
            Ask::Leases => {
                let mut response = ask!(lease.lease_leases(pb::LeaseLeasesRequest {}));
                response.leases.sort_unstable_by_key(|lease| lease.id);
                format!("{response:?}")
            }
            Ask::Members => {
                let r = pb::MemberListRequest { linearizable: true };
                format!("{} members", ask!(cluster.member_list(r)).members.len())
            }
            Ask::Alarms => format!("{:?}", ask!(maintenance.alarm(pb::AlarmRequest::default()))),
            Ask::Disarm => {
                let r = pb::AlarmRequest { action: 2, member_id: 0, alarm: 1 };
                format!("{:?}", ask!(maintenance.alarm(r)))
            }
            Ask::MemberStatus => {
                ask!(maintenance.status(pb::StatusRequest {}));
                "status".into()
            }
            Ask::Hash => {
                let mut response = ask!(maintenance.hash_kv(pb::HashKvRequest { revision: 0 }));
                response.hash_revision = 0;
                format!("{response:?}")
            }
            Ask::Watch(create) => {
                let create = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
                let requests = tokio_stream::iter([create]).chain(tokio_stream::pending());
                let mut stream = client.watch.watch(with(token, requests)).await?.into_inner();
                let mut response = stream.message().await?.ok_or_else(|| Status::unknown("ended"))?;
                mask(&mut response.header);
                if response.canceled {
                    // 3.5.1 has the id that was asked for (WATCH-8).
                    response.watch_id = -1;
                }
                format!("{response:?}")
            }
        })
    }
}

fn with<T>(token: Option<&str>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        request.metadata_mut().insert("token", token.parse().expect("a header"));
    }
    request
}

fn mask(header: &mut Option<pb::ResponseHeader>) {
    if let Some(header) = header {
        header.cluster_id = header.cluster_id.min(1);
        header.member_id = header.member_id.min(1);
        header.raft_term = header.raft_term.min(1);
    }
}
