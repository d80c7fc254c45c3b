// SPDX-License-Identifier: Apache-2.0
//! The static checks of requests, as a table of small transactions.
//!
//! Owns      the notation: `p:k` puts, `d:k` deletes one key, `d:a-c` an interval, `d:a-` from a key on,
//!           `r:k` reads, `t(then|else)` nests; `?` is an operation that is not set.
//! Holds     every line names the answer that etcd gives.
//! Never     needs a store.

use bytes::Bytes;
use cairn_core::door::{
    TXN_DEPTH_MAX, TxnPath, check_put, check_range, check_range_stream, check_txn, txn_cost, txn_path,
};
use cairn_proto::{
    errors::{self, WireError},
    etcdserverpb::{
        Compare, DeleteRangeRequest, InternalRaftRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
        request_op::Request,
    },
};
use prost::Message;

fn bytes(text: &str) -> Bytes {
    Bytes::from(text.to_owned())
}

/// Parses a list of operations up to `|`, `)` or the end.
fn ops(text: &mut &str) -> Vec<RequestOp> {
    let mut list = Vec::new();
    loop {
        *text = text.trim_start();
        match text.chars().next() {
            None | Some('|' | ')') => return list,
            Some('?') => {
                *text = &text[1..];
                list.push(RequestOp { request: None });
            }
            Some('t') => {
                *text = &text[2..];
                let success = ops(text);
                *text = text.strip_prefix('|').expect("t(then|else)");
                let failure = ops(text);
                *text = text.strip_prefix(')').expect("t(then|else)");
                let txn = TxnRequest { compare: Vec::new(), success, failure };
                list.push(RequestOp { request: Some(Request::RequestTxn(txn)) });
            }
            Some(kind) => {
                let end = text.find([' ', '|', ')']).unwrap_or(text.len());
                let word = &text[2..end];
                *text = &text[end..];
                let key = bytes(word.split('-').next().expect("a key"));
                let range_end = match word.split_once('-') {
                    None => Bytes::new(),
                    Some((_, "")) => Bytes::from_static(b"\0"),
                    Some((_, end)) => bytes(end),
                };
                list.push(RequestOp {
                    request: Some(match kind {
                        'p' => Request::RequestPut(PutRequest { key, ..Default::default() }),
                        'd' => {
                            Request::RequestDeleteRange(DeleteRangeRequest { key, range_end, prev_kv: false })
                        }
                        'r' => Request::RequestRange(RangeRequest { key, range_end, ..Default::default() }),
                        's' => Request::RequestRange(RangeRequest {
                            key,
                            range_end,
                            serializable: true,
                            ..Default::default()
                        }),
                        other => panic!("no such operation: {other}"),
                    }),
                });
            }
        }
    }
}

fn txn(text: &str) -> TxnRequest {
    let mut rest = text;
    let success = ops(&mut rest);
    let failure = rest.strip_prefix('|').map(|mut rest| ops(&mut rest)).unwrap_or_default();
    TxnRequest { compare: Vec::new(), success, failure }
}

#[track_caller]
fn check(table: &str) {
    let mut lines = 0;
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (request, expected) = line.split_once("=>").expect("request => answer");
        let answer = match check_txn(&txn(request.trim()), 128) {
            Ok(()) => "ok",
            Err(refusal) if refusal == errors::DUPLICATE_KEY => "duplicate",
            Err(refusal) => refusal.text,
        };
        assert_eq!(answer, expected.trim(), "{line}");
        lines += 1;
    }
    assert!(lines > 1, "the table is empty");
}

// rule: TXN-20, TXN-21, TXN-28
#[test]
fn one_list_writes_a_key_once() {
    check(
        "p:a p:b => ok
         p:a p:a => duplicate
         p:a d:a => duplicate
         d:a p:a => duplicate
         d:a-c p:b => duplicate
         p:b d:a-c => duplicate
         d:a-c p:c => ok
         d:a-c p:a => duplicate
         d:a d:a p:aa => ok
         | p:a p:a => duplicate
         p:a | p:a => ok
         p:a | d:a => ok",
    );
}

