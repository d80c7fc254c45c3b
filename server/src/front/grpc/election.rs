// SPDX-License-Identifier: Apache-2.0
//! The election service: the leader is the oldest key under a name, its value the leader's (ELECT rules).
//!
//! Owns      when a candidate leads, and what observers are told.
//! Holds     a candidate whose key went while it waited is not told that it leads.
//! Never     keeps state: the candidates are in the store, where every client sees them.

use super::{
    message::Messages,
    session::{
        Place, created_at, end_of_prefix, first_created, get, key_of, lease_of, op, pair, pair_of, prefix_of,
    },
    status::Status,
};
use crate::member::{Member, WatchStream};
use bytes::Bytes;
use cairn_proto::{
    errors,
    etcdserverpb::{self as pb, request_op::Request, watch_request::RequestUnion},
    mvccpb::{Event, event::EventType},
    serve::{LeaderResponse, TxnResponse},
    v3electionpb::{
        CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, ProclaimRequest, ProclaimResponse,
        ResignRequest, ResignResponse,
    },
};
use futures_util::{Stream, stream};
use prost::Message as _;
use std::collections::VecDeque;

pub async fn campaign(member: &Member, request: CampaignRequest) -> Result<CampaignResponse, Status> {
    win(member, request).await.map_err(Status::without_code)
}

async fn win(member: &Member, request: CampaignRequest) -> Result<CampaignResponse, Status> {
    let lease = lease_of(member, request.lease).await?;
    let prefix = prefix_of(&request.name);
    let key = key_of(&prefix, lease);
    let value = request.value;
    let txn = pb::TxnRequest {
        compare: vec![created_at(&key, 0)],
        success: vec![put(&key, &value, lease)],
        failure: vec![op(Request::RequestRange(get(&key)))],
    };
    let (mut place, response) = Place::take(member, prefix, key.clone(), txn).await?;
    let leader = LeaderKey { name: request.name, key, rev: place.created, lease };
    // ELECT-3: the candidate was there already, perhaps with another value.
    if !response.succeeded && pair_of(&response, 0).is_none_or(|own| own.value != value) {
        replace(member, &leader, value).await?;
    }
    place.first().await?;
    match place.reread().await? {
        // ELECT-2: the header is the first transaction's.
        (Some(_), _) => Ok(CampaignResponse { header: response.header, leader: Some(leader) }),
        (None, _) => Err(errors::SESSION_EXPIRED.into()),
    }
}

fn put(key: &Bytes, value: &Bytes, lease: i64) -> pb::RequestOp {
    let put = pb::PutRequest { key: key.clone(), value: value.clone(), lease, ..pb::PutRequest::default() };
    op(Request::RequestPut(put))
}

/// Puts a leader's new value while it is one (ELECT-5).
async fn replace(member: &Member, leader: &LeaderKey, value: Bytes) -> Result<TxnResponse, Status> {
    let txn = pb::TxnRequest {
        compare: vec![created_at(&leader.key, leader.rev)],
        success: vec![put(&leader.key, &value, leader.lease)],
        failure: Vec::new(),
    };
    let response = member.txn(txn).await?;
    if response.succeeded { Ok(response) } else { Err(errors::ELECTION_NOT_LEADER.into()) }
}

pub async fn proclaim(member: &Member, request: ProclaimRequest) -> Result<ProclaimResponse, Status> {
    let proclaimed = async {
        let mut leader = request.leader.ok_or(errors::MISSING_LEADER_KEY)?;
        leader.lease = lease_of(member, leader.lease).await?;
        replace(member, &leader, request.value).await
    };
    match proclaimed.await {
        Ok(response) => Ok(ProclaimResponse { header: response.header }),
        Err(status) => Err(status.without_code()),
    }
}

/// ELECT-6: one that does not lead any more has nothing to give up.
pub async fn resign(member: &Member, request: ResignRequest) -> Result<ResignResponse, Status> {
    let leader = request.leader.ok_or(errors::MISSING_LEADER_KEY)?;
    let delete = pb::DeleteRangeRequest { key: leader.key.clone(), ..pb::DeleteRangeRequest::default() };
    let txn = pb::TxnRequest {
        compare: vec![created_at(&leader.key, leader.rev)],
        success: vec![op(Request::RequestDeleteRange(delete))],
        failure: Vec::new(),
    };
    match member.txn(txn).await {
        Ok(response) => Ok(ResignResponse { header: response.header }),
        Err(refusal) => Err(Status::from(refusal).without_code()),
    }
}

pub async fn leader(member: &Member, request: LeaderRequest) -> Result<LeaderResponse, Status> {
    let range = member.range(first_created(&prefix_of(&request.name))).await;
    let range = range.map_err(|refusal| Status::from(refusal).without_code())?;
    match range.kvs.into_iter().next() {
        Some(kv) => Ok(LeaderResponse { header: range.header, kv }),
        None => Err(errors::ELECTION_NO_LEADER.into()),
    }
}

