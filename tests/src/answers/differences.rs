// SPDX-License-Identifier: Apache-2.0
//! Where etcd 3.5.1 answers otherwise than the rules: what is expected instead, and how often it came up.
//!
//! Owns      the list of known differences by rule and version mark, and the hashes a later etcd remembers.
//! Holds     a difference is a prediction: from the request and 3.5.1's answer it says the whole other answer.
//!           So nothing else may differ, and an answer like 3.5.1's is a mismatch.
//! Never     looks at the answer it predicts.

use std::collections::BTreeMap;

use cairn_proto::errors::INVALID_SORT_OPTION;
use cairn_proto::etcdserverpb::range_request::SortTarget;
use cairn_proto::etcdserverpb::{
    HashKvResponse, RangeRequest, RangeResponse, RequestOp, ResponseHeader, TxnRequest, TxnResponse,
    request_op, response_op,
};

use super::answer::{Answer, Reply, Request};

/// (rule, its version mark): the differences between 3.5.1 and the rules as they stand.
const LISTED: &[(&str, &str)] = &[
    ("KV-7", "[3.5: not checked]"),
    ("KV-15", "[≤3.6] real lease always"),
    ("HASH-1", "[<3.5.10: rev == C was also an error]"),
    ("HASH-2", "[3.6+ field] hash_revision"),
    ("HASH-10", "3.5.1 remembers no hashes"),
];

/// How many remembered hashes a member keeps (HASH-9).
const REMEMBERED: usize = 10;

/// What is known of the reference's differences.
#[derive(Debug)]
pub struct Known {
    /// `None`: the two servers are of one kind, and nothing may differ.
    occurrences: Option<BTreeMap<&'static str, usize>>,
    hashes: Hashes,
}

/// Follows what HASH-9 says is remembered.
#[derive(Default, Debug)]
struct Hashes {
    now: i64,
    compacted: Option<i64>,
    /// Revision → (hash, compact revision it was made with).
    remembered: BTreeMap<i64, (u32, i64)>,
    /// The last request's hash and its revision, if it was one.
    last: Option<(i64, HashKvResponse)>,
}

impl Known {
    /// Two servers of the same version.
    pub fn nothing() -> Known {
        Known { occurrences: None, hashes: Hashes::default() }
    }

    /// etcd 3.5.1 as the reference of a server that follows the rules.
    pub fn of_etcd_3_5_1() -> Known {
        let occurrences = LISTED.iter().map(|(rule, _)| (*rule, 0)).collect();
        Known { occurrences: Some(occurrences), hashes: Hashes::default() }
    }

    /// To be called where both servers begin anew; the counts go on.
    pub fn fresh_stores(&mut self) {
        self.hashes = Hashes::default();
    }

    /// (rule, version mark, how often it came up)
    pub fn occurrences(&self) -> Vec<(&'static str, &'static str, usize)> {
        let count = |rule| self.occurrences.as_ref().and_then(|o| o.get(rule).copied()).unwrap_or(0);
        LISTED.iter().map(|(rule, mark)| (*rule, *mark, count(*rule))).collect()
    }

    /// The answer of a server that follows the rules, given the reference's.
    pub fn expect(&mut self, request: &Request, reference: &Answer) -> Answer {
        self.hashes.follow(request, reference);
        let Some(occurrences) = &mut self.occurrences else { return reference.clone() };
        let mut expected = reference.clone();
        let mut occurred = |rule| *occurrences.get_mut(rule).expect("the rule is listed") += 1;
        match (request, &mut expected) {
            (Request::Range(request), answer) if !is_known_order(request) && !request.key.is_empty() => {
                occurred("KV-7");
                *answer = Err(INVALID_SORT_OPTION.into());
            }
            (Request::Range(request), Ok(Reply::Range(response))) => {
                without_leases(request, response, &mut occurred);
            }
            (Request::Txn(request), Ok(Reply::Txn(response))) => {
                txn_without_leases(request, response, &mut occurred)
            }
            (Request::HashKv(request), answer) => {
                if let Some(remembered) = self.hashes.remembered(request.revision) {
                    occurred(if Some(request.revision) == self.hashes.compacted {
                        "HASH-1"
                    } else {
                        "HASH-10"
                    });
                    *answer = Ok(Reply::HashKv(remembered));
                } else if let Ok(Reply::HashKv(response)) = answer {
                    occurred("HASH-2");
                    response.hash_revision = self.hashes.hashed(request.revision);
                }
            }
            _ => {}
        }
        self.hashes.remember(request, reference);
        expected
    }
}