// rule: TXN-22, TXN-23, TXN-25
#[test]
fn nested_writes_count_for_their_parent() {
    check(
        "p:a t(p:a|) => duplicate
         t(|p:a) p:a => duplicate
         d:a t(p:a|) => duplicate
         t(d:a|) p:a => duplicate
         t(|d:a-c) p:b => duplicate
         t(p:a|p:a) => ok
         t(p:a|d:a) => ok
         t(d:a|p:a) => ok
         d:a d:a-c r:a r:a => ok
         t(p:a|) t(p:a|) => duplicate
         t(p:a|) t(|p:a) => duplicate
         t(t(p:a|)|) p:a => duplicate
         t(p:a p:a|) => duplicate",
    );
}

// rule: TXN-24, TXN-26, TXN-33
#[test]
fn the_order_of_siblings_matters_and_from_key_deletes_do_not_count() {
    check(
        "t(d:a|) t(p:a|) => duplicate
         t(p:a|) t(d:a|) => ok
         t(d:a|p:a) t(p:a|) => duplicate
         d:a- p:b => ok
         p:b d:a- => ok
         t(d:a-|) p:b => ok
         d:c-a p:b => ok
         d:a d:a => ok",
    );
}

// rule: TXN-5, TXN-6, KV-6
#[test]
fn unset_operations_and_empty_keys_are_named() {
    check(
        " => ok
         ? => etcdserver: key not found
         t(|?) => etcdserver: key not found
         p: => etcdserver: key is not provided
         d: => etcdserver: key is not provided
         r: => etcdserver: key is not provided
         p:a p:a p: => etcdserver: key is not provided",
    );
    let compare = vec![Compare::default()];
    let request = TxnRequest { compare, ..txn("?") };
    assert_eq!(check_txn(&request, 128), Err(errors::EMPTY_KEY), "compares come before operations");
}

fn with_budget(ranges: usize, nested: Vec<TxnRequest>) -> TxnRequest {
    let range = || RequestOp {
        request: Some(Request::RequestRange(RangeRequest { key: bytes("k"), ..Default::default() })),
    };
    let mut success: Vec<RequestOp> = (0..ranges).map(|_| range()).collect();
    success.extend(nested.into_iter().map(|t| RequestOp { request: Some(Request::RequestTxn(t)) }));
    TxnRequest { success, ..Default::default() }
}

// rule: TXN-2, TXN-3
#[test]
fn a_nested_transaction_gets_what_its_parent_leaves() {
    let flat = |n| with_budget(n, Vec::new());
    let table: &[(TxnRequest, bool)] = &[
        (flat(128), true),
        (flat(129), false),
        (with_budget(126, vec![flat(1)]), true),
        (with_budget(126, vec![flat(2)]), false),
        (with_budget(127, vec![flat(0)]), true),
        (with_budget(0, vec![flat(127)]), true),
        (with_budget(0, vec![flat(128)]), false),
        (with_budget(0, vec![flat(126), flat(126)]), true),
    ];
    for (i, (request, passes)) in table.iter().enumerate() {
        let expected = if *passes { Ok(()) } else { Err(errors::TOO_MANY_OPS) };
        assert_eq!(check_txn(request, 128), expected, "line {i}");
    }
}

fn nested(depth: usize) -> TxnRequest {
    (0..depth).fold(txn("p:a"), |inner, _| with_budget(0, vec![inner]))
}

