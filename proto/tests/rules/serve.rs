// SPDX-License-Identifier: Apache-2.0
//! The two sets of types put the same bytes on the wire, and read each other's.

use bytes::Bytes;
use cairn_proto::etcdserverpb::{self as plain, ResponseHeader};
use cairn_proto::mvccpb::{Event, KeyValue, event::EventType};
use cairn_proto::{serve, v3electionpb};
use prost::Message;

fn header() -> Option<ResponseHeader> {
    Some(ResponseHeader { cluster_id: u64::MAX, member_id: 7, revision: 42, raft_term: 3 })
}

fn pairs() -> Vec<KeyValue> {
    vec![
        KeyValue {
            key: "k1".into(),
            create_revision: 2,
            mod_revision: 42,
            version: 9,
            value: Bytes::from(vec![0, 255, 1]),
            lease: -1,
        },
        KeyValue { key: "k2".into(), mod_revision: 1, ..KeyValue::default() },
    ]
}

fn raw(kvs: &[KeyValue]) -> Vec<Bytes> {
    kvs.iter().map(|kv| kv.encode_to_vec().into()).collect()
}

trait Wire: Message + Default + PartialEq + std::fmt::Debug {}
impl<T: Message + Default + PartialEq + std::fmt::Debug> Wire for T {}

/// Same bytes both ways: `a` and `b` encode alike, and each reads the other's.
fn check<A: Wire, B: Wire>(a: &A, b: &B) {
    let bytes = a.encode_to_vec();
    assert_eq!(bytes, b.encode_to_vec());
    assert_eq!(&A::decode(bytes.as_slice()).expect("own bytes"), a);
    assert_eq!(&B::decode(bytes.as_slice()).expect("the other's bytes"), b);
}

fn range(kvs: Vec<KeyValue>) -> (plain::RangeResponse, serve::RangeResponse) {
    let raw = raw(&kvs);
    (
        plain::RangeResponse { header: header(), kvs, more: true, count: 5 },
        serve::RangeResponse { header: header(), kvs: raw, more: true, count: 5 },
    )
}

#[test]
fn a_range_response_is_the_same_bytes() {
    for kvs in [vec![], pairs(), vec![KeyValue::default()]] {
        let (a, b) = range(kvs);
        check(&a, &b);
        check(
            &plain::RangeStreamResponse { range_response: Some(a) },
            &serve::RangeStreamResponse { range_response: Some(b) },
        );
    }
}

#[test]
fn a_put_response_is_the_same_bytes_and_an_unset_prev_kv_is_absent() {
    let prev = pairs().swap_remove(0);
    check(
        &plain::PutResponse { header: header(), prev_kv: Some(prev.clone()) },
        &serve::PutResponse { header: header(), prev_kv: prev.encode_to_vec().into() },
    );
    check(
        &plain::PutResponse { header: None, prev_kv: None },
        &serve::PutResponse { header: None, prev_kv: Bytes::new() },
    );
    assert_eq!(serve::PutResponse::default().encoded_len(), 0);
}

#[test]
fn a_delete_response_is_the_same_bytes() {
    check(
        &plain::DeleteRangeResponse { header: header(), deleted: 2, prev_kvs: pairs() },
        &serve::DeleteRangeResponse { header: header(), deleted: 2, prev_kvs: raw(&pairs()) },
    );
}

#[test]
fn a_nested_txn_response_is_the_same_bytes() {
    use plain::response_op::Response as P;
    use serve::response_op::Response as S;
    let (range_a, range_b) = range(pairs());
    let mut a = plain::TxnResponse {
        header: Some(ResponseHeader::default()),
        succeeded: false,
        responses: vec![plain::ResponseOp { response: Some(P::ResponseRange(range_a)) }],
    };
    let mut b = serve::TxnResponse {
        header: Some(ResponseHeader::default()),
        succeeded: false,
        responses: vec![serve::ResponseOp { response: Some(S::ResponseRange(range_b)) }],
    };
    for _ in 0..3 {
        a = plain::TxnResponse {
            header: header(),
            succeeded: true,
            responses: vec![
                plain::ResponseOp { response: None },
                plain::ResponseOp { response: Some(P::ResponseTxn(a)) },
            ],
        };
        b = serve::TxnResponse {
            header: header(),
            succeeded: true,
            responses: vec![
                serve::ResponseOp { response: None },
                serve::ResponseOp { response: Some(S::ResponseTxn(b)) },
            ],
        };
    }
    check(&a, &b);
}

#[test]
fn a_watch_response_is_the_same_bytes() {
    let [kv, prev]: [KeyValue; 2] = pairs().try_into().expect("two pairs");
    let mut delete = Event { kv: Some(prev.clone()), prev_kv: None, ..Event::default() };
    delete.set_type(EventType::Delete);
    let events = vec![Event { kv: Some(kv), prev_kv: Some(prev), ..Event::default() }, delete];
    let raw = events.iter().map(|e| e.encode_to_vec().into()).collect();
    check(
        &plain::WatchResponse {
            header: header(),
            watch_id: -1,
            created: true,
            canceled: true,
            compact_revision: 9,
            cancel_reason: "why".into(),
            fragment: true,
            events,
        },
        &serve::WatchResponse {
            header: header(),
            watch_id: -1,
            created: true,
            canceled: true,
            compact_revision: 9,
            cancel_reason: "why".into(),
            fragment: true,
            events: raw,
        },
    );
}

#[test]
fn a_leader_response_is_the_same_bytes() {
    let kv = pairs().swap_remove(0);
    check(
        &v3electionpb::LeaderResponse { header: header(), kv: Some(kv.clone()) },
        &serve::LeaderResponse { header: header(), kv: kv.encode_to_vec().into() },
    );
}
