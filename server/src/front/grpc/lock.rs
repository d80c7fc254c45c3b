// SPDX-License-Identifier: Apache-2.0
//! The lock service: a lock is the oldest key under a name (LOCK rules).
//!
//! Owns      when a caller holds a lock.
//! Holds     two callers are never told at one time that they hold the same lock, unless by one lease.
//! Never     keeps state: the queue is in the store, where every client sees it.

use super::{
    session::{Place, created_at, first_created, get, key_of, lease_of, op, pair_of, prefix_of},
    status::Status,
};
use crate::member::Member;
use cairn_proto::{
    errors,
    etcdserverpb::{self as pb, request_op::Request},
    v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse},
};

pub async fn lock(member: &Member, request: LockRequest) -> Result<LockResponse, Status> {
    acquire(member, request).await.map_err(Status::without_code)
}

async fn acquire(member: &Member, request: LockRequest) -> Result<LockResponse, Status> {
    let lease = lease_of(member, request.lease).await?;
    let prefix = prefix_of(&request.name);
    let key = key_of(&prefix, lease);
    let put = pb::PutRequest { key: key.clone(), lease, ..pb::PutRequest::default() };
    let owner = op(Request::RequestRange(first_created(&prefix)));
    let txn = pb::TxnRequest {
        compare: vec![created_at(&key, 0)],
        success: vec![op(Request::RequestPut(put)), owner.clone()],
        failure: vec![op(Request::RequestRange(get(&key))), owner],
    };
    let (mut place, response) = Place::take(member, prefix, key.clone(), txn).await?;
    // LOCK-5: the oldest key is the caller's own.
    if pair_of(&response, 1).is_none_or(|owner| owner.create_revision == place.created) {
        return Ok(LockResponse { header: response.header, key });
    }
    place.first().await?;
    // LOCK-8: the wait may have outlived the lease.
    match place.reread().await? {
        (Some(_), header) => Ok(LockResponse { header, key }),
        (None, _) => Err(errors::SESSION_EXPIRED.into()),
    }
}

/// LOCK-10: whoever knows the key may delete it.
pub async fn unlock(member: &Member, request: UnlockRequest) -> Result<UnlockResponse, Status> {
    let delete = pb::DeleteRangeRequest { key: request.key, ..pb::DeleteRangeRequest::default() };
    match member.delete_range(delete).await {
        Ok(response) => Ok(UnlockResponse { header: response.header }),
        Err(refusal) => Err(Status::from(refusal).without_code()),
    }
}
