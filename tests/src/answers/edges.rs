// SPDX-License-Identifier: Apache-2.0
//! Requests at the edge of a limit: each run sends all of them once.
//!
//! Owns      the cases. Rules: LIMIT-1, LIMIT-2, LIMIT-3, TXN-2, TXN-3, TXN-5, TXN-6, LEASE-3, KV-6.
//! Never     leaves a large value behind.

use bytes::Bytes;
use cairn_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    request_op,
};

use super::answer::Request;

const REQUEST_BYTES_MAX: usize = 1_572_864;
const OPS_MAX: usize = 128;
const TTL_MAX: i64 = 9_000_000_000;

/// All of them, in an order in which each sees a store that the others left small.
pub fn edges() -> Vec<Request> {
    let mut all = sizes();
    all.extend(op_counts());
    all.extend(empties());
    for ttl in [TTL_MAX, TTL_MAX + 1, i64::MAX] {
        all.push(Request::GrantAny(LeaseGrantRequest { ttl, id: 0 }));
    }
    all
}

fn sizes() -> Vec<Request> {
    let put = |bytes: usize| {
        let value = Bytes::from(vec![b'x'; bytes]);
        Request::Put(PutRequest { key: "edge".into(), value, ..PutRequest::default() })
    };
    let range = |bytes: usize| {
        Request::Range(RangeRequest { key: vec![b'k'; bytes].into(), ..RangeRequest::default() })
    };
    vec![
        put(REQUEST_BYTES_MAX - 200),
        put(REQUEST_BYTES_MAX),
        put(REQUEST_BYTES_MAX + (512 << 10) + 1),
        Request::Delete(DeleteRangeRequest { key: "edge".into(), ..DeleteRangeRequest::default() }),
        range(REQUEST_BYTES_MAX + 1_000),
        range(REQUEST_BYTES_MAX + (512 << 10) + 1_000),
    ]
}

fn op_counts() -> Vec<Request> {
    let mut all = Vec::new();
    for n in [OPS_MAX, OPS_MAX + 1] {
        all.push(txn(vec![Compare { key: "a".into(), ..Compare::default() }; n], vec![], vec![]));
        all.push(txn(vec![], ranges(n), vec![]));
        all.push(txn(vec![], vec![], ranges(n)));
    }
    // (ops of the parent beside the nested ones, ops of each nested one)
    let budgets: &[(usize, &[usize])] =
        &[(126, &[1]), (126, &[2]), (127, &[0]), (0, &[127]), (0, &[128]), (0, &[126, 126])];
    for (own, nested) in budgets {
        let mut ops = ranges(*own);
        for n in *nested {
            let inner = TxnRequest { success: ranges(*n), ..TxnRequest::default() };
            ops.push(RequestOp { request: Some(request_op::Request::RequestTxn(inner)) });
        }
        all.push(txn(vec![], ops, vec![]));
    }
    all
}

fn empties() -> Vec<Request> {
    let unset = RequestOp { request: None };
    vec![
        Request::Range(RangeRequest { range_end: "z".into(), ..RangeRequest::default() }),
        Request::Put(PutRequest::default()),
        Request::Delete(DeleteRangeRequest { range_end: "\0".into(), ..DeleteRangeRequest::default() }),
        Request::Txn(TxnRequest::default()),
        txn(vec![Compare::default()], vec![], vec![]),
        txn(vec![], vec![unset.clone()], vec![]),
        txn(vec![], vec![], vec![unset]),
    ]
}

fn ranges(n: usize) -> Vec<RequestOp> {
    let range = RangeRequest { key: "a".into(), ..RangeRequest::default() };
    vec![RequestOp { request: Some(request_op::Request::RequestRange(range)) }; n]
}

fn txn(compare: Vec<Compare>, success: Vec<RequestOp>, failure: Vec<RequestOp>) -> Request {
    Request::Txn(TxnRequest { compare, success, failure })
}
