// SPDX-License-Identifier: Apache-2.0
//! Between the messages of the wire and the store's own words.
//!
//! Owns      requests into operations, outcomes into responses, refusals into texts and codes.
//! Holds     zeros and empty strings that mean "absent" on the wire end here; a stored pair passes through
//!           as the bytes that it is.
//! Never     checks what a client may ask: the door did.

use crate::Refusal;
use bytes::Bytes;
use cairn_mvcc::{
    Compare, CompareResult, CompareTarget, Deferred, DeleteDone, DeleteOp, KeyRange, Op, OpDone, OpError,
    PutDone, PutOp, RangeDone, RangeEnd, RangeOp, SortOrder, SortTarget, TxnDone, TxnOp,
};
use cairn_proto::{errors, etcdserverpb as pb, serve};
use pb::{
    ResponseHeader,
    compare::TargetUnion,
    range_request::{SortOrder as WireOrder, SortTarget as WireTarget},
    request_op::Request,
};
use serve::response_op::Response;

/// The refusal that a client sees; the engine's own failures are handed back.
pub fn refusal(error: OpError) -> Result<Refusal, cairn_engine::Error> {
    match error {
        OpError::KeyNotFound => Ok(errors::KEY_NOT_FOUND),
        OpError::LeaseNotFound => Ok(errors::LEASE_NOT_FOUND),
        OpError::Compacted => Ok(errors::COMPACTED),
        OpError::FutureRevision => Ok(errors::FUTURE_REV),
        OpError::Engine(error) => Err(error),
    }
}

fn key_range(key: Bytes, range_end: Bytes) -> KeyRange {
    KeyRange { key, end: RangeEnd::from_wire(range_end) }
}

pub fn range_op(r: pb::RangeRequest) -> RangeOp {
    RangeOp {
        sort_order: match WireOrder::try_from(r.sort_order) {
            Ok(WireOrder::Ascend) => SortOrder::Ascend,
            Ok(WireOrder::Descend) => SortOrder::Descend,
            Ok(WireOrder::None) | Err(_) => SortOrder::None,
        },
        sort_target: match WireTarget::try_from(r.sort_target) {
            Ok(WireTarget::Version) => SortTarget::Version,
            Ok(WireTarget::Create) => SortTarget::Create,
            Ok(WireTarget::Mod) => SortTarget::Mod,
            Ok(WireTarget::Value) => SortTarget::Value,
            Ok(WireTarget::Key) | Err(_) => SortTarget::Key,
        },
        limit: r.limit,
        revision: r.revision,
        keys_only: r.keys_only,
        count_only: r.count_only,
        min_mod: r.min_mod_revision,
        max_mod: r.max_mod_revision,
        min_create: r.min_create_revision,
        max_create: r.max_create_revision,
        ..RangeOp::new(key_range(r.key, r.range_end))
    }
}

pub fn put_op(r: pb::PutRequest) -> PutOp {
    PutOp {
        key: r.key,
        value: (!r.ignore_value).then_some(r.value),
        lease: (!r.ignore_lease).then_some(r.lease),
        prev_kv: r.prev_kv,
    }
}

pub fn delete_op(r: pb::DeleteRangeRequest) -> DeleteOp {
    DeleteOp { keys: key_range(r.key, r.range_end), prev_kv: r.prev_kv }
}

pub fn txn_op(r: pb::TxnRequest) -> TxnOp {
    let list = |ops: Vec<pb::RequestOp>| ops.into_iter().filter_map(|op| op.request).map(op).collect();
    TxnOp {
        compares: r.compare.into_iter().map(compare).collect(),
        success: list(r.success),
        failure: list(r.failure),
    }
}

fn op(request: Request) -> Op {
    match request {
        Request::RequestRange(r) => Op::Range(range_op(r)),
        Request::RequestPut(r) => Op::Put(put_op(r)),
        Request::RequestDeleteRange(r) => Op::Delete(delete_op(r)),
        Request::RequestTxn(r) => Op::Txn(txn_op(r)),
    }
}

