// SPDX-License-Identifier: Apache-2.0
//! Which work answers which method.
//!
//! Owns      the handler of each route.
//! Never     does any of the work.

use super::{
    Call, auth, election, health, kv, lease, lock, maintenance, refuse,
    routes::{AuthRpc, Rpc},
    status::{Status, UNIMPLEMENTED},
    watch, whole,
};
use crate::front::body::Body;
use cairn_proto::{errors, etcdserverpb as pb};
use futures_util::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;

impl Call {
    /// The work of this kind of call; kinds differ a lot in size, so each has a future of its own.
    pub(super) fn answer(&self, request: Request<Incoming>) -> BoxFuture<'_, Response<Body>> {
        let member = &self.member;
        match self.route.rpc {
            Rpc::Put => self.unary(request, move |r| async move { whole(member.put(r).await) }),
            Rpc::Range => self.unary(request, move |r: pb::RangeRequest| async move {
                if member.is_learner() && !r.serializable {
                    return Err(errors::NOT_SUPPORTED_FOR_LEARNER.into());
                }
                kv::range(member.range(r).await, self.encoding)
            }),
            Rpc::Txn => self.unary(request, move |r| async move { whole(member.txn(r).await) }),
            Rpc::DeleteRange => {
                self.unary(request, move |r| async move { whole(member.delete_range(r).await) })
            }
            Rpc::Compact => self.unary(request, move |r| async move { whole(member.compact(r).await) }),
            Rpc::LeaseGrant => {
                self.unary(request, move |r| async move { whole(member.lease_grant(r).await) })
            }
            Rpc::LeaseRevoke => {
                self.unary(request, move |r| async move { whole(member.lease_revoke(r).await) })
            }
            Rpc::LeaseTimeToLive => {
                self.unary(request, move |r| async move { whole(member.lease_time_to_live(r).await) })
            }
            Rpc::LeaseLeases => self
                .unary(request, move |_: pb::LeaseLeasesRequest| async move { whole(member.leases().await) }),
            Rpc::MemberList => {
                self.unary(request, move |r| async move { whole(member.member_list(r).await) })
            }
            Rpc::MemberAdd => self.unary(request, move |r| async move { whole(member.member_add(r).await) }),
            Rpc::MemberRemove => {
                self.unary(request, move |r| async move { whole(member.member_remove(r).await) })
            }
            Rpc::MemberUpdate => {
                self.unary(request, move |r| async move { whole(member.member_update(r).await) })
            }
            Rpc::MemberPromote => {
                self.unary(request, move |r| async move { whole(member.member_promote(r).await) })
            }
            Rpc::Alarm => self.unary(request, move |r| async move { whole(member.alarm(r).await) }),
            Rpc::HashKv => {
                let seconds = &self.front.metrics.hash_rev_seconds;
                self.unary(request, move |r| async move { whole(seconds.time(member.hash_kv(r)).await) })
            }
            Rpc::Hash => {
                let seconds = &self.front.metrics.hash_seconds;
                self.unary(request, move |_: pb::HashRequest| async move {
                    whole(seconds.time(member.hash()).await)
                })
            }
            Rpc::Status => self.unary(request, move |_: pb::StatusRequest| async move {
                whole(Ok::<_, Status>(maintenance::status(
                    &self.front.config,
                    &member.status(),
                    member.header(),
                )))
            }),
            Rpc::Defragment => self.unary(request, move |_: pb::DefragmentRequest| async move {
                whole(maintenance::defragment(&self.front, member).await)
            }),
            Rpc::Auth(rpc) => self.auth(rpc, request),
            Rpc::MoveLeader => self.unary(request, move |r: pb::MoveLeaderRequest| async move {
                let moved = member.move_leader(r.target_id).await;
                whole(moved.map(|()| pb::MoveLeaderResponse::default()))
            }),
            Rpc::Downgrade => self.unary(request, move |r| async move { whole(member.downgrade(r).await) }),
            Rpc::Lock => self.waiting(request, move |r| async move { whole(lock::lock(member, r).await) }),
            Rpc::Unlock => self.unary(request, move |r| async move { whole(lock::unlock(member, r).await) }),
            Rpc::Campaign => {
                self.waiting(request, move |r| async move { whole(election::campaign(member, r).await) })
            }
            Rpc::Proclaim => {
                self.unary(request, move |r| async move { whole(election::proclaim(member, r).await) })
            }
            Rpc::Leader => {
                self.unary(request, move |r| async move { whole(election::leader(member, r).await) })
            }
            Rpc::Resign => {
                self.unary(request, move |r| async move { whole(election::resign(member, r).await) })
            }
            Rpc::HealthCheck => {
                self.unary(request, move |r| async move { whole(health::check(&self.front, r)) })
            }
            Rpc::HealthList => {
                self.unary(request, move |_: cairn_proto::health::HealthListRequest| async move {
                    whole(Ok::<_, Status>(health::list(&self.front)))
                })
            }
            // Who may not ask is not told whether it is there.
            Rpc::Missing(sentence) => Box::pin(async move {
                let refused = self.admit().await.err();
                refuse(request, refused.unwrap_or_else(|| Status::new(UNIMPLEMENTED, sentence))).await
            }),
            Rpc::Watch => self.stream(request, async move |m| Ok(watch::stream(member.watch_stream(), m))),
            Rpc::LeaseKeepAlive => {
                self.stream(request, async move |m| Ok(lease::keep_alive(member.clone(), m)))
            }
            Rpc::RangeStream => self.stream(request, move |m| kv::range_stream(member, m)),
            Rpc::Observe => self.stream(request, move |m| election::observe(member, m)),
            Rpc::HealthWatch => self.stream(request, move |m| health::watch(&self.front, m)),
        }
    }

    fn auth(&self, rpc: AuthRpc, request: Request<Incoming>) -> BoxFuture<'_, Response<Body>> {
        let member = &self.member;
        match rpc {
            AuthRpc::Enable => {
                self.unary(request, move |r| async move { whole(member.auth_enable(r).await) })
            }
            AuthRpc::Disable => {
                self.unary(request, move |r| async move { whole(member.auth_disable(r).await) })
            }
            AuthRpc::Status => self.unary(request, move |_: pb::AuthStatusRequest| async move {
                whole(member.auth_status().await)
            }),
            AuthRpc::Authenticate => {
                self.unary(request, move |r| async move { whole(auth::authenticate(self, r).await) })
            }
            AuthRpc::UserAdd => self.unary(request, move |r| async move { whole(member.user_add(r).await) }),
            AuthRpc::UserGet => self.unary(request, move |r| async move { whole(member.user_get(r).await) }),
            AuthRpc::UserList => self.unary(request, move |_: pb::AuthUserListRequest| async move {
                whole(member.user_list().await)
            }),
            AuthRpc::UserDelete => {
                self.unary(request, move |r| async move { whole(member.user_delete(r).await) })
            }
            AuthRpc::UserChangePassword => {
                self.unary(request, move |r| async move { whole(member.user_change_password(r).await) })
            }
            AuthRpc::UserGrantRole => {
                self.unary(request, move |r| async move { whole(member.user_grant_role(r).await) })
            }
            AuthRpc::UserRevokeRole => {
                self.unary(request, move |r| async move { whole(member.user_revoke_role(r).await) })
            }
            AuthRpc::RoleAdd => self.unary(request, move |r| async move { whole(member.role_add(r).await) }),
            AuthRpc::RoleGet => self.unary(request, move |r| async move { whole(member.role_get(r).await) }),
            AuthRpc::RoleList => self.unary(request, move |_: pb::AuthRoleListRequest| async move {
                whole(member.role_list().await)
            }),
            AuthRpc::RoleDelete => {
                self.unary(request, move |r| async move { whole(member.role_delete(r).await) })
            }
            AuthRpc::RoleGrantPermission => {
                self.unary(request, move |r| async move { whole(member.role_grant_permission(r).await) })
            }
            AuthRpc::RoleRevokePermission => {
                self.unary(request, move |r| async move { whole(member.role_revoke_permission(r).await) })
            }
        }
    }
}
