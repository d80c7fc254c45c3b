// SPDX-License-Identifier: Apache-2.0
//! What is checked of a request before anything else looks at it, in etcd's order.
//!
//! Owns      the shape of KV and Txn requests (TXN-2 to TXN-5, TXN-20 to TXN-26), what a request costs of
//!           the quota, and which transactions only read.
//! Holds     1. a request that passes here is decoded again from its log form without an error;
//!           2. the work is in proportion to the request, however its parts are nested.
//! Never     looks at the store: what depends on it is checked when the request is applied.

use crate::Refusal;
use bytes::Bytes;
use cairn_proto::{errors, etcdserverpb as pb};
use pb::request_op::Request;
use std::collections::{BTreeMap, BTreeSet};

/// Transactions inside one another. prost decodes a hundred levels of messages, two for each transaction;
/// beyond this the answer is that of too many operations.
pub const TXN_DEPTH_MAX: usize = 32;

/// What a put costs of the quota besides its bytes (ALARM-1).
const PUT_COST: u64 = 256;
/// What a lease costs of the quota.
const LEASE_COST: u64 = 64;

pub fn check_range(r: &pb::RangeRequest) -> Result<(), Refusal> {
    if r.key.is_empty() {
        return Err(errors::EMPTY_KEY);
    }
    let order = pb::range_request::SortOrder::try_from(r.sort_order);
    let target = pb::range_request::SortTarget::try_from(r.sort_target);
    if order.is_err() || target.is_err() { Err(errors::INVALID_SORT_OPTION) } else { Ok(()) }
}

/// What `RangeStream` refuses besides (KV-29).
pub fn check_range_stream(r: &pb::RangeRequest) -> Result<(), Refusal> {
    use pb::range_request::{SortOrder, SortTarget};
    check_range(r)?;
    let by_key = r.sort_target == SortTarget::Key as i32;
    let unsorted = r.sort_order == SortOrder::None as i32 || r.sort_order == SortOrder::Ascend as i32;
    if !(by_key && unsorted) {
        return Err(errors::RANGE_STREAM_SORT);
    }
    let bounds = [r.min_mod_revision, r.max_mod_revision, r.min_create_revision, r.max_create_revision];
    if bounds.iter().any(|bound| *bound != 0) { Err(errors::RANGE_STREAM_FILTER) } else { Ok(()) }
}

pub fn check_put(r: &pb::PutRequest) -> Result<(), Refusal> {
    if r.key.is_empty() {
        Err(errors::EMPTY_KEY)
    } else if r.ignore_value && !r.value.is_empty() {
        Err(errors::VALUE_PROVIDED)
    } else if r.ignore_lease && r.lease != 0 {
        Err(errors::LEASE_PROVIDED)
    } else {
        Ok(())
    }
}

pub fn check_delete_range(r: &pb::DeleteRangeRequest) -> Result<(), Refusal> {
    if r.key.is_empty() { Err(errors::EMPTY_KEY) } else { Ok(()) }
}

/// All static checks of a transaction: `ops_max` is `--max-txn-ops`.
pub fn check_txn(r: &pb::TxnRequest, ops_max: usize) -> Result<(), Refusal> {
    check_txn_shape(r, ops_max, 0)?;
    check_overlaps(&r.success)?;
    check_overlaps(&r.failure)?;
    Ok(())
}

fn check_txn_shape(r: &pb::TxnRequest, budget: usize, depth: usize) -> Result<(), Refusal> {
    let ops = r.compare.len().max(r.success.len()).max(r.failure.len());
    if ops > budget || depth > TXN_DEPTH_MAX {
        return Err(errors::TOO_MANY_OPS);
    }
    if r.compare.iter().any(|c| c.key.is_empty()) {
        return Err(errors::EMPTY_KEY);
    }
    r.success.iter().chain(&r.failure).try_for_each(|op| match &op.request {
        Some(Request::RequestRange(r)) => check_range(r),
        Some(Request::RequestPut(r)) => check_put(r),
        Some(Request::RequestDeleteRange(r)) => check_delete_range(r),
        Some(Request::RequestTxn(r)) => check_txn_shape(r, budget - ops, depth + 1),
        None => Err(errors::KEY_NOT_FOUND),
    })
}