/// A union that does not fit the target counts as zero or empty (TXN-11).
fn compare(c: pb::Compare) -> Compare {
    use pb::compare::{CompareResult as WireResult, CompareTarget as WireTarget};
    let target = match (WireTarget::try_from(c.target), c.target_union) {
        (Ok(WireTarget::Version), Some(TargetUnion::Version(n))) => CompareTarget::Version(n),
        (Ok(WireTarget::Version), _) => CompareTarget::Version(0),
        (Ok(WireTarget::Create), Some(TargetUnion::CreateRevision(n))) => CompareTarget::Create(n),
        (Ok(WireTarget::Create), _) => CompareTarget::Create(0),
        (Ok(WireTarget::Mod), Some(TargetUnion::ModRevision(n))) => CompareTarget::Mod(n),
        (Ok(WireTarget::Mod), _) => CompareTarget::Mod(0),
        (Ok(WireTarget::Value), Some(TargetUnion::Value(v))) => CompareTarget::Value(v),
        (Ok(WireTarget::Value), _) => CompareTarget::Value(Bytes::new()),
        (Ok(WireTarget::Lease), Some(TargetUnion::Lease(n))) => CompareTarget::Lease(n),
        (Ok(WireTarget::Lease), _) => CompareTarget::Lease(0),
        (Err(_), _) => CompareTarget::Unknown,
    };
    let result = match WireResult::try_from(c.result) {
        Ok(WireResult::Equal) => CompareResult::Equal,
        Ok(WireResult::Greater) => CompareResult::Greater,
        Ok(WireResult::Less) => CompareResult::Less,
        Ok(WireResult::NotEqual) => CompareResult::NotEqual,
        Err(_) => CompareResult::Unknown,
    };
    Compare { keys: key_range(c.key, c.range_end), target, result }
}

// ---- responses ----

pub fn range_response(done: RangeDone, header: ResponseHeader) -> serve::RangeResponse {
    serve::RangeResponse { header: Some(header), kvs: done.kvs, more: done.more, count: done.count }
}

pub fn put_response(prev_kv: Option<Bytes>, header: ResponseHeader) -> serve::PutResponse {
    // On the wire an empty field is an absent one, and a stored pair is never empty.
    serve::PutResponse { header: Some(header), prev_kv: prev_kv.unwrap_or_default() }
}

pub fn delete_response(
    deleted: i64,
    prev_kvs: Vec<Bytes>,
    header: ResponseHeader,
) -> serve::DeleteRangeResponse {
    serve::DeleteRangeResponse { header: Some(header), deleted, prev_kvs }
}

/// A transaction's response; `answer` reads the ranges in it.
///
/// # Errors
/// What `answer` fails with.
pub fn txn_response<E>(
    done: TxnDone,
    header: ResponseHeader,
    answer: &mut dyn FnMut(Deferred) -> Result<RangeDone, E>,
) -> Result<serve::TxnResponse, E> {
    let responses: Result<Vec<serve::ResponseOp>, E> =
        done.responses.into_iter().map(|done| response_op(done, answer)).collect();
    Ok(serve::TxnResponse { header: Some(header), succeeded: done.succeeded, responses: responses? })
}

/// Inside a transaction a header has a revision and nothing else (HDR-8), and that of a nested transaction
/// is there and all zero (HDR-9).
fn response_op<E>(
    done: OpDone,
    answer: &mut dyn FnMut(Deferred) -> Result<RangeDone, E>,
) -> Result<serve::ResponseOp, E> {
    let at = |revision| ResponseHeader { revision, ..Default::default() };
    let response = match done {
        OpDone::Range(deferred) => {
            let revision = deferred.revision;
            Response::ResponseRange(range_response(answer(deferred)?, at(revision)))
        }
        OpDone::Put(PutDone { revision, prev_kv }) => {
            Response::ResponsePut(put_response(prev_kv, at(revision)))
        }
        OpDone::Delete(DeleteDone { revision, deleted, prev_kvs }) => {
            Response::ResponseDeleteRange(delete_response(deleted, prev_kvs, at(revision)))
        }
        OpDone::Txn(done) => Response::ResponseTxn(txn_response(done, ResponseHeader::default(), answer)?),
    };
    Ok(serve::ResponseOp { response: Some(response) })
}
