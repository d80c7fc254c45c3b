// SPDX-License-Identifier: Apache-2.0
//! What lock and election share: a queue of keys under one prefix, each tied to a lease.
//!
//! Owns      the place of a caller in such a queue: taking it, waiting for those before it, leaving it.
//! Holds     1. a caller that goes away while it waits leaves no key behind (LOCK-7, ELECT-4);
//!           2. nobody is told that it holds a place whose key is gone.
//! Never     waits by polling: it watches the key before its own.

use super::status::Status;
use crate::member::Member;
use bytes::Bytes;
use cairn_proto::{
    errors,
    etcdserverpb::{
        self as pb, Compare,
        compare::{CompareResult, CompareTarget, TargetUnion},
        range_request::{SortOrder, SortTarget},
        request_op::Request,
        watch_create_request::FilterType,
        watch_request::RequestUnion,
    },
    mvccpb::KeyValue,
    serve::{TxnResponse, response_op::Response},
};
use prost::Message as _;
use tokio::sync::oneshot;

/// The lease of a caller that brings none; nobody renews it (LOCK-3).
const SESSION_TTL_S: i64 = 60;

/// The caller's lease, or a new one.
pub async fn lease_of(member: &Member, lease: i64) -> Result<i64, Status> {
    if lease != 0 {
        return Ok(lease);
    }
    let grant = pb::LeaseGrantRequest { ttl: SESSION_TTL_S, id: 0 };
    Ok(member.lease_grant(grant).await?.id)
}

/// The keys of a queue begin so.
pub fn prefix_of(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// LOCK-2: the name, a slash, and the lease in hex, a minus before a negative one.
pub fn key_of(prefix: &[u8], lease: i64) -> Bytes {
    let sign = if lease < 0 { "-" } else { "" };
    [prefix, format!("{sign}{:x}", lease.unsigned_abs()).as_bytes()].concat().into()
}

/// The first key after all that begin with `prefix` (KV-5).
pub fn end_of_prefix(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(b"\0")
}

/// The pair with the lowest create revision under the prefix: the owner.
pub fn first_created(prefix: &Bytes) -> pb::RangeRequest {
    pb::RangeRequest {
        key: prefix.clone(),
        range_end: end_of_prefix(prefix),
        limit: 1,
        sort_order: SortOrder::Ascend.into(),
        sort_target: SortTarget::Create.into(),
        ..pb::RangeRequest::default()
    }
}

/// True while the key has that create revision; 0 says that it does not exist.
pub fn created_at(key: &Bytes, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..Compare::default()
    }
}

pub fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

pub fn get(key: &Bytes) -> pb::RangeRequest {
    pb::RangeRequest { key: key.clone(), ..pb::RangeRequest::default() }
}

/// The first pair of the range at this place of a transaction's answer.
pub fn pair_of(response: &TxnResponse, place: usize) -> Option<KeyValue> {
    match response.responses.get(place)?.response.as_ref()? {
        Response::ResponseRange(range) => pair(range.kvs.first()?),
        _ => None,
    }
}

/// A stored pair. The store holds what it encoded itself.
pub fn pair(bytes: &Bytes) -> Option<KeyValue> {
    KeyValue::decode(bytes.clone()).ok()
}

/// A key in a queue, and the revision that made it.
pub struct Place {
    member: Member,
    prefix: Bytes,
    pub key: Bytes,
    pub created: i64,
    /// Whether dropping this takes the key out of the queue.
    waiting: bool,
}