/// Intervals of keys as one set: neighbours and overlaps are merged, so a look-up is one step.
#[derive(Default)]
struct Covered {
    end_by_start: BTreeMap<Bytes, Bytes>,
}

impl Covered {
    /// Adds `[start, end)`; an inverted interval adds nothing, and from-key deletes are such (TXN-26).
    fn add(&mut self, mut start: Bytes, mut end: Bytes) {
        if start >= end {
            return;
        }
        while let Some((s, e)) = self.end_by_start.range(..=end.clone()).next_back() {
            if *e < start {
                break;
            }
            (start, end) = (start.min(s.clone()), end.max(e.clone()));
            let s = s.clone();
            self.end_by_start.remove(&s);
        }
        self.end_by_start.insert(start, end);
    }

    fn has(&self, key: &Bytes) -> bool {
        let at_or_before = self.end_by_start.range(..=key.clone()).next_back();
        at_or_before.is_some_and(|(_, end)| key < end)
    }
}

/// What a list of operations writes: the keys it puts and the intervals it deletes.
#[derive(Default)]
struct Written {
    puts: BTreeSet<Bytes>,
    deleted: Covered,
}

/// Refuses a list that puts a key twice or deletes what it puts. The order of the steps is etcd's and shows:
/// deletes of a nested transaction count for the puts that follow it, and for no others (TXN-24).
fn check_overlaps(ops: &[pb::RequestOp]) -> Result<Written, Refusal> {
    let mut all = Written::default();
    for op in ops {
        if let Some(Request::RequestDeleteRange(r)) = &op.request {
            let point_end = || [&r.key[..], b"\0"].concat().into();
            let end = if r.range_end.is_empty() { point_end() } else { r.range_end.clone() };
            all.deleted.add(r.key.clone(), end);
        }
    }
    for op in ops {
        let Some(Request::RequestTxn(r)) = &op.request else { continue };
        let success = check_overlaps(&r.success)?;
        let failure = check_overlaps(&r.failure)?;
        let clashes = |all: &Written, key: &Bytes| all.puts.contains(key) || all.deleted.has(key);
        // Only one of the two branches runs, so they may put the same key.
        if success.puts.iter().chain(&failure.puts).any(|key| clashes(&all, key)) {
            return Err(errors::DUPLICATE_KEY);
        }
        all.puts.extend(success.puts);
        all.puts.extend(failure.puts);
        for (start, end) in success.deleted.end_by_start.into_iter().chain(failure.deleted.end_by_start) {
            all.deleted.add(start, end);
        }
    }
    for op in ops {
        let Some(Request::RequestPut(r)) = &op.request else { continue };
        if all.deleted.has(&r.key) || !all.puts.insert(r.key.clone()) {
            return Err(errors::DUPLICATE_KEY);
        }
    }
    Ok(all)
}

/// How a transaction is answered (TXN-29 to TXN-31).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TxnPath {
    /// Through the log.
    Propose,
    /// From a view, after a read index. Also a transaction of compares alone, which etcd answers without a
    /// quorum (TXN-30).
    Linearizable,
    /// From a view at once: every range in it says that it may be old.
    Serializable,
}

pub fn txn_path(r: &pb::TxnRequest) -> TxnPath {
    let mut serializable = true;
    let mut ops = 0;
    for op in r.success.iter().chain(&r.failure) {
        let Some(Request::RequestRange(range)) = &op.request else { return TxnPath::Propose };
        serializable &= range.serializable;
        ops += 1;
    }
    if ops > 0 && serializable { TxnPath::Serializable } else { TxnPath::Linearizable }
}

pub fn put_cost(r: &pb::PutRequest) -> u64 {
    PUT_COST + (r.key.len() + r.value.len()) as u64
}

/// The dearer of the two branches, puts of nested transactions included (ALARM-1).
pub fn txn_cost(r: &pb::TxnRequest) -> u64 {
    let branch = |ops: &[pb::RequestOp]| -> u64 {
        let cost = |op: &pb::RequestOp| match &op.request {
            Some(Request::RequestPut(r)) => put_cost(r),
            Some(Request::RequestTxn(r)) => txn_cost(r),
            _ => 0,
        };
        ops.iter().map(cost).sum()
    };
    branch(&r.success).max(branch(&r.failure))
}

pub fn lease_grant_cost() -> u64 {
    LEASE_COST
}