fn is_known_order(request: &RangeRequest) -> bool {
    (0..=2).contains(&request.sort_order)
}

/// KV-15: with `keys_only` the lease is 0, but when sorting by value.
fn without_leases(
    request: &RangeRequest,
    response: &mut RangeResponse,
    occurred: &mut impl FnMut(&'static str),
) {
    if !request.keys_only || request.sort_target == SortTarget::Value as i32 {
        return;
    }
    for kv in response.kvs.iter_mut().filter(|kv| kv.lease != 0) {
        occurred("KV-15");
        kv.lease = 0;
    }
}

fn txn_without_leases(
    request: &TxnRequest,
    response: &mut TxnResponse,
    occurred: &mut impl FnMut(&'static str),
) {
    let ops = if response.succeeded { &request.success } else { &request.failure };
    for (RequestOp { request }, op) in ops.iter().zip(&mut response.responses) {
        match (request, &mut op.response) {
            (
                Some(request_op::Request::RequestRange(request)),
                Some(response_op::Response::ResponseRange(response)),
            ) => without_leases(request, response, occurred),
            (
                Some(request_op::Request::RequestTxn(request)),
                Some(response_op::Response::ResponseTxn(response)),
            ) => {
                txn_without_leases(request, response, occurred);
            }
            _ => {}
        }
    }
}

impl Hashes {
    /// Takes the current revision from whatever the reference says.
    fn follow(&mut self, request: &Request, reference: &Answer) {
        let header = match reference {
            Ok(Reply::Range(r)) => &r.header,
            Ok(Reply::Put(r)) => &r.header,
            Ok(Reply::Delete(r)) => &r.header,
            Ok(Reply::Txn(r)) => &r.header,
            Ok(Reply::Revoke(r)) => &r.header,
            _ => &None,
        };
        if let Some(ResponseHeader { revision, .. }) = header {
            self.now = *revision;
        }
        if let (Request::Compact(compact), Ok(_)) = (request, reference) {
            self.compacted = Some(compact.revision);
        }
    }

    /// A compaction that follows the hash of its revision leaves that hash remembered.
    fn remember(&mut self, request: &Request, reference: &Answer) {
        let last = self.last.take();
        match (request, reference) {
            (Request::HashKv(hash), Ok(Reply::HashKv(response))) => {
                self.last = Some((hash.revision, *response))
            }
            (Request::Compact(compact), Ok(_)) => {
                if let Some((revision, response)) = last
                    && revision == compact.revision
                {
                    self.remembered.insert(revision, (response.hash, response.compact_revision));
                    if self.remembered.len() > REMEMBERED {
                        self.remembered.pop_first();
                    }
                }
            }
            _ => {}
        }
    }

    fn remembered(&self, revision: i64) -> Option<HashKvResponse> {
        let (hash, compact_revision) = *self.remembered.get(&revision)?;
        let header = ResponseHeader { cluster_id: 1, member_id: 1, revision: self.now, raft_term: 1 };
        Some(HashKvResponse { header: Some(header), hash, compact_revision, hash_revision: revision })
    }

    fn hashed(&self, revision: i64) -> i64 {
        if revision == 0 { self.now } else { revision }
    }
}