// rule: TXN-3, TXN-4
#[test]
fn the_deepest_accepted_transaction_is_decoded_from_its_log_form() {
    let deepest = nested(TXN_DEPTH_MAX);
    assert_eq!(check_txn(&deepest, 128), Ok(()));
    let request = InternalRaftRequest { txn: Some(deepest), ..Default::default() };
    let decoded = InternalRaftRequest::decode(&request.encode_to_vec()[..]);
    assert_eq!(decoded.as_ref(), Ok(&request));
    assert_eq!(check_txn(&nested(TXN_DEPTH_MAX + 1), 128), Err(errors::TOO_MANY_OPS));
}

// rule: PUT-3, KV-7, KV-29
#[test]
fn options_that_contradict_each_other_are_refused() {
    let put = |value: &str, ignore_value, lease, ignore_lease| {
        let (key, value) = (bytes("k"), bytes(value));
        check_put(&PutRequest { key, value, lease, prev_kv: false, ignore_value, ignore_lease })
    };
    assert_eq!(put("v", true, 0, false), Err(errors::VALUE_PROVIDED));
    assert_eq!(put("", true, 7, true), Err(errors::LEASE_PROVIDED));
    assert_eq!(put("", true, 0, true), Ok(()));

    let range = |order, target| RangeRequest {
        key: bytes("k"),
        sort_order: order,
        sort_target: target,
        ..Default::default()
    };
    assert_eq!(check_range(&range(3, 0)), Err(errors::INVALID_SORT_OPTION));
    assert_eq!(check_range(&range(0, 5)), Err(errors::INVALID_SORT_OPTION));
    assert_eq!(check_range(&range(2, 4)), Ok(()));

    let stream = |r: RangeRequest| check_range_stream(&r).err().map(|e: WireError| e.text);
    assert_eq!(stream(range(0, 0)), None);
    assert_eq!(stream(range(1, 0)), None);
    assert_eq!(stream(range(2, 0)), Some("RangeStream does not support custom sort orders"));
    assert_eq!(stream(range(0, 2)), Some("RangeStream does not support custom sort orders"));
    let filtered = RangeRequest { max_mod_revision: -1, ..range(0, 0) };
    assert_eq!(stream(filtered), Some("RangeStream does not support revision filters"));
}

// rule: TXN-29, TXN-30, TXN-31
#[test]
fn only_transactions_of_plain_ranges_stay_out_of_the_log() {
    let table = [
        ("r:a | r:b", TxnPath::Linearizable),
        ("s:a | s:b", TxnPath::Serializable),
        ("s:a | r:b", TxnPath::Linearizable),
        ("", TxnPath::Linearizable),
        ("t(s:a|)", TxnPath::Propose),
        ("s:a | p:b", TxnPath::Propose),
        ("d:a", TxnPath::Propose),
    ];
    for (request, path) in table {
        assert_eq!(txn_path(&txn(request)), path, "{request}");
    }
}

// rule: ALARM-1
#[test]
fn a_transaction_costs_its_dearer_branch() {
    assert_eq!(txn_cost(&txn("p:abc d:a r:a")), 259);
    assert_eq!(txn_cost(&txn("p:a | p:b p:c")), 2 * 257);
    assert_eq!(txn_cost(&txn("p:a t(p:b|p:cc p:d) |")), 257 + 258 + 257);
    assert_eq!(txn_cost(&txn("d:a | r:b")), 0);
}

#[test]
fn the_work_grows_with_the_request_and_not_with_its_square() {
    // Two lists of siblings, each writing many keys and deleting many intervals.
    let leaf = |n: usize| {
        let puts: Vec<String> = (0..63).map(|i| format!("p:x{n:05}{i:02}")).collect();
        let dels: Vec<String> = (0..63).map(|i| format!("d:y{n:05}{i:02}-y{n:05}{i:02}z")).collect();
        txn(&format!("{} {}", puts.join(" "), dels.join(" ")))
    };
    let request = with_budget(
        0,
        (0..2).map(|i| with_budget(0, (0..100).map(|j| leaf(i * 100 + j)).collect())).collect(),
    );
    assert_eq!(check_txn(&request, 256), Ok(()));
}
