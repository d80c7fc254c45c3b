// SPDX-License-Identifier: Apache-2.0
//! Where etcd 3.5.1 lets through what later releases, and Cairn, refuse.
//!
//! Owns      the list, by rule and advisory, and how often each came up.
//! Holds     a difference is allowed to a kind of request, and in one direction alone.

use cairn_proto::errors::{self, WireError};
use cairn_proto::etcdserverpb::{TxnRequest, request_op::Request};

use super::ask::{Answer, Ask};
use crate::answers::Failure;

/// One entry of the list.
#[derive(PartialEq, Eq, Debug)]
pub struct Difference {
    pub rule: &'static str,
    pub why: &'static str,
    /// Whether the request does something, so that it must be done on both.
    pub acts: bool,
}

const fn row(rule: &'static str, why: &'static str, acts: bool) -> Difference {
    Difference { rule, why, acts }
}

/// All of them.
pub const LISTED: &[Difference] = &[
    row("AU-3", "AuthStatus is open to everybody since 3.7", false),
    row("AU-14", "root is shown with all keys", false),
    row("AUTH-5", "nested transactions, and puts in transactions, are judged whole (CVE-2026-33343)", true),
    row("AUTH-7", "leases belong to users (CVE-2026-33413)", true),
    row("AUTH-8", "the keys on a lease are read by those who may (CVE-2023-32082)", true),
    row("AUTH-9", "a compaction is root's (CVE-2026-33413)", true),
    row("CL-9", "the list of members is for users (CVE-2026-33413)", true),
    row("MT-1", "status, alarms and hashes are for users and root (CVE-2026-33413)", true),
    row("WATCH-11", "3.5.1 gives every watch that it refuses the same reason", false),
    row("WATCH-13", "a watch with an open end needs an open grant (GHSA-xg4h-6gfc-h4m8)", false),
];

/// The list, with counts.
#[derive(Debug)]
pub struct Differences {
    counts: Vec<usize>,
}

impl Default for Differences {
    fn default() -> Differences {
        Differences { counts: vec![0; LISTED.len()] }
    }
}

const REFUSALS: [WireError; 3] = [errors::USER_EMPTY, errors::INVALID_AUTH_TOKEN, errors::PERMISSION_DENIED];

fn is_refusal(failure: &Failure) -> bool {
    REFUSALS.iter().any(|refusal| *failure == Failure::from(*refusal))
}

impl Differences {
    /// The entry under which these answers may differ; counts it.
    pub fn rule(&mut self, ask: &Ask, theirs: &Answer, ours: &Answer) -> Option<&'static Difference> {
        let stricter = ours.as_ref().is_err_and(is_refusal) && !theirs.as_ref().is_err_and(is_refusal);
        let rule = match ask {
            Ask::AuthStatus if theirs.is_err() && ours.is_ok() => "AU-3",
            Ask::RoleGet(role) if role == "root" && theirs.is_ok() && ours.is_ok() => "AU-14",
            Ask::Txn(r) if stricter && needs_walk(r) => "AUTH-5",
            Ask::Grant { .. } | Ask::Revoke { .. } | Ask::KeepAlive { .. } if stricter => "AUTH-7",
            Ask::TimeToLive { .. } | Ask::Leases if stricter => "AUTH-8",
            Ask::Compact if stricter => "AUTH-9",
            Ask::Members if stricter => "CL-9",
            Ask::Alarms | Ask::Disarm | Ask::MemberStatus | Ask::Hash if stricter => "MT-1",
            Ask::Watch(r) if r.range_end == b"\0"[..] && is_watch(theirs) && is_refused_watch(ours) => {
                "WATCH-13"
            }
            Ask::Watch(_) if is_refused_watch(theirs) && is_refused(ours) => "WATCH-11",
            _ => return None,
        };
        let at = LISTED.iter().position(|listed| listed.rule == rule).expect("it is listed");
        self.counts[at] += 1;
        Some(&LISTED[at])
    }

    pub fn occurrences(&self) -> impl Iterator<Item = (&'static Difference, usize)> {
        LISTED.iter().zip(self.counts.clone())
    }
}

/// Whether a transaction has what 3.5.1 does not look at: one inside, or a put that shows a value or is on a
/// lease.
fn needs_walk(r: &TxnRequest) -> bool {
    r.success.iter().chain(&r.failure).any(|op| match &op.request {
        Some(Request::RequestTxn(_)) => true,
        Some(Request::RequestPut(put)) => put.prev_kv || put.lease != 0,
        _ => false,
    })
}

fn is_watch(answer: &Answer) -> bool {
    answer.as_ref().is_ok_and(|text| text.contains("canceled: false"))
}

fn is_refused(answer: &Answer) -> bool {
    let reasons = [errors::CANCEL_USER_EMPTY, errors::CANCEL_INVALID_AUTH_TOKEN];
    answer.as_ref().is_ok_and(|text| reasons.iter().any(|reason| text.contains(reason.text)))
}

fn is_refused_watch(answer: &Answer) -> bool {
    answer.as_ref().is_ok_and(|text| text.contains(errors::CANCEL_PERMISSION_DENIED.text))
}
