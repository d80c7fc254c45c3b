// SPDX-License-Identifier: Apache-2.0
//! Keys and values as large as a request may be, through the server and over a restart.

use crate::support::{Daemon, run};
use bytes::Bytes;
use cairn_proto::etcdserverpb as pb;
use pb::kv_client::KvClient;
use tonic::{Code, transport::Channel};

/// What the member puts around a request that it writes to its log, at most.
const ENVELOPE_BYTES: usize = 64;

/// A pair whose key and value come to so many bytes; the share of the key is one in `of`, or one byte.
fn pair(bytes: usize, of: usize) -> (Bytes, Bytes) {
    let key_bytes = bytes.checked_div(of).unwrap_or(1);
    let key: Bytes = (0..key_bytes).map(|n| b'a' + (n % 23) as u8).collect();
    let value: Bytes = (0..bytes - key_bytes).map(|n| (n / 251) as u8).collect();
    (key, value)
}

async fn check(kv: &mut KvClient<Channel>, pairs: &[(Bytes, Bytes)]) {
    for (key, value) in pairs {
        let get = pb::RangeRequest { key: key.clone(), ..Default::default() };
        let answer = kv.range(get).await.expect("answers have no limit").into_inner();
        assert_eq!(answer.kvs.len(), 1, "a key of {} bytes", key.len());
        let found = &answer.kvs[0];
        assert!(found.key == key && found.value == value, "{} and {} bytes", key.len(), value.len());
    }
}

// rule: LIMIT-1, LIMIT-3
#[test]
fn a_pair_may_be_as_large_as_a_request_whatever_of_it_is_the_key() {
    run(async {
        for (limit, flags) in [(1_572_864, &[][..]), (16 << 20, &["--max-request-bytes=16777216"][..])] {
            let daemon = Daemon::start(flags);
            let mut kv = daemon.kv().await;
            let pairs = [0, 2, 1].map(|of| pair(limit - ENVELOPE_BYTES, of));
            for (key, value) in &pairs {
                let put = pb::PutRequest { key: key.clone(), value: value.clone(), ..Default::default() };
                kv.put(put.clone()).await.expect("a request within the limit");
                let more = Bytes::from([&value[..], &[0; ENVELOPE_BYTES]].concat());
                let error = kv.put(pb::PutRequest { value: more, ..put }).await.expect_err("one beyond it");
                let told = (error.code(), error.message());
                assert_eq!(told, (Code::InvalidArgument, "etcdserver: request is too large"));
            }
            check(&mut kv, &pairs).await;
            let daemon = Daemon::start_in(daemon.stop(), flags);
            let mut kv = daemon.kv().await;
            check(&mut kv, &pairs).await;
            let all = pb::DeleteRangeRequest { key: "a".into(), range_end: "b".into(), ..Default::default() };
            assert_eq!(kv.delete_range(all).await.expect("deletes").into_inner().deleted, 3);
        }
    });
}