impl Place {
    /// Takes a place by a transaction that puts the key if there is none, and reads it as its first
    /// operation otherwise. If the caller goes away meanwhile, a key that this made is taken out again.
    pub async fn take(
        member: &Member,
        prefix: Bytes,
        key: Bytes,
        txn: pb::TxnRequest,
    ) -> Result<(Place, TxnResponse), Status> {
        let (answer, answered) = oneshot::channel();
        let (owned, owned_key) = (member.clone(), key.clone());
        tokio::spawn(async move {
            let result = owned.txn(txn).await;
            if let Err(Ok(response)) = answer.send(result)
                && response.succeeded
            {
                leave(owned, owned_key, revision_of(&response)).await;
            }
        });
        // The task answers unless the process is ending.
        let response = answered.await.map_err(|_| Status::from(errors::STOPPED))??;
        let created = if response.succeeded {
            revision_of(&response)
        } else {
            pair_of(&response, 0).ok_or(errors::LOST_WATCHER)?.create_revision
        };
        Ok((Place { member: member.clone(), prefix, key, created, waiting: false }, response))
    }

    /// Waits until every key of the queue that is older has gone.
    pub async fn first(&mut self) -> Result<(), Status> {
        self.waiting = true;
        loop {
            let before = pb::RangeRequest {
                sort_order: SortOrder::Descend.into(),
                max_create_revision: self.created - 1,
                ..first_created(&self.prefix)
            };
            let response = self.member.range(before).await?;
            let Some(predecessor) = response.kvs.first().and_then(pair) else {
                self.waiting = false;
                return Ok(());
            };
            let revision = response.header.map_or(0, |header| header.revision);
            wait_for_delete(&self.member, predecessor.key, revision).await?;
        }
    }

    /// Reads the own key again: `None` if it went while waiting.
    pub async fn reread(&self) -> Result<(Option<KeyValue>, Option<pb::ResponseHeader>), Status> {
        let response = self.member.range(get(&self.key)).await?;
        let own = response.kvs.first().and_then(pair).filter(|own| own.create_revision == self.created);
        Ok((own, response.header))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Outside of a runtime the process is ending, and the lease will take the key.
        if self.waiting
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(leave(self.member.clone(), std::mem::take(&mut self.key), self.created));
        }
    }
}

fn revision_of(response: &TxnResponse) -> i64 {
    response.header.map_or(0, |header| header.revision)
}

/// Takes the key out of its queue, if it is still the one that was put there.
async fn leave(member: Member, key: Bytes, created: i64) {
    let delete = pb::DeleteRangeRequest { key: key.clone(), ..pb::DeleteRangeRequest::default() };
    let txn = pb::TxnRequest {
        compare: vec![created_at(&key, created)],
        success: vec![op(Request::RequestDeleteRange(delete))],
        failure: Vec::new(),
    };
    // Nobody waits for the outcome; a key that cannot be deleted now goes with its lease.
    drop(member.txn(txn).await);
}

/// Waits for a key to be deleted after `revision`. Also returns when that history was compacted away: the
/// caller reads anew in any case.
async fn wait_for_delete(member: &Member, key: Bytes, revision: i64) -> Result<(), Status> {
    let stream = member.watch_stream();
    let create = pb::WatchCreateRequest {
        key,
        start_revision: revision,
        filters: vec![FilterType::Noput.into()],
        ..pb::WatchCreateRequest::default()
    };
    stream.request(pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }).await;
    loop {
        let response = stream.next().await.ok_or(errors::LOST_WATCHER)?;
        if !response.events.is_empty() || response.compact_revision != 0 {
            return Ok(());
        }
        if response.canceled {
            return Err(errors::LOST_WATCHER.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // rule: LOCK-2
    // rule: LOCK-12
    #[test]
    fn keys_are_the_name_and_the_lease_in_hex() {
        for (name, lease, key) in [("neg", -9, "neg/-9"), ("a", 0x1234abcd, "a/1234abcd"), ("", 1, "/1")] {
            assert_eq!(key_of(&prefix_of(name.as_bytes()), lease), key);
        }
        assert_eq!(key_of(b"/", i64::MIN), "/-8000000000000000");
    }

    // rule: KV-5
    #[test]
    fn a_prefix_ends_before_the_next_one() {
        assert_eq!(end_of_prefix(b"a/"), "a0");
        assert_eq!(end_of_prefix(b"a\xff"), "b");
        assert_eq!(end_of_prefix(b"\xff\xff"), "\0");
    }
}