/// ELECT-9 to ELECT-11.
pub async fn observe(
    member: &Member,
    mut messages: Messages<LeaderRequest>,
) -> Result<impl Stream<Item = Result<LeaderResponse, Status>> + use<>, Status> {
    let request = messages.only().await?;
    let observer = Observer {
        member: member.clone(),
        prefix: prefix_of(&request.name),
        following: Following::Nobody,
        ready: VecDeque::new(),
    };
    Ok(stream::unfold(Some(observer), |observer| async move {
        let mut observer = observer?;
        match observer.next().await {
            Ok(response) => Some((Ok(response), Some(observer))),
            Err(status) => Some((Err(status.without_code()), None)),
        }
    }))
}

struct Observer {
    member: Member,
    prefix: Bytes,
    following: Following,
    ready: VecDeque<LeaderResponse>,
}

enum Following {
    /// The leader is to be looked up.
    Nobody,
    /// No candidate: the first put under the prefix is the next leader.
    Candidates(WatchStream),
    /// Values of one leader, until its key goes.
    Leader(WatchStream),
}

impl Observer {
    async fn next(&mut self) -> Result<LeaderResponse, Status> {
        loop {
            if let Some(response) = self.ready.pop_front() {
                return Ok(response);
            }
            match &self.following {
                Following::Nobody => self.look_up().await?,
                Following::Candidates(watch) => {
                    let Some((header, events)) = events_of(watch).await? else {
                        self.following = Following::Nobody;
                        continue;
                    };
                    let first_put = events.into_iter().find(|event| event.r#type() == EventType::Put);
                    if let Some(kv) = first_put.and_then(|event| event.kv) {
                        self.follow(header, kv).await;
                    }
                }
                Following::Leader(watch) => {
                    let Some((header, events)) = events_of(watch).await? else {
                        self.following = Following::Nobody;
                        continue;
                    };
                    for event in events {
                        let Some(kv) = event.kv.clone().filter(|_| event.r#type() == EventType::Put) else {
                            self.following = Following::Nobody;
                            break;
                        };
                        self.ready.push_back(told(header, &kv));
                    }
                }
            }
        }
    }

    async fn look_up(&mut self) -> Result<(), Status> {
        let range = self.member.range(first_created(&self.prefix)).await?;
        let header = range.header.unwrap_or_default();
        match range.kvs.first().and_then(pair) {
            Some(kv) => {
                // The header of the read stands, and later values are those after it.
                let watch = watch(&self.member, kv.key.clone(), Bytes::new(), header.revision + 1).await;
                self.ready.push_back(LeaderResponse { header: Some(header), kv: kv.encode_to_vec().into() });
                self.following = Following::Leader(watch);
            }
            None => {
                let end = end_of_prefix(&self.prefix);
                let watch = watch(&self.member, self.prefix.clone(), end, header.revision).await;
                self.following = Following::Candidates(watch);
            }
        }
        Ok(())
    }

    /// Tells a new leader, and watches it from there on.
    async fn follow(&mut self, header: pb::ResponseHeader, kv: cairn_proto::mvccpb::KeyValue) {
        self.ready.push_back(told(header, &kv));
        let watch = watch(&self.member, kv.key, Bytes::new(), kv.mod_revision + 1).await;
        self.following = Following::Leader(watch);
    }
}

/// ELECT-10: the header has the revision of the change.
fn told(header: pb::ResponseHeader, kv: &cairn_proto::mvccpb::KeyValue) -> LeaderResponse {
    let header = pb::ResponseHeader { revision: kv.mod_revision, ..header };
    LeaderResponse { header: Some(header), kv: kv.encode_to_vec().into() }
}

async fn watch(member: &Member, key: Bytes, range_end: Bytes, start_revision: i64) -> WatchStream {
    let stream = member.watch_stream();
    let create =
        pb::WatchCreateRequest { key, range_end, start_revision, ..pb::WatchCreateRequest::default() };
    stream.request(pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }).await;
    stream
}

/// The next events of a watch; `None` if its history was compacted away.
async fn events_of(watch: &WatchStream) -> Result<Option<(pb::ResponseHeader, Vec<Event>)>, Status> {
    loop {
        let response = watch.next().await.ok_or(errors::STOPPED)?;
        if response.compact_revision != 0 {
            return Ok(None);
        }
        if response.canceled {
            return Err(errors::LOST_WATCHER.into());
        }
        if !response.events.is_empty() {
            let events = response.events.iter().filter_map(|bytes| Event::decode(bytes.clone()).ok());
            return Ok(Some((response.header.unwrap_or_default(), events.collect())));
        }
    }
}
