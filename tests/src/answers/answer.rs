// SPDX-License-Identifier: Apache-2.0
//! A request, the sending of it, and the answer with its masks.
//!
//! Owns      the masks: cluster id, member id, raft term, remaining seconds of a lease, the id a server picks.
//! Holds     a mask tells zero from non-zero, so that a header that should be empty is seen if it is not.
//! Never     repeats a request.

use std::fmt;

use cairn_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, HashKvRequest,
    HashKvResponse, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse, PutRequest, PutResponse, RangeRequest, RangeResponse, ResponseHeader,
    TxnRequest, TxnResponse, response_op,
};
use tonic::{Code, Status};

use crate::client::Client;

#[derive(Clone, PartialEq, Debug)]
pub enum Request {
    Range(RangeRequest),
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
    Grant(LeaseGrantRequest),
    /// A grant whose id the server picks; the lease is revoked at once, because the servers pick differently.
    GrantAny(LeaseGrantRequest),
    Revoke(LeaseRevokeRequest),
    /// One request on a stream of its own.
    KeepAlive(LeaseKeepAliveRequest),
    TimeToLive(LeaseTimeToLiveRequest),
    Leases,
    HashKv(HashKvRequest),
}

#[derive(Clone, PartialEq, Debug)]
pub enum Reply {
    Range(RangeResponse),
    Put(PutResponse),
    Delete(DeleteRangeResponse),
    Txn(TxnResponse),
    Compact(CompactionResponse),
    Grant(LeaseGrantResponse),
    Revoke(LeaseRevokeResponse),
    KeepAlive(LeaseKeepAliveResponse),
    TimeToLive(LeaseTimeToLiveResponse),
    Leases(LeaseLeasesResponse),
    HashKv(HashKvResponse),
}

/// What a refused client compares.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Failure {
    pub code: i32,
    pub text: String,
}

pub type Answer = Result<Reply, Failure>;

impl From<Status> for Failure {
    fn from(status: Status) -> Failure {
        Failure { code: status.code() as i32, text: status.message().to_owned() }
    }
}

impl From<cairn_proto::errors::WireError> for Failure {
    fn from(error: cairn_proto::errors::WireError) -> Failure {
        Failure { code: error.code as i32, text: error.text.to_owned() }
    }
}

/// Whether there was no server to answer; etcd's own refusals with this code begin with its name.
pub fn is_transport_loss(answer: &Answer) -> bool {
    answer.as_ref().is_err_and(|f| f.code == Code::Unavailable as i32 && !f.text.starts_with("etcdserver"))
}

impl Request {
    pub fn kind(&self) -> &'static str {
        match self {
            Request::Range(_) => "range",
            Request::Put(_) => "put",
            Request::Delete(_) => "delete",
            Request::Txn(_) => "txn",
            Request::Compact(_) => "compact",
            Request::Grant(_) => "grant",
            Request::GrantAny(_) => "grant-any",
            Request::Revoke(_) => "revoke",
            Request::KeepAlive(_) => "keepalive",
            Request::TimeToLive(_) => "timetolive",
            Request::Leases => "leases",
            Request::HashKv(_) => "hashkv",
        }
    }

    /// The masked answer of this server.
    pub async fn send(&self, client: &Client) -> Answer {
        self.ask(client).await.map(mask)
    }

    /// The answer as it came.
    pub async fn ask(&self, client: &Client) -> Answer {
        Ok(self.call(client.clone()).await?)
    }

    async fn call(&self, mut client: Client) -> Result<Reply, Status> {
        Ok(match self.clone() {
            Request::Range(r) => Reply::Range(client.kv.range(r).await?.into_inner()),
            Request::Put(r) => Reply::Put(client.kv.put(r).await?.into_inner()),
            Request::Delete(r) => Reply::Delete(client.kv.delete_range(r).await?.into_inner()),
            Request::Txn(r) => Reply::Txn(client.kv.txn(r).await?.into_inner()),
            Request::Compact(r) => Reply::Compact(client.kv.compact(r).await?.into_inner()),
            Request::Grant(r) => Reply::Grant(client.lease.lease_grant(r).await?.into_inner()),
            Request::GrantAny(r) => {
                let mut granted = client.lease.lease_grant(r).await?.into_inner();
                client.lease.lease_revoke(LeaseRevokeRequest { id: granted.id }).await?;
                granted.id = granted.id.signum();
                Reply::Grant(granted)
            }
            Request::Revoke(r) => Reply::Revoke(client.lease.lease_revoke(r).await?.into_inner()),
            Request::KeepAlive(r) => {
                let stream = client.lease.lease_keep_alive(tokio_stream::once(r)).await?;
                let first = stream.into_inner().message().await?;
                Reply::KeepAlive(first.ok_or_else(|| Status::unknown("the stream ended without an answer"))?)
            }
            Request::TimeToLive(r) => {
                Reply::TimeToLive(client.lease.lease_time_to_live(r).await?.into_inner())
            }
            Request::Leases => {
                Reply::Leases(client.lease.lease_leases(LeaseLeasesRequest {}).await?.into_inner())
            }
            Request::HashKv(r) => Reply::HashKv(client.maintenance.hash_kv(r).await?.into_inner()),
        })
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Hides what may differ between two servers in the same state.
pub fn mask(mut reply: Reply) -> Reply {
    match &mut reply {
        Reply::Range(r) => mask_header(&mut r.header),
        Reply::Put(r) => mask_header(&mut r.header),
        Reply::Delete(r) => mask_header(&mut r.header),
        Reply::Txn(r) => mask_txn(r),
        Reply::Compact(r) => mask_header(&mut r.header),
        Reply::Grant(r) => mask_header(&mut r.header),
        Reply::Revoke(r) => mask_header(&mut r.header),
        Reply::KeepAlive(r) => mask_header(&mut r.header),
        Reply::TimeToLive(r) => {
            mask_header(&mut r.header);
            r.ttl = r.ttl.signum();
            r.keys.sort_unstable(); // LEASE-21: in no particular order
        }
        Reply::Leases(r) => mask_header(&mut r.header),
        Reply::HashKv(r) => mask_header(&mut r.header),
    }
    reply
}

fn mask_header(header: &mut Option<ResponseHeader>) {
    if let Some(h) = header {
        h.cluster_id = h.cluster_id.min(1);
        h.member_id = h.member_id.min(1);
        h.raft_term = h.raft_term.min(1);
    }
}

fn mask_txn(txn: &mut TxnResponse) {
    mask_header(&mut txn.header);
    for op in &mut txn.responses {
        match &mut op.response {
            Some(response_op::Response::ResponseRange(r)) => mask_header(&mut r.header),
            Some(response_op::Response::ResponsePut(r)) => mask_header(&mut r.header),
            Some(response_op::Response::ResponseDeleteRange(r)) => mask_header(&mut r.header),
            Some(response_op::Response::ResponseTxn(r)) => mask_txn(r),
            None => {}
        }
    }
}
